# SPDX-License-Identifier: Apache-2.0
"""The nft table of bypath-snat: made, mended, filled, checked, removed. What it does to packets: test_notrack.py."""

from __future__ import annotations

import errno
import ipaddress
import json
import random
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from snat import notrack

from cni.net import nftables
from cni.net.netlink import NetlinkError
from tests.lab.inside import inside
from tests.lab.node import Node
from tests.lab.residue import remember, residue

pytestmark = [pytest.mark.feature("snat notrack"), pytest.mark.needs("nf_tables", "conntrack"), pytest.mark.once]

NODE_NETWORK = [(socket.inet_aton("192.0.2.0"), 24)]


@pytest.fixture(scope="module")
def alone() -> Iterator[Node]:
    """A node without any network but its loopback."""
    with Node.create("alone") as made:
        remember(made)
        yield made


@pytest.fixture
def bare(alone: Node) -> Iterator[Node]:
    """The same without any nft table, before and after the test."""
    assert alone.run(["nft", "list", "ruleset"]).stdout == ""
    yield alone
    alone.run(["nft", "flush", "ruleset"])
    assert residue(alone) == []


def packed(*addresses: str) -> list[bytes]:
    return [socket.inet_aton(address) for address in addresses]


def networks(*cidrs: str) -> list[tuple[bytes, int]]:
    return [(net.network_address.packed, net.prefixlen) for net in map(ipaddress.ip_network, cidrs)]


def elements(node: Node, name: str) -> list[Any]:
    """What nft says is in a set."""
    found = json.loads(node.run(["nft", "-j", "list", "set", "ip", notrack.TABLE, name]).stdout)["nftables"]
    return list(next(item["set"] for item in found if "set" in item).get("elem", []))


def spans(node: Node) -> list[tuple[int, int]]:
    """First and last address of each interval that nft says is in nomasq."""
    found = []
    for element in elements(node, "nomasq"):
        if isinstance(element, str):
            first = last = ipaddress.IPv4Address(element)
        elif "prefix" in element:
            net = ipaddress.IPv4Network((element["prefix"]["addr"], element["prefix"]["len"]))
            first, last = net[0], net[-1]
        else:
            first, last = (ipaddress.IPv4Address(end) for end in element["range"])
        found.append((int(first), int(last)))
    return sorted(found)


def merged(cidrs: list[str]) -> list[tuple[int, int]]:
    """The same by enumeration of prefixes: collapsed, then joined where they touch."""
    found: list[tuple[int, int]] = []
    for net in ipaddress.collapse_addresses(map(ipaddress.IPv4Network, cidrs)):
        first, last = int(net[0]), int(net[-1])
        if found and found[-1][1] + 1 == first:
            first = found.pop()[0]
        found.append((first, last))
    return found


def rules(node: Node) -> list[str]:
    return re.findall(r".*notrack$", node.run(["nft", "list", "table", "ip", notrack.TABLE]).stdout, re.MULTILINE)


def test_the_table_belongs_to_one_network_namespace(bare: Node) -> None:
    with Node.create("other") as other:
        inside(bare, notrack.ensure, [])
        assert inside(bare, notrack.exists) is True and inside(other, notrack.exists) is False
        assert inside(other, notrack.fault) == "nft table ip bypath_snat is missing"


def test_ensure_twice_is_ensure_once(bare: Node) -> None:
    assert inside(bare, notrack.ensure, NODE_NETWORK) is True
    inside(bare, notrack.add_pod, packed("10.244.1.2"))
    before = bare.run(["nft", "-a", "list", "ruleset"]).stdout
    assert inside(bare, notrack.ensure, networks("10.0.0.0/8")) is True
    assert bare.run(["nft", "-a", "list", "ruleset"]).stdout == before
    assert inside(bare, notrack.fault, packed("10.244.1.2"), NODE_NETWORK) == ""


