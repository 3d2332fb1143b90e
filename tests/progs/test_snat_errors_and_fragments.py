# SPDX-License-Identifier: Apache-2.0
"""ICMP errors about translated packets, and fragments that follow their first."""

from __future__ import annotations

import random
import time

import pytest
from scapy.layers.inet import ICMP, IP, IPOption_Router_Alert
from scapy.packet import Packet, Raw
from snat import layout

from tests.progs.run import SHOT, UNSPEC
from tests.progs.snat_bench import (
    CLUSTER_PEER,
    NODE,
    NOTRACK,
    POD,
    REMOTE,
    STRANGER,
    SnatBench,
    address,
    echo,
    frame,
    parse,
    port,
    tcp,
    udp,
)

pytestmark = pytest.mark.feature("snat programs")

ROUTER = "203.0.113.7"
ERRORS = [(3, 4), (3, 1), (11, 0), (12, 0)]


def error(src: str, dst: str, kind: tuple[int, int], quoted: Packet, quoted_bytes: int) -> Packet:
    """An ICMP error that quotes the first bytes of a packet."""
    head = ICMP(type=kind[0], code=kind[1], nexthopmtu=1400) if kind == (3, 4) else ICMP(type=kind[0], code=kind[1])
    return IP(src=src, dst=dst, id=9) / head / Raw(bytes(IP(bytes(quoted)))[:quoted_bytes])


@pytest.mark.parametrize("kind, quoted_bytes", [*[(kind, 28) for kind in ERRORS], ((3, 4), 40), ((3, 4), 200)])
@pytest.mark.parametrize("make", [tcp, udp, echo])
def test_an_error_about_a_translated_packet_reaches_the_pod(
    snat: SnatBench, kind: tuple[int, int], quoted_bytes: int, make: type
) -> None:
    ports = () if make is echo else (80,)
    sent = make(POD, REMOTE, 40000, *ports)
    wire = snat.out(sent)
    ran = snat.run("nic_in", frame(error(ROUTER, NODE, kind, wire, quoted_bytes)))
    assert (ran.verdict, ran.mark) == (UNSPEC, NOTRACK)
    assert ran.packet == frame(error(ROUTER, POD, kind, sent, quoted_bytes))
    assert snat.stats()["icmp_in"] == 1


@pytest.mark.parametrize("make", [tcp, udp, echo])
def test_an_error_that_a_pod_sends_about_an_answer_reaches_the_peer(snat: SnatBench, make: type) -> None:
    ports = () if make is echo else (80,)
    wire = snat.out(make(POD, REMOTE, 40000, *ports))
    if make is echo:
        got, answer = echo(REMOTE, POD, 40000, reply=True), echo(REMOTE, NODE, wire[ICMP].id, reply=True)
    else:
        got, answer = make(REMOTE, POD, 80, 40000), make(REMOTE, NODE, 80, wire.sport)
    assert snat.back(answer) == parse(frame(got))
    ran = snat.run("nic_out", frame(error(POD, REMOTE, (3, 3), got, 200)), mark=NOTRACK)
    assert (ran.verdict, ran.mark) == (UNSPEC, 0)
    assert ran.packet == frame(error(NODE, REMOTE, (3, 3), answer, 200))


def test_options_of_the_quoted_packet_are_stepped_over(snat: SnatBench) -> None:
    sent, wire = udp(POD, REMOTE, 4000, 80), udp(NODE, REMOTE, 4000, 80)
    for packet in (sent, wire):
        packet.options = [IPOption_Router_Alert()]
    assert snat.out(sent) == parse(frame(wire))
    ran = snat.run("nic_in", frame(error(ROUTER, NODE, (11, 0), wire, 200)))
    assert ran.packet == frame(error(ROUTER, POD, (11, 0), sent, 200))


def test_a_quoted_udp_checksum_of_zero_stays_zero(snat: SnatBench) -> None:
    sent, wire = udp(POD, REMOTE, 4000, 80), udp(NODE, REMOTE, 4000, 80)
    sent.chksum = wire.chksum = None
    sent.payload.chksum = wire.payload.chksum = 0
    snat.out(sent)
    ran = snat.run("nic_in", frame(error(ROUTER, NODE, (3, 3), wire, 200)))
    assert ran.packet == frame(error(ROUTER, POD, (3, 3), sent, 200))


def test_random_errors_come_out_with_right_checksums(snat: SnatBench) -> None:
    numbers = random.Random(7)
    for _ in range(40):
        sport, dport, load = numbers.randrange(1, 65536), numbers.randrange(1, 65536), numbers.randbytes(32)
        sent = udp(POD, REMOTE, sport, dport, load)
        wire = snat.out(sent)
        ran = snat.run("nic_in", frame(error(ROUTER, NODE, (3, 3), wire, 200)))
        assert ran.packet == frame(error(ROUTER, POD, (3, 3), sent, 200)), (sport, dport, load)


