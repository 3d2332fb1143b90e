# SPDX-License-Identifier: Apache-2.0
"""The file that says what a NIC had before: its form, and what becomes of one that is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bandwidth_edt import saved
from bandwidth_edt.saved import Saved

from bpf import pins
from cni.net.link import Link
from cni.net.netlink import attr, attr_text, attr_u32
from cni.net.qdisc import TC_H_ROOT, Qdisc

MAC = bytes.fromhex("020000000001")
QDISCS = [Qdisc(0x10000, TC_H_ROOT, "mq", b""), Qdisc(0x20000, 0x10001, "tbf", bytes(range(40)))]


def device(index: int = 7, mac: bytes = MAC, tx_queues: int = 4, name: str = "eth0") -> Link:
    header = b"\0\0\1\0" + index.to_bytes(4, "little") + bytes(8)
    return Link(header + attr(1, mac) + attr_text(3, name) + attr_u32(31, tx_queues))


def fields(found: Saved | None) -> Any:
    assert found
    told = [(each.handle, each.parent, each.kind, each.options) for each in found.qdiscs or []]
    return found.hooked, found.qdiscs is None, told, found.left_at_sec


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pins, "RUN", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("kept", [Saved(True, QDISCS), Saved(False, [], 123), Saved(True, None, None)])
def test_what_is_written_is_read_again(run: Path, kept: Saved) -> None:
    saved.write(device(), kept)
    assert fields(saved.read(device())) == fields(kept)
    assert saved.indexes() == [7]
    assert [path.name for path in run.iterdir()] == ["qdiscs-7"]
    saved.forget(7)
    assert (saved.indexes(), saved.read(device())) == ([], None)
    saved.forget(7)


def test_the_file_can_be_read_by_people(run: Path) -> None:
    saved.write(device(), Saved(True, QDISCS, 5))
    said = json.loads((run / "qdiscs-7").read_text())
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert said == {
        "boot": boot, "ifindex": 7, "mac": "020000000001", "tx_queues": 4, "name": "eth0", "hooked": True,
        "qdiscs": [[0x10000, TC_H_ROOT, "mq", ""], [0x20000, 0x10001, "tbf", bytes(range(40)).hex()]],
        "left_at_sec": 5,
    }  # fmt: skip


@pytest.mark.parametrize("other", [device(8), device(mac=bytes(6)), device(tx_queues=1)], ids=["index", "mac", "tx"])
def test_a_file_of_another_device_counts_as_none(other: Link) -> None:
    content = Saved(True, QDISCS).pack(device())
    assert Saved.unpack(content, device(name="renamed"))
    assert Saved.unpack(content, other) is None


def damaged() -> dict[str, bytes]:
    whole = Saved(True, QDISCS, 5).pack(device())
    said = json.loads(whole)
    kinds: dict[str, Any] = {
        "qdiscs": [5, "abcd", [[1, 2, "mq"]], [[1, 2, "", ""]], [[-1, 2, "mq", ""]], [[1, 1 << 32, "mq", ""]],
                   [[1, 2, "mq", "xy"]], [[1, 2, "mq", 5]], [["1", 2, "mq", ""]], [[True, 2, "mq", ""]]],
        "hooked": [None, 1, "yes"], "left_at_sec": ["5", 5.5, True], "boot": ["", None], "ifindex": ["7"],
    }  # fmt: skip
    cases = {f"{key} {value}": {**said, key: value} for key, values in kinds.items() for value in values}
    cases |= {f"without {key}": {k: v for k, v in said.items() if k != key} for key in said if key != "name"}
    texts = {name: json.dumps(case).encode() for name, case in cases.items()}
    shapes = {"empty": b"", "half": whole[: len(whole) // 2], "a list": b"[]", "null": b"null", "not text": b"\xff\xfe"}
    return {**texts, **shapes}


@pytest.mark.parametrize("content", damaged().values(), ids=damaged())
def test_a_damaged_file_counts_as_none(content: bytes) -> None:
    assert Saved.unpack(content, device()) is None


def test_a_file_that_was_never_finished_is_seen_and_forgotten(run: Path) -> None:
    (run / "qdiscs-9.new").write_bytes(b"{")
    (run / "clsact-3").touch()
    assert saved.indexes() == [9]
    assert saved.read(device(9)) is None
    saved.forget(9)
    assert [path.name for path in run.iterdir()] == ["clsact-3"]


def test_a_write_that_stops_half_way_leaves_the_file_as_it_was(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved.write(device(), Saved(True, QDISCS))
    (run / "qdiscs-7.new").write_bytes(b'{"boot"')
    assert fields(saved.read(device())) == fields(Saved(True, QDISCS))
    saved.write(device(), Saved(False, None))
    assert fields(saved.read(device())) == (False, True, [], None)
