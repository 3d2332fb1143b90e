# SPDX-License-Identifier: Apache-2.0
"""The targets, and whether the figures meet them. A target over several sizes is judged by the worst of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import median

from bench.samples import Results
from bench.sockmap import plan
from bench.targets import Verdict

REQUEST_TARGETS = {"p50_us": -35.0, "p99_us": -36.0, "cpu_us": -30.0}
MIN_BULK_PERCENT, MAX_BULK_CPU_PERCENT = 54.0, -40.0
MAX_CHAIN_PERCENT = -15.0
MAX_CONNECT_PERCENT = 2.0


def change_percent(results: Results, load: str, setting: int, figure: str) -> float | None:
    """The median of the rounds' changes: both halves of a round were measured one right behind the other, while the
    machine drifts by more than most changes are."""
    rounds = zip(*(results.of(half, load, setting, figure) for half in plan.HALVES), strict=True)
    changes = [(measured / base - 1) * 100 for measured, base in rounds if base]
    return median(changes) if changes else None


def _changes(results: Results, load: str, settings: Iterable[int], figure: str) -> list[float]:
    found = [change_percent(results, load, setting, figure) for setting in settings]
    return [] if None in found else [change for change in found if change is not None]


def requests(results: Results) -> Iterator[Verdict]:
    for place in plan.PLACES:
        for figure, limit in REQUEST_TARGETS.items():
            found = _changes(results, plan.load(plan.REQUESTS, place), plan.REQUEST_SIZES, figure)
            words = {"p50_us": "p50", "p99_us": "p99", "cpu_us": "CPU time"}[figure]
            yield Verdict(f"request, {place}: {words}, change in %", max(found, default=None), limit)


def bulk(results: Results) -> Iterator[Verdict]:
    """Of many flows, and of one alone: the last of these mostly tells how long it takes to wake a processor."""
    for place in plan.PLACES:
        for name in (plan.BUSY, plan.AWAKE, plan.BULK):
            load = plan.load(name, place)
            rates = _changes(results, load, plan.JUDGED_WRITES, "bytes_per_sec")
            cpu = _changes(results, load, plan.JUDGED_WRITES, "cpu_ns_per_byte")
            what = f"{name}, {plan.size_name(min(plan.JUDGED_WRITES))} or more, {place}"
            yield Verdict(f"{what}: rate, change in %", min(rates, default=None), MIN_BULK_PERCENT, at_least=True)
            yield Verdict(f"{what}: CPU time of a byte, change in %", max(cpu, default=None), MAX_BULK_CPU_PERCENT)
            spills = [spills for size in plan.BULK_WRITES for spills in results.of(plan.BYPATH, load, size, "spills")]
            yield Verdict(f"{name}, {place}: spills with a reader that reads, in all rounds", _sum(spills), 0)


def _sum(samples: list[float]) -> float | None:
    return sum(samples) if samples else None


def chains(results: Results) -> Iterator[Verdict]:
    for proxy in plan.PROXIES:
        found = _changes(results, plan.load(plan.THROUGH, proxy), plan.CHAIN_SIZES, "mean_us")
        words = f"through two of {proxy}: mean of a request, change in %"
        yield Verdict(words, max(found, default=None), MAX_CHAIN_PERCENT)


def connect_percent(results: Results, place: str, contender: str, figure: str = "p50_us") -> float | None:
    """The median of what each batch adds to the one without bypath right beside it: there is little to be seen, and the
    machine drifts by more than that."""
    load = plan.load(plan.CONNECT, place)
    pairs = zip(results.of(plan.NOTHING, load, 0, figure), results.of(contender, load, 0, figure), strict=True)
    changes = [(with_it / without - 1) * 100 for without, with_it in pairs]
    return median(changes) if changes else None


def connections(results: Results) -> Iterator[Verdict]:
    for place in plan.PLACES:
        found = connect_percent(results, place, plan.PLAIN)
        yield Verdict(f"connecting, {place}: a pod that is not selected, change in %", found, MAX_CONNECT_PERCENT)


def bound_bytes(results: Results, readers: int) -> float:
    """What so many stopped readers may hold: the node's limit, and a TCP window each."""
    return float(plan.NODE_LIMIT_MIB * plan.MIB + readers * results.facts["window_bytes"])


def stuck(results: Results) -> Iterator[Verdict]:
    for readers in plan.STUCK_READERS:
        held = results.of(plan.BYPATH, plan.STUCK, readers, "held_bytes")
        limit = bound_bytes(results, readers) / plan.MIB
        words = f"memory of {readers} {plan.STUCK}, MiB: node limit + TCP windows"
        yield Verdict(words, max(held) / plan.MIB if held else None, limit)


def all_of(results: Results) -> list[Verdict]:
    return [
        *requests(results),
        *bulk(results),
        *chains(results),
        *connections(results),
        *stuck(results),
    ]
