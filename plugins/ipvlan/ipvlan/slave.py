# SPDX-License-Identifier: Apache-2.0
"""The pod's interface: made in the pod, recognised as ours, looked at, removed."""

from __future__ import annotations

import errno

from cni.errors import CONFLICT, INVALID_CONFIG, KERNEL_LACKS, CniError
from cni.net import link, netns, sysctl
from cni.net.link import Link
from cni.net.netlink import NetlinkError, Socket
from cni.request import Request
from ipvlan.port import L2, MODES, Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bpf.records import Record
    from cni.identity import Attachment
    from cni.net.netns import NetNs
    from cni.net.plan import Plan
    from ipvlan.layout import Layout

_ENOTSUPP = 524
"""The kernel's own number, without a name outside: ipvlan_l3s_register() of a kernel without CONFIG_IPVLAN_L3S."""
_NO_MODE = 0xFFFF
_PREFIX = "bp"


def create(socket: Socket, pod: NetNs, attachment: Attachment, master: Link, setting: Setting, mtu: int) -> Link:
    """Make the slave, down, straight in the pod. `socket` is in the master's namespace.

    It is called by the attachment's own name until it gets its final one, which the node's eth0 may have too; whoever
    is killed in between leaves a device that DEL knows by that name.
    """
    first_name = attachment.device_name(_PREFIX)
    try:
        socket.ask(link.new_ipvlan(first_name, master.index, setting.mode, setting.flags, mtu, pod.descriptor))
    except NetlinkError as error:
        raise _explained(error, master, setting) from None
    made = link.get(pod.rtnetlink(), first_name)
    try:
        naming = link.rename(made.index, attachment.ifname, attachment.alias)
        return Link(pod.rtnetlink().ask(naming, link.ask_for(attachment.ifname))[0])
    except NetlinkError as error:
        link.remove(pod.rtnetlink(), made.index, first_name)
        if error.errno != errno.EEXIST:
            raise
        raise CniError(
            CONFLICT, f"CNI_IFNAME {attachment.ifname} exists in {pod.path} already; remove it first"
        ) from None


def _explained(error: NetlinkError, master: Link, setting: Setting) -> Exception:
    said = error.strerror or ""
    if error.errno == errno.EOPNOTSUPP:
        return _kernel_lacks(said)
    if error.errno == _ENOTSUPP:
        return CniError(
            KERNEL_LACKS, f"mode: {MODES[setting.mode]} needs a kernel with CONFIG_IPVLAN_L3S; use l2 or l3", said
        )
    if error.errno == errno.EBUSY:
        return CniError(
            CONFLICT,
            f"master: {master.name} has macvlan devices, or is a port of a bridge or bond; it cannot have ipvlan "
            "devices as well; use another master such as a VLAN of its own",
            said,
        )
    if error.errno == errno.ENODEV:
        return CniError(INVALID_CONFIG, f"master: {master.name} has vanished", said)
    return error


def _kernel_lacks(said: str) -> CniError:
    return CniError(
        KERNEL_LACKS,
        "the kernel has no ipvlan (CONFIG_IPVLAN); type: modprobe ipvlan, or boot a kernel that has it",
        said,
    )


def require_kernel(socket: Socket) -> None:
    """Raises CniError(KERNEL_LACKS). Without effect: the mode is one that ipvlan_nl_validate() refuses before anything
    is made, whereas a kernel without ipvlan has nobody to refuse it."""
    try:
        socket.ask(link.new_ipvlan("bypath-none", 0, _NO_MODE, 0, 1500, None))
    except NetlinkError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise _kernel_lacks(error.strerror or "") from None


def set_up(pod: NetNs, made: Link, layout: Layout) -> None:
    """Addresses, up, routes."""
    ifname = made.name
    if 10 in layout.families:
        pod.inside(sysctl.enable_ipv6, ifname)
    if layout.mode == L2:
        pod.inside(_announce_when_up, ifname, layout.families)
    messages = layout.plan().messages(made.index)
    # Addresses before up: what comes up tells its neighbours of the addresses that it has.
    count = len(layout.addresses)
    pod.rtnetlink().ask(*messages[:count], link.set_up(ifname), *messages[count:])


def _announce_when_up(ifname: str, families: set[int]) -> None:
    """An address that was another node's a moment ago is in the router's table with that node's MAC. The kernel sends
    a gratuitous ARP (inetdev_event()) and neighbour advertisements (ndisc_netdev_event()) when the device comes up."""
    if 2 in families:
        sysctl.write(f"net/ipv4/conf/{ifname}/arp_notify", "1")
    if 10 in families:
        sysctl.write(f"net/ipv6/conf/{ifname}/ndisc_notify", "1")


def remove_ours(pod: NetNs | None, attachment: Attachment, record: Record | None) -> None:
    """Remove the slave from the pod, and nobody else's device of the same name: netns paths are used again."""
    places = [pod] if pod else []
    if record and not (pod and pod.inode == record.netns_inode):
        places += _recorded_namespace(record)
    first_name = attachment.device_name(_PREFIX)
    for place in places:
        socket = place.rtnetlink()
        for found in link.list_of_kind(socket, "ipvlan"):
            if found.alias == attachment.alias or found.name == first_name:
                link.remove(socket, found.index, found.name)


def _recorded_namespace(record: Record) -> list[NetNs]:
    """The namespace in which ADD worked, if it is still to be had by the same path."""
    pod = netns.open_if_pod(Request("DEL", {"CNI_NETNS": record.netns_path}))
    return [pod] if pod and pod.inode == record.netns_inode else []


def faults(socket: Socket, found: Link, master: Link, expected: Setting, mtu: int, plan: Plan) -> list[str]:
    """What differs from what ADD made, as ends of sentences. `socket` is in the pod."""
    if found.kind != "ipvlan" or found.parent != master.index or found.mac != master.mac:
        return [f"is not an ipvlan device of {master.name}"]
    found_setting = Setting.of_slave(found)
    differences = []
    if found_setting != expected:
        differences.append(f"has {found_setting}, not {expected}")
    if found.mtu != mtu:
        differences.append(f"has MTU {found.mtu}, not {mtu}")
    if not found.is_up:
        differences.append("is down")
    return differences + plan.faults(socket, found.index)
