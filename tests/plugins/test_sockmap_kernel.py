# SPDX-License-Identifier: Apache-2.0
"""Whether bypath-sockmap trusts a kernel: the self-test, its verdict, and what becomes of pods without its consent."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernels import probes
from tests.lab.executable import DIST, REPO, CniFailure
from tests.plugins.rooms import Room
from tests.plugins.sockmap_lab import VERDICT, WITHOUT_CGROUP2, Pod, dump, links, pod_of

pytestmark = pytest.mark.feature("sockmap: trust in the kernel")
DIGEST = (DIST if (DIST / "bpf").exists() else REPO / "build") / "bpf/sockmap.sha256"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
FAULT = "kernel 6.1.0 failed the self-test of redirected TCP: FIONREAD: 0 instead of 1000 bytes"
HIDDEN = {
    "the kernel's types": ("mount -t tmpfs none /sys/kernel/btf", "CONFIG_DEBUG_INFO_BTF"),
    "cgroup v2": (WITHOUT_CGROUP2, "cgroup"),
}


@pytest.fixture
def pod(room: Room) -> Iterator[Pod]:
    room.node.run(f"rm -f {VERDICT}")
    with pod_of(room.node, "p1") as made:
        yield made
        room.node.run(f"rm -f {VERDICT}")


def write_verdict(pod: Pod, fault: str, boot: str = "", digest: str = "") -> None:
    boot = boot or BOOT_ID.read_text().strip()
    digest = digest or DIGEST.read_text().strip()
    pod.node.run(["sh", "-c", f"cat > {VERDICT}"], input=f"{boot}\n{digest}\n{fault}\n")


def verdict(pod: Pod) -> str:
    return pod.node.run(["cat", VERDICT]).stdout


def assert_nothing_in_force(pod: Pod) -> None:
    assert (dump(pod.node, "attachments"), dump(pod.node, "pods"), links(pod.node)) == ({}, {}, [])


def test_the_first_add_of_a_boot_tests_the_kernel_and_writes_down_what_it_found(pod: Pod) -> None:
    pod.run("ADD")
    boot, digest, fault, end = verdict(pod).split("\n")
    assert (boot, digest, end) == (
        BOOT_ID.read_text().strip(), DIGEST.read_text().strip(), "",
    )  # fmt: skip
    assert bool(fault) is not probes.has("sockmap"), fault
    if fault:
        assert re.search("self-test of redirected TCP: [A-Za-z- ]+: ", fault), "the behaviour has no name"
    assert bool(dump(pod.node, "pods")) is not bool(fault)


@pytest.mark.needs("sockmap")
def test_a_verdict_of_another_boot_or_object_or_a_damaged_one_counts_as_none(pod: Pod) -> None:
    write_verdict(pod, FAULT, boot="00000000-0000-0000-0000-000000000000")
    pod.add()
    assert pod.policy() and FAULT not in verdict(pod)
    write_verdict(pod, FAULT, digest="0" * 64)
    pod.add()
    assert pod.policy() and FAULT not in verdict(pod)
    pod.node.run(f"printf half > {VERDICT}")
    pod.add()
    assert pod.policy() and len(verdict(pod).split("\n")) == 4


def test_by_default_a_pod_starts_without_acceleration_on_an_unsuitable_kernel(pod: Pod) -> None:
    write_verdict(pod, FAULT)
    done = pod.run("ADD")
    assert (done.returncode, json.loads(done.stdout)) == (0, pod.result)
    assert done.stderr == f"bypath: bypath/pods/p1/eth0: stays without bypath-sockmap: {FAULT}\n"
    assert_nothing_in_force(pod)
    pod.check()
    pod.cni.status(pod.conf(cniVersion="1.1.0"))


def test_where_the_operator_insists_the_error_names_the_behaviour(pod: Pod) -> None:
    write_verdict(pod, FAULT)
    with pytest.raises(CniFailure) as caught:
        pod.add(onUnsupported="fail")
    assert caught.value.code == 100 and caught.value.msg.startswith(FAULT)
    assert_nothing_in_force(pod)
    with pytest.raises(CniFailure) as caught:
        pod.cni.status(pod.conf(cniVersion="1.1.0", onUnsupported="fail"))
    assert (caught.value.code, caught.value.msg) == (50, FAULT)


@pytest.mark.needs("sockmap")
def test_a_policy_goes_when_its_kernel_is_found_out(pod: Pod) -> None:
    """As after an upgrade whose object the kernel does not bear."""
    pod.add()
    write_verdict(pod, FAULT)
    assert pod.run("ADD").returncode == 0
    assert_nothing_in_force(pod)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_kernel_without_what_the_programs_need_is_like_an_unsuitable_one(pod: Pod, hidden: str) -> None:
    before, word = HIDDEN[hidden]
    done = pod.run("ADD", before)
    assert (done.returncode, json.loads(done.stdout)) == (0, pod.result)
    assert "stays without bypath-sockmap" in done.stderr and word in done.stderr
    done = pod.run("ADD", before, onUnsupported="fail")
    assert done.returncode == 1 and json.loads(done.stdout)["code"] == 100 and word in json.loads(done.stdout)["msg"]
    assert_nothing_in_force(pod)
    done = pod.run("STATUS", before, onUnsupported="fail", cniVersion="1.1.0")
    assert done.returncode == 1 and json.loads(done.stdout)["code"] == 50 and word in json.loads(done.stdout)["msg"]
    assert pod.run("STATUS", before, cniVersion="1.1.0").returncode == 0
    # It is the operator's to change, so it is not remembered.
    pod.node.run(["test", "!", "-e", VERDICT])


def test_status_tests_nothing_and_is_content_until_something_is_known(pod: Pod) -> None:
    pod.cni.status(pod.conf(cniVersion="1.1.0", onUnsupported="fail"))
    pod.cni.status(pod.conf(cniVersion="1.1.0", mode="off", onUnsupported="fail"))
    pod.node.run(["test", "!", "-e", VERDICT])


TESTING = """
import sys, time
from sockmap import node, verdict

def test(wanted):
    with open("/run/tests", "a") as told:
        told.write("tested\\n")
    time.sleep(0.2)
    return ""

sys.exit(verdict.find(node.OBJECT, test))
"""


def test_pods_that_all_come_first_test_the_kernel_once(pod: Pod) -> None:
    """The others wait for the one that does."""
    paths = f"PYTHONPATH={REPO}:{REPO}/plugins/sockmap"
    all_at_once = f"for n in 1 2 3 4 5 6 7 8; do {paths} {sys.executable} -c '{TESTING}' & done; wait"
    pod.node.run(f"rm -f /run/tests; {all_at_once}")
    assert pod.node.run("cat /run/tests").stdout == "tested\n"
