# SPDX-License-Identifier: Apache-2.0
"""bandwidth_edt.queues and .saved on real devices: what was there before comes back, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bandwidth_edt import queues
from bandwidth_edt.saved import Saved

from cni.errors import CONFLICT, CniError
from cni.net import link
from cni.net.link import Link
from cni.net.netlink import Socket
from tests.lab.inside import inside
from tests.lab.node import Node

pytestmark = [pytest.mark.feature("bandwidth nic: saved qdiscs"), pytest.mark.needs("ifb", "fq_codel", "tbf")]

VETH = "ip link add nic0 type veth peer name far0"
ONE_QUEUE = "ip link add nic0 type ifb"
FOUR_QUEUES = "ip link add nic0 numtxqueues 4 type ifb"
TBF = "root handle 1: tbf rate 300mbit burst 123456 latency 70ms"
LEAVES = [f"parent 7:{queue} handle {queue}0: fq_codel target {queue}ms" for queue in range(1, 5)]

RESTORED = {
    "a veth's noqueue": (VETH, []),
    "the kernel's pfifo_fast": (ONE_QUEUE, []),
    "the kernel's mq": (FOUR_QUEUES, []),
    "pfifo_fast": (ONE_QUEUE, ["root handle 5: pfifo_fast"]),
    "fq_codel": (VETH, ["root handle 8001: fq_codel limit 777 target 5ms interval 100ms ce_threshold 3ms noecn"]),
    "fq_codel, uneven times": (ONE_QUEUE, ["root handle 2: fq_codel target 4999us interval 33333us flows 64"]),
    "tbf": (ONE_QUEUE, [TBF]),
    "tbf, with peak rate": (VETH, ["root handle 1: tbf rate 1mbit burst 10kb limit 30kb peakrate 2mbit minburst 1540"]),
    "pfifo": (ONE_QUEUE, ["root handle 3: pfifo limit 9"]),
    "bfifo": (ONE_QUEUE, ["root handle 3: bfifo limit 9000"]),
    "pfifo_head_drop": (ONE_QUEUE, ["root handle 3: pfifo_head_drop limit 9"]),
    "codel": (ONE_QUEUE, ["root handle 4: codel target 7ms interval 70ms ecn"]),
    "sfq": (ONE_QUEUE, ["root handle 4: sfq perturb 10 limit 200 depth 50 headdrop"]),
    "cake": (ONE_QUEUE, ["root handle 4: cake bandwidth 100mbit besteffort triple-isolate overhead 18 rtt 50ms"]),
    "cake without a rate": (VETH, ["root handle 4: cake unlimited diffserv4 ack-filter"]),
    "one fq_codel for four queues": (FOUR_QUEUES, ["root handle 3: fq_codel limit 99"]),
    "mq with leaves": (FOUR_QUEUES, ["root handle 7: mq", *LEAVES]),
    "mq with one leaf": (FOUR_QUEUES, ["root handle 7: mq", LEAVES[2]]),
    "a multi-queue veth's mq": (
        "ip link add nic0 numtxqueues 4 type veth peer name far0", ["root handle 7: mq", *LEAVES]
    ),
}  # fmt: skip

REFUSED = {
    "htb 1:": (ONE_QUEUE, ["root handle 1: htb default 1"]),
    "hfsc 1:": (ONE_QUEUE, ["root handle 1: hfsc default 1"]),
    "prio 1:": (ONE_QUEUE, ["root handle 1: prio"]),
    "drr 1:": (ONE_QUEUE, ["root handle 1: drr"]),
    "netem 1:": (ONE_QUEUE, ["root handle 1: netem delay 1ms"]),
    "pfifo 2:": (ONE_QUEUE, [TBF, "parent 1:1 handle 2: pfifo"]),
    "prio 10:": (FOUR_QUEUES, ["root handle 7: mq", "parent 7:1 handle 10: prio"]),
    "pfifo 5:": (FOUR_QUEUES, ["root handle 7: mq", "parent 7:1 handle 10: tbf rate 1mbit burst 10kb latency 1ms",
                               "parent 10:1 handle 5: pfifo"]),
    "fq_codel 9:, which has a table": (ONE_QUEUE, ["root handle 9: stab overhead 8 linklayer ethernet fq_codel"]),
}  # fmt: skip


@pytest.fixture
def node() -> Iterator[Node]:
    with Node.create("qdiscs") as made:
        yield made


class Nic:
    """One device of a node, with the qdiscs that tc's words set."""

    def __init__(self, node: Node, make: str, words: list[str]) -> None:
        self.node = node
        node.run(f"{make}; ip link set nic0 up")
        for each in words:
            self.tc(each)
        self.socket = inside(node, Socket)

    def tc(self, words: str) -> None:
        self.node.run(f"tc qdisc replace dev nic0 {words}")

    @property
    def link(self) -> Link:
        return link.get(self.socket, "nic0")

    def raw(self) -> list[tuple[int, int, str, bytes]]:
        found = queues.of(self.socket, self.link.index)
        return [(each.handle, each.parent, each.kind, each.options) for each in found]


