# SPDX-License-Identifier: Apache-2.0
"""RTM_*QDISC and RTM_*TFILTER: the root qdisc, clsact and direct-action BPF filters."""

from __future__ import annotations

import errno
from _struct import pack, unpack_from

from .netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    NetlinkError,
    Socket,
    attr_nest,
    attr_text,
    attr_u32,
    attrs,
)

_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC = 36, 37, 38
_RTM_NEWTFILTER, _RTM_DELTFILTER, _RTM_GETTFILTER = 44, 45, 46
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_BPF_FD, _TCA_BPF_NAME, _TCA_BPF_FLAGS, _TCA_BPF_ID = 6, 7, 8, 11
_TCA_BPF_FLAG_ACT_DIRECT = 1
_ETH_P_ALL_BE = 0x0300
TC_H_ROOT = 0xFFFFFFFF
_TC_H_CLSACT = 0xFFFFFFF1
_CLSACT_HANDLE = 0xFFFF0000
CLSACT_PARENT = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_TCA_FQ = {"plimit": 1, "flow_plimit": 2, "buckets_log": 8}


class Qdisc:
    """One qdisc: handle (0 is the kernel's own default), parent, kind, and its raw TCA_OPTIONS."""

    __slots__ = ("handle", "kind", "options", "parent")

    def __init__(self, body: bytes) -> None:
        self.handle, self.parent = unpack_from("=II", body, 8)
        found = dict(attrs(body, 20))
        self.kind = found.get(_TCA_KIND, b"").rstrip(b"\0").decode()
        self.options = found.get(_TCA_OPTIONS, b"")

    def fq_options(self) -> dict[str, int]:
        """The options of an fq qdisc that bypath sets, as the kernel has them."""
        found = dict(attrs(self.options))
        return {name: int(unpack_from("=I", found[kind])[0]) for name, kind in _TCA_FQ.items() if kind in found}


def _header(index: int, handle: int, parent: int, info: int = 0) -> bytes:
    """struct tcmsg."""
    return pack("=BxHiIII", 0, 0, index, handle, parent, info)


def list_of(socket: Socket, index: int) -> list[Qdisc]:
    replies = socket.dump(Message(_RTM_GETQDISC, 0, _header(index, 0, 0), f"list qdiscs of device {index}"))
    return [Qdisc(reply) for reply in replies if unpack_from("=i", reply, 4)[0] == index]


def root_of(socket: Socket, index: int) -> Qdisc | None:
    for qdisc in list_of(socket, index):
        if qdisc.parent == TC_H_ROOT:
            return qdisc
    return None


def set_root_fq(index: int, name: str, handle: int, options: dict[str, int]) -> Message:
    """fq as the root, replacing what is there. `options`: plimit and flow_plimit in packets, buckets_log."""
    body = _header(index, handle, TC_H_ROOT) + attr_text(_TCA_KIND, "fq")
    body += attr_nest(_TCA_OPTIONS, *[attr_u32(_TCA_FQ[key], value) for key, value in options.items()])
    return Message(_RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body, f"set qdisc fq on {name}")


def remove_root(socket: Socket, index: int, name: str) -> None:
    """Give the device back the kernel's default; a device or qdisc that is gone is fine."""
    try:
        socket.ask(Message(_RTM_DELQDISC, 0, _header(index, 0, TC_H_ROOT), f"remove the root qdisc of {name}"))
    except NetlinkError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EINVAL):
            raise


def ensure_clsact(socket: Socket, index: int) -> bool:
    """True when it was not there and has been made now."""
    body = _header(index, _CLSACT_HANDLE, _TC_H_CLSACT) + attr_text(_TCA_KIND, "clsact")
    try:
        socket.ask(Message(_RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body, f"add clsact to device {index}"))
    except NetlinkError as error:
        if error.errno == errno.EEXIST:
            return False
        raise
    return True


def remove_clsact(socket: Socket, index: int) -> None:
    try:
        body = _header(index, _CLSACT_HANDLE, _TC_H_CLSACT)
        socket.ask(Message(_RTM_DELQDISC, 0, body, f"remove clsact from device {index}"))
    except NetlinkError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EINVAL):
            raise


def put_filter(socket: Socket, index: int, direction: str, priority: int, program: int, name: str) -> None:
    """A direct-action BPF filter with handle 1 under clsact, made or atomically replaced. `program` is a descriptor."""
    body = _header(index, 1, CLSACT_PARENT[direction], priority << 16 | _ETH_P_ALL_BE) + attr_text(_TCA_KIND, "bpf")
    body += attr_nest(
        _TCA_OPTIONS,
        attr_u32(_TCA_BPF_FD, program),
        attr_text(_TCA_BPF_NAME, name),
        attr_u32(_TCA_BPF_FLAGS, _TCA_BPF_FLAG_ACT_DIRECT),
    )
    what = f"attach {name} to {direction} of device {index}"
    socket.ask(Message(_RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, body, what))


def filters_of(socket: Socket, index: int, direction: str) -> list[tuple[int, str, int]]:
    """(priority, BPF filter's name, program id) of each filter under clsact; name "" for other kinds of filter."""
    body = _header(index, 0, CLSACT_PARENT[direction])
    try:
        replies = socket.dump(Message(_RTM_GETTFILTER, 0, body, f"list filters of device {index}"))
    except NetlinkError as error:
        if error.errno in (errno.ENODEV, errno.EINVAL, errno.ENOENT):
            return []
        raise
    found = []
    for reply in replies:
        handle, _, info = unpack_from("=III", reply, 8)
        parts = dict(attrs(reply, 20))
        options = dict(attrs(parts.get(_TCA_OPTIONS, b"")))
        if handle:
            name = options.get(_TCA_BPF_NAME, b"").rstrip(b"\0").decode("utf-8", "replace")
            found.append((info >> 16, name, int(unpack_from("=I", options.get(_TCA_BPF_ID, bytes(4)))[0])))
    return found


def remove_filter(socket: Socket, index: int, direction: str, priority: int) -> None:
    body = _header(index, 1, CLSACT_PARENT[direction], priority << 16 | _ETH_P_ALL_BE) + attr_text(_TCA_KIND, "bpf")
    try:
        socket.ask(Message(_RTM_DELTFILTER, 0, body, f"remove a filter from device {index}"))
    except NetlinkError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EINVAL):
            raise
