# SPDX-License-Identifier: Apache-2.0
"""What is measured goes first, so that whatever else the machine does disturbs it little."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HIGHEST = -20
_OWN = Path("/proc/self/autogroup")
"""Where the kernel shares out time by session first, a process's own priority counts only among its session's."""


@contextmanager
def highest() -> Iterator[None]:
    """For this process, its session, and what they start meanwhile. Raises PermissionError unless we are root."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    of_session = _OWN.read_text().split()[-1] if _OWN.exists() else None
    os.setpriority(os.PRIO_PROCESS, 0, HIGHEST)
    try:
        if of_session is not None:
            _OWN.write_text(str(HIGHEST))
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)
        if of_session is not None:
            _OWN.write_text(of_session)
