# SPDX-License-Identifier: Apache-2.0
"""bpf(2) for the hot path: pins, map elements, links. Layouts are those of union bpf_attr in linux/bpf.h.

Loading programs is libbpf's work (libbpf.py) and happens once per boot; what an ADD needs afterwards are these few
commands, and they need no library.
"""

from __future__ import annotations

import errno
import posix
from _struct import pack, unpack_from

from cni.net import syscall
from cni.net.syscall import Buffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT_KEY = 0, 1, 2, 3, 4
_OBJ_PIN, _OBJ_GET, _PROG_ATTACH, _PROG_DETACH = 6, 7, 8, 9
_PROG_FD_BY_ID, _OBJ_INFO, _PROG_QUERY, _MAP_LOOKUP_BATCH = 13, 15, 16, 24
_LINK_CREATE, _LINK_UPDATE, _LINK_DETACH = 28, 29, 34

MAP_TYPE_HASH = 1
_BATCH = 256
BPF_ANY, BPF_NOEXIST, BPF_EXIST = 0, 1, 2
F_NO_PREALLOC = 1
F_BEFORE, F_AFTER, F_ID = 1 << 3, 1 << 4, 1 << 5
TCX = {"ingress": 46, "egress": 47}
SOCK_OPS, SK_MSG_VERDICT, SK_SKB_VERDICT = 3, 7, 38
"""enum bpf_attach_type: the first for a cgroup, the others for a map of sockets."""


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """The call's result and the attributes as the kernel left them."""
    buffer = Buffer(attributes)
    return syscall.call("bpf", command, buffer.address, len(attributes)), bytes(buffer.data)


def obj_get(path: str) -> int:
    """A descriptor of what is pinned there. Raises FileNotFoundError when nothing is."""
    name = Buffer(path.encode() + b"\0")
    try:
        return _bpf(_OBJ_GET, pack("=QII", name.address, 0, 0))[0]
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def obj_pin(descriptor: int, path: str) -> None:
    name = Buffer(path.encode() + b"\0")
    try:
        _bpf(_OBJ_PIN, pack("=QII", name.address, descriptor, 0))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def map_create(kind: int, key_bytes: int, value_bytes: int, max_entries: int, flags: int, name: str) -> int:
    attributes = pack("=IIIIIII16s", kind, key_bytes, value_bytes, max_entries, flags, 0, 0, name.encode())
    return _bpf(_MAP_CREATE, attributes)[0]


def map_sizes(descriptor: int) -> tuple[int, int, int]:
    """(key bytes, value bytes, max_entries)."""
    info = _info(descriptor, 80)
    key_bytes, value_bytes, max_entries = unpack_from("=III", info, 8)
    return key_bytes, value_bytes, max_entries


def object_id(descriptor: int) -> int:
    """Of a map, program or link; all three infos begin with type and id."""
    return int(unpack_from("=I", _info(descriptor, 80), 4)[0])


def prog_name(descriptor: int) -> str:
    return _info(descriptor, 80)[64:80].rstrip(b"\0").decode("ascii", "replace")


def link_info(descriptor: int) -> tuple[int, int]:
    """(program id, ifindex) of a TCX link, (program id, lower half of the cgroup's id) of a cgroup's; the second is 0
    when the device or cgroup is gone."""
    info = _info(descriptor, 32)
    return int(unpack_from("=I", info, 8)[0]), int(unpack_from("=I", info, 16)[0])


def _info(descriptor: int, size: int) -> bytes:
    info = Buffer(size)
    _bpf(_OBJ_INFO, pack("=IIQ", descriptor, size, info.address))
    return bytes(info.data)


