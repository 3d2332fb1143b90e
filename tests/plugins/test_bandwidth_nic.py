# SPDX-License-Identifier: Apache-2.0
"""bypath-bandwidth-edt with enforce "nic" and "both": what comes to the node's uplinks, and that all of it goes."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.lab.executable import DIST, attachment
from tests.lab.node import environment
from tests.plugins.nic_lab import EXECUTABLE, FOUR_QUEUES, LEAVES, ONE_QUEUE, PINS, TBF, VETH, NicNode, Pod

pytestmark = [pytest.mark.feature("bandwidth nic"), pytest.mark.needs("fq", "ifb")]

MULTI_VETH = VETH.replace("type veth", "numtxqueues 4 type veth")
RESTORED = {
    "noqueue": (VETH, [], ["fq"]),
    "the kernel's pfifo_fast": (ONE_QUEUE, [], ["fq"]),
    "the kernel's mq": (FOUR_QUEUES, [], ["fq", "mq"]),
    "fq_codel": (VETH, ["root handle 8001: fq_codel limit 777 target 7ms noecn"], ["fq"]),
    "tbf": (ONE_QUEUE, [TBF], ["fq"]),
    "mq with leaves": (FOUR_QUEUES, ["root handle 7: mq", *LEAVES], ["fq", "mq"]),
    "a multi-queue veth's mq": (MULTI_VETH, ["root handle 7: mq"], ["fq", "mq"]),
}
UNTOUCHED = {
    "fq": (VETH, ["root handle 3: fq flow_limit 77"]),
    "mq of fq": (FOUR_QUEUES, ["root handle 7: mq", *(f"parent 7:{q} handle {q}0: fq" for q in (1, 2, 3, 4))]),
}  # fmt: skip
REFUSED = {
    "htb 1:": (ONE_QUEUE, ["root handle 1: htb default 1"]),
    "pfifo 2:": (ONE_QUEUE, [TBF, "parent 1:1 handle 2: pfifo"]),
    "htb 10:": (FOUR_QUEUES, ["root handle 7: mq", "parent 7:1 handle 10: htb"]),
}
MOMENTS = 6


@pytest.mark.parametrize("make, words, kinds", RESTORED.values(), ids=RESTORED)
def test_fq_takes_the_place_of_what_was_there_and_gives_it_back(make: str, words: list[str], kinds: list[str]) -> None:
    with NicNode.create(make, words) as nic:
        (pod,) = nic.pods
        pod.add()
        assert nic.is_ours() and nic.kinds() == kinds
        assert len(nic.raw()) == (5 if "mq" in kinds else 1)
        assert nic.programs() == ["edt_nic_out"]
        pod.check()
        assert pod.root() == "noqueue", "the pod's own device is left alone"
        pod.delete()
        assert nic.programs() == []
        nic.gc()


@pytest.mark.parametrize("make, words", UNTOUCHED.values(), ids=UNTOUCHED)
def test_fq_that_is_there_already_is_not_touched(make: str, words: list[str]) -> None:
    with NicNode.create(make, words) as nic:
        (pod,) = nic.pods
        before = nic.raw()
        pod.add()
        assert nic.raw() == before
        assert nic.programs() == ["edt_nic_out"]
        pod.check()
        pod.delete()


@pytest.mark.parametrize("named, make, words", [(name, *case) for name, case in REFUSED.items()], ids=REFUSED)
def test_what_could_not_be_put_back_is_refused_before_anything_is_done(named: str, make: str, words: list[str]) -> None:
    with NicNode.create(make, words) as nic:
        failure = nic.pods[0].refusal()
        assert failure.code == 102
        assert f"nic0 has qdisc {named}" in failure.msg and "tc qdisc del dev nic0 root" in failure.msg


def test_a_node_without_a_default_route_is_told_so() -> None:
    with NicNode.create() as nic:
        nic.node.run("ip route del default")
        failure = nic.pods[0].refusal("both")
        assert failure.code == 101 and "no default route" in failure.msg
        nic.node.run("ip route add default dev nic0")


def test_the_qdiscs_wait_for_the_next_pod_and_go_half_a_minute_after_the_last_one() -> None:
    with NicNode.create(ONE_QUEUE, [TBF], pods=2) as nic:
        first, second = nic.pods
        first.add()
        nic.node.run("tc qdisc change dev nic0 root handle b197: fq quantum 9999")
        first.delete()
        assert nic.is_ours() and nic.programs() == []
        second.add()
        assert nic.programs() == ["edt_nic_out"]
        assert "quantum 9999b" in nic.node.run("tc qdisc show dev nic0").stdout, "the queue was not thrown away"
        second.delete()
        first.delete()
        assert nic.is_ours(), "it has not been long"
        nic.age(10)
        second.add(None)
        assert nic.is_ours(), "half a minute is not over"
        nic.age(31)
        second.add(None)
        assert not nic.is_ours() and nic.files() == []
        first.add()
        first.delete()
        nic.age(31)
        first.delete()
        assert not nic.is_ours() and nic.files() == []


def test_gc_without_a_list_gives_back_what_waits_and_takes_nothing_from_a_pod() -> None:
    with NicNode.create() as nic:
        (pod,) = nic.pods
        bare = {"cniVersion": "1.1.0", "name": "pods", "type": EXECUTABLE}
        pod.add()
        nic.cni.gc(bare)
        pod.check()
        pod.delete()
        assert nic.is_ours()
        nic.cni.gc(bare)


def test_gc_gives_back_at_once_but_only_when_the_last_limit_is_gone() -> None:
    with NicNode.create(FOUR_QUEUES, pods=3) as nic:
        first, second, shaped = nic.pods
        first.add()
        second.add("both")
        shaped.add("pod")
        assert nic.programs() == ["edt_nic_out", "edt_nic_guard"]
        nic.gc(second, shaped)
        assert nic.programs() == ["edt_nic_guard"] and nic.is_ours()
        second.check("both")
        nic.gc(shaped)
        assert nic.programs() == [] and not nic.is_ours()
        shaped.check("pod")
        nic.gc()


def test_a_pod_can_be_moved_from_one_place_to_another_by_another_add() -> None:
    with NicNode.create() as nic:
        (pod,) = nic.pods
        seen = []
        for enforce in "pod", "nic", "both", "nic", "pod", "both":
            pod.add(enforce)
            pod.add(enforce)
            pod.check(enforce)
            seen.append((enforce, pod.root(), nic.programs()))
        nic_only, both = ("nic", "noqueue", ["edt_nic_out"]), ("both", "fq", ["edt_nic_guard"])
        assert seen == [("pod", "fq", []), nic_only, both, nic_only, ("pod", "fq", []), both]
        assert "limit in force is not" in pod.fault("nic")
        pod.add(None)
        assert nic.programs() == [] and pod.root() == "noqueue"
        nic.gc()


def test_check_names_what_became_of_the_nic() -> None:
    with NicNode.create(FOUR_QUEUES) as nic:
        (pod,) = nic.pods
        pod.add("both")
        pod.check("both")
        for words, fault in {
            "parent b197:2 handle 5: pfifo": "nic0 has qdisc pfifo instead of fq",
            "root handle 5: pfifo": "nic0 has root qdisc pfifo instead of fq",
        }.items():
            nic.tc(words)
            assert fault in pod.fault("both")
            pod.add("both")
            pod.check("both")
        nic.node.run("tc qdisc del dev nic0 parent b197:4")
        assert "nic0 has qdisc noop instead of fq" in pod.fault("both")
        pod.add("both")
        pod.check("both")
        nic.node.run("tc qdisc change dev nic0 parent b197:3 handle b19a: fq flow_limit 5")
        assert "nic0 has fq with other limits" in pod.fault("both")
        pod.add("both")
        pod.check("both")
        pod.delete()
        nic.gc()
        assert nic.kinds() == ["pfifo"], "what somebody set in between is what there was"
        nic.node.run("tc qdisc del dev nic0 root")


def test_another_default_route_takes_all_of_it_along() -> None:
    with NicNode.create(f"{VETH}; ip link add nic1 type ifb; ip link set nic1 up", pods=2) as nic:
        first, second = nic.pods
        first.add()
        nic.node.run("ip route replace default dev nic1")
        assert "uplink nic1 has no edt_nic_out" in first.fault()
        second.add()
        assert (nic.is_ours("nic0"), nic.is_ours("nic1")) == (False, True)
        assert (nic.programs("nic0"), nic.programs("nic1")) == ([], ["edt_nic_out"])
        first.check()
        nic.node.run("ip -6 route add default dev nic0")
        first.add()
        assert (nic.is_ours("nic0"), nic.is_ours("nic1")) == (True, True)
        nic.gc()
        nic.node.run("ip -6 route del default dev nic0; ip route replace default dev nic0")


def test_a_device_that_vanished_is_forgotten() -> None:
    with NicNode.create(f"{VETH}; ip link add nic1 type ifb; ip link set nic1 up") as nic:
        (pod,) = nic.pods
        nic.node.run("ip -6 route add default dev nic1")
        pod.add()
        assert len(nic.files()) == 2
        nic.node.run("ip link del nic1")
        pod.delete()
        assert len(nic.files()) == 1
        nic.gc()
        nic.node.run("ip link add nic1 type ifb; ip link set nic1 up")


@pytest.mark.needs("bond")
def test_a_bond_has_the_program_and_its_ports_have_the_queues() -> None:
    ports = "; ".join(
        f"ip link add port{n} numtxqueues {n * n} type veth peer name peer{n}; ip link set peer{n} up;"
        f" ip link set port{n} master nic0; ip link set port{n} up"
        for n in (1, 2)
    )
    with NicNode.create(f"ip link add nic0 type bond mode active-backup; {ports}") as nic:
        (pod,) = nic.pods
        nic.tc("root handle 4: mq", "port2")
        before = nic.raw("port2")
        pod.add()
        pod.check()
        assert nic.programs() == ["edt_nic_out"] and nic.programs("port1") == []
        assert [nic.kinds(device) for device in ("nic0", "port1", "port2")] == [["noqueue"], ["fq"], ["fq", "mq"]]
        nic.node.run("tc qdisc del dev port1 root")
        assert "port1 has root qdisc noqueue instead of fq" in pod.fault()
        pod.delete()
        nic.gc()
        assert nic.raw("port2") == before
        nic.node.run("tc qdisc del dev port2 root")


def test_another_build_replaces_the_programs_on_the_nic(tmp_path: Path) -> None:
    other = tmp_path / "bypath"
    shutil.copytree(DIST, other)
    digest = other / "bpf/edt.sha256"
    digest.write_text(digest.read_text().strip()[::-1])
    with NicNode.create(pods=2) as nic:
        first, second = nic.pods
        first.add("both")
        second.add()
        shown = f"bpftool -j prog show pinned {PINS}/edt_nic_out; bpftool -j prog show pinned {PINS}/edt_nic_guard"
        old = nic.node.run(shown).stdout
        # As a build leaves it whose programs had no slots: the other one has to fill them for pods that are there.
        nic.node.run(f"rm {PINS}/edt_slots")
        nic.cni.path = [str(other)]
        second.add()
        assert nic.node.run(shown).stdout != old
        first.check("both")
        second.check()
        nic.gc()


def killed_after(pod: Pod, verb: str, seconds: float) -> bool:
    """Whether an executable was killed so long after its start; False when it was done before."""
    nic = pod.nic
    conf = {**pod.conf("nic"), "cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
    env = {"CNI_COMMAND": verb, "CNI_PATH": ":".join(nic.cni.path), **attachment(pod.name, pod.netns, "eth0", {})}
    where = nic.node.run(f"for d in {' '.join(nic.cni.path)}; do ls $d/{nic.cni.executable} 2>/dev/null || :; done")
    child = nic.node.popen([where.stdout.split()[0]], stdin=subprocess.PIPE, stdout=-1, stderr=-1, env=environment(env))
    assert child.stdin
    child.stdin.write(json.dumps(conf))
    child.stdin.close()
    time.sleep(seconds)
    done = child.poll() is not None
    nic.node.stop(child)
    return not done


@pytest.mark.parametrize("make, words", [(ONE_QUEUE, [TBF]), (FOUR_QUEUES, ["root handle 7: mq", *LEAVES])],
                         ids=["tbf", "mq"])  # fmt: skip
def test_whatever_moment_add_or_gc_is_killed_at_the_next_gc_gives_back(make: str, words: list[str]) -> None:
    with NicNode.create(make, words) as nic:
        (pod,) = nic.pods
        before, killed = nic.raw(), 0
        pod.add()
        begun = time.monotonic()
        pod.add()
        whole_seconds = time.monotonic() - begun
        for moment in range(MOMENTS):
            killed += killed_after(pod, "GC", whole_seconds * (moment + 1) / MOMENTS)
            nic.gc()
            assert (nic.raw(), nic.files(), nic.programs()) == (before, [], [])
            killed += killed_after(pod, "ADD", whole_seconds * (moment + 1) / MOMENTS)
        assert killed >= MOMENTS, "too few were killed for this to prove anything"
        pod.delete()
        nic.gc()
