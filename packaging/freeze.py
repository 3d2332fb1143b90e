# SPDX-License-Identifier: Apache-2.0
"""Freezes the modules of the hot path into the launcher, as CPython freezes its own importlib.

Each module becomes marshalled code in a C array; an import is then one look into a table. Before compiling, what never
runs is taken out of the tree: annotations, `from __future__`, and `if TYPE_CHECKING:`.
"""

from __future__ import annotations
import __future__

import ast
import encodings
import marshal
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Module:
    name: str
    """Dotted, as it is imported."""
    source: Path
    shown_as: str
    """The path in tracebacks: relative, so that two builds are equal byte for byte."""

    @property
    def is_package(self) -> bool:
        return self.source.name == "__init__.py"


CODECS = ("encodings", "encodings.aliases", "encodings.utf_8")
"""Any codec error handler but "strict" makes the interpreter import these, in the middle of setting up its registry."""


def own_modules(root: Path) -> list[Module]:
    """Every module of cni/, bpf/ and plugins/*/<package>/. A new plugin needs no line here."""
    packages = [root / "cni", root / "bpf", *sorted(main.parent for main in root.glob("plugins/*/*/__main__.py"))]
    found = [Module("bypath_boot", root / "packaging/boot.py", "packaging/boot.py")]
    for package in packages:
        for source in sorted(package.rglob("*.py")):
            parts = source.relative_to(package.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Module(name, source, str(source.relative_to(root))))
    return found


def executables(root: Path) -> list[str]:
    """One for each plugins/<dir>/<package>/__main__.py: bypath-<dir>."""
    return [f"bypath-{main.parent.parent.name}" for main in sorted(root.glob("plugins/*/*/__main__.py"))]


class _Trim(ast.NodeTransformer):
    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt | None:
        return None if node.module == "__future__" else node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt] | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [self.visit(statement) for statement in node.orelse] or None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        bare = ast.Pass() if node.value is None else ast.Assign([node.target], node.value)
        return ast.copy_location(bare, node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)


def code_of(module: Module) -> bytes:
    tree = _Trim().visit(ast.parse(module.source.read_text(), module.shown_as))
    flags = __future__.annotations.compiler_flag
    code = compile(ast.fix_missing_locations(tree), module.shown_as, "exec", flags, dont_inherit=True, optimize=2)
    return marshal.dumps(code)


def codec_modules() -> list[Module]:
    library = Path(encodings.__file__).parent
    files = (library / "__init__.py", library / "aliases.py", library / "utf_8.py")
    return [Module(name, file, f"encodings/{file.name}") for name, file in zip(CODECS, files, strict=True)]


def write_table(modules: list[Module], directory: Path) -> Path:
    """The C file that defines bypath_frozen[]."""
    arrays, rows = [], []
    for number, module in enumerate(modules):
        code = code_of(module)
        arrays.append(f"static const unsigned char code{number}[] = {{{','.join(map(str, code))}}};")
        rows.append(f'\t{{ "{module.name}", code{number}, {len(code)}, {int(module.is_package)} }},')
    target = directory / "frozen.c"
    lines = ["#include <Python.h>", *arrays, "const struct _frozen bypath_frozen[] = {", *rows, "\t{ 0 },", "};", ""]
    target.write_text("\n".join(lines))
    return target


def libraries(modlibs: str) -> list[str]:
    """What libpython needs, "-lm -lz -lexpat" and the like: static, because a node may not have it, but for glibc's."""
    names = dict.fromkeys(word.removeprefix("-l") for word in modlibs.split() if word.startswith("-l"))
    return [f"-l{name}" if name in ("m", "dl", "pthread", "rt", "util") else f"-l:lib{name}.a" for name in names]


def build_launcher(root: Path, directory: Path) -> Path:
    """Compiles and links the launcher with all own modules in it; returns the program."""
    directory.mkdir(parents=True, exist_ok=True)
    table = write_table([*own_modules(root), *codec_modules()], directory)
    settings = sysconfig.get_config_vars()
    library = Path(settings["LIBPL"], settings["LIBRARY"])
    if not library.exists():
        raise SystemExit(f"{library} is missing: install the development package of Python (apt install python3-dev)")
    program = directory / "launcher"
    compile_and_link = [
        *("cc", "-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-fno-pie", "-no-pie", "-s"),
        *(f"-I{settings['INCLUDEPY']}", str(root / "packaging/launcher.c"), str(table), "-o", str(program)),
        # Extension modules resolve the C API against the program.
        *("-Wl,--export-dynamic", "-Wl,--whole-archive", str(library), "-Wl,--no-whole-archive"),
        *libraries(settings["MODLIBS"]),
    ]
    subprocess.run(compile_and_link, check=True)
    return program
