# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, how long a file and a function may be, and what nothing may be called.

The rules are those of the design's dependency direction, as true as this tree is:

    cni        the standard library and itself
    bpf        the standard library, itself, and of cni the errors, files, the identity of an attachment and cni.net.
               Identity is there because a record is keyed by it; net because a program is attached to a device.
    plugins/X  the standard library, cni, bpf and itself
    cli        everything but packaging and tests
    bench      everything but cli and packaging: it measures in the laboratory of the tests
    nobody else imports cli, packaging or tests
    ctypes     lives in bpf/libbpf.py alone, its C half _ctypes in cni/net/syscall.py alone
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PLUGINS = {package.parent.name: package.parent.parent.name for package in REPO.glob("plugins/*/*/__main__.py")}
"""Package name -> directory; host_gw -> host-gw."""
BPF_MAY_TAKE_OF_CNI = ("cni.errors", "cni.files", "cni.identity", "cni.net")
CTYPES = {"ctypes": "bpf/libbpf.py", "_ctypes": "cni/net/syscall.py"}
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 40
NAMES_THAT_SAY_NOTHING = {"utils", "util", "common", "helpers", "helper", "misc"}

SOURCES = sorted(
    path
    for room in ("cni", "bpf", "plugins", "cli", "packaging", "bench", "tests")
    for path in (REPO / room).rglob("*.py")
    if "__pycache__" not in path.parts
)


def name_of(path: Path) -> str:
    """The module's dotted name: plugins/host-gw/host_gw/wire.py is host_gw.wire."""
    parts = path.relative_to(REPO).with_suffix("").parts
    if parts[0] == "plugins":
        parts = parts[2:]
    return ".".join(parts).removesuffix(".__init__")


def absolute(node: ast.ImportFrom, path: Path) -> str:
    if not node.level:
        return node.module or ""
    package = name_of(path).split(".") if path.name == "__init__.py" else name_of(path).split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def for_checking_only(tree: ast.AST) -> set[int]:
    """ids of the nodes under `if TYPE_CHECKING:`, which are never executed."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {id(inner) for block in blocks for statement in block.body for inner in ast.walk(statement)}


def imports(path: Path, *, executed_only: bool = False) -> Iterator[str]:
    """Every module, or name in a module, that the file imports anywhere, as absolute dotted names."""
    tree = ast.parse(path.read_text())
    left_out = for_checking_only(tree) if executed_only else set()
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = absolute(node, path)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def top(module: str) -> str:
    return module.partition(".")[0]


def room_of(path: Path) -> str:
    """cni, bpf, cli, packaging, bench, tests, or a plugin's package."""
    parts = path.relative_to(REPO).parts
    return parts[2] if parts[0] == "plugins" else parts[0]


def is_standard(module: str) -> bool:
    return top(module) in sys.stdlib_module_names or top(module) == "__future__"


def may_import(room: str, module: str) -> bool:
    if is_standard(module) or top(module) == room:
        return True
    if room == "bpf":
        return module.startswith(BPF_MAY_TAKE_OF_CNI) or module == "cni"
    if room in PLUGINS:
        return top(module) in ("cni", "bpf")
    return room != "cni"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO)))
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    room = room_of(path)
    wrong = sorted(
        {
            module
            for module in imports(path)
            if not may_import(room, module)
            # For the types of its parameters a room below may name one above: nothing of it is executed.
            and not (room == "bpf" and module.startswith("cni.") and module not in imports(path, executed_only=True))
        }
    )
    assert wrong == [], f"{path.relative_to(REPO)} belongs to {room}, which must not import {wrong}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO)))
def test_nobody_imports_the_cli_packaging_or_tests(path: Path) -> None:
    # "packaging" in a test is the room's own name for what it tests, or the library of that name.
    allowed = {"bench": {"tests"}, "tests": {"tests", "cli", "packaging"}}.get(room_of(path), {room_of(path)})
    wrong = {top(module) for module in imports(path)} & {"cli", "packaging", "tests"} - allowed
    assert wrong == set(), f"{path.relative_to(REPO)} imports {sorted(wrong)}"


@pytest.mark.parametrize("path", [path for path in SOURCES if room_of(path) != "tests"], ids=name_of)
def test_ctypes_lives_in_one_file_each(path: Path) -> None:
    if room_of(path) in ("cli", "bench", "packaging"):
        return
    used = {top(module) for module in imports(path, executed_only=True)} & set(CTYPES)
    allowed = {module for module, home in CTYPES.items() if home == str(path.relative_to(REPO))}
    assert used <= allowed, f"{path.relative_to(REPO)} uses {sorted(used)}; only {CTYPES} may"


def test_the_files_that_may_use_ctypes_are_there() -> None:
    for module, home in CTYPES.items():
        assert module in {top(found) for found in imports(REPO / home)}, f"{home} uses no {module}: correct this test"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO)))
def test_a_file_has_at_most_300_lines_and_a_function_40(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} at line {node.lineno} has {lines} lines"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO)))
def test_a_file_says_its_licence_first_and_is_named_after_something(path: Path) -> None:
    # An empty file, which only makes a directory a package, holds nothing to license.
    assert path.read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n") or not path.stat().st_size
    assert not NAMES_THAT_SAY_NOTHING & {path.stem, *path.relative_to(REPO).parent.parts}


def test_each_plugin_directory_holds_one_package_spelled_like_it() -> None:
    assert PLUGINS
    for directory in (REPO / "plugins").iterdir():
        packages = [path.name for path in directory.iterdir() if (path / "__init__.py").exists()]
        assert packages == [directory.name.replace("-", "_")], f"{directory.name} holds {packages}"


@pytest.mark.parametrize("path", [path for path in SOURCES if room_of(path) in ("cni", "bpf")], ids=name_of)
def test_no_list_of_plugins_is_written_by_hand_below_them(path: Path) -> None:
    texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
    named = {directory for package, directory in PLUGINS.items() if {package, directory} & texts}
    # One may be named for another reason: ipvlan is a kind of device, too.
    assert len(named) <= 1, f"{path.relative_to(REPO)} lists {sorted(named)}"


def test_the_rules_would_see_a_violation(tmp_path: Path) -> None:
    assert not may_import("cni", "bpf.pins") and not may_import("cni", "pyroute2")
    assert (
        not may_import("bpf", "host_gw.wire")
        and not may_import("bpf", "cni.plugin")
        and may_import("bpf", "cni.net.link")
    )
    assert not may_import("host_gw", "snat.plugin") and may_import("host_gw", "bpf.records")
    source = tmp_path / "seen.py"
    source.write_text("if TYPE_CHECKING:\n    import a.b\ndef f():\n    from c import d\n")
    assert list(imports(source, executed_only=True)) == ["c.d"]
    assert sorted(imports(source)) == ["a.b", "c.d"]