def lookup(descriptor: int, key: bytes, value_bytes: int) -> bytes | None:
    key_buffer, value = Buffer(key), Buffer(value_bytes)
    try:
        _bpf(_MAP_LOOKUP, pack("=I4xQQQ", descriptor, key_buffer.address, value.address, 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return bytes(value.data)


def update(descriptor: int, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
    key_buffer, value_buffer = Buffer(key), Buffer(value)
    _bpf(_MAP_UPDATE, pack("=I4xQQQ", descriptor, key_buffer.address, value_buffer.address, flags))


def delete(descriptor: int, key: bytes) -> bool:
    """False when there was no such element."""
    key_buffer = Buffer(key)
    try:
        _bpf(_MAP_DELETE, pack("=I4xQQQ", descriptor, key_buffer.address, 0, 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def keys(descriptor: int, key_bytes: int) -> Iterator[bytes]:
    """Every key. Collect them before deleting: the walk starts over when its current key is gone."""
    previous, following = Buffer(key_bytes), Buffer(key_bytes)
    start = 0
    while True:
        try:
            _bpf(_MAP_NEXT_KEY, pack("=I4xQQQ", descriptor, start, following.address, 0))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        yield bytes(following.data)
        previous.data[:] = following.data
        start = previous.address


def items(descriptor: int, key_bytes: int, value_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of every element of a hash or an array, a call for many of them. Those that come or go meanwhile may
    be there or not, and no other is left out or comes twice."""
    place, start, room = Buffer(max(4, key_bytes)), 0, _BATCH
    while True:
        found_keys, found_values = Buffer(key_bytes * room), Buffer(value_bytes * room)
        addresses = (start, place.address, found_keys.address, found_values.address)
        request = Buffer(pack("=QQQQIIQQ", *addresses, room, descriptor, 0, 0))
        fault = 0
        try:
            syscall.call("bpf", _MAP_LOOKUP_BATCH, request.address, len(request.data))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOSPC):
                raise
            fault = error.errno
        count = unpack_from("=I", request.data, 32)[0]
        if fault == errno.ENOSPC and not count:
            # A bucket of the hash with more elements than there is room for.
            room *= 2
            continue
        for at in range(count):
            key = found_keys.data[at * key_bytes : (at + 1) * key_bytes]
            yield bytes(key), bytes(found_values.data[at * value_bytes : (at + 1) * value_bytes])
        if fault == errno.ENOENT:
            return
        start = place.address


def is_empty(descriptor: int, key_bytes: int) -> bool:
    return next(keys(descriptor, key_bytes), None) is None


def tcx_programs(index: int, direction: str) -> tuple[list[int], int]:
    """Ids of the programs attached by TCX in their order, and the hook's revision. OSError(EINVAL) below 6.6."""
    return _query(index, TCX[direction])


def map_programs(descriptor: int, hook: int) -> list[int]:
    """Ids of the programs that a map of sockets gives to those that enter it. OSError(EINVAL) below 5.18."""
    return _query(descriptor, hook)[0]


def _query(target: int, hook: int) -> tuple[list[int], int]:
    room = 64
    ids = Buffer(4 * room)
    attributes = pack("=IIIIQI4xQQQQ", target, hook, 0, 0, ids.address, room, 0, 0, 0, 0)
    _, back = _bpf(_PROG_QUERY, attributes)
    count = unpack_from("=I", back, 24)[0]
    return list(unpack_from(f"={count}I", ids.data)), int(unpack_from("=Q", back, 56)[0])


def map_attach(program: int, descriptor: int, hook: int) -> None:
    """Have a map give the program to the sockets that enter it, instead of the one that it gave."""
    _bpf(_PROG_ATTACH, pack("=IIII", descriptor, program, hook, 0))


def map_detach(program: int, descriptor: int, hook: int) -> bool:
    """Sockets in the map keep the program. False when the map gives another one, or none."""
    try:
        _bpf(_PROG_DETACH, pack("=IIII", descriptor, program, hook, 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def prog_name_by_id(program_id: int) -> str:
    """An empty string when the program went away meanwhile."""
    try:
        descriptor = _bpf(_PROG_FD_BY_ID, pack("=III", program_id, 0, 0))[0]
    except OSError as error:
        if error.errno == errno.ENOENT:
            return ""
        raise
    try:
        return prog_name(descriptor)
    finally:
        posix.close(descriptor)


def link_create_tcx(program: int, index: int, direction: str, flags: int, relative_id: int, revision: int) -> int:
    """A TCX link on a device of the current namespace. OSError(ESTALE) when the hook changed since `revision`."""
    attributes = pack("=IIIII4xQ", program, index, TCX[direction], flags, relative_id, revision)
    return _bpf(_LINK_CREATE, attributes)[0]


def link_create_cgroup(program: int, cgroup: int, hook: int) -> int:
    """A link to a cgroup, an open directory; others' programs on it run as before."""
    return _bpf(_LINK_CREATE, pack("=IIII", program, cgroup, hook, 0))[0]


def link_update(link: int, program: int) -> None:
    _bpf(_LINK_UPDATE, pack("=IIII", link, program, 0, 0))


def link_detach(link: int) -> None:
    _bpf(_LINK_DETACH, pack("=I", link))
