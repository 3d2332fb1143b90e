# SPDX-License-Identifier: Apache-2.0
"""What applications rely on in a stream, over an accelerated connection: order, ends, resets, wake-ups, counts."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from tests.sockmap.attached import Attached
from tests.sockmap.connections import (
    LINGER_0,
    Ends,
    connected,
    echo_once,
    exact,
    fill,
    listen,
    reading,
    sha,
    to_the_end,
)
from tests.sockmap.pods import Pod
from tests.sockmap.probe import readable_bytes

pytestmark = [pytest.mark.needs("sockmap"), pytest.mark.feature("sockmap: every byte")]

HALF_MIB = 1 << 19
SO_ZEROCOPY = 60


def redirected(programs: Attached, *pods: Pod) -> int:
    return programs.counters(*{pod.cookie for pod in pods})["redirected_bytes"]


def test_a_server_may_speak_first(accelerated: Attached, app: Pod, db: Pod) -> None:
    with connected(app, db, db.ipv4) as ends:
        ends.server.sendall(b"220 ready")
        assert exact(ends.client, 9) == b"220 ready"
        echo_once(ends)
    assert redirected(accelerated, app, db) == 2009


def test_what_is_readable_is_counted_right_whichever_way_it_came(accelerated: Attached, app: Pod, db: Pod) -> None:
    with connected(app, db, db.ipv4) as ends:
        ends.client.sendall(bytes(700))
        assert readable_bytes(ends.server) == 700
        exact(ends.server, 300)
        assert readable_bytes(ends.server) == 400
        accelerated.forget_pods()
        ends.client.sendall(bytes(50))
        time.sleep(0.1)
        assert readable_bytes(ends.server) == 450
        exact(ends.server, 450)
        assert readable_bytes(ends.server) == 0


def test_a_deferred_accept_begins_by_tcp_and_comes_back(accelerated: Attached, app: Pod, db: Pod) -> None:
    """The server's socket exists only when data has come: that went by TCP, and once it is read the rest does not."""
    listener = listen(db, db.ipv4, lambda made: made.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5))
    with listener, app.inside(socket.create_connection, listener.getsockname()) as client:
        client.sendall(b"first")
        server, _ = listener.accept()
        with server:
            assert exact(server, 5) == b"first"
            echo_once(Ends(client, server))
    found = accelerated.counters(app.cookie, db.cookie)
    assert (found["passed_bytes"], found["fallback_conns"], found["redirected_bytes"]) == (5, 1, 2000)


def test_fast_open_stays_plain(accelerated: Attached, app: Pod, db: Pod) -> None:
    for pod in (app, db):
        subprocess.run(["nsenter", f"--net={pod.path}", "sysctl", "-qw", "net.ipv4.tcp_fastopen=3"], check=True)
    with listen(db, db.ipv4, lambda made: made.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)) as listener:
        for _ in range(3):
            client = app.inside(socket.socket, socket.AF_INET, socket.SOCK_STREAM)
            client.sendto(b"early data", socket.MSG_FASTOPEN, listener.getsockname())
            server, _ = listener.accept()
            with client, server:
                assert accelerated.sockets() == 0
                assert exact(server, 10) == b"early data"
                echo_once(Ends(client, server))
    assert redirected(accelerated, app, db) == 0


def send_both(sender: socket.socket, first: bytes, second: bytes) -> None:
    sender.sendall(first)
    sender.sendall(second)


def test_what_waits_for_the_connection_to_be_established_keeps_its_order(
    accelerated: Attached, app: Pod, db: Pod
) -> None:
    """A send() that began before the socket entered the map goes on by TCP, while later ones see the map."""
    first, second = os.urandom(3 << 20), os.urandom(1 << 20)
    for _ in range(10):
        with listen(db, db.ipv4) as listener, app.inside(socket.socket) as client:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            client.settimeout(20)
            sender = threading.Thread(target=send_both, args=(client, first, second))
            sender.start()
            server, _ = listener.accept()
            with server:
                server.settimeout(20)
                assert sha(exact(server, len(first) + len(second))) == sha(first + second)
            sender.join()


@pytest.mark.parametrize("size", [1, 1000, HALF_MIB])
def test_an_answer_after_a_half_close_arrives_whole(accelerated: Attached, app: Pod, db: Pod, size: int) -> None:
    request, answer = os.urandom(size), os.urandom(size)
    with connected(app, db, db.ipv4) as ends:
        ends.client.sendall(request)
        ends.client.shutdown(socket.SHUT_WR)
        assert to_the_end(ends.server) == (request, None)
        with reading(ends.client) as digest:
            ends.server.sendall(answer)
            ends.server.shutdown(socket.SHUT_WR)
        assert digest == [sha(answer)]
    assert redirected(accelerated, app, db) == 2 * size


def test_unread_bytes_survive_the_senders_close(accelerated: Attached, app: Pod, db: Pod) -> None:
    """Also when the reader's own late bytes are answered by a reset."""
    content = os.urandom(HALF_MIB)
    with connected(app, db, db.ipv4) as ends:
        ends.server.sendall(content)
        ends.server.close()
        time.sleep(0.05)
        ends.client.send(b"late")
        time.sleep(0.05)
        assert to_the_end(ends.client) == (content, None)


def test_a_reset_ends_the_other_side_at_once(accelerated: Attached, app: Pod, db: Pod) -> None:
    with connected(app, db, db.ipv4) as ends:
        echo_once(ends)
        ends.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        ends.server.close()
        start = time.monotonic()
        assert to_the_end(ends.client) == (b"", ConnectionResetError)
        assert time.monotonic() - start < 1


