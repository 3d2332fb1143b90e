# SPDX-License-Identifier: Apache-2.0
"""bypath-bandwidth-edt on veth pods: limits that are put in force, changed and taken away, and what CHECK sees."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator

import pytest
from bandwidth_edt import layout

from tests.lab.executable import CniFailure
from tests.lab.fabric import Fabric
from tests.lab.node import Node
from tests.plugins.bandwidth_lab import EXECUTABLE, PINS, TEN, TWENTY, Pod, element, limited_pod

pytestmark = [pytest.mark.needs("fq"), pytest.mark.feature("bandwidth-edt: limits of veth pods")]


@pytest.fixture(scope="module")
def shared() -> Iterator[Node]:
    with Fabric.create() as fabric:
        yield fabric.add_node(1)


@pytest.fixture
def pod(shared: Node) -> Iterator[Pod]:
    with limited_pod(shared) as made:
        yield made


def test_a_second_add_changes_the_rate_and_the_bucket_goes_on(pod: Pod) -> None:
    pod.limit(egressRate=TEN)
    number = pod.number()
    egress = layout.bucket(number, layout.EGRESS)
    pod.node.pod_run("pod1", ["ping", "-c3", "-i0.2", "192.0.2.11"])
    before = layout.STATE.named(element(pod.node, "edt_state", egress))
    assert before["bytes"] >= 3 * 98 and before["t_last_ns"]
    pod.limit(egressRate=TWENTY)
    assert layout.CFG.named(element(pod.node, "edt_cfg", egress))["rate_bytes_per_sec"] == TWENTY // 8
    after = layout.STATE.named(element(pod.node, "edt_state", egress))
    assert after["t_last_ns"] >= before["t_last_ns"] and after["bytes"] >= before["bytes"]
    assert pod.number() == number
    pod.check(egressRate=TWENTY)
    assert f"is not {TEN} bit/s" in pod.fault(egressRate=TEN)


def test_a_second_add_adds_and_takes_directions_away(pod: Pod) -> None:
    pod.limit(egressRate=TEN)
    assert pod.roots() == ("fq", "noqueue")
    pod.limit(ingressRate=TEN)
    assert pod.roots() == ("noqueue", "fq")
    pod.check(ingressRate=TEN)
    assert "the egress limit in force is not" in pod.fault(egressRate=TEN, ingressRate=TEN)
    pod.limit(egressRate=TEN, ingressRate=TEN)
    assert "ingress limit that nobody asked for" in pod.fault(egressRate=TEN)
    pod.limit()
    assert pod.roots() == ("noqueue", "noqueue")
    assert json.loads(pod.node.run(f"bpftool -j map dump pinned {PINS}/edt_ids").stdout) == []


def test_a_change_that_fails_leaves_the_limits_as_they_were(pod: Pod) -> None:
    pod.limit(egressRate=TEN)
    pod.node.run(f"tc qdisc add dev {pod.host} root handle 7: tbf rate 1gbit burst 100kb latency 10ms")
    with pytest.raises(CniFailure, match="has qdisc tbf 7") as caught:
        pod.limit(egressRate=TWENTY, ingressRate=TWENTY)
    assert caught.value.code == 102
    pod.check(egressRate=TEN)
    assert pod.roots() == ("fq", "tbf")
    pod.node.run(f"tc qdisc del dev {pod.host} root")


def test_an_add_for_another_namespace_or_address_is_refused(pod: Pod) -> None:
    pod.limit(egressRate=TEN)
    other = pod.node.add_pod_netns("other")
    pod.node.run("ip link add name peer0 type veth peer name eth0 netns other")
    result = {**pod.result, "interfaces": [{"name": "peer0"}, {"name": "eth0", "sandbox": other}]}
    with pytest.raises(CniFailure, match="call DEL for it first") as caught:
        pod.cni.add(pod.conf(egressRate=TEN, prevResult=result), "pod1", other)
    assert caught.value.code == 102
    pod.check(egressRate=TEN)
    pod.node.del_pod_netns("other")


def test_check_names_what_became_of_a_limit(pod: Pod) -> None:
    limits = {"egressRate": TEN, "ingressRate": TWENTY}
    pod.limit(**limits)
    pod.check(**limits)
    pod.node.pod_run("pod1", "tc qdisc del dev eth0 root")
    assert "has root qdisc noqueue instead of fq" in pod.fault(**limits)
    pod.limit(**limits)
    pod.check(**limits)
    pod.node.run(f"tc qdisc change dev {pod.host} root handle b197: fq flow_limit 5")
    assert "has fq with other limits" in pod.fault(**limits)
    pod.node.run(f"tc qdisc del dev {pod.host} root")
    assert "has root qdisc noqueue instead of fq" in pod.fault(**limits)
    pod.limit(**limits)
    key = " ".join(map(str, layout.bucket(pod.number(), layout.EGRESS)))
    pod.node.run(f"bpftool map update pinned {PINS}/edt_cfg key {key} value {' '.join(['1'] * layout.CFG.size)}")
    assert f"the egress limit in force is not {TEN} bit/s" in pod.fault(**limits)
    pod.limit(**limits)
    (address,) = [ip["address"] for ip in pod.result["ips"] if ip["address"].startswith("10.")]
    mapped = "0 " * 10 + "255 255 " + address.partition("/")[0].replace(".", " ")
    pod.node.run(f"bpftool map delete pinned {PINS}/ip2id key {mapped}")
    assert f"{address.partition('/')[0]} does not lead to the pod's bucket" in pod.fault(**limits)
    pod.limit(**limits)
    slot = layout.slot_of(layout.pack_addr(ipaddress.ip_interface(address).ip.packed))
    nobody = " ".join(["0"] * layout.SLOT.size)
    pod.node.run(f"bpftool map update pinned {PINS}/edt_slots key {' '.join(map(str, slot))} value {nobody}")
    assert f"{address.partition('/')[0]} does not lead to the pod's bucket" in pod.fault(**limits)
    pod.limit(**limits)
    pod.check(**limits)


def test_a_burst_counts_and_what_runtimes_send_for_none_is_ten_milliseconds(pod: Pod) -> None:
    pod.limit(egressRate=TEN, egressBurst=TEN // 5, ingressRate=TEN, ingressBurst=4294967295)
    number = pod.number()
    found = [layout.CFG.named(element(pod.node, "edt_cfg", layout.bucket(number, each)))["burst_ns"] for each in (0, 1)]
    assert found == [200_000_000, 10_000_000]


def test_gc_takes_the_limits_of_pods_that_are_not_listed(pod: Pod) -> None:
    pod.limit(egressRate=TEN, ingressRate=TEN)
    bare = {"cniVersion": "1.1.0", "name": "pods", "type": EXECUTABLE}
    pod.cni.gc(bare, valid=[("pod1", "eth0")])
    pod.check(egressRate=TEN, ingressRate=TEN)
    pod.cni.gc(bare, valid=[])
    assert pod.roots() == ("noqueue", "noqueue")
    assert json.loads(pod.node.run(f"bpftool -j map dump pinned {PINS}/edt_ids").stdout) == []
