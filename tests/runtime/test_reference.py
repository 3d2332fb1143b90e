# SPDX-License-Identifier: Apache-2.0
"""The tests' own runtime, tried with the reference plugins: without these no other result here means anything."""

from __future__ import annotations

import time

import pytest

from tests.lab.fabric import OUTSIDE_IP6, Fabric
from tests.lab.node import Node
from tests.lab.residue import difference, residue
from tests.runtime.chains import POD_CIDR, POD_CIDR6, REFERENCE
from tests.runtime.containerd import Containerd
from tests.runtime.cri import ExecFailed
from tests.runtime.traffic import (
    egress_speed,
    fetch,
    ping,
    seen_outside,
    serve_http,
    track_connections,
    tracked_flows,
    undisturbed,
)


def test_pods_of_the_reference_chain_talk_and_leave_nothing(fabric: Fabric, node: Node) -> None:
    fabric.route_pods(POD_CIDR, 1)
    fabric.route_pods(POD_CIDR6, 1)
    track_connections(node)
    with Containerd.create(node, REFERENCE) as runtime:
        first, second = runtime.cri.run_pod("first"), runtime.cri.run_pod("second")
        assert [first.ip, second.ip] == ["10.244.1.2", "10.244.1.3"]
        assert runtime.run(["nsenter", f"--net={first.netns}", "ip", "-br", "address"]).stdout.count(first.ip) == 1
        serve_http(second, 8080, "hello")
        for address in second.ips:
            ping(first, address)
            assert fetch(first, address, 8080) == "hello\n"
        assert [seen_outside(first), seen_outside(first, OUTSIDE_IP6)] == first.ips
        assert tracked_flows(node) > 0, "the reference chain does not avoid connection tracking"
        with pytest.raises(ExecFailed):
            first.exec("exit 3")
        first.remove()
        second.remove()
        assert difference(node) == []
        assert runtime.leftovers() == []


def test_an_annotated_bandwidth_reaches_the_plugins_as_kubelet_sends_it(fabric: Fabric, node: Node) -> None:
    fabric.route_pods(POD_CIDR, 1)
    with Containerd.create(node, REFERENCE) as runtime:
        pod = runtime.cri.run_pod("slow", {"kubernetes.io/egress-bandwidth": "50M"})
        assert "rate 50Mbit burst 512Mb" in node.run(["tc", "qdisc"]).stdout
        # That burst is why the measured rate means nothing here; the bytes still have to arrive.
        assert egress_speed(pod, fabric).mean > 45e6
        pod.remove()
        assert residue(node) == []


def test_pods_live_on_when_containerd_is_killed_and_started_again(fabric: Fabric, node: Node) -> None:
    fabric.route_pods(POD_CIDR, 1)
    with Containerd.create(node, REFERENCE) as runtime:
        pod = runtime.cri.run_pod("long-lived")
        with undisturbed(pod, fabric) as stream:
            runtime.kill()
            runtime.start()
            stream.advance()
        assert runtime.cri.sandboxes() == [pod.id]
        pod.remove()
        assert runtime.leftovers() == []
        assert residue(node) == []


def sleepers(node: Node) -> str:
    return node.run(["pgrep", "-fx", "sleep 4242"], check=False).stdout


def test_everything_ends_with_the_runtime(node: Node) -> None:
    with Containerd.create(node, REFERENCE) as runtime:
        runtime.cri.run_pod("abandoned").exec("setsid sleep 4242 < /dev/null > /dev/null 2>&1 &")
        runtime.poll(lambda: sleepers(node) != "", 60, "the pod's process does not start")
    deadline = time.monotonic() + 60
    while sleepers(node):
        assert time.monotonic() < deadline, "a pod's process outlives its runtime"
        time.sleep(0.1)
