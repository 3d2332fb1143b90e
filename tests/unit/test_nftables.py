# SPDX-License-Identifier: Apache-2.0
"""What cni/net/nftables.py sends, as nft(8) and the kernel understand it."""

from __future__ import annotations

import errno
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from cni.net import nftables
from cni.net.netlink import Message, NetlinkError
from cni.net.nftables import Nftables
from tests.lab.inside import inside
from tests.lab.node import Node

TEXT = """
table ip made {
    set pods { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 }; }
    set wide { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.0/24, 224.0.0.0/3 }; }
    chain prerouting { type filter hook prerouting priority raw; meta mark & 0x00200000 == 0x00200000 notrack; }
    chain output { type filter hook output priority raw; ip saddr @pods ip daddr != @wide notrack; }
}
"""
SHOWN = """
[ meta load mark => reg 1 ]
[ bitwise reg 1 = ( reg 1 & 0x00200000 ) ^ 0x00000000 ]
[ cmp eq reg 1 0x00200000 ]
[ notrack ]
[ payload load 4b @ network header + 12 => reg 1 ]
[ lookup reg 1 set pods 0x0 ]
[ payload load 4b @ network header + 16 => reg 1 ]
[ lookup reg 1 set wide 0x1 ]
[ notrack ]
"""
BY_MARK = nftables.match_mark(0x200000, 0x200000) + nftables.notrack()
BY_ADDRESS = nftables.match_address(12, "pods") + nftables.match_address(16, "wide", inverted=True) + nftables.notrack()


@pytest.fixture(scope="module")
def machine() -> Iterator[Node]:
    with Node.create("nft") as made:
        yield made


@pytest.fixture
def tables(machine: Node) -> Iterator[Nftables]:
    """A socket in the machine's network namespace, which has no table."""
    machine.run(["nft", "flush", "ruleset"])
    made = inside(machine, Nftables)
    yield made
    made.close()


def key(address: str, ends: bool = False) -> tuple[bytes, bool]:
    return socket.inet_aton(address), ends


def whole_table(name: str) -> list[Message]:
    """The table of TEXT."""
    wide = [key("10.0.0.0"), key("11.0.0.0", True), key("192.0.2.0"), key("192.0.3.0", True), key("224.0.0.0")]
    return [
        nftables.put_table(name),
        nftables.put_address_set(name, "pods", 1),
        nftables.put_address_set(name, "wide", 2, interval=True),
        *nftables.put_elements(name, "pods", [key("10.0.0.1"), key("10.0.0.2")]),
        *nftables.put_elements(name, "wide", wide),
        nftables.put_chain(name, "prerouting", nftables.PREROUTING, nftables.PRIORITY_RAW),
        nftables.put_chain(name, "output", nftables.OUTPUT, nftables.PRIORITY_RAW),
        nftables.append_rule(name, "prerouting", BY_MARK),
        nftables.append_rule(name, "output", BY_ADDRESS),
    ]


