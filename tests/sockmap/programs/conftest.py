# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab.node import Node
from tests.lab.residue import difference, remember
from tests.plugins.sockmap_lab import Pod
from tests.sockmap.programs.town import Town


@pytest.fixture(scope="module")
def pods() -> Iterator[tuple[Node, Pod, Pod]]:
    """Two pods of one node, which is as it was when they are gone."""
    with Node.create("programs") as node:
        remember(node)
        made = []
        for name in ("app", "db"):
            node.add_pod_netns(name)
            made.append(Pod(node, name))
        yield node, made[0], made[1]
        for pod in made:
            pod.remove()
            node.del_pod_netns(pod.name)
        assert difference(node) == []


@pytest.fixture
def town(pods: tuple[Node, Pod, Pod], tmp_path: Path) -> Iterator[Town]:
    """Both pods accelerated, without exceptions; what the test starts in them is ended with it."""
    node, app, db = pods
    for pod in (app, db):
        pod.add()
    with ExitStack() as stack:
        yield Town(node, app, db, stack, tmp_path)
