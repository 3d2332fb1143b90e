# SPDX-License-Identifier: Apache-2.0
"""What the demonstration prints: numbered steps with the time since the start, facts under them, and a verdict."""

from __future__ import annotations

import sys
import time

_STARTED = time.monotonic()
_COLOUR = sys.stdout.isatty()


class Broken(Exception):
    """Something that the demonstration wanted to show is not so."""


def _paint(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if _COLOUR else text


def step(text: str) -> None:
    elapsed = int(time.monotonic() - _STARTED)
    print(_paint(f"\n{elapsed // 60:2d}:{elapsed % 60:02d}  {text}", "1"), flush=True)


def fact(text: str) -> None:
    for line in text.splitlines() or [""]:
        print(f"       {line}", flush=True)


def claim(holds: bool, text: str) -> None:
    """A fact that must hold; the demonstration ends when it does not."""
    print(f"    {_paint('ok', '32') if holds else _paint('NO', '31')} {text}", flush=True)
    if not holds:
        raise Broken(text)
