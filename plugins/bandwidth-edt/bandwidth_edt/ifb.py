# SPDX-License-Identifier: Apache-2.0
"""The node's one ifb, where the ingress of pods without a veth is shaped: of ipvlan devices.

    NIC [edt_to_ifb] --> bypath-ifb [edt_pod_in] --> fq --> the NIC again, past its tc programs --> pod

It is there while some pod has such a limit, and so are the programs on the NICs of these pods. The pinned map edt_ifbs
has a key for each of the NICs, put there before the first effect and removed after the last is undone: without any
key nothing of this is on the node, and whatever moment settle() is killed at, the next one finds what to do.
"""

from __future__ import annotations

import errno
import posix

from bandwidth_edt import layout, queues
from bandwidth_edt.bucket import Buckets
from bandwidth_edt.layout import PLUGIN
from bandwidth_edt.shaper import INGRESS
from bpf.attach import Hook, Redirect
from bpf.maps import Map
from bpf.records import Records
from cni.errors import CONFLICT, KERNEL_LACKS, CniError
from cni.net import link, qdisc
from cni.net.netlink import NetlinkError, Socket
from cni.undo import Attempts

NAME = "bypath-ifb"
_MAC = b"bypath"
"""A locally administered address that says whose device this is from its first moment on; an alias comes later."""
_ALIAS = "bypath/bandwidth-edt/ingress of pods without a veth"
_U32 = layout.U32


def nic_of(pod_link: link.Link) -> link.Link | None:
    """The node's device below a pod's ipvlan device; None when there is none, or it is not in the node's namespace."""
    if pod_link.kind != "ipvlan" or not pod_link.parent:
        return None
    found = link.find_by_index(Socket(), pod_link.parent)
    # The number of a NIC in the pod (linkInContainer) is on the node that of some other device. An ipvlan device has
    # the address of its NIC.
    return found if found and found.mac == pod_link.mac else None


def settle(owned: Records, coming: int = 0, *, repair: bool = False) -> None:
    """Take the ifb and its programs from where no pod needs them, all of it after the last pod. The caller holds the
    plugin's lock.

    coming: ifindex of the NIC of a pod that has got such a limit just now. For it, or for `repair`, everything that
    any pod needs is put right as well; a pod that leaves must not fail by what others lack.
    """
    try:
        ifbs = Map(PLUGIN, "edt_ifbs", _U32.size, _U32.size)
    except FileNotFoundError:
        return
    known = {int(_U32.unpack(key)[0]) for key in ifbs.every_key()}
    if not known and not coming:
        return
    host = Socket()
    # A NIC that is gone took its pods' devices with it.
    used = {index for index in known - {coming} if link.find_by_index(host, index) and _is_used(owned, index)}
    used |= {coming} - {0}
    for index in used - known:
        ifbs.put(_U32.pack(index), _U32.pack(0))
    if used and (coming or repair):
        device = _ensure_device(host)
        for index in used:
            ifbs.put(_U32.pack(index), _U32.pack(device.index))
            _nic_hook(index, device.index).attach(host)
    _leave(host, ifbs, known - used, last=not used)


def faults(nic_index: int) -> list[str]:
    """For CHECK of a pod on this NIC: what is not as settle() left it, as sentences."""
    host = Socket()
    device = link.find(host, NAME)
    if device is None or not _is_ours(device):
        return [f"the node's {NAME} is gone"]
    found = [] if device.is_up else [f"{NAME} is down"]
    nic = link.find_by_index(host, nic_index)
    nic_fault = _nic_hook(nic_index, device.index).fault(host) if nic else "is gone"
    if Map(PLUGIN, "edt_ifbs", _U32.size, _U32.size).get(_U32.pack(nic_index)) != _U32.pack(device.index):
        nic_fault = nic_fault or f"does not lead to {NAME}"
    hook = _own_hook(device.index).fault(host)
    wrong = [*_queue_faults(device, queues.of(host, device.index)), *([hook] if hook else [])]
    found += [f"{NAME} {fault}" for fault in wrong]
    return [*found, f"{nic.name if nic else 'its NIC'} {nic_fault}"] if nic_fault else found


def _is_used(owned: Records, nic_index: int) -> bool:
    buckets = Buckets(PLUGIN)
    for _, _, record in owned.items():
        if record.host_name and record.host_ifindex == nic_index:
            setting = buckets.get(record.number, INGRESS)
            if setting and setting.places & layout.AT_IFB:
                return True
    return False


def _nic_hook(nic_index: int, ifb_index: int) -> Hook:
    redirect = Redirect("edt_is_for_ifb", ifb_index)
    return Hook(PLUGIN, "edt_to_ifb", nic_index, "ingress", f"{nic_index}", shared=True, redirect=redirect)


def _own_hook(ifb_index: int) -> Hook:
    return Hook(PLUGIN, "edt_pod_in", ifb_index, "egress", "ifb")


def _is_ours(device: link.Link) -> bool:
    return device.kind == "ifb" and device.mac == _MAC


def _ensure_device(host: Socket) -> link.Link:
    """Complete before any packet is led to it: without fq the program's times would hold nothing back, and what is
    redirected to a device that is down is lost."""
    found = link.find(host, NAME)
    if found is None:
        found = _create(host)
    elif not _is_ours(found):
        raise CniError(
            CONFLICT,
            f"{NAME} is a {found.kind or 'device'} of somebody else, and the name of the ifb for ingress limits; "
            f"type: ip link set {NAME} down name OTHER",
        )
    if found.alias != _ALIAS:
        _prepare(host)
    qdiscs = queues.of(host, found.index)
    if _queue_faults(found, qdiscs):
        queues.put_fq(host, found, qdiscs)
    if not found.is_up:
        host.ask(link.set_up(NAME))
    _own_hook(found.index).attach(host)
    return found


def _create(host: Socket) -> link.Link:
    try:
        host.ask(link.new_ifb(NAME, _MAC, posix.cpu_count() or 1))
    except NetlinkError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        raise CniError(
            KERNEL_LACKS,
            "ingressRate: the kernel has no ifb device, on which the ingress of pods without a veth is shaped; "
            "type: modprobe ifb numifbs=0 (or build CONFIG_IFB)",
            str(error),
        ) from None
    return link.get(host, NAME)


def _prepare(host: Socket) -> None:
    """The alias last: it tells that this has been done."""
    try:
        host.ask(link.without_ipv6(NAME))
    except NetlinkError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
    host.ask(link.set_alias(NAME, _ALIAS))


def _queue_faults(device: link.Link, qdiscs: list[qdisc.Qdisc]) -> list[str]:
    """As ends of sentences. The device is ours: an fq of somebody else's as its root is a fault too."""
    if queues.are_ours(qdiscs):
        return queues.faults(device, qdiscs)
    root = qdiscs[0].kind if qdiscs else "noqueue"
    return [f"has root qdisc {root} instead of ours"]


def _leave(host: Socket, ifbs: Map, leaving: set[int], *, last: bool) -> None:
    """First nothing is led to the ifb any more, then it goes; what waits in it is lost."""
    attempts = Attempts()
    for index in leaving:
        attempts.run(_nic_hook(index, 0).detach, host if link.find_by_index(host, index) else None)
    if last:
        attempts.run(_remove_device, host)
    attempts.finish()
    for index in leaving:
        ifbs.remove(_U32.pack(index))


def _remove_device(host: Socket) -> None:
    found = link.find(host, NAME)
    if found and _is_ours(found):
        link.remove(host, found.index, NAME)
    _own_hook(0).detach(None)
