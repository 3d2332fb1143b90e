# SPDX-License-Identifier: Apache-2.0
"""One limited pod: what it has in the maps, on its own devices, and a share in on the node's.

A limit is put in force, changed and taken away by the same function, which is given the setting before and the one
after: a first ADD goes from none to one, a second one from one to another, DEL, GC and a rollback to none or back.
"""

from __future__ import annotations

from bandwidth_edt import ifb, layout
from bandwidth_edt.bucket import Buckets, Setting
from bandwidth_edt.shaper import EGRESS, INGRESS, NAMES, Shaper, hook_of
from bpf.records import Record
from cni.errors import INVALID_CONFIG, CniError
from cni.net import ipaddr, link
from cni.net.netlink import Socket
from cni.undo import Attempts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.net.netns import NetNs

DIRECTIONS = (EGRESS, INGRESS)


class Pod:
    """record: its number is the pod's bucket id. netns: None when the pod's namespace is gone."""

    __slots__ = ("_buckets", "_key", "_netns", "_record")

    def __init__(self, buckets: Buckets, key: int, record: Record, netns: NetNs | None) -> None:
        self._buckets = buckets
        self._key = key
        self._record = record
        self._netns = netns

    def change(self, direction: int, before: Setting | None, after: Setting | None) -> None:
        """Raises CniError when the device is gone; `after` may then be in force in part, and is the caller's to undo.

        A limit of None always succeeds in full, or has tried all of it.
        """
        if after:
            self._put(direction, after)
            if after.places & layout.AT_POD:
                self._own_shaper(direction).attach(after.rate_bytes_per_sec)
        attempts = Attempts()
        if before and not (after and after.places & layout.AT_POD):
            attempts.run(self._detach, direction)
        if before and not after:
            attempts.run(self._put, direction, None)
        attempts.finish()
        if after and after.places == layout.AT_NIC:
            # Wherever a packet waits, it is the pod that makes it too large.
            self._own_shaper(direction).cap_gso(after.rate_bytes_per_sec)

    def _put(self, direction: int, setting: Setting | None) -> None:
        """In the maps, with the guard that goes with a limit out of the pod."""
        wanted = {direction: setting}
        if direction == EGRESS:
            wanted[layout.GUARD] = setting.guard() if setting else None
        for each, value in wanted.items():
            if value:
                self._buckets.put(self._record.number, each, value)
            elif self._buckets.get(self._record.number, each):
                self._buckets.unlimit(self._record.number, each)

    def renew(self) -> None:
        """Attach the pinned programs, in the place of older ones, where the pod has a limit."""
        for direction in DIRECTIONS:
            setting = self._buckets.get(self._record.number, direction)
            shaper = self._shaper(direction) if setting and setting.places & layout.AT_POD else None
            if shaper:
                shaper.renew()

    def remove(self) -> None:
        """All limits, the addresses and the id. What is gone already is fine."""
        attempts = Attempts()
        for direction in DIRECTIONS:
            attempts.run(self._detach, direction)
        if self._record.number:
            attempts.run(self._buckets.remove, self._record.addresses, self._record.number)
        attempts.finish()

    def faults(self, wanted: dict[int, Setting], addresses: list[bytes]) -> list[str]:
        """For CHECK: what is not as ADD left it, as sentences without their subject, the interface."""
        faults = []
        for direction in DIRECTIONS:
            faults += self._faults_of(direction, wanted.get(direction))
        for packed in addresses:
            if self._buckets.addresses.leads_to(packed) != self._record.number:
                faults.append(f"{ipaddr.text_of(packed)} does not lead to the pod's bucket")
        return faults

    def _faults_of(self, direction: int, wanted: Setting | None) -> list[str]:
        found = self._buckets.get(self._record.number, direction)
        if wanted is None:
            return [f"has an {NAMES[direction]} limit that nobody asked for"] if found else []
        faults = []
        if found is None or found.pack() != wanted.pack():
            faults.append(f"the {NAMES[direction]} limit in force is not {wanted.rate_bytes_per_sec * 8} bit/s")
        guard = wanted.guard() if direction == EGRESS else None
        kept = self._buckets.get(self._record.number, layout.GUARD) if direction == EGRESS else None
        if (guard and guard.pack()) != (kept and kept.pack()):
            faults.append("the guard at the NIC is not the one that goes with the limit")
        if wanted.places & layout.AT_POD:
            shaper = self._shaper(direction)
            faults += shaper.faults() if shaper else [f"the device of the {NAMES[direction]} limit is gone"]
        if wanted.places & layout.AT_IFB:
            faults += ifb.faults(self._record.host_ifindex)
        return faults

    def _device(self, direction: int) -> tuple[Socket, link.Link] | None:
        """The pod's own for egress, its end on the host for ingress; None when it is gone, or a NIC of all pods."""
        if direction == INGRESS:
            socket, index = Socket(), 0 if self._record.host_name else self._record.host_ifindex
        elif self._netns is not None:
            socket, index = self._netns.rtnetlink(), self._record.pod_ifindex
        else:
            return None
        found = link.find_by_index(socket, index) if index else None
        return (socket, found) if found else None

    def _shaper(self, direction: int) -> Shaper | None:
        device = self._device(direction)
        if device is None:
            return None
        return Shaper(direction, *device, f"{self._key:016x}", self._netns if direction == EGRESS else None)

    def _own_shaper(self, direction: int) -> Shaper:
        shaper = self._shaper(direction)
        if shaper is None:
            raise CniError(INVALID_CONFIG, f"{self._record.ifname} vanished from {self._record.netns_path} during ADD")
        return shaper

    def _detach(self, direction: int) -> None:
        """Give the device back; of a device that is gone, only the pin of its link is left."""
        shaper = self._shaper(direction)
        if shaper:
            shaper.detach()
        else:
            hook_of(direction, 0, f"{self._key:016x}").detach(None)
