# SPDX-License-Identifier: Apache-2.0
"""RTM_*LINK: veth and ipvlan devices made straight into the pod's namespace, an ifb for the node, read, removed."""

from __future__ import annotations

import errno
from _struct import pack, unpack_from

from .netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    NetlinkError,
    Socket,
    attr,
    attr_nest,
    attr_text,
    attr_u32,
    attrs,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
IFF_UP = 0x1
_IFF_LOOPBACK = 0x8

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
ARPHRD_ETHER = 1
_IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_NET_NS_FD = 18, 20, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_IFLA_IPVLAN_MODE, _IFLA_IPVLAN_FLAGS = 1, 2
_IFLA_AF_SPEC, _IFLA_EXT_MASK, _IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES, _IFLA_GSO_MAX_SIZE = 26, 29, 31, 32, 41
_AF_INET6, _IFLA_INET6_ADDR_GEN_MODE, _ADDR_GEN_MODE_NONE = 10, 8, 1
_RTEXT_FILTER_SKIP_STATS = 8


class Link:
    """A device as the kernel describes it.

    mac     6 bytes, empty for a device without one
    kind    IFLA_INFO_KIND such as "veth" or "ipvlan", empty for hardware
    data    IFLA_INFO_DATA's attributes, raw
    parent  IFLA_LINK: ifindex of the lower device or the peer, in that device's own namespace; 0 when there is none
    controller  IFLA_MASTER: ifindex of the bridge, bond or VRF that the device is a port of; 0 when it is of none
    hardware  ARPHRD_*
    tx_queues  that the device was made with; it may use fewer
    """

    __slots__ = (
        "alias", "controller", "data", "flags", "hardware", "index", "kind", "mac", "mtu", "name", "parent",
        "tx_queues",
    )  # fmt: skip

    def __init__(self, body: bytes) -> None:
        self.hardware: int = unpack_from("=H", body, 2)[0]
        self.index: int = unpack_from("=i", body, 4)[0]
        self.flags: int = unpack_from("=I", body, 8)[0]
        found = dict(attrs(body, 16))
        self.name = _text(found.get(_IFLA_IFNAME, b""))
        self.alias = _text(found.get(_IFLA_IFALIAS, b""))
        self.mac = found.get(_IFLA_ADDRESS, b"")
        self.mtu: int = unpack_from("=I", found.get(_IFLA_MTU, bytes(4)))[0]
        self.parent: int = unpack_from("=i", found.get(_IFLA_LINK, bytes(4)))[0]
        self.controller: int = unpack_from("=I", found.get(_IFLA_MASTER, bytes(4)))[0]
        self.tx_queues: int = unpack_from("=I", found.get(_IFLA_NUM_TX_QUEUES, b"\x01\0\0\0"))[0]
        info = dict(attrs(found.get(_IFLA_LINKINFO, b"")))
        self.kind = _text(info.get(_IFLA_INFO_KIND, b""))
        self.data = dict(attrs(info.get(_IFLA_INFO_DATA, b"")))

    @property
    def is_up(self) -> bool:
        return bool(self.flags & IFF_UP)

    @property
    def is_loopback(self) -> bool:
        return bool(self.flags & _IFF_LOOPBACK)


