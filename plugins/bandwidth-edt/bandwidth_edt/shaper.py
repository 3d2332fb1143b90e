# SPDX-License-Identifier: Apache-2.0
"""One limited direction of one pod: an fq qdisc and a program on one device, and the bucket's entries in the maps.

Egress is shaped on the pod's own interface, ingress on the host's end of its veth; without a veth see ifb.py.
"""

from __future__ import annotations

import errno

from bandwidth_edt import layout
from bandwidth_edt.layout import PLUGIN
from bpf.attach import Hook
from bpf.loader import Object
from cni.errors import CONFLICT, KERNEL_LACKS, CniError
from cni.net import link, qdisc
from cni.net.netlink import Message, NetlinkError, Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.net.netns import NetNs

OBJECT = Object(
    PLUGIN,
    "edt.bpf.o",
    ("ip2id", "edt_slots", "edt_ids", "edt_cfg", "edt_state", "edt_flows", "edt_ifbs"),
    ("edt_pod_out", "edt_pod_in", "edt_nic_out", "edt_nic_guard", "edt_to_ifb", "edt_is_for_ifb"),
)
EGRESS, INGRESS = layout.EGRESS, layout.INGRESS
NAMES = {EGRESS: "egress", INGRESS: "ingress"}
_PROGRAMS = {EGRESS: "edt_pod_out", INGRESS: "edt_pod_in"}

FQ_HANDLE = 0xB1970000
"""So that CHECK and DEL know our fq from one that somebody else put there."""
FQ_OPTIONS = {"plimit": 100_000, "flow_plimit": 10_000}
"""The program drops before it charges; fq must never be the first to drop (its default is 100 packets a flow)."""
_GSO_NS = 4_000_000
_GSO_MAX_BYTES = 65536
_NS_PER_SEC = 1_000_000_000


class Shaper:
    """On one device, by a socket of its namespace. pod: that namespace, None for the node's own."""

    __slots__ = ("_hook", "_link", "_pod", "_socket")

    def __init__(self, direction: int, socket: Socket, found: link.Link, place: str, pod: NetNs | None) -> None:
        self._socket = socket
        self._link = found
        self._pod = pod
        self._hook = hook_of(direction, found.index, place)

    def attach(self, rate_bytes_per_sec: int) -> None:
        """The qdisc first: without fq the program's times would hold nothing back."""
        self._put_fq()
        self.renew()
        self.cap_gso(rate_bytes_per_sec)

    def cap_gso(self, rate_bytes_per_sec: int) -> None:
        self._socket.ask(link.set_gso_max(self._link.name, gso_max_bytes(rate_bytes_per_sec, self._link.mtu)))

    def renew(self) -> None:
        """Attach the pinned program, in the place of an older one where there is one."""
        if self._pod is None:
            self._hook.attach(self._socket)
        else:
            self._pod.inside(self._hook.attach, self._socket)

    def detach(self) -> None:
        self._hook.detach(self._socket)
        root = qdisc.root_of(self._socket, self._link.index)
        if root and root.handle == FQ_HANDLE:
            qdisc.remove_root(self._socket, self._link.index, self._link.name)
        self._socket.ask(link.set_gso_max(self._link.name, _GSO_MAX_BYTES))

    def faults(self) -> list[str]:
        """For CHECK, as ends of sentences."""
        root = qdisc.root_of(self._socket, self._link.index)
        faults = []
        if root is None or root.kind != "fq":
            faults.append(f"has root qdisc {root.kind if root else 'noqueue'} instead of fq")
        elif root.handle == FQ_HANDLE and not FQ_OPTIONS.items() <= root.fq_options().items():
            faults.append(f"has fq with other limits than {FQ_OPTIONS}")
        hook = self._hook.fault(self._socket)
        return [*faults, hook] if hook else faults

    def _put_fq(self) -> None:
        """An fq that is there already keeps its settings."""
        root = qdisc.root_of(self._socket, self._link.index)
        if root and root.kind == "fq":
            return
        if root and root.handle:
            raise CniError(
                CONFLICT,
                f"{self._link.name} has qdisc {root.kind} {root.handle >> 16:x}: set by somebody else; a pod can have "
                "one shaper, so take the other plugin out of the conflist",
            )
        ask_for_fq(self._socket, qdisc.set_root_fq(self._link.index, self._link.name, FQ_HANDLE, FQ_OPTIONS))


def ask_for_fq(socket: Socket, message: Message) -> None:
    try:
        socket.ask(message)
    except NetlinkError as error:
        raise without_fq(error) from None


def without_fq(error: NetlinkError) -> Exception:
    """What to raise when the kernel would not make an fq."""
    if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
        return error
    return CniError(
        KERNEL_LACKS,
        "the kernel has no fq packet scheduler, which holds packets back until their departure time; "
        "type: modprobe sch_fq (or build CONFIG_NET_SCH_FQ)",
        str(error),
    )


def hook_of(direction: int, index: int, place: str) -> Hook:
    """Both programs run where packets leave towards fq: on the egress of the pod's device, or of the host's."""
    return Hook(PLUGIN, _PROGRAMS[direction], index, "egress", place)


def gso_max_bytes(rate_bytes_per_sec: int, mtu: int) -> int:
    """A GSO packet leaves as a whole: 4 ms of rate at the most, so that others need not wait for 64 KB to pass."""
    return max(2 * mtu, min(_GSO_MAX_BYTES, rate_bytes_per_sec * _GSO_NS // _NS_PER_SEC))
