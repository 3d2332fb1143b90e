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
EGRESS, INGRESS, GUARD = layout.EGRESS, layout.INGRESS, layout.GUARD
SEC = 1_000_000_000
MS = 1_000_000


def now_ns() -> int:
    """fq's clock and the program's."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class EdtBench:
    """Limits, clocks and counters zeroed for each test."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.tables = loaded.tables
        for addr in self.tables["ip2id"]:
            self.tables["edt_slots"][layout.slot_of(addr)] = bytes(layout.SLOT.size)
        self.tables["ip2id"].clear()
        for direction in (EGRESS, INGRESS, GUARD):
            for name, table in ("edt_cfg", layout.CFG), ("edt_state", layout.STATE):
                self.tables[name][layout.bucket(ID, direction)] = bytes(table.size)
        self.forget_flows()

    def forget_flows(self) -> None:
        for direction in (EGRESS, INGRESS):
            self.tables["edt_flows"][layout.flows_of(ID, direction)] = bytes(layout.FLOWS.size)

    def lead(self, address: str, number: int) -> None:
        """As the only one in its slot."""
        addr = layout.pack_addr(ipaddress.ip_address(address).packed)
        self.tables["ip2id"][addr] = layout.U32.pack(number)
        self.tables["edt_slots"][layout.slot_of(addr)] = layout.SLOT.pack(addr, number)

    def limit(
        self,
        rate_bytes_per_sec: int,
        *,
        burst_ns: int = 0,
        horizon_ns: int = 100 * MS,
        ecn_ns: int = 0,
        early_ns: int = 0,
        direction: int = EGRESS,
        places: int = 0,
    ) -> None:
        """One limit for both of the pod's addresses, out of the pod unless the direction says otherwise."""
        for text in (POD, POD6):
            self.lead(text, ID)
        per_byte = layout.ns_per_byte(rate_bytes_per_sec)
        self.tables["edt_cfg"][layout.bucket(ID, direction)] = layout.CFG.pack(
            rate_bytes_per_sec, per_byte, burst_ns, horizon_ns, ecn_ns, early_ns, 0, places
        )

    def run(self, packet: bytes, program: str = "edt_pod_out", **options: Any) -> Ran:
        return test_run(self.loaded.programs[program], packet, **options)

    def set_last(self, t_last_ns: int, direction: int = EGRESS) -> None:
        """The bucket's clock; the share of the sparse flows counts as used up, so that nothing passes what waits."""
        self.set_state(direction, t_last_ns=t_last_ns, t_sparse_ns=1 << 62)

    def set_state(self, direction: int = EGRESS, **changed: int) -> None:
        counts = {**self.stats(direction), **changed}
        hist = layout.HIST.pack(*counts.pop("hist"))
        values = [hist if name == "hist" else counts[name] for name, _ in layout.STATE.fields]
        self.tables["edt_state"][layout.bucket(ID, direction)] = layout.STATE.pack(*values)

    def give_sparse_share(self) -> None:
        """From now on sparse flows have their whole share."""
        self.set_state(t_sparse_ns=0)

    def last_ns(self) -> int:
        return int(self.stats()["t_last_ns"])

    def stats(self, direction: int = EGRESS) -> dict[str, Any]:
        """STATE by its names; hist as a list, and its sum as pkts."""
        values = layout.STATE.named(self.tables["edt_state"][layout.bucket(ID, direction)])
        hist = list(layout.HIST.unpack(values["hist"]))
        return {**values, "hist": hist, "pkts": sum(hist)}
