# SPDX-License-Identifier: Apache-2.0
"""Many pods under bypath-sockmap at once, and ADDs that are killed wherever they happen to be."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Iterator

import pytest

from tests.lab.executable import Json
from tests.plugins.conftest import Keeper
from tests.plugins.rooms import HOST_GW, Room, conf_for
from tests.plugins.sockmap_lab import EXECUTABLE, VERDICT, dump, links
from tests.plugins.storm_lab import FEW_AT_ONCE, crowded, errors, storm

pytestmark = [pytest.mark.needs("sockmap"), pytest.mark.feature("sockmap: storm")]
PODS = 50
CONFS: list[Json] = [conf_for(HOST_GW, ipam={"type": "lab-ipam", "families": [4]}), conf_for(EXECUTABLE, mode="all")]


@pytest.fixture(scope="module")
def keeper() -> Iterator[Keeper]:
    made = Keeper(lambda: crowded(PODS))
    yield made
    made.discard()


def sizes(room: Room) -> list[int]:
    return [len(dump(room.node, name)) for name in ("attachments", "pods", "counters", "pod_ips")]


def test_pods_that_all_come_first_are_all_accelerated(room: Room) -> None:
    """The kernel is tested, and the programs are loaded, while the others wait."""
    room.node.run(f"rm -rf /sys/fs/bpf/bypath {VERDICT}")
    pods = list(range(PODS))
    assert errors(storm(room, "ADD", CONFS, pods)) == []
    assert sizes(room) == [PODS] * 4
    assert errors(storm(room, "DEL", CONFS, pods)) == []
    assert (sizes(room), links(room.node)) == ([0] * 4, [])


def test_whatever_moment_adds_are_killed_at_gc_leaves_nothing(room: Room) -> None:
    seed = int(os.environ.get("BYPATH_SEED", time.time_ns() % 1_000_000))
    print(f"BYPATH_SEED={seed} repeats these moments, as far as the machine is as busy")
    chance = random.Random(seed)
    pods = list(range(PODS))
    few = pods[: 2 * FEW_AT_ONCE]
    whole_seconds = statistics.median(outcome["seconds"] for outcome in storm(room, "ADD", CONFS, few, {0: 3600.0}))
    assert errors(storm(room, "DEL", CONFS, few)) == []

    outcomes = storm(room, "ADD", CONFS, pods, {pod: chance.uniform(0.3, 1.2) * whole_seconds for pod in pods})
    killed = sum(outcome["killed"] for outcome in outcomes)
    print(f"{killed} of {PODS} were killed; a whole ADD took {whole_seconds:.3f} s")
    assert killed > PODS // 10, "too few were killed for this to prove anything"
    assert errors(outcomes) == []
    kept = [pod for pod in pods if outcomes[pod]["result"]][:2]
    for conf in CONFS:
        room.cni(conf["type"]).gc(conf, valid=[(f"c{pod}", "eth0") for pod in kept])
    assert sizes(room) == [len(kept)] * 4
    assert errors(storm(room, "DEL", CONFS, pods)) == []
    assert (sizes(room), links(room.node)) == ([0] * 4, [])


def test_a_first_add_of_a_boot_that_is_killed_is_begun_again(room: Room) -> None:
    """In the self-test, in the load, between both: nothing of it is pinned before it is whole."""
    whole = 0.0
    for moment in range(12):
        room.node.run(f"rm -rf /sys/fs/bpf/bypath {VERDICT}")
        storm(room, "ADD", CONFS, [0], {0: whole * moment / 11 if whole else 3600.0})
        began = time.monotonic()
        assert errors(storm(room, "ADD", CONFS, [1])) == []
        whole = whole or time.monotonic() - began
        assert len(dump(room.node, "pods")) >= 1 and links(room.node) != []
        assert errors(storm(room, "DEL", CONFS, [0, 1])) == []
        assert links(room.node) == []
