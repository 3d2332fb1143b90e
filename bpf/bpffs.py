# SPDX-License-Identifier: Apache-2.0
"""The BPF file system: mounted when it is not, our directories in it, and locks on them."""

from __future__ import annotations

import fcntl
import posix

from cni import files
from cni.errors import NODE_NOT_READY, CniError
from cni.net import syscall

from . import pins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


def ensure_directory(plugin: str) -> None:
    """Make <plugin>/links below our root, mounting bpffs first where nothing is mounted."""
    path = pins.links_directory(plugin)
    if exists(path):
        return
    _ensure_mounted()
    for directory in (pins.ROOT, pins.directory(plugin), path):
        try:
            posix.mkdir(directory, 0o700)
        except FileExistsError:
            continue
        except OSError as error:
            raise CniError(
                NODE_NOT_READY, f"{directory} cannot be made: {error.strerror}; {pins.BPFFS} must be a bpffs, "
                f"see: findmnt {pins.BPFFS}"
            ) from None  # fmt: skip


def exists(path: str) -> bool:
    try:
        posix.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _ensure_mounted() -> None:
    """Under a lock: mount(2) stacks a second bpffs over the first one instead of refusing it."""
    try:
        point = posix.open(pins.BPFFS, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_DIRECTORY)
    except FileNotFoundError:
        raise CniError(
            NODE_NOT_READY,
            f"{pins.BPFFS} does not exist; is sysfs mounted on /sys, and has the kernel CONFIG_BPF_SYSCALL?",
        ) from None
    try:
        fcntl.flock(point, fcntl.LOCK_EX)
        kind = _mounted_kind()
        if not kind:
            _mount()
        elif kind != "bpf":
            raise CniError(
                NODE_NOT_READY,
                f"{pins.BPFFS} is a {kind}, not a bpffs; type: umount {pins.BPFFS} && mount -t bpf bpf {pins.BPFFS}",
            )
    finally:
        posix.close(point)


def _mounted_kind() -> str:
    """The type of what is mounted on the mount point, empty when nothing is.

    Mounts that another one on /sys hides are listed beside those that are seen, with the same path: the device's number
    tells them apart. See proc_pid_mountinfo(5).
    """
    device = posix.stat(pins.BPFFS).st_dev
    if device == posix.stat(f"{pins.BPFFS}/..").st_dev:
        return ""
    number = b"%d:%d" % (posix.major(device), posix.minor(device))
    for line in (files.read("/proc/thread-self/mountinfo") or b"").splitlines():
        fields = line.split(b" ")
        if fields[2] == number:
            return fields[fields.index(b"-") + 1].decode()
    return "file system that is not listed"


def _mount() -> None:
    try:
        syscall.mount("bpf", pins.BPFFS, "bpf")
    except OSError as error:
        raise CniError(
            NODE_NOT_READY,
            f"{pins.BPFFS}: no bpffs is mounted and mounting it failed: {error.strerror}; "
            f"type: mount -t bpf bpf {pins.BPFFS}",
        ) from None


def ensure_run_directory() -> None:
    try:
        posix.mkdir(pins.RUN, 0o700)
    except FileExistsError:
        return


class Lock:
    """An exclusive flock on one of our directories, for one read-modify-write of shared node state."""

    __slots__ = ("_descriptor", "_path")

    def __init__(self, plugin: str = "") -> None:
        self._path = pins.directory(plugin) if plugin else pins.ROOT
        self._descriptor = -1

    def __enter__(self) -> Lock:
        self._descriptor = posix.open(self._path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_DIRECTORY)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        posix.close(self._descriptor)


def unlink(path: str) -> None:
    """Remove one of our pins; one that is already gone is fine."""
    if not pins.is_ours(path):
        raise ValueError(f"refusing to remove {path}: it is not below {pins.ROOT}")
    try:
        posix.unlink(path)
    except FileNotFoundError:
        return


def list_directory(path: str) -> list[str]:
    try:
        return sorted(posix.listdir(path))
    except FileNotFoundError:
        return []
