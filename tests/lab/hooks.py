# SPDX-License-Identifier: Apache-2.0
"""The TCX programs of every device of this network namespace, which Debian 12's bpftool does not know yet."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

SYS_BPF = 321
BPF_PROG_QUERY = 16
DIRECTIONS = {"ingress": 46, "egress": 47}  # BPF_TCX_INGRESS, BPF_TCX_EGRESS of enum bpf_attach_type
ROOM = 64


def tcx_programs(ifindex: int, attach_type: int) -> list[tuple[int, int]]:
    """(program id, link id or 0) in their order; nothing on a kernel before 6.6, which answers EINVAL."""
    libc = ctypes.CDLL(None, use_errno=True)
    programs, links = (ctypes.c_uint32 * ROOM)(), (ctypes.c_uint32 * ROOM)()
    attr = ctypes.create_string_buffer(
        struct.pack(
            "=IIIIQIIQQQQ",
            *(ifindex, attach_type, 0, 0),
            *(ctypes.addressof(programs), ROOM, 0),
            *(0, ctypes.addressof(links), 0, 0),
        )
    )
    if libc.syscall(SYS_BPF, BPF_PROG_QUERY, attr, len(attr) - 1) < 0:
        if ctypes.get_errno() in (errno.EINVAL, errno.ENOENT):
            return []
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    count = struct.unpack_from("=I", attr.raw, 24)[0]
    return list(zip(programs[:count], links[:count], strict=True))


def attached() -> list[tuple[str, str, int, int]]:
    """(device, direction, program id, link id or 0)."""
    return [
        (name, direction, program, link)
        for ifindex, name in socket.if_nameindex()
        for direction, attach_type in DIRECTIONS.items()
        for program, link in tcx_programs(ifindex, attach_type)
    ]
