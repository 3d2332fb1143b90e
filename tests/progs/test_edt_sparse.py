# SPDX-License-Identifier: Apache-2.0
"""Sparse flows pass what waits: within their own share and that of all of them, and never a packet of their own."""

from __future__ import annotations

import pytest
from bandwidth_edt import layout
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.progs.edt_bench import ID, MS, POD, SEC, EdtBench, now_ns
from tests.progs.run import UNSPEC

pytestmark = pytest.mark.feature("edt program")

RATE = 1_000_000  # a microsecond a byte
AHEAD_NS, NO_HORIZON = 1000 * SEC, 1 << 62
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def tcp(sport: int, length: int = 100) -> bytes:
    """One of a flow of its own; the hash of a packet that no socket sent is of its addresses and ports."""
    return bytes(ETHER / IP(src=POD, dst="198.51.100.1") / TCP(sport=sport, dport=80) / bytes(length - 54))


def test_a_sparse_flow_leaves_before_what_waits_and_is_charged_all_the_same(edt: EdtBench) -> None:
    edt.limit(RATE, horizon_ns=NO_HORIZON)
    start = now_ns() + AHEAD_NS
    edt.set_last(start)
    edt.give_sparse_share()
    ran = edt.run(tcp(1))
    assert (ran.verdict, ran.tstamp_ns) == (UNSPEC, 0)
    assert edt.last_ns() == start + 100_000
    stats = edt.stats()
    assert (stats["bypass"], stats["pkts"], stats["bytes"], stats["delayed"]) == (1, 1, 100, 0)


def test_a_sparse_flow_passes_also_when_the_horizon_is_full(edt: EdtBench) -> None:
    edt.limit(RATE)
    start = now_ns() + AHEAD_NS
    edt.set_last(start)
    edt.give_sparse_share()
    assert edt.run(tcp(1)).verdict == UNSPEC
    assert edt.last_ns() == start + 100_000
    assert (edt.stats()["bypass"], edt.stats()["drop"]) == (1, 0)


def test_a_flow_with_more_than_its_share_waits_and_from_then_on_in_order(edt: EdtBench) -> None:
    """A share of an eighth with 32 ms of it at once are 4 ms of the rate, here 4000 bytes; and what the time of twenty
    runs in a row earns, which the kernel does without coming back to a test that may be slow."""
    edt.limit(RATE, horizon_ns=NO_HORIZON)
    start = now_ns() + AHEAD_NS
    edt.set_last(start)
    edt.give_sparse_share()
    edt.run(tcp(1, 1000), repeat=20)
    assert 4 <= edt.stats()["bypass"] <= 5
    departures = [edt.run(tcp(1, 1000)).tstamp_ns for _ in range(5)]
    assert departures[0] > start and departures == sorted(departures), "no packet overtakes one of its own flow"
    assert edt.run(tcp(2)).tstamp_ns == 0, "another flow is still sparse"


def test_a_small_flow_whose_packet_waits_does_not_overtake_it(edt: EdtBench) -> None:
    edt.limit(RATE, horizon_ns=NO_HORIZON)
    start = now_ns() + AHEAD_NS
    edt.set_last(start)
    assert edt.run(tcp(1)).tstamp_ns == start, "nothing is left for sparse flows"
    edt.give_sparse_share()
    assert edt.run(tcp(1)).tstamp_ns == start + 100_000
    assert edt.run(tcp(2)).tstamp_ns == 0


def test_all_sparse_flows_together_have_a_quarter_of_the_rate(edt: EdtBench) -> None:
    """With 32 ms of it at once, 8 ms of the rate: 8000 bytes, and what the test's own time earns."""
    edt.limit(RATE, horizon_ns=NO_HORIZON)
    edt.set_last(now_ns() + AHEAD_NS)
    edt.give_sparse_share()
    begun = now_ns()
    passed = [edt.run(tcp(sport, 1000)).tstamp_ns for sport in range(1, 60)].count(0)
    assert 8 <= passed <= 8 + (now_ns() - begun) // (4 * MS) + 1
    assert edt.stats()["bypass"] == passed


def test_a_flow_that_finds_no_place_waits_and_the_others_keep_theirs(edt: EdtBench) -> None:
    edt.limit(RATE, horizon_ns=NO_HORIZON)
    start = now_ns() + AHEAD_NS
    edt.set_last(start)
    entry = layout.FLOW.pack(start, start, 0xFFFFFFFF, 0)
    edt.tables["edt_flows"][layout.flows_of(ID, layout.EGRESS)] = entry * (layout.FLOWS.size // layout.FLOW.size)
    edt.give_sparse_share()
    assert edt.run(tcp(1)).tstamp_ns == start
    assert edt.stats()["bypass"] == 0
    flows = edt.tables["edt_flows"][layout.flows_of(ID, layout.EGRESS)]
    assert flows == entry * (layout.FLOWS.size // layout.FLOW.size)
