# SPDX-License-Identifier: Apache-2.0
"""bypath-sockmap on veth pods: policies that are put in force, changed and taken away, and what CHECK and GC see."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from sockmap import layout
from sockmap.layout import POD, SIDECAR

from tests.lab.executable import REPO, Cni, CniFailure
from tests.plugins.rooms import Room
from tests.plugins.sockmap_lab import EXECUTABLE, PINS, WITHOUT_CGROUP2, Pod, annotated, dump, links, pod_of

pytestmark = [pytest.mark.needs("sockmap"), pytest.mark.feature("sockmap: life of a policy")]
BARE = {"cniVersion": "1.1.0", "name": "pods", "type": EXECUTABLE}


@pytest.fixture
def pod(room: Room) -> Iterator[Pod]:
    with pod_of(room.node, "p1") as made:
        yield made


@pytest.fixture
def other(room: Room) -> Iterator[Pod]:
    with pod_of(room.node, "p2") as made:
        yield made


def attached_to_the_root(pod: Pod) -> bool:
    """Whether the pinned sm_ops runs for the node's connections; other nodes of the laboratory share the cgroup."""
    wanted = json.loads(pod.node.run(f"bpftool -j prog show pinned {PINS}/sm_ops").stdout)["id"]
    shown = pod.node.run("bpftool -j cgroup show $(findmnt -no TARGET -t cgroup2 | head -n1)").stdout
    return wanted in [each["id"] for each in json.loads(shown.strip() or "[]")]


def test_add_puts_all_of_a_pod_in_force_and_del_takes_it_away(pod: Pod) -> None:
    pod.add(excludePorts=[15090], excludeUIDs=[0, 1337], limitMiB=8, nodeLimitMiB=256)
    policy = pod.policy()
    assert policy and (policy["flags"], policy["limit_bytes"], policy["uid_count"]) == (SIDECAR | POD, 8 << 20, 2)
    assert policy["exclude_ports"].startswith((15090).to_bytes(2, "little") + bytes(2))
    assert pod.addresses() == len(pod.ips) == 2
    assert set(pod.counters().values()) == {0}
    assert layout.NODE.unpack(*dump(pod.node, "node").values()) == (256 << 20,)
    assert attached_to_the_root(pod)
    pod.check(excludePorts=[15090], excludeUIDs=[0, 1337], limitMiB=8, nodeLimitMiB=256)
    pod.delete()
    assert (pod.policy(), pod.addresses(), dump(pod.node, "counters"), links(pod.node)) == (None, 0, {}, [])
    assert not attached_to_the_root(pod)
    pod.delete()


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_a_policy_lives_in_every_version_of_the_spec(pod: Pod, version: str) -> None:
    ips = pod.result["ips"] if version >= "1" else [{**ip, "version": "6" if ":" in ip["address"] else "4"}
                                                    for ip in pod.result["ips"]]  # fmt: skip
    conf = pod.conf(cniVersion=version, prevResult={**pod.result, "cniVersion": version, "ips": ips})
    assert pod.cni.add(conf, "p1", pod.netns) == conf["prevResult"]
    if version >= "0.4.0":
        pod.cni.check(conf, "p1", pod.netns)
    if version == "1.1.0":
        pod.cni.status(conf)
        pod.cni.gc(conf, valid=[("p1", "eth0")])
    assert pod.policy()
    pod.cni.delete(conf, "p1", pod.netns)
    assert pod.policy() is None


def test_a_second_add_changes_the_policy_and_the_counters_go_on(pod: Pod) -> None:
    pod.add()
    key = " ".join(map(str, layout.U64.pack(pod.cookie)))
    # One value, which bpftool gives to every CPU.
    seven = " ".join(["7"] + ["0"] * (layout.COUNTERS.size - 1))
    pod.node.run(f"bpftool map update pinned {PINS}/counters key {key} value {seven}")
    before = pod.counters()
    pod.add(scopes=["sidecar"], limitMiB=1)
    policy = pod.policy()
    assert policy and (policy["flags"], policy["limit_bytes"]) == (SIDECAR, 1 << 20)
    assert pod.counters() == before and before["paired"] >= 7
    pod.check(scopes=["sidecar"], limitMiB=1)
    assert "the policy in force is not the configured one" in pod.fault()


@pytest.mark.parametrize("keys", [{"mode": "off"}, {"mode": "annotated"}, {"runtimeConfig": annotated("off")}], ids=str)
def test_a_second_add_without_a_scope_takes_the_policy_away(pod: Pod, keys: dict[str, Any]) -> None:
    pod.add()
    pod.add(**keys)
    assert (pod.policy(), pod.addresses(), links(pod.node)) == (None, 0, [])
    pod.check(**keys)


