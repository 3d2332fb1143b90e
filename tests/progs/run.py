# SPDX-License-Identifier: Apache-2.0
"""BPF_PROG_TEST_RUN: a loaded object's programs on packets that tests make, and its maps."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bpf import command
from bpf.libbpf import BpfObject
from cni.net import syscall

PROG_TEST_RUN = 10
ATTRIBUTES = struct.Struct("=IIIIQQIIIIQQIII4x")
ROOM = 65536
# Offsets in struct __sk_buff of what a test may set; all else must be zero.
CONTEXT_BYTES = 192
MARK, IFINDEX, TSTAMP, WIRE_LEN, GSO_SEGS, GSO_SIZE = 8, 40, 152, 160, 164, 176
UNSPEC, SHOT = 0xFFFFFFFF, 2


class Ran(NamedTuple):
    """What came of one run: the verdict, the packet, its mark and departure time, and the mean time of a repeat."""

    verdict: int
    packet: bytes
    mark: int
    tstamp_ns: int
    duration_ns: int


def test_run(
    program: int,
    packet: bytes,
    *,
    mark: int = 0,
    ifindex: int = 0,
    tstamp_ns: int = 0,
    wire_len: int = 0,
    gso: tuple[int, int] = (0, 0),
    repeat: int = 1,
) -> Ran:
    """Run a tc program; ifindex is of the current network namespace, gso is (segments, segment size)."""
    context = bytearray(CONTEXT_BYTES)
    struct.pack_into("=I", context, MARK, mark)
    struct.pack_into("=I", context, IFINDEX, ifindex)
    struct.pack_into("=QII", context, TSTAMP, tstamp_ns, wire_len, gso[0])
    struct.pack_into("=I", context, GSO_SIZE, gso[1])
    data_in, data_out = syscall.Buffer(packet), syscall.Buffer(ROOM)
    context_in, context_out = syscall.Buffer(bytes(context)), syscall.Buffer(CONTEXT_BYTES)
    sizes_and_packets = (program, 0, len(packet), ROOM, data_in.address, data_out.address, repeat, 0)
    contexts = (CONTEXT_BYTES, CONTEXT_BYTES, context_in.address, context_out.address, 0, 0, 0)
    attributes = syscall.Buffer(ATTRIBUTES.pack(*sizes_and_packets, *contexts))
    syscall.call("bpf", PROG_TEST_RUN, attributes.address, ATTRIBUTES.size)
    _, verdict, _, size_out, _, _, _, duration, *_ = ATTRIBUTES.unpack(attributes.data)
    return Ran(
        verdict,
        bytes(data_out.data[:size_out]),
        struct.unpack_from("=I", context_out.data, MARK)[0],
        struct.unpack_from("=Q", context_out.data, TSTAMP)[0],
        duration,
    )


def possible_cpus() -> int:
    """How many values an element of a per-CPU map has."""
    with open("/sys/devices/system/cpu/possible") as text:
        return int(text.read().strip().rpartition("-")[2]) + 1


class Table:
    """A map of a loaded object; keys and values are raw bytes."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.key_bytes, self.value_bytes, self.max_entries = command.map_sizes(descriptor)

    def __getitem__(self, key: bytes) -> bytes:
        value = command.lookup(self.descriptor, key, self.value_bytes)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        command.update(self.descriptor, key, value)

    def __delitem__(self, key: bytes) -> None:
        if not command.delete(self.descriptor, key):
            raise KeyError(key)

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(command.keys(self.descriptor, self.key_bytes)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def clear(self) -> None:
        for key in self:
            del self[key]

    def items(self) -> list[tuple[bytes, bytes]]:
        return [(key, self[key]) for key in self]

    def per_cpu(self, key: bytes) -> Sequence[bytes]:
        """The values of every possible CPU; the kernel rounds each up to 8 bytes."""
        stride = -(-self.value_bytes // 8) * 8
        raw = command.lookup(self.descriptor, key, stride * possible_cpus())
        if raw is None:
            raise KeyError(key)
        return [raw[at : at + self.value_bytes] for at in range(0, len(raw), stride)]

    def zero_per_cpu(self, key: bytes) -> None:
        command.update(self.descriptor, key, bytes(-(-self.value_bytes // 8) * 8 * possible_cpus()))


class Loaded:
    """An object in the kernel, by its file's name under build/bpf."""

    def __init__(self, file: str) -> None:
        self._object = BpfObject.open(os.path.join(os.path.dirname(__file__), "../../build/bpf", file))
        self._object.load()
        self.programs = self._object.program_fds()
        self.tables = {name: Table(fd) for name, fd in self._object.map_fds().items()}

    def close(self) -> None:
        self._object.close()
