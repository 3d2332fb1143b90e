# SPDX-License-Identifier: Apache-2.0
"""How long an emulated machine had to wait for a processor of this one: such gaps are in its figures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def run_delay_sec(pid: int) -> float:
    """What all threads of a process together spent runnable without running, up to now; 0 when it is gone."""
    waited_ns = 0
    for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            waited_ns += int(schedstat.read_text().split()[1])
        except OSError:
            continue  # a thread that ended
    return waited_ns / 1e9


def children() -> list[int]:
    """Of this process, whichever of its threads started them."""
    texts = [path.read_text() for path in Path(f"/proc/{os.getpid()}/task").glob("*/children")]
    return [int(pid) for text in texts for pid in text.split()]


class Starvation:
    """Hands on the lines of an emulated machine; looks at each how long it has waited since the one before."""

    SHOWN = 0.05

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._begun = self._last = time.monotonic()
        self._waited_sec = 0.0

    def __call__(self, line: str) -> None:
        now, waited_sec = time.monotonic(), sum(map(run_delay_sec, children()))
        share = (waited_sec - self._waited_sec) / max(now - self._last, 0.1)
        self._last, self._waited_sec = now, max(waited_sec, self._waited_sec)
        self._show(f"{line}  [no processor for {share:.0%} of this]" if share > self.SHOWN else line)

    @property
    def percent(self) -> float:
        """Of the time between the first line and the last."""
        return 100 * self._waited_sec / max(self._last - self._begun, 0.1)
