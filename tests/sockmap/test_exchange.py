# SPDX-License-Identifier: Apache-2.0
"""Connections by the thousand, with ports that are used towards eight servers at once while requests and answers are
in flight: no byte is wrong, nothing hangs, and the bytes really took the short way. `make soak` is the long version."""

from __future__ import annotations

import pytest

from tests.sockmap.attached import CHECKOUT, Attached, attach
from tests.sockmap.exchange import Way, losing, run, ways
from tests.sockmap.pods import Pod

pytestmark = [pytest.mark.needs("sockmap"), pytest.mark.feature("sockmap: every byte")]

WAYS = [
    "loopback",
    "loopback, IPv6",
    "own address",
    "iptables REDIRECT",
    "nft redirect, IPv6",
    "TPROXY",
    "pod to pod",
    "pod to pod, IPv6",
    "IPv4 in IPv6 sockets",
    "IPv4 to an IPv6 listener",
]
EXCHANGES = 8000


def counters(programs: Attached, way: Way) -> dict[str, int]:
    return programs.counters(*{way.clients.cookie, way.servers.cookie})


@pytest.mark.parametrize("name", WAYS)
def test_every_byte_is_right_and_takes_the_short_way(accelerated: Attached, app: Pod, db: Pod, name: str) -> None:
    way = ways(app, db)[name]
    # Of several connections from one port that are led to one proxy, conntrack gives all but one another port, which
    # leaves them plain: with more ports that is seldom.
    figures = run(way, EXCHANGES, "-P", "30000" if way.redirected else "40")
    assert figures.faults() == (0, 0, 0), figures.log
    assert figures.exchanges >= EXCHANGES and figures.reused > figures.connections // 2
    found = counters(accelerated, way)
    assert found["insert_fail"] == 0
    assert found["paired"] > 2 * figures.connections * 0.9
    assert found["redirected_bytes"] > figures.bytes * 0.8


def test_redirected_connections_whose_port_was_changed_stay_plain(accelerated: Attached, app: Pod, db: Pod) -> None:
    way = ways(app, db)["iptables REDIRECT"]
    figures = run(way, EXCHANGES, "-P", "10")
    assert figures.faults() == (0, 0, 0), figures.log
    found = counters(accelerated, way)
    assert found["paired"] and found["skipped"]
    assert found["paired"] + found["skipped"] == 2 * figures.connections


@pytest.mark.parametrize("name", ["loopback", "pod to pod"])
def test_slow_readers_send_bytes_to_and_fro_between_both_ways(programs: Attached, app: Pod, db: Pod, name: str) -> None:
    way = ways(app, db)[name]
    for pod in (app, db):
        programs.add_pod(pod.cookie, [pod.ipv4, pod.ipv6], limit_bytes=100_000)
    figures = run(way, EXCHANGES, "-w", "30")
    assert figures.faults() == (0, 0, 0), figures.log
    found = counters(programs, way)
    assert found["spills"] > 20
    assert found["passed_bytes"] > 1 << 20 and found["redirected_bytes"] > 1 << 20


@pytest.mark.parametrize("name", ["loopback", "pod to pod", "pod to pod, IPv6"])
def test_segments_that_are_lost_come_again_and_are_read_once(programs: Attached, app: Pod, db: Pod, name: str) -> None:
    """Whatever finds the reader busy goes by TCP, of which each twentieth segment and acknowledgement is lost."""
    way = ways(app, db)[name]
    for pod in (app, db):
        programs.add_pod(pod.cookie, [pod.ipv4, pod.ipv6], limit_bytes=1)
    with losing(way, 50):
        figures = run(way, 20_000, "-w", "50", "-B", "200000", "-h", "60000")
    assert figures.faults() == (0, 0, 0), figures.log
    found = counters(programs, way)
    assert found["spills"] > 500 and found["passed_bytes"] > 5 << 20


def test_six_hundred_connections_at_once(accelerated: Attached, app: Pod, db: Pod) -> None:
    way = ways(app, db)["pod to pod"]
    figures = run(way, EXCHANGES, "-n", "600", "-P", "150")
    assert figures.faults() == (0, 0, 0), figures.log
    assert counters(accelerated, way)["redirected_bytes"] > figures.bytes * 0.8


@pytest.mark.parametrize("name", ["loopback", "pod to pod"])
def test_pairing_by_address_and_port_fails_the_same_load(app: Pod, db: Pod, name: str) -> None:
    """And only because ports are shared: the load sees the key, and nothing else."""
    way = ways(app, db)[name]
    with attach(CHECKOUT / "build/tests/naive.bpf.o") as naive:
        for pod in (app, db):
            naive.add_pod(pod.cookie, [pod.ipv4, pod.ipv6])
        shared, own = run(way, 2000, "-h", "1000"), run(way, 2000, "-P", "0", "-p", "40000")
        assert naive.counters(app.cookie, db.cookie)["redirected_msgs"] > 1000
    assert shared.wrong > 10
    assert own.faults() == (0, 0, 0), own.log
