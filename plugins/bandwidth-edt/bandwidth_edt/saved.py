# SPDX-License-Identifier: Apache-2.0
"""What a device of the node had before the first limit came to it: one file a device under /run/bypath.

It is there, whole, before the first change, so whatever moment a plugin is killed at, the next one finds it. A file
that is damaged, of another boot or of another device with the same number counts as none: then our root is removed,
and the kernel's default comes back.
"""

from __future__ import annotations

import posix
import time

from bpf import bpffs, pins
from cni import files, jsontext
from cni.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.net.link import Link
    from cni.net.qdisc import Qdisc

_PREFIX = "qdiscs-"
_FRESH = ".new"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_U32_MAX = 0xFFFFFFFF


class Saved:
    """One device's.

    hooked       it is an uplink, with programs of ours; else it only queues for one, as a bond's port does
    qdiscs       what was there before ours; None when nothing was replaced, since all was fq
    left_at_sec  CLOCK_MONOTONIC: since when nobody needs it any more; None while somebody does
    """

    __slots__ = ("hooked", "left_at_sec", "qdiscs")

    def __init__(self, hooked: bool, qdiscs: list[Qdisc] | None, left_at_sec: int | None = None) -> None:
        self.hooked = hooked
        self.qdiscs = qdiscs
        self.left_at_sec = left_at_sec

    def pack(self, device: Link) -> bytes:
        qdiscs = self.qdiscs
        told = (
            None if qdiscs is None else [[each.handle, each.parent, each.kind, each.options.hex()] for each in qdiscs]
        )
        said = {"name": device.name, "hooked": self.hooked, "qdiscs": told, "left_at_sec": self.left_at_sec}
        return jsontext.dumps({**_identity(device), **said}) + b"\n"

    @classmethod
    def unpack(cls, content: bytes, device: Link) -> Saved | None:
        """None when it is damaged or not of this device."""
        try:
            said = jsontext.loads(content, "a saved qdisc")
            if any(said[key] != value for key, value in _identity(device).items()):
                return None
            hooked, told, left_at_sec = said["hooked"], said["qdiscs"], said["left_at_sec"]
            qdiscs = None if told is None else [_qdisc_of(*each) for each in told]
        except (CniError, LookupError, TypeError, ValueError):
            return None
        if type(hooked) is not bool or not (left_at_sec is None or type(left_at_sec) is int):
            return None
        return cls(hooked, qdiscs, left_at_sec)


def _qdisc_of(handle: Any, parent: Any, kind: Any, options_hex: Any) -> Qdisc:
    """Raises TypeError or ValueError for what no qdisc has."""
    if not (type(handle) is type(parent) is int and 0 <= handle <= _U32_MAX and 0 <= parent <= _U32_MAX):
        raise ValueError("a handle is a number of 32 bits")
    if type(kind) is not str or not kind:
        raise ValueError("a kind is a word")
    # Here, since plugin.py asks indexes() for every pod, and most nodes have nothing saved.
    from cni.net.qdisc import Qdisc

    return Qdisc(handle, parent, kind, bytes.fromhex(options_hex))


def _identity(device: Link) -> dict[str, Any]:
    """Not the name: a device keeps its qdiscs when it is renamed."""
    boot = files.read(_BOOT_ID) or b""
    return {
        "boot": boot.decode().strip(),
        "ifindex": device.index,
        "mac": device.mac.hex(),
        "tx_queues": device.tx_queues,
    }


def now_sec() -> int:
    return int(time.clock_gettime(time.CLOCK_MONOTONIC))


def indexes() -> list[int]:
    """ifindex of each device with a file, even one that was never finished."""
    found = set()
    for name in bpffs.list_directory(pins.RUN):
        number = name.removeprefix(_PREFIX).removesuffix(_FRESH)
        if name.startswith(_PREFIX) and number.isdecimal():
            found.add(int(number))
    return sorted(found)


def read(device: Link) -> Saved | None:
    content = files.read(_path(device.index))
    return None if content is None else Saved.unpack(content, device)


def write(device: Link, saved: Saved) -> None:
    """Whole or not at all."""
    bpffs.ensure_run_directory()
    fresh = _path(device.index) + _FRESH
    descriptor = posix.open(fresh, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)
    try:
        content = saved.pack(device)
        while content:
            content = content[posix.write(descriptor, content) :]
    finally:
        posix.close(descriptor)
    posix.rename(fresh, _path(device.index))


def forget(index: int) -> None:
    bpffs.unlink(_path(index) + _FRESH)
    bpffs.unlink(_path(index))


def _path(index: int) -> str:
    return f"{pins.RUN}/{_PREFIX}{index}"
