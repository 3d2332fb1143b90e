# SPDX-License-Identifier: Apache-2.0
"""The targets, and whether the figures meet them."""

from __future__ import annotations

from collections.abc import Iterator

from bench.bandwidth import plan
from bench.samples import Results
from bench.targets import Verdict

MAX_ERROR_PERCENT = 1.0
MAX_ADDED_P50_MS, MAX_ADDED_P99_MS = 3.0, 15.0
TIMES_BETTER = {plan.TBF: 3.0, plan.PLAIN: 10.0, plan.CILIUM: 10.0}
MAX_INGRESS_RETRANSMITS = 10.0
MAX_MISS_NS, MAX_HIT_NS, THEIR_NOP_NS = 20.0, 80.0, 17.0
"""Over a no-op, on a machine on which that takes so long. On a slower or busier one all of it takes longer."""
MAX_DEVICES = 0.0
LEAST_ADDED_MS = 0.05
"""Below what the clock and the scheduler scatter by, more of it is no better: a quotient needs a divisor."""


def added_ms(results: Results, contender: str, figure: str, without: str = plan.RR_IDLE) -> float | None:
    """What bulk of the same pod adds to a request's time."""
    beside = results.median(contender, plan.RR_BESIDE_BULK, plan.RR_RATE, figure)
    base = results.median(contender, without, plan.RR_RATE, figure)
    return None if beside is None or base is None else beside - base


def times_better(results: Results, other: str, figure: str = "p50_ms") -> float | None:
    """How many times as long a request waits with another shaper."""
    ours, theirs = added_ms(results, plan.BYPATH, figure), added_ms(results, other, figure)
    if ours is None or theirs is None:
        return None
    return theirs / max(ours, LEAST_ADDED_MS)


def errors(results: Results) -> Iterator[Verdict]:
    for load in plan.RATE_LOADS:
        found = [
            abs(median)
            for rate in plan.rates(results, load)
            if not plan.is_cpu_bound(results, load, rate)
            and (median := results.median(plan.BYPATH, load, rate, "error_percent")) is not None
        ]
        if found or any(not plan.is_cpu_bound(results, load, rate) for rate in plan.rates(results, load)):
            yield Verdict(f"largest rate error, {load}, %", max(found, default=None), MAX_ERROR_PERCENT)


def waits(results: Results) -> Iterator[Verdict]:
    at = f"at {plan.rate_name(plan.RR_RATE)}"
    for figure, limit in (("p50_ms", MAX_ADDED_P50_MS), ("p99_ms", MAX_ADDED_P99_MS)):
        words = f"added by bulk to a request {at}, {figure.removesuffix('_ms')}, ms"
        yield Verdict(words, added_ms(results, plan.BYPATH, figure), limit)
        words = f"the same, but above {plan.RR_BESIDE_OTHER}"
        yield Verdict(words, added_ms(results, plan.BYPATH, figure, plan.RR_BESIDE_OTHER), limit)
    for other, factor in TIMES_BETTER.items():
        yield Verdict(f"added p50, times better than {other}", times_better(results, other), factor, at_least=True)


def ingress(results: Results) -> Iterator[Verdict]:
    for figure, what, limit in (
        ("error_percent", "rate error, %", MAX_ERROR_PERCENT),
        ("retransmits", "retransmits", MAX_INGRESS_RETRANSMITS),
    ):
        found = results.median(plan.BYPATH, plan.INGRESS, plan.INGRESS_RATE, figure)
        at = plan.rate_name(plan.INGRESS_RATE)
        yield Verdict(f"ingress at {at}, {what}", None if found is None else abs(found), limit)


def costs(ns_of: dict[str, float]) -> Iterator[Verdict]:
    """ns_of: each case's nanoseconds, see cost.py."""
    for case, limit in ((plan.MISS, MAX_MISS_NS), (plan.HIT, MAX_HIT_NS)):
        over_ns = ns_of[case] - ns_of[plan.NOP] if case in ns_of else None
        yield Verdict(f"over a no-op: {case}, ns", over_ns, limit)
        in_no_ops = None if over_ns is None else over_ns / ns_of[plan.NOP]
        yield Verdict(f"the same in no-ops ({limit:g} of {THEIR_NOP_NS:g} ns)", in_no_ops, limit / THEIR_NOP_NS)


def all_of(results: Results, ns_of: dict[str, float]) -> list[Verdict]:
    devices = results.median(plan.BYPATH, plan.DEVICES, 0, "count")
    return [
        *errors(results),
        *waits(results),
        *ingress(results),
        *costs(ns_of),
        Verdict("devices on the host for a limited pod's shaping", devices, MAX_DEVICES),
    ]
