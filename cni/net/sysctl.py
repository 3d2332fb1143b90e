# SPDX-License-Identifier: Apache-2.0
"""Settings under /proc/sys/net of the current network namespace. The node's own are read, never written."""

from __future__ import annotations

import posix

from .. import files
from ..errors import NODE_NOT_READY, CniError

FORWARDING = {2: "net.ipv4.ip_forward", 10: "net.ipv6.conf.all.forwarding"}
"""By address family, AF_INET and AF_INET6."""


def read(key: str) -> str | None:
    """The value without its newline, or None when this kernel has no such setting."""
    content = files.read(_path(key))
    return None if content is None else content.decode().strip()


def write(key: str, value: str) -> None:
    """Only ever called inside a pod's namespace."""
    descriptor = posix.open(_path(key), posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(descriptor, value.encode())
    finally:
        posix.close(descriptor)


def _path(key: str) -> str:
    """Dots separate, except that a device's own name may hold some: write it with '/' then, as sysctl(8) does."""
    return "/proc/sys/" + (key if "/" in key else key.replace(".", "/"))


def require_forwarding(families: set[int]) -> None:
    """Raises CniError(NODE_NOT_READY) with the command to type. bypath never writes a sysctl of the node silently."""
    for family in sorted(families):
        key = FORWARDING[family]
        if read(key) != "1":
            raise CniError(
                NODE_NOT_READY,
                f"{key} is not 1, so the node would not route its pods' packets; type: sysctl -w {key}=1"
                f" (and keep it in /etc/sysctl.d/)",
            )


def enable_ipv6(ifname: str) -> None:
    """In a pod's namespace: a runtime may have made it with IPv6 off, and the kernel then refuses IPv6 addresses."""
    key = f"net/ipv6/conf/{ifname}/disable_ipv6"
    if read(key) == "1":
        write(key, "0")
