# SPDX-License-Identifier: Apache-2.0
"""cni.result: one document in five spec versions, and nothing of other plugins is lost on the way."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cni import result
from cni.errors import INVALID_CONFIG, CniError
from cni.netconf import NetConf
from cni.verbs import SUPPORTED_VERSIONS, is_at_least

NETNS = "/run/netns/p"
DOCUMENT: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "interfaces": [
        {"name": "bp0", "mac": "0a:00:00:00:00:01"},
        {"name": "eth0", "sandbox": NETNS, "socketPath": "/run/s", "pciID": "0000:00:1f.6", "example.com/x": [1]},
    ],
    "ips": [
        {"address": "10.0.0.5/24", "gateway": "10.0.0.1", "interface": 1, "label": "first"},
        {"address": "fd00::5/64", "interface": 1},
        {"address": "10.0.0.6/32"},
    ],
    "routes": [
        {"dst": "0.0.0.0/0", "gw": "10.0.0.1", "table": 0, "scope": 0, "priority": 0, "colour": "red"},
        {"dst": "::/0"},
    ],
    "dns": {"nameservers": ["10.0.0.10"], "search": []},
    "example.com/top": {"deep": [None]},
}


def of(document: dict[str, Any]) -> result.Result:
    return result.parse(copy.deepcopy(document), "prevResult")


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_every_key_survives_the_way_in_and_out(version: str) -> None:
    expected = {**copy.deepcopy(DOCUMENT), "cniVersion": version}
    if not is_at_least(version, "1.0.0"):
        for ip, family in zip(expected["ips"], ("4", "6", "4"), strict=True):
            ip["version"] = family
    assert of(DOCUMENT).render(version) == expected


@pytest.mark.parametrize("version_in", ["0.3.0", "0.4.0"])
@pytest.mark.parametrize("version_out", SUPPORTED_VERSIONS)
def test_the_family_of_an_old_results_address_is_said_only_in_old_results(version_in: str, version_out: str) -> None:
    old = {"cniVersion": version_in, "ips": [{"version": "4", "address": "10.0.0.5/24"}]}
    ip = of(old).render(version_out)["ips"][0]
    assert ("version" in ip) is not is_at_least(version_out, "1.0.0")


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_an_interfaces_mtu_is_said_from_1_1_0_on(version: str) -> None:
    made = result.empty()
    assert made.add_interface("bp0", "0a:00:00:00:00:01", "", 1400) == 0
    assert made.add_interface("eth0", "0a:01:00:00:00:01", NETNS, 1400) == 1
    interfaces = made.render(version)["interfaces"]
    assert [interface.get("mtu") for interface in interfaces] == [1400 if version == "1.1.0" else None] * 2
    assert "sandbox" not in interfaces[0] and interfaces[1]["sandbox"] == NETNS


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_an_empty_result_says_its_version_and_nothing_else(version: str) -> None:
    assert result.empty().render(version) == {"cniVersion": version}
    assert of({"cniVersion": version, "dns": {}, "ips": None, "routes": []}).render(version) == {"cniVersion": version}


def test_rendering_changes_nothing_of_the_result() -> None:
    made = of(DOCUMENT)
    first = made.render("1.1.0")
    made.render("0.3.1")
    assert made.render("1.1.0") == first == DOCUMENT


def test_an_empty_gateway_is_left_out() -> None:
    assert "gateway" not in of({"ips": [{"address": "10.0.0.5/24", "gateway": ""}]}).ips[0]


def test_addresses_are_found_by_interface_name_and_sandbox() -> None:
    made = of(DOCUMENT)
    assert made.addresses_of("eth0", NETNS) == ["10.0.0.5/24", "fd00::5/64", "10.0.0.6/32"]
    assert made.addresses_of("eth0", "/run/netns/other") == ["10.0.0.6/32"]
    assert made.addresses_of("bp0", "") == ["10.0.0.6/32"]
    assert made.host_interfaces() == ["bp0"]


@pytest.mark.parametrize(
    ("place", "document"),
    [
        ("prevResult.interfaces", {"interfaces": {}}),
        ("prevResult.interfaces", {"interfaces": ["eth0"]}),
        ("prevResult.interfaces[0].name", {"interfaces": [{}]}),
        ("prevResult.interfaces[1].name", {"interfaces": [{"name": "a"}, {"name": 5}]}),
        ("prevResult.ips", {"ips": "10.0.0.5/24"}),
        ("prevResult.ips[0].address", {"ips": [{}]}),
        ("prevResult.ips[0].address", {"ips": [{"address": "10.0.0.5"}]}),
        ("prevResult.ips[0].address", {"ips": [{"address": "10.0.0.5/33"}]}),
        ("prevResult.ips[0].gateway", {"ips": [{"address": "10.0.0.5/24", "gateway": "here"}]}),
        ("prevResult.ips[0].interface", {"ips": [{"address": "10.0.0.5/24", "interface": 0}]}),
        ("prevResult.ips[0].interface", {"interfaces": [{"name": "a"}], "ips": [{"address": "::/0", "interface": -1}]}),
        (
            "prevResult.ips[0].interface",
            {"interfaces": [{"name": "a"}], "ips": [{"address": "::/0", "interface": "0"}]},
        ),
        (
            "prevResult.ips[0].interface",
            {"interfaces": [{"name": "a"}], "ips": [{"address": "::/0", "interface": False}]},
        ),
        ("prevResult.routes", {"routes": [None]}),
        ("prevResult.routes[0].dst", {"routes": [{"gw": "10.0.0.1"}]}),
        ("prevResult.routes[0].dst", {"routes": [{"dst": "default"}]}),
        ("prevResult.routes[1].gw", {"routes": [{"dst": "::/0"}, {"dst": "::/0", "gw": "10.0.0"}]}),
        ("prevResult.routes[0].mtu", {"routes": [{"dst": "::/0", "mtu": "1500"}]}),
        ("prevResult.routes[0].table", {"routes": [{"dst": "::/0", "table": -1}]}),
        ("prevResult.routes[0].priority", {"routes": [{"dst": "::/0", "priority": 1 << 32}]}),
        ("prevResult.routes[0].scope", {"routes": [{"dst": "::/0", "scope": 256}]}),
        ("prevResult.routes[0].advmss", {"routes": [{"dst": "::/0", "advmss": True}]}),
        ("prevResult.dns", {"dns": ["10.0.0.10"]}),
    ],
)
def test_a_malformed_result_is_refused_with_the_place_of_the_fault(place: str, document: dict[str, Any]) -> None:
    with pytest.raises(CniError) as failure:
        of(document)
    assert failure.value.code == INVALID_CONFIG and failure.value.msg.startswith(f"{place}:")


def test_numbers_of_a_route_may_be_null_or_as_large_as_the_kernels() -> None:
    route = {"dst": "::/0", "mtu": None, "table": (1 << 32) - 1, "scope": 255, "priority": 0}
    assert of({"routes": [route]}).render("1.1.0")["routes"] == [route]


def test_no_prev_result_is_told_from_an_empty_chain() -> None:
    base = {"cniVersion": "1.0.0", "name": "pods", "type": "t"}
    assert result.of_prev(NetConf(base)) is None
    found = result.of_prev(NetConf({**base, "prevResult": DOCUMENT}))
    assert found is not None and found.render("1.1.0") == DOCUMENT
