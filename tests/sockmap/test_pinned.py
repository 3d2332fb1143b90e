# SPDX-License-Identifier: Apache-2.0
"""bpf/sockets.py: programs are attached, found missing, replaced and taken away under open connections."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from bpf import bpffs, sockets
from cni import files
from cni.errors import CniError
from tests.lab.node import Node
from tests.sockmap import pinned
from tests.sockmap.attached import CHECKOUT


@pytest.fixture
def node() -> Iterator[Node]:
    with Node.create("sockmap-life") as made:
        yield made


@pytest.mark.needs("sockmap")
@pytest.mark.parametrize("scenario", [found.__name__ for found in pinned.SCENARIOS])
def test_the_pinned_programs(node: Node, scenario: str) -> None:
    """The scenario says it; its failure is in the message."""
    node.run([sys.executable, "-m", "tests.sockmap.pinned", scenario], env={"PYTHONPATH": str(CHECKOUT)})


@pytest.mark.parametrize(
    "lines, point",
    [
        (b"30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw", "/sys/fs/cgroup"),
        (
            b"30 1 0:26 / /hidden rw - cgroup2 cgroup2 rw\n31 1 0:27 / /hidden rw - tmpfs tmpfs rw\n"
            b"32 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
            "/sys/fs/cgroup",
        ),
        (
            b"30 1 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 none rw",
            "/sys/fs/cgroup/unified",
        ),
        (
            b"30 1 0:26 /a /mnt rw - cgroup2 none rw\n31 1 0:26 / /sys/fs/cgroup rw master:1 - cgroup2 none rw",
            "/sys/fs/cgroup",
        ),
    ],
)
def test_the_root_cgroup_is_where_all_of_it_is_mounted(
    monkeypatch: pytest.MonkeyPatch, lines: bytes, point: str
) -> None:
    monkeypatch.setattr(files, "read", lambda _: lines)
    monkeypatch.setattr(bpffs, "exists", lambda path: path == f"{point}/cgroup.controllers")
    assert sockets.root_cgroup() == point


def test_a_node_without_cgroup_v2_is_told_what_to_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "read", lambda _: b"30 1 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw")
    with pytest.raises(CniError, match="mount -t cgroup2"):
        sockets.root_cgroup()
