# SPDX-License-Identifier: Apache-2.0
"""Rates, bursts, sizes and times as people write them: 50M is fifty million bits, as in a pod's annotations."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import click

_FACTORS = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
}  # fmt: skip
_TEXT = re.compile(r"(\d+(?:\.\d+)?)([kMGT]?|[KMGT]i)")
NONE = "none"


class Bits(click.ParamType[int]):
    """Bits, or bits per second, as an int; `none`, where that is allowed, as 0."""

    name = "BITS"

    def __init__(self, *, or_none: bool = False) -> None:
        self._or_none = or_none

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if self._or_none and value == NONE:
            return 0
        found = _TEXT.fullmatch(value)
        bits = Decimal(found[1]) * _FACTORS[found[2]] if found else Decimal(0)
        if not bits or bits != int(bits) or bits >= 1 << 63:
            what = f" or {NONE!r}" if self._or_none else ""
            self.fail(f"{value!r} is not a number of bits such as 8000, 50M or 1.5G{what}", param, ctx)
        return int(bits)


def bits_text(bits: int) -> str:
    """In the largest unit that three decimals are exact in: 50M, 1.5G, 8000."""
    for suffix in ("G", "M", "k"):
        if bits >= _FACTORS[suffix] and bits * 1000 % _FACTORS[suffix] == 0:
            return f"{Decimal(bits) / _FACTORS[suffix]:f}{suffix}"
    return str(bits)


def bytes_text(count: int) -> str:
    """Three digits at most: 512 B, 1.5 KiB, 64 MiB."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << shift:
            value = count / (1 << shift)
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{count} B"


def time_text(ns: int) -> str:
    """Three digits at most: 65.5 µs, 10 ms, 1.07 s."""
    for factor, unit in ((10**9, "s"), (10**6, "ms"), (10**3, "µs")):
        if ns >= factor:
            return f"{ns / factor:.3g} {unit}"
    return f"{ns} ns"
