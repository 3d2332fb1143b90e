# SPDX-License-Identifier: Apache-2.0
"""Which port a session gets: kept, hashed, found again after an eviction, taken over."""

from __future__ import annotations

import socket
import struct

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.packet import Packet
from snat import layout

from tests.progs.run import SHOT
from tests.progs.snat_bench import (
    NODE,
    OTHER_POD,
    POD,
    REMOTE,
    SMALL_NETWORK,
    SMALL_PODS,
    SMALL_PORTS,
    SnatBench,
    address,
    echo,
    frame,
    parse,
    port,
    ports_of,
    tcp,
    tuple_of,
    udp,
    with_ports,
)

pytestmark = pytest.mark.feature("snat programs")

CLOSED = layout.REPLIED | layout.FIN_OUT | layout.FIN_IN
DAY = 24 * 3600


@pytest.mark.parametrize("gone", [("fwd",), ("rev",), ("fwd", "rev")])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("proto", [TCP, UDP, ICMP])
def test_a_session_survives_the_loss_of_its_entries(
    snat: SnatBench, gone: tuple[str, ...], kept: bool, proto: type
) -> None:
    sport = 4000 if kept else 40000

    def packet() -> Packet:
        if proto is ICMP:
            return echo(POD, REMOTE, sport)
        return tcp(POD, REMOTE, sport, 80, "A") if proto is TCP else udp(POD, REMOTE, sport, 80)

    first = snat.out(tcp(POD, REMOTE, sport, 80) if proto is TCP else packet())
    for name in gone:
        snat.tables[name].clear()
    again = snat.out(packet())
    on_wire = [found[ICMP].id if proto is ICMP else found.sport for found in (first, again)]
    assert on_wire[0] == on_wire[1]
    assert len(snat.tables["fwd"]) == len(snat.tables["rev"]) == 1
    answer = (
        echo(REMOTE, NODE, on_wire[1], reply=True)
        if proto is ICMP
        else (tcp(REMOTE, NODE, 80, on_wire[1], "A") if proto is TCP else udp(REMOTE, NODE, 80, on_wire[1]))
    )
    back = snat.back(answer)
    assert (back.dst, back[ICMP].id if proto is ICMP else back.dport) == (POD, sport)
    healed = {"fwd": "healed_fwd", "rev": "healed_rev"}
    if len(gone) == 1:
        assert snat.stats()[healed[gone[0]]] == 1


def test_a_session_with_a_hashed_port_is_found_again_although_its_own_port_is_free_by_now(snat: SnatBench) -> None:
    blocker = snat.occupy(4000, 80, 6, state=layout.REPLIED)
    nat_port = snat.out(tcp(POD, REMOTE, 4000, 80)).sport
    assert nat_port != 4000
    del snat.tables["rev"][blocker]
    snat.tables["fwd"].clear()
    assert snat.out(tcp(POD, REMOTE, 4000, 80, "A")).sport == nat_port


def test_an_established_session_made_again_is_an_established_one(snat: SnatBench) -> None:
    snat.out(tcp(POD, REMOTE, 4000, 80, "A"))
    assert snat.owner(4000, 80, 6)["state"] == layout.REPLIED


def test_a_session_whose_port_went_to_another_flow_gets_a_new_one(snat: SnatBench) -> None:
    snat.out(udp(POD, REMOTE, 4000, 53))
    snat.tables["rev"].clear()
    snat.occupy(4000, 53, 17, pod=OTHER_POD, pod_port=4000)
    assert snat.out(udp(POD, REMOTE, 4000, 53)).sport != 4000
    assert snat.owner(4000, 53, 17)["pod_addr_be"] == address(OTHER_POD), "the port's new owner keeps it"


