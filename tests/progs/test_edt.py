# SPDX-License-Identifier: Apache-2.0
"""edt_pod_out: when a packet leaves, what it is charged, and what becomes of one that would wait too long."""

from __future__ import annotations

import threading

import pytest
from bandwidth_edt import layout
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from tests.progs.edt_bench import GUARD, INGRESS, MS, POD, POD6, SEC, STRANGER, EdtBench, now_ns
from tests.progs.run import SHOT, UNSPEC

pytestmark = pytest.mark.feature("edt program")

RATE = 1_000_000  # a microsecond a byte
# So far ahead and with such a horizon that it does not matter how slowly the test runs.
AHEAD_NS, NO_HORIZON = 1000 * SEC, 1 << 62
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def v4(length: int = 1000, src: str = POD, tos: int = 0) -> bytes:
    """A frame of so many bytes."""
    return bytes(ETHER / IP(src=src, dst="198.51.100.1", tos=tos) / UDP(sport=1, dport=2) / bytes(length - 42))


def v6(length: int = 1000, src: str = POD6, tc: int = 0) -> bytes:
    return bytes(ETHER / IPv6(src=src, dst="2001:db8::1", tc=tc) / UDP(sport=1, dport=2) / bytes(length - 62))


@pytest.mark.parametrize("make", [v4, v6])
def test_packets_leave_a_length_over_rate_apart(edt: EdtBench, make: type) -> None:
    edt.limit(RATE, horizon_ns=NO_HORIZON)
    start = now_ns() + AHEAD_NS
    edt.set_last(start)
    departures = [edt.run(make(length)).tstamp_ns for length in (1000, 500, 1400, 100, 100)]
    assert departures == [start + at for at in (0, 1000_000, 1500_000, 2900_000, 3000_000)]
    assert edt.last_ns() == start + 3100_000


def test_both_addresses_of_a_pod_fill_one_bucket(edt: EdtBench) -> None:
    edt.limit(RATE, horizon_ns=NO_HORIZON)
    start = now_ns() + AHEAD_NS
    edt.set_last(start)
    assert [edt.run(v4()).tstamp_ns, edt.run(v6()).tstamp_ns, edt.run(v4()).tstamp_ns] == [
        start,
        start + MS,
        start + 2 * MS,
    ]


def test_what_comes_to_a_pod_is_charged_by_its_destination_in_a_bucket_of_its_own(edt: EdtBench) -> None:
    edt.limit(RATE, horizon_ns=NO_HORIZON, direction=INGRESS)
    start = now_ns() + AHEAD_NS
    edt.set_last(start, INGRESS)
    to_v4 = bytes(ETHER / IP(src="198.51.100.1", dst=POD) / UDP() / bytes(958))
    to_v6 = bytes(ETHER / IPv6(src="2001:db8::1", dst=POD6) / UDP() / bytes(938))
    assert [edt.run(packet, "edt_pod_in").tstamp_ns for packet in (to_v4, to_v6, to_v4)] == [
        start,
        start + MS,
        start + 2 * MS,
    ]
    assert edt.run(v4(), "edt_pod_in").tstamp_ns == 0, "what a pod sends is no concern of its ingress"
    assert edt.run(to_v4).tstamp_ns == edt.run(v4()).tstamp_ns == 0, "nor the other way round"
    assert edt.stats()["t_last_ns"] == 0


