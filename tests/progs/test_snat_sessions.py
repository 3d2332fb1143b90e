# SPDX-License-Identifier: Apache-2.0
"""nic_out and nic_in: whole packets there and back, and the sessions behind them."""

from __future__ import annotations

import time

import pytest
from scapy.layers.inet import ICMP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw
from snat import layout

from tests.progs.run import UNSPEC
from tests.progs.snat_bench import (
    CLUSTER_PEER,
    IPVLAN_POD,
    NETWORK,
    NODE,
    NOTRACK,
    OTHER_POD,
    POD,
    REMOTE,
    SMALL_PODS,
    STRANGER,
    SnatBench,
    address,
    echo,
    frame,
    parse,
    port,
    tcp,
    tuple_of,
    udp,
)

pytestmark = pytest.mark.feature("snat programs")


def same(found: Packet, wanted: Packet) -> None:
    """The whole packet, checksums included."""
    assert bytes(found) == frame(wanted)[14:], f"{found.summary()} is not {wanted.summary()}"


@pytest.mark.parametrize("make, proto", [(tcp, 6), (udp, 17)])
def test_a_flow_keeps_a_source_port_in_range_there_and_back(snat: SnatBench, make: type, proto: int) -> None:
    same(snat.out(make(POD, REMOTE, 4000, 80)), make(NODE, REMOTE, 4000, 80))
    assert len(snat.tables["fwd"]) == len(snat.tables["rev"]) == 1
    session = layout.SESSION.named(snat.tables["fwd"][tuple_of(POD, REMOTE, 4000, 80, proto)])
    assert session == {"nat_addr_be": address(NODE), "nat_port_be": port(4000), "network_id": NETWORK}
    owner = snat.owner(4000, 80, proto)
    assert (owner["pod_addr_be"], owner["pod_port_be"], owner["state"]) == (address(POD), port(4000), 0)
    assert abs(time.clock_gettime_ns(time.CLOCK_MONOTONIC) - owner["last_seen_ns"]) < 1e9
    same(snat.back(make(REMOTE, NODE, 80, 4000)), make(REMOTE, POD, 80, 4000))
    assert snat.owner(4000, 80, proto)["state"] == layout.REPLIED
    assert snat.stats() == {"session_new": 1, "port_kept": 1, "translated_out": 1, "translated_in": 1}


@pytest.mark.parametrize("make", [tcp, udp])
def test_a_source_port_out_of_range_is_changed_there_and_back(snat: SnatBench, make: type) -> None:
    out = snat.out(make(POD, REMOTE, 40000, 443))
    nat_port = out.sport
    assert 1024 <= nat_port <= 29999
    same(out, make(NODE, REMOTE, nat_port, 443))
    same(snat.back(make(REMOTE, NODE, 443, nat_port)), make(REMOTE, POD, 443, 40000))
    assert snat.out(make(POD, REMOTE, 40000, 443)).sport == nat_port, "the next packet has another port"


def test_an_echo_is_translated_by_its_identifier(snat: SnatBench) -> None:
    same(snat.out(echo(POD, REMOTE, 5000)), echo(NODE, REMOTE, 5000))
    same(snat.back(echo(REMOTE, NODE, 5000, reply=True)), echo(REMOTE, POD, 5000, reply=True))
    changed = snat.out(echo(POD, REMOTE, 50000))
    assert 1024 <= changed[ICMP].id <= 29999
    same(changed, echo(NODE, REMOTE, changed[ICMP].id))
    same(snat.back(echo(REMOTE, NODE, changed[ICMP].id, reply=True)), echo(REMOTE, POD, 50000, reply=True))


def test_a_udp_checksum_of_zero_stays_zero(snat: SnatBench) -> None:
    packet = udp(POD, REMOTE, 40000, 53)
    packet[UDP].chksum = 0
    out = snat.out(packet)
    assert out[UDP].chksum == 0
    answer = udp(REMOTE, NODE, 53, out.sport)
    answer[UDP].chksum = 0
    wanted = udp(REMOTE, POD, 53, 40000)
    wanted[UDP].chksum = 0
    same(snat.back(answer), wanted)


def test_a_udp_checksum_that_becomes_zero_is_sent_as_ones(snat: SnatBench) -> None:
    wanted = udp(NODE, REMOTE, 4000, 53, b"\0\0")
    wanted[UDP].chksum = 0
    base = parse(frame(udp(NODE, REMOTE, 4000, 53, b"\0\0")))[UDP].chksum
    load = base.to_bytes(2, "big")  # brings the sum to ffff, whose complement is zero
    out = snat.out(udp(POD, REMOTE, 4000, 53, load))
    assert out[UDP].chksum == 0xFFFF
    same(out, udp(NODE, REMOTE, 4000, 53, load))


