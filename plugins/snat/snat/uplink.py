# SPDX-License-Identifier: Apache-2.0
"""The node's interfaces towards the outside, and the address that pods get there."""

from __future__ import annotations

from cni.errors import INVALID_CONFIG, NODE_NOT_READY, CniError
from cni.net import address, link, route
from cni.net.netlink import Socket

_AF_INET = 2


class Uplink:
    """address: packed IPv4, the source of what is translated here."""

    __slots__ = ("address", "index", "name")

    def __init__(self, index: int, name: str, packed: bytes) -> None:
        self.index = index
        self.name = name
        self.address = packed


def find(host: Socket, names: list[str] | None) -> list[Uplink]:
    """Those named, or those of the IPv4 default routes. Raises CniError that names the device and what it lacks."""
    if names is None:
        indexes = {default.index for default in route.default_routes(host, _AF_INET)}
        found = [link.get_by_index(host, index) for index in sorted(indexes)]
        if not found:
            raise CniError(
                NODE_NOT_READY, "the node has no IPv4 default route, so its way out is unknown; add one, or set uplinks"
            )
    else:
        found = [_named(host, name) for name in names]
    return [Uplink(device.index, device.name, _address_of(host, device)) for device in found]


def _named(host: Socket, name: str) -> link.Link:
    found = link.find(host, name)
    if found is None:
        raise CniError(INVALID_CONFIG, f"uplinks: there is no device {name} on this node; see: ip link")
    return found


def _address_of(host: Socket, device: link.Link) -> bytes:
    """The first one is the primary, which the kernel too prefers as a source (inet_select_addr())."""
    for packed, _ in address.list_of(host, device.index):
        if len(packed) == 4:
            return packed
    raise CniError(
        NODE_NOT_READY, f"uplink {device.name} has no IPv4 address to translate to; give it one, or set uplinks"
    )
