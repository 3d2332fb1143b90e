# SPDX-License-Identifier: Apache-2.0
"""Which pod a packet is charged to: what user space writes into `ip2id` and `edt_slots`, and what the programs find."""

from __future__ import annotations

import functools
import ipaddress
import random
from collections.abc import Iterator

import pytest
from bandwidth_edt import layout
from bandwidth_edt.addresses import Addresses
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from bpf import command
from tests.progs.edt_bench import EGRESS, SEC, EdtBench, now_ns

pytestmark = pytest.mark.feature("edt program")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
IDS = range(1, 6)
_AHEAD_NS, _NO_HORIZON = 1000 * SEC, 1 << 62


@pytest.fixture
def addresses(edt: EdtBench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Addresses]:
    """On the maps of the loaded programs, which are not pinned. Of each id, packets leave at a time of its own."""
    tables = edt.tables
    monkeypatch.setattr(command, "obj_get", lambda path: tables[path.rpartition("/")[2]].descriptor)
    for number in IDS:
        place = layout.bucket(number, EGRESS)
        tables["edt_cfg"][place] = layout.CFG.pack(1, 0, 0, _NO_HORIZON, 0, 0, 0, 0)
        departs_ns = now_ns() // SEC * SEC + _AHEAD_NS * number
        tables["edt_state"][place] = layout.STATE.pack(departs_ns, 1 << 62, *[0] * 7, bytes(128))
    made = Addresses(layout.PLUGIN)
    yield made
    made.keep_only(set())
    for addr in _crowd():
        tables["edt_slots"][layout.slot_of(layout.pack_addr(addr.packed))] = bytes(layout.SLOT.size)
    for number in IDS:
        for name, table in ("edt_cfg", layout.CFG), ("edt_state", layout.STATE):
            tables[name][layout.bucket(number, EGRESS)] = bytes(table.size)


def _found(edt: EdtBench, source: Address) -> int | None:
    """The id whose bucket a packet from this address is charged to."""
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    ip = IP(src=str(source), dst="198.51.100.1") if source.version == 4 else IPv6(src=str(source), dst="2001:db8::1")
    departs_ns = edt.run(bytes(ether / ip / UDP())).tstamp_ns
    return round((departs_ns - now_ns()) / _AHEAD_NS) if departs_ns else None


def _slot(address: Address) -> bytes:
    return layout.slot_of(layout.pack_addr(address.packed))


@functools.cache
def _crowd() -> list[Address]:
    """Three times three addresses that share a slot, and some that are alone."""
    chance = random.Random(1)
    alone: list[Address] = [ipaddress.ip_address(f"10.244.1.{last}") for last in range(1, 5)]
    shared: dict[bytes, list[Address]] = {}
    while sum(len(found) >= 3 for found in shared.values()) < 3:
        some: list[Address] = [
            ipaddress.IPv4Address(chance.getrandbits(32)),
            ipaddress.IPv6Address(chance.getrandbits(128)),
        ]
        for address in some:
            shared.setdefault(_slot(address), []).append(address)
    return alone + [address for found in shared.values() if len(found) >= 3 for address in found[:3]]


def test_whatever_addresses_come_and_go_each_leads_to_its_own_pod(edt: EdtBench, addresses: Addresses) -> None:
    chance, model = random.Random(2), dict[Address, int]()
    for step in range(600):
        address, number = chance.choice(_crowd()), chance.choice(IDS)
        what = chance.random()
        if what < 0.5:
            addresses.lead(address.packed, number)
            model[address] = number
        elif what < 0.97:
            addresses.forget(address.packed, number)
            if model.get(address) == number:
                del model[address]
        else:
            addresses.keep_only({number})
            model = {each: has for each, has in model.items() if has == number}
        for each in _crowd():
            assert (addresses.leads_to(each.packed), _found(edt, each)) == (model.get(each), model.get(each)), step


def test_an_address_beside_one_with_a_limit_in_its_slot_has_none(edt: EdtBench, addresses: Addresses) -> None:
    first, second, third = _crowd()[-3:]
    addresses.lead(first.packed, 1)
    assert [_found(edt, each) for each in (first, second, third)] == [1, None, None]
    addresses.lead(second.packed, 2)
    assert [_found(edt, each) for each in (first, second, third)] == [1, 2, None]


def test_a_slot_that_contradicts_the_hash_is_seen_and_mended_by_leading_anew(
    edt: EdtBench, addresses: Addresses
) -> None:
    address = _crowd()[0]
    addresses.lead(address.packed, 1)
    edt.tables["edt_slots"][_slot(address)] = bytes(layout.SLOT.size)
    assert addresses.leads_to(address.packed) is None
    addresses.lead(address.packed, 1)
    assert (addresses.leads_to(address.packed), _found(edt, address)) == (1, 1)
    del edt.tables["ip2id"][layout.pack_addr(address.packed)]
    assert addresses.leads_to(address.packed) is None
    addresses.forget(address.packed, 1)
    assert _found(edt, address) is None


def test_slots_are_settled_by_what_the_hash_has(edt: EdtBench, addresses: Addresses) -> None:
    """At an upgrade, from a build that knows of no slots and has added and removed addresses; and by every GC."""
    led = {address: IDS[at % len(IDS)] for at, address in enumerate(_crowd())}
    for address, number in led.items():
        edt.tables["ip2id"][layout.pack_addr(address.packed)] = layout.U32.pack(number)
    assert {_found(edt, address) for address in led} == {None}
    for _ in "once", "again":
        addresses.settle_slots()
        assert {address: _found(edt, address) for address in led} == led
    chance = random.Random(3)
    while led:
        gone = chance.sample(list(led), min(2, len(led)))
        for address in gone:
            del edt.tables["ip2id"][layout.pack_addr(address.packed)]
            del led[address]
        addresses.settle_slots()
        assert {address: _found(edt, address) for address in _crowd()} == {each: led.get(each) for each in _crowd()}
        for each in (each for each in led if _is_alone(each, list(led))):
            assert edt.tables["edt_slots"][_slot(each)] == layout.SLOT.pack(layout.pack_addr(each.packed), led[each])
    assert not any(edt.tables["edt_slots"][_slot(address)].strip(b"\0") for address in _crowd())


def _is_alone(address: Address, others: list[Address]) -> bool:
    return [_slot(other) for other in others].count(_slot(address)) == 1


def test_the_addresses_of_a_node_have_slots_of_their_own() -> None:
    """So that hardly a packet needs the hash, of limited pods or of others."""
    pods = [
        ipaddress.ip_address(f"{prefix}{last:x}")
        for prefix in ("fd00:244:1::", "2001:db8:a:b::1:")
        for last in range(1, 255)
    ]
    pods += [ipaddress.ip_address(f"10.244.{node}.{last}") for node in (1, 2) for last in range(1, 255)]
    slots = [_slot(address) for address in pods]
    assert sum(slots.count(slot) > 1 for slot in slots) < len(pods) * 0.1