def listed(machine: Node, table: str) -> list[Any]:
    """`nft -j list table` without handles, and under the name "made"."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items() if name != "handle"}
        if isinstance(value, list):
            return [plain(inner) for inner in value]
        return "made" if value == table else value

    found = json.loads(machine.run(["nft", "-j", "list", "table", "ip", table]).stdout)["nftables"]
    return sorted((plain(item) for item in found if "metainfo" not in item), key=json.dumps)


def test_nft_lists_our_table_as_it_lists_its_own(machine: Node, tables: Nftables) -> None:
    machine.run(["nft", "-f", "-"], input=TEXT)
    tables.transact("make a table", *whole_table("ours"))
    assert len(listed(machine, "made")) == 7
    assert listed(machine, "ours") == listed(machine, "made")


def test_nft_shows_the_expressions_that_were_meant(machine: Node, tables: Nftables) -> None:
    tables.transact("make a table", *whole_table("ours"))
    shown = machine.run(["nft", "--debug=netlink", "list", "table", "ip", "ours"])
    assert re.findall(r"\[ .* \]", shown.stdout + shown.stderr) == SHOWN.strip().splitlines()


def test_the_kernel_reads_nfts_rules_and_ours_back_alike(machine: Node, tables: Nftables) -> None:
    machine.run(["nft", "-f", "-"], input=TEXT)
    tables.transact("make a table", *whole_table("ours"))
    assert [chain for chain, _ in tables.rules("made")] == ["prerouting", "output"]
    assert tables.rules("ours") == tables.rules("made")
    assert sorted(tables.elements("ours", "pods")) == sorted(tables.elements("made", "pods"))


@pytest.mark.parametrize("rule", [BY_MARK, BY_ADDRESS])
def test_a_rule_is_recognised_when_it_is_read_back(tables: Nftables, rule: bytes) -> None:
    tables.transact("make a table", *whole_table("ours"))
    found = [expressions for _, expressions in tables.rules("ours")]
    assert [nftables.carries(there, nftables.decoded(rule)) for there in found].count(True) == 1


def test_another_mark_or_mask_or_set_or_length_is_not_recognised(tables: Nftables) -> None:
    tables.transact("make a table", *whole_table("ours"))
    (_, by_mark), (_, by_address) = tables.rules("ours")
    for mask, value in ((0x200000, 0), (0x600000, 0x200000), (0x400000, 0x400000)):
        other = nftables.match_mark(mask, value) + nftables.notrack()
        assert not nftables.carries(by_mark, nftables.decoded(other)), (mask, value)
    assert not nftables.carries(by_mark, nftables.decoded(BY_MARK + nftables.notrack()))
    assert not nftables.carries(by_mark, nftables.decoded(nftables.match_mark(0x200000, 0x200000)))
    both = nftables.match_address(12, "pods") + nftables.match_address(16, "wide") + nftables.notrack()
    assert not nftables.carries(by_address, nftables.decoded(both)), "the inversion matters"


def test_a_refused_message_undoes_the_whole_transaction_and_is_named(tables: Nftables) -> None:
    nonsense = nftables._expression("nosuchthing")
    with pytest.raises(NetlinkError, match="add a rule to chain output of nft table ip ours") as refusal:
        tables.transact(
            "make a table", *whole_table("ours"), nftables.append_rule("ours", "output", nonsense),
            nftables.put_table("second"),
        )  # fmt: skip
    assert refusal.value.errno == errno.ENOENT
    assert tables.table_flags("ours") is None and tables.table_flags("second") is None
    tables.transact("make a table", *whole_table("ours"))
    assert len(tables.rules("ours")) == 2, "the answers of the refused transaction must not disturb the next"


def test_the_first_of_several_refusals_is_raised(tables: Nftables) -> None:
    tables.transact("make a table", *whole_table("ours"))
    with pytest.raises(NetlinkError, match="remove from the set pods") as refusal:
        tables.transact(
            "remove",
            *nftables.remove_elements("ours", "pods", [key("10.0.0.9")]),
            nftables.remove_table("nothing"),
        )
    assert refusal.value.errno == errno.ENOENT


def test_an_overlapping_interval_is_refused_and_the_set_stays_as_it_was(tables: Nftables) -> None:
    tables.transact("make a table", *whole_table("ours"))
    before = sorted(tables.elements("ours", "wide"))
    with pytest.raises(NetlinkError, match="add to the set wide"):
        tables.transact("widen", *nftables.put_elements("ours", "wide", [key("10.9.0.0"), key("12.0.0.0", True)]))
    assert sorted(tables.elements("ours", "wide")) == before


def test_reading_without_the_subsystem_says_so(tables: Nftables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "_SUBSYSTEM", 77)  # more than NFNL_SUBSYS_COUNT
    for ask in (tables.table_flags, tables.rules, lambda table: tables.elements(table, "pods")):
        with pytest.raises(NetlinkError, match="nft table ip ours") as refusal:
            ask("ours")
        assert refusal.value.errno == errno.EOPNOTSUPP


def test_a_batch_that_is_refused_as_a_whole_is_named(tables: Nftables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nftables, "_SUBSYSTEM", 0)  # NFNL_SUBSYS_NONE
    with pytest.raises(NetlinkError, match="make it: ") as refusal:
        tables.transact("make it", nftables.put_table("ours"))
    assert refusal.value.errno == errno.EOPNOTSUPP


def test_a_set_takes_more_elements_than_one_message_holds(tables: Nftables) -> None:
    tables.transact("make a table", *whole_table("ours"))
    addresses = [(number.to_bytes(4, "big"), False) for number in range(1, 5002, 2)]
    intervals = [(number.to_bytes(4, "big"), number % 2 == 0) for number in range(1, 5001)]
    tables.transact(
        "fill",
        nftables.flush_set("ours", "pods"),
        nftables.flush_set("ours", "wide"),
        *nftables.put_elements("ours", "pods", addresses),
        *nftables.put_elements("ours", "wide", intervals),
    )
    assert sorted(tables.elements("ours", "pods")) == addresses
    assert sorted(tables.elements("ours", "wide")) == intervals
    tables.transact("drain", *nftables.remove_elements("ours", "pods", addresses))
    assert tables.elements("ours", "pods") == []


def test_putting_again_keeps_the_elements_and_wakes_a_dormant_table(machine: Node, tables: Nftables) -> None:
    tables.transact("make a table", *whole_table("ours"))
    machine.run("nft add table ip ours '{ flags dormant; }'")
    assert tables.table_flags("ours") == nftables.TABLE_DORMANT
    again = [message for message in whole_table("ours") if "rule" not in message.what]
    tables.transact("make a table", *again, nftables.remove_rules("ours"))
    assert tables.table_flags("ours") == 0 and tables.rules("ours") == []
    assert sorted(tables.elements("ours", "pods")) == [key("10.0.0.1"), key("10.0.0.2")]


def test_what_is_not_there_reads_as_nothing_or_enoent(tables: Nftables) -> None:
    assert tables.table_flags("ours") is None
    assert tables.rules("ours") == []
    for missing in (lambda: tables.elements("ours", "pods"), lambda: tables.transact("go", nftables.remove_table("x"))):
        with pytest.raises(NetlinkError) as refusal:
            missing()
        assert refusal.value.errno == errno.ENOENT
