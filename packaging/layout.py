# SPDX-License-Identifier: Apache-2.0
"""What goes where in dist/bypath/. Table rows are PyInstaller's: (destination under _internal, source, kind)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

Row = tuple[str, str, str]


def refuse_banned_imports(root: Path, names: Iterable[str]) -> None:
    """Imports our own modules in a bare interpreter. Ends the build when that brings in a module of not_hot.txt."""
    hot = [name for name in names if not _is_cold(name)]
    paths = [str(root), *map(str, sorted(root.glob("plugins/*")))]
    banned = set((root / "packaging/not_hot.txt").read_text().split())
    loaded = _modules_after(f"sys.path[:0] = {paths!r}\nfor name in {hot!r}: __import__(name)") - _modules_after("")
    if banned & loaded:
        raise SystemExit(f"the hot path imports {', '.join(sorted(banned & loaded))}: see packaging/README.md")


def _modules_after(script: str) -> set[str]:
    bare = [sys.executable, "-I", "-S", "-c", f"import sys\n{script}\nprint(*sys.modules)"]
    return set(subprocess.run(bare, check=True, stdout=subprocess.PIPE, text=True).stdout.split())


def _is_cold(name: str) -> bool:
    """Importing an entry point would run it, boot.py needs the launcher, and libbpf is loaded once per boot."""
    return name.endswith(".__main__") or name in ("bypath_boot", "bpf.libbpf")


def extensions(binaries: list[Row]) -> list[Row]:
    """C extensions and libffi under the one name that boot.py knows; the interpreter itself is in the launcher."""
    kept: list[Row] = []
    for destination, source, kind in binaries:
        if kind == "EXTENSION":
            kept.append((destination, source, kind))
        elif destination.startswith("libffi."):
            kept.append(("libffi.so", source, kind))
        elif not destination.startswith(("libpython", "libexpat.", "libz.")):
            raise SystemExit(f"{source} is needed by an extension, but nothing would load it: see launcher.c, preload")
    return kept


def cold_modules(datas: list[Row], frozen: Iterable[str]) -> list[Row]:
    """The standard library's .pyc; our own modules are in the launcher."""
    ours = {name.partition(".")[0] for name in frozen}
    return [row for row in datas if row[0].removesuffix(".pyc").partition("/")[0] not in ours]


def libbpf_library() -> Path:
    """The shared library of the pylibbpf wheel, which exports all of libbpf. Its Python, and llvmlite, stay out."""
    spec = importlib.util.find_spec("pylibbpf")
    if spec is None or spec.origin is None:
        raise SystemExit("pylibbpf is not installed in the environment that builds")
    return next(Path(spec.origin).parent.glob("pylibbpf.*.so"))


def libbpf(library: Path, needed: Iterable[str]) -> list[Row]:
    """It and what it needs. That goes into pylibbpf.libs, its search path: the wheel's own libraries, and those that a
    wheel may expect of any distribution but a minimal node image lacks.
    """
    rows = [
        (f"pylibbpf/{library.name}", str(library)),
        *((f"pylibbpf.libs/{Path(file).name}", file) for file in needed),
    ]
    # As DATA, because PyInstaller may rewrite binaries and nothing here must change.
    return [(destination, source, "DATA") for destination, source in sorted(rows)]


def share_one_file(programs: list[Path]) -> None:
    """All executables are one program that looks at its own name: one copy on disk and in the page cache."""
    first, *others = programs
    for other in others:
        if other.read_bytes() != first.read_bytes():
            raise SystemExit(f"{other.name} differs from {first.name}")
        other.unlink()
        os.link(first, other)


def copy_bpf_objects(source: Path, target: Path) -> None:
    """The compiled objects and the digests that `make bpf` put beside them."""
    for file in sorted([*source.glob("*.bpf.o"), *source.glob("*.sha256")]):
        target.mkdir(exist_ok=True)
        shutil.copyfile(file, target / file.name)
