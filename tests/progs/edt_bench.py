# SPDX-License-Identifier: Apache-2.0
"""bypath-bandwidth-edt's program with empty maps, and limits for pods."""

from __future__ import annotations

import ipaddress
import time
from typing import Any

from bandwidth_edt import layout

from tests.progs.run import Loaded, Ran, test_run

POD, POD6, STRANGER = "10.244.1.5", "2001:db8::5", "10.250.1.1"
ID = 3
BUCKET, BUCKET_IN = layout.BUCKET.pack(ID, layout.EGRESS), layout.BUCKET.pack(ID, layout.INGRESS)
SEC = 1_000_000_000
MS = 1_000_000


def now_ns() -> int:
    """fq's clock and the program's."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class EdtBench:
    """Maps emptied for each test."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.tables = loaded.tables
        for name in ("ip2id", "edt_cfg", "edt_state", "edt_stats"):
            self.tables[name].clear()

    def limit(
        self,
        rate_bytes_per_sec: int,
        *,
        burst_ns: int = 0,
        horizon_ns: int = 100 * MS,
        ecn_ns: int = 0,
        bucket: bytes = BUCKET,
    ) -> None:
        """One limit for both of the pod's addresses, out of the pod unless the bucket says otherwise."""
        for text in (POD, POD6):
            key = layout.pack_addr(ipaddress.ip_address(text).packed)
            self.tables["ip2id"][key] = layout.U32.pack(ID)
        self.tables["edt_cfg"][bucket] = layout.CFG.pack(rate_bytes_per_sec, burst_ns, horizon_ns, ecn_ns, 0, 0)

    def run(self, packet: bytes, program: str = "edt_pod_out", **options: Any) -> Ran:
        return test_run(self.loaded.programs[program], packet, **options)

    def set_last(self, t_last_ns: int) -> None:
        self.tables["edt_state"][BUCKET] = layout.STATE.pack(t_last_ns, 0)

    def last_ns(self) -> int:
        return int(layout.STATE.named(self.tables["edt_state"][BUCKET])["t_last_ns"])

    def stats(self) -> dict[str, Any]:
        """Summed over the CPUs; hist as a list."""
        total: dict[str, Any] = {"hist": [0] * 16}
        for raw in self.tables["edt_stats"].per_cpu(BUCKET):
            values = layout.STATS.named(raw)
            counts = layout.HIST.unpack(values.pop("hist"))
            total["hist"] = [a + b for a, b in zip(total["hist"], counts, strict=True)]
            for name, value in values.items():
                total[name] = max(total.get(name, 0), value) if name == "max_delay_ns" else total.get(name, 0) + value
        return total
