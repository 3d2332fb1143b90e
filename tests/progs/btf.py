# SPDX-License-Identifier: Apache-2.0
"""The structs and enums that a compiled object describes in its own BTF (Documentation/bpf/btf.rst)."""

from __future__ import annotations

import pathlib
import struct
from typing import NamedTuple

INT, PTR, ARRAY, STRUCT, UNION, ENUM = 1, 2, 3, 4, 5, 6
TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC_PROTO, VAR, DATASEC = 8, 9, 10, 11, 13, 14, 15
DECL_TAG, ENUM64 = 17, 19
# Bytes behind struct btf_type: fixed, and for each of the vlen entries.
TAILS = {
    INT: (4, 0),
    ARRAY: (12, 0),
    STRUCT: (0, 12),
    UNION: (0, 12),
    ENUM: (0, 8),
    FUNC_PROTO: (0, 8),
    VAR: (4, 0),
    DATASEC: (0, 12),
    DECL_TAG: (4, 0),
    ENUM64: (0, 12),
}


class Type(NamedTuple):
    """struct btf_type and what follows it."""

    name: str
    kind: int
    size_or_type: int
    entries: list[tuple[int, ...]]


def section(path: pathlib.Path, wanted: str) -> bytes:
    """A section of a 64-bit little-endian ELF file."""
    raw = path.read_bytes()
    (table,) = struct.unpack_from("<Q", raw, 0x28)
    size, count, names_at = struct.unpack_from("<HHH", raw, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", raw, table + index * size) for index in range(count)]
    names = headers[names_at][4]
    for name, _, _, _, offset, length in headers:
        start = names + name
        if raw[start : raw.index(b"\0", start)].decode() == wanted:
            return raw[offset : offset + length]
    raise KeyError(wanted)


class Btf:
    """Types by their number; 0 is void."""

    def __init__(self, path: pathlib.Path) -> None:
        raw = section(path, ".BTF")
        head, types_at, types_bytes, strings_at, _ = struct.unpack_from("<IIIII", raw, 4)
        self._strings = raw[head + strings_at :]
        self.types = [Type("void", 0, 0, [])]
        at, end = head + types_at, head + types_at + types_bytes
        while at < end:
            name, info, size_or_type = struct.unpack_from("<III", raw, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            fixed, each = TAILS.get(kind, (0, 0))
            at += 12
            tail = raw[at : at + fixed + each * count]
            step = each or fixed or 1
            entries = [struct.unpack_from(f"<{step // 4}I", tail, place) for place in range(0, len(tail), step)]
            self.types.append(Type(self._text(name), kind, size_or_type, entries))
            at += len(tail)

    def _text(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def size(self, number: int) -> int:
        found = self.types[number]
        if found.kind == ARRAY:
            element, _, count = found.entries[0]
            return self.size(element) * count
        if found.kind in (TYPEDEF, VOLATILE, CONST, RESTRICT):
            return self.size(found.size_or_type)
        return 8 if found.kind == PTR else found.size_or_type

    def structs(self, prefix: str) -> dict[str, tuple[int, list[tuple[str, int, int]]]]:
        """Of every struct with that prefix: its size, and (field, offset, size) in order."""
        found = {}
        for kind in self.types:
            if kind.kind == STRUCT and kind.name.startswith(prefix):
                fields = [(self._text(name), bits // 8, self.size(number)) for name, number, bits in kind.entries]
                found[kind.name] = (kind.size_or_type, fields)
        return found

    def enum(self, name: str) -> list[tuple[str, int]]:
        (found,) = [kind for kind in self.types if kind.kind == ENUM and kind.name == name]
        return [(self._text(text), value) for text, value in found.entries]

    def map_types(self, name: str) -> tuple[int, int]:
        """(key bytes, value bytes) of the map declared with that name."""
        (variable,) = [kind for kind in self.types if kind.kind == VAR and kind.name == name]
        members = {self._text(text): number for text, number, _ in self.types[variable.size_or_type].entries}
        return self._pointee(members["key"]), self._pointee(members["value"])

    def _pointee(self, number: int) -> int:
        return self.size(self.types[number].size_or_type)