def take_and_give_back(nic: Nic) -> None:
    """Through the file's form, with a root of our handle in between."""
    before = queues.of(nic.socket, nic.link.index)
    queues.refuse(nic.socket, nic.link, before)
    saved = Saved.unpack(Saved(True, before).pack(nic.link), nic.link)
    assert saved and saved.qdiscs is not None
    nic.tc("root handle b197: mq" if nic.link.tx_queues > 1 else "root handle b197: pfifo")
    queues.give_back(nic.socket, nic.link, saved.qdiscs)


@pytest.mark.parametrize("make, words", RESTORED.values(), ids=RESTORED)
def test_what_was_there_comes_back_bit_by_bit_however_often(node: Node, make: str, words: list[str]) -> None:
    nic = Nic(node, make, words)
    before, shown = nic.raw(), node.run("tc -d qdisc show dev nic0").stdout
    assert before
    for _ in range(3):
        take_and_give_back(nic)
        assert nic.raw() == before
        assert node.run("tc -d qdisc show dev nic0").stdout == shown


@pytest.mark.parametrize("named, make, words", [(name, *case) for name, case in REFUSED.items()], ids=REFUSED)
def test_what_could_not_be_put_back_is_refused_by_name(node: Node, named: str, make: str, words: list[str]) -> None:
    nic = Nic(node, make, words)
    with pytest.raises(CniError, match=f"nic0 has qdisc {named}") as caught:
        queues.refuse(nic.socket, nic.link, queues.of(nic.socket, nic.link.index))
    assert caught.value.code == CONFLICT


def test_a_qdisc_that_somebody_classifies_at_is_refused(node: Node) -> None:
    nic = Nic(node, ONE_QUEUE, ["root handle 4: fq_codel"])
    node.run("tc filter add dev nic0 parent 4: protocol all matchall classid 4:1")
    with pytest.raises(CniError, match="nic0 has qdisc fq_codel 4:, which has filters"):
        queues.refuse(nic.socket, nic.link, queues.of(nic.socket, nic.link.index))


def test_a_root_that_somebody_set_in_the_meantime_stays(node: Node) -> None:
    nic = Nic(node, ONE_QUEUE, [TBF])
    before = queues.of(nic.socket, nic.link.index)
    nic.tc("root handle b197: pfifo")
    nic.tc("root handle 6: pfifo limit 3")
    queues.give_back(nic.socket, nic.link, before)
    assert [(handle >> 16, kind) for handle, _, kind, _ in nic.raw()] == [(6, "pfifo")]


def test_a_file_of_another_device_or_boot_counts_as_none(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    nic = Nic(node, VETH, [])
    content = Saved(True, []).pack(nic.link)
    node.run("ip link set nic0 address 02:00:00:00:00:99")
    assert Saved.unpack(content, nic.link) is None
    content = Saved(True, []).pack(nic.link)
    node.run("ip link set nic0 down; ip link set nic0 name renamed; ip link set renamed up")
    assert Saved.unpack(content, link.get(nic.socket, "renamed"))
    monkeypatch.setattr("bandwidth_edt.saved._BOOT_ID", "/proc/sys/kernel/random/uuid")
    assert Saved.unpack(content, link.get(nic.socket, "renamed")) is None
