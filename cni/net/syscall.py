# SPDX-License-Identifier: Apache-2.0
"""System calls that Python 3.11 has no function for: setns(2), unshare(2), mount(2), bpf(2).

Through the C module _ctypes rather than the ctypes package, whose import costs 5 ms of every ADD. This is its only
user outside of bpf/libbpf.py.
"""

from __future__ import annotations

import _ctypes
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Numbers of asm-generic/unistd.h (aarch64, riscv64) and arch/x86/entry/syscalls/syscall_64.tbl.
_NUMBERS = {
    "x86_64": {"bpf": 321, "mount": 165, "setns": 308, "unshare": 272},
    "aarch64": {"bpf": 280, "mount": 40, "setns": 268, "unshare": 97},
    "riscv64": {"bpf": 280, "mount": 40, "setns": 268, "unshare": 97},
}


class _Long(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class _Char(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "c"


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Long


_syscall: Any = None
_numbers: dict[str, int] = {}


def call(name: str, *arguments: int) -> int:
    """Returns the call's non-negative result. Raises OSError without a file name; callers know what to say."""
    global _syscall, _numbers
    if _syscall is None:
        machine = posix.uname().machine
        if machine not in _NUMBERS:
            raise OSError(38, f"bypath knows no system call numbers for {machine}")
        _numbers = _NUMBERS[machine]
        program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]
        _syscall = _Function(_ctypes.dlsym(program, "syscall"))
    # Bare integers would be passed as C int, 32 bit wide.
    outcome: int = _syscall(_numbers[name], *[_Long(argument) for argument in arguments])
    if outcome < 0:
        number = _ctypes.get_errno()
        raise OSError(number, posix.strerror(number))
    return outcome


class Buffer:
    """Memory that the kernel may read and write: `data`, and its address for use in a struct or as an argument."""

    __slots__ = ("_view", "address", "data")

    def __init__(self, content: bytes | int) -> None:
        self.data = bytearray(content)
        self._view = (_Char * len(self.data)).from_buffer(self.data)
        self.address: int = _ctypes.addressof(self._view)


def setns(descriptor: int, kind: int) -> None:
    call("setns", descriptor, kind)


def mount(source: str, target: str, kind: str) -> None:
    texts = [Buffer(text.encode() + b"\0") for text in (source, target, kind)]
    call("mount", *[text.address for text in texts], 0, 0)
