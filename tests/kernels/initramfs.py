# SPDX-License-Identifier: Apache-2.0
"""A first root file system of 3 MB: busybox and the modules that mount the host's root over 9p.

virtme-ng boots like this too, but it reads each file of the root uncached, which doubles the time of every start of
Python, and it runs the host's systemd-tmpfiles and udev first.
"""

from __future__ import annotations

import lzma
import pathlib
import shlex
import stat

from tests.kernels.fetch import Kernel

BUSYBOX = ("/bin/busybox", "/usr/bin/busybox", "/usr/bin/busybox-static")
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")

# cache=loose keeps pages of the host's files between processes; nothing that the guest reads changes during a run.
# /proc must be there when the shell starts: busybox runs its own applets by way of /proc/self/exe.
# The overlay makes the whole root writable in memory, so tests may install, mount and write where they like.
INIT = """#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
{insmod}
busybox mount -t tmpfs mem /mem
busybox mkdir /mem/host /mem/upper /mem/work /mem/root
busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose root /mem/host
busybox mount -t overlay -o lowerdir=/mem/host,upperdir=/mem/upper,workdir=/mem/work root /mem/root
for directory in proc sys dev; do busybox mount --move /$directory /mem/root/$directory; done
exec busybox switch_root /mem/root {busybox} sh {arguments}
"""


def build(kernel: Kernel, arguments: list[str]) -> bytes:
    """The archive for one boot; `arguments` are a shell script, process 1 in the host's root, and its arguments."""
    archive = Cpio()
    for directory in ("bin", "dev", "proc", "sys", "mem", "modules"):
        archive.add(directory, stat.S_IFDIR | 0o755)
    archive.add("bin/busybox", stat.S_IFREG | 0o755, busybox().read_bytes())
    names = []
    for module in wanted(kernel.modules):
        data = module.read_bytes()
        names.append(module.name.removesuffix(".xz"))
        data = lzma.decompress(data) if module.suffix == ".xz" else data
        archive.add(f"modules/{names[-1]}", stat.S_IFREG | 0o644, data)
    script = INIT.format(
        insmod="\n".join(f"busybox insmod /modules/{name}" for name in names),
        busybox=busybox(),
        arguments=shlex.join(arguments),
    )
    archive.add("init", stat.S_IFREG | 0o755, script.encode())
    return archive.finish()


def busybox() -> pathlib.Path:
    """The machine's busybox, statically linked as busybox-static installs it."""
    return next(path for path in map(pathlib.Path, BUSYBOX) if path.exists())


def wanted(tree: pathlib.Path) -> list[pathlib.Path]:
    """Paths of MODULES and of what they need, each after those that it needs; what is built in is left out."""
    dependencies: dict[str, list[str]] = {}
    for line in (tree / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        dependencies[path] = needs.split()
    by_name = {pathlib.Path(path).name.split(".")[0].replace("-", "_"): path for path in dependencies}
    ordered: dict[str, None] = {}
    for module in MODULES:
        if module in by_name:
            # modules.dep lists the direct needs first and the deepest last.
            ordered.update(dict.fromkeys([*reversed(dependencies[by_name[module]]), by_name[module]]))
    return [tree / path for path in ordered]


class Cpio:
    """A cpio archive in the "newc" format, the one that the kernel unpacks."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def add(self, name: str, mode: int, data: bytes = b"") -> None:
        """Append one file or directory."""
        # inode, mode, uid, gid, links, mtime, size, 4 x device, name length, checksum (unused)
        fields = (len(self.parts), mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        self.parts.append(padded(head) + padded(data))

    def finish(self) -> bytes:
        """The whole archive, with its trailer."""
        self.add("TRAILER!!!", 0)
        return b"".join(self.parts)


def padded(data: bytes) -> bytes:
    """`data` up to the next multiple of four bytes."""
    return data + bytes(-len(data) % 4)
