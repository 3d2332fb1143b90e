# SPDX-License-Identifier: Apache-2.0
"""The samples of all rounds of a benchmark, and their medians; percentiles of samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple


def percentile(samples: Sequence[float], percent: float) -> float:
    """By linear interpolation between the two nearest samples. Raises ValueError without any."""
    if not samples:
        raise ValueError("no samples, so they have no percentile")
    ordered = sorted(samples)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


class Key(NamedTuple):
    """What was measured: of whom, under which load, at which setting of it, which figure.

    The setting is the number that a load is repeated with: a limit in bit/s, a size in bytes; 0 for none.
    """

    contender: str
    load: str
    setting: int
    figure: str


class Results:
    """One sample a round for each key, and facts about the machine that they come from."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.samples: dict[Key, list[float]] = {}

    def add(self, contender: str, load: str, setting: int, **figures: float) -> None:
        for figure, value in figures.items():
            self.samples.setdefault(Key(contender, load, setting, figure), []).append(value)

    def of(self, contender: str, load: str, setting: int, figure: str) -> list[float]:
        """All rounds; empty when it was not measured."""
        return self.samples.get(Key(contender, load, setting, figure), [])

    def median(self, contender: str, load: str, setting: int, figure: str) -> float | None:
        found = self.of(contender, load, setting, figure)
        return median(found) if found else None

    def include(self, earlier: Results) -> None:
        """Rounds of an earlier run. Raises ValueError when that was on another machine or with other programs."""
        for name, value in self.facts.items():
            if earlier.facts.get(name) != value:
                raise ValueError(f"the earlier rounds were measured with {name} {earlier.facts.get(name)}, not {value}")
        for key, values in earlier.samples.items():
            self.samples[key] = values + self.samples.get(key, [])

    def to_json(self) -> str:
        rows = [[*key, values] for key, values in self.samples.items()]
        return json.dumps({"facts": self.facts, "samples": rows}, indent=0)

    @classmethod
    def from_json(cls, text: str) -> Results:
        document = json.loads(text)
        made = cls(document["facts"])
        for *key, values in document["samples"]:
            made.samples[Key(*key)] = values
        return made