def test_a_pod_that_asks_for_nothing_touches_nothing(pod: Pod) -> None:
    state = pod.node.run("find /sys/fs/bpf /run/bypath").stdout
    pod.add(mode="annotated", runtimeConfig=annotated("off"))
    pod.check(mode="annotated")
    pod.delete()
    assert pod.node.run("find /sys/fs/bpf /run/bypath").stdout == state


def test_an_add_with_other_addresses_is_refused(pod: Pod) -> None:
    pod.add(limitMiB=2)
    other_address = {**pod.result, "ips": [{"address": "10.244.1.77/32", "interface": 1}]}
    with pytest.raises(CniFailure, match="call DEL for it first") as caught:
        pod.cni.add(pod.conf(limitMiB=3, prevResult=other_address), "p1", pod.netns)
    assert caught.value.code == 102
    pod.check(limitMiB=2)


def failing_add(pod: Pod, **keys: Any) -> None:
    """Without a cgroup v2 mount the kernel is known to be good, and the programs cannot be attached."""
    done = pod.run("ADD", WITHOUT_CGROUP2, **keys)
    assert done.returncode == 1 and "cgroup" in json.loads(done.stdout)["msg"]


def test_a_first_add_that_fails_leaves_nothing(pod: Pod, other: Pod) -> None:
    other.add()
    other.delete()
    failing_add(pod)
    assert (dump(pod.node, "attachments"), pod.policy(), pod.addresses(), links(pod.node)) == ({}, None, 0, [])


def test_a_change_that_fails_leaves_the_policy_as_it_was(pod: Pod) -> None:
    pod.add(limitMiB=2, nodeLimitMiB=5)
    pod.node.run(f"rm {PINS}/links/*")
    failing_add(pod, limitMiB=3, nodeLimitMiB=6)
    policy = pod.policy()
    assert policy and policy["limit_bytes"] == 2 << 20
    assert layout.NODE.unpack(*dump(pod.node, "node").values()) == (5 << 20,)
    pod.add(limitMiB=2, nodeLimitMiB=5)
    pod.check(limitMiB=2, nodeLimitMiB=5)


def test_del_needs_neither_namespace_nor_result(pod: Pod) -> None:
    pod.add()
    conf = {key: value for key, value in pod.conf().items() if key != "prevResult"}
    pod.cni.delete(conf, "p1", None)
    assert (pod.policy(), pod.addresses(), links(pod.node)) == (None, 0, [])


def test_a_pod_keeps_its_policy_until_its_last_attachment_goes(pod: Pod) -> None:
    pod.add()
    second = {**pod.conf(), "name": "more"}
    pod.cni.add(second, "p1", pod.netns)
    pod.check()
    pod.cni.check(second, "p1", pod.netns)
    pod.delete()
    policy = pod.policy()
    assert policy and policy["flags"] == SIDECAR | POD
    pod.cni.delete(second, "p1", pod.netns)
    assert (pod.policy(), links(pod.node)) == (None, [])


def test_the_last_pod_takes_the_node_part_away(pod: Pod, other: Pod) -> None:
    pod.add()
    other.add()
    pod.delete()
    assert links(pod.node) != [] and other.policy() and other.addresses() == 2
    other.check()
    other.delete()
    assert links(pod.node) == []


def test_an_address_of_a_pod_that_never_had_its_del_becomes_the_next_ones(pod: Pod, other: Pod) -> None:
    pod.add()
    other.cni.add(other.conf(prevResult={**pod.result, "interfaces": other.result["interfaces"]}), "p2", other.netns)
    assert (pod.addresses(), other.addresses()) == (0, 2)
    pod.delete()
    assert other.addresses() == 2


def test_the_hosts_own_namespace_is_never_accelerated(room: Room, pod: Pod) -> None:
    with pytest.raises(CniFailure, match="host's own network namespace") as caught:
        pod.cni.add(pod.conf(prevResult={"cniVersion": "1.0.0"}), "host", "/proc/self/ns/net", CNI_NETNS_OVERRIDE="1")
    assert caught.value.code == 2
    assert dump(room.node, "pods") == {}


