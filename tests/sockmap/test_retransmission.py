# SPDX-License-Identifier: Apache-2.0
"""A segment that comes again together with what follows it: accelerated sockets that went back to TCP read it once."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.sockmap.attached import CHECKOUT, Attached, attach
from tests.sockmap.connections import PATIENCE_SEC, Ends, connected, exact, to_the_end
from tests.sockmap.exchange import in_pod
from tests.sockmap.pods import Pod

pytestmark = [pytest.mark.needs("sockmap"), pytest.mark.feature("sockmap: every byte")]

NO_ANSWERS = """
    nft add table inet t
    nft add chain inet t out '{{ type filter hook output priority 0; }}'
    nft add rule inet t out tcp sport {port} drop
"""
NO_SEGMENTS = """
    nft add chain inet t in '{{ type filter hook input priority 0; }}'
    nft add rule inet t in tcp dport {port} drop
"""


@contextmanager
def untold(ends: Ends, sender: Pod, receiver: Pod, first: bytes) -> Iterator[None]:
    """The server reads `first`, of which the client is not told; what is sent in the block is lost at first."""
    port = ends.server.getsockname()[1]
    ends.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Or else a probe would send the last segment alone.
    in_pod(sender, "sysctl -qw net.ipv4.tcp_early_retrans=0")
    in_pod(receiver, NO_ANSWERS.format(port=port))
    try:
        ends.client.sendall(first)
        assert exact(ends.server, len(first)) == first
        in_pod(receiver, NO_SEGMENTS.format(port=port))
        yield
    finally:
        in_pod(receiver, "nft delete table inet t")


def gone_to_tcp(programs: Attached, ends: Ends) -> None:
    ends.client.sendall(b"hello")
    exact(ends.server, 5)
    programs.forget_pods()


@pytest.mark.parametrize("first_size", [1, 1000])
def test_a_segment_that_comes_again_with_the_next_is_read_once(
    accelerated: Attached, app: Pod, db: Pod, first_size: int
) -> None:
    first, second = os.urandom(first_size), os.urandom(300)
    with connected(app, db, db.ipv4) as ends:
        gone_to_tcp(accelerated, ends)
        for _ in range(3):
            with untold(ends, app, db, first):
                ends.client.sendall(second)
            assert exact(ends.server, len(second)) == second
        ends.client.sendall(b"bye")
        ends.client.shutdown(socket.SHUT_WR)
        assert to_the_end(ends.server) == (b"bye", None)


@pytest.mark.parametrize("first_size", [2048, 4096, 40_000])
def test_a_large_segment_over_loopback_is_read_once(accelerated: Attached, app: Pod, first_size: int) -> None:
    first, second = os.urandom(first_size), os.urandom(20_000)
    with connected(app, app, "127.0.0.1") as ends:
        gone_to_tcp(accelerated, ends)
        with untold(ends, app, app, first):
            ends.client.sendall(second)
        assert exact(ends.server, len(second)) == second
        ends.client.shutdown(socket.SHUT_WR)
        assert to_the_end(ends.server) == (b"", None)


def test_a_segment_whose_only_news_is_the_end_ends_the_stream(accelerated: Attached, app: Pod, db: Pod) -> None:
    with connected(app, db, db.ipv4) as ends:
        gone_to_tcp(accelerated, ends)
        with untold(ends, app, db, b"the last words"):
            ends.client.shutdown(socket.SHUT_WR)
        assert to_the_end(ends.server) == (b"", None)


def acknowledged(sender: socket.socket) -> None:
    """Waits until the peer's TCP has all that was sent by TCP, whether it was read or not."""
    deadline = time.monotonic() + PATIENCE_SEC
    while unacknowledged := struct.unpack("=i", fcntl.ioctl(sender, termios.TIOCOUTQ, bytes(4)))[0]:
        assert time.monotonic() < deadline, f"{unacknowledged} bytes are still under way"
        time.sleep(0.01)


@pytest.fixture
def starved(app: Pod, db: Pod) -> Iterator[Attached]:
    """Programs that find no memory to cut a segment; whatever is behind unread bytes goes by TCP."""
    with attach(CHECKOUT / "build/tests/starved.bpf.o") as made:
        for pod in (app, db):
            made.add_pod(pod.cookie, [pod.ipv4], limit_bytes=1)
        yield made


def test_nothing_is_read_behind_a_segment_that_could_not_be_cut(starved: Attached, app: Pod, db: Pod) -> None:
    with connected(app, db, db.ipv4) as ends:
        ends.client.sendall(b"once")
        assert starved.counters(app.cookie)["redirected_msgs"] == 1
        # This one is read meanwhile; what goes by TCP, the same again, waits behind it.
        with untold(ends, app, db, b"once"):
            ends.client.sendall(b"lost")
        acknowledged(ends.client)
        assert exact(ends.server, 4) == b"once"
        ends.server.settimeout(1)
        for _ in range(3):
            ends.client.sendall(b"behind")
            with pytest.raises(TimeoutError):
                ends.server.recv(1)
        assert starved.counters(app.cookie)["redirected_msgs"] == 1
        ends.client.shutdown(socket.SHUT_WR)
        assert to_the_end(ends.server) == (b"", None)
