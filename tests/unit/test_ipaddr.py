# SPDX-License-Identifier: Apache-2.0
"""cni.net.ipaddr against the ipaddress module, and stricter where a typing error would become another address."""

from __future__ import annotations

import ipaddress
import random

import pytest

from cni.errors import INVALID_CONFIG, CniError
from cni.net import ipaddr


def samples() -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    chance = random.Random(1)
    return [ipaddress.IPv4Address(chance.getrandbits(32)) for _ in range(200)] + [
        ipaddress.IPv6Address(chance.getrandbits(128) >> chance.choice((0, 32, 64, 96))) for _ in range(200)
    ]


def test_addresses_are_packed_and_spelled_as_by_the_ipaddress_module() -> None:
    for address in samples():
        packed = ipaddr.parse_address(str(address), "x")
        assert packed == address.packed
        assert ipaddress.ip_address(ipaddr.text_of(packed)) == address


def test_networks_and_membership_are_those_of_the_ipaddress_module() -> None:
    chance = random.Random(2)
    for address in samples():
        length = chance.randint(0, address.max_prefixlen)
        network = ipaddress.ip_network((address, length), strict=False)
        packed, prefix_length = ipaddr.parse_cidr(f"{address}/{length}", "x")
        assert (packed, prefix_length) == (address.packed, length)
        assert ipaddr.network_of(packed, length) == network.network_address.packed
        for other in (
            network.network_address,
            network.broadcast_address,
            address + 1 if int(address) < 1 << 31 else address,
        ):
            assert ipaddr.contains(network.network_address.packed, length, other.packed) == (other in network)


def test_no_network_contains_an_address_of_the_other_family() -> None:
    assert not ipaddr.contains(bytes(4), 0, bytes(16))
    assert not ipaddr.contains(bytes(16), 0, bytes(4))


def test_the_families_are_the_kernels_numbers() -> None:
    assert (ipaddr.family_of(bytes(4)), ipaddr.family_of(bytes(16))) == (2, 10)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0",
        "010.0.0.1",
        "10.0.0.1 ",
        " 10.0.0.1",
        "10.0.0.256",
        "0x0a.0.0.1",
        "1",
        "::g",
        "fe80::1%eth0",
        ":::",
        "1.2.3.4.5",
        "１0.0.0.1",
        "10.0.0.1\n",
        "10.0.0.1\0",
        None,
        5,
        [],
        b"10.0.0.1",
        "x" * 5000,
    ],
)
def test_what_is_no_address_is_refused_by_the_name_of_its_key(text: object) -> None:
    with pytest.raises(CniError, match=r"^ips\.gateway: ") as failure:
        ipaddr.parse_address(text, "ips.gateway")
    assert failure.value.code == INVALID_CONFIG and len(failure.value.msg) < 200


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1",
        "10.0.0.1/",
        "/24",
        "10.0.0.1/33",
        "::/129",
        "10.0.0.1/-1",
        "10.0.0.1/+8",
        "10.0.0.1/8/8",
        "10.0.0.1/ 8",
        "10.0.0.1/٨",
        "10.0.0.1/0008",
        "10.0.0/8",
        None,
        5,
        {},
        "10.0.0.1/255.0.0.0",
        "10.0.0.1/" + "x" * 5000,
    ],
)
def test_what_is_no_network_is_refused_by_the_name_of_its_key(text: object) -> None:
    with pytest.raises(CniError, match=r"^routes\.dst: ") as failure:
        ipaddr.parse_cidr(text, "routes.dst")
    assert failure.value.code == INVALID_CONFIG and len(failure.value.msg) < 200
