# SPDX-License-Identifier: Apache-2.0
"""RTM_*ROUTE in the main table, and the questions that a plugin asks the routing table."""

from __future__ import annotations

import errno
from _struct import pack, unpack_from

from . import ipaddr
from .netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Message, NetlinkError, Socket, attr, attr_u32, attrs

_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_METRICS, _RTA_TABLE = 1, 4, 5, 6, 7, 8, 15
_RTAX_MTU, _RTAX_ADVMSS = 2, 8
TABLE_MAIN = 254
_RTN_UNICAST = 1
_RTNH_F_ONLINK = 4
SCOPE_UNIVERSE, SCOPE_LINK = 0, 253
PROTO_BOOT = 3
"""What ip-route(8) and the reference plugins give to routes inside a pod."""
PROTO_BYPATH = 0xB7
"""rtm_protocol of every route that bypath adds on a node, so that it never touches anybody else's; free in
iproute2's rt_protos."""


class Route:
    """A unicast route. Packed network and source; gateway packed or empty; index is the device's."""

    __slots__ = ("gateway", "index", "network", "prefix_length", "priority", "protocol", "source", "table")

    def __init__(self, body: bytes) -> None:
        family, self.prefix_length, _, _, table, self.protocol = unpack_from("=BBBBBB", body)
        found = dict(attrs(body, 12))
        self.network = found.get(_RTA_DST, bytes(16 if family == 10 else 4))
        self.index: int = unpack_from("=I", found.get(_RTA_OIF, bytes(4)))[0]
        self.gateway = found.get(_RTA_GATEWAY, b"")
        self.source = found.get(_RTA_PREFSRC, b"")
        self.priority: int = unpack_from("=I", found.get(_RTA_PRIORITY, bytes(4)))[0]
        self.table: int = unpack_from("=I", found[_RTA_TABLE])[0] if _RTA_TABLE in found else table


class Options:
    """What the CNI result's routes[] can say beside dst and gw; zero or None means the kernel's default."""

    __slots__ = ("advmss", "mtu", "onlink", "priority", "protocol", "scope", "source", "table")

    def __init__(
        self,
        *,
        scope: int = SCOPE_UNIVERSE,
        protocol: int = PROTO_BYPATH,
        source: bytes = b"",
        onlink: bool = False,
        mtu: int = 0,
        advmss: int = 0,
        priority: int = 0,
        table: int | None = None,
    ) -> None:
        self.scope = scope
        self.protocol = protocol
        self.source = source
        self.onlink = onlink
        self.mtu = mtu
        self.advmss = advmss
        self.priority = priority
        self.table = table


def _body(network: bytes, prefix_length: int, index: int, gateway: bytes, options: Options) -> bytes:
    family = ipaddr.family_of(network)
    table = TABLE_MAIN if options.table is None else options.table
    flags = _RTNH_F_ONLINK if options.onlink else 0
    scope = options.scope if family == 2 else SCOPE_UNIVERSE
    body = pack("=BBBBBBBBI", family, prefix_length, 0, 0, table & 0xFF, options.protocol, scope, _RTN_UNICAST, flags)
    if prefix_length:
        body += attr(_RTA_DST, network)
    body += attr_u32(_RTA_OIF, index)
    if table > 0xFF:
        body += attr_u32(_RTA_TABLE, table)
    if gateway:
        body += attr(_RTA_GATEWAY, gateway)
    if options.source:
        body += attr(_RTA_PREFSRC, options.source)
    if options.priority:
        body += attr_u32(_RTA_PRIORITY, options.priority)
    if options.mtu or options.advmss:
        metrics = [(_RTAX_MTU, options.mtu), (_RTAX_ADVMSS, options.advmss)]
        body += attr(_RTA_METRICS, b"".join(attr_u32(kind, value) for kind, value in metrics if value))
    return body


def new(
    network: bytes, prefix_length: int, index: int, gateway: bytes = b"", options: Options | None = None,
    *, replace: bool = False,
) -> Message:  # fmt: skip
    """Packed network and gateway. With `replace` an equal route of anybody is overwritten, otherwise it is EEXIST."""
    flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
    what = f"add route {ipaddr.text_of(network)}/{prefix_length}"
    return Message(_RTM_NEWROUTE, flags, _body(network, prefix_length, index, gateway, options or Options()), what)


def remove(socket: Socket, network: bytes, prefix_length: int, index: int) -> None:
    """Remove our own route to this network through this device; one that is already gone is fine."""
    body = _body(network, prefix_length, index, b"", Options(scope=255))
    try:
        socket.ask(Message(_RTM_DELROUTE, 0, body, f"remove route {ipaddr.text_of(network)}/{prefix_length}"))
    except NetlinkError as error:
        if error.errno not in (errno.ESRCH, errno.ENODEV, errno.ENETUNREACH):
            raise


def list_of(socket: Socket, family: int, index: int) -> list[Route]:
    """Unicast routes of all tables through one device."""
    body = pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, _RTN_UNICAST, 0) + attr_u32(_RTA_OIF, index)
    return [Route(reply) for reply in socket.dump(Message(_RTM_GETROUTE, 0, body, "list routes"))]


def default_routes(socket: Socket, family: int) -> list[Route]:
    """Default routes of the main table, best priority first."""
    body = pack("=BBBBBBBBI", family, 0, 0, 0, TABLE_MAIN, 0, 0, _RTN_UNICAST, 0)
    # Every pod has a route here: only the defaults, which have rtm_dst_len 0, are worth decoding.
    replies = socket.dump(Message(_RTM_GETROUTE, 0, body, "list routes"))
    defaults = [route for route in (Route(reply) for reply in replies if not reply[1]) if route.index]
    return sorted(defaults, key=lambda route: route.priority)