def test_many_ensures_at_once_make_one_table(bare: Node) -> None:
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def one(number: int) -> None:
        try:
            start.wait()
            assert inside(bare, notrack.ensure, NODE_NETWORK) is True
            inside(bare, notrack.add_pod, packed(f"10.244.1.{number}"))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(rules(bare)) == 2
    assert inside(bare, notrack.fault, packed(*[f"10.244.1.{number}" for number in range(8)]), NODE_NETWORK) == ""


def test_remove_leaves_nothing_and_may_be_repeated(bare: Node) -> None:
    inside(bare, notrack.ensure, NODE_NETWORK)
    inside(bare, notrack.add_pod, packed("10.244.1.2"))
    assert residue(bare) == ["nft table ip bypath_snat"]
    inside(bare, notrack.remove)
    assert residue(bare) == [] and bare.run(["nft", "list", "ruleset"]).stdout == ""
    inside(bare, notrack.remove)
    inside(bare, notrack.remove_pod, packed("10.244.1.2"))
    assert inside(bare, notrack.pods) == set()


def test_fifty_pods_come_and_go(bare: Node) -> None:
    inside(bare, notrack.ensure, NODE_NETWORK)
    addresses = [f"10.244.1.{number}" for number in range(2, 52)]
    for address in addresses:
        inside(bare, notrack.add_pod, packed(address))
    inside(bare, notrack.add_pod, packed(addresses[0]))
    assert sorted(elements(bare, "pods")) == sorted(addresses)
    assert inside(bare, notrack.pods) == set(packed(*addresses))
    for address in addresses[:25]:
        inside(bare, notrack.remove_pod, packed(address))
    inside(bare, notrack.remove_pod, packed(addresses[0]))
    assert sorted(elements(bare, "pods")) == sorted(addresses[25:])
    inside(bare, notrack.remove_pod, packed(*addresses))
    assert elements(bare, "pods") == []


def test_ipv6_is_passed_over(bare: Node) -> None:
    six = socket.inet_pton(socket.AF_INET6, "fd00::1")
    inside(bare, notrack.ensure, [(six, 64), *NODE_NETWORK])
    inside(bare, notrack.add_pod, [six])
    inside(bare, notrack.add_pod, [six, *packed("10.244.1.2")])
    assert elements(bare, "pods") == ["10.244.1.2"]
    inside(bare, notrack.remove_pod, [six, *packed("10.244.1.2")])
    assert elements(bare, "pods") == [] and len(spans(bare)) == 1


def test_a_pod_without_the_table_is_refused_by_name(bare: Node) -> None:
    with pytest.raises(NetlinkError, match="set pods of nft table ip bypath_snat") as refusal:
        inside(bare, notrack.add_pod, packed("10.244.1.2"))
    assert refusal.value.errno == errno.ENOENT


def test_overlapping_and_touching_networks_become_intervals(bare: Node) -> None:
    inside(bare, notrack.ensure, networks("10.0.0.0/8", "10.244.0.0/16", "0.0.0.0/0"))
    assert spans(bare) == merged(["0.0.0.0/0"])
    for cidrs in (
        ["10.0.0.0/8", "10.244.0.0/16", "192.0.2.0/24"],
        ["10.0.0.0/9", "10.128.0.0/9", "11.0.0.0/8"],
        ["0.0.0.0/0"],
        ["0.0.0.0/1"],
        ["128.0.0.0/1"],
        ["0.0.0.0/1", "128.0.0.0/1"],
        ["0.0.0.0/32", "255.255.255.255/32"],
        ["10.244.1.1/32", "10.244.1.1/32", "10.244.1.2/32", "10.244.1.4/32"],
        [],
        ["172.16.0.0/12", "10.1.0.0/16", "240.0.0.0/4"],
    ):
        inside(bare, notrack.set_nomasq, networks(*cidrs))
        assert spans(bare) == merged(cidrs)
        assert inside(bare, notrack.fault, (), networks(*cidrs)) == ""