def test_ip_options_are_stepped_over(snat: SnatBench) -> None:
    def with_options(packet: Packet) -> Packet:
        packet.options = [IPOption_Router_Alert(), IPOption_Router_Alert()]
        return packet

    same(snat.out(with_options(tcp(POD, REMOTE, 40000, 80))), with_options(tcp(NODE, REMOTE, snat_port(snat), 80)))
    same(snat.back(with_options(tcp(REMOTE, NODE, 80, snat_port(snat)))), with_options(tcp(REMOTE, POD, 80, 40000)))


def snat_port(snat: SnatBench) -> int:
    """The only session's port on the wire."""
    (value,) = [value for _, value in snat.tables["fwd"].items()]
    return int.from_bytes(layout.SESSION.named(value)["nat_port_be"], "big")


def test_a_gso_packet_is_translated_like_any_other(snat: SnatBench) -> None:
    packet = tcp(POD, REMOTE, 40000, 80, "A", b"x" * 2800)
    ran = snat.run("nic_out", frame(packet), gso=(2, 1400), wire_len=2994)
    same(parse(ran.packet), tcp(NODE, REMOTE, snat_port(snat), 80, "A", b"x" * 2800))


def test_only_our_bit_of_the_mark_is_touched(snat: SnatBench) -> None:
    assert snat.run("nic_out", frame(tcp(POD, REMOTE, 4000, 80)), mark=0xFFFFFFFF).mark == 0xFFFFFFFF & ~NOTRACK
    assert snat.run("nic_out", frame(tcp(STRANGER, REMOTE, 1, 2)), mark=NOTRACK | 0x4000).mark == 0x4000
    assert snat.run("nic_in", frame(tcp(REMOTE, NODE, 80, 4000)), mark=0x8000).mark == 0x8000 | NOTRACK
    assert snat.run("nic_in", frame(tcp(REMOTE, NODE, 80, 4001)), mark=0x8000).mark == 0x8000


@pytest.mark.parametrize("dst", [CLUSTER_PEER, "192.0.2.40", "224.0.0.251", "255.255.255.255"])
def test_what_is_not_to_be_masqueraded_passes_untouched(snat: SnatBench, dst: str) -> None:
    same(snat.out(udp(POD, dst, 4000, 80)), udp(POD, dst, 4000, 80))
    assert len(snat.tables["rev"]) == 0


def test_each_network_has_its_own_exceptions(snat: SnatBench) -> None:
    assert snat.out(tcp(SMALL_PODS[0], CLUSTER_PEER, 2001, 80)).src == NODE
    assert snat.out(tcp(SMALL_PODS[0], "10.245.9.9", 2001, 80)).src == SMALL_PODS[0]
    assert snat.out(tcp(POD, "10.245.9.9", 2001, 80)).src == NODE


def test_what_no_pod_sent_passes_untouched(snat: SnatBench) -> None:
    same(snat.out(tcp(STRANGER, REMOTE, 4000, 80)), tcp(STRANGER, REMOTE, 4000, 80))
    same(snat.back(tcp(REMOTE, NODE, 80, 4000)), tcp(REMOTE, NODE, 80, 4000))
    assert snat.stats() == {}


def test_a_nic_without_an_address_and_a_network_without_settings_are_counted(snat: SnatBench) -> None:
    del snat.tables["networks"][layout.U32.pack(NETWORK)]
    assert snat.out(tcp(POD, REMOTE, 4000, 80)).src == POD
    snat.tables["uplinks"].clear()
    assert snat.out(tcp(POD, REMOTE, 4000, 80)).src == POD
    assert snat.stats() == {"skip_network": 1, "skip_uplink": 1}


@pytest.mark.parametrize("program", ["nic_out", "nic_in", "pod_in", "pod_out"])
def test_foreign_frames_pass_untouched(snat: SnatBench, program: str) -> None:
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    for packet in (
        ether / ARP(pdst="192.0.2.1"),
        ether / Dot1Q(vlan=5) / tcp(POD, REMOTE, 4000, 80),
        ether / Dot1Q(vlan=0) / Dot1Q(vlan=9) / tcp(POD, REMOTE, 4000, 80),
        ether / Dot1Q(vlan=0) / Dot1Q(vlan=0) / Dot1Q(vlan=0) / tcp(POD, REMOTE, 4000, 80),
        Ether(bytes(ether)[:12] + b"\x86\xdd" + bytes(60)),
    ):
        ran = snat.run(program, bytes(packet), mark=0x4000)
        assert (ran.verdict, ran.packet, ran.mark) == (UNSPEC, bytes(packet), 0x4000)
    assert len(snat.tables["rev"]) == len(snat.tables["stackflow"]) == 0


def test_a_priority_tag_is_stepped_over(snat: SnatBench) -> None:
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / Dot1Q(vlan=0, prio=3)
    ran = snat.run("nic_out", bytes(ether / tcp(POD, REMOTE, 4000, 80)))
    assert ran.packet == bytes(ether / tcp(NODE, REMOTE, 4000, 80))


