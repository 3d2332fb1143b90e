# SPDX-License-Identifier: Apache-2.0
"""The maps of bypath-bandwidth-edt's program as Python sees them; a mirror of bpf/include/edt.h, compared by a test.

map        key      value
ip2id      ADDR     u32 id
edt_cfg    BUCKET   CFG, written by user space only
edt_state  BUCKET   STATE, written by the program only
edt_stats  BUCKET   STATS for each CPU
"""

from __future__ import annotations

from _struct import Struct

from bpf.layout import Layout

EGRESS, INGRESS = 0, 1
"""BUCKET's dir, enum edt_dir."""

ADDR = Layout("edt_addr", ("ip", "16s"))
BUCKET = Layout("edt_bucket", ("id", "I"), ("dir", "I"))
CFG = Layout(
    "edt_cfg",
    ("rate_bytes_per_sec", "Q"),
    ("burst_ns", "Q"),
    ("horizon_ns", "Q"),
    ("ecn_ns", "Q"),
    ("prio", "I"),
    ("flags", "I"),
)
STATE = Layout("edt_state", ("t_last_ns", "Q"), ("t_last_prio_ns", "Q"))
STATS = Layout(
    "edt_stats",
    ("pkts", "Q"),
    ("bytes", "Q"),
    ("delayed", "Q"),
    ("ce", "Q"),
    ("drop", "Q"),
    ("bypass", "Q"),
    ("max_delay_ns", "Q"),
    ("hist", "128s"),
)

STRUCTS = (ADDR, BUCKET, CFG, STATE, STATS)
U32 = Struct("=I")
HIST = Struct("=16Q")
"""STATS' hist: packets delayed less than 65.536 us, then each bucket from twice the delay of the one before."""

_V4_MAPPED = bytes(10) + b"\xff\xff"


def pack_addr(address_be: bytes) -> bytes:
    """Key of `ip2id`: 16 bytes as they are, 4 bytes as ::ffff:a.b.c.d."""
    return ADDR.pack(_V4_MAPPED + address_be if len(address_be) == 4 else address_be)
