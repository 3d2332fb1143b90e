# SPDX-License-Identifier: Apache-2.0
"""Two connected sockets of pods, and what tests do with them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.sockmap.pods import Pod

LINGER_0 = struct.pack("=ii", 1, 0)
PATIENCE_SEC = 20
QUIET_SEC = 0.3


class Ends(NamedTuple):
    """Both ends of a connection; blocking, with a time limit on every call."""

    client: socket.socket
    server: socket.socket


Prepare = Callable[[socket.socket], object]


def nothing(_: socket.socket) -> None:
    """For a socket that needs no preparation."""


def listen(pod: Pod, address: str, prepare: Prepare = nothing, port: int = 0) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = pod.inside(socket.socket, family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    prepare(made)
    made.bind((address, port))
    made.listen(64)
    made.settimeout(PATIENCE_SEC)
    return made


@contextmanager
def connected(
    client: Pod,
    server: Pod,
    address: str,
    *,
    prepare_client: Prepare = nothing,
    prepare_listener: Prepare = nothing,
    port: int = 0,
) -> Iterator[Ends]:
    """A connection from one pod to an address of the other; the preparations come before connect() and listen()."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(server, address, prepare_listener, port))
        mine = stack.enter_context(client.inside(socket.socket, listener.family, socket.SOCK_STREAM))
        mine.settimeout(PATIENCE_SEC)
        prepare_client(mine)
        mine.connect(listener.getsockname()[:2])
        accepted = stack.enter_context(listener.accept()[0])
        accepted.settimeout(PATIENCE_SEC)
        yield Ends(mine, accepted)


def exact(receiver: socket.socket, size: int) -> bytes:
    """So many bytes, or what came before the end."""
    parts, left = [], size
    while left and (part := receiver.recv(min(left, 65536))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def to_the_end(receiver: socket.socket) -> tuple[bytes, type[OSError] | None]:
    """All that comes, and the error that ended it; None for the end of the stream."""
    parts = []
    try:
        while part := receiver.recv(65536):
            parts.append(part)
    except OSError as error:
        return b"".join(parts), type(error)
    return b"".join(parts), None


def echo_once(ends: Ends, size: int = 1000) -> None:
    """One request and its answer, compared."""
    request, answer = os.urandom(size), os.urandom(size)
    ends.client.sendall(request)
    assert exact(ends.server, size) == request
    ends.server.sendall(answer)
    assert exact(ends.client, size) == answer


@contextmanager
def reading(receiver: socket.socket) -> Iterator[list[bytes]]:
    """Reads to the end in another thread meanwhile; the list then holds the digest of all that came."""
    digest: list[bytes] = []
    thread = threading.Thread(target=lambda: digest.append(sha(to_the_end(receiver)[0])))
    thread.start()
    yield digest
    thread.join(PATIENCE_SEC * 3)
    assert not thread.is_alive(), "the reader waits for ever"


def sha(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def fill(sender: socket.socket, most: int = 1 << 40) -> bytes:
    """Sends until nothing more fits for QUIET_SEC; what was sent."""
    block, sent = os.urandom(65536), bytearray()
    sender.setblocking(False)
    deadline = time.monotonic() + QUIET_SEC
    while time.monotonic() < deadline and len(sent) < most:
        try:
            count = sender.send(block)
        except BlockingIOError:
            time.sleep(0.01)
            continue
        sent += block[:count]
        deadline = time.monotonic() + QUIET_SEC
    sender.settimeout(PATIENCE_SEC)
    return bytes(sent)
