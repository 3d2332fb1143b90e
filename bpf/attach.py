# SPDX-License-Identifier: Apache-2.0
"""One program on one hook of one device: a pinned TCX link where the kernel has them (6.6), else a clsact filter.

The order of our programs on a shared hook is the order of ORDER below, whichever came first: clsact keeps it by
priority, TCX by attaching relative to those of ours that are there. Foreign programs stay where they are; ours go
before them on ingress and behind them on egress, so that they see the same addresses as without us. What redirects
goes behind foreign ones there too: they see every packet before it is led elsewhere.
"""

from __future__ import annotations

import errno
import posix

from cni.errors import CONFLICT, CniError
from cni.net import qdisc
from cni.net.netlink import Socket

from . import bpffs, command, pins

ORDER = {
    "ingress": ("nic_in", "pod_in", "edt_to_ifb"),
    "egress": ("edt_nic_out", "edt_nic_guard", "nic_out", "pod_out", "edt_pod_in", "edt_pod_out"),
}
"""Egress: shaping classifies by pod address, so it comes before translation. Ingress: the redirect to an ifb is last,
since what comes back from the ifb skips the hook (tc_skip_classify)."""
_REDIRECTING = ("edt_to_ifb",)
_FIRST_PRIORITY, _REDIRECT_PRIORITY = 0xB100, 0xFFF0
_STALE_TRIES = 16
_TOO_OLD = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Redirect:
    """How a program that redirects is replaced where there is no TCX: bpf_redirect() to an ifb is as old as Linux 6.3.

    classifier  the program, and its pin, that says of a packet whether it is to be redirected
    index       ifindex of the device by whose egress an action then sends it
    """

    __slots__ = ("classifier", "index")

    def __init__(self, classifier: str, index: int) -> None:
        self.classifier = classifier
        self.index = index


