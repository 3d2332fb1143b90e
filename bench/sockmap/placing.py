# SPDX-License-Identifier: Apache-2.0
"""Which processors a load runs on, where the scheduler's choice would decide the figures.

Where only one process runs at a time, all are on one processor: to wake another one that idles takes several times as
long as the whole path, the more so in a virtual machine.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

_CPUS = sorted(os.sched_getaffinity(0))


def _put(pids: Collection[int], cpus: Collection[int]) -> None:
    """With all threads they have; those to come inherit it."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cpus)


@contextmanager
def on_one(pids: Collection[int]) -> Iterator[None]:
    """These processes, and what is started in the block."""
    with _placed(pids, _CPUS[-1:], _CPUS[-1:]):
        yield


@contextmanager
def apart(pids: Collection[int]) -> Iterator[None]:
    """These on one processor, what is started in the block on another, if there are two."""
    with _placed(pids, _CPUS[-1:], _CPUS[:1]):
        yield


@contextmanager
def _placed(pids: Collection[int], cpus: Collection[int], cpus_of_this: Collection[int]) -> Iterator[None]:
    """Afterwards all of them go where they like again."""
    _put(pids, cpus)
    os.sched_setaffinity(0, cpus_of_this)
    try:
        yield
    finally:
        _put([*pids, os.getpid()], _CPUS)
