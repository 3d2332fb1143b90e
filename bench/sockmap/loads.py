# SPDX-License-Identifier: Apache-2.0
"""One load on one pair of pods, and whether what was measured is what its name says: the programs' counters tell."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from functools import partial

from bench.sockmap import placing, plan
from bench.sockmap.lab import ACCEPT, ACCEPT_PORT, LOAD, PATIENCE_SEC, PROXY_PORTS, SERVE, SERVER_PORT, Lab

Figures = dict[str, float]
LEAST_REDIRECTED_PERCENT = 50.0
"""A half that goes by TCP more than that is not the measure of redirection."""
READERS_PORT = 7003
RELEASE_SEC = 3


class NotWhatItClaims(Exception):
    """A half did not take the way that it is the measure of."""


def _checked(
    lab: Lab, half: str, measure: Callable[[], Figures], payload_bytes: float = 0, *, must_spill: bool = False
) -> Figures:
    """What was measured, in bypath's half with "spills" and "redirected_percent", the share of what was sent.

    payload_bytes: how much must have been redirected at the least, when that is known before. Raises NotWhatItClaims
    also when it was less than half of what was sent and no spill was wanted, or when one was wanted and there was none;
    in the other half nothing at all may have been redirected.
    """
    before = lab.counted()
    figures = measure()
    counted = {name: value - before[name] for name, value in lab.counted().items()}
    redirected = counted["redirected_bytes"]
    if half != plan.BYPATH:
        if redirected or counted["paired"]:
            raise NotWhatItClaims(f"{half}: {counted}")
        return figures
    percent = 100 * redirected / max(redirected + counted["passed_bytes"], 1)
    by_tcp = not must_spill and percent < LEAST_REDIRECTED_PERCENT
    if by_tcp or redirected < payload_bytes or (must_spill and not counted["spills"]):
        raise NotWhatItClaims(f"{half}: {counted}, where {payload_bytes:.0f} bytes at least had to be redirected")
    return {**figures, "spills": float(counted["spills"]), "redirected_percent": percent}


def requests(lab: Lab, half: str, place: str, size: int, count: int, behind_bytes: int = 0) -> Figures:
    """behind_bytes: from a page's beginning to where both ends keep the bytes."""
    pair = lab.pairs[half]
    pid = pair.pids[pair.at(place).name, SERVE]
    run = partial(pair.load, "requests", pair.address(place), SERVER_PORT, size, count, behind_bytes, pid)
    with placing.on_one([pid]):
        return _checked(lab, half, run, 2.0 * size * count)


def bulk(lab: Lab, half: str, place: str, write_bytes: int, msec: int) -> Figures:
    return _checked(lab, half, partial(_bulk, lab, half, place, write_bytes, msec))


def bulk_busy(lab: Lab, half: str, place: str, write_bytes: int, msec: int) -> Figures:
    """So many flows that no processor has nothing to do."""
    flows = plan.FLOWS_OF_A_CPU * len(os.sched_getaffinity(0))
    return _checked(lab, half, partial(_bulk, lab, half, place, write_bytes, msec, flows=flows))


def bulk_awake(lab: Lab, half: str, place: str, write_bytes: int, msec: int) -> Figures:
    """Waking the reader takes as little as it can."""
    with placing.awake():
        return bulk(lab, half, place, write_bytes, msec)


def bulk_that_spills(lab: Lab, half: str, place: str, write_bytes: int, msec: int) -> Figures:
    """A limit that is reached before the reader awakes, and now and again afterwards; the same reader without it."""
    lab.select(limitMiB=plan.SPILL_LIMIT_MIB)
    try:
        run = partial(_bulk, lab, half, place, write_bytes, msec, stall_msec=plan.SPILL_STALL_MSEC)
        return _checked(lab, half, run, must_spill=True)
    finally:
        lab.select()


def _bulk(
    lab: Lab, half: str, place: str, write_bytes: int, msec: int, *, stall_msec: int = 0, flows: int = 1
) -> Figures:
    pair = lab.pairs[half]
    pid = pair.pids[pair.at(place).name, SERVE]
    return pair.load("bulk", pair.address(place), SERVER_PORT, write_bytes, msec, stall_msec, flows, pid)


def through(lab: Lab, half: str, proxy: str, size: int, count: int) -> Figures:
    """From the application to its proxy, to the other pod's proxy, to the server there: three connections."""
    pair = lab.pairs[half]
    pids = [pair.pids[pod.name, proxy] for pod in pair.pods] + [pair.pids[pair.db.name, SERVE]]
    run = partial(pair.load, "http", "127.0.0.1", PROXY_PORTS[proxy], size, count, *pids)
    with placing.on_one(pids):
        return _checked(lab, half, run, 3.0 * size * count)


def connections(lab: Lab, half: str, place: str, count: int) -> Figures:
    pair = lab.pairs[half]
    pid = pair.pids[pair.at(place).name, ACCEPT]
    with placing.on_one([pid]):
        return pair.load("connect", pair.address(place), ACCEPT_PORT, count, pid)


def stuck_readers(lab: Lab, half: str, readers: int) -> Figures:
    """What readers that never read make the node keep, once no sender can write any more. Raises NotWhatItClaims."""
    pod = lab.pairs[half].app
    node = lab.node
    argv = pod.started([LOAD, SERVE, "0.0.0.0", str(READERS_PORT)])
    server = node.pod_popen(pod.name, argv, stdout=subprocess.PIPE)
    client = None
    counted = lab.counted()
    try:
        assert server.stdout
        server.stdout.readline()
        before = lab.tcp_memory_bytes()
        client = node.pod_popen(
            pod.name,
            pod.started([LOAD, "hold", "127.0.0.1", str(READERS_PORT), str(readers)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert client.stdout
        client.stdout.readline()
        held = float(lab.tcp_memory_bytes() - before)
        client.communicate(timeout=PATIENCE_SEC)
    finally:
        for process in (client, server):
            if process:
                node.stop(process)
    _await_release(lab, before)
    paired = lab.counted()["paired"] - counted["paired"]
    if paired != (2 * readers if half == plan.BYPATH else 0):
        raise NotWhatItClaims(f"{half}: {paired} sockets were joined for {readers} connections")
    return {"held_bytes": held}


def _await_release(lab: Lab, before: int) -> None:
    """Or else what is measured next begins with it, which takes from the node's limit and so from what it may hold."""
    deadline = time.monotonic() + RELEASE_SEC
    while lab.tcp_memory_bytes() > before + plan.MIB and time.monotonic() < deadline:
        time.sleep(0.05)
