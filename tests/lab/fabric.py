# SPDX-License-Identifier: Apache-2.0
"""The network around the nodes: a switch with a router on it, and one host on the router's other side.

    node1 192.0.2.11 --+                        outside 198.51.100.1
    node2 192.0.2.12 --+-- switch, router 192.0.2.1 -- router 198.51.100.254

IPv6 likewise: 2001:db8:0:1::11, ::12, router ::1; outside 2001:db8:0:2::1, router ::fe. Node n's pods are meant to
live in 10.244.n.0/24 and fd00:10:244:n::/64; whoever wants the router to know these routes calls `route_pods`.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.lab import outside as outside_program
from tests.lab.node import CommandFailed, Node
from tests.lab.residue import remember

ROUTER_IP, ROUTER_IP6 = "192.0.2.1", "2001:db8:0:1::1"
OUTSIDE_IP, OUTSIDE_IP6 = "198.51.100.1", "2001:db8:0:2::1"
HTTP_PORT, ECHO_PORT = outside_program.HTTP_PORT, outside_program.ECHO_PORT


class Fabric:
    """The switch, its router and the outside host; make it with `Fabric.create()`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._ports = 0
        self.router = stack.enter_context(Node.create("router"))
        """Also the switch: the bridge br0, whose own address is the nodes' default gateway."""
        self.outside = stack.enter_context(Node.create("outside"))
        self._wire()
        self._serve()

    @classmethod
    @contextmanager
    def create(cls) -> Iterator[Fabric]:
        with ExitStack() as stack:
            yield cls(stack)

    def _wire(self) -> None:
        self.router.run(
            f"""
            if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]
            then for family in ip ip6 arp; do echo 0 > /proc/sys/net/bridge/bridge-nf-call-${{family}}tables; done
            fi
            ip link add br0 type bridge
            ip address add {ROUTER_IP}/24 dev br0
            ip address add {ROUTER_IP6}/64 dev br0 nodad
            ip link set br0 up
            ip link add out0 type veth peer name eth0 netns {self.outside.pid}
            ip address add 198.51.100.254/24 dev out0
            ip address add 2001:db8:0:2::fe/64 dev out0 nodad
            ip link set out0 up
            """
        )
        self.outside.run(
            f"""
            ip address add {OUTSIDE_IP}/24 dev eth0
            ip address add {OUTSIDE_IP6}/64 dev eth0 nodad
            ip link set eth0 up
            ip route add default via 198.51.100.254
            ip route add default via 2001:db8:0:2::fe
            """
        )

    def _serve(self) -> None:
        server = self.outside.popen([sys.executable, str(Path(outside_program.__file__))], stdout=-1, stderr=-1)
        assert server.stdout and server.stderr
        if server.stdout.readline() != "ready\n":
            raise CommandFailed(f"the outside host does not serve: {server.stderr.read()}")

    def plug(self, node: Node, ip_cidr: str, ifname: str = "eth0") -> None:
        """Gives the node a NIC on the switch, its IPv6 address alike (.11 -> ::11) and default routes over the first.

        What the node then consists of becomes its baseline for `residue`.
        """
        self._ports += 1
        port = f"port{self._ports}"
        host = ipaddress.ip_interface(ip_cidr).ip.packed[-1]
        self.router.run(
            f"ip link add {port} type veth peer name {ifname} netns {node.pid}; ip link set {port} master br0 up"
        )
        node.run(
            f"""
            ip address add {ip_cidr} dev {ifname}
            ip address add 2001:db8:0:1::{host}/64 dev {ifname} nodad
            ip link set {ifname} up
            [ "$(ip route show default)" ] || ip route add default via {ROUTER_IP} dev {ifname}
            [ "$(ip -6 route show default)" ] || ip route add default via {ROUTER_IP6} dev {ifname}
            """
        )
        remember(node)

    def add_node(self, number: int) -> Node:
        """Node `number` (1...) plugged in as 192.0.2.<10+number> by eth0; it lives as long as the fabric."""
        node = self._stack.enter_context(Node.create(f"node{number}"))
        self.plug(node, f"192.0.2.{10 + number}/24")
        return node

    def route_pods(self, cidr: str, number: int) -> None:
        """Lets the router send `cidr` to node `number`."""
        via = f"2001:db8:0:1::{10 + number}" if ":" in cidr else f"192.0.2.{10 + number}"
        self.router.run(["ip", "route", "add", cidr, "via", via, "dev", "br0"])
