# SPDX-License-Identifier: Apache-2.0
"""What the node's uplinks have for limits that are kept there (layout.AT_NIC): programs on them, and fq under these.

The first pod brings it and the last one takes it away. The programs go at once. The qdiscs stay LINGER_SEC longer, for
the next pod: to replace them throws away what is queued, and resets a device with many queues as many times. There is
no daemon to watch the clock, so they go with the first ADD or DEL after that time, or with the next GC whenever it is.

Every function here wants the plugin's lock to be held.
"""

from __future__ import annotations

from bandwidth_edt import layout, queues, saved
from bandwidth_edt.bucket import Buckets
from bandwidth_edt.layout import PLUGIN
from bandwidth_edt.saved import Saved
from bandwidth_edt.shaper import FQ_OPTIONS
from bpf import bpffs
from bpf.attach import Hook
from cni import log
from cni.errors import NODE_NOT_READY, CniError
from cni.net import link, route
from cni.net.link import Link
from cni.net.netlink import Socket
from cni.net.qdisc import TC_H_ROOT, Qdisc
from cni.undo import Attempts

LINGER_SEC = 30
_AF_INET, _AF_INET6 = 2, 10
_PROGRAMS = ("edt_nic_out", "edt_nic_guard")
_KINDS_WITH_PORTS = ("bond", "team")


def is_in_place() -> bool:
    """Whether anything of ours is on a device of the node; one look into a directory."""
    return bool(saved.indexes())


def have(host: Socket, buckets: Buckets) -> None:
    """For ADD: have all that the limits need. Raises CniError, before the first change, when a device cannot."""
    needed = _programs_for(buckets)
    uplinks = _uplinks(host)
    queued = {each.index: each for uplink in uplinks for each in _queueing_for(host, uplink)}
    for found in queued.values():
        before = queues.of(host, found.index)
        if queues.are_ours(before):
            continue
        if queues.are_fq(before):
            _warn_of_narrow_fq(found, before)
        else:
            queues.refuse(host, found, before)
    hooked = {uplink.index: uplink for uplink in uplinks}
    for index, found in {**hooked, **queued}.items():
        _bring(host, found, hooked=index in hooked, queueing=index in queued)
        _put_programs(host, index, needed if index in hooked else ())
    attempts = Attempts()
    for index in saved.indexes():
        if index not in hooked and index not in queued:
            attempts.run(_take, host, index, (), True)
    attempts.finish()


def _warn_of_narrow_fq(found: Link, qdiscs: list[Qdisc]) -> None:
    """It is not ours to change, but limits that are kept there are not reached: what fq drops has been charged."""
    narrow = queues.narrow_fq(qdiscs)
    if narrow:
        parent = "root" if narrow.parent == TC_H_ROOT else f"parent {narrow.parent >> 16:x}:{narrow.parent & 0xFFFF:x}"
        limit, flow_limit = FQ_OPTIONS["plimit"], FQ_OPTIONS["flow_plimit"]
        log.warn(
            f"{found.name} has an fq of its own that drops early, so pods stay below their egress limits there; type: "
            f"tc qdisc replace dev {found.name} {parent} fq limit {limit} flow_limit {flow_limit}"
        )


def settle(host: Socket, at_once: bool) -> None:
    """After limits went: take away what nobody needs any more. What is needed but has been changed is left alone,
    since that must not keep a pod from being torn down."""
    needed = _programs_for(_buckets()) if saved.indexes() else ()
    attempts = Attempts()
    for index in saved.indexes():
        attempts.run(_take, host, index, needed, at_once)
    attempts.finish()


def put_back(host: Socket, at_once: bool) -> None:
    """For an ADD that failed, after its limits were put back: the same for the node."""
    buckets = _buckets()
    if buckets and _programs_for(buckets):
        have(host, buckets)
    else:
        settle(host, at_once)


def renew(host: Socket, buckets: Buckets) -> None:
    """An upgrade: attach the pinned programs, in the place of older ones."""
    needed = _programs_for(buckets)
    for index in saved.indexes():
        found = link.find_by_index(host, index)
        old = saved.read(found) if found else None
        if old and old.hooked:
            _put_programs(host, index, needed)