def test_an_idle_bucket_without_burst_starts_from_now(edt: EdtBench) -> None:
    edt.limit(RATE // 10_000, horizon_ns=NO_HORIZON)  # ten seconds a packet
    before = now_ns()
    ran = edt.run(v4())
    assert (ran.verdict, ran.tstamp_ns) == (UNSPEC, 0), "the first packet is not delayed"
    assert before + 10 * SEC <= edt.last_ns() <= now_ns() + 10 * SEC
    assert edt.run(v4()).tstamp_ns == edt.last_ns() - 10 * SEC


def test_the_burst_leaves_at_once_and_no_more_than_it(edt: EdtBench) -> None:
    edt.limit(RATE, burst_ns=SEC)
    edt.set_last(0)
    before = now_ns()
    edt.run(v4())
    assert before <= edt.last_ns() + SEC - MS <= now_ns(), "an idle bucket lags by its burst, however long it was idle"
    # Now a packet is a tenth of a second, and the burst 50 of them, beside what the rate earns while the test runs.
    edt.limit(RATE // 100, burst_ns=5 * SEC, horizon_ns=NO_HORIZON)
    edt.set_last(0)
    begun = now_ns()
    at_once = 0
    while not edt.run(v4()).tstamp_ns:
        at_once += 1
        assert at_once <= 52 + (now_ns() - begun) // (100 * MS)
    assert at_once >= 50


def test_a_later_time_of_the_socket_is_kept(edt: EdtBench) -> None:
    edt.limit(RATE, horizon_ns=NO_HORIZON)
    wanted = now_ns() + AHEAD_NS
    edt.set_last(now_ns())
    assert edt.run(v4(), tstamp_ns=wanted).tstamp_ns == wanted
    assert edt.last_ns() == wanted + MS, "the charge begins at the later time"
    edt.set_last(wanted + 10 * MS)
    assert edt.run(v4(), tstamp_ns=wanted).tstamp_ns == wanted + 10 * MS


def test_what_would_wait_beyond_the_horizon_is_dropped_without_charge(edt: EdtBench) -> None:
    edt.limit(RATE, horizon_ns=100 * MS)
    last = now_ns() + AHEAD_NS
    edt.set_last(last)
    for _ in range(3):
        assert edt.run(v4()).verdict == SHOT
    assert edt.last_ns() == last
    assert edt.stats()["drop"] == 3
    assert edt.stats()["pkts"] == edt.stats()["bytes"] == 0
    edt.set_last(now_ns() + 80 * MS)
    assert edt.run(v4()).verdict == UNSPEC


@pytest.mark.parametrize("make, field", [(v4, "tos"), (v6, "tc")])
def test_ect_is_marked_ce_beyond_the_ecn_delay(edt: EdtBench, make: type, field: str) -> None:
    edt.limit(RATE, horizon_ns=NO_HORIZON, ecn_ns=5 * MS)

    def run(ahead_ns: int, codepoint: int) -> bytes:
        edt.set_last(now_ns() + ahead_ns)
        return edt.run(make(**{field: codepoint})).packet

    assert run(AHEAD_NS, 2) == make(**{field: 3})
    assert run(AHEAD_NS, 1) == make(**{field: 3})
    assert run(AHEAD_NS, 0) == make(), "a flow without ECN is not marked"
    assert run(0, 2) == make(**{field: 2}), "nor one that hardly waits"
    edt.limit(RATE, horizon_ns=NO_HORIZON, ecn_ns=0)
    assert run(AHEAD_NS, 2) == make(**{field: 2})
    assert edt.stats()["ce"] == 2


def test_bulk_without_ecn_loses_one_small_packet_a_horizon_beyond_the_early_delay(edt: EdtBench) -> None:
    horizon_ns = 200 * SEC
    edt.limit(RATE, horizon_ns=horizon_ns, ecn_ns=MS, early_ns=50 * SEC)

    def run(ahead_ns: int, tos: int = 0, segments: int = 2) -> tuple[int, int]:
        """The verdict, and by how much the clock moved. A packet of 5 ms is more than a small flow's."""
        last = now_ns() + ahead_ns
        edt.set_last(last)
        verdict = edt.run(v4(tos=tos), gso=(segments, 958), wire_len=5000).verdict
        return verdict, edt.last_ns() - last

    charged, dropped = (UNSPEC, 5 * MS), (SHOT, 0)
    assert run(40 * SEC) == charged
    assert run(60 * SEC, tos=2) == charged, "it is marked"
    assert run(60 * SEC, segments=3) == charged, "a smaller one will come"
    assert run(60 * SEC) == dropped
    assert run(60 * SEC) == charged, "the sender has been told"
    assert 199 * SEC < edt.stats()["t_early_ns"] - now_ns() <= horizon_ns
    edt.set_state(t_early_ns=now_ns())
    assert run(60 * SEC) == dropped
    assert (edt.stats()["drop"], edt.stats()["ce"]) == (2, 1)
    edt.forget_flows()
    edt.set_state(t_early_ns=0)
    edt.set_last(now_ns() + 60 * SEC)
    assert edt.run(v4(100)).verdict == UNSPEC, "a small flow is not who is too fast"
    edt.limit(RATE, horizon_ns=horizon_ns, ecn_ns=MS)
    assert run(60 * SEC) == charged, "and not when there is no early delay"


def test_the_length_on_the_wire_is_charged(edt: EdtBench) -> None:
    edt.limit(RATE, horizon_ns=NO_HORIZON)
    start = now_ns() + AHEAD_NS
    edt.set_last(start)
    edt.run(v4(3000), gso=(2, 1400), wire_len=3042)
    assert edt.last_ns() == start + 3_042_000
    assert edt.stats()["bytes"] == 3042


def test_a_pod_without_limits_passes_untouched(edt: EdtBench) -> None:
    edt.limit(RATE)
    for packet in (v4(src=STRANGER), v6(src="2001:db8::77"), bytes(ETHER / ARP(pdst="192.0.2.1"))):
        ran = edt.run(packet, tstamp_ns=12345)
        assert (ran.verdict, ran.packet, ran.tstamp_ns) == (UNSPEC, packet, 12345)
    edt.limit(0)
    assert edt.run(v4()).verdict == UNSPEC
    assert (edt.last_ns(), edt.stats()["pkts"]) == (0, 0)


def test_a_tagged_packet_is_charged_too(edt: EdtBench) -> None:
    edt.limit(RATE, horizon_ns=NO_HORIZON)
    start = now_ns() + AHEAD_NS
    edt.set_last(start)
    packet = bytes(ETHER / Dot1Q(vlan=5) / IP(src=POD, dst="198.51.100.1") / UDP() / bytes(100))
    ran = edt.run(packet)
    assert (ran.packet, ran.tstamp_ns, edt.last_ns()) == (packet, start, start + len(packet) * 1000)


@pytest.mark.parametrize("packet, needed", [(v4(), 34), (v6(), 54)])
def test_a_packet_cut_anywhere_passes_untouched(edt: EdtBench, packet: bytes, needed: int) -> None:
    edt.limit(RATE)
    tagged = packet[:12] + b"\x81\x00\0\0" + packet[12:]
    for length in range(14, needed + 4):
        assert edt.run(tagged[:length]).packet == tagged[:length]
    assert edt.stats()["pkts"] == 0
    edt.run(tagged[: needed + 4])
    assert edt.stats()["pkts"] == 1


def hist_bucket(delay_ns: int) -> int:
    """As layout.py says: doublings of 65.536 us."""
    return min(15, (max(0, delay_ns) // 65536).bit_length())


@pytest.mark.parametrize("delay_ns", [0, MS, 10 * MS, 300 * MS, 800 * MS, 5 * SEC])
def test_delays_are_counted_by_their_size(edt: EdtBench, delay_ns: int) -> None:
    edt.limit(RATE * 1_000_000, horizon_ns=10 * SEC)
    last = now_ns() + delay_ns
    edt.set_last(last)
    before = now_ns()
    edt.run(v4())
    after = now_ns()
    stats = edt.stats()
    assert (stats["pkts"], stats["bytes"], stats["drop"], sum(stats["hist"])) == (1, 1000, 0, 1)
    assert max(0, last - after) <= stats["max_delay_ns"] <= max(0, last - before)
    assert stats["delayed"] == (stats["max_delay_ns"] > 0)
    assert stats["hist"].index(1) == hist_bucket(stats["max_delay_ns"])


def test_two_threads_that_charge_one_bucket_lose_no_charge(edt: EdtBench) -> None:
    edt.limit(RATE, horizon_ns=NO_HORIZON)
    start = now_ns() + AHEAD_NS
    edt.set_last(start)
    packets, errors = 50_000, []

    def charge() -> None:
        try:
            edt.run(v4(), repeat=packets)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=charge) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert edt.last_ns() == start + 2 * packets * MS
    stats = edt.stats()
    assert (stats["pkts"], stats["bytes"], stats["drop"]) == (2 * packets, 2000 * packets, 0)


def test_a_change_of_limits_leaves_the_clock_alone(edt: EdtBench) -> None:
    edt.limit(RATE, horizon_ns=NO_HORIZON)
    start = now_ns() + AHEAD_NS
    edt.set_last(start)
    edt.run(v4())
    edt.limit(RATE * 10, horizon_ns=NO_HORIZON)
    assert edt.run(v4()).tstamp_ns == start + MS
    assert edt.last_ns() == start + MS + MS // 10


def test_the_nic_charges_what_its_pod_has_not_been_charged_for(edt: EdtBench) -> None:
    start = now_ns() + AHEAD_NS
    for places, charged in (layout.AT_NIC, True), (layout.AT_POD, False), (layout.AT_POD | layout.AT_NIC, False):
        edt.limit(RATE, horizon_ns=NO_HORIZON, places=places)
        edt.set_last(start)
        assert edt.run(v4(), "edt_nic_out").tstamp_ns == (start if charged else 0)
        assert edt.last_ns() == start + MS * charged
        assert edt.run(v4()).tstamp_ns == start + MS * charged, "the pod's own program charges whatever comes"


def test_the_guard_drops_what_is_above_the_rate_and_delays_nothing(edt: EdtBench) -> None:
    edt.limit(RATE, horizon_ns=0, burst_ns=10 * MS, direction=GUARD)
    edt.set_last(0, GUARD)
    begun = now_ns()
    ran = [edt.run(v4(), "edt_nic_guard") for _ in range(59)]
    passed = [each.verdict for each in ran].count(UNSPEC)
    assert 10 <= passed <= 11 + (now_ns() - begun) // MS
    assert {each.tstamp_ns for each in ran} == {0}
    assert edt.stats(GUARD)["drop"] == 59 - passed
    assert edt.stats()["pkts"] == 0, "the pod's own bucket is another one"


@pytest.mark.parametrize("rate", [1000, 125_000, 1_250_000, 125_000_000, 12_500_000_000])
def test_the_cost_of_a_byte_is_exact_from_8_kbit_to_100_gbit(edt: EdtBench, rate: int) -> None:
    edt.limit(rate, horizon_ns=NO_HORIZON)
    start = now_ns() + AHEAD_NS
    edt.set_last(start)
    edt.run(v4(1500), repeat=1000)
    assert edt.last_ns() - start == pytest.approx(1500 * 1000 * SEC / rate, rel=1e-4)


def test_names_of_directions_and_the_number_of_ids_are_those_of_the_program(edt: EdtBench) -> None:
    assert edt.tables["edt_cfg"].max_entries == 4 * layout.IDS == edt.tables["edt_state"].max_entries
    assert edt.tables["edt_flows"].max_entries == 2 * layout.IDS
    assert layout.bucket(layout.IDS - 1, layout.GUARD) == layout.U32.pack(4 * layout.IDS - 2)
