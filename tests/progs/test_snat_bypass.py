# SPDX-License-Identifier: Apache-2.0
"""pod_in and pod_out: which packets of a pod go around conntrack."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.packet import Packet, Raw
from snat import layout

from tests.progs.snat_bench import (
    CLUSTER_PEER,
    IPVLAN_POD,
    NODE,
    NOTRACK,
    OTHER_POD,
    POD,
    REMOTE,
    SMALL_PODS,
    STRANGER,
    SnatBench,
    echo,
    frame,
    tcp,
    tuple_of,
    udp,
)

pytestmark = pytest.mark.feature("snat programs")

BEHIND_OTHER_DEVICE = "203.0.113.50"  # routed, but not by an uplink
FLOWS = [
    (tcp(POD, REMOTE, 4000, 80), tcp(REMOTE, POD, 80, 4000, "SA")),
    (udp(POD, REMOTE, 4000, 53), udp(REMOTE, POD, 53, 4000)),
    (echo(POD, REMOTE, 9), echo(REMOTE, POD, 9, reply=True)),
]


@pytest.mark.parametrize("packet, answer", FLOWS, ids=["tcp", "udp", "echo"])
def test_a_new_flow_to_the_outside_bypasses_conntrack(snat: SnatBench, packet: Packet, answer: Packet) -> None:
    assert snat.mark_of("pod_in", packet) == NOTRACK
    assert snat.mark_of("pod_in", packet, mark=0x4000) == 0x4000 | NOTRACK
    assert snat.stats() == {"bypass": 2}
    # Its answer comes with the mark, which the pod does not see, and leaves no trace.
    assert snat.mark_of("pod_out", answer, mark=NOTRACK | 0x8000) == 0x8000
    assert len(snat.tables["stackflow"]) == 0
    assert snat.mark_of("pod_in", packet) == NOTRACK


@pytest.mark.parametrize("make", [tcp, udp])
def test_what_came_through_the_stack_is_answered_through_the_stack(snat: SnatBench, make: type) -> None:
    for peer in (NODE, OTHER_POD, REMOTE):
        assert snat.mark_of("pod_out", make(peer, POD, 5000, 80)) == 0
        assert snat.mark_of("pod_in", make(POD, peer, 80, 5000, *(("SA",) if make is tcp else ()))) == 0
        proto = 6 if make is tcp else 17
        assert tuple_of(peer, POD, 5000, 80, proto) in list(snat.tables["stackflow"])
    assert snat.stats() == {"stackflow_new": 3}
    assert snat.mark_of("pod_in", make(POD, OTHER_POD, 80, 5001)) == NOTRACK, "another flow is not concerned"


def test_an_echo_is_answered_the_way_it_came(snat: SnatBench) -> None:
    assert snat.mark_of("pod_out", echo(NODE, POD, 9)) == 0
    assert snat.mark_of("pod_in", echo(POD, NODE, 9, reply=True)) == 0
    assert snat.mark_of("pod_out", echo(OTHER_POD, POD, 9)) == 0
    assert snat.mark_of("pod_in", echo(POD, OTHER_POD, 9, reply=True)) == 0
    # The pod's own echo with that identifier is another flow.
    assert snat.mark_of("pod_in", echo(POD, OTHER_POD, 9)) == NOTRACK
    assert snat.mark_of("pod_in", echo(POD, REMOTE, 9, reply=True)) == 0, "a reply never opens a session"


def test_a_flow_seen_again_is_noted_once(snat: SnatBench) -> None:
    snat.mark_of("pod_out", tcp(NODE, POD, 5000, 80))
    noted = snat.tables["stackflow"].items()
    snat.mark_of("pod_out", tcp(NODE, POD, 5000, 80, "A"))
    assert snat.tables["stackflow"].items() == noted


def test_pods_of_the_node_reach_each_other_around_conntrack(snat: SnatBench) -> None:
    for packet in (
        tcp(POD, OTHER_POD, 4000, 80),
        tcp(POD, OTHER_POD, 4000, 80, "A"),
        udp(POD, OTHER_POD, 4000, 53),
        echo(POD, OTHER_POD, 5),
        echo(OTHER_POD, POD, 5, reply=True),
    ):
        assert snat.mark_of("pod_in", packet) == NOTRACK


@pytest.mark.parametrize(
    "src, dst",
    [
        (POD, CLUSTER_PEER),
        (POD, IPVLAN_POD),
        (STRANGER, REMOTE),
        (STRANGER, OTHER_POD),
        (POD, "224.0.0.251"),
        (SMALL_PODS[0], "10.245.3.3"),
    ],
)
def test_what_is_not_ours_in_both_directions_is_left_to_conntrack(snat: SnatBench, src: str, dst: str) -> None:
    assert snat.mark_of("pod_in", udp(src, dst, 4000, 53), mark=0x4000) == 0x4000
    assert snat.stats() == {}


def test_addresses_of_the_node_are_never_outside(snat: SnatBench) -> None:
    """A pod's call to a NodePort on its own node needs conntrack, whatever the CIDRs say."""
    assert snat.mark_of("pod_in", tcp(SMALL_PODS[0], NODE, 4000, 30080)) == 0
    assert snat.mark_of("pod_in", tcp(SMALL_PODS[0], "192.0.2.77", 4000, 80)) == NOTRACK, "a neighbour on the uplink is"


