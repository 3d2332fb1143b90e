# SPDX-License-Identifier: Apache-2.0
"""What the pod's interface must have, out of what IPAM gave and the mode.

l2: the pod is a host of the NIC's network. Addresses, gateway and routes are IPAM's.
l3, l3s: there is no ARP and no neighbour discovery; a packet that leaves the pod is routed again by the node's own
table (ipvlan_process_v4_outbound()). A gateway would be looked at by nobody, so every route is a route of the device.
"""

from __future__ import annotations

from cni import result
from cni.errors import INVALID_CONFIG, CniError
from cni.net import ipaddr, route
from cni.net.plan import Plan
from ipvlan.port import L2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni.request import Request
    from cni.result import Result

_ADDRESS_BYTES = {2: 4, 10: 16}
_LEAST_IPV6_MTU = 1280


class Layout:
    """What ADD sets and CHECK wants.

    mode       the kernel's number
    addresses  (packed, prefix length)
    gateways   packed, by address family; none in l3
    routes     (network packed, prefix length, gateway packed or empty, JSON object of the IPAM result)
    """

    __slots__ = ("_ips", "addresses", "gateways", "mode", "routes")

    def __init__(self, mode: int, allotted: Result) -> None:
        self.mode = mode
        self._ips = allotted.ips
        self.addresses = [ipaddr.parse_cidr(ip["address"], "ips.address") for ip in allotted.ips]
        self.gateways = gateways_of(allotted) if mode == L2 else {}
        self.routes: list[tuple[bytes, int, bytes, dict[str, Any]]] = []
        for said in allotted.routes:
            network, prefix_length = ipaddr.parse_cidr(said["dst"], "routes.dst")
            if ipaddr.family_of(network) in self.families:
                network = ipaddr.network_of(network, prefix_length)
                self.routes.append((network, prefix_length, self._gateway_of(network, said), said))
        if mode != L2:
            self._add_missing_defaults()

    @property
    def families(self) -> set[int]:
        return {ipaddr.family_of(packed) for packed, _ in self.addresses}

    def _gateway_of(self, network: bytes, said: dict[str, Any]) -> bytes:
        if self.mode != L2:
            return b""
        if said.get("gw"):
            return ipaddr.parse_address(said["gw"], "routes.gw")
        return self.gateways.get(ipaddr.family_of(network), b"")

    def _add_missing_defaults(self) -> None:
        """A pod in l3 reaches nothing at all without a route, and there is only one that it could mean."""
        served = {ipaddr.family_of(network) for network, _, _, _ in self.routes}
        for family in sorted(self.families - served):
            self.routes.append((bytes(_ADDRESS_BYTES[family]), 0, b"", {}))

    def plan(self) -> Plan:
        plan = Plan()
        plan.addresses = self.addresses
        for network, prefix_length, gateway, said in self.routes:
            plan.add_route(network, prefix_length, gateway, **_options_of(said, gateway))
        return plan

    def describe(self, outcome: Result, interface: int) -> None:
        """Add addresses and routes to the result of ADD, as they were set."""
        for ip in self._ips:
            shown = {**ip, "interface": interface}
            if self.mode != L2:
                shown.pop("gateway", None)
            outcome.ips.append(shown)
        for network, prefix_length, gateway, said in self.routes:
            shown = {**said, "dst": f"{ipaddr.text_of(network)}/{prefix_length}"}
            shown.pop("gw", None)
            if gateway:
                shown["gw"] = ipaddr.text_of(gateway)
            outcome.routes.append(shown)

    def refuse_mtu(self, mtu: int) -> None:
        """The kernel has no IPv6 on a device below the least MTU of IPv6 (RFC 8200, section 5)."""
        if 10 in self.families and mtu < _LEAST_IPV6_MTU:
            raise CniError(INVALID_CONFIG, f"mtu: {mtu} is less than the {_LEAST_IPV6_MTU} that IPv6 needs")

    def refuse_subnets(self, master: str, subnets: list[tuple[bytes, int]]) -> None:
        """In l3 and l3s nobody answers ARP for the pod, so the NIC's own network would never find it."""
        if self.mode == L2:
            return
        for packed, _ in self.addresses:
            for network, prefix_length in subnets:
                if ipaddr.contains(network, prefix_length, packed):
                    where = f"{ipaddr.text_of(ipaddr.network_of(network, prefix_length))}/{prefix_length}"
                    raise CniError(
                        INVALID_CONFIG,
                        f"ipam: {ipaddr.text_of(packed)} is in {where}, the network of master {master} itself, where "
                        "nobody finds an l3 or l3s pod; give the pods a network that is routed to this node, or use l2",
                    )


def gateways_of(allotted: Result) -> dict[int, bytes]:
    """The first gateway of each address family."""
    found: dict[int, bytes] = {}
    for ip in allotted.ips:
        if ip.get("gateway"):
            packed = ipaddr.parse_address(ip["gateway"], "ips.gateway")
            found.setdefault(ipaddr.family_of(packed), packed)
    return found


def _options_of(said: dict[str, Any], gateway: bytes) -> dict[str, Any]:
    """The optional keys of spec 1.1.0's routes[]; absent or null is the kernel's default, 0 is a table."""
    options = {key: said[key] for key in ("mtu", "advmss", "priority", "table", "scope") if said.get(key) is not None}
    scope = route.SCOPE_UNIVERSE if gateway else route.SCOPE_LINK
    return {"protocol": route.PROTO_BOOT, "scope": scope, **options}


def of_final(mode: int, final: Result, request: Request) -> Layout:
    """The layout that ADD made, read from the chain's final result, to which later plugins may have added theirs."""
    ours = result.empty()
    addresses = final.addresses_of(request.ifname, request.netns)
    ours.ips = [ip for ip in final.ips if ip["address"] in addresses]
    if not ours.ips:
        raise CniError(INVALID_CONFIG, f"prevResult.ips: none is on {request.ifname} in {request.netns}")
    bare = Layout(mode, ours)
    ours.routes = [said for said in final.routes if _is_ours(bare, said)]
    return Layout(mode, ours)


def _is_ours(bare: Layout, said: dict[str, Any]) -> bool:
    """By the form that ADD gives to its routes: with a gateway on the pod's own network, or in l3 with none."""
    gateway = ipaddr.parse_address(said["gw"], "prevResult.routes.gw") if said.get("gw") else b""
    if not gateway:
        network, _ = ipaddr.parse_cidr(said["dst"], "prevResult.routes.dst")
        return ipaddr.family_of(network) not in bare.gateways
    return bare.mode == L2 and any(ipaddr.contains(network, length, gateway) for network, length in bare.addresses)
