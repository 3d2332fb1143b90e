# SPDX-License-Identifier: Apache-2.0
"""The maps of bypath-bandwidth-edt's program as Python sees them; a mirror of bpf/include/edt.h, compared by a test.

map        key                    value
ip2id      ADDR                   u32 id
edt_slots  slot_of(ADDR)          SLOT
edt_ids    u32 id                 u64 key of the attachment that has it
edt_cfg    bucket(id, dir)        CFG, written by user space only
edt_state  bucket(id, dir)        STATE, written by the programs only
edt_flows  id << 1 | dir          FLOWS, written by the programs only
edt_ifbs   u32 ifindex of a NIC   u32 ifindex of the node's ifb
"""

from __future__ import annotations

from _struct import Struct

from bpf.layout import Layout

PLUGIN = "bandwidth-edt"
"""Whose pins they are."""
EGRESS, INGRESS, GUARD = 0, 1, 2
"""enum edt_dir."""
AT_POD, AT_NIC, AT_IFB = 1, 2, 4
"""enum edt_place: bits of CFG's flags."""
IDS = 2048
"""EDT_IDS: ids are 1..IDS - 1."""
_DIR_BITS = 2
SEVERAL = 0xFFFFFFFF
"""EDT_SEVERAL: SLOT's id where `ip2id` knows more."""
_SLOT_BITS = 14
_SLOT_FACTOR = 0x9E3779B1
COST_SHIFT = 20
"""EDT_COST_SHIFT: CFG's ns_per_byte is a fixed-point number with so many bits after the point."""

ADDR = Layout("edt_addr", ("ip_be", "16s"))
SLOT = Layout("edt_slot", ("addr", "16s"), ("id", "I"))
CFG = Layout(
    "edt_cfg",
    ("rate_bytes_per_sec", "Q"),
    ("ns_per_byte", "Q"),
    ("burst_ns", "Q"),
    ("horizon_ns", "Q"),
    ("ecn_ns", "Q"),
    ("early_ns", "Q"),
    ("prio", "I"),
    ("flags", "I"),
)
STATE = Layout(
    "edt_state",
    ("t_last_ns", "Q"),
    ("t_sparse_ns", "Q"),
    ("t_early_ns", "Q"),
    ("bytes", "Q"),
    ("delayed", "Q"),
    ("ce", "Q"),
    ("drop", "Q"),
    ("bypass", "Q"),
    ("max_delay_ns", "Q"),
    ("hist", "128s"),
)
FLOW = Layout("edt_flow", ("last_ns", "Q"), ("share_ns", "Q"), ("tag", "I"), ("unused", "I"))
FLOWS = Layout("edt_flows", ("flow", "1536s"))

STRUCTS = (ADDR, SLOT, CFG, STATE, FLOW, FLOWS)
U32 = Struct("=I")
U64 = Struct("=Q")
_U32_BE = Struct(">I")
HIST_SHIFT = 16
"""EDT_HIST_SHIFT."""
HIST = Struct("=16Q")
"""STATE's hist: packets delayed less than 65.536 us, then each bucket from twice the delay of the one before."""

_V4_MAPPED = bytes(10) + b"\xff\xff"


def pack_addr(address_be: bytes) -> bytes:
    """Key of `ip2id`: 16 bytes as they are, 4 bytes as ::ffff:a.b.c.d."""
    return ADDR.pack(_V4_MAPPED + address_be if len(address_be) == 4 else address_be)


def slot_of(addr: bytes) -> bytes:
    """Key of `edt_slots`, of an ADDR: edt_slot_of()."""
    folded = 0
    for (word,) in _U32_BE.iter_unpack(addr):
        folded ^= word
    return U32.pack((folded * _SLOT_FACTOR & 0xFFFFFFFF) >> (32 - _SLOT_BITS))


def bucket(number: int, direction: int) -> bytes:
    """Key of `edt_cfg` and `edt_state`."""
    return U32.pack(number << _DIR_BITS | direction)


def flows_of(number: int, direction: int) -> bytes:
    """Key of `edt_flows`; direction is EGRESS or INGRESS."""
    return U32.pack(number << 1 | direction)


def ns_per_byte(rate_bytes_per_sec: int) -> int:
    """CFG's ns_per_byte, rounded to the nearest."""
    return ((1_000_000_000 << COST_SHIFT) + rate_bytes_per_sec // 2) // rate_bytes_per_sec if rate_bytes_per_sec else 0
