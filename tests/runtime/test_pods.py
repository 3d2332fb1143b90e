# SPDX-License-Identifier: Apache-2.0
"""The plugins' chains under a real containerd: pods talk, stay out of connection tracking, keep their rate and go.

The tests of one chain share one node, whose connection tracking is active; each of them ends when it has removed its
pods and seen that they left nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from tests.lab.fabric import OUTSIDE_IP, OUTSIDE_IP6, Fabric
from tests.lab.iperf import kept
from tests.lab.node import Node
from tests.lab.residue import difference, remember, residue
from tests.runtime.chains import HOST_GW_SNAT, HOST_GW_SNAT_BANDWIDTH, POD_CIDR, POD_CIDR6, ipvlan
from tests.runtime.containerd import Containerd
from tests.runtime.cri import Pod
from tests.runtime.traffic import (
    egress_speed,
    fetch,
    forget_flows,
    ingress_speed,
    ping,
    seen_outside,
    serve_http,
    track_connections,
    tracked_flows,
    undisturbed,
)

NODE_IP = "192.0.2.11"
LIMIT_BITS_PER_SEC = 50e6
FIFTY_MEGABITS = {"kubernetes.io/egress-bandwidth": "50M"}


def chain(feature: str, conflist: dict[str, Any], *needs: str) -> Any:
    """A chain that needs nothing special of the kernel is part of one that does: one kernel is enough for it."""
    marks = [pytest.mark.feature(f"containerd: {feature}"), pytest.mark.needs(*needs) if needs else pytest.mark.once]
    return pytest.param(conflist, marks=marks, id=feature)


# The shorter lists are beginnings of the longest: pytest groups the tests of one chain by its place in the list.
SHAPED = [
    chain("host-gw + snat + bandwidth-edt", HOST_GW_SNAT_BANDWIDTH, "fq"),
    *(chain(f"ipvlan {mode}", ipvlan(mode), "ipvlan", "fq", "ifb") for mode in ("l2", "l3", "l3s")),
]
ALL = [*SHAPED, chain("host-gw + snat", HOST_GW_SNAT)]


class Place(NamedTuple):
    """A node under one chain, with its surroundings."""

    fabric: Fabric
    node: Node
    runtime: Containerd

    def leaves_nothing(self) -> bool:
        """For assertions once no pod is left; they show what is."""
        assert difference(self.node) == []
        assert self.runtime.leftovers() == []
        return True


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """The router knows the pods' subnets, so that an address that nobody translated would be seen outside."""
    with Fabric.create() as fabric:
        node = fabric.add_node(1)
        fabric.route_pods(POD_CIDR, 1)
        fabric.route_pods(POD_CIDR6, 1)
        track_connections(node)
        remember(node)
        with Containerd.create(node, request.param) as runtime:
            yield Place(fabric, node, runtime)


class Pods:
    """Makes pods, and removes those that the test did not."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._made: list[Pod] = []

    def run(self, name: str, annotations: Mapping[str, str] | None = None) -> Pod:
        self._made.append(self._place.runtime.cri.run_pod(name, annotations))
        return self._made[-1]

    def two(self) -> tuple[Pod, Pod]:
        return self.run("first"), self.run("second")

    def remove_last(self) -> None:
        self._made.pop().remove()

    def remove(self) -> None:
        while self._made:
            self.remove_last()


@pytest.fixture
def pods(place: Place) -> Iterator[Pods]:
    made = Pods(place)
    try:
        yield made
    finally:
        made.remove()
    assert place.leaves_nothing()


@pytest.mark.parametrize("place", ALL, indirect=True)
def test_two_pods_talk_and_show_the_nodes_address_outside(place: Place, pods: Pods) -> None:
    first, second = pods.two()
    assert not set(first.ips) & set(second.ips) and len(first.ips) == 2
    for one, other in (first, second), (second, first):
        serve_http(other, 8080, other.ip)
        for address in other.ips:
            ping(one, address)
            assert fetch(one, address, 8080) == f"{other.ip}\n"
        ping(one, OUTSIDE_IP)
        assert seen_outside(one) == NODE_IP
        # snat is IPv4 only: an IPv6 pod shows its own address, which the router knows.
        assert seen_outside(one, OUTSIDE_IP6) == one.ips[1]


@pytest.mark.parametrize("place", ALL, indirect=True)
def test_ipv4_traffic_to_the_outside_makes_no_tracked_connection(place: Place, pods: Pods) -> None:
    pod = pods.run("first")
    forget_flows(place.node)
    assert seen_outside(pod) == NODE_IP
    ping(pod, OUTSIDE_IP)
    assert tracked_flows(place.node) == 0, place.node.run(["conntrack", "-L"]).stdout


@pytest.mark.parametrize("place", ALL, indirect=True)
def test_ipv4_traffic_between_pods_makes_no_tracked_connection(place: Place, pods: Pods) -> None:
    """Straight from pod to pod; what goes to a Service stays tracked, see tests/plugins/test_snat.py."""
    first, second = pods.two()
    serve_http(second, 8080, "hello")
    forget_flows(place.node)
    ping(first, second.ip)
    assert fetch(first, second.ip, 8080) == "hello\n"
    assert tracked_flows(place.node) == 0, place.node.run(["conntrack", "-L"]).stdout


@pytest.mark.parametrize("place", SHAPED, indirect=True)
def test_an_annotated_egress_bandwidth_is_kept_within_5_percent(place: Place, pods: Pods) -> None:
    pod = pods.run("slow", FIFTY_MEGABITS)
    kept(LIMIT_BITS_PER_SEC, lambda: egress_speed(pod, place.fabric))


@pytest.mark.parametrize("place", SHAPED, indirect=True)
def test_an_annotated_ingress_bandwidth_is_kept_within_5_percent(place: Place, pods: Pods) -> None:
    pod = pods.run("slow", {"kubernetes.io/ingress-bandwidth": "50M"})
    kept(LIMIT_BITS_PER_SEC, lambda: ingress_speed(pod, place.fabric))


@pytest.mark.parametrize("place", ALL, indirect=True)
def test_a_pod_can_be_stopped_twice_and_its_address_used_again(place: Place, pods: Pods) -> None:
    for _ in range(2):
        pod = pods.run("again", FIFTY_MEGABITS)
        assert any(pod.id in fact for fact in residue(place.node)), "a living pod must be seen"
        assert seen_outside(pod) == NODE_IP
        pod.stop()
        pod.stop()
        pods.remove_last()
        assert place.leaves_nothing()


def pinned_maps(node: Node) -> dict[str, int]:
    """Path -> id of every map that is pinned in the node."""
    paths = node.run("find /sys/fs/bpf/bypath -type f ! -path '*/links/*'").stdout.split()
    shown = {path: node.run(["bpftool", "-j", "map", "show", "pinned", path], check=False) for path in paths}
    return {path: int(json.loads(done.stdout)["id"]) for path, done in shown.items() if done.returncode == 0}


@pytest.mark.parametrize("place", ALL, indirect=True)
def test_a_restarted_runtime_and_a_second_pod_disturb_neither_maps_nor_a_long_lived_flow(
    place: Place, pods: Pods
) -> None:
    first = pods.run("first")
    maps = pinned_maps(place.node)
    assert maps, "snat pins its maps"
    with undisturbed(first, place.fabric) as stream:
        place.runtime.kill()
        place.runtime.start()
        stream.advance()
        second = pods.run("second", FIFTY_MEGABITS)
        assert seen_outside(second) == NODE_IP
        stream.advance()
        pods.remove_last()
        stream.advance()
    assert {path: number for path, number in pinned_maps(place.node).items() if path in maps} == maps
