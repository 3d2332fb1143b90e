# SPDX-License-Identifier: Apache-2.0
"""The map entries of one pod: a bucket for each direction, and the addresses that lead to them (addresses.py).

Both families of a dual-stack pod lead to one id and so share one bucket. Limits and the bucket's clock are two maps:
the limits can be written anew while packets are being charged.
"""

from __future__ import annotations

import errno

from bandwidth_edt import layout
from bandwidth_edt.addresses import Addresses
from bandwidth_edt.config import ECN_NS, HORIZON_NS
from bpf import command
from bpf.maps import Map
from cni.errors import TRY_AGAIN_LATER, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DIRECTIONS = (layout.EGRESS, layout.INGRESS, layout.GUARD)
_GUARD_BURST_NS = 50_000_000
"""What a pod's fq lets go in one moment, after a stall of the CPU, must get past the guard."""


class Setting:
    """One direction's limit and the places where it is kept, bits of layout.AT_*; an element of `edt_cfg`.
    A horizon of 0 drops instead of delaying; an early_ns of 0 drops nothing before the horizon."""

    __slots__ = ("burst_ns", "early_ns", "horizon_ns", "places", "rate_bytes_per_sec")

    def __init__(
        self, rate_bytes_per_sec: int, burst_ns: int, places: int, horizon_ns: int = HORIZON_NS, early_ns: int = 0
    ) -> None:
        self.rate_bytes_per_sec = rate_bytes_per_sec
        self.burst_ns = burst_ns
        self.places = places
        self.horizon_ns = horizon_ns
        self.early_ns = early_ns

    @classmethod
    def unpack(cls, raw: bytes) -> Setting:
        values = layout.CFG.named(raw)
        names = ("rate_bytes_per_sec", "burst_ns", "flags", "horizon_ns", "early_ns")
        return cls(*(values[name] for name in names))

    def pack(self) -> bytes:
        rate, ecn_ns = self.rate_bytes_per_sec, ECN_NS if self.horizon_ns else 0
        per_byte = layout.ns_per_byte(rate)
        return layout.CFG.pack(rate, per_byte, self.burst_ns, self.horizon_ns, ecn_ns, self.early_ns, 0, self.places)

    def guard(self) -> Setting | None:
        """What the NIC lets through of a pod that shapes itself, and may have taken its own fq away: a little more than
        the pod sends while it has not."""
        if self.places != layout.AT_POD | layout.AT_NIC:
            return None
        return Setting(self.rate_bytes_per_sec * 21 // 20, self.burst_ns + _GUARD_BURST_NS, layout.AT_NIC, 0)


class Buckets:
    """The pinned maps. Raises FileNotFoundError when no ADD of this boot has loaded the programs."""

    __slots__ = ("_cfg", "_flows", "_ids", "_state", "addresses")

    def __init__(self, plugin: str) -> None:
        self.addresses = Addresses(plugin)
        self._ids = Map(plugin, "edt_ids", layout.U32.size, layout.U64.size)
        self._cfg = Map(plugin, "edt_cfg", layout.U32.size, layout.CFG.size)
        self._state = Map(plugin, "edt_state", layout.U32.size, layout.STATE.size)
        self._flows = Map(plugin, "edt_flows", layout.U32.size, layout.FLOWS.size)

    def claim(self, attachment_key: int) -> int:
        """An id that no pod has: the first free one from a place that the attachment's key decides."""
        for probe in range(layout.IDS - 1):
            number = (attachment_key + probe) % (layout.IDS - 1) + 1
            try:
                self._ids.put(layout.U32.pack(number), layout.U64.pack(attachment_key), command.BPF_NOEXIST)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
                continue
            return number
        raise CniError(
            TRY_AGAIN_LATER, f"all {layout.IDS - 1} limits of this node are taken; call GC with the pods that are valid"
        )

    def is_of(self, number: int, attachment_key: int) -> bool:
        return self._ids.get(layout.U32.pack(number)) == layout.U64.pack(attachment_key)

    def put(self, number: int, direction: int, setting: Setting) -> None:
        """In force from the next packet on. The bucket's clock goes on, so a pod gains nothing from a change."""
        self._cfg.put(layout.bucket(number, direction), setting.pack())

    def get(self, number: int, direction: int) -> Setting | None:
        """None when there is no limit."""
        found = self._cfg.get(layout.bucket(number, direction)) or _UNLIMITED
        return Setting.unpack(found) if found != _UNLIMITED else None

    def counters(self, number: int, direction: int) -> dict[str, Any]:
        """STATE by its names: of a limit in force, since it was put there; all zero without one."""
        return layout.STATE.named(self._state.get(layout.bucket(number, direction)) or bytes(layout.STATE.size))

    def users(self, place: int) -> list[int]:
        """The ids with a limit that is kept at this place."""
        found = []
        for key in self._ids.every_key():
            number = layout.U32.unpack(key)[0]
            settings = [self.get(number, direction) for direction in _DIRECTIONS]
            if any(setting and setting.places & place for setting in settings):
                found.append(number)
        return found

    def unlimit(self, number: int, direction: int) -> None:
        """Before the counters and clocks are forgotten, so that no packet can write to them any more."""
        self._cfg.put(layout.bucket(number, direction), _UNLIMITED)
        self._state.put(layout.bucket(number, direction), bytes(layout.STATE.size))
        if direction != layout.GUARD:
            self._flows.put(layout.flows_of(number, direction), bytes(layout.FLOWS.size))

    def lead(self, addresses: list[bytes], number: int) -> None:
        """From now on these packed addresses are this pod's."""
        for packed in addresses:
            self.addresses.lead(packed, number)

    def remove(self, addresses: list[bytes], number: int) -> None:
        """Addresses that lead to another pod by now stay. The id is given back last."""
        for packed in addresses:
            self.addresses.forget(packed, number)
        for direction in _DIRECTIONS:
            if self.get(number, direction):
                self.unlimit(number, direction)
        self._ids.remove(layout.U32.pack(number))

    def keep_only(self, numbers: set[int]) -> None:
        """Remove the buckets of all other ids, and the addresses that lead to them."""
        self.addresses.keep_only(numbers)
        self.addresses.settle_slots()
        for key in self._ids.every_key():
            number = layout.U32.unpack(key)[0]
            if number not in numbers:
                self.remove([], number)


_UNLIMITED = bytes(layout.CFG.size)
