# SPDX-License-Identifier: Apache-2.0
"""A pinned map, opened with a check that it has the layout that this build expects."""

from __future__ import annotations

from cni import files
from cni.errors import CONFLICT, CniError

from . import command, pins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Map:
    """A hash, LRU, LPM or array map by its pin.

    Raises FileNotFoundError when it is not pinned, CniError(CONFLICT) when its key or value has another size than this
    build's: then the pin is of another version of bypath and must be drained first.
    """

    __slots__ = ("descriptor", "key_bytes", "name", "value_bytes")

    def __init__(self, plugin: str, name: str, key_bytes: int, value_bytes: int) -> None:
        path = pins.pin(plugin, name)
        self.name = name
        self.descriptor = command.obj_get(path)
        self.key_bytes = key_bytes
        self.value_bytes = value_bytes
        found = command.map_sizes(self.descriptor)[:2]
        if found != (key_bytes, value_bytes):
            raise CniError(
                CONFLICT,
                f"{path} has keys and values of {found[0]} and {found[1]} bytes, this build wants {key_bytes} and "
                f"{value_bytes}: it belongs to another version of bypath; drain the node, then type: "
                f"rm -r {pins.directory(plugin)}",
            )

    def get(self, key: bytes) -> bytes | None:
        return command.lookup(self.descriptor, key, self.value_bytes)

    def put(self, key: bytes, value: bytes, flags: int = command.BPF_ANY) -> None:
        command.update(self.descriptor, key, value, flags)

    def remove(self, key: bytes) -> bool:
        return command.delete(self.descriptor, key)

    def every_key(self) -> list[bytes]:
        return list(command.keys(self.descriptor, self.key_bytes))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Of a hash or an array. Collect them before changing the map."""
        return command.items(self.descriptor, self.key_bytes, self.value_bytes)

    def is_empty(self) -> bool:
        return command.is_empty(self.descriptor, self.key_bytes)


class PerCpuMap(Map):
    """A map with a value for each possible CPU; in the buffers of bpf(2) they follow each other, 8-byte aligned."""

    __slots__ = ("cpus", "stride_bytes")

    def __init__(self, plugin: str, name: str, key_bytes: int, value_bytes: int) -> None:
        super().__init__(plugin, name, key_bytes, value_bytes)
        self.cpus = possible_cpus()
        self.stride_bytes = value_bytes + 7 & ~7

    def get(self, key: bytes) -> bytes | None:
        """All values, each in `stride_bytes`."""
        return command.lookup(self.descriptor, key, self.stride_bytes * self.cpus)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Each with all values, as `get`."""
        return command.items(self.descriptor, self.key_bytes, self.stride_bytes * self.cpus)

    def put(self, key: bytes, value: bytes, flags: int = command.BPF_ANY) -> None:
        """The same value for every CPU."""
        command.update(self.descriptor, key, value.ljust(self.stride_bytes, b"\0") * self.cpus, flags)


def possible_cpus() -> int:
    """As the kernel counts them: num_possible_cpus(), which sysfs tells as ranges such as 0-3,8."""
    text = files.read("/sys/devices/system/cpu/possible") or b"0"
    ranges = [part.partition(b"-") for part in text.strip().split(b",")]
    return sum([int(last or first) - int(first) + 1 for first, _, last in ranges])
