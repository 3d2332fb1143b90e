# SPDX-License-Identifier: Apache-2.0
"""RTM_*QDISC and RTM_*TFILTER: the root qdisc and its children, clsact and BPF filters."""

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
    attr,
    attr_nest,
    attr_text,
    attr_u32,
    attrs,
)

_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC = 36, 37, 38
_RTM_NEWTFILTER, _RTM_DELTFILTER, _RTM_GETTFILTER = 44, 45, 46
_TCA_KIND, _TCA_OPTIONS, _TCA_STAB = 1, 2, 8
_TCA_BPF_FD, _TCA_BPF_NAME, _TCA_BPF_FLAGS, _TCA_BPF_ID = 6, 7, 8, 11
_TCA_BPF_FLAG_ACT_DIRECT = 1
_TCA_BPF_ACT, _TCA_ACT_KIND, _TCA_ACT_OPTIONS = 1, 1, 2
_TCA_MIRRED_PARMS, _TCA_EGRESS_REDIR, _TC_ACT_STOLEN = 2, 1, 4
_ETH_P_ALL_BE = 0x0300
TC_H_ROOT = 0xFFFFFFFF
_TC_H_CLSACT = 0xFFFFFFF1
_CLSACT_HANDLE = 0xFFFF0000
CLSACT_PARENT = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_TCA_FQ = {"plimit": 1, "flow_plimit": 2, "buckets_log": 8}


class Qdisc:
    """One qdisc: handle (0 is the kernel's own default), parent, kind, its raw TCA_OPTIONS, and whether it has a table
    of packet sizes (tc-stab(8)), which the kernel does not tell in full."""

    __slots__ = ("handle", "has_size_table", "kind", "options", "parent")

    def __init__(self, handle: int, parent: int, kind: str, options: bytes, has_size_table: bool = False) -> None:
        self.handle = handle
        self.parent = parent
        self.kind = kind
        self.options = options
        self.has_size_table = has_size_table

    @classmethod
    def parse(cls, body: bytes) -> Qdisc:
        """A struct tcmsg and its attributes."""
        handle, parent = unpack_from("=II", body, 8)
        found = dict(attrs(body, 20))
        kind = found.get(_TCA_KIND, b"").rstrip(b"\0").decode()
        return cls(handle, parent, kind, found.get(_TCA_OPTIONS, b""), _TCA_STAB in found)

    def fq_options(self) -> dict[str, int]:
        """The options of an fq qdisc that bypath sets, as the kernel has them."""
        found = dict(attrs(self.options))
        return {name: int(unpack_from("=I", found[kind])[0]) for name, kind in _TCA_FQ.items() if kind in found}


def _header(index: int, handle: int, parent: int, info: int = 0) -> bytes:
    """struct tcmsg."""
    return pack("=BxHiIII", 0, 0, index, handle, parent, info)


def list_of(socket: Socket, index: int) -> list[Qdisc]:
    replies = socket.dump(Message(_RTM_GETQDISC, 0, _header(index, 0, 0), f"list qdiscs of device {index}"))
    return [Qdisc.parse(reply) for reply in replies if unpack_from("=i", reply, 4)[0] == index]


def root_of(socket: Socket, index: int) -> Qdisc | None:
    for qdisc in list_of(socket, index):
        if qdisc.parent == TC_H_ROOT:
            return qdisc
    return None


def set_root_fq(index: int, name: str, handle: int, options: dict[str, int]) -> Message:
    """fq as the root, replacing what is there. `options`: plimit and flow_plimit in packets, buckets_log."""
    return put(index, name, Qdisc(handle, TC_H_ROOT, "fq", fq_options(options)))


def fq_options(options: dict[str, int]) -> bytes:
    """The TCA_OPTIONS of an fq, of the names that Qdisc.fq_options() knows."""
    return b"".join(attr_u32(_TCA_FQ[key], value) for key, value in options.items())


