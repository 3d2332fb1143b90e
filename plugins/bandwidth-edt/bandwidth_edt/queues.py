# SPDX-License-Identifier: Apache-2.0
"""The qdiscs of one of the node's devices: fq in the place of what was there, and then the same as before again. The
node's ifb, which had nothing before, has its fq from here as well.

What the kernel chose by itself has the handle 0, and comes back by itself when our root is removed. What somebody set
is put back with its handle, parent and options; only kinds that tell all of their options can be, so others are
refused. Each change is one datagram, which the kernel works through before a signal can end us.
"""

from __future__ import annotations

from _struct import pack, unpack

from bandwidth_edt.shaper import FQ_HANDLE, FQ_OPTIONS, without_fq
from bpf import bpffs
from cni.errors import CONFLICT, CniError
from cni.net import qdisc
from cni.net.link import Link
from cni.net.netlink import NetlinkError, Socket, attr, attrs
from cni.net.qdisc import TC_H_ROOT, Qdisc

_MAJOR = 0xFFFF0000
_MINOR = 0x0000FFFF
_CLSACT_OR_INGRESS = 0xFFFFFFF1
_BUCKETS_LOG = 15
_FEWEST_BUCKETS_LOG = 10
_TOLD_IN_FULL = (
    "noqueue", "pfifo_fast", "pfifo", "bfifo", "pfifo_head_drop", "fq", "fq_codel", "codel", "sfq", "tbf", "cake",
)  # fmt: skip
"""Kinds without classes whose dump is also what they are made from."""
_CODEL_TIMES = {"codel": (1, 3, 5), "fq_codel": (1, 3, 7)}
"""TCA_CODEL_* and TCA_FQ_CODEL_*: TARGET, INTERVAL, CE_THRESHOLD."""


def of(socket: Socket, index: int) -> list[Qdisc]:
    """Root and leaves; clsact and ingress queue nothing. Nothing at all while a device has not been up yet."""
    return [found for found in qdisc.list_of(socket, index) if found.parent != _CLSACT_OR_INGRESS]


def _root_in(qdiscs: list[Qdisc]) -> Qdisc | None:
    return next((found for found in qdiscs if found.parent == TC_H_ROOT), None)


def _leaves_in(qdiscs: list[Qdisc]) -> list[Qdisc]:
    return [found for found in qdiscs if found.parent != TC_H_ROOT]


def are_ours(qdiscs: list[Qdisc]) -> bool:
    root = _root_in(qdiscs)
    return root is not None and root.handle == FQ_HANDLE


def are_fq(qdiscs: list[Qdisc]) -> bool:
    """fq as the root, or below each queue of an mq: nothing to change. What the kernel chose by itself comes back
    whenever ours goes, so it stays only when it would not drop before its time."""
    root, leaves = _root_in(qdiscs), _leaves_in(qdiscs)
    if root is None or (not root.handle and narrow_fq(qdiscs)):
        return False
    if root.kind != "mq":
        return root.kind == "fq"
    return bool(leaves) and all(leaf.kind == "fq" for leaf in leaves)


def narrow_fq(qdiscs: list[Qdisc]) -> Qdisc | None:
    """One of somebody's fq that drops sooner than ours would, such as one with fq's defaults."""
    return next((found for found in qdiscs if found.kind == "fq" and not _is_roomy(found)), None)


def refuse(socket: Socket, found: Link, qdiscs: list[Qdisc]) -> None:
    """Raises CniError when something is in the way that could not be put back as it was."""
    root = _root_in(qdiscs)
    for each in qdiscs:
        is_mq = each is root and each.kind == "mq"
        below_mq = root is not None and root.kind == "mq" and each.parent & _MAJOR == root.handle & _MAJOR
        fault = ""
        if each is not root and not below_mq:
            fault = "is a class of another qdisc"
        elif each.handle and not is_mq and each.kind not in _TOLD_IN_FULL:
            fault = "has classes, or settings that the kernel does not tell"
        elif each.has_size_table:
            fault = "has a table of packet sizes"
        elif each.handle and qdisc.has_filters(socket, found.index, each.handle):
            fault = "has filters"
        if fault:
            raise CniError(
                CONFLICT,
                f"{found.name} has qdisc {each.kind} {each.handle >> 16:x}:, which {fault} and so could not be put "
                f'back when the last pod leaves; use enforce: "pod", or type: tc qdisc del dev {found.name} root',
            )


