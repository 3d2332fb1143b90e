# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG: grouped bars, and lines over named places. Nothing but text, so that they need no library."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 56, 64
COLOURS = ("#1b6ca8", "#d1495b", "#edae49", "#7a5195", "#66a182", "#999999")
_LETTER = 6.2
"""The mean width of one, in pixels."""
_FONT = "font-family='sans-serif' font-size='12'"

Series = Mapping[str, Sequence[float | None]]
"""Name -> a value for each place; None where there is none."""


class Scale(NamedTuple):
    """Values to heights on the page."""

    low: float
    high: float
    logarithmic: bool = False

    def y(self, value: float) -> float:
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        return HEIGHT - BOTTOM - (at - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    def ticks(self) -> list[float]:
        if self.logarithmic:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1) if self.low <= 10.0**power <= self.high]
        step = nice_step((self.high - self.low) / 6)
        return [count * step for count in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def nice_step(at_least: float) -> float:
    """1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(at_least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= at_least * (1 - 1e-9))


def _values(series: Series) -> list[float]:
    found = [value for values in series.values() for value in values if value is not None]
    if not found:
        raise ValueError("a chart without any value")
    return found


def linear_scale(series: Series, *also: float) -> Scale:
    """With zero and whatever else must be seen."""
    shown = [*_values(series), *also, 0.0]
    spare = (max(shown) - min(shown)) * 0.06 or 1.0
    return Scale(min(shown) - (spare if min(shown) < 0 else 0), max(shown) + spare)


def log_scale(series: Series) -> Scale:
    positive = [value for value in _values(series) if value > 0]
    return Scale(10.0 ** math.floor(math.log10(min(positive))), 10.0 ** math.ceil(math.log10(max(positive))), True)


def _text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' {_FONT} {more}>{escape(text)}</text>"


def _frame(title: str, unit: str, places: Sequence[str], names: Sequence[str], scale: Scale) -> list[str]:
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{HEIGHT}' viewBox='0 0 {WIDTH} {HEIGHT}'>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>",
        _text(LEFT, 20, title, "start", "font-weight='bold'"),
        _text(16, (TOP + HEIGHT - BOTTOM) / 2, unit, more=f"transform='rotate(-90 16 {(TOP + HEIGHT - BOTTOM) / 2})'"),
    ]
    for tick in scale.ticks():
        y = scale.y(tick)
        colour = "#333" if tick == 0 else "#ddd"
        parts.append(f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}' stroke='{colour}'/>")
        parts.append(_text(LEFT - 6, y + 4, f"{tick:g}", "end"))
    for number, place in enumerate(places):
        for line, words in enumerate(wrapped(place, len(places))):
            parts.append(_text(_centre(number, len(places)), HEIGHT - BOTTOM + 18 + 15 * line, words))
    x = float(LEFT)
    for colour, name in zip(COLOURS, names, strict=False):
        parts.append(f"<rect x='{x:.1f}' y='30' width='11' height='11' fill='{colour}'/>")
        parts.append(_text(x + 16, 40, name, "start"))
        x += 30 + _LETTER * len(name)
    return parts


def wrapped(place: str, count: int) -> list[str]:
    """The lines of a place's name, none wider than its share of the page."""
    room = int((WIDTH - LEFT - RIGHT) / count / _LETTER)
    return [line for part in place.split("\n") for line in textwrap.wrap(part, room)]


def _centre(number: int, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (number + 0.5) / count


def bars(title: str, unit: str, places: Sequence[str], series: Series, band: float | None = None) -> str:
    """A group of bars at each place; a band of +-`band` around zero shows what is allowed."""
    scale = linear_scale(series, *((band, -band) if band else ()))
    parts = _frame(title, unit, places, list(series), scale)
    if band:
        top, bottom = scale.y(band), scale.y(-band)
        size = f"width='{WIDTH - LEFT - RIGHT}' height='{bottom - top:.1f}'"
        parts.append(f"<rect x='{LEFT}' y='{top:.1f}' {size} fill='#2e8b57' fill-opacity='0.2'/>")
    width = (WIDTH - LEFT - RIGHT) / len(places) * 0.7 / len(series)
    for order, (colour, values) in enumerate(zip(COLOURS, series.values(), strict=False)):
        for number, value in enumerate(values):
            if value is None:
                continue
            x = _centre(number, len(places)) + (order - len(series) / 2) * width
            high, low = sorted((scale.y(value), scale.y(0)))
            size = f"width='{width * 0.9:.1f}' height='{max(low - high, 1):.1f}'"
            parts.append(f"<rect x='{x:.1f}' y='{high:.1f}' {size} fill='{colour}'/>")
    return "\n".join([*parts, "</svg>", ""])


def lines(title: str, unit: str, places: Sequence[str], series: Series) -> str:
    """A line through the places for each name, on a logarithmic scale."""
    scale = log_scale(series)
    parts = _frame(title, unit, places, list(series), scale)
    for colour, values in zip(COLOURS, series.values(), strict=False):
        points = [
            f"{_centre(number, len(places)):.1f},{scale.y(value):.1f}"
            for number, value in enumerate(values)
            if value is not None
        ]
        parts.append(f"<polyline points='{' '.join(points)}' fill='none' stroke='{colour}' stroke-width='2.5'/>")
    return "\n".join([*parts, "</svg>", ""])
