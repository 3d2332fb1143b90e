# SPDX-License-Identifier: Apache-2.0
"""One room for a module's tests, made anew only after a test that left something behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest

from tests.lab import ipam
from tests.lab.residue import difference
from tests.plugins.rooms import Room


class Keeper:
    """Holds the room that the next test is given."""

    def __init__(self, make: Callable[[], AbstractContextManager[Room]] = Room.create) -> None:
        self._make = make
        self._stack = ExitStack()
        self._room: Room | None = None

    def room(self) -> Room:
        if self._room is None:
            self._room = self._stack.enter_context(self._make())
        return self._room

    def discard(self) -> None:
        self._stack.close()
        self._room = None


@pytest.fixture(scope="module")
def keeper() -> Iterator[Keeper]:
    made = Keeper()
    yield made
    made.discard()


@pytest.fixture
def room(keeper: Keeper) -> Iterator[Room]:
    """A clean room, which must be clean again after the test, with all that was in it before."""
    made = keeper.room()
    ipam.forget(made.node)
    yield made
    different = difference(made.node)
    if different:
        keeper.discard()
    assert different == []
