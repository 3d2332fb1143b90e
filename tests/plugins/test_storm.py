# SPDX-License-Identifier: Apache-2.0
"""Many pods at once, and plugins killed wherever they happen to be: nothing is doubled and nothing is left."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import ipam
from tests.lab.executable import Json
from tests.plugins.conftest import Keeper
from tests.plugins.rooms import EXECUTABLES, HOST_GW, HOST_LOCAL, Room, conf_for
from tests.plugins.storm_lab import FEW_AT_ONCE, crowded, errors, storm

pytestmark = [pytest.mark.feature("storm"), pytest.mark.once]

EMULATED = "TCG" in Path("/proc/cpuinfo").read_text()
PODS = int(os.environ.get("BYPATH_STORM", "20" if EMULATED else "100"))
SNAT = "bypath-snat"
CHAINS = [[HOST_GW], [HOST_GW, SNAT]] if SNAT in EXECUTABLES else [[HOST_GW]]
BOOTS = 2 if EMULATED else 10


@pytest.fixture(scope="module")
def keeper() -> Iterator[Keeper]:
    made = Keeper(lambda: crowded(PODS))
    yield made
    made.discard()


def confs_of(chain: list[str], version: str, delegate: Json) -> list[Json]:
    first, *others = chain
    snat = {"nonMasqueradeCIDRs": ["10.244.0.0/16", "192.0.2.0/24"]}
    return [conf_for(first, version, ipam=delegate), *(conf_for(other, version, **snat) for other in others)]


@pytest.mark.parametrize("chain", CHAINS, ids=" + ".join)
def test_pods_that_all_come_at_once_get_addresses_of_their_own(room: Room, chain: list[str]) -> None:
    confs = confs_of(chain, "1.0.0", HOST_LOCAL)
    pods = list(range(PODS))
    outcomes = storm(room, "ADD", confs, pods)
    assert errors(outcomes) == []
    addresses = [outcome["result"]["ips"][0]["address"].removesuffix("/32") for outcome in outcomes]
    hosts = [outcome["result"]["interfaces"][0]["name"] for outcome in outcomes]
    assert len(set(addresses)) == len(set(hosts)) == PODS
    for pod in pods[0], pods[PODS // 2], pods[-1]:
        room.node.pod_run(f"s{pod}", ["ping", "-c1", "-W5", addresses[pod - 1]])
    assert errors(storm(room, "DEL", confs, pods)) == []
    assert errors(storm(room, "DEL", confs, pods[:5])) == []


@pytest.mark.parametrize("chain", CHAINS[-1:], ids=" + ".join)
def test_pods_that_all_come_at_once_after_boot_load_the_programs_once(room: Room, chain: list[str]) -> None:
    confs = confs_of(chain, "1.0.0", HOST_LOCAL)
    pods = list(range(min(PODS, 16)))
    for _ in range(BOOTS):
        room.node.run("rm -rf /sys/fs/bpf/bypath")
        assert errors(storm(room, "ADD", confs, pods)) == []
        assert errors(storm(room, "DEL", confs, pods)) == []


@pytest.mark.parametrize("chain", CHAINS[-1:], ids=" + ".join)
def test_whatever_moment_adds_are_killed_at_del_and_gc_leave_nothing(room: Room, chain: list[str]) -> None:
    seed = int(os.environ.get("BYPATH_SEED", time.time_ns() % 1_000_000))
    print(f"BYPATH_SEED={seed} repeats these moments, as far as the machine is as busy")
    chance = random.Random(seed)
    confs = confs_of(chain, "1.1.0", {"type": "lab-ipam", "families": [4]})
    pods = list(range(PODS))
    whole = storm(room, "ADD", confs, pods[: 2 * FEW_AT_ONCE], {0: 3600.0})
    assert errors(whole) == []
    whole_seconds = statistics.median(outcome["seconds"] for outcome in whole)
    assert errors(storm(room, "DEL", confs, pods[: 2 * FEW_AT_ONCE])) == []

    outcomes = storm(room, "ADD", confs, pods, {pod: chance.uniform(0, 1.2 * whole_seconds) for pod in pods})
    killed = sum(outcome["killed"] for outcome in outcomes)
    print(f"{killed} of {PODS} were killed; a whole ADD took {whole_seconds:.3f} s")
    assert killed > PODS // 5, "too few were killed for this to prove anything"
    assert errors(outcomes) == []
    assert ipam.leases(room.node) != []

    chance.shuffle(pods)
    assert errors(storm(room, "DEL", confs, pods[: PODS // 2])) == []
    listed = [pod for pod in pods[PODS // 2 :] if outcomes[pod]["result"]][:2]
    for conf in confs:
        room.cni(conf["type"]).gc(conf, valid=[(f"c{pod}", "eth0") for pod in listed])
    assert sorted(ipam.leases(room.node)) == sorted(f"c{pod} eth0" for pod in listed)
    assert errors(storm(room, "DEL", confs, listed)) == []
