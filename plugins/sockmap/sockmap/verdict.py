# SPDX-License-Identifier: Apache-2.0
"""What the self-test found on this kernel, kept for a boot: a pod that comes later reads one small file.

The file holds the boot's id, the object's hash and the fault, a line each; the third line is empty when there is none.
A file that is damaged, of another boot or of another object counts as none, and the test runs again.
"""

from __future__ import annotations

import posix

from bpf import bpffs, loader, pins
from cni import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bpf.loader import Object

PATH = f"{pins.RUN}/sockmap-selftest"
_FRESH = f"{PATH}.new"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def known(wanted: Object) -> str | None:
    """The fault, as a sentence without its end; empty when the kernel is suitable; None when nobody has tried yet."""
    lines = (files.read(PATH) or b"").decode("utf-8", "replace").split("\n")
    if len(lines) != 4 or lines[:2] != _heading(wanted):
        return None
    return lines[2]


def find(wanted: Object, test: Callable[[Object], str]) -> str:
    """The fault, from `test` if it is not known. Those who come meanwhile wait for the one that tests.

    Raises what `test` raises, and then nothing is remembered.
    """
    bpffs.ensure_directory(wanted.plugin)
    with bpffs.Lock(wanted.plugin):
        fault = known(wanted)
        if fault is None:
            fault = test(wanted).replace("\n", " ")
            _remember(wanted, fault)
        return fault


def forget() -> None:
    """The next one who asks tests again."""
    try:
        posix.unlink(PATH)
    except FileNotFoundError:
        return


def _remember(wanted: Object, fault: str) -> None:
    """Whole or not at all."""
    bpffs.ensure_run_directory()
    descriptor = posix.open(_FRESH, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o644)
    try:
        content = "\n".join([*_heading(wanted), fault, ""]).encode()
        while content:
            content = content[posix.write(descriptor, content) :]
    finally:
        posix.close(descriptor)
    posix.rename(_FRESH, PATH)


def _heading(wanted: Object) -> list[str]:
    boot = files.read(_BOOT_ID) or b""
    return [boot.decode().strip(), loader.digest(wanted.file).hex()]
