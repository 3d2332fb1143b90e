# SPDX-License-Identifier: Apache-2.0
"""A program for a node: takes from one pod's egress limit what a plain EDT shaper does not have.

adjust.py ADDRESS WHAT...
    no-bypass      the share of those that may pass what waits counts as used up for ever
    no-ecn         nothing is marked CE
    no-early       nothing is dropped before the horizon
    horizon-ms=N   what would wait longer is dropped
"""

from __future__ import annotations

import ipaddress
import sys

from bandwidth_edt import layout
from bandwidth_edt.bucket import Buckets
from bandwidth_edt.layout import PLUGIN

from bpf.maps import Map

USED_UP_NS = 1 << 62


def without_bypass(bucket: bytes) -> None:
    """edt_sparse_fits() of edt_flow.h refuses whatever lies ahead of the clock, and leaves it as it is."""
    states = Map(PLUGIN, "edt_state", layout.U32.size, layout.STATE.size)
    raw = states.get(bucket)
    assert raw is not None
    states.put(bucket, raw[:8] + layout.U64.pack(USED_UP_NS) + raw[16:])


def with_limit(bucket: bytes, **changed: int) -> None:
    limits = Map(PLUGIN, "edt_cfg", layout.U32.size, layout.CFG.size)
    raw = limits.get(bucket)
    assert raw is not None
    values = {**layout.CFG.named(raw), **changed}
    limits.put(bucket, layout.CFG.pack(*(values[name] for name, _ in layout.CFG.fields)))


def main(address: str, *wishes: str) -> None:
    number = Buckets(PLUGIN).addresses.leads_to(ipaddress.ip_address(address).packed)
    assert number is not None, f"{address} has no limit"
    bucket = layout.bucket(number, layout.EGRESS)
    for wish in wishes:
        what, _, value = wish.partition("=")
        if what == "no-bypass":
            without_bypass(bucket)
        elif what == "no-ecn":
            with_limit(bucket, ecn_ns=0)
        elif what == "no-early":
            with_limit(bucket, early_ns=0)
        elif what == "horizon-ms":
            with_limit(bucket, horizon_ns=int(value) * 1_000_000)
        else:
            raise ValueError(f"{what}: not known here")


if __name__ == "__main__":
    main(*sys.argv[1:])
