# SPDX-License-Identifier: Apache-2.0
"""Which processors a load runs on, and whether they sleep, where that would decide the figures.

To wake a processor that sleeps takes several times as long as the whole path, the more so in a virtual machine. So
where only one process runs at a time, all are on one processor.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

_CPUS = sorted(os.sched_getaffinity(0))
_IDLE_DRIVER = Path("/sys/devices/system/cpu/cpuidle/current_driver")
_WAKE_UP_USEC = Path("/dev/cpu_dma_latency")
"""How long it may take to wake a processor (admin-guide/pm/cpuidle.rst), as long as the file is open."""


class CannotStayAwake(Exception):
    """The kernel has no say in how its processors idle."""


def _put(pids: Collection[int], cpus: Collection[int]) -> None:
    """With all threads they have; those to come inherit it."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cpus)


@contextmanager
def on_one(pids: Collection[int]) -> Iterator[None]:
    """These processes, and what is started in the block."""
    _put([*pids, os.getpid()], _CPUS[-1:])
    try:
        yield
    finally:
        _put([*pids, os.getpid()], _CPUS)


@contextmanager
def awake() -> Iterator[None]:
    """No processor sleeps, as with tuned's profile network-latency. Raises CannotStayAwake."""
    if not _WAKE_UP_USEC.exists() or _IDLE_DRIVER.read_text().strip() == "none":
        raise CannotStayAwake(f"nothing heeds {_WAKE_UP_USEC} here")
    with _WAKE_UP_USEC.open("wb", buffering=0) as held:
        held.write(struct.pack("=i", 0))
        yield
