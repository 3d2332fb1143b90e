# SPDX-License-Identifier: Apache-2.0
"""The device that carries the pods' traffic: found, and refused with a reason when it cannot."""

from __future__ import annotations

from cni.errors import CONFLICT, INVALID_CONFIG, NODE_NOT_READY, CniError
from cni.net import link, route
from cni.net.netlink import Socket
from ipvlan.config import Config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.net.link import Link


def find(socket: Socket, config: Config) -> Link:
    """`socket` is in the namespace where the master lives. Raises CniError when there is none or it cannot serve."""
    where = "the pod" if config.in_container else "the node"
    if not config.master:
        return _judged(socket, _of_default_route(socket, where))
    found = link.find(socket, config.master)
    if found is None:
        raise CniError(INVALID_CONFIG, f"master: {where} has no device {config.master}" + _hint(config.master))
    return _judged(socket, found)


def _hint(name: str) -> str:
    parent, dot, tag = name.rpartition(".")
    if dot and parent and tag.isdigit():
        return f"; if it is meant to be a VLAN, type: ip link add link {parent} name {name} type vlan id {tag}"
    return "; see: ip -brief link"


def _of_default_route(socket: Socket, where: str) -> Link:
    for family in (2, 10):
        for default in route.default_routes(socket, family):
            return link.get_by_index(socket, default.index)
    raise CniError(INVALID_CONFIG, f"master: missing, and {where} has no default route that tells its NIC; name one")


def _judged(socket: Socket, found: Link) -> Link:
    name = found.name
    if found.is_loopback or found.hardware != link.ARPHRD_ETHER:
        raise CniError(INVALID_CONFIG, f"master: {name} is not an Ethernet device, which ipvlan needs; name a NIC")
    if found.kind == "ipvlan":
        # The kernel would take that device's own master, and with it a mode that nobody looked at (ipvlan_link_new()).
        raise CniError(INVALID_CONFIG, f"master: {name} is an ipvlan device itself; name the NIC below it")
    if found.controller:
        controller = link.get_by_index(socket, found.controller)
        if controller.kind != "vrf":
            raise CniError(
                CONFLICT,
                f"master: {name} is a port of {controller.kind} {controller.name}, which gets all its packets first; "
                f"name {controller.name} itself or another NIC",
            )
    if not found.is_up:
        raise CniError(NODE_NOT_READY, f"master: {name} is down; type: ip link set {name} up")
    return found


def mtu_on(found: Link, config: Config) -> int:
    """The pod's MTU. The kernel would take any and then lose what the master cannot carry."""
    if config.mtu is not None and config.mtu > found.mtu:
        raise CniError(
            INVALID_CONFIG,
            f"mtu: {config.mtu} is more than the {found.mtu} of master {found.name}; lower it or leave it out",
        )
    return config.mtu or found.mtu
