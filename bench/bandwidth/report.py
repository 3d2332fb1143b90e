# SPDX-License-Identifier: Apache-2.0
"""The figures as docs/benchmarks/bandwidth.md and its plots."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess

from bench import chart
from bench.bandwidth import plan, verdicts
from bench.samples import Results
from bench.targets import ABSENT, number, table, targets

Costs = dict[str, dict[str, float]]
WAITERS = (plan.BYPATH, plan.TBF, plan.PLAIN, plan.CILIUM)
SHAPERS = (plan.BYPATH, plan.TBF)
RATE_PLOT, WAIT_PLOT, COST_PLOT = "bandwidth-rate-error.svg", "bandwidth-requests.svg", "bandwidth-cost.svg"

_HEAD = """# Bandwidth limits: bypath-bandwidth-edt beside the reference plugin

Every pod is made by the same `ptp`; what follows it in the chain is `bypath-bandwidth-edt`, the reference plugin
`bandwidth` (TBF, with an ifb for egress), or nothing. Medians of {rounds} interleaved rounds, {seconds} s each, of
which the first and the last second do not count. Both shapers are given a burst of 10 ms of the rate, a frame at least.

Reproduce: `make build && .venv/bin/python -m bench.bandwidth {options}` (as root).

Traffic: {kernel}, iperf3 from the pod to a host two hops away, IPv4, cubic; {reference}.
Cost of the program: Linux {here}, {cpus} CPUs.