def test_a_session_of_another_address_of_the_uplink_is_given_up(snat: SnatBench) -> None:
    snat.out(tcp(POD, REMOTE, 4000, 80))
    snat.tables["uplinks"][layout.U32.pack(snat.devices.uplink)] = layout.UPLINK.pack(address("192.0.2.99"))
    assert snat.out(tcp(POD, REMOTE, 4000, 80, "A")).src == "192.0.2.99"


@pytest.mark.parametrize(
    "state, timeout_sec, proto",
    [
        (0, 120, 6),
        (layout.REPLIED, 5 * DAY, 6),
        (layout.REPLIED | layout.FIN_OUT, 120, 6),
        (layout.REPLIED | layout.FIN_IN, 120, 6),
        (0, 30, 17),
        (layout.REPLIED | layout.ASSURED, 180, 17),
        (0, 30, 1),
    ],
)
def test_a_port_is_taken_over_only_past_its_timeout(snat: SnatBench, state: int, timeout_sec: int, proto: int) -> None:
    snat.add_network(SMALL_NETWORK, range(2000, 2001))
    dport = 0 if proto == 1 else 80
    snat.occupy(2000, dport, proto, state=state, idle_sec=timeout_sec - 5)
    pod = SMALL_PODS[0]
    packet = frame({6: tcp(pod, REMOTE, 2000, 80), 17: udp(pod, REMOTE, 2000, 80), 1: echo(pod, REMOTE, 2000)}[proto])
    assert snat.run("nic_out", packet).verdict == SHOT
    snat.occupy(2000, dport, proto, state=state, idle_sec=timeout_sec + 5)
    assert parse(snat.run("nic_out", packet).packet).src == NODE
    assert snat.owner(2000, dport, proto)["pod_addr_be"] == address(SMALL_PODS[0])
    assert snat.stats()["taken_idle"] == 1
    assert snat.stats()["drop_ports"] == 1


def test_the_preference_is_free_then_idle_then_long_closed_then_longest_closed(snat: SnatBench) -> None:
    snat.add_network(SMALL_NETWORK, range(2000, 2004))
    sessions = {2000: (CLOSED, 50), 2001: (CLOSED, 90), 2002: (0, 130), 2003: (layout.REPLIED, 4000)}
    for nat_port, (state, idle_sec) in sessions.items():
        snat.occupy(nat_port, 80, 6, state=state, idle_sec=idle_sec)
    del snat.tables["rev"][tuple_of(REMOTE, NODE, 80, 2003, 6)]

    def ports(first: int, count: int) -> list[int]:
        return [snat.out(tcp(SMALL_PODS[0], REMOTE, sport, 80)).sport for sport in range(first, first + count)]

    assert ports(50000, 4) == [2003, 2002, 2001, 2000]
    names = ("session_new", "taken_idle", "taken_closed", "taken_early")
    assert [snat.stats()[name] for name in names] == [4, 1, 1, 1]
    assert snat.run("nic_out", frame(tcp(SMALL_PODS[0], REMOTE, 50009, 80))).verdict == SHOT


def test_of_recently_closed_ports_the_longest_closed_is_taken(snat: SnatBench) -> None:
    snat.add_network(SMALL_NETWORK, range(2000, 2020))
    for nat_port in range(2000, 2020):
        snat.occupy(nat_port, 80, 6, state=CLOSED, idle_sec=55 if nat_port == 2013 else 5)
    assert snat.out(tcp(SMALL_PODS[0], REMOTE, 50000, 80)).sport == 2013


def test_a_reset_session_counts_as_closed(snat: SnatBench) -> None:
    snat.add_network(SMALL_NETWORK, range(2000, 2001))
    snat.occupy(2000, 80, 6, state=layout.REPLIED | layout.RESET, idle_sec=1)
    assert snat.out(tcp(SMALL_PODS[0], REMOTE, 50000, 80)).sport == 2000
    assert snat.stats()["taken_early"] == 1