def _text(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode("utf-8", "replace")


def _header(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """struct ifinfomsg."""
    return pack("=BxHiII", 0, 0, index, flags, change)


def mac_text(mac: bytes) -> str:
    return mac.hex(":")


def get(socket: Socket, name: str) -> Link:
    """Raises NetlinkError with ENODEV when there is no such device."""
    return Link(socket.ask(ask_for(name))[0])


def get_by_index(socket: Socket, index: int) -> Link:
    body = _header(index) + attr_u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return Link(socket.ask(Message(RTM_GETLINK, 0, body, f"find device number {index}"))[0])


def find(socket: Socket, name: str) -> Link | None:
    try:
        return get(socket, name)
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def find_by_index(socket: Socket, index: int) -> Link | None:
    try:
        return get_by_index(socket, index)
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def set_gso_max(name: str, size_bytes: int) -> Message:
    """The largest packet that TCP hands down in one piece, at most 64 KiB; dev->gso_max_size."""
    body = _header() + attr_text(_IFLA_IFNAME, name) + attr_u32(_IFLA_GSO_MAX_SIZE, size_bytes)
    return Message(RTM_SETLINK, 0, body, f"set gso_max_size of {name}")


def list_all(socket: Socket) -> list[Link]:
    body = _header() + attr_u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return [Link(reply) for reply in socket.dump(Message(RTM_GETLINK, 0, body, "list devices"))]


def list_of_kind(socket: Socket, kind: str) -> list[Link]:
    """The kernel filters, unless it has not loaded that kind's module and so lists all (linkinfo_to_kind_ops())."""
    body = _header() + attr_u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    body += attr_nest(_IFLA_LINKINFO, attr_text(_IFLA_INFO_KIND, kind))
    links = [Link(reply) for reply in socket.dump(Message(RTM_GETLINK, 0, body, f"list {kind} devices"))]
    return [link for link in links if link.kind == kind]


def new_veth(name: str, mac: bytes, mtu: int, peer: str, peer_mac: bytes, netns: int) -> Message:
    """A veth pair: `name`, up, in the socket's namespace; `peer`, down, in the namespace behind descriptor `netns`."""
    peer_part = (
        _header()
        + attr_text(_IFLA_IFNAME, peer)
        + attr(_IFLA_ADDRESS, peer_mac)
        + attr_u32(_IFLA_MTU, mtu)
        + attr_u32(_IFLA_NET_NS_FD, netns)
    )
    kind = attr_nest(
        _IFLA_LINKINFO,
        attr_text(_IFLA_INFO_KIND, "veth"),
        attr_nest(_IFLA_INFO_DATA, attr(_VETH_INFO_PEER, peer_part)),
    )
    body = _header(0, IFF_UP, IFF_UP) + attr_text(_IFLA_IFNAME, name) + attr(_IFLA_ADDRESS, mac)
    body += attr_u32(_IFLA_MTU, mtu) + kind
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create veth {name} with {peer} in the pod")


def new_ipvlan(name: str, master_index: int, mode: int, flags: int, mtu: int, netns: int | None) -> Message:
    """An ipvlan slave, down, of a master in the socket's namespace, made straight in the namespace behind descriptor
    `netns` (the socket's own if None).

    The name must be free in both: the kernel looks for an existing device where the request comes from, not where the
    new one goes (__rtnl_newlink()).
    Modes and flags are those of linux/if_link.h: 0 l2, 1 l3, 2 l3s; 0 bridge, 1 private, 2 vepa.
    """
    data = attr(_IFLA_IPVLAN_MODE, pack("=H", mode)) + attr(_IFLA_IPVLAN_FLAGS, pack("=H", flags))
    body = _header() + attr_text(_IFLA_IFNAME, name) + attr_u32(_IFLA_LINK, master_index) + attr_u32(_IFLA_MTU, mtu)
    if netns is not None:
        body += attr_u32(_IFLA_NET_NS_FD, netns)
    body += attr_nest(_IFLA_LINKINFO, attr_text(_IFLA_INFO_KIND, "ipvlan"), attr_nest(_IFLA_INFO_DATA, data))
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create ipvlan device {name}")


def new_ifb(name: str, mac: bytes, queues: int) -> Message:
    """Down, in the socket's namespace. Loading its module may make ifb0 and ifb1 too, in the first namespace."""
    body = _header() + attr_text(_IFLA_IFNAME, name) + attr(_IFLA_ADDRESS, mac)
    body += attr_u32(_IFLA_NUM_TX_QUEUES, queues) + attr_u32(_IFLA_NUM_RX_QUEUES, queues)
    body += attr_nest(_IFLA_LINKINFO, attr_text(_IFLA_INFO_KIND, "ifb"))
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create ifb {name}")


def without_ipv6(name: str) -> Message:
    """Before it comes up: the kernel gives it no fe80::/64 address and so has nothing to announce by it.
    EAFNOSUPPORT from a kernel without IPv6."""
    mode = attr(_IFLA_INET6_ADDR_GEN_MODE, pack("=B", _ADDR_GEN_MODE_NONE))
    body = _header() + attr_text(_IFLA_IFNAME, name) + attr_nest(_IFLA_AF_SPEC, attr_nest(_AF_INET6, mode))
    return Message(RTM_SETLINK, 0, body, f"keep IPv6 off {name}")


def ipvlan_mode_of(link: Link) -> int:
    return int(unpack_from("=H", link.data[_IFLA_IPVLAN_MODE])[0])


def ipvlan_flags_of(link: Link) -> int:
    return int(unpack_from("=H", link.data[_IFLA_IPVLAN_FLAGS])[0])


def set_up(name: str) -> Message:
    body = _header(0, IFF_UP, IFF_UP) + attr_text(_IFLA_IFNAME, name)
    return Message(RTM_SETLINK, 0, body, f"set {name} up")


def set_alias(name: str, alias: str) -> Message:
    """RTM_NEWLINK ignores IFLA_IFALIAS when it makes a device (rtnl_create_link()), so it is set after."""
    body = _header() + attr_text(_IFLA_IFNAME, name) + attr(_IFLA_IFALIAS, alias.encode())
    return Message(RTM_SETLINK, 0, body, f"name the owner of {name}")


def rename(index: int, name: str, alias: str) -> Message:
    """Name and owner of a device that is down, in one request."""
    body = _header(index) + attr_text(_IFLA_IFNAME, name) + attr(_IFLA_IFALIAS, alias.encode())
    return Message(RTM_SETLINK, 0, body, f"name a device {name}")


def ask_for(name: str) -> Message:
    """For a batch; `Link(reply)` reads the answer."""
    body = _header() + attr_text(_IFLA_IFNAME, name) + attr_u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return Message(RTM_GETLINK, 0, body, f"find device {name}")


def remove(socket: Socket, index: int, name: str) -> None:
    """Remove a device; one that is already gone is fine."""
    try:
        socket.ask(Message(RTM_DELLINK, 0, _header(index), f"remove device {name}"))
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise
