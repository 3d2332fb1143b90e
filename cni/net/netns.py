# SPDX-License-Identifier: Apache-2.0
"""The pod's network namespace: opened once, recognised, entered for as long as it takes to make a socket."""

from __future__ import annotations

import _socket
import errno
import fcntl
import posix
from _struct import unpack

from ..errors import INVALID_ENV, CniError
from . import netlink, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from ..request import Request

    T = TypeVar("T")

_NS_GET_NSTYPE = 0xB703
_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71
_OWN = "/proc/thread-self/ns/net"


class NetNs:
    """An open network namespace.

    path         as the runtime named it
    descriptor   of the nsfs file, for setns(2) and IFLA_NET_NS_FD
    inode        of the nsfs file: its identity as long as it lives
    """

    __slots__ = ("_socket", "descriptor", "inode", "path")

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.inode = posix.fstat(descriptor).st_ino
        self._socket: netlink.Socket | None = None

    def inside(self, action: Callable[..., T], *arguments: object) -> T:
        """Run `action` in the namespace and come back, whatever it raises."""
        own = posix.open(_OWN, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            syscall.setns(self.descriptor, _CLONE_NEWNET)
            try:
                return action(*arguments)
            finally:
                syscall.setns(own, _CLONE_NEWNET)
        finally:
            posix.close(own)

    def rtnetlink(self) -> netlink.Socket:
        """The namespace's rtnetlink socket; a socket stays in the namespace in which it was made."""
        if self._socket is None:
            self._socket = self.inside(netlink.Socket)
        return self._socket


def cookie() -> int:
    """Of the current namespace, as bpf_get_netns_cookie() tells it: never given twice in a boot, unlike an inode."""
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        return int(unpack("=Q", probe.getsockopt(_socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])
    finally:
        probe.close()


def scratch() -> NetNs:
    """A new one without a name, gone when its descriptor and the last socket in it are closed. lo is down."""
    own = posix.open(_OWN, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        syscall.call("unshare", _CLONE_NEWNET)
        try:
            return NetNs("", posix.open(_OWN, posix.O_RDONLY | posix.O_CLOEXEC))
        finally:
            syscall.setns(own, _CLONE_NEWNET)
    finally:
        posix.close(own)


def open_pod(request: Request) -> NetNs:
    """CNI_NETNS, refused before any effect when it is not a network namespace or is the host's own."""
    pod, fault = _open(request)
    if pod is None:
        raise CniError(INVALID_ENV, f"CNI_NETNS {request.netns!a} {fault}")
    return pod


def open_if_pod(request: Request) -> NetNs | None:
    """For DEL: None when CNI_NETNS is unset, gone, a plain file, or the host's own; there is nothing to do inside."""
    return _open(request)[0] if request.netns else None


def reopen(path: str, inode: int) -> NetNs | None:
    """For GC: the namespace of a record, or None when it is gone or the path leads to another one by now."""
    if not path:
        return None
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except OSError:
        return None
    found = NetNs(path, descriptor)
    if found.inode == inode and not _kind_fault(descriptor):
        return found
    posix.close(descriptor)
    return None


def _open(request: Request) -> tuple[NetNs | None, str]:
    try:
        descriptor = posix.open(request.netns, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except OSError as error:
        return None, f"cannot be opened: {error.strerror}; the runtime must create it before ADD"
    except ValueError:
        return None, "is not a path"
    fault = _fault_of(descriptor, request)
    if fault:
        posix.close(descriptor)
        return None, fault
    return NetNs(request.netns, descriptor), ""


def _fault_of(descriptor: int, request: Request) -> str:
    fault = _kind_fault(descriptor)
    if not fault and not request.netns_override and _is_own(descriptor):
        fault = "is the host's own network namespace; set CNI_NETNS_OVERRIDE=1 if that is meant"
    return fault


def _kind_fault(descriptor: int) -> str:
    try:
        if fcntl.ioctl(descriptor, _NS_GET_NSTYPE) != _CLONE_NEWNET:
            return "is a namespace of another kind, not a network namespace"
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF):
            return "is not a network namespace"
        raise
    return ""


def _is_own(descriptor: int) -> bool:
    pod, own = posix.fstat(descriptor), posix.stat(_OWN)
    return (pod.st_dev, pod.st_ino) == (own.st_dev, own.st_ino)
