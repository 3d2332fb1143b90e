# SPDX-License-Identifier: Apache-2.0
"""Which address leads to which id.

`ip2id` has all of them. The programs first look at the address's slot in `edt_slots`: when nobody is there, or another
address alone, that is their answer, without a hash. A slot that two addresses have shared sends them to `ip2id`, until
the next GC.

All of this is written under the plugin's lock, while packets read it. An address is in `ip2id` before it has its slot,
and for as long, so that no slot hides one. No packet can read an address with another's id: one that stays is not
touched, and one comes into a slot that is empty or says SEVERAL.
"""

from __future__ import annotations

from bandwidth_edt import layout
from bpf.maps import Map

_EMPTY = layout.SLOT.pack(bytes(16), 0)


class Addresses:
    """Of packed addresses, 4 or 16 bytes. Raises FileNotFoundError when no ADD of this boot has loaded the programs."""

    __slots__ = ("_ip2id", "_slots")

    def __init__(self, plugin: str) -> None:
        self._ip2id = Map(plugin, "ip2id", layout.ADDR.size, layout.U32.size)
        self._slots = Map(plugin, "edt_slots", layout.U32.size, layout.SLOT.size)

    def lead(self, packed: bytes, number: int) -> None:
        addr = layout.pack_addr(packed)
        self._ip2id.put(addr, layout.U32.pack(number))
        self._fill_slot(addr, number)

    def leads_to(self, packed: bytes) -> int | None:
        """None also when its slot and `ip2id` contradict each other."""
        addr = layout.pack_addr(packed)
        number = self._number(addr)
        there, found = self._slot(addr)
        return number if found == layout.SEVERAL or (there, found) == (addr, number) else None

    def forget(self, packed: bytes, number: int) -> None:
        """Unless it leads to another pod by now."""
        self._forget(layout.pack_addr(packed), number)

    def keep_only(self, numbers: set[int]) -> None:
        """Forget the addresses of all other ids."""
        for addr, value in list(self._ip2id.items()):
            number = layout.U32.unpack(value)[0]
            if number not in numbers:
                self._forget(addr, number)

    def settle_slots(self) -> None:
        """For an upgrade and for GC: every slot as `ip2id` says, whatever a build without slots did to that."""
        wanted: dict[bytes, bytes] = {}
        for addr, value in list(self._ip2id.items()):
            key = layout.slot_of(addr)
            wanted[key] = layout.SLOT.pack(addr, layout.SEVERAL if key in wanted else layout.U32.unpack(value)[0])
        for key, before in list(self._slots.items()):
            after = wanted.get(key, _EMPTY)
            if before == after:
                continue
            if before != _EMPTY:
                for addr, _ in map(layout.SLOT.unpack, (before, after)):
                    self._slots.put(key, layout.SLOT.pack(addr, layout.SEVERAL))
            self._slots.put(key, after)

    def _fill_slot(self, addr: bytes, number: int) -> None:
        there, found = self._slot(addr)
        if found == layout.SEVERAL:
            return
        is_ours = not found or there == addr
        after = layout.SLOT.pack(addr, number) if is_ours else layout.SLOT.pack(there, layout.SEVERAL)
        self._slots.put(layout.slot_of(addr), after)

    def _forget(self, addr: bytes, number: int) -> None:
        if self._slot(addr) == (addr, number):
            self._slots.put(layout.slot_of(addr), _EMPTY)
        if self._number(addr) == number:
            self._ip2id.remove(addr)

    def _number(self, addr: bytes) -> int | None:
        value = self._ip2id.get(addr)
        return None if value is None else int(layout.U32.unpack(value)[0])

    def _slot(self, addr: bytes) -> tuple[bytes, int]:
        """The address in this one's slot, and its id; an id of 0 for none, SEVERAL for some."""
        there, number = layout.SLOT.unpack(self._slots.get(layout.slot_of(addr)) or _EMPTY)
        return there, number
