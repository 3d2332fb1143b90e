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


def create(socket: Socket, master: Link, pod: NetNs, ifname: str, setting: Setting, mtu: int) -> None:
    """Make the slave in the pod, down, under its final name. `socket` is in the master's namespace: IFLA_LINK is
    looked up in the namespace of the socket that asks (rtnl_newlink()), whatever the slave's own is."""
    message = link.new_ipvlan(ifname, master.index, setting.mode, setting.flags, mtu, pod.descriptor)
    try:
        socket.ask(message)
    except NetlinkError as error:
        raise _explained(error, master, pod, ifname, setting) from None


def _explained(error: NetlinkError, master: Link, pod: NetNs, ifname: str, setting: Setting) -> Exception:
    said = error.strerror or ""
    if error.errno == errno.EEXIST:
        return CniError(CONFLICT, f"CNI_IFNAME {ifname} exists in {pod.path} already; remove it first", said)
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


def set_up(pod: NetNs, attachment: Attachment, layout: Layout, mode: int) -> Link:
    """Owner, addresses, up, routes. Returns the device as it is then."""
    ifname = attachment.ifname
    if 10 in layout.families:
        pod.inside(sysctl.enable_ipv6, ifname)
    if mode == L2:
        pod.inside(_announce_when_up, ifname, layout.families)
    socket = pod.rtnetlink()
    made = Link(socket.ask(link.set_alias(ifname, attachment.alias), link.ask_for(ifname))[0])
    messages = layout.plan().messages(made.index)
    # Addresses before up: what comes up tells its neighbours of the addresses that it has.
    count = len(layout.addresses)
    reply = socket.ask(*messages[:count], link.set_up(ifname), *messages[count:], link.ask_for(ifname))[0]
    return Link(reply)


def _announce_when_up(ifname: str, families: set[int]) -> None:
    """An address that was another node's a moment ago is in the router's table with that node's MAC. The kernel sends
    a gratuitous ARP (inetdev_event()) and neighbour advertisements (ndisc_netdev_event()) when the device comes up."""
    if 2 in families:
        sysctl.write(f"net/ipv4/conf/{ifname}/arp_notify", "1")
    if 10 in families:
        sysctl.write(f"net/ipv6/conf/{ifname}/ndisc_notify", "1")


def undo_create(pod: NetNs, ifname: str) -> None:
    found = link.find(pod.rtnetlink(), ifname)
    if found and found.kind == "ipvlan":
        link.remove(pod.rtnetlink(), found.index, ifname)


def remove_ours(pod: NetNs | None, ifname: str, alias: str, record: Record | None) -> None:
    """Remove the slave from the pod, and nobody else's device of the same name: netns paths are used again."""
    places = [pod] if pod else []
    if record and not (pod and pod.inode == record.netns_inode):
        places += _recorded_namespace(record)
    for place in places:
        found = link.find(place.rtnetlink(), ifname)
        if found and found.kind == "ipvlan" and (found.alias == alias or _is_half_made(found, place, record)):
            link.remove(place.rtnetlink(), found.index, ifname)


def _is_half_made(found: Link, place: NetNs, record: Record | None) -> bool:
    """An ADD was killed between making the slave and naming its owner."""
    if record is None or found.alias:
        return False
    return place.inode == record.netns_inode and found.parent == record.host_ifindex


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
