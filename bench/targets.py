# SPDX-License-Identifier: Apache-2.0
"""A target and whether it was met, and how a report shows that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

ABSENT = "—"
_SIGNS = "≤≥"


class Verdict(NamedTuple):
    """One target. measured: None when this run did not measure it, which is not met."""

    what: str
    measured: float | None
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        if self.measured is None:
            return False
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    @property
    def word(self) -> str:
        return "not measured" if self.measured is None else "met" if self.met else "not met"


def number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    if value is None:
        return ABSENT
    if value == float("inf"):
        return "∞"
    return f"{value:{'+' if signed else ''}.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; the first column is words, the others are numbers."""
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows), "", ""])


def targets(found: Sequence[Verdict], signed: bool = False) -> str:
    """The section of a report. signed: what is measured are changes."""
    rows = [
        (each.what, number(each.measured, signed=signed), f"{_SIGNS[each.at_least]} {each.limit:.4g}", each.word)
        for each in found
    ]
    return "## Targets\n\n" + table(("bypath", "measured", "target", ""), rows)