class Hook:
    """One program of one plugin on one device.

    program    its name, which is also its pin's; must be in ORDER[direction]
    index      ifindex in the namespace that is current when a method runs
    direction  "ingress" or "egress"
    place      tells this attachment from others of the same program: an attachment's key in hex, or the ifindex
    shared     the device is the node's and outlives the pods: its clsact is given back when the last filter goes
    redirect   for a program that redirects
    """

    __slots__ = ("direction", "index", "link_path", "plugin", "priority", "program", "redirect", "shared")

    def __init__(
        self,
        plugin: str,
        program: str,
        index: int,
        direction: str,
        place: str,
        *,
        shared: bool = False,
        redirect: Redirect | None = None,
    ) -> None:
        self.plugin = plugin
        self.program = program
        self.index = index
        self.direction = direction
        self.shared = shared
        self.redirect = redirect
        first = _REDIRECT_PRIORITY if program in _REDIRECTING else _FIRST_PRIORITY
        self.priority = first + ORDER[direction].index(program)
        self.link_path = pins.link(plugin, program, place)

    def attach(self, socket: Socket) -> None:
        """Attach, or leave what is attached already. Call it in the device's namespace, with its rtnetlink socket.

        Two that attach the same at once do not wait for each other: the caller holds a lock that covers this hook.
        """
        program = command.obj_get(pins.pin(self.plugin, self.program))
        try:
            if not self._has_live_link() and not self._attach_tcx(program):
                self._attach_clsact(socket, program)
        finally:
            posix.close(program)

    def detach(self, socket: Socket | None) -> None:
        """Undo `attach`. A socket of None: the device is gone, or its namespace is; only the pin is removed.

        The link is detached, not just unpinned: whoever else holds it open would keep it running.
        """
        try:
            link = command.obj_get(self.link_path)
        except FileNotFoundError:
            if socket is not None:
                self._detach_clsact(socket)
            elif self.shared:
                bpffs.unlink(_clsact_note(self.index))
            return
        try:
            command.link_detach(link)
        except OSError as error:
            if error.errno not in (errno.ENOLINK, errno.ENODEV, errno.EINVAL):
                raise
        finally:
            posix.close(link)
        bpffs.unlink(self.link_path)

    def fault(self, socket: Socket) -> str:
        """For CHECK: why the program is not in effect, as the end of a sentence, or an empty string."""
        try:
            link = command.obj_get(self.link_path)
        except FileNotFoundError:
            return self._clsact_fault(socket)
        program_id = self._pinned_id(self.program)
        try:
            found_id, index = command.link_info(link)
        finally:
            posix.close(link)
        if index != self.index:
            return f"has lost {self.program} on its {self.direction}"
        return "" if found_id == program_id else f"runs another version of {self.program}"

    def _clsact_fault(self, socket: Socket) -> str:
        wanted = self._pinned_id(self.program), 0
        if self.redirect:
            wanted = self._pinned_id(self.redirect.classifier), self.redirect.index
        found = [(program_id, target) for priority, _, program_id, target
                 in qdisc.filters_of(socket, self.index, self.direction) if priority == self.priority]  # fmt: skip
        return "" if found == [wanted] else f"has no {self.program} on its {self.direction}"

    def _pinned_id(self, program: str) -> int:
        descriptor = command.obj_get(pins.pin(self.plugin, program))
        try:
            return command.object_id(descriptor)
        finally:
            posix.close(descriptor)

    def _has_live_link(self) -> bool:
        """A pinned link whose device is gone, from a pod whose DEL never came, is cleared away."""
        try:
            link = command.obj_get(self.link_path)
        except FileNotFoundError:
            return False
        try:
            index = command.link_info(link)[1]
        finally:
            posix.close(link)
        if index == self.index:
            return True
        bpffs.unlink(self.link_path)
        return False

    def _attach_tcx(self, program: int) -> bool:
        """False when the kernel has no TCX."""
        for _ in range(_STALE_TRIES):
            try:
                ids, revision = command.tcx_programs(self.index, self.direction)
                flags, relative_id = self._position(ids)
                link = command.link_create_tcx(program, self.index, self.direction, flags, relative_id, revision)
            except OSError as error:
                if error.errno in _TOO_OLD:
                    return False
                if error.errno in (errno.ESTALE, errno.ENOENT):
                    continue
                where = f"{self.program} on {self.direction} of device {self.index}"
                raise OSError(error.errno, error.strerror, where) from None
            try:
                command.obj_pin(link, self.link_path)
            finally:
                posix.close(link)
            return True
        raise CniError(
            CONFLICT,
            f"the programs on {self.direction} of device {self.index} change faster than one can be added; "
            f"see: bpftool net show",
        )

    def _position(self, ids: list[int]) -> tuple[int, int]:
        """BPF_LINK_CREATE's flags and relative id that put this program where ORDER wants it."""
        if self.program in _REDIRECTING:
            return command.F_AFTER, 0
        order = [name for name in ORDER[self.direction] if name not in _REDIRECTING]
        mine = order.index(self.program)
        names = [command.prog_name_by_id(program_id) for program_id in ids]
        ours = [(order.index(name), program_id) for name, program_id in zip(names, ids, strict=True) if name in order]
        for rank, program_id in ours:
            if rank > mine:
                return command.F_BEFORE | command.F_ID, program_id
        if ours:
            return command.F_AFTER | command.F_ID, ours[-1][1]
        return (command.F_BEFORE if self.direction == "ingress" else command.F_AFTER), 0

    def _attach_clsact(self, socket: Socket, program: int) -> None:
        if self.shared:
            _ensure_shared_clsact(socket, self.index)
        else:
            qdisc.ensure_clsact(socket, self.index)
        if not self.redirect:
            qdisc.put_filter(socket, self.index, self.direction, self.priority, program, self.program)
            return
        classifier, target = self.redirect.classifier, self.redirect.index
        program = command.obj_get(pins.pin(self.plugin, classifier))
        try:
            qdisc.put_filter(socket, self.index, self.direction, self.priority, program, classifier, target)
        finally:
            posix.close(program)

    def _detach_clsact(self, socket: Socket) -> None:
        """A pod's clsact goes with its device; a shared device's goes when we made it and nobody else uses it now."""
        qdisc.remove_filter(socket, self.index, self.direction, self.priority)
        note = _clsact_note(self.index)
        if not self.shared or not bpffs.exists(note):
            return
        if not any(qdisc.filters_of(socket, self.index, direction) for direction in ORDER):
            qdisc.remove_clsact(socket, self.index)
            bpffs.unlink(note)


def _clsact_note(index: int) -> str:
    return f"{pins.RUN}/clsact-{index}"


def _ensure_shared_clsact(socket: Socket, index: int) -> None:
    """The note that a clsact is ours is written before the clsact is made, so that no moment to be killed at leaves
    one of ours without a note; a note without a clsact does no harm."""
    if any(found.kind == "clsact" for found in qdisc.list_of(socket, index)):
        return
    bpffs.ensure_run_directory()
    note = _clsact_note(index)
    posix.close(posix.open(note, posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC, 0o600))
    if not qdisc.ensure_clsact(socket, index):
        bpffs.unlink(note)