def put_fq(socket: Socket, found: Link, before: list[Qdisc]) -> None:
    """fq as our root, or below each queue of an mq that is; `before` may be ours already, whole or in part."""
    try:
        if not are_ours(before):
            socket.ask(qdisc.put(found.index, found.name, _new_root(found, before)))
            before = of(socket, found.index)
        wrong = [each for each in [*before, *_without_qdisc(found, before)] if _fault_of(each)]
        if wrong:
            socket.ask(*[qdisc.put(found.index, found.name, _fq(each, len(before))) for each in wrong])
    except NetlinkError as error:
        raise without_fq(error) from None


def _new_root(found: Link, before: list[Qdisc]) -> Qdisc:
    """A queue that the device's driver has not got, as of a veth, needs no fq of its own."""
    root = _root_in(before)
    if found.tx_queues > 1 and not (root and root.kind == "noqueue"):
        return Qdisc(FQ_HANDLE, TC_H_ROOT, "mq", b"")
    return _fq(Qdisc(FQ_HANDLE, TC_H_ROOT, "", b""), 1)


def _without_qdisc(found: Link, qdiscs: list[Qdisc]) -> list[Qdisc]:
    """The places below our mq, of queues that are in use, from which somebody took the leaf: packets are lost there."""
    root = _root_in(qdiscs)
    if root is None or root.kind != "mq":
        return []
    queues = bpffs.list_directory(f"/sys/class/net/{found.name}/queues")
    in_use = sum(name.startswith("tx-") for name in queues)
    taken = {leaf.parent for leaf in _leaves_in(qdiscs)}
    places = [FQ_HANDLE | number for number in range(1, in_use + 1)]
    return [Qdisc(0, place, "noop", b"") for place in places if place not in taken]


def _fq(place: Qdisc, queues: int) -> Qdisc:
    """fq where `place` is. Leaves have our handle plus their queue's number; they share the memory for the flows."""
    handle = FQ_HANDLE if place.parent == TC_H_ROOT else FQ_HANDLE + ((place.parent & _MINOR) << 16)
    buckets_log = max(_FEWEST_BUCKETS_LOG, _BUCKETS_LOG + 1 - queues.bit_length())
    return Qdisc(handle, place.parent, "fq", qdisc.fq_options({**FQ_OPTIONS, "buckets_log": buckets_log}))


def _fault_of(found: Qdisc) -> str:
    """What is wrong with one below, or as, our root. An fq that somebody else put there keeps its settings; one that
    the kernel put there by itself, since net.core.default_qdisc is fq, does not."""
    if found.kind == "mq" and found.parent == TC_H_ROOT:
        return ""
    if found.kind != "fq":
        return f"has qdisc {found.kind} instead of fq"
    is_somebodys = found.handle and found.handle & _MAJOR != _fq(found, 1).handle
    return "" if is_somebodys or _is_roomy(found) else f"has fq with other limits than {FQ_OPTIONS}"


def _is_roomy(found: Qdisc) -> bool:
    options = found.fq_options()
    return all(options.get(name, 0) >= value for name, value in FQ_OPTIONS.items())


def faults(found: Link, qdiscs: list[Qdisc]) -> list[str]:
    """For CHECK, as ends of sentences."""
    if are_ours(qdiscs):
        return sorted({fault for each in [*qdiscs, *_without_qdisc(found, qdiscs)] if (fault := _fault_of(each))})
    root = _root_in(qdiscs)
    return [] if are_fq(qdiscs) else [f"has root qdisc {root.kind if root else 'noop'} instead of fq"]


def give_back(socket: Socket, found: Link, before: list[Qdisc]) -> None:
    """Only while the root is still ours: whoever replaced it meant it."""
    if not are_ours(of(socket, found.index)):
        return
    root = _root_in(before)
    if root is None or not root.handle:
        qdisc.remove_root(socket, found.index, found.name)
        return
    again = [root, *(leaf for leaf in _leaves_in(before) if leaf.handle)]
    socket.ask(*[qdisc.put(found.index, found.name, _as_it_was(each)) for each in again])


def _as_it_was(found: Qdisc) -> Qdisc:
    """CoDel keeps its times in units of 1024 ns and tells them rounded down to microseconds: asked for what it told,
    it would keep and tell less."""
    times = _CODEL_TIMES.get(found.kind, ())
    if not times:
        return found
    parts = []
    for kind, payload in attrs(found.options):
        if kind in times:
            told_us = unpack("=I", payload)[0]
            payload = pack("=I", told_us if _codel_tells_us(told_us) == told_us else told_us + 1)
        parts.append(attr(kind, payload))
    return Qdisc(found.handle, found.parent, found.kind, b"".join(parts))


def _codel_tells_us(asked_us: int) -> int:
    """codel_change() and codel_time_to_us() in net/sched and include/net."""
    return ((asked_us * 1000 >> 10) << 10) // 1000
