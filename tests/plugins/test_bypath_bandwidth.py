# SPDX-License-Identifier: Apache-2.0
"""`bypath bandwidth`: what an operator sees of the limits of a node, and other limits for a pod that runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from bandwidth_edt import layout

from tests.lab.executable import DIST
from tests.lab.fabric import Fabric
from tests.lab.node import Node
from tests.plugins.bandwidth_lab import PINS, TEN, TWENTY, Pod, element, limited_pod
from tests.plugins.nic_lab import ONE_QUEUE, TBF, NicNode

pytestmark = [pytest.mark.needs("fq"), pytest.mark.feature("bypath bandwidth")]
FORTY = 40_000_000


@pytest.fixture(scope="module")
def shared() -> Iterator[Node]:
    with Fabric.create() as fabric:
        yield fabric.add_node(1)


@pytest.fixture
def pod(shared: Node) -> Iterator[Pod]:
    with limited_pod(shared) as made:
        yield made


def bypath(node: Node, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = node.run([str(DIST / "bypath"), "bandwidth", *words], check=False)
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    return done


def listed(node: Node) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(bypath(node, "list", "--json").stdout)
    return found


def test_pods_are_listed_with_their_limits(pod: Pod) -> None:
    assert listed(pod.node) == []
    assert bypath(pod.node, "list").stdout.split() == ["POD", "INTERFACE", "ADDRESSES", "EGRESS", "INGRESS"]
    pod.limit(egressRate=TEN, egressBurst=TEN // 5, ingressRate=1_500_000)
    shown = bypath(pod.node, "list").stdout.splitlines()[1]
    addresses = [ip["address"].partition("/")[0] for ip in pod.result["ips"]]
    egress, ingress = "10M, burst 200 ms, at pod", "1.5M, burst 10 ms, at pod"
    assert shown.split() == ["pod1", "eth0", *addresses, *egress.split(), *ingress.split()]
    (facts,) = listed(pod.node)
    assert (facts["containerId"], facts["interface"], facts["addresses"]) == ("pod1", "eth0", addresses)
    assert (facts["egress"]["rate"], facts["egress"]["at"], facts["ingress"]["rate"]) == (TEN, "pod", 1_500_000)


def test_what_became_of_the_packets_is_shown(pod: Pod) -> None:
    pod.limit(egressRate=TEN)
    pod.node.pod_run("pod1", ["ping", "-c5", "-i0.2", "192.0.2.11"])
    (facts,) = listed(pod.node)
    assert facts["egress"]["packets"] == sum(facts["egress"]["delays"]) >= 5
    assert facts["egress"]["bytes"] >= 5 * 98 and facts["egress"]["dropped"] == 0
    shown = bypath(pod.node, "show", "po").stdout
    assert "egress: 10M, burst 10 ms, at pod\n" in shown and "ingress: -\n" in shown
    assert f"{facts['egress']['packets']} packets of {facts['egress']['bytes']} bytes went" in shown
    assert "< 65.5 µs" in shown and "█" in shown


def test_other_limits_are_those_that_an_add_would_have_made(pod: Pod) -> None:
    pod.limit(egressRate=TEN, ingressRate=TEN)
    pod.node.pod_run("pod1", ["ping", "-c3", "-i0.2", "192.0.2.11"])
    egress = layout.bucket(pod.number(), layout.EGRESS)
    before = layout.STATE.named(element(pod.node, "edt_state", egress))
    assert "20M" in bypath(pod.node, "set", "pod1", "--egress", "20M").stdout
    pod.check(egressRate=TWENTY, ingressRate=TEN)
    after = layout.STATE.named(element(pod.node, "edt_state", egress))
    assert after["t_last_ns"] >= before["t_last_ns"] and after["bytes"] >= before["bytes"] >= 3 * 98
    bypath(pod.node, "set", "pod", "--interface=eth0", "--ingress=40M", "--ingress-burst=8M")
    pod.check(egressRate=TWENTY, ingressRate=FORTY, ingressBurst=FORTY // 5)
    pod.limit(egressRate=TEN)
    pod.check(egressRate=TEN)


def test_limits_are_taken_away_and_come_back(pod: Pod) -> None:
    pod.limit(egressRate=TEN, ingressRate=TEN)
    bypath(pod.node, "set", "pod1", "--ingress", "none")
    assert pod.roots() == ("fq", "noqueue")
    bypath(pod.node, "set", "pod1", "--egress", "none")
    assert pod.roots() == ("noqueue", "noqueue")
    assert bypath(pod.node, "list").stdout.splitlines()[1].split()[-2:] == ["-", "-"]
    bypath(pod.node, "set", "pod1", "--egress", "20M", "--ingress", "20M")
    assert pod.roots() == ("fq", "fq")
    pod.check(egressRate=TWENTY, ingressRate=TWENTY)


WRONG = [
    # words, status, what is said
    (["--egress", "7999"], 1, "egressRate: 7999 bit/s is too little; at least 8000"),
    (["--egress", "10M", "--egress-burst", "8k"], 1, "are less than one frame"),
    (["--egress", "ten"], 2, "'ten' is not a number of bits such as 8000, 50M or 1.5G"),
    (["--egress-burst", "1M"], 2, "--egress-burst needs --egress with a rate"),
    (["--egress", "none", "--egress-burst", "1M"], 2, "--egress-burst needs --egress"),
    ([], 2, "nothing to change"),
    (["--egress", "none", "--enforce", "nic"], 1, "the pod has no egress limit"),
    (["--enforce", "host"], 2, "'host' is not one of 'pod', 'nic', 'both'"),
    (["--interface", "net1", "--egress", "20M"], 1, "no pod pod1 has limits"),
]


def test_what_is_wrong_is_said_and_nothing_changes(pod: Pod) -> None:
    pod.limit(egressRate=TEN)
    for words, status, said in WRONG:
        done = bypath(pod.node, "set", "pod1", *words, status=status)
        assert said in done.stderr and done.stdout == "", words
        pod.check(egressRate=TEN)


def test_a_change_that_fails_leaves_the_limits_as_they_were(pod: Pod) -> None:
    pod.limit(egressRate=TEN)
    pod.node.run(f"tc qdisc add dev {pod.host} root handle 7: tbf rate 1gbit burst 100kb latency 10ms")
    done = bypath(pod.node, "set", "pod1", "--egress=20M", "--ingress=20M", status=1)
    assert "has qdisc tbf 7" in done.stderr
    pod.check(egressRate=TEN)
    assert pod.roots() == ("fq", "tbf")
    pod.node.run(f"tc qdisc del dev {pod.host} root")


def test_a_pod_that_is_gone_cannot_be_changed(pod: Pod) -> None:
    pod.limit(egressRate=TEN)
    pod.node.pod_run("pod1", "ip link del eth0")
    assert "the pod is gone" in bypath(pod.node, "set", "pod1", "--egress=20M", status=1).stderr


def test_half_an_add_has_no_limit_to_change(pod: Pod) -> None:
    """It was killed when it had written its record, and had no bucket yet."""
    pod.limit(egressRate=TEN)
    number = " ".join(map(str, layout.U32.pack(pod.number())))
    pod.node.run(f"bpftool map delete pinned {PINS}/edt_ids key {number}")
    assert "the pod is gone" in bypath(pod.node, "set", "pod1", "--egress=20M", status=1).stderr


def test_a_limit_moves_to_the_nic_and_the_nic_is_given_back_at_once() -> None:
    with NicNode.create(ONE_QUEUE, [TBF]) as nic:
        (pod,) = nic.pods
        before = nic.raw()
        pod.add("pod")
        assert nic.raw() == before
        bypath(nic.node, "set", pod.name, "--enforce", "nic")
        pod.check("nic")
        assert nic.is_ours() and nic.programs() == ["edt_nic_out"]
        assert "pods that have a limit there: 1." in bypath(nic.node, "release").stdout
        assert nic.is_ours()
        bypath(nic.node, "set", pod.name, "--enforce", "pod")
        pod.check("pod")
        assert nic.is_ours() and nic.programs() == [], "the qdisc waits for the next pod"
        assert "Nothing of bypath-bandwidth-edt is on a NIC" in bypath(nic.node, "release").stdout
        assert nic.raw() == before
        pod.delete()
