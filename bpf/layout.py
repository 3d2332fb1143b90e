# SPDX-License-Identifier: Apache-2.0
"""How a struct that C and Python share is written in Python. The mirrors stand in each plugin's layout.py.

Fields named *_be are in network byte order and so are `bytes` here; all others are in the machine's own.
"""

from __future__ import annotations

from _struct import Struct, calcsize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Layout:
    """One C struct: its name, and (field, struct code) in order; a field coded "x" is padding and holds no value."""

    __slots__ = ("_struct", "fields", "name", "size")

    def __init__(self, name: str, *fields: tuple[str, str]) -> None:
        self.name = name
        self.fields = fields
        self._struct = Struct("=" + "".join([code for _, code in fields]))
        self.size: int = self._struct.size

    def pack(self, *values: int | bytes) -> bytes:
        """The struct with its values in the order of the fields, paddings left out."""
        return self._struct.pack(*values)

    def unpack(self, raw: bytes) -> tuple[Any, ...]:
        """The values in the order of the fields, paddings left out."""
        return self._struct.unpack(raw)

    def named(self, raw: bytes) -> dict[str, Any]:
        """The values by their fields' names."""
        names = [field for field, code in self.fields if not code.endswith("x")]
        return dict(zip(names, self._struct.unpack(raw), strict=True))

    def places(self) -> list[tuple[str, int, int]]:
        """(field, offset, size) of every field, paddings included."""
        found, offset = [], 0
        for field, code in self.fields:
            size = calcsize("=" + code)
            found.append((field, offset, size))
            offset += size
        return found


BUILD = Layout("build_id", ("sha256", "32s"))
"""Value of the map `build` of every plugin."""
