# SPDX-License-Identifier: Apache-2.0
"""The rounds: both halves meet every load in each, so that whatever else the machine does meets both alike."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from subprocess import TimeoutExpired

from bench.samples import Results
from bench.sockmap import loads, placing, plan
from bench.sockmap.lab import Lab
from tests.lab.node import CommandFailed
from tests.sockmap.programs import proxies

_STARTED = time.monotonic()
Measure = Callable[[Lab, str], loads.Figures]
"""Of one half."""


def say(text: str) -> None:
    elapsed = int(time.monotonic() - _STARTED)
    print(f"==> {elapsed // 60:3d}:{elapsed % 60:02d} {text}", flush=True)


def facts(effort: plan.Effort, sources: str) -> dict[str, object]:
    """sources: of the programs that are measured; rounds of others are not to be mixed with these."""
    kernel = f"Linux {platform.release()}, {os.cpu_count()} CPUs"
    return {"kernel": kernel, "effort": list(effort), "sources": sources, "proxies": proxies.versions()}


def _case(
    lab: Lab, results: Results, load: str, setting: int, figure: str, measure: Measure, halves: Sequence[str]
) -> None:
    """One load of a round for each half; where one was disturbed neither has a sample: they are compared in pairs."""
    seen = {}
    for half in halves:
        try:
            seen[half] = measure(lab, half)
        except (loads.NotWhatItClaims, placing.CannotStayAwake, CommandFailed, TimeoutExpired) as error:
            say(f"{load}, {half}: left out of this round: {error}")
            return
    for half, figures in seen.items():
        results.add(half, load, setting, **figures)
    shown = ", ".join(f"{half} {figures[figure]:.4g}" for half, figures in seen.items())
    say(f"{load}, {plan.size_name(setting)}: {figure}: {shown}")


def _paths(effort: plan.Effort) -> Iterator[tuple[str, int, str, Measure]]:
    """(load, setting, the figure that is shown while it runs, how it is measured)."""
    for place in plan.PLACES:
        for size in plan.REQUEST_SIZES:
            ask = partial(loads.requests, place=place, size=size, count=effort.requests)
            yield plan.load(plan.REQUESTS, place), size, "p50_us", ask
        for size in plan.MALLOCED_SIZES:
            behind = partial(
                loads.requests, place=place, size=size, count=effort.requests, behind_bytes=plan.MALLOC_BEHIND_BYTES
            )
            yield plan.load(plan.MALLOCED, place), size, "p50_us", behind
        for size in plan.BUSY_WRITES:
            busy = partial(loads.bulk_busy, place=place, write_bytes=size, msec=effort.busy_msec)
            yield plan.load(plan.BUSY, place), size, "bytes_per_sec", busy
        for size in (*plan.STREAM_WRITES, *plan.BULK_WRITES):
            pour = partial(loads.bulk, place=place, write_bytes=size, msec=effort.bulk_msec)
            yield plan.load(plan.BULK, place), size, "bytes_per_sec", pour
        for size in plan.BULK_WRITES:
            awake = partial(loads.bulk_awake, place=place, write_bytes=size, msec=effort.bulk_msec)
            yield plan.load(plan.AWAKE, place), size, "bytes_per_sec", awake
        for size in plan.SPILLING_WRITES:
            spill = partial(loads.bulk_that_spills, place=place, write_bytes=size, msec=effort.bulk_msec)
            yield plan.load(plan.SPILLING, place), size, "bytes_per_sec", spill
    for proxy in plan.PROXIES:
        for size in plan.CHAIN_SIZES:
            chain = partial(loads.through, proxy=proxy, size=size, count=effort.chained)
            yield plan.load(plan.THROUGH, proxy), size, "mean_us", chain


def _connect(lab: Lab, results: Results, effort: plan.Effort) -> None:
    """Batches of the contenders in turn, to and fro; unless pods of the policy connect, those that are never selected
    do."""
    states: dict[str, Callable[[], None]] = {
        plan.NOTHING: lab.deselect,
        plan.ROOTED: partial(lab.select, by_root=True),
        plan.PLAIN: lab.select,
        plan.BYPATH: lab.select,
    }
    state = states[plan.BYPATH]

    def batch(contender: str, place: str) -> None:
        nonlocal state
        if state != states[contender]:
            state = states[contender]
            state()
        half = contender if contender == plan.BYPATH else plan.PLAIN
        figures = loads.connections(lab, half, place, effort.connections)
        results.add(contender, plan.load(plan.CONNECT, place), 0, **figures)

    contenders = tuple(states)
    for place in plan.PLACES:
        for number in range(effort.batches):
            for contender in contenders[:: -1 if number % 2 else 1]:
                batch(contender, place)
        medians = {name: results.median(name, plan.load(plan.CONNECT, place), 0, "p50_us") for name in contenders}
        shown = ", ".join(f"{name} {value:.2f}" for name, value in medians.items() if value)
        say(f"{plan.load(plan.CONNECT, place)}: p50_us so far: {shown}")
    lab.select()


def _warm_up(lab: Lab, effort: plan.Effort) -> None:
    """Both halves once, unrecorded: memory that a virtual machine has never used is slow to come by."""
    for half in plan.HALVES:
        loads.bulk_busy(lab, half, plan.POD_TO_POD, max(plan.BUSY_WRITES), effort.bulk_msec)


def _stuck(lab: Lab, results: Results, halves: Sequence[str]) -> None:
    lab.select(nodeLimitMiB=plan.NODE_LIMIT_MIB)
    for readers in plan.STUCK_READERS:
        for half in halves:
            figures = loads.stuck_readers(lab, half, readers)
            results.add(half, plan.STUCK, readers, **figures)
            say(f"{readers} {plan.STUCK}, {half}: {figures['held_bytes'] / plan.MIB:.0f} MiB")
    lab.select()


def run(effort: plan.Effort, rounds: int, sources: str, room: Path, keep: Callable[[Results], None]) -> Results:
    """`keep` is given the results after each round. room: an empty directory for what the programs write."""
    results = Results(facts(effort, sources))
    with Lab.create(room) as lab:
        results.facts["window_bytes"] = lab.tcp_window_bytes()
        say("two pairs of pods, their servers and proxies are there")
        _warm_up(lab, effort)
        for number in range(1, rounds + 1):
            say(f"round {number} of {rounds}")
            halves = plan.HALVES[:: 1 if number % 2 else -1]
            for case in _paths(effort):
                _case(lab, results, *case, halves)
            _connect(lab, results, effort)
            _stuck(lab, results, halves)
            keep(results)
    say("the pods are gone, and the node is as it was before them")
    return results
