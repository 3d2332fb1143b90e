# SPDX-License-Identifier: Apache-2.0
"""Walking through maps by BPF_MAP_LOOKUP_BATCH."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bpf import command
from tests.progs.run import possible_cpus

pytestmark = pytest.mark.feature("maps")

ARRAY, PERCPU_HASH, LRU_HASH = 2, 5, 9
COUNT = 1500


def made(kind: int, value_bytes: int, flags: int = 0) -> Iterator[int]:
    descriptor = command.map_create(kind, 4, value_bytes, COUNT, flags, "walked")
    yield descriptor
    os.close(descriptor)


@pytest.fixture(params=[command.F_NO_PREALLOC, 0], ids=["as pods come", "preallocated"])
def table(request: pytest.FixtureRequest) -> Iterator[int]:
    yield from made(command.MAP_TYPE_HASH, 536, request.param)


def value(number: int, size: int = 536) -> bytes:
    return number.to_bytes(4, "little") * (size // 4)


def key(number: int) -> bytes:
    return number.to_bytes(4, "little")


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, COUNT])
@pytest.mark.parametrize("room", [1, 256])
def test_every_element_comes_once(table: int, count: int, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a bucket of the hash has more elements than there is room for."""
    monkeypatch.setattr(command, "_BATCH", room)
    for number in range(count):
        command.update(table, key(number), value(number))
    assert sorted(command.items(table, 4, 536)) == sorted((key(number), value(number)) for number in range(count))


def test_elements_that_go_meanwhile_hide_no_other(table: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_BATCH", 16)
    for number in range(COUNT):
        command.update(table, key(number), value(number))
    seen, gone = [], set()
    for found, _ in command.items(table, 4, 536):
        seen.append(found)
        odd = int.from_bytes(found, "little") | 1
        if odd < COUNT and odd not in gone:
            command.delete(table, key(odd))
            gone.add(odd)
    assert len(seen) == len(set(seen))
    assert set(seen) >= {key(number) for number in range(0, COUNT, 2)}


def test_an_array_comes_in_order() -> None:
    for table in made(ARRAY, 20):
        command.update(table, key(7), value(7, 20))
        found = list(command.items(table, 4, 20))
        assert [each for each, _ in found] == [key(number) for number in range(COUNT)]
        assert [content for _, content in found if any(content)] == [value(7, 20)] and found[7][1] == value(7, 20)


@pytest.mark.parametrize("kind, values", [(PERCPU_HASH, possible_cpus()), (LRU_HASH, 1)], ids=["per CPU", "LRU"])
def test_other_hashes_are_walked_as_well(kind: int, values: int) -> None:
    for table in made(kind, 24):
        for number in range(300):
            command.update(table, key(number), value(number, 24) * values)
        found = dict(command.items(table, 4, 24 * values))
        assert len(found) >= (300 if kind == PERCPU_HASH else 1)
        assert all(content == value(int.from_bytes(each, "little"), 24) * values for each, content in found.items())
