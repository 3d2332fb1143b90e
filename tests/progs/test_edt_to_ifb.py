# SPDX-License-Identifier: Apache-2.0
"""edt_to_ifb and edt_is_for_ifb: which of the packets that come in at a NIC go the way over the node's ifb."""

from __future__ import annotations

import pytest
from bandwidth_edt import layout
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from tests.progs.edt_bench import EGRESS, ID, INGRESS, POD, POD6, STRANGER, EdtBench
from tests.progs.run import UNSPEC
from tests.progs.snat_bench import Devices

pytestmark = pytest.mark.feature("edt program")
RATE, REDIRECT, NO_MATCH, MATCH = 1_000_000, 7, 0, 0xFFFFFFFF
IFB = 4242  # nothing is sent by a test run, so there need be no such device
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
TO_POD = bytes(ETHER / IP(src="198.51.100.1", dst=POD) / UDP() / bytes(100))
TO_POD6 = bytes(ETHER / IPv6(src="2001:db8::1", dst=POD6) / UDP() / bytes(100))


@pytest.fixture
def nic(edt: EdtBench, devices: Devices) -> int:
    """The uplink, whose ingress leads to the ifb."""
    edt.tables["edt_ifbs"].clear()
    edt.tables["edt_ifbs"][layout.U32.pack(devices.uplink)] = layout.U32.pack(IFB)
    return devices.uplink


def limit(edt: EdtBench, places: int, direction: int = INGRESS) -> None:
    edt.limit(RATE, direction=direction)
    key = layout.bucket(ID, direction)
    value = layout.CFG.named(edt.tables["edt_cfg"][key])
    edt.tables["edt_cfg"][key] = layout.CFG.pack(*{**value, "flags": places}.values())


def verdicts(edt: EdtBench, packet: bytes, nic: int) -> tuple[int, int]:
    """Of edt_to_ifb and edt_is_for_ifb; neither may touch the packet or charge a bucket."""
    found = []
    for program in "edt_to_ifb", "edt_is_for_ifb":
        ran = edt.run(packet, program, ifindex=nic)
        assert (ran.packet, edt.stats(INGRESS)["pkts"], edt.stats(INGRESS)["t_last_ns"]) == (packet, 0, 0)
        found.append(ran.verdict)
    return found[0], found[1]


PASSES, GOES = (UNSPEC, NO_MATCH), (REDIRECT, MATCH)


@pytest.mark.parametrize("packet", [TO_POD, TO_POD6], ids=["IPv4", "IPv6"])
def test_what_comes_for_a_pod_that_is_limited_at_the_ifb_goes_there(edt: EdtBench, nic: int, packet: bytes) -> None:
    limit(edt, layout.AT_IFB)
    assert verdicts(edt, packet, nic) == GOES
    limit(edt, layout.AT_IFB | layout.AT_NIC)
    assert verdicts(edt, packet, nic) == GOES


@pytest.mark.parametrize("places", [0, layout.AT_POD, layout.AT_NIC, layout.AT_POD | layout.AT_NIC])
def test_a_pod_that_is_limited_elsewhere_or_in_the_other_direction_passes(edt: EdtBench, nic: int, places: int) -> None:
    limit(edt, places)
    assert verdicts(edt, TO_POD, nic) == verdicts(edt, TO_POD6, nic) == PASSES
    limit(edt, layout.AT_IFB, EGRESS)
    assert verdicts(edt, TO_POD, nic) == PASSES


def test_what_is_for_nobody_limited_or_no_whole_ip_header_passes(edt: EdtBench, nic: int) -> None:
    limit(edt, layout.AT_IFB)
    from_pod = bytes(ETHER / IP(src=POD, dst=STRANGER) / UDP() / bytes(100))
    stranger = bytes(ETHER / IP(src="198.51.100.1", dst=STRANGER) / UDP() / bytes(100))
    cut = [packet[:12] + b"\x81\x00\0\0" + packet[12:33] for packet in (TO_POD, TO_POD6)]
    for packet in from_pod, stranger, bytes(ETHER / ARP(pdst=POD)), *cut:
        assert verdicts(edt, packet, nic) == PASSES


def test_a_nic_that_leads_nowhere_or_not_yet_lets_everything_pass(edt: EdtBench, nic: int) -> None:
    limit(edt, layout.AT_IFB)
    assert verdicts(edt, TO_POD, 1) == PASSES, "the loopback is none of the NICs"
    edt.tables["edt_ifbs"][layout.U32.pack(nic)] = layout.U32.pack(0)
    assert verdicts(edt, TO_POD, nic) == PASSES


def test_a_limit_that_was_taken_away_lets_everything_pass(edt: EdtBench, nic: int) -> None:
    limit(edt, layout.AT_IFB)
    edt.tables["edt_cfg"][layout.bucket(ID, INGRESS)] = bytes(layout.CFG.size)
    assert verdicts(edt, TO_POD, nic) == PASSES


def test_a_priority_tag_in_the_frame_is_no_way_around(edt: EdtBench, nic: int) -> None:
    limit(edt, layout.AT_IFB)
    tagged = bytes(ETHER / Dot1Q(vlan=0, prio=3) / IP(src="198.51.100.1", dst=POD) / UDP() / bytes(100))
    assert verdicts(edt, tagged, nic) == GOES
