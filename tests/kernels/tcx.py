# SPDX-License-Identifier: Apache-2.0
"""Exits 0 when a BPF link can be attached to the loopback of this network namespace through TCX."""

from __future__ import annotations

from struct import pack

from cni.net.syscall import Buffer, call

PROG_LOAD, LINK_CREATE = 5, 28
SCHED_CLS, TCX_INGRESS = 3, 46
LOOPBACK = 1
# r0 = -1 (TCX_NEXT); exit
PROGRAM = bytes.fromhex("b7000000ffffffff9500000000000000")


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2). Raises OSError."""
    buffer = Buffer(attributes)
    return call("bpf", command, buffer.address, len(attributes))


def main() -> None:
    """Load, attach; both are gone with the process."""
    program, license_name = Buffer(PROGRAM), Buffer(b"GPL\0")
    loaded = bpf(PROG_LOAD, pack("=IIQQ", SCHED_CLS, len(PROGRAM) // 8, program.address, license_name.address))
    bpf(LINK_CREATE, pack("=IIIIIIQ", loaded, LOOPBACK, TCX_INGRESS, 0, 0, 0, 0))


if __name__ == "__main__":
    main()
