# SPDX-License-Identifier: Apache-2.0
"""Sums over samples: percentiles, fairness, the error of a rate; and the samples of all rounds, with their medians."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

ETHERNET_BYTES, IPV4_BYTES, TCP_BYTES, UDP_BYTES = 14, 20, 32, 8
"""TCP with its timestamps."""
FULL_SEGMENT_BYTES = 1448


def percentile(samples: Sequence[float], percent: float) -> float:
    """By linear interpolation between the two nearest samples. Raises ValueError without any."""
    if not samples:
        raise ValueError("no samples, so they have no percentile")
    ordered = sorted(samples)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index: 1 when all are alike, 1/n when one has all. Raises ValueError when there is nothing."""
    squares = sum(share * share for share in shares)
    if not squares:
        raise ValueError("nobody got anything, which is neither fair nor unfair")
    return sum(shares) ** 2 / (len(shares) * squares)


def error_percent(measured: float, promised: float) -> float:
    """Positive when more came through than was promised."""
    return (measured / promised - 1) * 100


def frame_bytes(protocol: str, payload_bytes: int) -> int:
    """A whole Ethernet frame without preamble and FCS: what both shapers count (the kernel's qdisc packet length)."""
    return payload_bytes + ETHERNET_BYTES + IPV4_BYTES + {"tcp": TCP_BYTES, "udp": UDP_BYTES}[protocol]


class Key(NamedTuple):
    """What was measured: of whom, under which load, at which limit (0: none), which figure."""

    contender: str
    load: str
    rate_bits_per_sec: int
    figure: str


class Results:
    """One sample a round for each key, and facts about the machine that they come from."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.samples: dict[Key, list[float]] = {}

    def add(self, contender: str, load: str, rate_bits_per_sec: int, **figures: float) -> None:
        for figure, value in figures.items():
            self.samples.setdefault(Key(contender, load, rate_bits_per_sec, figure), []).append(value)

    def of(self, contender: str, load: str, rate_bits_per_sec: int, figure: str) -> list[float]:
        """All rounds; empty when it was not measured."""
        return self.samples.get(Key(contender, load, rate_bits_per_sec, figure), [])

    def median(self, contender: str, load: str, rate_bits_per_sec: int, figure: str) -> float | None:
        found = self.of(contender, load, rate_bits_per_sec, figure)
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
