# SPDX-License-Identifier: Apache-2.0
"""Whether redirected bytes behave as an application expects on this kernel: tried, not looked up by its version.

The first ADD of a boot that has a policy runs this in a network namespace of its own, with an own instance of the
object, whose maps and programs are pinned nowhere: whatever happens to the process, the kernel takes all of it back.
"""

from __future__ import annotations

import _socket
import fcntl
import posix
import time
from _struct import unpack

from bpf.loader import Object, object_path
from cni import log
from cni.errors import CniError
from sockmap.scratch import LIMIT_BYTES, Scratch, Unsuitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from collections.abc import Callable

_FIONREAD = 0x541B
_PATIENCE_SEC = 3.0
"""For what must come. Far more than it takes: a verdict is for a whole boot, and the machine may be busy with it."""
_STOPPED_SEC = 0.02
"""How long a sender gets nothing off before it counts as stopped."""
_CHUNK_BYTES = 16 << 10
_MESSAGE_BYTES = 1000


def run(wanted: Object) -> str:
    """The fault as a sentence without its end, empty when there is none. Takes 0.1 s where there is none.

    Raises CniError(INTERNAL) or OSError for what says nothing about the kernel, such as a missing object.
    """
    from bpf.libbpf import BpfObject

    with BpfObject.open(object_path(wanted.file)) as loaded:
        try:
            loaded.load()
        except CniError as error:
            log.warn(error.details)
            return error.msg
        try:
            with Scratch(loaded) as scratch:
                for behaviour in (_pairs, _tells_what_waits, _wakes_by_edge, _spills_and_stops):
                    behaviour(scratch)
        except Unsuitable as fault:
            return f"kernel {posix.uname().release} failed the self-test of redirected TCP: {fault}"
    return ""


def _pairs(scratch: Scratch) -> None:
    sender, receiver = _joined(scratch)
    sent = posix.urandom(_MESSAGE_BYTES)
    sender.send(sent)
    if _received(receiver, len(sent)) != sent:
        raise Unsuitable("pairing: the bytes that came are not those that were sent")
    receiver.send(sent)
    if _received(sender, len(sent)) != sent:
        raise Unsuitable("pairing: the bytes that came back are not those that were sent")
    redirected = scratch.counters()["redirected_bytes"]
    if redirected != 2 * len(sent):
        raise Unsuitable(f"pairing: {redirected} of {2 * len(sent)} bytes were redirected")


def _tells_what_waits(scratch: Scratch) -> None:
    """nginx asks FIONREAD before it reads; told 0, as Linux 6.1 does, it waits for ever."""
    sender, receiver = _joined(scratch)
    sender.send(bytes(_MESSAGE_BYTES))
    _expect_waiting(receiver, _MESSAGE_BYTES)
    _received(receiver, _MESSAGE_BYTES)
    _expect_waiting(receiver, 0)


def _wakes_by_edge(scratch: Scratch) -> None:
    import select

    sender, receiver = _joined(scratch)
    poller = select.epoll()
    try:
        poller.register(receiver.fileno(), select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        for unread in (0, 0, _MESSAGE_BYTES):
            sender.send(bytes(_MESSAGE_BYTES))
            _expect_event(poller, "bytes came")
            _received(receiver, _MESSAGE_BYTES - unread)
        sender.send(bytes(_MESSAGE_BYTES))
        _expect_event(poller, "more bytes came")
        sender.shutdown(_socket.SHUT_WR)
        _expect_event(poller, "the peer closed")
    finally:
        poller.close()
    if len(_received(receiver, 3 * _MESSAGE_BYTES)) != 2 * _MESSAGE_BYTES:
        raise Unsuitable("end of stream: it did not come behind the last byte")


def _spills_and_stops(scratch: Scratch) -> None:
    """A reader that stands still stops its sender; when it reads on, the bytes are in order over the change to TCP."""
    sender, receiver = _joined(scratch)
    windows = sender.getsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF)
    windows += receiver.getsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF)
    most = LIMIT_BYTES + 2 * windows + _CHUNK_BYTES
    before = scratch.counters()
    sent = _until_stopped(sender, most)
    if len(sent) > most:
        raise Unsuitable(f"stuck reader: its sender went on beyond {most} bytes")
    after = scratch.counters()
    if not after["spills"] or not after["passed_bytes"]:
        raise Unsuitable(f"spill: {len(sent)} bytes waited without a change to TCP")
    received = _received(receiver, after["redirected_bytes"] - before["redirected_bytes"])
    if not _comes_true(lambda: _waiting(receiver) > 0):
        raise Unsuitable(f"FIONREAD: 0 although {after['passed_bytes']} bytes wait that came by TCP")
    if received + _received(receiver, len(sent) - len(received)) != sent:
        raise Unsuitable("spill: the bytes that came are not those that were sent")
    sender.send(bytes(_MESSAGE_BYTES))
    _expect_waiting(receiver, _MESSAGE_BYTES)


def _joined(scratch: Scratch) -> tuple[_socket.socket, _socket.socket]:
    """A new connection with both ends in the map: bytes that are sent before go by TCP, rightly."""
    before = scratch.counters()["paired"]
    pair = scratch.connection()
    for end in pair:
        end.settimeout(_PATIENCE_SEC)
    if not _comes_true(lambda: scratch.counters()["paired"] == before + 2):
        raise Unsuitable(f"pairing: {scratch.counters()['paired'] - before} of 2 sockets found each other")
    return pair


def _received(receiver: _socket.socket, most: int) -> bytes:
    """At most so many bytes, fewer at the end of the stream or when nothing comes for too long."""
    received = b""
    try:
        while len(received) < most:
            chunk = receiver.recv(most - len(received))
            if not chunk:
                break
            received += chunk
    except TimeoutError:
        raise Unsuitable(f"reading: {len(received)} of {most} bytes came") from None
    return received


def _until_stopped(sender: _socket.socket, most: int) -> bytes:
    sender.settimeout(_STOPPED_SEC)
    sent = b""
    while len(sent) <= most:
        chunk = posix.urandom(_CHUNK_BYTES)
        try:
            sent += chunk[: sender.send(chunk)]
        except TimeoutError:
            break
    sender.settimeout(_PATIENCE_SEC)
    return sent


def _expect_waiting(receiver: _socket.socket, wanted: int) -> None:
    if not _comes_true(lambda: _waiting(receiver) == wanted):
        raise Unsuitable(f"FIONREAD: {_waiting(receiver)} instead of {wanted} bytes")


def _waiting(receiver: _socket.socket) -> int:
    return int(unpack("=i", fcntl.ioctl(receiver.fileno(), _FIONREAD, bytes(4)))[0])


def _expect_event(poller: select.epoll, when: str) -> None:
    if not poller.poll(_PATIENCE_SEC):
        raise Unsuitable(f"edge-triggered epoll: no event when {when}")


def _comes_true(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _PATIENCE_SEC
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True