def test_who_loses_its_port_loses_its_session_too(snat: SnatBench) -> None:
    snat.add_network(SMALL_NETWORK, range(2000, 2001), "10.245.0.0/16")
    loser, winner = SMALL_PODS
    snat.out(udp(loser, REMOTE, 50000, 53))
    snat.touch(2000, 53, 17, idle_sec=60)
    snat.out(udp(winner, REMOTE, 50001, 53))
    assert list(snat.tables["fwd"]) == [tuple_of(winner, REMOTE, 50001, 53, 17)]
    back = snat.back(udp(REMOTE, NODE, 53, 2000))
    assert (back.dst, back.dport) == (winner, 50001)


def test_64_ports_serve_400_short_sessions_one_after_another(snat: SnatBench) -> None:
    out = {flags: frame(tcp(SMALL_PODS[0], REMOTE, 1, 1, flags)) for flags in ("S", "A", "FA")}
    back = {flags: frame(tcp(REMOTE, NODE, 1, 1, flags)) for flags in ("SA", "FA")}

    def nat_port(sport: int, flags: str) -> int:
        return ports_of(snat.run("nic_out", with_ports(out[flags], sport, 80)).packet)[0]

    def pod_port(sport: int, flags: str) -> int:
        return ports_of(snat.run("nic_in", with_ports(back[flags], 80, sport)).packet)[1]

    used = set()
    for sport in range(30000, 30400):
        chosen = nat_port(sport, "S")
        used.add(chosen)
        assert pod_port(chosen, "SA") == sport
        assert nat_port(sport, "FA") == chosen
        assert pod_port(chosen, "FA") == sport
        assert nat_port(sport, "A") == chosen
    assert used == set(SMALL_PORTS)
    stats = snat.stats()
    assert stats["session_new"] == 400
    assert stats["taken_early"] == 400 - len(SMALL_PORTS)
    assert "drop_ports" not in stats


def test_a_full_range_drops_and_counts(snat: SnatBench) -> None:
    for nat_port in SMALL_PORTS:
        snat.occupy(nat_port, 80, 6, state=layout.REPLIED)
    ran = snat.run("nic_out", frame(tcp(SMALL_PODS[0], REMOTE, 50000, 80)))
    assert ran.verdict == SHOT
    assert snat.stats() == {"drop_ports": 1, "port_retry": 3 * 32}
    assert len(snat.tables["fwd"]) == 0


def test_ports_spread_over_the_range(snat: SnatBench) -> None:
    raw = frame(tcp(POD, REMOTE, 1, 1))
    runs = [snat.run("nic_out", with_ports(raw, sport, 80)) for sport in range(40000, 40500)]
    used = {ports_of(ran.packet)[0] for ran in runs}
    assert len(used) == 500
    assert max(used) - min(used) > 20000


@pytest.mark.parametrize("kind, make", [(socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)])
def test_a_port_that_a_socket_of_the_node_holds_is_skipped(snat: SnatBench, kind: int, make: type) -> None:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind((NODE, 4000))
        if kind == socket.SOCK_STREAM:
            holder.listen()
        assert snat.out(make(POD, REMOTE, 4000, 80)).sport != 4000
    assert snat.stats()["port_local"] == 1
    assert snat.out(make(OTHER_POD, REMOTE, 4000, 80)).sport == 4000


def test_a_single_candidate_held_by_a_socket_of_the_node_is_never_used(snat: SnatBench) -> None:
    snat.add_network(SMALL_NETWORK, range(2000, 2001))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind((NODE, 2000))
        assert snat.run("nic_out", frame(udp(SMALL_PODS[0], REMOTE, 2000, 53))).verdict == SHOT
    assert len(snat.tables["rev"]) == 0


def test_an_owner_is_read_and_exchanged_as_one_word() -> None:
    raw = layout.OWNER.pack(address(POD), port(4000), layout.FIN_IN, 5)
    assert raw[:8] == address(POD) + port(4000) + struct.pack("=H", layout.FIN_IN)
