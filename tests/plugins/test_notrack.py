# SPDX-License-Identifier: Apache-2.0
"""The nft table of bypath-snat on a node: which packets nf_conntrack sees. The table itself: test_notrack_table.py."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import sys

import pytest
from snat import notrack

from tests.lab.fabric import ECHO_PORT, OUTSIDE_IP, ROUTER_IP, Fabric
from tests.lab.inside import inside
from tests.lab.node import Node

pytestmark = [pytest.mark.feature("snat notrack"), pytest.mark.needs("nf_tables", "conntrack")]

NODE_NETWORK = [(socket.inet_aton("192.0.2.0"), 24)]
ECHO = """
import socket, sys
own, own_port, other, other_port = sys.argv[1:]
s = socket.socket(type=socket.SOCK_DGRAM)
s.settimeout(10)
s.bind((own, int(own_port)))
s.sendto(b"ask", (other, int(other_port)))
print(s.recv(99).decode())
"""
COUNTING = """
table inet counting {
    counter untracked { }
    counter tracked { }
    chain forward {
        type filter hook forward priority 0;
        ct state untracked counter name untracked
        ct state new,established counter name tracked
    }
}
"""


def packed(*addresses: str) -> list[bytes]:
    return [socket.inet_aton(address) for address in addresses]


def networks(*cidrs: str) -> list[tuple[bytes, int]]:
    return [(net.network_address.packed, net.prefixlen) for net in map(ipaddress.ip_network, cidrs)]


def tracked(node: Node) -> set[tuple[str, str, int]]:
    """(source, destination, source port or 0) of each connection in the node's nf_conntrack, as it was opened."""
    found = set()
    for line in node.run("conntrack -L 2>/dev/null").stdout.splitlines():
        source, destination = re.search(r"src=(\S+) dst=(\S+)", line).groups()  # type: ignore[union-attr]
        port = re.search(r"sport=(\d+)", line)
        found.add((source, destination, int(port.group(1)) if port else 0))
    return found


def forget(node: Node) -> None:
    node.run("conntrack -F 2>/dev/null")


def track(node: Node) -> None:
    """Makes conntrack look at all packets, and counts what it looked at."""
    node.run(["nft", "-f", "-"], input=COUNTING)


def counted(node: Node, name: str) -> int:
    found = json.loads(node.run(["nft", "-j", "list", "counter", "inet", "counting", name]).stdout)["nftables"]
    return int(next(item["counter"]["packets"] for item in found if "counter" in item))


def add_pod(node: Node, fabric: Fabric) -> None:
    """10.244.1.2, behind a veth, known to the router."""
    node.add_pod_netns("pod1")
    node.run(
        "ip link add pod1 type veth peer name eth0 netns pod1; ip address add 10.244.1.1/24 dev pod1;"
        "ip link set pod1 up; ip -n pod1 address add 10.244.1.2/24 dev eth0; ip -n pod1 link set eth0 up;"
        "ip -n pod1 route add default via 10.244.1.1"
    )
    fabric.route_pods("10.244.1.0/24", 1)


def mark_as_the_programs_do(node: Node, marks: dict[int, int]) -> None:
    """Marks UDP by the pod's port before priority raw, in both directions."""
    lines = [f"udp {end} {port} meta mark set {mark}" for port, mark in marks.items() for end in ("sport", "dport")]
    chain = ["chain c {", "type filter hook prerouting priority -310;", *lines, "}"]
    node.run(["nft", "-f", "-"], input="\n".join(["table ip marking {", *chain, "}"]))


def echo_from(node: Node, own: str, port: int, pod: str | None = None, other: str = OUTSIDE_IP) -> str:
    argv = [sys.executable, "-c", ECHO, own, str(port), other, str(ECHO_PORT)]
    return (node.pod_run(pod, argv) if pod else node.run(argv)).stdout.strip()


def test_only_packets_with_our_bit_in_their_mark_escape_conntrack(node: Node, fabric: Fabric) -> None:
    marks = {7001: 0, 7002: 0x200000, 7003: 0x4000, 7004: 0x204000, 7005: 0x400000, 7006: 0xFFFFFFFF}
    add_pod(node, fabric)
    track(node)
    mark_as_the_programs_do(node, marks)
    ports = [echo_from(node, "10.244.1.2", port, "pod1").split()[1] for port in marks]
    assert ports == [str(port) for port in marks]
    assert {port for _, _, port in tracked(node)} == set(marks), "without the table all are tracked"
    assert counted(node, "untracked") == 0
    forget(node)
    assert inside(node, notrack.ensure, NODE_NETWORK) is True
    for port in marks:
        echo_from(node, "10.244.1.2", port, "pod1")
    assert {port for _, _, port in tracked(node)} == {7001, 7003, 7005}
    assert counted(node, "untracked") == 2 * 3


def test_a_pods_packets_that_leave_by_the_output_hook_escape_unless_they_go_to_nomasq(
    node: Node, fabric: Fabric
) -> None:
    node.run("ip address add 10.244.1.50/32 dev lo; ip address add 10.244.1.51/32 dev lo")
    fabric.route_pods("10.244.1.0/24", 1)
    track(node)
    node.run(
        "nft add table ip marking; nft add chain ip marking c '{ type filter hook prerouting priority -310; }';"
        "nft add rule ip marking c ip daddr 10.244.1.0/24 meta mark set 0x200000"
    )
    inside(node, notrack.ensure, NODE_NETWORK)
    inside(node, notrack.add_pod, packed("10.244.1.50"))

    def seen() -> set[tuple[str, str]]:
        forget(node)
        for source in ("10.244.1.50", "10.244.1.51", "192.0.2.11"):
            for destination in (OUTSIDE_IP, ROUTER_IP):
                node.run(["ping", "-c1", "-W5", "-I", source, destination])
            echo_from(node, source, 7001)
        return {(source, destination) for source, destination, _ in tracked(node)}

    others = {(source, to) for source in ("10.244.1.51", "192.0.2.11") for to in (OUTSIDE_IP, ROUTER_IP)}
    assert seen() == others | {("10.244.1.50", ROUTER_IP)}
    inside(node, notrack.set_nomasq, [])
    assert seen() == others
    inside(node, notrack.set_nomasq, networks("0.0.0.0/0"))
    assert seen() == others | {("10.244.1.50", ROUTER_IP), ("10.244.1.50", OUTSIDE_IP)}
    inside(node, notrack.set_nomasq, NODE_NETWORK)
    inside(node, notrack.remove_pod, packed("10.244.1.50"))
    assert seen() == others | {("10.244.1.50", ROUTER_IP), ("10.244.1.50", OUTSIDE_IP)}


def test_the_table_does_not_start_connection_tracking_by_itself(node: Node, fabric: Fabric) -> None:
    add_pod(node, fabric)
    inside(node, notrack.ensure, NODE_NETWORK)
    echo_from(node, "10.244.1.2", 7001, "pod1")
    node.run(["ping", "-c1", "-W5", OUTSIDE_IP])
    assert tracked(node) == set()
    track(node)
    echo_from(node, "10.244.1.2", 7001, "pod1")
    assert tracked(node) == {("10.244.1.2", OUTSIDE_IP, 7001)}
