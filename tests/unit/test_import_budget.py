# SPDX-License-Identifier: Apache-2.0
"""What each verb imports: an import is what a pod waits for.

Two looks at it. The source is read for every import at any depth, so that no verb of no plugin escapes, whatever the
running kernel can do; and the verbs of host-gw, which work on every kernel, are run with each import on record.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.executable import REFERENCE, REPO, attachment
from tests.lab.node import Node

NOT_HOT = frozenset((REPO / "packaging/not_hot.txt").read_text().split())
ALLOWED = frozenset(["__future__", "_ctypes", "_json", "_socket", "_struct", "errno", "fcntl", "posix", "sys", "time"])

COLD = {
    ("bpf/libbpf.py", "ctypes"): "once per boot and object",
    ("bpf/loader.py", "libbpf"): "once per boot and object",
    ("cni/jsontext.py", "json"): "to say where invalid JSON is invalid",
    ("cni/plugin.py", "traceback"): "to report a defect of ours",
    ("plugins/sockmap/sockmap/selftest.py", "libbpf"): "once per boot and object",
    ("plugins/sockmap/sockmap/selftest.py", "select"): "once per boot and object",
}
"""The only places that may import more: inside a function or, in libbpf.py, behind the one of loader.py."""

ROOMS = sorted(main.parent.parent.name for main in REPO.glob("plugins/*/*/__main__.py"))
MOST_OWN_MODULES = 45

CHECKOUT = [str(REPO / ".venv/bin/python"), "-I", "-S", "-X", "importtime", str(REPO / "packaging/checkout.py")]


def sources() -> list[Path]:
    folders = [REPO / "cni", REPO / "bpf", *(REPO / "plugins" / room for room in ROOMS)]
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


class Imports(ast.NodeVisitor):
    """Top-level names that a module imports at run time, and whether inside a function."""

    def __init__(self) -> None:
        self.found: set[tuple[str, bool]] = set()
        self.depth = 0

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {(alias.name.partition(".")[0], self.depth > 0) for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level == 0 and node.module:
            self.found.add((node.module.partition(".")[0], self.depth > 0))
        inner = {"libbpf"} & {*(node.module or "").split("."), *(alias.name for alias in node.names)}
        self.found |= {(name, self.depth > 0) for name in inner}


def imports_of(source: Path) -> set[tuple[str, bool]]:
    visitor = Imports()
    visitor.visit(ast.parse(source.read_text()))
    return visitor.found


@pytest.mark.parametrize("source", sources(), ids=lambda path: str(path.relative_to(REPO)))
def test_a_module_imports_only_what_is_cheap(source: Path) -> None:
    name = str(source.relative_to(REPO))
    own = {"cni", "bpf", *(room.replace("-", "_") for room in ROOMS)}
    dear = {(module, lazy) for module, lazy in imports_of(source) if module not in ALLOWED | own}
    assert not {module for module, _ in dear if (name, module) not in COLD}
    assert not {module for module, lazy in dear if not lazy and name != "bpf/libbpf.py"}, "inside a function, please"


def test_every_cold_import_still_exists() -> None:
    found = {(str(path.relative_to(REPO)), module) for path in sources() for module, _ in imports_of(path)}
    assert set(COLD) <= found


def imported(stderr: str) -> list[str]:
    """Names from the report of -X importtime, in the order in which the imports ended."""
    lines = [line for line in stderr.splitlines() if line.startswith("import time:")]
    return [line.rpartition("|")[2].strip() for line in lines[1:]]


@pytest.fixture(scope="session")
def interpreters_own() -> frozenset[str]:
    bare = [sys.executable, "-I", "-S", "-X", "importtime", "-c", ""]
    return frozenset(imported(subprocess.run(bare, check=True, capture_output=True, text=True).stderr))


def assert_within_budget(stderr: str, interpreters_own: frozenset[str]) -> None:
    loaded = set(imported(stderr)) - interpreters_own
    own = {name for name in loaded if (REPO / name.partition(".")[0]).is_dir() or is_a_plugins(name)}
    assert own, "the report of -X importtime is missing"
    assert loaded - own <= ALLOWED
    assert not loaded & NOT_HOT
    assert len(own) <= MOST_OWN_MODULES, sorted(own)


def is_a_plugins(name: str) -> bool:
    return name.partition(".")[0].replace("_", "-") in ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_version_is_answered_within_the_import_budget(room: str, interpreters_own: frozenset[str]) -> None:
    env = {"CNI_COMMAND": "VERSION"}
    done = subprocess.run([*CHECKOUT, f"bypath-{room}"], env=env, check=True, capture_output=True, text=True)
    assert "supportedVersions" in json.loads(done.stdout)
    assert_within_budget(done.stderr, interpreters_own)


@pytest.fixture
def lone_node() -> Iterator[Node]:
    with Node.create("import-budget") as made:
        yield made


def test_add_check_and_del_stay_within_the_import_budget(lone_node: Node, interpreters_own: frozenset[str]) -> None:
    env = attachment("budget", lone_node.add_pod_netns("budget"), "eth0", {"CNI_PATH": str(REFERENCE)})
    conf: dict[str, Any] = {"cniVersion": "1.0.0", "name": "budget", "type": "bypath-host-gw"}
    conf["ipam"] = {"type": "host-local", "ranges": [[{"subnet": "10.244.9.0/24"}]]}
    for verb in ("ADD", "CHECK", "DEL"):
        argv = [*CHECKOUT, "bypath-host-gw"]
        done = lone_node.run(argv, input=json.dumps(conf), env={**env, "CNI_COMMAND": verb}, check=False)
        assert done.returncode == 0, done.stdout
        assert_within_budget(done.stderr, interpreters_own)
        if verb == "ADD":
            conf["prevResult"] = json.loads(done.stdout)
