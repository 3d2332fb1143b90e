# SPDX-License-Identifier: Apache-2.0
"""Two pods of one node, each with an IPv4 and an IPv6 address, routed through the node over veth pairs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from cni.net.netns import NetNs
from tests.lab.node import Node
from tests.sockmap.attached import netns_cookie

T = TypeVar("T")

WIRE = """
ip link add name eth0 netns "$1" type veth peer name "host-$1"
ip link set "host-$1" up
ip address add 169.254.1.1/32 dev "host-$1"
ip address add fe80::1/64 dev "host-$1" nodad
"""
ROUTES = """
ip link set eth0 up
ip address add "$1/32" dev eth0
ip address add "$2/128" dev eth0 nodad
ip route add 169.254.1.1 dev eth0
ip route add default via 169.254.1.1
ip route add default via fe80::1 dev eth0
"""


class Pod(NamedTuple):
    """One network namespace; `path` opens it from outside of the node."""

    name: str
    path: str
    cookie: int
    ipv4: str
    ipv6: str

    def inside(self, action: Callable[..., T], *arguments: object) -> T:
        """Calls `action` with this thread in the pod; sockets that it returns stay there."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return NetNs("", descriptor).inside(action, *arguments)
        finally:
            os.close(descriptor)


def add_pod(node: Node, name: str, number: int) -> Pod:
    ipv4, ipv6 = f"10.244.1.{number}", f"fd00:244::{number}"
    node.add_pod_netns(name)
    node.run(["sh", "-ec", WIRE, "sh", name])
    node.pod_run(name, ["sh", "-ec", ROUTES, "sh", ipv4, ipv6])
    node.run(f"ip route add {ipv4} dev host-{name}; ip route add {ipv6} dev host-{name}")
    path = f"/proc/{node.pid}/root/run/netns/{name}"
    pod = Pod(name, path, 0, ipv4, ipv6)
    return pod._replace(cookie=pod.inside(netns_cookie))


@contextmanager
def two_pods() -> Iterator[tuple[Node, Pod, Pod]]:
    with Node.create("sockmap") as node:
        yield node, add_pod(node, "app", 2), add_pod(node, "db", 3)
