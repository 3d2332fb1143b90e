# SPDX-License-Identifier: Apache-2.0
"""What the two ends of a pod's veth must have.

The pod has /32 and /128 addresses and sends everything to a link-local gateway; the host has a route to each address.
All neighbours are permanent: there is no ARP, no ND and no bridge between a pod and its node.
"""

from __future__ import annotations

from cni.identity import Attachment
from cni.net import ipaddr, route
from cni.net.plan import Plan
from cni.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GATEWAY = {2: bytes((169, 254, 1, 1)), 10: bytes.fromhex("fe800000000000000000000000000001")}
"""By address family. Link-local, so that no address of the pods' network is spent on it, and the same on every node."""
_HOST_END, _POD_END = 0, 1


class Wire:
    """addresses: the pod's, packed. routes: of the IPAM result, (network packed, prefix length, JSON object), in the
    families of the addresses."""

    __slots__ = ("addresses", "host_mac", "pod_mac", "routes")

    def __init__(self, attachment: Attachment, allotted: Result) -> None:
        self.host_mac = attachment.mac(_HOST_END)
        self.pod_mac = attachment.mac(_POD_END)
        self.addresses = [ipaddr.parse_cidr(ip["address"], "ips.address")[0] for ip in allotted.ips]
        said = [(*ipaddr.parse_cidr(r["dst"], "routes.dst"), r) for r in allotted.routes]
        # IPAM's configuration may list both families' routes for a pod that got an address of one.
        self.routes = [route for route in said if ipaddr.family_of(route[0]) in self.families]
        for family in self.families:
            if not any(ipaddr.family_of(network) == family for network, _, _ in self.routes):
                self.routes.append((bytes(len(GATEWAY[family])), 0, {}))

    @property
    def families(self) -> set[int]:
        return {ipaddr.family_of(packed) for packed in self.addresses}

    def pod_plan(self) -> Plan:
        plan = Plan()
        plan.addresses = [(packed, 8 * len(packed)) for packed in self.addresses]
        for family in sorted(self.families):
            gateway = GATEWAY[family]
            plan.neighbours[gateway] = self.host_mac
            plan.add_route(gateway, 8 * len(gateway), scope=route.SCOPE_LINK, protocol=route.PROTO_BOOT)
        for network, prefix_length, said in self.routes:
            gateway = GATEWAY[ipaddr.family_of(network)]
            plan.add_route(ipaddr.network_of(network, prefix_length), prefix_length, gateway, **_options_of(said))
        return plan

    def host_plan(self) -> Plan:
        plan = Plan()
        for packed in self.addresses:
            plan.neighbours[packed] = self.pod_mac
            plan.add_route(packed, 8 * len(packed), scope=route.SCOPE_LINK)
        return plan

    def describe(self, result: Result, pod_interface: int) -> None:
        """Add addresses and routes to the result of ADD."""
        for packed in self.addresses:
            gateway = ipaddr.text_of(GATEWAY[ipaddr.family_of(packed)])
            address = f"{ipaddr.text_of(packed)}/{8 * len(packed)}"
            result.ips.append({"address": address, "gateway": gateway, "interface": pod_interface})
        for network, prefix_length, said in self.routes:
            gateway = ipaddr.text_of(GATEWAY[ipaddr.family_of(network)])
            result.routes.append({**said, "dst": f"{ipaddr.text_of(network)}/{prefix_length}", "gw": gateway})


def _options_of(said: dict[str, Any]) -> dict[str, Any]:
    """The optional keys of spec 1.1.0's routes[]; absent or null is the kernel's default, 0 is a table."""
    options = {key: said[key] for key in ("mtu", "advmss", "priority", "table", "scope") if said.get(key) is not None}
    return {"protocol": route.PROTO_BOOT, **options}
