# SPDX-License-Identifier: Apache-2.0
"""The Success result of ADD in every supported spec version, and prevResult, which is the same document.

Objects stay the JSON dicts that they were, so that keys of other plugins, known to us or not, survive the chain.
Differences between versions: ips[].version is required up to 0.4.0 and forbidden from 1.0.0 on; interfaces[].mtu and
routes[].mtu/advmss/priority/table/scope came with 1.1.0.
"""

from __future__ import annotations

from .errors import INVALID_CONFIG, CniError
from .net import ipaddr
from .verbs import is_at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .netconf import NetConf


_U32 = 0xFFFFFFFF
_ROUTE_NUMBERS = {"mtu": _U32, "advmss": _U32, "priority": _U32, "table": _U32, "scope": 255}


class Result:
    """A result under construction, or the chain's so far.

    interfaces, ips, routes  lists of JSON objects as in the spec, without ips[].version
    dns                      JSON object, empty when there is nothing to say
    extra                    every other top-level key, kept as it was
    """

    __slots__ = ("dns", "extra", "interfaces", "ips", "routes")

    def __init__(self) -> None:
        self.interfaces: list[dict[str, Any]] = []
        self.ips: list[dict[str, Any]] = []
        self.routes: list[dict[str, Any]] = []
        self.dns: dict[str, Any] = {}
        self.extra: dict[str, Any] = {}

    def add_interface(self, name: str, mac: str, sandbox: str, mtu: int) -> int:
        """Append one interface and return its index. An empty sandbox is the host's side."""
        interface: dict[str, Any] = {"name": name, "mac": mac, "mtu": mtu}
        if sandbox:
            interface["sandbox"] = sandbox
        self.interfaces.append(interface)
        return len(self.interfaces) - 1

    def addresses_of(self, ifname: str, sandbox: str) -> list[str]:
        """The CIDR texts of `ips` that sit on this interface; those without an index belong to every one."""
        found = []
        for ip in self.ips:
            index = ip.get("interface")
            if index is None or self._is(index, ifname, sandbox):
                found.append(ip["address"])
        return found

    def _is(self, index: int, ifname: str, sandbox: str) -> bool:
        interface = self.interfaces[index]
        return bool(interface.get("name") == ifname and interface.get("sandbox", "") == sandbox)

    def host_interfaces(self) -> list[str]:
        """Names of the interfaces that are not in a sandbox, such as the host's end of a veth."""
        return [interface["name"] for interface in self.interfaces if not interface.get("sandbox")]

    def render(self, version: str) -> dict[str, Any]:
        """The JSON object for stdout in one spec version."""
        document: dict[str, Any] = {"cniVersion": version}
        modern = is_at_least(version, "1.1.0")
        if self.interfaces:
            document["interfaces"] = self.interfaces if modern else [_without_mtu(i) for i in self.interfaces]
        if self.ips:
            document["ips"] = self.ips if is_at_least(version, "1.0.0") else [_with_family(ip) for ip in self.ips]
        if self.routes:
            document["routes"] = self.routes
        if self.dns:
            document["dns"] = self.dns
        document.update(self.extra)
        return document


def _without_mtu(interface: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in interface.items() if key != "mtu"}


def _with_family(ip: dict[str, Any]) -> dict[str, Any]:
    return {"version": "6" if ":" in ip["address"] else "4", **ip}


def empty() -> Result:
    return Result()


def of_prev(conf: NetConf) -> Result | None:
    """The prevResult of a configuration, checked, or None when there is none."""
    return None if conf.prev_result is None else parse(conf.prev_result, "prevResult")


def required_prev(conf: NetConf) -> Result:
    """The prevResult of a chained plugin, which cannot do without."""
    previous = of_prev(conf)
    if previous is None:
        raise CniError(
            INVALID_CONFIG,
            f"prevResult: missing; {conf.type} is chained, so its place is behind the plugin that makes the interface",
        )
    return previous


def parse(document: dict[str, Any], what: str) -> Result:
    """Read a result of any supported version. Raises CniError(INVALID_CONFIG) with the place of the fault."""
    result = Result()
    for key, value in document.items():
        if key in ("interfaces", "ips", "routes"):
            setattr(result, key, _objects(what, key, value))
        elif key == "dns":
            if not isinstance(value, dict):
                raise CniError(INVALID_CONFIG, f"{what}.dns: must be an object")
            result.dns = value
        elif key != "cniVersion":
            result.extra[key] = value
    for place, interface in enumerate(result.interfaces):
        if not isinstance(interface.get("name"), str):
            raise CniError(INVALID_CONFIG, f"{what}.interfaces[{place}].name: must be a string")
    for place, ip in enumerate(result.ips):
        _check_ip(f"{what}.ips[{place}]", ip, len(result.interfaces))
        ip.pop("version", None)
    for place, route in enumerate(result.routes):
        _check_route(f"{what}.routes[{place}]", route)
    return result


def _objects(what: str, key: str, value: object) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise CniError(INVALID_CONFIG, f"{what}.{key}: must be a list of objects")
    return [dict(entry) for entry in value]


def _check_ip(place: str, ip: dict[str, Any], interfaces: int) -> None:
    address = ip.get("address")
    if not isinstance(address, str):
        raise CniError(INVALID_CONFIG, f"{place}.address: must be an address with a prefix length")
    ipaddr.parse_cidr(address, f"{place}.address")
    gateway = ip.get("gateway")
    if gateway:
        ipaddr.parse_address(gateway, f"{place}.gateway")
    elif gateway is not None:
        del ip["gateway"]
    index = ip.get("interface")
    if index is not None and (type(index) is not int or not 0 <= index < interfaces):
        raise CniError(INVALID_CONFIG, f"{place}.interface: {index!r} is not an index into interfaces")


def _check_route(place: str, route: dict[str, Any]) -> None:
    destination = route.get("dst")
    if not isinstance(destination, str):
        raise CniError(INVALID_CONFIG, f"{place}.dst: must be a network such as 0.0.0.0/0")
    ipaddr.parse_cidr(destination, f"{place}.dst")
    if route.get("gw"):
        ipaddr.parse_address(route["gw"], f"{place}.gw")
    for key, highest in _ROUTE_NUMBERS.items():
        value = route.get(key)
        if value is not None and (type(value) is not int or not 0 <= value <= highest):
            raise CniError(INVALID_CONFIG, f"{place}.{key}: {value!r:.40} is not a whole number from 0 to {highest}")
