# SPDX-License-Identifier: Apache-2.0
"""Whole files by plain system calls: in the executables, open() is not there before the cold path has started."""

from __future__ import annotations

import posix


def read(path: str) -> bytes | None:
    """The content, or None when there is no such file."""
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return read_all(descriptor)
    finally:
        posix.close(descriptor)


def read_all(descriptor: int) -> bytes:
    chunks = []
    while chunk := posix.read(descriptor, 1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)
