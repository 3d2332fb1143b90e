# SPDX-License-Identifier: Apache-2.0
"""The laboratory's fixtures; everything they make is gone when the test ends, or the test process dies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.fabric import Fabric
from tests.lab.node import Node


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    """A switch, a router and an outside host without nodes."""
    with Fabric.create() as made:
        yield made


@pytest.fixture
def node(fabric: Fabric) -> Node:
    """Node 1 (192.0.2.11) plugged into `fabric`."""
    return fabric.add_node(1)
