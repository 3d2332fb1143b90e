# SPDX-License-Identifier: Apache-2.0
"""Nanoseconds of one packet in the program, by BPF_PROG_TEST_RUN on this machine's kernel.

Also the program of counting.py's machine, where they are instructions: `python -m bench.bandwidth.cost REPEATS`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from bandwidth_edt import layout
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from bench.bandwidth import plan
from cni.net import syscall
from tests.progs import edt_bench
from tests.progs.edt_bench import POD, SEC, STRANGER, EdtBench, now_ns
from tests.progs.run import Loaded, test_run

ROUNDS, REPEATS = 9, 1_000_000
MANY_IDS = 1000
_PROG_LOAD, _SCHED_CLS = 5, 3
_AHEAD_NS, _NO_HORIZON_NS = 100_000 * SEC, 1 << 62
_FAST_BYTES_PER_SEC = 12_500_000_000
"""100 Gbit/s: a small packet's time at this rate is less than the program's own, so that nothing ever waits."""
_SLOW_BYTES_PER_SEC = 125_000_000


def _packet(source: str) -> bytes:
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    return bytes(ether / IP(src=source, dst="198.51.100.1") / TCP(sport=1, dport=2) / bytes(46))


@contextmanager
def _no_op() -> Iterator[int]:
    """A tc program of two instructions: return TC_ACT_UNSPEC."""
    instructions = struct.pack("<BBhi", 0xB7, 0, 0, -1) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    code, licence = syscall.Buffer(instructions), syscall.Buffer(b"GPL\0")
    attributes = syscall.Buffer(struct.pack("=IIQQIIQII", _SCHED_CLS, 2, code.address, licence.address, *[0] * 5))
    descriptor = syscall.call("bpf", _PROG_LOAD, attributes.address, len(attributes.data))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _expect(bench: EdtBench, case: str, **counts: int) -> None:
    """A case that is not what its name says must not be published."""
    stats = bench.stats()
    found = {name: stats[name] for name in counts}
    if found != counts:
        raise RuntimeError(f"the packets of case {case} were counted as {found} instead of {counts}")


def _miss(bench: EdtBench, repeats: int) -> int:
    bench.limit(_FAST_BYTES_PER_SEC)
    ran = bench.run(_packet(STRANGER), repeat=repeats)
    _expect(bench, plan.MISS, pkts=0)
    return ran.duration_ns


def _hit(bench: EdtBench, repeats: int) -> int:
    bench.limit(_FAST_BYTES_PER_SEC, burst_ns=SEC)
    ran = bench.run(_packet(POD), repeat=repeats)
    _expect(bench, plan.HIT, pkts=repeats, delayed=0, bypass=0)
    return ran.duration_ns


def _waits(bench: EdtBench, repeats: int) -> int:
    bench.limit(_SLOW_BYTES_PER_SEC, horizon_ns=_NO_HORIZON_NS)
    bench.set_last(now_ns() + _AHEAD_NS)
    ran = bench.run(_packet(POD), repeat=repeats)
    _expect(bench, plan.WAITS, pkts=repeats, delayed=repeats, bypass=0)
    return ran.duration_ns


def _passes(bench: EdtBench, repeats: int) -> int:
    """At a rate at which one flow can send a million times and is still sparse."""
    bench.limit(_FAST_BYTES_PER_SEC * 10, horizon_ns=_NO_HORIZON_NS)
    bench.set_last(now_ns() + _AHEAD_NS)
    bench.give_sparse_share()
    ran = bench.run(_packet(POD), repeat=repeats)
    _expect(bench, plan.PASSES, pkts=repeats, bypass=repeats)
    return ran.duration_ns


_CASES: dict[str, Callable[[EdtBench, int], int]] = {
    plan.MISS: _miss,
    plan.HIT: _hit,
    plan.WAITS: _waits,
    plan.PASSES: _passes,
}


def _fill(bench: EdtBench) -> None:
    """Limits for many other pods, so that what is found lies among what is not."""
    per_byte = layout.ns_per_byte(_SLOW_BYTES_PER_SEC)
    limit = layout.CFG.pack(_SLOW_BYTES_PER_SEC, per_byte, 0, _NO_HORIZON_NS, 0, 0, 0, 0)
    first = int(ipaddress.ip_address("10.200.0.1"))
    for number in range(edt_bench.ID + 1, edt_bench.ID + 1 + MANY_IDS):
        bench.lead(str(ipaddress.ip_address(first + number)), number)
        bench.tables["edt_cfg"][layout.bucket(number, layout.EGRESS)] = limit


def measure(rounds: int = ROUNDS, repeats: int = REPEATS) -> dict[str, dict[str, float]]:
    """Case -> {"alone", "among many"} -> nanoseconds, medians of interleaved rounds."""
    samples: dict[tuple[str, str], list[int]] = {}
    loaded = Loaded("edt.bpf.o")
    try:
        with _no_op() as nothing:
            for _ in range(rounds):
                for crowd, fill in (("alone", lambda bench: None), ("among many", _fill)):
                    ran = test_run(nothing, _packet(POD), repeat=repeats)
                    samples.setdefault((plan.NOP, crowd), []).append(ran.duration_ns)
                    for case, run in _CASES.items():
                        bench = EdtBench(loaded)
                        fill(bench)
                        samples.setdefault((case, crowd), []).append(run(bench, repeats))
    finally:
        loaded.close()
    found: dict[str, dict[str, float]] = {}
    for (case, crowd), values in samples.items():
        found.setdefault(case, {})[crowd] = median(values)
    return found


if __name__ == "__main__":
    print(json.dumps(measure(1, int(sys.argv[1]))), flush=True)
