# SPDX-License-Identifier: Apache-2.0
"""cni.identity: an attachment's names are stable, distinct and legal."""

from __future__ import annotations

import string

import pytest

from cni.identity import Attachment, fnv1a_64
from cni.request import Request, fault_of_ifname

MANY = [Attachment(network, f"c{number}", ifname) for network in ("a", "b") for number in range(2000)
        for ifname in ("eth0", "net1")]  # fmt: skip


def test_the_hash_never_changes_between_versions_since_pinned_records_outlive_them() -> None:
    # FNV-1a 64 of "" and of "a" are published; their murmur3 finalisations were computed by hand from these.
    def mixed(value: int) -> int:
        value ^= value >> 33
        value = value * 0xFF51AFD7ED558CCD % (1 << 64)
        return value ^ value >> 33

    assert fnv1a_64("") == mixed(0xCBF29CE484222325)
    assert fnv1a_64("a") == mixed(0xAF63DC4C8601EC8C)
    assert Attachment("pods", "c1", "eth0").device_name("bp") == "bp0255ddb5646"


def test_many_attachments_have_distinct_keys_device_names_and_macs() -> None:
    for names in (
        {attachment.key for attachment in MANY},
        {attachment.device_name("bp") for attachment in MANY},
        {attachment.alias for attachment in MANY},
    ):
        assert len(names) == len(MANY)


def test_moving_a_character_from_one_part_to_the_next_makes_another_attachment() -> None:
    assert Attachment("ab", "c", "eth0").key != Attachment("a", "bc", "eth0").key
    assert Attachment("a", "bc", "eth0").key != Attachment("a", "b", "ceth0").key


@pytest.mark.parametrize("prefix", ["b", "bp", "abcd", "abcdef"])
def test_a_device_name_is_legal_and_as_long_as_it_can_be(prefix: str) -> None:
    name = Attachment("pods", "c1", "eth0").device_name(prefix)
    assert name.startswith(prefix) and set(name[len(prefix) :]) <= set(string.hexdigits)
    assert not fault_of_ifname(name) and len(name) == min(15, len(prefix) + 11)


def test_the_two_ends_have_local_unicast_macs_that_differ() -> None:
    attachment = Attachment("pods", "c1", "eth0")
    assert attachment.mac(0) != attachment.mac(1)
    for mac in attachment.mac(0), attachment.mac(1):
        assert len(mac) == 6 and mac[0] & 0x03 == 0x02


def test_the_alias_names_the_owner_within_the_kernels_limit() -> None:
    assert Attachment("pods", "c1", "eth0").alias == "bypath/pods/c1/eth0"
    assert len(Attachment("n" * 300, "c" * 300, "eth0").alias) == 255


def test_an_attachment_is_that_of_the_request() -> None:
    request = Request("ADD", {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"})
    assert Attachment.of(request, "pods").key == Attachment("pods", "c1", "eth0").key
