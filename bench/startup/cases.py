# SPDX-License-Identifier: Apache-2.0
"""The commands that are compared, and the places where they run."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.startup.measure import Case, Cost, interleaved
from tests.lab.executable import DIST, REFERENCE, REPO
from tests.lab.node import Node

REFERENCE_PLUGIN = "ptp"
"""What host-gw replaces: a veth pair and routes, in Go."""


def executables() -> list[Path]:
    return sorted(DIST.glob("bypath-*"))


def version_costs(rounds: int) -> dict[str, Cost]:
    """VERSION has no effect, so it runs on the machine itself."""
    cases = [
        Case(path.name, [str(path)], {"CNI_COMMAND": "VERSION"}, json.dumps({"cniVersion": "1.0.0"}))
        for path in (REFERENCE / REFERENCE_PLUGIN, *executables())
    ]
    return interleaved(cases, rounds)


def attachment_costs(rounds: int) -> dict[str, Cost]:
    """ADD and DEL with host-local, each plugin with a pod of its own in a node that exists for the measurement only."""
    with Node.create("bench-startup") as node:
        cases = []
        for number, path in enumerate((REFERENCE / REFERENCE_PLUGIN, DIST / "bypath-host-gw")):
            netns = node.add_pod_netns(f"pod{number}")
            for verb in ("ADD", "DEL"):
                cases.append(_attachment(path, verb, netns, number))
        order = json.dumps({"cases": [asdict(case) for case in cases], "rounds": rounds})
        here = [sys.executable, "-m", "bench.startup.measure"]
        printed = node.run(here, input=order, env={"PYTHONPATH": str(REPO)}, timeout=600).stdout
    return {name: Cost(**cost) for name, cost in json.loads(printed).items()}


def _attachment(path: Path, verb: str, netns: str, number: int) -> Case:
    conf: dict[str, Any] = {"cniVersion": "1.0.0", "name": f"bench{number}", "type": path.name}
    conf["ipam"] = {"type": "host-local", "ranges": [[{"subnet": f"10.244.{number}.0/24"}]]}
    env = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": f"bench-{number}",
        "CNI_NETNS": netns,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": f"{DIST}:{REFERENCE}",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    return Case(f"{path.name} {verb}", [str(path)], env, json.dumps(conf))