# Newer kernels refuse to run a program on less than an IPv4 header behind its EtherType, but not behind a tag.
@pytest.mark.parametrize("tag, shortest", [(b"", 34), (b"\x81\x00\0\0", 14)])
@pytest.mark.parametrize("program", ["nic_out", "nic_in", "pod_in", "pod_out"])
@pytest.mark.parametrize("make", [tcp, udp, echo])
def test_a_packet_cut_anywhere_passes_untouched(
    snat: SnatBench, program: str, make: type, tag: bytes, shortest: int
) -> None:
    ports = (4000,) if make is echo else (4000, 80)
    whole = frame(make(POD, REMOTE, *ports) if program in ("nic_out", "pod_in") else make(REMOTE, NODE, *ports))
    whole = whole[:12] + tag + whole[12:]
    needed = 14 + len(tag) + 20 + (20 if make is tcp else 8)
    for length in range(shortest, needed):
        ran = snat.run(program, whole[:length], mark=0x4000)
        assert (ran.verdict, ran.packet, ran.mark) == (UNSPEC, whole[:length], 0x4000), f"cut at {length}"
    assert len(snat.tables["rev"]) == len(snat.tables["stackflow"]) == 0
    assert snat.stats() == {"skip_truncated": needed - shortest}


def test_a_protocol_without_ports_passes_untouched_and_is_counted(snat: SnatBench) -> None:
    packet = tcp(POD, REMOTE, 4000, 80)
    packet.proto = 132
    packet.remove_payload()
    same(snat.out(packet / Raw(b"sctp" * 4)), packet / Raw(b"sctp" * 4))
    assert snat.stats() == {"skip_proto": 1}


def test_the_states_of_a_tcp_connection_are_followed(snat: SnatBench) -> None:
    def state() -> int:
        return int(snat.owner(4000, 80, 6)["state"])

    snat.out(tcp(POD, REMOTE, 4000, 80))
    assert state() == 0
    snat.back(tcp(REMOTE, NODE, 80, 4000, "SA"))
    assert state() == layout.REPLIED
    snat.out(tcp(POD, REMOTE, 4000, 80, "FA"))
    assert state() == layout.REPLIED | layout.FIN_OUT
    snat.back(tcp(REMOTE, NODE, 80, 4000, "FA"))
    assert state() == layout.REPLIED | layout.FIN_OUT | layout.FIN_IN
    snat.out(tcp(POD, REMOTE, 4000, 80))
    assert state() == 0, "a new SYN on a closed session opens it again"
    snat.back(tcp(REMOTE, NODE, 80, 4000, "RA"))
    assert state() == layout.REPLIED | layout.RESET


def test_a_udp_flow_is_assured_when_the_pod_goes_on_after_an_answer(snat: SnatBench) -> None:
    snat.out(udp(POD, REMOTE, 4000, 53))
    snat.out(udp(POD, REMOTE, 4000, 53))
    assert snat.owner(4000, 53, 17)["state"] == 0
    snat.back(udp(REMOTE, NODE, 53, 4000))
    snat.out(udp(POD, REMOTE, 4000, 53))
    assert snat.owner(4000, 53, 17)["state"] == layout.REPLIED | layout.ASSURED


def test_replies_to_a_peer_that_reached_an_ipvlan_pod_directly_keep_their_address(snat: SnatBench) -> None:
    same(snat.back(tcp(REMOTE, IPVLAN_POD, 5555, 80)), tcp(REMOTE, IPVLAN_POD, 5555, 80))
    assert list(snat.tables["stackflow"]) == [tuple_of(REMOTE, IPVLAN_POD, 5555, 80, 6)]
    same(snat.out(tcp(IPVLAN_POD, REMOTE, 80, 5555, "SA")), tcp(IPVLAN_POD, REMOTE, 80, 5555, "SA"))
    same(snat.out(echo(IPVLAN_POD, REMOTE, 9, reply=True)), echo(IPVLAN_POD, REMOTE, 9, reply=True))
    assert snat.out(tcp(IPVLAN_POD, REMOTE, 80, 5555, "S")).src == NODE, "a SYN is no reply"
    assert snat.stats()["skip_reply"] == 2


def test_another_pods_flow_to_the_same_peer_gets_another_port(snat: SnatBench) -> None:
    snat.out(tcp(POD, REMOTE, 4000, 80))
    other = snat.out(tcp(OTHER_POD, REMOTE, 4000, 80)).sport
    assert other != 4000
    assert snat.back(tcp(REMOTE, NODE, 80, 4000)).dst == POD
    assert snat.back(tcp(REMOTE, NODE, 80, other)).dst == OTHER_POD
    assert snat.back(tcp(REMOTE, NODE, 80, other))[TCP].dport == 4000
    assert snat.out(tcp(OTHER_POD, REMOTE, 4000, 81)).sport == 4000, "to another peer the port is free"
