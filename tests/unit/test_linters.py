# SPDX-License-Identifier: Apache-2.0
"""The linters are tests: what they say is in the failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PYTHON_ROOMS = ["cni", "bpf", "plugins", "cli", "packaging", "bench", "tests"]
C_FILES = sorted(
    str(path.relative_to(REPO))
    for room in ("bpf", "packaging", "tests", "bench")
    for pattern in ("*.c", "*.h")
    for path in (REPO / room).rglob(pattern)
)


def complaint(*argv: str) -> str:
    """What the tool printed, empty when it is content."""
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, timeout=600)
    return (done.stdout + done.stderr or f"{argv} -> {done.returncode}") if done.returncode else ""


def test_ruff_finds_nothing() -> None:
    assert complaint(sys.executable, "-m", "ruff", "check", ".") == ""


def test_every_python_file_is_formatted() -> None:
    assert complaint(sys.executable, "-m", "ruff", "format", "--check", ".") == ""


def test_mypy_strict_finds_nothing() -> None:
    assert complaint(sys.executable, "-m", "mypy", *PYTHON_ROOMS) == ""


def test_every_c_file_is_formatted() -> None:
    assert C_FILES, "no C file was found: the pattern is wrong"
    assert complaint("clang-format", "--dry-run", "--Werror", *C_FILES) == ""


@pytest.mark.parametrize("pattern", ["**/*.sh", "bin/*"])
def test_every_shell_script_parses(pattern: str) -> None:
    outside = {REPO / name for name in (".venv", "build", "dist", ".git")}
    scripts = [path for path in REPO.glob(pattern) if path.is_file() and not outside & set(path.parents)]
    assert scripts, f"no file matches {pattern}"
    for script in scripts:
        assert complaint("sh", "-n", str(script)) == ""