Both shapers promise a rate of whole Ethernet frames, headers of every segment included (the kernel's qdisc packet
length; TBF's own counters agree), so one computation serves both: the receiver's payload, times 1514/1448 for TCP,
1490/1448 and 106/64 for UDP.

"""
_EMULATED_NOTE = """The machine is emulated, a tenth as fast as this one, and everything in it waits for one processor.
Differences between contenders mean something, milliseconds by themselves do not. For {starved} % of the time it had
none, because others used this machine, too: each such gap is missing in a rate, and is in a request's time.

"""
_WAITERS_NOTE = """One TCP connection, 64-byte requests to an echo server outside, the next one sent when the answer is
there; idle, and beside one bulk TCP flow of the same pod, at {rate}. "{plain}" is bypath's own program with the share
of sparse flows used up for ever, so that nothing passes what waits; "{cilium}" besides marks no CE, keeps packets up to
2 s and lets the pod hand down GSO packets of 64 KB, as shapers by departure time usually do.

"""
_COST_NOTE = """BPF_PROG_TEST_RUN, nanoseconds a packet, medians of rounds of a million repeats each. A miss is a pod
without a limit on a hook that it shares with limited ones; a hit is a packet of a limited pod. The packet's hash is
computed once for all repeats, as a socket's packets have theirs already. "Among many" is with limits for 1000 more
pods. In brackets: over a no-op.

What the no-op takes tells how busy the machine was: all nanoseconds grow with it. Instructions, the kernel's included,
do not: the clock of an emulated machine, under the kernel of the traffic, goes on by one for each of them.

"""


def rate_errors(results: Results) -> str:
    rows = []
    for load in plan.RATE_LOADS:
        for rate in plan.rates(results, load):
            carried = plan.bound(results, load, rate)
            if plan.is_cpu_bound(results, load, rate):
                cells = ["CPU-bound"] * len(SHAPERS)
            else:
                cells = [number(results.median(c, load, rate, "error_percent"), signed=True) for c in SHAPERS]
            times = str(len(results.of(plan.BYPATH, load, rate, "error_percent")))
            rows.append((load, plan.rate_name(rate), *cells, times, number(carried / 1e6 if carried else None, 1)))
    note = (
        f'"CPU-bound": without a limit the path carries less than {plan.ROOM:g} times the rate, of UDP when '
        f"{plan.OFFERED:g} times the rate is sent.\n\n"
    )
    head = ("load", "rate", *SHAPERS, "rounds", "the path carries, Mbit/s")
    return f"## Rate error, %\n\n![rate error]({RATE_PLOT})\n\n" + table(head, rows) + note


def _cell(results: Results, load: str, rate: int, figure: str, digits: int, scale: float = 1.0) -> list[str]:
    found = [results.median(contender, load, rate, figure) for contender in SHAPERS]
    return [number(None if value is None else value * scale, digits) for value in found]


def of_flows(results: Results) -> str:
    rows = []
    bits_of_a_byte = plan.wire_bits(plan.RATE_LOADS[plan.ONE_FLOW], 1)
    for rate in plan.rates(results, plan.ONE_FLOW):
        at = plan.rate_name(rate)
        rows.append((f"retransmits in a run, 1 flow at {at}", *_cell(results, plan.ONE_FLOW, rate, "retransmits", 0)))
        rows.append(
            (f"retransmits in a run, 8 flows at {at}", *_cell(results, plan.EIGHT_FLOWS, rate, "retransmits", 0))
        )
        rows.append((f"Jain's index of 8 flows at {at}", *_cell(results, plan.EIGHT_FLOWS, rate, "jain", 3)))
        first = _cell(results, plan.ONE_FLOW, rate, "first_sec_bytes", 2, bits_of_a_byte / rate)
        rows.append((f"first second at {at}, frames in seconds of the rate", *first))
    at = plan.rate_name(plan.UNBURST_RATE)
    first = _cell(results, plan.UNBURST, plan.UNBURST_RATE, "first_sec_bytes", 2, bits_of_a_byte / plan.UNBURST_RATE)
    rows.append((f"the same at {at}, with the burst (4294967295) that runtimes send when none is annotated", *first))
    rows.append(
        ("devices on the host for a limited pod, beside its veth", *_cell(results, plan.DEVICES, 0, "count", 0))
    )
    measured = [row for row in rows if set(row[1:]) != {ABSENT}]
    return "## Flows\n\n" + table(("", *SHAPERS), measured)


def ingress(results: Results) -> str:
    rows = [
        (words, *_cell(results, plan.INGRESS, plan.INGRESS_RATE, figure, digits))
        for words, figure, digits in (("rate error, %", "error_percent", 2), ("retransmits in a run", "retransmits", 0))
    ]
    title = f"## One TCP flow into the pod at {plan.rate_name(plan.INGRESS_RATE)}\n\n"
    return title + table(("", *SHAPERS), rows)


_OF_REQUESTS = {
    "p50_ms": "p50, ms",
    "p99_ms": "p99, ms",
    "requests": "requests in a run",
    "retransmits": "the bulk's retransmits",
}


def waits(results: Results) -> str:
    rate = plan.RR_RATE
    rows = []
    for case in (plan.RR_IDLE, plan.RR_BESIDE_OTHER, plan.RR_BESIDE_BULK):
        for figure, words in _OF_REQUESTS.items():
            cells = [results.median(contender, case, rate, figure) for contender in WAITERS]
            if any(cell is not None for cell in cells):
                digits = 2 if figure.endswith("_ms") else 0
                rows.append((f"{case}: {words}", *(number(cell, digits) for cell in cells)))
    bulk = [results.median(contender, plan.RR_BESIDE_BULK, rate, "bulk_bits_per_sec") for contender in WAITERS]
    rows.append(("the bulk, Mbit/s", *(number(None if cell is None else cell / 1e6) for cell in bulk)))
    note = _WAITERS_NOTE.format(rate=plan.rate_name(rate), plain=plan.PLAIN, cilium=plan.CILIUM)
    return f"## Requests beside bulk\n\n{note}![requests]({WAIT_PLOT})\n\n" + table(("", *WAITERS), rows)


def costs_table(costs: Costs, instructions: Costs) -> str:
    rows = []
    for case in costs:
        pairs = [(of[case][crowd], of[plan.NOP][crowd]) for of in (costs, instructions) for crowd in of[case]]
        rows.append((case, *(f"{value:.0f} ({value - nothing:+.0f})" for value, nothing in pairs)))
    units = [f"{unit}, {crowd}" for unit in ("ns", "instructions") for crowd in costs[plan.NOP]]
    return f"## Cost of the program\n\n{_COST_NOTE}![cost]({COST_PLOT})\n\n" + table(("case", *units), rows)


def plots(results: Results, costs: Costs) -> dict[str, str]:
    cells = [(load, rate) for load in plan.RATE_LOADS for rate in plan.rates(results, load)]
    cells = [cell for cell in cells if results.of(plan.BYPATH, *cell, "error_percent")]
    errors = {c: [results.median(c, *cell, "error_percent") for cell in cells] for c in SHAPERS}
    places = [f"{load}\n{plan.rate_name(rate)}" for load, rate in cells]
    beside = (plan.RR_BESIDE_BULK, plan.RR_RATE)
    times = {c: [results.median(c, *beside, f"p{percent}_ms") for percent in plan.PERCENTS] for c in WAITERS}
    bases = {f"{plan.BYPATH}, idle": plan.RR_IDLE, f"{plan.BYPATH}, other pod's bulk": plan.RR_BESIDE_OTHER}
    times |= {
        name: [results.median(plan.BYPATH, case, beside[1], f"p{percent}_ms") for percent in plan.PERCENTS]
        for name, case in bases.items()
    }
    nanoseconds = {crowd: [costs[case][crowd] for case in costs] for crowd in costs[plan.NOP]}
    at = plan.rate_name(beside[1])
    return {
        RATE_PLOT: chart.bars("Rate error; green: within 1 %", "%", places, errors, verdicts.MAX_ERROR_PERCENT),
        WAIT_PLOT: chart.lines(
            f"A request beside one bulk flow of its pod at {at}, by percentile",
            "ms",
            [f"p{percent}" for percent in plan.PERCENTS],
            times,
        ),
        COST_PLOT: chart.bars("The program, by BPF_PROG_TEST_RUN", "ns a packet", list(costs), nanoseconds),
    }


def _reference_package() -> str:
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version}", "containernetworking-plugins"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout


def _head(results: Results, args: argparse.Namespace) -> str:
    measured = len(results.of(plan.BYPATH, plan.RR_BESIDE_BULK, plan.RR_RATE, "p50_ms"))
    head = _HEAD.format(
        rounds=measured,
        seconds=results.facts["seconds"],
        options=f"--kernel {args.kernel} --rounds {measured}{' --quick' if args.quick else ''}",
        kernel=results.facts["kernel"],
        reference=_reference_package(),
        here=platform.release(),
        cpus=os.cpu_count(),
    )
    if "emulated" not in results.facts["kernel"]:
        return head
    starved = results.median(plan.NO_LIMIT, plan.STARVED, 0, "percent")
    return head + _EMULATED_NOTE.format(starved=number(starved, 0))


def files(results: Results, costs: Costs, instructions: Costs, args: argparse.Namespace) -> dict[str, str]:
    """Name below docs/benchmarks -> text."""
    found = verdicts.all_of(results, {case: by_crowd["alone"] for case, by_crowd in costs.items()})
    sections = [targets(found), waits(results), rate_errors(results), of_flows(results), ingress(results)]
    text = _head(results, args) + "".join([*sections, costs_table(costs, instructions)])
    return {"bandwidth.md": text.rstrip("\n") + "\n", **plots(results, costs)}
