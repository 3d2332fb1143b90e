# SPDX-License-Identifier: Apache-2.0
"""Many pods at once: a room with a namespace for each of them, and a verb for all of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab.executable import Json
from tests.plugins import runtime_driver
from tests.plugins.rooms import HOST_GW, Room

FEW_AT_ONCE = 6
"""Where some are killed, after a time that they need when they are not too many."""


@contextmanager
def crowded(pods: int) -> Iterator[Room]:
    """A room with the namespaces s0, s1 and so on."""
    with Room.create() as made:
        names = " ".join(f"s{number}" for number in range(pods))
        made.node.run(f"for n in {names}; do ip netns add $n; nsenter --net=/run/netns/$n ip link set lo up; done")
        yield made


def storm(room: Room, verb: str, confs: list[Json], pods: list[int], kill: dict[int, float] | None = None) -> list[Any]:
    """What became of each pod, see runtime_driver; `kill`: pod -> seconds after which its plugins are killed."""
    jobs = [
        {"id": f"c{n}", "netns": f"/run/netns/s{n}", "confs": confs, "kill_after": (kill or {}).get(n)} for n in pods
    ]
    request = {
        "verb": verb,
        "parallel": FEW_AT_ONCE if kill else len(pods),
        "path": {conf["type"]: room.path_of(conf["type"]) for conf in confs},
        "env": {"CNI_IFNAME": "eth0", "CNI_PATH": ":".join(room.cni(HOST_GW).path), "PATH": os.environ["PATH"]},
        "jobs": jobs,
    }
    program = [sys.executable, str(Path(runtime_driver.__file__))]
    return list(json.loads(room.node.run(program, input=json.dumps(request), timeout=900).stdout))


def errors(outcomes: list[Any]) -> list[str]:
    """Of those that were not killed."""
    return [outcome["error"] for outcome in outcomes if outcome["error"] and not outcome["killed"]]
