# SPDX-License-Identifier: Apache-2.0
"""bypath-snat's programs with two networks configured, and packets of their pods."""

from __future__ import annotations

import ipaddress
import struct
import time
from typing import Any, NamedTuple

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from snat import layout

from tests.progs.run import UNSPEC, Loaded, Ran, test_run

NODE, REMOTE, CLUSTER_PEER = "192.0.2.11", "198.51.100.1", "10.244.2.9"
POD, OTHER_POD, IPVLAN_POD = "10.244.1.5", "10.244.1.6", "10.244.1.7"
SMALL_PODS = ("10.245.1.5", "10.245.1.6")  # of the network with 64 ports
STRANGER = "10.250.1.1"  # not a pod
NETWORK, SMALL_NETWORK = 7, 8
PORTS, SMALL_PORTS = range(1024, 30000), range(2000, 2064)
NOTRACK = 0x00200000
PROTOCOLS = {TCP: 6, UDP: 17, ICMP: 1}


class Devices(NamedTuple):
    """Interface indices in the namespace of the tests."""

    uplink: int
    veth: int


def address(text: str) -> bytes:
    return ipaddress.IPv4Address(text).packed


def port(number: int) -> bytes:
    return number.to_bytes(2, "big")


def tuple_of(src: str, dst: str, sport: int, dport: int, proto: int) -> bytes:
    return layout.TUPLE.pack(address(src), address(dst), port(sport), port(dport), proto)


def frame(packet: Packet) -> bytes:
    """With an Ethernet header, lengths and all checksums computed."""
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet)


def parse(raw: bytes) -> Packet:
    found: Packet = Ether(raw)[IP]
    return found


def tcp(src: str, dst: str, sport: int, dport: int, flags: str = "S", load: bytes = b"") -> Packet:
    return IP(src=src, dst=dst, id=77) / TCP(sport=sport, dport=dport, flags=flags, seq=1000) / load


def with_ports(raw: bytes, sport: int, dport: int) -> bytes:
    """A TCP or UDP frame with other ports and a stale checksum, without scapy's milliseconds."""
    return raw[:34] + port(sport) + port(dport) + raw[38:]


def ports_of(raw: bytes) -> tuple[int, int]:
    """Source and destination."""
    return int.from_bytes(raw[34:36], "big"), int.from_bytes(raw[36:38], "big")


def udp(src: str, dst: str, sport: int, dport: int, load: bytes = b"question") -> Packet:
    return IP(src=src, dst=dst, id=77) / UDP(sport=sport, dport=dport) / load


def echo(src: str, dst: str, ident: int, reply: bool = False) -> Packet:
    return IP(src=src, dst=dst, id=77) / ICMP(type=0 if reply else 8, id=ident, seq=3) / b"ping"


class SnatBench:
    """Maps emptied and configured anew for each test; counters start at zero."""

    def __init__(self, loaded: Loaded, devices: Devices) -> None:
        self.loaded = loaded
        self.devices = devices
        self.tables = loaded.tables
        for name in ("pods", "networks", "nomasq", "uplinks", "fwd", "rev", "frags", "stackflow"):
            self.tables[name].clear()
        for number in range(len(layout.STATS)):
            self.tables["snat_stats"].zero_per_cpu(layout.U32.pack(number))
        self.add_network(NETWORK, PORTS, "10.244.0.0/16", "192.0.2.0/24")
        self.add_network(SMALL_NETWORK, SMALL_PORTS, "10.245.0.0/16")
        for pod, network, veth in (
            (POD, NETWORK, 4),
            (OTHER_POD, NETWORK, 5),
            (IPVLAN_POD, NETWORK, 0),
            *((pod, SMALL_NETWORK, 6) for pod in SMALL_PODS),
        ):
            self.tables["pods"][address(pod)] = layout.POD.pack(network, veth, 1)
        self.tables["uplinks"][layout.U32.pack(devices.uplink)] = layout.UPLINK.pack(address(NODE))

    def add_network(self, network: int, ports: range, *nomasq: str) -> None:
        self.tables["networks"][layout.U32.pack(network)] = layout.NETWORK.pack(ports[0], ports[-1], 0, 0)
        for cidr in map(ipaddress.IPv4Network, nomasq):
            key = layout.pack_nomasq(network, cidr.network_address.packed, cidr.prefixlen)
            self.tables["nomasq"][key] = layout.U32.pack(1)

    def run(self, program: str, packet: bytes, **options: Any) -> Ran:
        ifindex = self.devices.uplink if program.startswith("nic") else self.devices.veth
        return test_run(self.loaded.programs[program], packet, ifindex=ifindex, **options)

    def out(self, packet: Packet, **options: Any) -> Packet:
        """What of a pod's packet reaches the wire; it must not be dropped."""
        ran = self.run("nic_out", frame(packet), **options)
        assert ran.verdict == UNSPEC
        return parse(ran.packet)

    def back(self, packet: Packet, **options: Any) -> Packet:
        ran = self.run("nic_in", frame(packet), **options)
        assert ran.verdict == UNSPEC
        return parse(ran.packet)

    def mark_of(self, program: str, packet: Packet, mark: int = 0) -> int:
        """The mark after pod_in or pod_out, which never change or drop the packet."""
        ran = self.run(program, frame(packet), mark=mark)
        assert (ran.verdict, ran.packet) == (UNSPEC, frame(packet))
        return ran.mark

    def stats(self) -> dict[str, int]:
        """The counters that are not zero."""
        found = {}
        for number, name in enumerate(layout.STATS):
            values = self.tables["snat_stats"].per_cpu(layout.U32.pack(number))
            found[name] = sum(struct.unpack("=Q", value)[0] for value in values)
        return {name: count for name, count in found.items() if count}

    def owner(self, nat_port: int, dport: int, proto: int, remote: str = REMOTE) -> dict[str, Any]:
        return layout.OWNER.named(self.tables["rev"][tuple_of(remote, NODE, dport, nat_port, proto)])

    def occupy(
        self,
        nat_port: int,
        dport: int,
        proto: int,
        *,
        state: int = 0,
        idle_sec: float = 0,
        pod: str = OTHER_POD,
        pod_port: int = 9,
        remote: str = REMOTE,
    ) -> bytes:
        """Another pod's session on a port, last used some time ago; returns its reverse key."""
        key = tuple_of(remote, NODE, dport, nat_port, proto)
        # Before the machine's start as well: ages are differences modulo 2^64.
        seen_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - int(idle_sec * 1e9)
        self.tables["rev"][key] = layout.OWNER.pack(address(pod), port(pod_port), state, seen_ns % (1 << 64))
        return key

    def touch(self, nat_port: int, dport: int, proto: int, *, idle_sec: float, remote: str = REMOTE) -> None:
        """Make a session look unused for so long."""
        key = tuple_of(remote, NODE, dport, nat_port, proto)
        pod, pod_port, state, seen_ns = layout.OWNER.unpack(self.tables["rev"][key])
        self.tables["rev"][key] = layout.OWNER.pack(pod, pod_port, state, (seen_ns - int(idle_sec * 1e9)) % (1 << 64))