def faults(host: Socket, places: int) -> list[str]:
    """For CHECK, of a limit that is kept at these places: what is not as ADD left it, as sentences."""
    program = _PROGRAMS[bool(places & layout.AT_POD)]
    found = []
    for uplink in _uplinks(host):
        fault = _hook(program, uplink.index).fault(host)
        found += [f"uplink {uplink.name} {fault}"] if fault else []
        for each in _queueing_for(host, uplink):
            found += [f"{each.name} {fault}" for fault in queues.faults(each, queues.of(host, each.index))]
    return found


def _uplinks(host: Socket) -> list[Link]:
    """The devices of the default routes."""
    indexes = {default.index for family in (_AF_INET, _AF_INET6) for default in route.default_routes(host, family)}
    if not indexes:
        raise CniError(
            NODE_NOT_READY,
            'enforce: the node has no default route, so its NIC is unknown; add one, or set enforce to "pod"',
        )
    return [link.get_by_index(host, index) for index in sorted(indexes)]


def _queueing_for(host: Socket, uplink: Link) -> list[Link]:
    """The devices whose queues an uplink's packets wait in: its own, or those of its ports, of which each packet takes
    one and which would otherwise all share one lock."""
    if uplink.kind not in _KINDS_WITH_PORTS:
        return [uplink]
    return [each for each in link.list_all(host) if each.controller == uplink.index]


def _programs_for(buckets: Buckets | None) -> tuple[str, ...]:
    """Those of _PROGRAMS that the limits in force need."""
    if buckets is None:
        return ()
    settings = [buckets.get(number, layout.EGRESS) for number in buckets.users(layout.AT_NIC)]
    guarding = {bool(setting.places & layout.AT_POD) for setting in settings if setting}
    return tuple(_PROGRAMS[guard] for guard in sorted(guarding))


def _buckets() -> Buckets | None:
    """None when somebody removed our pins: then nobody has a limit."""
    try:
        return Buckets(PLUGIN)
    except FileNotFoundError:
        return None


def _hook(program: str, index: int) -> Hook:
    return Hook(PLUGIN, program, index, "egress", str(index), shared=True)


def _put_programs(host: Socket, index: int, needed: tuple[str, ...]) -> None:
    """Under the lock of all plugins: others attach to the same device, and clsact goes with its last filter."""
    with bpffs.Lock():
        for program in needed:
            _hook(program, index).attach(host)
    _remove_programs(host, index, needed)


def _remove_programs(host: Socket | None, index: int, needed: tuple[str, ...]) -> None:
    with bpffs.Lock():
        for program in _PROGRAMS:
            if program not in needed:
                _hook(program, index).detach(host)


def _bring(host: Socket, found: Link, *, hooked: bool, queueing: bool) -> None:
    """First the file, then the change."""
    before = queues.of(host, found.index)
    old = saved.read(found)
    original = None
    if queueing and queues.are_ours(before):
        original = (old and old.qdiscs) or []
    elif queueing and not queues.are_fq(before):
        original = before
    fresh = Saved(hooked, original)
    if old is None or old.pack(found) != fresh.pack(found):
        saved.write(found, fresh)
    if original is not None:
        queues.put_fq(host, found, before)


def _take(host: Socket, index: int, needed: tuple[str, ...], at_once: bool) -> None:
    """Programs that are not needed go; when none is, the qdiscs follow at once or after a while."""
    found = link.find_by_index(host, index)
    if found is None:
        _remove_programs(None, index, ())
        saved.forget(index)
        return
    _remove_programs(host, index, needed)
    if needed:
        return
    old = saved.read(found)
    if old and not at_once and old.qdiscs is not None and not _has_lingered(old):
        if old.left_at_sec is None:
            saved.write(found, Saved(old.hooked, old.qdiscs, saved.now_sec()))
        return
    queues.give_back(host, found, (old and old.qdiscs) or [])
    saved.forget(index)


def _has_lingered(old: Saved) -> bool:
    return old.left_at_sec is not None and not 0 <= saved.now_sec() - old.left_at_sec < LINGER_SEC
