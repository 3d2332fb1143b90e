# SPDX-License-Identifier: Apache-2.0
"""What is measured, under which names: contenders, loads, rates; and which cells the processor decides."""

from __future__ import annotations

from typing import Any, NamedTuple

from bench.bandwidth.figures import frame_bytes
from bench.samples import Results

Json = dict[str, Any]

BYPATH, TBF = "bypath", "bandwidth (TBF)"
PLAIN, CILIUM = "plain EDT", "plain EDT, 2 s"
NO_LIMIT = "no limit"
NOP, MISS, HIT, WAITS, PASSES = "no-op", "miss", "hit", "hit that waits", "hit that passes what waits"
"""Cases of cost.py."""


class Contender(NamedTuple):
    """plugin: what follows ptp in the chain. adjust: arguments of adjust.py, run once after ADD; uncapped: the pod's
    device may hand down GSO packets of 64 KB again."""

    name: str
    plugin: Json | None
    adjust: tuple[str, ...] = ()
    uncapped: bool = False


_EDT: Json = {"type": "bypath-bandwidth-edt", "capabilities": {"bandwidth": True}}
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(BYPATH, _EDT),
        Contender(TBF, {"type": "bandwidth", "capabilities": {"bandwidth": True}}),
        Contender(PLAIN, _EDT, ("no-bypass", "no-early")),
        Contender(CILIUM, _EDT, ("no-bypass", "no-ecn", "no-early", "horizon-ms=2000"), uncapped=True),
        Contender(NO_LIMIT, None),
    )
}


class Load(NamedTuple):
    protocol: str
    payload_bytes: int
    flows: int


RATE_LOADS = {
    "TCP, 1 flow": Load("tcp", 1448, 1),
    "TCP, 8 flows": Load("tcp", 1448, 8),
    "UDP, 1448 B": Load("udp", 1448, 1),
    "UDP, 64 B": Load("udp", 64, 1),
}
ONE_FLOW, EIGHT_FLOWS = "TCP, 1 flow", "TCP, 8 flows"
RR_IDLE, RR_BESIDE_BULK = "requests, idle", "requests beside bulk"
RR_BESIDE_OTHER = "requests beside another pod's bulk"
"""Which waits in another queue: what it adds is the processor's, shared by all, and no shaper's doing."""
PERCENTS = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)
"""Of a request's time, each a figure "p50_ms"."""
INGRESS, INGRESS_RATE = "TCP into the pod", 20_000_000
UNBURST, UNBURST_RATE = "TCP, burst as a runtime sends it when the annotation names none", 20_000_000
DEVICES, STARVED = "devices", "no processor"
BURST_NS, LEAST_BURST_BITS = 10_000_000, 8 * 1514
"""Both shapers are given it: bypath's default, which TBF is told, but no less than a frame, which both need."""
RUNTIME_BURST_BITS = 0xFFFFFFFF
"""What containerd and CRI-O send for an absent burst."""

RR_RATE = 10_000_000
"""Low enough for what waits to take long."""
NATIVE_RATES = {load: [10_000_000, 100_000_000, 1_000_000_000] for load in RATE_LOADS}
EMULATED_RATES = {load: [10_000_000, 20_000_000, 50_000_000] for load in RATE_LOADS} | {
    "UDP, 64 B": [1_000_000, 10_000_000]
}
"""An emulated processor carries some thousand packets a second."""
OFFERED = 1.25
"""UDP is sent at so many times the limit: a shaper that is offered less has nothing to do, and a sender without any
bound takes the processor away from everybody else."""
ROOM = 1.2
"""A cell is the processor's when without any limit the path carries less than so many times its rate."""


def rates(results: Results, load: str) -> list[int]:
    return list(results.facts["rates"][load])


def bound(results: Results, load: str, rate_bits_per_sec: int) -> float | None:
    """bit/s that the path carried at best without a limit: UDP when so much was offered, TCP by itself."""
    seen = results.of(NO_LIMIT, load, rate_bits_per_sec, "bits_per_sec")
    return max(seen or results.of(NO_LIMIT, load, 0, "bits_per_sec"), default=None)


def is_cpu_bound(results: Results, load: str, rate_bits_per_sec: int) -> bool:
    """False when it is not known."""
    carried = bound(results, load, rate_bits_per_sec)
    return carried is not None and carried < ROOM * rate_bits_per_sec


def wire_bits(load: Load, payload_bytes: float) -> float:
    """Of the frames that carried so much payload."""
    return payload_bytes * 8 * frame_bytes(load.protocol, load.payload_bytes) / load.payload_bytes


def burst_bits(rate_bits_per_sec: int) -> int:
    return max(LEAST_BURST_BITS, rate_bits_per_sec * BURST_NS // 1_000_000_000)


def rate_name(rate_bits_per_sec: int) -> str:
    """As an annotation has it."""
    if not rate_bits_per_sec:
        return "any rate"
    return f"{rate_bits_per_sec // 10**6}M" if rate_bits_per_sec < 10**9 else f"{rate_bits_per_sec // 10**9}G"
