# SPDX-License-Identifier: Apache-2.0
"""Readers that stopped hold no more memory than the node's limit, and a TCP window each."""

from __future__ import annotations

import contextlib
import re

import pytest

from tests.sockmap.attached import MIB, Attached
from tests.sockmap.connections import Ends, connected, exact, fill, sha
from tests.sockmap.pods import Pod

pytestmark = [pytest.mark.needs("sockmap"), pytest.mark.feature("sockmap: memory")]

STOPPED = 8
PAGE_BYTES = 4096
WINDOW_BYTES = 256 * 1024
"""SM_WINDOW_BYTES: what a direction may queue on a node that is full."""


def tcp_memory() -> int:
    """Bytes that TCP sockets of the whole machine have charged."""
    with open("/proc/net/sockstat") as text:
        found = re.search(r"^TCP:.* mem (\d+)", text.read(), re.MULTILINE)
    assert found
    return int(found[1]) * PAGE_BYTES


def stuck(stack: contextlib.ExitStack, app: Pod, db: Pod, count: int) -> list[tuple[Ends, bytes]]:
    """Connections whose readers have stopped, with all that their senders could send."""
    pairs = [stack.enter_context(connected(app, db, db.ipv4)) for _ in range(count)]
    return [(ends, fill(ends.client)) for ends in pairs]


def plain_window(app: Pod, db: Pod) -> int:
    """What one sender can send to a stopped reader by TCP alone: both sides' buffers."""
    with contextlib.ExitStack() as stack:
        return len(stuck(stack, app, db, 1)[0][1])


@pytest.mark.parametrize("limit_bytes", [MIB, 16 * MIB])
def test_one_direction_queues_its_limit_and_a_tcp_window(
    programs: Attached, app: Pod, db: Pod, limit_bytes: int
) -> None:
    window = plain_window(app, db)
    for pod in (app, db):
        programs.add_pod(pod.cookie, [pod.ipv4], limit_bytes=limit_bytes)
    with contextlib.ExitStack() as stack:
        ends, sent = stuck(stack, app, db, 1)[0]
        found = programs.counters(app.cookie)
        assert limit_bytes - 65536 < found["redirected_bytes"] <= limit_bytes
        assert len(sent) <= limit_bytes + 2 * window
        assert sha(exact(ends.server, len(sent))) == sha(sent)


def test_stopped_readers_hold_the_nodes_limit_and_a_window_each(programs: Attached, app: Pod, db: Pod) -> None:
    window = plain_window(app, db)
    for pod in (app, db):
        programs.add_pod(pod.cookie, [pod.ipv4], limit_bytes=64 * MIB)
    before = tcp_memory()
    cap = before + 48 * MIB
    programs.set_node_limit(cap)
    with contextlib.ExitStack() as stack:
        pairs = stuck(stack, app, db, STOPPED)
        held, redirected = tcp_memory(), programs.counters(app.cookie)["redirected_bytes"]
        # The kernel's figure lags by up to a MiB for each processor; payload is charged with its overhead.
        assert held <= cap + STOPPED * 3 * (window + WINDOW_BYTES)
        assert 32 * MIB < redirected <= 48 * MIB + STOPPED * WINDOW_BYTES + 8 * MIB
        for ends, sent in pairs:
            assert sha(exact(ends.server, len(sent))) == sha(sent)


def test_a_node_that_fills_is_noticed_within_a_window(programs: Attached, app: Pod, db: Pod) -> None:
    for pod in (app, db):
        programs.add_pod(pod.cookie, [pod.ipv4], limit_bytes=64 * MIB)
    with connected(app, db, db.ipv4) as ends:
        sent = fill(ends.client, 4 * MIB)
        redirected = programs.counters(app.cookie)["redirected_bytes"]
        assert redirected == len(sent)
        programs.set_node_limit(1)
        sent += fill(ends.client)
        found = programs.counters(app.cookie)
        assert found["redirected_bytes"] - redirected <= WINDOW_BYTES
        assert found["passed_bytes"] and found["spills"] == 1
        assert sha(exact(ends.server, len(sent))) == sha(sent)


def test_a_direction_on_a_full_node_queues_a_window_and_again_when_it_is_read(
    programs: Attached, app: Pod, db: Pod
) -> None:
    for pod in (app, db):
        programs.add_pod(pod.cookie, [pod.ipv4], limit_bytes=64 * MIB)
    with connected(app, db, db.ipv4) as other, connected(app, db, db.ipv4) as ends:
        # The kernel counts memory in steps of up to a MiB for each processor: what fills the node is more than that.
        fill(other.client, 8 * MIB)
        programs.set_node_limit(1)
        for turn in range(1, 4):
            before = programs.counters(app.cookie)["redirected_bytes"]
            sent = fill(ends.client)
            assert sha(exact(ends.server, len(sent))) == sha(sent)
            found = programs.counters(app.cookie)
            assert found["redirected_bytes"] - before == WINDOW_BYTES
            assert found["spills"] == turn
            # The message behind one that TCP had no room for goes by TCP: the kernel does not show it to the program.
            ends.client.sendall(b"behind")
            assert exact(ends.server, 6) == b"behind"