def put(index: int, name: str, wanted: Qdisc) -> Message:
    """A qdisc as the root or the leaf that its parent says, replacing what is there."""
    body = _header(index, wanted.handle, wanted.parent) + attr_text(_TCA_KIND, wanted.kind)
    if wanted.options:
        body += attr(_TCA_OPTIONS, wanted.options)
    return Message(_RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body, f"set qdisc {wanted.kind} on {name}")


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


def put_filter(
    socket: Socket, index: int, direction: str, priority: int, program: int, name: str, redirect_to: int = 0
) -> None:
    """A BPF filter with handle 1 under clsact, made or atomically replaced. `program` is a descriptor.

    redirect_to: ifindex of the device by whose egress the packets go that the program chose; without one it is a
    direct-action program, which decides by itself.
    """
    action = _redirect(redirect_to) if redirect_to else attr_u32(_TCA_BPF_FLAGS, _TCA_BPF_FLAG_ACT_DIRECT)
    body = _header(index, 1, CLSACT_PARENT[direction], priority << 16 | _ETH_P_ALL_BE) + attr_text(_TCA_KIND, "bpf")
    body += attr_nest(_TCA_OPTIONS, attr_u32(_TCA_BPF_FD, program), attr_text(_TCA_BPF_NAME, name), action)
    what = f"attach {name} to {direction} of device {index}"
    socket.ask(Message(_RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, body, what))


def _redirect(index: int) -> bytes:
    """TCA_BPF_ACT with one action: struct tc_mirred after its kind, both in the nest of the action's place."""
    mirred = pack("=IIiiiiI", 0, 0, _TC_ACT_STOLEN, 0, 0, _TCA_EGRESS_REDIR, index)
    options = attr_nest(_TCA_ACT_OPTIONS, attr(_TCA_MIRRED_PARMS, mirred))
    return attr_nest(_TCA_BPF_ACT, attr_nest(1, attr_text(_TCA_ACT_KIND, "mirred"), options))


def _redirect_of(options: dict[int, bytes]) -> int:
    """The ifindex of _redirect(), 0 without such an action."""
    action = dict(attrs(dict(attrs(options.get(_TCA_BPF_ACT, b""))).get(1, b"")))
    parameters = dict(attrs(action.get(_TCA_ACT_OPTIONS, b""))).get(_TCA_MIRRED_PARMS, b"")
    return int(unpack_from("=I", parameters, 24)[0]) if len(parameters) >= 28 else 0


def filters_of(socket: Socket, index: int, direction: str) -> list[tuple[int, str, int, int]]:
    """(priority, BPF filter's name, program id, ifindex that it redirects to or 0) of each filter under clsact; name ""
    for other kinds of filter."""
    found = []
    for reply in _dump_filters(socket, index, CLSACT_PARENT[direction]):
        handle, _, info = unpack_from("=III", reply, 8)
        parts = dict(attrs(reply, 20))
        options = dict(attrs(parts.get(_TCA_OPTIONS, b"")))
        if handle:
            name = options.get(_TCA_BPF_NAME, b"").rstrip(b"\0").decode("utf-8", "replace")
            program_id = int(unpack_from("=I", options.get(_TCA_BPF_ID, bytes(4)))[0])
            found.append((info >> 16, name, program_id, _redirect_of(options)))
    return found


def has_filters(socket: Socket, index: int, handle: int) -> bool:
    """Whether somebody classifies packets at this qdisc."""
    return bool(_dump_filters(socket, index, handle))


def _dump_filters(socket: Socket, index: int, parent: int) -> list[bytes]:
    try:
        body = _header(index, 0, parent)
        return socket.dump(Message(_RTM_GETTFILTER, 0, body, f"list filters of device {index}"))
    except NetlinkError as error:
        if error.errno in (errno.ENODEV, errno.EINVAL, errno.ENOENT):
            return []
        raise


def remove_filter(socket: Socket, index: int, direction: str, priority: int) -> None:
    body = _header(index, 1, CLSACT_PARENT[direction], priority << 16 | _ETH_P_ALL_BE) + attr_text(_TCA_KIND, "bpf")
    try:
        socket.ask(Message(_RTM_DELTFILTER, 0, body, f"remove a filter from device {index}"))
    except NetlinkError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EINVAL):
            raise
