# SPDX-License-Identifier: Apache-2.0
"""Mode and flag belong to the master, not to the slave: who comes last sets them for all (ipvlan_link_new()).

A pod of another mode would silently change the pods that are there, so it is refused. Linux tells a master's mode only
through its slaves, and these are in the pods' namespaces. The records of all our networks say it in one look; slaves
that somebody else made are looked for when no record of the master is there, which is before its first pod.
"""

from __future__ import annotations

import posix

from cni.errors import INVALID_CONFIG, CniError
from cni.net import link
from cni.net.netlink import Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from bpf.records import Record, Records
    from cni.net.link import Link
    from cni.net.netns import NetNs

MODES = ("l2", "l3", "l3s")
FLAGS = ("bridge", "private", "vepa")
"""In the order of linux/if_link.h: the index is the kernel's number."""
L2 = 0
_IN_CONTAINER = 1 << 8


class Setting:
    """A port's mode and flag, in the kernel's numbers."""

    __slots__ = ("flags", "mode")

    def __init__(self, mode: int, flags: int) -> None:
        self.mode = mode
        self.flags = flags

    @classmethod
    def of_slave(cls, slave: Link) -> Setting:
        return cls(link.ipvlan_mode_of(slave), link.ipvlan_flags_of(slave))

    @classmethod
    def of_number(cls, number: int) -> Setting:
        return cls(number & 0xF, number >> 4 & 0xF)

    def number(self, in_container: bool) -> int:
        """For Record.number."""
        return self.mode | self.flags << 4 | (_IN_CONTAINER if in_container else 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Setting) and (self.mode, self.flags) == (other.mode, other.flags)

    def __str__(self) -> str:
        mode = MODES[self.mode] if self.mode < len(MODES) else str(self.mode)
        return f"mode {mode} and flag {FLAGS[self.flags] if self.flags < len(FLAGS) else self.flags}"


class Port:
    """One master as a place for slaves.

    socket        in the master's namespace
    master        the device
    netns_inode   of the pod that the master is in, 0 for the node
    """

    __slots__ = ("master", "netns_inode", "socket")

    def __init__(self, socket: Socket, master: Link, pod: NetNs | None) -> None:
        self.socket = socket
        self.master = master
        self.netns_inode = pod.inode if pod else 0

    def claim(self, wanted: Setting, owned: Records) -> None:
        """Raises CniError(INVALID_CONFIG) when the master's slaves have another mode or flag than `wanted`.

        The caller holds the lock until its own record is written. All network namespaces are searched, but only when
        the records leave a doubt.
        """
        self._refuse_visible(wanted)
        known = next(self._records(owned), None)
        if known and Setting.of_number(known[2].number) == wanted:
            # By this very rule all records of one master are alike.
            return
        vanished = self._refuse_recorded(wanted, owned)
        # A master inside a pod has its slaves there too, as far as CNI makes them.
        if not self.netns_inode:
            from ipvlan import search

            for slave, place in search.all_namespaces(self.slaves_seen_by):
                self._refuse_unless_equal(Setting.of_slave(slave), wanted, f"{slave.name} in {place}")
        for network_key, key, record in vanished:
            # It no longer speaks for its master; DEL and GC still find all else in it.
            record.host_ifindex = 0
            owned.replace(key, network_key, record)

    def refuse_other(self, wanted: Setting, owned: Records | None) -> None:
        """As `claim`, without effect and without the search."""
        self._refuse_visible(wanted)
        if owned:
            self._refuse_recorded(wanted, owned)

    def _refuse_visible(self, wanted: Setting) -> None:
        for slave in self.slaves_seen_by(self.socket):
            self._refuse_unless_equal(Setting.of_slave(slave), wanted, slave.name)

    def _refuse_recorded(self, wanted: Setting, owned: Records) -> list[tuple[int, int, Record]]:
        """The records that contradict but belong to pods that went without DEL."""
        vanished = []
        for found in self._records(owned):
            record = found[2]
            if Setting.of_number(record.number) != wanted and not _lives(record):
                vanished.append(found)
                continue
            who = f"container {record.container_id or record.netns_path}"
            self._refuse_unless_equal(Setting.of_number(record.number), wanted, who)
        return vanished

    def slaves_seen_by(self, socket: Socket) -> list[Link]:
        """The master's slaves in the namespace of `socket`. A slave has its master's MAC and cannot have another."""
        return [
            slave
            for slave in link.list_of_kind(socket, "ipvlan")
            if slave.parent == self.master.index and slave.mac == self.master.mac
        ]

    def _records(self, owned: Records) -> Iterator[tuple[int, int, Record]]:
        """(network key, attachment key, record) of each pod on this master."""
        for found in owned.items():
            record = found[2]
            inside = record.netns_inode if record.number & _IN_CONTAINER else 0
            if record.host_ifindex == self.master.index and inside == self.netns_inode:
                yield found

    def _refuse_unless_equal(self, found: Setting, wanted: Setting, who: str) -> None:
        if found != wanted:
            raise CniError(
                INVALID_CONFIG,
                f"master: {self.master.name} serves ipvlan devices of {found} ({who}), and one of {wanted} would "
                "change all; give this network the same mode and flag, or another master such as a VLAN of its own",
            )


def _lives(record: Record) -> bool:
    """False when the pod went without DEL. A record's pod may be one whose ADD has not made the device yet."""
    try:
        return posix.stat(record.netns_path).st_ino == record.netns_inode
    except (FileNotFoundError, NotADirectoryError):
        return False
