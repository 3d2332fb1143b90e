# SPDX-License-Identifier: Apache-2.0
"""Which sockets enter the map: those of a connection whose both ends are of pods that want it, and no others."""

from __future__ import annotations

import functools
import os
import socket

import pytest

from tests.sockmap.attached import POD, SIDECAR, Attached
from tests.sockmap.connections import connected, echo_once, exact
from tests.sockmap.pods import Pod

pytestmark = [pytest.mark.needs("sockmap"), pytest.mark.feature("sockmap: what a policy selects")]

IPPROTO_MPTCP, SO_ZEROCOPY = 262, 60
SOMEBODY = 12345


def policy(programs: Attached, pod: Pod, scopes: int = SIDECAR | POD, **settings: list[int]) -> None:
    programs.add_pod(pod.cookie, [pod.ipv4, pod.ipv6], scopes=scopes, **settings)  # type: ignore[arg-type]


def entered(programs: Attached, client: Pod, server: Pod, address: str, **options: object) -> int:
    """How many sockets of one connection, over which an exchange went well, are in the map."""
    with connected(client, server, address, **options) as ends:  # type: ignore[arg-type]
        found = programs.sockets()
        echo_once(ends)
        assert programs.sockets() == found
        return found


@pytest.mark.parametrize("which", ["neither", "client", "server", "both"])
def test_both_pods_need_a_policy(programs: Attached, app: Pod, db: Pod, which: str) -> None:
    if which in ("client", "both"):
        policy(programs, app)
    if which in ("server", "both"):
        policy(programs, db)
    for address in (db.ipv4, db.ipv6):
        assert entered(programs, app, db, address) == (2 if which == "both" else 0)


@pytest.mark.parametrize("clients", [SIDECAR, POD, SIDECAR | POD])
@pytest.mark.parametrize("servers", [SIDECAR, POD, SIDECAR | POD])
def test_both_pods_must_want_the_scope(programs: Attached, app: Pod, db: Pod, clients: int, servers: int) -> None:
    policy(programs, app, clients)
    policy(programs, db, servers)
    assert entered(programs, app, db, db.ipv4) == (2 if clients & servers & POD else 0)
    assert entered(programs, db, app, app.ipv6) == (2 if clients & servers & POD else 0)
    for address in ("127.0.0.1", "::1", app.ipv4, app.ipv6):
        assert entered(programs, app, app, address) == (2 if clients & SIDECAR else 0), address


def test_an_address_that_is_not_the_pods_own_does_not_count(programs: Attached, app: Pod, db: Pod) -> None:
    """The address of a client says whose it is: one that is not known, or another pod's, is plain."""
    programs.add_pod(app.cookie)
    policy(programs, db)
    assert entered(programs, app, db, db.ipv4) == 0
    programs.add_pod(db.cookie, [app.ipv4])
    assert entered(programs, app, db, db.ipv4) == 0


@pytest.mark.parametrize("owner", ["client", "server"])
def test_a_port_that_either_pod_excludes_is_plain(programs: Attached, app: Pod, db: Pod, owner: str) -> None:
    policy(programs, app, ports=[5432, 9999] if owner == "client" else [])
    policy(programs, db, ports=[9999, 5432] if owner == "server" else [])
    assert entered(programs, app, db, db.ipv4, port=5432) == 0
    assert entered(programs, app, db, db.ipv4, port=5433) == 2
    from_it = {"prepare_client": lambda made: made.bind((app.ipv4, 9999))}
    assert entered(programs, app, db, db.ipv4, port=5433, **from_it) == 0


def belong(uid: int, made: socket.socket) -> None:
    os.fchown(made.fileno(), uid, 0)


@pytest.mark.parametrize("owner", ["client", "listener"])
def test_sockets_of_an_excluded_user_are_plain(programs: Attached, app: Pod, db: Pod, owner: str) -> None:
    policy(programs, app, uids=[1, SOMEBODY])
    policy(programs, db, uids=[1, SOMEBODY])
    for uid, expected in ((SOMEBODY, 0), (SOMEBODY + 1, 2)):
        prepare = {f"prepare_{owner}": functools.partial(belong, uid)}
        assert entered(programs, app, db, db.ipv4, **prepare) == expected


@pytest.mark.parametrize("which", ["client", "listener"])
@pytest.mark.parametrize(
    "level, option, value", [(socket.SOL_SOCKET, SO_ZEROCOPY, 1), (socket.SOL_SOCKET, socket.SO_RCVLOWAT, 2)]
)
def test_what_redirection_would_break_stays_plain(
    accelerated: Attached, app: Pod, db: Pod, which: str, level: int, option: int, value: int
) -> None:
    prepare = {f"prepare_{which}": lambda made: made.setsockopt(level, option, value)}
    # A server is refused before the answer to the SYN; what it accepts has its listener's settings.
    assert entered(accelerated, app, db, db.ipv4, **prepare) == 0


def test_multipath_tcp_stays_plain(accelerated: Attached, app: Pod, db: Pod) -> None:
    listener = db.inside(socket.socket, socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    client = app.inside(socket.socket, socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    with listener, client:
        listener.bind((db.ipv4, 0))
        listener.listen()
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            assert accelerated.sockets() == 0
            client.sendall(b"two ways")
            assert server.recv(100) == b"two ways"


def test_a_pod_without_a_policy_leaves_no_trace(programs: Attached, app: Pod, db: Pod) -> None:
    policy(programs, db)
    before = [len(programs.tables[name]) for name in ("hints", "half")]
    for _ in range(50):
        assert entered(programs, app, db, db.ipv4) == 0
        assert entered(programs, app, app, "127.0.0.1") == 0
    assert [len(programs.tables[name]) for name in ("hints", "half")] == before


def test_nothing_is_left_of_connections_that_were_used(accelerated: Attached, app: Pod, db: Pod) -> None:
    before = [len(accelerated.tables[name]) for name in ("hints", "half")]
    for _ in range(50):
        assert entered(accelerated, app, db, db.ipv4) == 2
    assert [len(accelerated.tables[name]) for name in ("hints", "half")] == before


def test_a_policy_taken_away_leaves_open_connections_at_work(accelerated: Attached, app: Pod, db: Pod) -> None:
    with connected(app, db, db.ipv4) as ends:
        echo_once(ends)
        ends.client.sendall(b"unread")
        accelerated.forget_pods()
        ends.client.sendall(b" and behind it")
        assert exact(ends.server, 20) == b"unread and behind it"
        echo_once(ends)
    assert entered(accelerated, app, db, db.ipv4) == 0
