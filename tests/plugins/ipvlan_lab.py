# SPDX-License-Identifier: Apache-2.0
"""What the tests of bypath-ipvlan share: configurations for l2 and for routed pods, pods, and looks into them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.lab.executable import Cni, Json
from tests.lab.fabric import OUTSIDE_IP, OUTSIDE_IP6, ROUTER_IP, ROUTER_IP6, Fabric
from tests.lab.node import Node
from tests.lab.residue import remember

EXECUTABLE = "bypath-ipvlan"
DEFAULT_ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]


IPAM_DIRECTORY = "/run/lab/ipam"  # inside a node
IPAM = """#!/bin/sh
# host-local of the distribution knows spec 1.0.0 only; this is the same plugin for 1.1.0.
case $CNI_COMMAND in STATUS|GC) exit 0;; esac
sed 's/"cniVersion":"1.1.0"/"cniVersion":"1.0.0"/' | /usr/lib/cni/host-local
"""


def ipam(version: str, ranges: list[list[Json]], **keys: Any) -> Json:
    return {"type": "lab-ipam" if version == "1.1.0" else "host-local", "ranges": ranges, **keys}


def l2(number: int = 1, version: str = "1.1.0", **keys: Any) -> Json:
    """Pods in the NICs' own network, .100 on for node 1, .120 on for node 2."""
    first = 80 + 20 * number
    v4 = {"subnet": "192.0.2.0/24", "rangeStart": f"192.0.2.{first}", "rangeEnd": f"192.0.2.{first + 19}"}
    v6 = {
        "subnet": "2001:db8:0:1::/64",
        "rangeStart": f"2001:db8:0:1::{first}",
        "rangeEnd": f"2001:db8:0:1::{first + 9}",
    }
    ranges = [[{**v4, "gateway": ROUTER_IP}], [{**v6, "gateway": ROUTER_IP6}]]
    allot = ipam(version, ranges, routes=DEFAULT_ROUTES)
    return {"cniVersion": version, "name": "flat", "type": EXECUTABLE, "mode": "l2", "ipam": allot, **keys}


def routed(mode: str, number: int = 1, **keys: Any) -> Json:
    """Pods in node `number`'s own networks."""
    ranges = [[{"subnet": f"10.244.{number}.0/24"}], [{"subnet": f"fd00:10:244:{number}::/64"}]]
    allot = ipam("1.1.0", ranges)
    return {"cniVersion": "1.1.0", "name": "routed", "type": EXECUTABLE, "mode": mode, "ipam": allot, **keys}


def conf_of(mode: str, number: int = 1) -> Json:
    return l2(number) if mode == "l2" else routed(mode, number)


class Lab:
    """Two nodes that the tests of one module share: each leaves them as it found them."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.nodes = [fabric.add_node(1), fabric.add_node(2)]
        for number, node in enumerate(self.nodes, start=1):
            fabric.route_pods(f"10.244.{number}.0/24", number)
            fabric.route_pods(f"fd00:10:244:{number}::/64", number)
            # What the README recommends; it must not concern addresses that pods have.
            node.run(f"ip route add blackhole 10.244.{number}.0/24")
            install_ipam(node)
            remember(node)

    @classmethod
    @contextmanager
    def create(cls) -> Iterator[Lab]:
        with Fabric.create() as fabric:
            yield cls(fabric)

    def remove_pods(self) -> None:
        """The namespaces of pods that a test made, and what a failed test left for the next one to stumble over."""
        for node in self.nodes:
            node.run("ip -all netns delete; rm -rf /sys/fs/bpf/bypath /var/lib/cni/networks")


def install_ipam(node: Node) -> None:
    line = 'mkdir -p "$1"; cat > "$1/lab-ipam"; chmod 755 "$1/lab-ipam"'
    node.run(["sh", "-c", line, "sh", IPAM_DIRECTORY], input=IPAM)


class Pod:
    """A pod's namespace, and the addresses of the interface that `add` made."""

    def __init__(self, node: Node, name: str) -> None:
        self.node, self.name = node, name
        self.netns = node.add_pod_netns(name)
        self.cni = Cni(node, EXECUTABLE)
        self.cni.path.append(IPAM_DIRECTORY)
        self.conf: Json = {}
        self.result: Json = {}

    def add(self, conf: Json, **env: str) -> Pod:
        self.conf = conf
        self.result = self.cni.add(conf, self.name, self.netns, **env)
        return self

    def with_result(self, **keys: Any) -> Json:
        """The configuration as the runtime sends it after ADD."""
        return {**self.conf, "prevResult": self.result, **keys}

    def check(self) -> None:
        self.cni.check(self.with_result(), self.name, self.netns)

    def delete(self) -> None:
        self.cni.delete(self.with_result(), self.name, self.netns)

    @property
    def addresses(self) -> list[str]:
        return [ip["address"].partition("/")[0] for ip in self.result["ips"]]

    def run(self, argv: list[str] | str, **options: Any) -> str:
        return str(self.node.pod_run(self.name, argv, **options).stdout)

    def link(self, name: str = "eth0") -> Json:
        """What `ip` knows of a device in the pod, its addresses included."""
        return dict(json.loads(self.run(["ip", "-j", "-d", "address", "show", "dev", name]))[0])

    @property
    def setting(self) -> str:
        """Mode and flag of eth0 as the kernel has them, such as "l2 bridge"."""
        data = self.link()["linkinfo"]["info_data"]
        return " ".join([data["mode"], *(flag for flag in ("bridge", "private", "vepa") if data.get(flag))])

    def device_names(self) -> list[str]:
        return sorted(link["ifname"] for link in json.loads(self.run(["ip", "-j", "link"])))

    def reaches(self, address: str, seconds: int = 5) -> bool:
        argv = ["ping", "-c1", f"-W{seconds}", address]
        return self.node.pod_run(self.name, argv, check=False).returncode == 0

    def seen_outside_as(self) -> list[str]:
        """The addresses under which the outside host sees the pod, by IPv4 and by IPv6."""
        urls = f"http://{OUTSIDE_IP}/ http://[{OUTSIDE_IP6}]/"
        return [line.split()[0] for line in self.run(f"curl -sS -g -m 20 {urls}").splitlines()]


def host_link(node: Node, name: str = "eth0") -> Json:
    return dict(json.loads(node.run(["ip", "-j", "-d", "address", "show", "dev", name]).stdout)[0])
