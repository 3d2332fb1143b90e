# SPDX-License-Identifier: Apache-2.0
"""Limits at the NIC with real traffic: the rate, translation beside them, and a pod that takes its own fq away."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from bandwidth_edt import layout

from tests.kernels import probes
from tests.lab import iperf
from tests.lab.executable import Cni, Json
from tests.lab.fabric import OUTSIDE_IP, Fabric
from tests.lab.iperf import kept
from tests.lab.node import Node
from tests.lab.residue import difference
from tests.plugins.nic_lab import EXECUTABLE, PINS, TWENTY, state_of

pytestmark = [pytest.mark.feature("bandwidth nic: traffic"), pytest.mark.needs("fq")]

NODE_IP = "192.0.2.11"
HOST_GW: Json = {
    "type": "bypath-host-gw",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]], "dataDir": "/var/lib/cni/networks"},
}
SNAT: Json = {"type": "bypath-snat", "nonMasqueradeCIDRs": ["10.244.0.0/16", "192.0.2.0/24"]}


class Place(NamedTuple):
    """A node with the world around it."""

    fabric: Fabric
    node: Node


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with Fabric.create() as fabric:
        fabric.route_pods("10.244.1.0/24", 1)
        yield Place(fabric, fabric.add_node(1))


class Pod:
    """A host-gw pod with the plugins of a chain behind that."""

    def __init__(self, node: Node, name: str, plugins: list[Json]) -> None:
        self.node, self.name, self.plugins = node, name, [HOST_GW, *plugins]
        self.netns = node.add_pod_netns(name)
        self.result: Json | None = None
        for plugin in self.plugins:
            self.add(plugin)

    def conf(self, plugin: Json) -> Json:
        conf = {"cniVersion": "1.0.0", "name": "pods", **plugin}
        return conf if self.result is None else {**conf, "prevResult": self.result}

    def add(self, plugin: Json) -> None:
        self.result = Cni(self.node, plugin["type"]).add(self.conf(plugin), self.name, self.netns)

    def check(self) -> None:
        for plugin in self.plugins:
            Cni(self.node, plugin["type"]).check(self.conf(plugin), self.name, self.netns)

    def remove(self) -> None:
        for plugin in reversed(self.plugins):
            Cni(self.node, plugin["type"]).delete(self.conf(plugin), self.name, self.netns)
        self.node.del_pod_netns(self.name)

    def number(self) -> int:
        """Of its bucket: where its address leads."""
        assert self.result
        mapped = ipaddress.ip_address("::ffff:" + self.result["ips"][0]["address"].partition("/")[0]).packed
        shown = self.node.run(f"bpftool -j map lookup pinned {PINS}/ip2id key {' '.join(map(str, mapped))}").stdout
        return int(layout.U32.unpack(bytes(int(byte, 16) for byte in json.loads(shown)["value"]))[0])


@contextmanager
def pod_of(node: Node, *plugins: Json) -> Iterator[Pod]:
    """ "pod1", which is as ADD made it at the end; after it the node is as before it."""
    pod = Pod(node, "pod1", list(plugins))
    try:
        yield pod
        pod.check()
    finally:
        pod.remove()
        gc = {"cniVersion": "1.1.0", "name": "pods", "type": EXECUTABLE}
        Cni(node, EXECUTABLE).gc(gc, valid=[])
    assert difference(node) == []


def holds(place: Place) -> None:
    fabric, node = place
    kept(TWENTY, lambda: iperf.measure(fabric.outside, lambda argv: node.pod_run("pod1", argv).stdout).of_frames())


def seen_outside(node: Node) -> str:
    return node.pod_run("pod1", ["curl", "-sS", "-m", "20", f"http://{OUTSIDE_IP}/"]).stdout.split()[0]


def flooded_bits_per_sec(place: Place, seconds: int = 6) -> tuple[float, float]:
    """Of frames that a pod sends as fast as it can, and of those that reach the outside host."""
    flood = (
        "import socket, time\n"
        f"s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('{OUTSIDE_IP}', 9)); sent = 0\n"
        f"end = time.monotonic() + {seconds}\n"
        "while time.monotonic() < end:\n"
        "    for _ in range(20):\n"
        "        try: sent += s.send(bytes(1400)) + 42\n"
        "        except ConnectionRefusedError: continue\n"
        "    time.sleep(0.001)\n"
        "print(sent)\n"
    )
    fabric, node = place
    begun, before = time.monotonic(), received(fabric)
    sent = int(node.pod_run("pod1", ["python3", "-c", flood]).stdout)
    passed, took = received(fabric) - before, time.monotonic() - begun
    return 8 * sent / seconds, 8 * passed / min(took, seconds)


def received(fabric: Fabric) -> int:
    return int(fabric.outside.run("cat /sys/class/net/eth0/statistics/rx_bytes").stdout)


def limit(enforce: str, **keys: Any) -> Json:
    return {"type": EXECUTABLE, "enforce": enforce, "egressRate": TWENTY, **keys}


@pytest.mark.parametrize("order", [[limit("nic"), SNAT], [SNAT, limit("nic")]], ids=["snat last", "snat first"])
def test_the_rate_is_held_at_the_nic_while_snat_translates_there(place: Place, order: list[Json]) -> None:
    node = place.node
    with pod_of(node, *order) as pod:
        assert seen_outside(node) == NODE_IP
        holds(place)
        assert state_of(node, layout.EGRESS, pod.number())["bytes"] > TWENTY / 8
        assert seen_outside(node) == NODE_IP


def test_a_pod_that_shapes_itself_is_not_charged_again_at_the_nic(place: Place) -> None:
    node = place.node
    with pod_of(node, limit("both")) as pod:
        other = Pod(node, "pod2", [limit("nic")])
        try:
            holds(place)
            assert state_of(node, layout.GUARD, pod.number())["drop"] == 0, "a pod that behaves is not disturbed"
        finally:
            other.remove()


def test_a_pod_that_takes_its_own_limit_away_meets_the_guard(place: Place) -> None:
    node, rate = place.node, TWENTY // 10
    with pod_of(node, limit("both", egressRate=rate)) as pod:
        node.pod_run("pod1", "tc qdisc del dev eth0 root")
        if probes.has("tcx"):
            (pin,) = node.run(f"find {PINS}/links -name 'edt_pod_out-*'").stdout.split()
            node.run(f"bpftool link detach pinned {pin}")
        else:
            node.pod_run("pod1", "tc qdisc del dev eth0 clsact")
        sent, passed = flooded_bits_per_sec(place)
        print(f"sent {sent / 1e6:.2f}, passed {passed / 1e6:.2f} of {rate / 1e6:.2f} Mbit/s")
        assert sent > 2 * rate, "the flood was none"
        # A sender that the machine lets wait for more than the burst does not use all that it may.
        assert 0.5 * rate < passed < 1.15 * rate
        assert state_of(node, layout.GUARD, pod.number())["drop"] > 100
        assert state_of(node, layout.EGRESS, pod.number())["bytes"] == 0
        pod.add(limit("both", egressRate=rate))
