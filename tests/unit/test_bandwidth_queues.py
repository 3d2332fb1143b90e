# SPDX-License-Identifier: Apache-2.0
"""Which fq is ours to set right, and which is somebody's to keep."""

from __future__ import annotations

import pytest
from bandwidth_edt import nic, queues
from bandwidth_edt.shaper import FQ_HANDLE, FQ_OPTIONS

from cni.net import qdisc
from cni.net.link import Link
from cni.net.qdisc import TC_H_ROOT, Qdisc

OUR_MQ = Qdisc(FQ_HANDLE, TC_H_ROOT, "mq", b"")
SOMEBODYS = 0x80010000
BY_DEFAULT = {"plimit": 10_000, "flow_plimit": 100}
ROOMIER = {"plimit": 1_000_000, "flow_plimit": 10_000}


def device() -> Link:
    """One that no sysfs knows: nothing tells how many of its queues are in use."""
    made = Link.__new__(Link)
    made.name = "nic0"
    return made


def fq(handle: int, options: dict[str, int], parent: int = FQ_HANDLE | 1) -> Qdisc:
    return Qdisc(handle, parent, "fq", qdisc.fq_options(options))


@pytest.mark.parametrize(
    "leaf, is_a_fault",
    [
        (fq(FQ_HANDLE + 0x10000, FQ_OPTIONS), False),
        (fq(FQ_HANDLE + 0x10000, BY_DEFAULT), True),
        (fq(0, BY_DEFAULT), True),
        (fq(0, ROOMIER), False),
        (fq(SOMEBODYS, BY_DEFAULT), False),
        (Qdisc(0, FQ_HANDLE | 1, "pfifo_fast", b""), True),
    ],
    ids=["ours", "ours changed", "the node's default", "a roomy default", "somebody's", "no fq"],
)
def test_below_our_mq_only_an_fq_that_somebody_put_there_may_be_narrow(leaf: Qdisc, is_a_fault: bool) -> None:
    assert bool(queues.faults(device(), [OUR_MQ, leaf])) == is_a_fault


@pytest.mark.parametrize(
    "qdiscs, command",
    [
        ([fq(SOMEBODYS, BY_DEFAULT, TC_H_ROOT)], "tc qdisc replace dev nic0 root fq limit 100000 flow_limit 10000"),
        (
            [Qdisc(0x80020000, TC_H_ROOT, "mq", b""), fq(SOMEBODYS, BY_DEFAULT, 0x8002000A)],
            "tc qdisc replace dev nic0 parent 8002:a fq limit 100000 flow_limit 10000",
        ),
        ([fq(SOMEBODYS, ROOMIER, TC_H_ROOT)], ""),
    ],
    ids=["root", "leaf", "roomy"],
)
def test_a_narrow_fq_on_the_nic_is_warned_of_with_the_command_that_helps(
    qdiscs: list[Qdisc], command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    nic._warn_of_narrow_fq(device(), qdiscs)
    said = capfd.readouterr().err
    assert said.endswith(f"{command}\n") if command else said == ""


def test_an_fq_that_the_kernel_chose_stays_only_when_it_drops_nothing_early() -> None:
    chosen = Qdisc(0, TC_H_ROOT, "mq", b"")
    assert not queues.are_fq([chosen, fq(0, BY_DEFAULT, 1)])
    assert queues.are_fq([chosen, fq(0, ROOMIER, 1)])
    assert queues.are_fq([Qdisc(0x80020000, TC_H_ROOT, "mq", b""), fq(0, BY_DEFAULT, 0x80020001)])
    assert queues.are_fq([fq(SOMEBODYS, BY_DEFAULT, TC_H_ROOT)])
