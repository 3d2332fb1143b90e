# SPDX-License-Identifier: Apache-2.0
"""The map entries of one pod: a bucket for each direction, and the addresses that lead to them.

Both families of a dual-stack pod lead to one id and so share one bucket. Limits and the bucket's clock are two maps:
the limits can be written anew while packets are being charged.
"""

from __future__ import annotations

import errno

from bandwidth_edt import layout
from bandwidth_edt.config import ECN_NS, HORIZON_NS, Limit
from bpf import command
from bpf.maps import Map
from cni.errors import TRY_AGAIN_LATER, CniError

_DIRECTIONS = (layout.EGRESS, layout.INGRESS)
_PROBES = 64


class Buckets:
    """The pinned maps. Raises FileNotFoundError when no ADD of this boot has loaded the programs."""

    __slots__ = ("_cfg", "_ip2id", "_state", "_stats")

    def __init__(self, plugin: str) -> None:
        self._ip2id = Map(plugin, "ip2id", layout.ADDR.size, layout.U32.size)
        self._cfg = Map(plugin, "edt_cfg", layout.BUCKET.size, layout.CFG.size)
        self._state = Map(plugin, "edt_state", layout.BUCKET.size, layout.STATE.size)
        self._stats = Map(plugin, "edt_stats", layout.BUCKET.size, layout.STATS.size)

    def claim(self, attachment_key: int) -> int:
        """An id that no pod has, made of the attachment's key; its egress entry is taken at once, without a limit."""
        for probe in range(_PROBES):
            number = (attachment_key + probe) % 0xFFFFFFFF + 1
            try:
                self._cfg.put(_key(number, layout.EGRESS), _UNLIMITED, command.BPF_NOEXIST)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
                continue
            return number
        raise CniError(TRY_AGAIN_LATER, f"no free bucket after {_PROBES} tries; call GC, then ADD again")

    def limit(self, number: int, direction: int, limit: Limit) -> None:
        self._cfg.put(_key(number, direction), pack_limit(limit))

    def limit_of(self, number: int, direction: int) -> bytes | None:
        return self._cfg.get(_key(number, direction))

    def lead(self, addresses: list[bytes], number: int) -> None:
        """From now on these packed addresses are this pod's."""
        for packed in addresses:
            self._ip2id.put(layout.pack_addr(packed), layout.U32.pack(number))

    def leads_to(self, packed: bytes) -> int | None:
        value = self._ip2id.get(layout.pack_addr(packed))
        return None if value is None else int(layout.U32.unpack(value)[0])

    def remove(self, addresses: list[bytes], number: int) -> None:
        """Addresses that lead to another pod by now stay."""
        for packed in addresses:
            if self.leads_to(packed) == number:
                self._ip2id.remove(layout.pack_addr(packed))
        for direction in _DIRECTIONS:
            self._cfg.remove(_key(number, direction))
            self._state.remove(_key(number, direction))
            self._stats.remove(_key(number, direction))

    def keep_only(self, numbers: set[int]) -> None:
        """Remove the buckets of all other ids."""
        for key in self._cfg.every_key():
            number = layout.BUCKET.unpack(key)[0]
            if number not in numbers:
                self.remove([], number)


def _key(number: int, direction: int) -> bytes:
    return layout.BUCKET.pack(number, direction)


def pack_limit(limit: Limit) -> bytes:
    return layout.CFG.pack(limit.rate_bytes_per_sec, limit.burst_ns, HORIZON_NS, ECN_NS, 0, 0)


_UNLIMITED = bytes(layout.CFG.size)
