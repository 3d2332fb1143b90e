# SPDX-License-Identifier: Apache-2.0
"""Runs commands in turn and takes the median of each: whatever else the machine does meets all of them alike.

Also runs inside the laboratory's node, where it is the program: the cases as JSON on stdin, the costs on stdout.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True)
class Case:
    """One command of the round."""

    name: str
    argv: list[str]
    env: dict[str, str]
    """Its whole environment."""
    stdin: str


@dataclass(frozen=True)
class Cost:
    """Of one process with all its children, or the median of many."""

    cpu_sec: float
    """User and system time."""
    wall_sec: float


@contextmanager
def _document(text: str) -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        yield file.name


def run_once(case: Case) -> Cost:
    """Raises RuntimeError when the command fails: a failure is cheap, and must not pass for a fast success."""
    with _document(case.stdin) as stdin:
        files = [(os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        before = time.perf_counter()
        pid = os.posix_spawn(case.argv[0], case.argv, case.env, file_actions=files)
        _, status, usage = os.wait4(pid, 0)
        wall_sec = time.perf_counter() - before
    if status != 0:
        raise RuntimeError(f"{case.name} ended with status {os.waitstatus_to_exitcode(status)}")
    return Cost(usage.ru_utime + usage.ru_stime, wall_sec)


def interleaved(cases: Sequence[Case], rounds: int, warm_up: int = 3) -> dict[str, Cost]:
    """The median cost of each case over `rounds`, after `warm_up` rounds that do not count."""
    costs: Mapping[str, list[Cost]] = {case.name: [] for case in cases}
    for number in range(warm_up + rounds):
        for case in cases:
            cost = run_once(case)
            if number >= warm_up:
                costs[case.name].append(cost)
    return {
        name: Cost(median(c.cpu_sec for c in all_), median(c.wall_sec for c in all_)) for name, all_ in costs.items()
    }


if __name__ == "__main__":
    order = json.load(sys.stdin)
    results = interleaved([Case(**case) for case in order["cases"]], order["rounds"])
    json.dump({name: asdict(cost) for name, cost in results.items()}, sys.stdout)