def test_what_leaves_by_another_device_than_an_uplink_is_left_to_conntrack(snat: SnatBench) -> None:
    assert snat.mark_of("pod_in", tcp(POD, BEHIND_OTHER_DEVICE, 4000, 80)) == 0
    assert snat.mark_of("pod_in", tcp(POD, "203.0.114.50", 4000, 80)) == NOTRACK


def test_a_tcp_connection_in_mid_stream_bypasses_only_with_a_session(snat: SnatBench) -> None:
    assert snat.mark_of("pod_in", tcp(POD, REMOTE, 4000, 80, "A")) == 0
    assert snat.mark_of("pod_in", tcp(POD, REMOTE, 4000, 80)) == NOTRACK
    snat.out(tcp(POD, REMOTE, 4000, 80))
    assert snat.mark_of("pod_in", tcp(POD, REMOTE, 4000, 80, "A")) == NOTRACK
    assert snat.mark_of("pod_in", tcp(POD, REMOTE, 4000, 80, "FA")) == NOTRACK


def test_a_syn_asks_the_settings_again(snat: SnatBench) -> None:
    snat.out(tcp(POD, REMOTE, 4000, 80))
    snat.tables["nomasq"][layout.pack_nomasq(7, bytes([198, 51, 100, 0]), 24)] = layout.U32.pack(1)
    assert snat.mark_of("pod_in", tcp(POD, REMOTE, 4000, 80, "A")) == NOTRACK
    assert snat.out(tcp(POD, REMOTE, 4000, 80, "A")).src == NODE
    assert snat.mark_of("pod_in", tcp(POD, REMOTE, 4000, 80)) == 0
    assert snat.out(tcp(POD, REMOTE, 4000, 80)).src == POD


def error_about(packet: Packet) -> Packet:
    return IP(src=packet.dst, dst=packet.src) / ICMP(type=3, code=3) / Raw(bytes(IP(bytes(packet))))


def test_an_error_goes_the_way_of_what_it_quotes(snat: SnatBench) -> None:
    snat.mark_of("pod_out", udp(NODE, POD, 5000, 53))
    assert snat.mark_of("pod_in", error_about(udp(NODE, POD, 5000, 53))) == 0
    snat.out(udp(POD, REMOTE, 4000, 53))
    assert snat.mark_of("pod_in", error_about(udp(REMOTE, POD, 53, 4000))) == NOTRACK
    assert snat.mark_of("pod_in", error_about(udp(REMOTE, POD, 53, 4001))) == 0
    assert snat.mark_of("pod_in", error_about(udp(OTHER_POD, POD, 53, 4001))) == NOTRACK
    snat.mark_of("pod_out", error_about(udp(POD, REMOTE, 5000, 53)))
    assert len(snat.tables["stackflow"]) == 1, "an error towards the pod is no flow"


def test_later_fragments_are_marked_like_their_first(snat: SnatBench) -> None:
    def later(dst: str) -> Packet:
        return IP(src=POD, dst=dst, id=77, frag=100, proto=17) / Raw(b"x" * 64)

    def first(dst: str) -> Packet:
        packet = udp(POD, dst, 4000, 53)
        packet.flags = "MF"
        return packet

    assert snat.mark_of("pod_in", later(REMOTE)) == 0
    assert snat.mark_of("pod_in", first(REMOTE)) == NOTRACK
    assert snat.mark_of("pod_in", later(REMOTE)) == NOTRACK
    assert snat.mark_of("pod_in", first(CLUSTER_PEER)) == 0
    assert snat.mark_of("pod_in", later(CLUSTER_PEER)) == 0
    assert snat.mark_of("pod_out", later(REMOTE), mark=NOTRACK) == 0
    assert len(snat.tables["stackflow"]) == 0


def test_a_connection_taken_through_the_stack_is_not_masqueraded_under_its_feet(snat: SnatBench) -> None:
    """A client outside that reaches the pod's own address: its answers must keep that address."""
    snat.mark_of("pod_out", tcp(REMOTE, POD, 5555, 80))
    assert snat.out(tcp(POD, REMOTE, 80, 5555, "SA"))[TCP].sport == 80
    assert snat.out(tcp(POD, REMOTE, 80, 5555, "A")).src == POD
    assert frame(snat.out(tcp(POD, REMOTE, 80, 5555, "A"))) == frame(tcp(POD, REMOTE, 80, 5555, "A"))
    assert snat.stats()["skip_reply"] == 3
