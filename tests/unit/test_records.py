# SPDX-License-Identifier: Apache-2.0
"""bpf.records: what is packed into a record comes out again, and GC knows what is stale."""

from __future__ import annotations

from typing import Any, cast

import pytest

from bpf import records
from bpf.records import Record, Records
from cni.identity import Attachment, fnv1a_64
from cni.netconf import NetConf

BASE: dict[str, Any] = {"cniVersion": "1.1.0", "name": "pods", "type": "t"}
V4, V6 = bytes((10, 0, 0, 5)), bytes.fromhex("fd00" + "00" * 13 + "05")


def fields(record: Record) -> dict[str, object]:
    return {name: getattr(record, name) for name in Record.__slots__}


@pytest.mark.parametrize(
    "record",
    [
        Record(),
        Record(
            container_id="c" * 127, netns_inode=1 << 63, netns_path="/" + "p" * 206, ifname="é" * 7, host_name="b" * 15
        ),
        Record(
            pod_ifindex=0xFFFFFFFF, host_ifindex=2, number=0xFFFFFFFFFFFFFFFF, addresses=[V4, V6, bytes(4), bytes(16)]
        ),
        Record(addresses=[bytes((10, 0, 0, number)) for number in range(8)]),
    ],
)
def test_a_record_comes_out_as_it_was_packed(record: Record) -> None:
    assert fields(Record.unpack(record.pack())) == fields(record)


def test_a_record_has_one_size_whatever_is_in_it() -> None:
    assert len({len(Record(container_id="c" * n, netns_path="p" * n).pack()) for n in (0, 1, 127, 5000)}) == 1


def test_what_does_not_fit_is_left_out_and_never_cut_short() -> None:
    found = Record.unpack(Record(container_id="c" * 128, netns_path="p" * 208, addresses=[V4] * 9).pack())
    assert (found.container_id, found.netns_path, found.addresses) == ("", "", [V4] * 8)


class Kept:
    """Records without a kernel: (network key, attachment key) -> record."""

    def __init__(self, *attachments: Attachment) -> None:
        self.attachments = attachments

    def of_network(self, network_key: int) -> list[tuple[int, Record]]:
        return [(a.key, Record(container_id=a.container_id)) for a in self.attachments if a.network_key == network_key]


def unlisted(conf: dict[str, Any]) -> list[str]:
    kept = Kept(*(Attachment(network, name, "eth0") for network in ("pods", "other") for name in ("c1", "c2")))
    return [record.container_id for _, record in records.unlisted(cast(Records, kept), NetConf({**BASE, **conf}))]


def test_only_unlisted_attachments_of_the_same_network_are_stale() -> None:
    assert unlisted({"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}) == ["c2"]
    assert unlisted({"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "net1"}]}) == ["c1", "c2"]
    assert unlisted({"cni.dev/valid-attachments": []}) == ["c1", "c2"]


def test_without_a_list_nothing_is_stale() -> None:
    assert unlisted({}) == []


def test_the_networks_key_is_part_of_the_records_key() -> None:
    attachment = Attachment("pods", "c1", "eth0")
    assert attachment.network_key == fnv1a_64("pods") != attachment.key