def test_errors_about_nothing_of_ours_pass_untouched(snat: SnatBench) -> None:
    snat.out(tcp(POD, REMOTE, 4000, 80))
    wire = tcp(NODE, REMOTE, 4001, 80)
    for packet in (
        error(ROUTER, NODE, (3, 1), wire, 28),
        error(ROUTER, NODE, (3, 1), tcp(NODE, REMOTE, 4000, 80), 27),
        error(ROUTER, NODE, (5, 0), tcp(NODE, REMOTE, 4000, 80), 28),
        error(ROUTER, "192.0.2.77", (3, 1), tcp(NODE, REMOTE, 4000, 80), 28),
    ):
        ran = snat.run("nic_in", frame(packet))
        assert (ran.verdict, ran.packet, ran.mark) == (UNSPEC, frame(packet), 0)
    unknown = frame(error(POD, REMOTE, (3, 3), udp(REMOTE, POD, 53, 999), 28))
    assert snat.run("nic_out", unknown).packet == unknown
    assert snat.stats()["skip_icmp"] == 1


def test_an_error_cut_anywhere_passes_untouched(snat: SnatBench) -> None:
    wire = snat.out(udp(POD, REMOTE, 4000, 80))
    whole = frame(error(ROUTER, NODE, (3, 3), wire, 28))
    for length in range(34, len(whole)):
        ran = snat.run("nic_in", whole[:length])
        assert (ran.verdict, ran.packet, ran.mark) == (UNSPEC, whole[:length], 0), f"cut at {length}"


@pytest.mark.parametrize("make", [udp, echo])
def test_fragments_follow_their_first_there_and_back(snat: SnatBench, make: type) -> None:
    def big(src: str, dst: str, *ports: int, reply: bool = False) -> list[Packet]:
        packet = make(src, dst, *ports, **({"reply": True} if reply else {}))
        packet = packet.copy()
        packet.lastlayer().load = bytes(range(250)) * 12
        pieces: list[Packet] = IP(bytes(packet)).fragment(1000)  # type: ignore[no-untyped-call]
        return [parse(frame(part)) for part in pieces]

    there, wire = (
        (big(POD, REMOTE, 4000), big(NODE, REMOTE, 4000))
        if make is echo
        else (big(POD, REMOTE, 4000, 53), big(NODE, REMOTE, 4000, 53))
    )
    assert len(there) == 4
    assert [bytes(snat.out(part)) for part in there] == [bytes(part) for part in wire]
    answers, wanted = (
        (big(REMOTE, NODE, 4000, reply=True), big(REMOTE, POD, 4000, reply=True))
        if make is echo
        else (big(REMOTE, NODE, 53, 4000), big(REMOTE, POD, 53, 4000))
    )
    for answer, want in zip(answers, wanted, strict=True):
        ran = snat.run("nic_in", frame(answer))
        assert (ran.packet, ran.mark) == (frame(want), NOTRACK)
    assert (snat.stats()["frag_out"], snat.stats()["frag_in"]) == (3, 3)


def later(src: str, dst: str, proto: int = 17, ident: int = 77) -> Packet:
    return IP(src=src, dst=dst, id=ident, frag=100, flags="MF", proto=proto) / Raw(b"x" * 64)


def first(packet: Packet) -> Packet:
    packet.flags = "MF"
    return packet


def test_a_later_fragment_before_its_first_is_dropped_only_where_it_would_leak(snat: SnatBench) -> None:
    assert snat.run("nic_out", frame(later(POD, REMOTE))).verdict == SHOT
    assert snat.stats() == {"drop_fragment": 1}
    for src, dst in ((POD, CLUSTER_PEER), (STRANGER, REMOTE)):
        assert bytes(snat.out(later(src, dst))) == frame(later(src, dst))[14:]
    ran = snat.run("nic_in", frame(later(REMOTE, NODE)))
    assert (ran.verdict, ran.packet, ran.mark) == (UNSPEC, frame(later(REMOTE, NODE)), 0)


def test_later_fragments_of_what_was_left_alone_are_left_alone(snat: SnatBench) -> None:
    other = IP(src=POD, dst=REMOTE, id=77, proto=132) / Raw(b"sctp" * 8)
    snat.out(first(other))
    assert snat.out(later(POD, REMOTE, 132)).src == POD
    snat.tables["frags"].clear()
    assert snat.run("nic_out", frame(later(POD, REMOTE, 132))).verdict == SHOT


def test_an_identification_used_again_follows_its_new_first(snat: SnatBench) -> None:
    snat.out(first(udp(POD, REMOTE, 4000, 53)))
    snat.back(first(udp(REMOTE, NODE, 53, 4000)))
    assert snat.back(later(REMOTE, NODE)).dst == POD
    snat.back(first(udp(REMOTE, NODE, 53, 4001)))
    assert snat.back(later(REMOTE, NODE)).dst == NODE


def test_a_first_fragment_is_forgotten_after_30_seconds(snat: SnatBench) -> None:
    key = layout.FRAG_KEY.pack(address(POD), address(REMOTE), port(77), 17, 0)
    now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    snat.tables["frags"][key] = layout.FRAG.pack(address(NODE), (now_ns - 20 * 10**9) % (1 << 64))
    assert snat.out(later(POD, REMOTE)).src == NODE
    snat.tables["frags"][key] = layout.FRAG.pack(address(NODE), (now_ns - 31 * 10**9) % (1 << 64))
    assert snat.run("nic_out", frame(later(POD, REMOTE))).verdict == SHOT
