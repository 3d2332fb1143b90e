# SPDX-License-Identifier: Apache-2.0
"""What is measured, under which names."""

from __future__ import annotations

from typing import NamedTuple

KIB, MIB = 1 << 10, 1 << 20

BYPATH, PLAIN = "bypath-sockmap", "plain TCP"
"""Two pairs of pods: one that the policy selects, and one that it does not."""
HALVES = (BYPATH, PLAIN)
NOTHING = "no bypath"
"""Only for what connecting costs: not even the program that looks at every connection is attached."""
ROOTED = "not selected, root cgroup"
"""The same, beside pods whose cgroup the runtime has not named, as plain TCP is beside those whose it has."""

LOOPBACK, POD_TO_POD = "loopback", "pod to pod"
PLACES = (LOOPBACK, POD_TO_POD)
REQUESTS, BULK, SPILLING, CONNECT = "requests", "bulk of one flow", "bulk that spills", "connect"
MALLOCED = "requests with malloc's buffers"
BUSY, AWAKE = "bulk of a busy node", "bulk of one flow, awake processors"
THROUGH, STUCK = "through", "readers that never read"

REQUEST_SIZES = (64, 1 * KIB, 16 * KIB, 64 * KIB)
MALLOCED_SIZES = (16 * KIB, 64 * KIB)
MALLOC_BEHIND_BYTES = 16
"""Where a large buffer of glibc's malloc() begins, seen from a page's beginning."""
BULK_WRITES = (4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1 * MIB)
JUDGED_WRITES = (16 * KIB, 64 * KIB, 256 * KIB, 1 * MIB)
BUSY_WRITES = (1 * KIB, *BULK_WRITES)
FLOWS_OF_A_CPU = 2
STREAM_WRITES = (64, 256, 1 * KIB)
"""Small writes that nobody waits for: plain TCP makes segments of them, redirection does not."""
SPILLING_WRITES = (1 * KIB, 64 * KIB)
CHAIN_SIZES = (128, 1 * KIB, 16 * KIB)
PROXIES = ("nginx", "haproxy", "Envoy")

SPILL_LIMIT_MIB, SPILL_STALL_MSEC = 1, 300
"""A limit of one direction instead of 64, and a reader that sleeps first, so that its sender reaches it."""
STUCK_READERS = (1, 8, 32)
NODE_LIMIT_MIB = 64
"""While readers are stuck: less than the connections may have one by one."""


class Effort(NamedTuple):
    """requests: of a size in a round; chained: the same through proxies; bulk_msec, busy_msec: of each flow, alone and
    with others, whose places on the processors change now and then; connections: of each batch, of which a round has
    `batches` for each contender."""

    requests: int
    chained: int
    bulk_msec: int
    busy_msec: int
    connections: int
    batches: int


FULL = Effort(12_000, 2_000, 300, 1_000, 500, 20)
QUICK = Effort(3_000, 800, 150, 150, 500, 2)


def load(name: str, place: str) -> str:
    """As it is called in the results."""
    return f"{name}, {place}"


def size_name(size_bytes: int) -> str:
    if size_bytes < KIB:
        return f"{size_bytes} B"
    return f"{size_bytes // KIB} KiB" if size_bytes < MIB else f"{size_bytes // MIB} MiB"