def test_a_reset_that_got_lost_is_found_out(accelerated: Attached, app: Pod, db: Pod) -> None:
    """A locked socket with a long queue drops it; here a filter does, for a moment."""
    rules = "add table inet t; add chain inet t in { type filter hook input priority 0; }; "
    rules += "add rule inet t in tcp flags rst drop"
    with connected(app, db, db.ipv4) as ends:
        echo_once(ends)
        subprocess.run(["nsenter", f"--net={app.path}", "nft", rules], check=True)
        ends.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        ends.server.close()
        time.sleep(0.2)
        subprocess.run(["nsenter", f"--net={app.path}", "nft", "delete table inet t"], check=True)
        ends.client.settimeout(15)
        assert to_the_end(ends.client) == (b"", ConnectionResetError)


def test_settings_of_its_own_for_probes_are_left_alone(accelerated: Attached, app: Pod, db: Pod) -> None:
    def probes(made: socket.socket) -> None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    with connected(app, db, db.ipv4, prepare_client=probes) as ends:
        assert ends.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7200
        assert ends.server.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10


def test_a_reader_told_once_is_told_each_time(accelerated: Attached, app: Pod, db: Pod) -> None:
    with connected(app, db, db.ipv4) as ends, select.epoll() as watcher:
        ends.server.setblocking(False)
        watcher.register(ends.server, select.EPOLLIN | select.EPOLLET)
        assert watcher.poll(0) == []
        for size in (1, 5, HALF_MIB, 3):
            ends.client.sendall(bytes(size))
            assert watcher.poll(5) == [(ends.server.fileno(), select.EPOLLIN)]
            left = size
            while left:
                left -= len(ends.server.recv(65536))
            with pytest.raises(BlockingIOError):
                ends.server.recv(1)
        ends.client.shutdown(socket.SHUT_WR)
        assert watcher.poll(5)[0][1] & select.EPOLLIN
        assert ends.server.recv(1) == b""


def dissolve(connection: socket.socket) -> None:
    """connect() to no address at all, for which Python has no words."""
    unspecified = struct.pack("=H14x", socket.AF_UNSPEC)
    assert ctypes.CDLL(None, use_errno=True).connect(connection.fileno(), unspecified, len(unspecified)) == 0


def test_a_socket_that_is_connected_again_reads_nothing_of_before(accelerated: Attached, app: Pod, db: Pod) -> None:
    with connected(app, db, db.ipv4) as ends, listen(db, db.ipv4) as another:
        echo_once(ends)
        ends.server.sendall(b"unread")
        dissolve(ends.client)
        ends.client.connect(another.getsockname())
        server, _ = another.accept()
        with server:
            before = redirected(accelerated, app, db)
            echo_once(Ends(ends.client, server))
            assert redirected(accelerated, app, db) == before + 2000


def test_a_socket_that_is_connected_again_counts_segments_anew(accelerated: Attached, app: Pod, db: Pod) -> None:
    """Whether the next connection's sequence numbers are behind those of the last is chance, so many are made."""
    with listen(db, db.ipv4) as listener, app.inside(socket.socket) as client:
        client.settimeout(5)
        for _ in range(12):
            client.connect(listener.getsockname())
            server, _ = listener.accept()
            with server:
                server.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
                server.sendall(b"by TCP")
                assert exact(client, 6) == b"by TCP"
                dissolve(client)
    assert accelerated.counters(db.cookie)["passed_bytes"] == 12 * 6


def test_zero_copy_that_is_asked_for_later_goes_by_tcp(accelerated: Attached, app: Pod, db: Pod) -> None:
    with connected(app, db, db.ipv4) as ends:
        echo_once(ends)
        before = redirected(accelerated, app, db)
        ends.client.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
        ends.client.sendall(b"by TCP")
        assert exact(ends.server, 6) == b"by TCP"
        assert redirected(accelerated, app, db) == before


def test_a_full_queue_turns_to_tcp_and_back(accelerated: Attached, app: Pod, db: Pod) -> None:
    for pod in (app, db):
        accelerated.add_pod(pod.cookie, [pod.ipv4], limit_bytes=200_000)
    with connected(app, db, db.ipv4) as ends:
        sent = fill(ends.client)
        assert len(sent) > 300_000
        spilled = accelerated.counters(app.cookie)
        assert spilled["spills"] == 1 and 0 < spilled["redirected_bytes"] <= 200_000
        assert sha(exact(ends.server, len(sent))) == sha(sent)
        # The first message after one that TCP had no room for is not shown to the program (tcp_bpf_send_verdict()).
        for _ in range(3):
            echo_once(ends)
        assert accelerated.counters(app.cookie)["redirected_bytes"] == spilled["redirected_bytes"] + 2000


@pytest.mark.parametrize("victim", ["sender", "reader"])
def test_a_process_killed_in_the_middle_ends_its_connection(
    accelerated: Attached, app: Pod, db: Pod, victim: str
) -> None:
    block = os.urandom(1 << 16)
    with connected(app, db, db.ipv4) as ends:
        mine, others = (ends.client, ends.server) if victim == "sender" else (ends.server, ends.client)
        child = os.fork()
        if not child:
            others.close()
            while True:
                mine.sendall(block) if victim == "sender" else mine.recv(1 << 16)
        mine.close()
        threading.Timer(0.2, os.kill, (child, signal.SIGKILL)).start()
        if victim == "sender":
            content, error = to_the_end(others)
            assert error in (None, ConnectionResetError)
            assert content == (block * (len(content) // len(block) + 1))[: len(content)]
        else:
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                while True:
                    others.sendall(block)
        os.waitpid(child, 0)
