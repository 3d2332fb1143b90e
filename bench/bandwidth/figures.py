# SPDX-License-Identifier: Apache-2.0
"""Sums over samples: fairness, the error of a rate, whole frames."""

from __future__ import annotations

from collections.abc import Sequence

ETHERNET_BYTES, IPV4_BYTES, TCP_BYTES, UDP_BYTES = 14, 20, 32, 8
"""TCP with its timestamps."""
FULL_SEGMENT_BYTES = 1448


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index: 1 when all are alike, 1/n when one has all. Raises ValueError when there is nothing."""
    squares = sum(share * share for share in shares)
    if not squares:
        raise ValueError("nobody got anything, which is neither fair nor unfair")
    return sum(shares) ** 2 / (len(shares) * squares)


def error_percent(measured: float, promised: float) -> float:
    """Positive when more came through than was promised."""
    return (measured / promised - 1) * 100


def frame_bytes(protocol: str, payload_bytes: int) -> int:
    """A whole Ethernet frame without preamble and FCS: what both shapers count (the kernel's qdisc packet length)."""
    return payload_bytes + ETHERNET_BYTES + IPV4_BYTES + {"tcp": TCP_BYTES, "udp": UDP_BYTES}[protocol]
