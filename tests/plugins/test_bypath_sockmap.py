# SPDX-License-Identifier: Apache-2.0
"""`bypath sockmap`: what an operator sees of the accelerated pods of a node, and of its kernel."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.executable import DIST
from tests.lab.node import Node
from tests.plugins.rooms import Room
from tests.plugins.sockmap_lab import PINS, VERDICT, WITHOUT_CGROUP2, Pod, Talk, cgroups, links, pod_of

pytestmark = [pytest.mark.needs("sockmap"), pytest.mark.feature("bypath sockmap")]
HEAD = "POD INTERFACE ADDRESSES SCOPES JOINED REDIRECTED BY TCP SPILLS PLAIN FAILED"
MIB = 1 << 20


@pytest.fixture
def pod(room: Room) -> Iterator[Pod]:
    with pod_of(room.node, "p1") as made:
        yield made


def bypath(node: Node, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = node.run([str(DIST / "bypath"), "sockmap", *words], check=False)
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    return done


def facts(node: Node, *words: str) -> Any:
    return json.loads(bypath(node, *words, "--json").stdout)


def test_pods_are_listed_with_what_their_sockets_have_done(pod: Pod) -> None:
    assert facts(pod.node, "list") == []
    assert " ".join(bypath(pod.node, "list").stdout.split()) == HEAD
    pod.add(scopes=["sidecar"])
    talk = Talk(pod, "127.0.0.1", pod.serve())
    assert talk.ask(10, 1024) == 10 * 1024
    talk.close()
    (found,) = facts(pod.node, "list")
    assert (found["containerId"], found["interface"], found["addresses"]) == ("p1", "eth0", pod.ips)
    assert (found["netnsCookie"], found["scopes"], found["netns"]) == (pod.cookie, ["sidecar"], pod.netns)
    assert found["counters"] == pod.counters() and found["counters"]["redirected_bytes"] == 20 * 1024
    shown = bypath(pod.node, "list").stdout.splitlines()[1]
    assert shown.split() == ["p1", "eth0", *pod.ips, "sidecar", "2", "20", "KiB", "0", "B", "0", "0", "0"]


def test_one_pod_is_shown_with_its_policy_in_words(pod: Pod) -> None:
    pod.add(excludePorts=[15090, 15021], excludeUIDs=[1337], limitMiB=8)
    shown = bypath(pod.node, "show", "p").stdout
    assert f"pod p1, eth0 in {pod.netns}: {' '.join(pod.ips)} (cookie {pod.cookie})\n" in shown
    policy = "sidecar and pod; 8 MiB may wait in each direction of a connection; not ports 15021, 15090; not users 1337"
    policy += "; seen at the root cgroup"
    assert f"policy: {policy}\n" in shown
    assert "0 sockets were joined, 0 stayed plain, 0 found no room" in shown
    found = facts(pod.node, "show", "p1", "--interface=eth0")
    assert (found["limitBytes"], found["excludePorts"], found["excludeUIDs"]) == (8 * MIB, [15021, 15090], [1337])
    assert "no pod p2 has a policy of bypath-sockmap" in bypath(pod.node, "show", "p2", status=1).stderr


def test_a_pod_whose_connections_all_stay_plain_is_told_why(pod: Pod) -> None:
    pod.add(scopes=["pod"])
    talk = Talk(pod, "127.0.0.1", pod.serve())
    assert talk.ask(1, 100) == 100
    talk.close()
    shown = bypath(pod.node, "show", "p1").stdout
    assert "0 sockets were joined, 2 stayed plain" in shown and "None of its connections was joined" in shown


def test_the_node_is_shown_before_its_first_pod_and_with_it(pod: Pod) -> None:
    pod.node.run(f"rm -f {VERDICT}")
    shown = bypath(pod.node, "status").stdout
    assert "has not been tested since it booted" in shown and "no pod of this node has a policy" in shown
    pod.add(nodeLimitMiB=256)
    talk = Talk(pod, "127.0.0.1", pod.serve())
    talk.ask(1, 100)
    found = facts(pod.node, "status")
    assert (found["selfTest"], found["fault"], found["pods"], found["faults"]) == ("passed", "", 1, [])
    assert (found["sockets"], found["socketsMax"], found["nodeLimitBytes"]) == (2, 65536, 256 * MIB)
    assert found["tcpMemoryBytes"] > 0
    assert "1 pods have a policy; 2 sockets are joined, 65536 can be\n" in bypath(pod.node, "status").stdout
    talk.close()


def test_a_program_that_somebody_took_away_is_named_with_what_mends_it(pod: Pod) -> None:
    pod.add()
    (link,) = links(pod.node)
    pod.node.run(f"bpftool link detach pinned {PINS}/links/{link}")
    shown = bypath(pod.node, "status").stdout
    assert "sm_ops is not attached to the root cgroup; the next ADD of a pod with a policy mends it" in shown
    pod.add()
    assert facts(pod.node, "status")["faults"] == []


def test_a_pod_with_a_cgroup_of_its_own_is_shown_there_and_missed_when_its_program_is_gone(pod: Pod) -> None:
    with cgroups(pod.node) as give_cgroup:
        give_cgroup(pod)
        pod.add(**pod.own_cgroup())
        assert "; seen at its own cgroup\n" in bypath(pod.node, "show", "p1").stdout
        assert facts(pod.node, "status")["faults"] == []
        (link,) = links(pod.node)
        pod.node.run(f"bpftool link detach pinned {PINS}/links/{link}")
        assert facts(pod.node, "status")["faults"] == ["sm_pod_ops is not attached to the cgroup of pod p1"]


def test_a_kernel_is_tested_before_any_pod_needs_it(pod: Pod) -> None:
    pod.node.run(f"rm -f {VERDICT}")
    assert "has passed" in bypath(pod.node, "test").stdout
    boot, digest, *_ = pod.node.run(f"cat {VERDICT}").stdout.split("\n")
    pod.node.run(f"printf '%s\\n%s\\nthe moon is full\\n' {boot} {digest} >{VERDICT}")
    assert "cannot be trusted with redirected TCP: the moon is full" in bypath(pod.node, "status").stdout
    bypath(pod.node, "test")
    assert facts(pod.node, "status")["selfTest"] == "passed"


def test_a_kernel_that_fails_is_named_and_the_status_says_so(pod: Pod) -> None:
    argv = ["unshare", "-m", "sh", "-ec", f"{WITHOUT_CGROUP2}; exec {DIST}/bypath sockmap test"]
    pod.node.run(f"rm -f {VERDICT}")
    done = pod.node.run(argv, check=False)
    assert done.returncode == 1 and "bypath: no cgroup v2 hierarchy is mounted; type: mount" in done.stderr, done
