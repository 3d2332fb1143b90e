# SPDX-License-Identifier: Apache-2.0
"""bpf.pins: pure paths, and nothing is removed outside our own."""

from __future__ import annotations

import ast
import posix
from pathlib import Path

import pytest

from bpf import bpffs, pins

OURS = ["/sys/fs/bpf/bypath/snat/links/nic_in-2", "/sys/fs/bpf/bypath/x", "/run/bypath/clsact-2"]
NOT_OURS = [
    "/sys/fs/bpf/cilium",
    "/sys/fs/bpf/bypath",
    "/sys/fs/bpf/bypath2/x",
    "/run/bypath-other",
    "/etc/passwd",
    "",
    "/sys/fs/bpf/bypath/../cilium",
    "/sys/fs/bpf/bypath/snat/..",
    "/run/bypath/../x",
    "bypath/x",
    "x/sys/fs/bpf/bypath/y",
]


def test_paths_are_those_that_operators_are_told() -> None:
    assert pins.directory("snat") == "/sys/fs/bpf/bypath/snat"
    assert pins.pin("snat", "flows") == "/sys/fs/bpf/bypath/snat/flows"
    assert pins.link("snat", "nic_in", "2") == "/sys/fs/bpf/bypath/snat/links/nic_in-2"
    assert pins.links_directory("snat") == "/sys/fs/bpf/bypath/snat/links"


def test_a_links_name_tells_its_program_and_has_no_dot_which_bpffs_refuses() -> None:
    path = pins.link("bandwidth-edt", "edt_pod_out", "0255ddb5646")
    assert pins.program_of_link(path.rpartition("/")[2]) == "edt_pod_out"
    assert "." not in path


def test_paths_are_computed_without_a_single_import() -> None:
    tree = ast.parse(Path(pins.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [ast.unparse(node) for node in imports] == ["from __future__ import annotations"]


@pytest.mark.parametrize("path", OURS)
def test_what_is_below_our_roots_is_ours(path: str) -> None:
    assert pins.is_ours(path)


@pytest.mark.parametrize("path", NOT_OURS)
def test_nothing_outside_our_roots_is_ever_removed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    monkeypatch.setattr(posix, "unlink", removed.append)
    with pytest.raises(ValueError, match="refusing to remove"):
        bpffs.unlink(path)
    assert removed == []


def test_removing_a_pin_that_is_gone_is_fine() -> None:
    bpffs.unlink("/run/bypath/no-such-file-of-any-test")
