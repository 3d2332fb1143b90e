# SPDX-License-Identifier: Apache-2.0
"""The keys of bypath-snat, and which ports are left for it on a node."""

from __future__ import annotations

from typing import Any

import pytest
from snat import ports
from snat.config import Config

from cni.errors import INVALID_CONFIG, CniError
from cni.net import sysctl
from cni.netconf import NetConf

SETTINGS = {"net.ipv4.ip_local_port_range": "32768\t60999", "net.ipv4.ip_local_reserved_ports": ""}


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The sysctls that are read; a default kernel's at first."""
    settings = dict(SETTINGS)
    monkeypatch.setattr(sysctl, "read", settings.get)
    return settings


def config(**keys: Any) -> Config:
    return Config(NetConf({"cniVersion": "1.0.0", "name": "n", "type": "bypath-snat", **keys}))


@pytest.mark.parametrize(
    ("local", "free"),
    [("32768\t60999", (1024, 29999)), ("1024\t29999", (32768, 65535)), ("15000\t65535", (1024, 14999))],
)
def test_the_default_is_the_largest_span_that_neither_sockets_nor_nodeports_use(
    node: dict[str, str], local: str, free: tuple[int, int]
) -> None:
    node["net.ipv4.ip_local_port_range"] = local
    assert ports.configured("") == free


def test_a_node_without_64_free_ports_is_told_so(node: dict[str, str]) -> None:
    node["net.ipv4.ip_local_port_range"] = "1024\t65535"
    with pytest.raises(CniError, match="portRange") as caught:
        ports.configured("")
    assert caught.value.code == INVALID_CONFIG


@pytest.mark.parametrize("text", ["1024", "a-b", "5-4", "0-10", "1-65536", "１-５", "-5", "1024-29999-3", " 1-5"])
def test_a_range_that_is_none_is_refused(node: dict[str, str], text: str) -> None:
    with pytest.raises(CniError, match="portRange") as caught:
        ports.configured(text)
    assert caught.value.code == INVALID_CONFIG


def test_a_range_that_the_nodes_sockets_use_is_refused_unless_it_is_reserved(node: dict[str, str]) -> None:
    with pytest.raises(CniError, match=r"sysctl -w net\.ipv4\.ip_local_reserved_ports=40000-41000"):
        ports.configured("40000-41000")
    node["net.ipv4.ip_local_reserved_ports"] = "8080,40000-41000"
    assert ports.configured("40000-41000") == (40000, 41000)
    assert ports.configured("2000-2063") == (2000, 2063)


def test_networks_lose_their_host_bits_and_repeats_and_ipv6_ones_are_passed_over(node: dict[str, str]) -> None:
    made = config(nonMasqueradeCIDRs=["10.1.2.3/8", "10.0.0.0/8", "fd00::/8"])
    assert made.non_masquerade == [(bytes((10, 0, 0, 0)), 8)]
    assert config(nonMasqueradeCIDRs=[]).non_masquerade == []
    assert len(config().non_masquerade) == 5


@pytest.mark.parametrize(
    "keys",
    [{"uplinks": []}, {"uplinks": ["a/b"]}, {"uplinks": [""]}, {"uplinks": "eth0"},
     {"nonMasqueradeCIDRs": ["10.0.0.0"]}, {"nonMasqueradeCIDRs": ["10.0.0.0/33"]}, {"nonMasqueradeCIDRs": [7]},
     {"portRange": 7}],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_its_key(node: dict[str, str], keys: dict[str, Any]) -> None:
    with pytest.raises(CniError) as caught:
        config(**keys)
    assert caught.value.code == INVALID_CONFIG
    assert caught.value.msg.startswith(f"{next(iter(keys))}:")