def test_two_hundred_networks_at_random_become_intervals(bare: Node) -> None:
    chance = random.Random(20)
    inside(bare, notrack.ensure, [])
    for _ in range(2):
        sizes = [chance.randint(8, 32) for _ in range(200)]
        nets = [ipaddress.IPv4Network((chance.getrandbits(32), size), strict=False) for size in sizes]
        cidrs = [str(net) for net in nets]
        inside(bare, notrack.set_nomasq, networks(*cidrs))
        assert spans(bare) == merged(cidrs)


def test_host_bits_of_a_network_do_not_matter(bare: Node) -> None:
    inside(bare, notrack.ensure, [(socket.inet_aton("10.244.1.77"), 24)])
    assert spans(bare) == merged(["10.244.1.0/24"])


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("nft delete table ip bypath_snat", "is missing"),
        ("nft flush table ip bypath_snat", "chain prerouting"),
        ("nft flush chain ip bypath_snat output", "chain output"),
        ("nft add table ip bypath_snat '{ flags dormant; }'", "is dormant"),
        ("nft insert rule ip bypath_snat output accept", "chain output"),
        (
            "nft flush chain ip bypath_snat prerouting;"
            "nft add rule ip bypath_snat prerouting meta mark and 0x400000 == 0x400000 notrack",
            "must hold exactly the rule: meta mark & 0x00200000 == 0x00200000 notrack",
        ),
        ("nft flush set ip bypath_snat pods", "lacks the pod's address"),
        ("nft flush set ip bypath_snat nomasq", "is not what nonMasqueradeCIDRs says"),
    ],
)
def test_check_sees_what_somebody_did_and_add_mends_it(bare: Node, deed: str, said: str) -> None:
    pod = packed("10.244.1.2")
    inside(bare, notrack.ensure, NODE_NETWORK)
    inside(bare, notrack.add_pod, pod)
    assert inside(bare, notrack.fault, pod, NODE_NETWORK) == ""
    bare.run(deed)
    fault = inside(bare, notrack.fault, pod, NODE_NETWORK)
    assert said in fault and "bypath_snat" in fault
    assert inside(bare, notrack.ensure, NODE_NETWORK) is True
    if "nft flush set" not in deed and "delete" not in deed:
        assert inside(bare, notrack.pods) == set(pod), "mending keeps the pods"
    inside(bare, notrack.add_pod, pod)
    inside(bare, notrack.set_nomasq, NODE_NETWORK)
    assert inside(bare, notrack.fault, pod, NODE_NETWORK) == ""
    assert len(rules(bare)) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NETLINK_NETFILTER", 31),  # a netlink family that nobody registered: no nfnetlink
        ("_SUBSYSTEM", 77),  # more than NFNL_SUBSYS_COUNT: no nf_tables
        ("_FAMILY", 77),  # more than NFPROTO_NUMPROTO: nf_tables without IPv4
        ("notrack", lambda: nftables._expression("nosuchthing")),  # no nft_ct
    ],
)
def test_a_kernel_that_cannot_have_the_table_is_warned_about_and_put_up_with(
    bare: Node, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str, value: object
) -> None:
    monkeypatch.setattr(nftables, name, value)
    assert inside(bare, notrack.ensure, NODE_NETWORK) is False
    assert "stay in nf_conntrack" in capfd.readouterr().err
    assert inside(bare, notrack.exists) is False
    assert inside(bare, notrack.pods) == set()
    inside(bare, notrack.remove_pod, packed("10.244.1.2"))
    if name in ("NETLINK_NETFILTER", "_SUBSYSTEM"):
        assert inside(bare, notrack.fault) == ""
    assert bare.run(["nft", "list", "ruleset"]).stdout == ""


@pytest.mark.parametrize(("name", "value"), [("NETLINK_NETFILTER", 31), ("_SUBSYSTEM", 0), ("_FAMILY", 77)])
def test_remove_puts_up_with_such_a_kernel(
    bare: Node, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    inside(bare, notrack.ensure, NODE_NETWORK)
    monkeypatch.setattr(nftables, name, value)
    inside(bare, notrack.remove)
    assert len(rules(bare)) == 2, "nothing was there to be removed"
