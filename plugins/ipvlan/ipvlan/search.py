# SPDX-License-Identifier: Apache-2.0
"""Every network namespace of the machine, looked into for ipvlan slaves that no record of ours tells of."""

from __future__ import annotations

import posix

from cni.net import netns
from cni.net.netlink import Socket
from cni.request import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.net.link import Link


def all_namespaces(look: Callable[[Socket], list[Link]]) -> Iterator[tuple[Link, str]]:
    """What `look` finds, with a path of the namespace it is in. Our own namespace is left out."""
    seen: set[int] = set()
    for path in (*_mounted(), *_of_processes()):
        # Without a namespace there, or with our own, this gives None; a process may end at any moment.
        pod = netns.open_if_pod(Request("", {"CNI_NETNS": path}))
        if pod is None:
            continue
        try:
            if pod.inode not in seen:
                seen.add(pod.inode)
                yield from ((slave, path) for slave in look(pod.inside(Socket)))
        finally:
            posix.close(pod.descriptor)


def _mounted() -> list[str]:
    """Namespaces that are kept by a bind mount, as `ip netns` and the container runtimes do."""
    descriptor = posix.open("/proc/self/mountinfo", posix.O_RDONLY | posix.O_CLOEXEC)
    content = b""
    try:
        while chunk := posix.read(descriptor, 1 << 16):
            content += chunk
    finally:
        posix.close(descriptor)
    rows = (line.split() for line in content.decode("utf-8", "surrogateescape").splitlines())
    # mountinfo: id, parent, device, root, mount point, ...; the root of a bound namespace is "net:[inode]".
    return [row[4].replace("\\040", " ") for row in rows if row[3].startswith("net:[")]


def _of_processes() -> Iterator[str]:
    seen: set[str] = set()
    for entry in posix.listdir("/proc"):
        if not entry.isdigit():
            continue
        path = f"/proc/{entry}/ns/net"
        try:
            identity = posix.readlink(path)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            # It ended meanwhile, or it is one of the kernel's own threads.
            continue
        if identity not in seen:
            seen.add(identity)
            yield path