def test_a_pod_with_a_bandwidth_limit_has_no_scope_pod_and_is_told(pod: Pod) -> None:
    done = pod.run("ADD", runtimeConfig={"bandwidth": {"egressRate": 8_000_000}}, capabilities={"bandwidth": True})
    assert json.loads(done.stdout) == pod.result
    assert done.stderr == (
        "bypath: bypath/pods/p1/eth0: scope pod is off for this pod: it has a bandwidth limit, which would not see the "
        "bytes\n"
    )
    policy = pod.policy()
    assert policy and policy["flags"] == SIDECAR


LIMITED = """
from bpf import records
from bpf.records import Record
from cni.identity import Attachment
attachment = Attachment("pods", "p1", "eth0")
records.open_or_create("bandwidth-edt").claim(attachment, Record(container_id="p1", ifname="eth0"))
"""


def test_a_limit_that_stands_in_the_conflist_is_known_by_its_record(pod: Pod) -> None:
    """The record alone: there is no fq on each kernel that has a fit sockmap."""
    pod.node.run([sys.executable, "-c", LIMITED], env={"PYTHONPATH": str(REPO)})
    done = pod.run("ADD")
    assert "scope pod is off for this pod: it has a bandwidth limit" in done.stderr
    policy = pod.policy()
    assert policy and policy["flags"] == SIDECAR
    pod.check()
    pod.node.run("rm -r /sys/fs/bpf/bypath/bandwidth-edt")
    assert "the policy in force is not the configured one" in pod.fault()


def test_check_names_what_became_of_a_policy(pod: Pod) -> None:
    pod.add()
    pod.check()
    key = " ".join(map(str, layout.U64.pack(pod.cookie)))
    pod.node.run(f"bpftool map delete pinned {PINS}/pods key {key}")
    assert "the policy in force is not the configured one" in pod.fault()
    pod.add()
    pod.check()
    mapped = "0 " * 10 + "255 255 " + pod.ips[0].replace(".", " ")
    pod.node.run(f"bpftool map delete pinned {PINS}/pod_ips key {mapped}")
    assert f"{pod.ips[0]} does not lead to the pod" in pod.fault()
    pod.add()
    pod.node.run(f"rm {PINS}/links/*")
    assert "sm_ops" in pod.fault()
    pod.add()
    pod.check()
    pod.node.run(f"bpftool prog detach pinned {PINS}/sm_skb skb_verdict pinned {PINS}/socks")
    assert "sm_skb" in pod.fault()
    pod.add()
    pod.check()


def test_check_knows_another_namespace_under_the_same_path(pod: Pod, other: Pod) -> None:
    pod.add()
    with pytest.raises(CniFailure, match="in another network namespace than at ADD") as caught:
        pod.cni.check(pod.conf(), "p1", other.netns)
    assert caught.value.code == 103


def test_gc_takes_the_policies_of_pods_that_are_not_listed(pod: Pod, other: Pod) -> None:
    pod.add()
    other.add()
    pod.cni.gc(BARE)
    pod.cni.gc(BARE, valid=[("p1", "eth0"), ("p2", "eth0")])
    pod.check()
    pod.cni.gc({**BARE, "name": "another"}, valid=[])
    other.check()
    pod.cni.gc(BARE, valid=[("p1", "eth0")])
    assert pod.policy() and (other.policy(), other.addresses()) == (None, 0)
    pod.check()
    pod.cni.gc(BARE, valid=[])
    assert (pod.policy(), dump(pod.node, "attachments"), links(pod.node)) == (None, {}, [])


def test_gc_sweeps_what_no_record_names(pod: Pod) -> None:
    pod.add()
    stray = " ".join(map(str, layout.U64.pack(0xABCDEF)))
    zeros = " ".join(["0"] * layout.POLICY.size)
    pod.node.run(f"bpftool map update pinned {PINS}/pods key {stray} value {zeros}")
    pod.node.run(f"bpftool map update pinned {PINS}/pod_ips key {'9 ' * 16} value {stray}")
    pod.cni.gc(BARE)
    assert list(dump(pod.node, "pods")) == list(dump(pod.node, "counters")) == [layout.U64.pack(pod.cookie)]
    assert set(dump(pod.node, "pod_ips").values()) == {layout.U64.pack(pod.cookie)}
    pod.check()


def test_a_pod_without_addresses_has_the_scope_sidecar_all_the_same(room: Room) -> None:
    cni = Cni(room.node, EXECUTABLE)
    conf = {**BARE, "mode": "all", "prevResult": {"cniVersion": "1.1.0"}}
    cni.add(conf, "c1", room.netns)
    assert len(dump(room.node, "pods")) == 1 and dump(room.node, "pod_ips") == {}
    cni.check(conf, "c1", room.netns)
    cni.delete(conf, "c1", room.netns)
