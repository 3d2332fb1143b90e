# SPDX-License-Identifier: Apache-2.0
"""The rounds: every contender meets every load in each, so that whatever else the machine does meets all alike."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import TimeoutExpired
from typing import NamedTuple

from bench.bandwidth import loads, plan
from bench.bandwidth.lab import Lab, Pod
from bench.samples import Results
from tests.lab.node import CommandFailed

EMULATED = "TCG" in Path("/proc/cpuinfo").read_text()
SHAPERS = (plan.BYPATH, plan.TBF)
WAITERS = (plan.BYPATH, plan.TBF, plan.PLAIN, plan.CILIUM)
_STARTED = time.monotonic()


class Order(NamedTuple):
    """rounds: how many; seconds: of each load; all_cells: also what is not a headline, see _rate_cells; budget_sec: no
    round is begun that would not be done by then."""

    rounds: int
    seconds: int
    all_cells: bool
    rates: dict[str, list[int]]
    """Of each load."""
    budget_sec: float


def say(text: str) -> None:
    elapsed = int(time.monotonic() - _STARTED)
    print(f"==> {elapsed // 60:3d}:{elapsed % 60:02d} {text}", flush=True)


def facts(order: Order, sources: str) -> dict[str, object]:
    """sources: of the programs that are measured; rounds of others are not to be mixed with these."""
    kernel = f"Linux {platform.release()}" + (", emulated by QEMU without KVM" if EMULATED else "")
    return {"kernel": kernel, "rates": order.rates, "seconds": order.seconds, "sources": sources}


@contextmanager
def undisturbed(what: str) -> Iterator[None]:
    """What was disturbed has no sample in this round; the report says how many there are."""
    try:
        yield
    except (loads.Disturbed, CommandFailed, TimeoutExpired) as error:
        say(f"{what}: left out of this round: {error}")


class Pods(NamedTuple):
    free: Pod
    egress: dict[tuple[str, int], Pod]
    ingress: dict[str, Pod]
    unburst: dict[str, Pod]
    other: Pod
    """Limited like the one that sends requests beside it."""


def make_pods(lab: Lab, results: Results) -> Pods:
    """And count the devices that each shaper adds to the host, beside the veth that every pod has."""
    empty = lab.devices()
    free = lab.pod(plan.NO_LIMIT)
    veth = lab.devices() - empty
    egress = {}
    for contender in SHAPERS:
        for rate in sorted({rate for load in plan.RATE_LOADS for rate in plan.rates(results, load)}):
            before = lab.devices()
            egress[contender, rate] = lab.egress_pod(contender, rate)
            results.add(contender, plan.DEVICES, 0, count=lab.devices() - before - veth)
    for contender in WAITERS:
        key = contender, plan.RR_RATE
        egress[key] = egress.get(key) or lab.egress_pod(*key)
    ingress = {contender: lab.ingress_pod(contender, plan.INGRESS_RATE) for contender in SHAPERS}
    unburst = {
        contender: lab.pod(contender, egressRate=plan.UNBURST_RATE, egressBurst=plan.RUNTIME_BURST_BITS)
        for contender in SHAPERS
    }
    other = lab.egress_pod(plan.BYPATH, plan.RR_RATE)
    say(f"{len(lab.pods)} pods are there")
    return Pods(free, egress, ingress, unburst, other)


def find_bounds(pods: Pods, results: Results, order: Order) -> None:
    """What the path carries without a limit: of TCP once, of UDP each rate, since it is sent according to that."""
    for name, load in plan.RATE_LOADS.items():
        for rate in [0] if load.protocol == "tcp" else plan.rates(results, name):
            seen = loads.traffic(pods.free, load, order.seconds, rate)
            results.add(plan.NO_LIMIT, name, rate, bits_per_sec=seen.bits_per_sec)
            say(f"{plan.NO_LIMIT}: {name} for {plan.rate_name(rate)} carries {seen.bits_per_sec / 1e6:.1f} Mbit/s")


def _rate_cells(results: Results, order: Order) -> list[tuple[str, int]]:
    """Loads and rates that the processor allows; in a quick run one flow, and the others at the lowest rate only."""
    return [
        (load, rate)
        for load in plan.RATE_LOADS
        for rate in plan.rates(results, load)
        if not plan.is_cpu_bound(results, load, rate)
        and (order.all_cells or load == plan.ONE_FLOW or rate == min(order.rates[load]))
    ]


def rate_round(pods: Pods, results: Results, order: Order) -> None:
    for load, rate in _rate_cells(results, order):
        for contender in SHAPERS:
            with undisturbed(f"{load} at {plan.rate_name(rate)}, {contender}"):
                seen = loads.traffic(pods.egress[contender, rate], plan.RATE_LOADS[load], order.seconds, rate)
                figures = loads.rate_figures(seen, rate)
                results.add(contender, load, rate, **figures)
                say(f"{load} at {plan.rate_name(rate)}, {contender}: {figures['error_percent']:+.2f} %")


def wait_round(lab: Lab, pods: Pods, results: Results, order: Order) -> None:
    rate = plan.RR_RATE
    cases: dict[str, Callable[[Pod], dict[str, float]]] = {
        plan.RR_IDLE: lambda pod: loads.requests(pod, order.seconds / 2),
        plan.RR_BESIDE_OTHER: lambda pod: loads.requests_beside_bulk(lab, pod, order.seconds, pods.other),
        plan.RR_BESIDE_BULK: lambda pod: loads.requests_beside_bulk(lab, pod, order.seconds),
    }
    for case, measure in cases.items():
        for contender in [plan.BYPATH] if case == plan.RR_BESIDE_OTHER else WAITERS:
            with undisturbed(f"{case}, {contender}"):
                figures = measure(pods.egress[contender, rate])
                results.add(contender, case, rate, **figures)
                say(f"{case}, {contender}: p50 {figures['p50_ms']:.2f} ms, p99 {figures['p99_ms']:.2f} ms")


def ingress_round(pods: Pods, results: Results, order: Order) -> None:
    load = plan.RATE_LOADS[plan.ONE_FLOW]
    for contender in SHAPERS:
        with undisturbed(f"{plan.INGRESS}, {contender}"):
            seen = loads.traffic(pods.ingress[contender], load, order.seconds, into_pod=True)
            figures = loads.rate_figures(seen, plan.INGRESS_RATE)
            results.add(contender, plan.INGRESS, plan.INGRESS_RATE, **figures)
            say(f"{plan.INGRESS}, {contender}: {figures['error_percent']:+.2f} %, {seen.retransmits:.0f} retransmits")


def without_burst(pods: Pods, results: Results) -> None:
    """Once: the first second is what differs, and it does by an order of magnitude."""
    load = plan.RATE_LOADS[plan.ONE_FLOW]
    for contender in SHAPERS:
        seen = loads.traffic(pods.unburst[contender], load, 3)
        results.add(contender, plan.UNBURST, plan.UNBURST_RATE, **loads.rate_figures(seen, plan.UNBURST_RATE))
        say(f"{plan.UNBURST}, {contender}: {seen.first_sec_bytes / 1e6:.1f} MB in the first second")


def run(order: Order, sources: str, keep: Callable[[Results], None]) -> None:
    """`keep` is given the results after each round, so that a machine that dies takes only the last one with it."""
    results = Results(facts(order, sources))
    with Lab.create() as lab:
        pods = make_pods(lab, results)
        loads.start_server(lab)
        find_bounds(pods, results, order)
        without_burst(pods, results)
        for number in range(1, order.rounds + 1):
            begun = time.monotonic()
            say(f"round {number} of {order.rounds}")
            wait_round(lab, pods, results, order)
            ingress_round(pods, results, order)
            rate_round(pods, results, order)
            keep(results)
            now = time.monotonic()
            if now - _STARTED + (now - begun) > order.budget_sec and number < order.rounds:
                say(f"no time is left for a round more: {number} it is")
                break
        lab.remove_pods()
        say("the pods are gone, and the node is as it was before them")
