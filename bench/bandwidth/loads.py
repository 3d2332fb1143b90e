# SPDX-License-Identifier: Apache-2.0
"""Traffic: iperf3 between a pod and the outside host, and requests beside it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from bench.bandwidth import plan, request
from bench.bandwidth.figures import error_percent, jain
from bench.bandwidth.lab import Lab, Pod
from bench.samples import percentile
from tests.lab.fabric import ECHO_PORT, OUTSIDE_IP

WARM_UP_SEC = 1
"""The first interval is left out of a rate: slow start, and the burst."""
PATIENCE_SEC = 60
FOR_EVER_SEC = 3600
LEAST_INTERVAL_SEC = 0.5
"""What is shorter is the rest that comes behind the last second."""


class Disturbed(Exception):
    """A load that did not run as it should; with many in a run, the machine is too busy to measure on."""


class Traffic(NamedTuple):
    """What the receiver got. first_sec_bytes: payload of its first second; shares: bytes of each flow."""

    bits_per_sec: float
    first_sec_bytes: float
    shares: list[float]
    retransmits: float


def start_server(lab: Lab) -> None:
    """One for all loads: it answers with its own intervals, which are the receiver's."""
    server = lab.fabric.outside.popen(["iperf3", "-s", "-J"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_SEC
    while not lab.fabric.outside.run(["ss", "-Hltn", "sport = :5201"]).stdout:
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the iperf3 server does not listen")
        time.sleep(0.1)


def _argv(load: plan.Load, seconds: float, rate_bits_per_sec: int, into_pod: bool) -> list[str]:
    argv = ["iperf3", "-J", "--get-server-output", "-c", OUTSIDE_IP, "-t", str(seconds), "-P", str(load.flows)]
    if load.protocol == "udp":
        offered = plan.OFFERED * rate_bits_per_sec * load.payload_bytes * 8 / plan.wire_bits(load, load.payload_bytes)
        argv += ["-u", "-l", str(load.payload_bytes), "-b", str(int(offered))]
    return argv + ["-R"] * into_pod


def traffic(
    pod: Pod, load: plan.Load, seconds: float, rate_bits_per_sec: int = 0, *, into_pod: bool = False
) -> Traffic:
    """Of whole frames; the rate is only of interest to UDP. Raises Disturbed with iperf3's own words."""
    printed = pod.run(_argv(load, seconds, rate_bits_per_sec, into_pod), check=False, timeout=seconds + PATIENCE_SEC)
    report = json.loads(printed)
    if "error" in report:
        raise Disturbed(f"iperf3 in {pod.name} ({pod.contender.name}): {report['error']}")
    receiver = report if into_pod else report["server_output_json"]
    return received(receiver["intervals"], load, report["end"].get("sum_sent", {}).get("retransmits", 0))


def received(intervals: list[Any], load: plan.Load, retransmits: float) -> Traffic:
    """The first second is for the start, and the last, in which the sender stopped, is left out of the rate.

    Raises Disturbed when nothing is left then.
    """
    whole = [interval for interval in intervals if interval["sum"]["seconds"] > LEAST_INTERVAL_SEC]
    steady = whole[WARM_UP_SEC:-1]
    if not steady:
        raise Disturbed(f"only {len(whole)} whole seconds were measured")
    payload = sum(interval["sum"]["bytes"] for interval in steady)
    elapsed_sec = sum(interval["sum"]["seconds"] for interval in steady)
    by_flow = [[stream["bytes"] for stream in interval["streams"]] for interval in steady]
    return Traffic(
        plan.wire_bits(load, payload) / elapsed_sec,
        whole[0]["sum"]["bytes"],
        [float(sum(flow)) for flow in zip(*by_flow, strict=True)],
        float(retransmits),
    )


def rate_figures(seen: Traffic, rate_bits_per_sec: int) -> dict[str, float]:
    figures = {
        "bits_per_sec": seen.bits_per_sec,
        "error_percent": error_percent(seen.bits_per_sec, rate_bits_per_sec),
        "first_sec_bytes": seen.first_sec_bytes,
        "retransmits": seen.retransmits,
    }
    if len(seen.shares) > 1:
        figures["jain"] = jain(seen.shares)
    return figures


def requests(pod: Pod, seconds: float) -> dict[str, float]:
    """Milliseconds of a request and its answer, as figures of plan.PERCENTS, and how many there were."""
    argv = [sys.executable, "-I", "-S", str(Path(request.__file__)), OUTSIDE_IP, str(ECHO_PORT), str(seconds)]
    times_us = json.loads(pod.run(argv, timeout=seconds + PATIENCE_SEC))
    quantiles = {f"p{percent}_ms": percentile(times_us, percent) / 1000 for percent in plan.PERCENTS}
    return {**quantiles, "requests": float(len(times_us))}


def requests_beside_bulk(lab: Lab, pod: Pod, seconds: float, bulk_of: Pod | None = None) -> dict[str, float]:
    """One TCP flow of the same pod, or of another, runs from before the first request to behind the last.

    However long that is: behind a shaper that drops, a request may take seconds.
    """
    of = bulk_of or pod
    argv = _argv(plan.RATE_LOADS[plan.ONE_FLOW], FOR_EVER_SEC, 0, False)
    bulk = lab.node.pod_popen(of.name, argv, stdout=subprocess.PIPE)
    time.sleep(2 * WARM_UP_SEC)
    try:
        figures = requests(pod, seconds)
    finally:
        ended = bulk.poll()
        bulk.send_signal(signal.SIGINT)
        printed, _ = bulk.communicate(timeout=PATIENCE_SEC)
    if ended is not None:
        raise Disturbed(f"the bulk of {of.name} ended before the requests beside it did: {printed[-500:]}")
    # Interrupted, it reports what it sent, and the server nothing.
    intervals = json.loads(printed)["intervals"]
    seen = received(intervals, plan.RATE_LOADS[plan.ONE_FLOW], sum(each["sum"]["retransmits"] for each in intervals))
    return {**figures, "bulk_bits_per_sec": seen.bits_per_sec, "retransmits": seen.retransmits}
