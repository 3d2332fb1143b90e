# SPDX-License-Identifier: Apache-2.0
"""Warnings go to stderr: stdout belongs to the one JSON document, and the runtime keeps stderr in its own log."""

from __future__ import annotations

import posix


def warn(text: str) -> None:
    posix.write(2, f"bypath: {text}\n".encode("utf-8", "backslashreplace"))
