# SPDX-License-Identifier: Apache-2.0
"""`make soak`: a million exchanges and ten GiB by every way in turn, with slow readers, small limits, lost segments.

Ends with status 1 when one byte was wrong, one connection hung or failed, or a socket stayed behind.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.sockmap.attached import MIB, Attached, attach
from tests.sockmap.exchange import Figures, Way, losing, run, ways
from tests.sockmap.pods import Pod, two_pods

GIB = 1 << 30
VARIANTS: list[tuple[str, int, int, list[str]]] = [
    ("live readers", 64 * MIB, 0, []),
    ("slow readers, 256 KiB limit", MIB // 4, 0, ["-w", "20"]),
    ("600 connections", 8 * MIB, 0, ["-n", "600", "-P", "150"]),
    ("each 20th segment is lost", 1, 50, ["-w", "50", "-B", "200000", "-h", "60000"]),
]
"""What of it differs: (name, limit of a direction in bytes, segments lost in a thousand, options of the load)."""


def one(
    programs: Attached, way: Way, limit_bytes: int, lost: int, exchanges: int, bulk: int, options: list[str]
) -> Figures:
    programs.forget_pods()
    for pod in {way.clients, way.servers}:
        programs.add_pod(pod.cookie, [pod.ipv4, pod.ipv6], limit_bytes=limit_bytes)
    ports = ["-P", "30000"] if way.redirected else []
    with losing(way, lost):
        return run(way, exchanges, "-b", str(bulk), *ports, *options, timeout=3600, verbose=True)


def soak(programs: Attached, pods: tuple[Pod, Pod], exchanges: int, bulk: int) -> bool:
    """Whether all went well."""
    total_exchanges = total_bytes = 0
    found = ways(*pods)
    share = len(found) * len(VARIANTS)
    good = True
    for seed, (name, way) in enumerate(found.items()):
        for variant, limit_bytes, lost, options in VARIANTS:
            print(f"==> {name}, {variant}", flush=True)
            effort = (exchanges // share + 1, bulk // share + 1)
            figures = one(programs, way, limit_bytes, lost, *effort, [*options, "-S", str(seed + 1)])
            counters = programs.counters(*{way.clients.cookie, way.servers.cookie})
            total_exchanges += figures.exchanges
            total_bytes += figures.bytes
            good = good and figures.faults() == (0, 0, 0) and counters["redirected_bytes"] > 0
            print(f"    wrong, hung, failed: {figures.faults()}; {counters}")
            print(f"    so far {total_exchanges} exchanges, {total_bytes / GIB:.2f} GiB", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exchanges", type=int, default=1_000_000)
    parser.add_argument("--gib", type=float, default=10.0)
    arguments = parser.parse_args()
    start = time.monotonic()
    with two_pods() as (_, app, db), attach() as programs:
        good = soak(programs, (app, db), arguments.exchanges, int(arguments.gib * GIB))
        time.sleep(2)
        left = programs.sockets()
    print(f"{'all right' if good else 'WRONG'} after {time.monotonic() - start:.0f} s; sockets left in the map: {left}")
    return 0 if good and not left else 1


if __name__ == "__main__":
    sys.exit(main())
