# SPDX-License-Identifier: Apache-2.0
"""What one interface must have. ADD applies a plan, CHECK compares the same plan with the kernel."""

from __future__ import annotations

from . import address, ipaddr, neighbour, route
from .netlink import Message, Socket
from .route import Options

TYPE_CHECKING = False


class PlannedRoute:
    """network and gateway packed; an empty gateway means that the network is on the link."""

    __slots__ = ("gateway", "network", "options", "prefix_length")

    def __init__(self, network: bytes, prefix_length: int, gateway: bytes, options: Options) -> None:
        self.network = network
        self.prefix_length = prefix_length
        self.gateway = gateway
        self.options = options

    @property
    def text(self) -> str:
        return f"{ipaddr.text_of(self.network)}/{self.prefix_length}"


class Plan:
    """addresses: (packed, prefix length); neighbours: packed address -> MAC, permanent."""

    __slots__ = ("addresses", "neighbours", "routes")

    def __init__(self) -> None:
        self.addresses: list[tuple[bytes, int]] = []
        self.routes: list[PlannedRoute] = []
        self.neighbours: dict[bytes, bytes] = {}

    def add_route(self, network: bytes, prefix_length: int, gateway: bytes = b"", **options: object) -> None:
        self.routes.append(PlannedRoute(network, prefix_length, gateway, Options(**options)))  # type: ignore[arg-type]

    def messages(self, index: int) -> tuple[Message, ...]:
        """In the order in which the kernel can take them: a gateway must be reachable when its route comes."""
        return (
            *(address.new(index, packed, length) for packed, length in self.addresses),
            *(neighbour.new_permanent(index, packed, mac) for packed, mac in self.neighbours.items()),
            *(route.new(r.network, r.prefix_length, index, r.gateway, r.options) for r in self.routes),
        )

    def faults(self, socket: Socket, index: int) -> list[str]:
        """What is missing or differs, as ends of sentences. What others added to the interface is no fault."""
        found = address.list_of(socket, index)
        faults = [
            f"has no address {ipaddr.text_of(packed)}/{length}"
            for packed, length in self.addresses
            if (packed, length) not in found
        ]
        for family in {ipaddr.family_of(r.network) for r in self.routes}:
            faults += self._route_faults(socket, index, family)
        for family in {ipaddr.family_of(packed) for packed in self.neighbours}:
            known = neighbour.permanent_of(socket, family, index)
            faults += [
                f"has no permanent neighbour {ipaddr.text_of(packed)} at {mac.hex(':')}"
                for packed, mac in self.neighbours.items()
                if ipaddr.family_of(packed) == family and known.get(packed) != mac
            ]
        return faults

    def _route_faults(self, socket: Socket, index: int, family: int) -> list[str]:
        found = [(r.network, r.prefix_length, r.gateway, r.table) for r in route.list_of(socket, family, index)]
        return [
            f"has no route {r.text}" + (f" via {ipaddr.text_of(r.gateway)}" if r.gateway else "")
            for r in self.routes
            if ipaddr.family_of(r.network) == family
            and (r.network, r.prefix_length, r.gateway, r.options.table or route.TABLE_MAIN) not in found
        ]
