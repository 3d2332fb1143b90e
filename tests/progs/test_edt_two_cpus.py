# SPDX-License-Identifier: Apache-2.0
"""Two processors charge one bucket with real packets at once: no charge and no count is lost.

The clock starts so far ahead that it only ever moves by what is charged: where it ends is exact to the packet.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cni.net import link, qdisc
from cni.net.netlink import Socket
from tests.lab.inside import inside
from tests.lab.node import Node
from tests.progs.edt_bench import INGRESS, POD, SEC, EdtBench, now_ns

PACKETS, FRAME_BYTES = 100_000, 1042
RATE, AHEAD_NS, NO_HORIZON = 1_000_000, 100_000 * SEC, 1 << 62
FRAME_NS = FRAME_BYTES * 1000

# Waits for its start, so that both send during the same time.
SENDER = """
import os, socket, sys
cpu, port, packets = map(int, sys.argv[2:])
os.sched_setaffinity(0, {cpu})
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.bind(("", port)); out.connect((sys.argv[1], 9))
print("ready", flush=True); sys.stdin.readline()
for _ in range(packets): out.send(bytes(1000))
"""


@pytest.fixture
def node() -> Iterator[Node]:
    with Node.create("two-cpus") as made:
        made.run(f"""
            ip link add host0 numtxqueues 2 numrxqueues 2 type veth peer name eth0
            ip link set host0 up; ip link set eth0 up
            ip route add {POD} dev host0
            ip neighbour add {POD} lladdr 02:00:00:00:00:05 dev host0 nud permanent
        """)
        yield made


def attach(node: Node, program: int) -> None:
    """To the egress of the pod's end on the host, without fq: nothing holds back what the program delays."""
    socket = inside(node, Socket)
    index = link.get(socket, "host0").index
    qdisc.ensure_clsact(socket, index)
    qdisc.put_filter(socket, index, "egress", 1, program, "edt_pod_in")


def send(node: Node, cpus: list[int]) -> None:
    """One sender on each of the processors, with ports of their own, at the same time."""
    senders = [
        node.popen(
            [sys.executable, "-I", "-S", "-c", SENDER, POD, str(cpu), str(4000 + cpu), str(PACKETS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for cpu in cpus
    ]
    for each in senders:
        assert each.stdout and each.stdout.readline() == "ready\n"
    for each in senders:
        assert each.stdin
        each.stdin.write("go\n")
        each.stdin.flush()
    assert [each.wait(timeout=120) for each in senders] == [0, 0]


def test_two_processors_that_send_to_one_pod_lose_neither_a_charge_nor_a_count(edt: EdtBench, node: Node) -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    assert len(cpus) == 2, "this machine has one processor: two cannot charge at once"
    edt.limit(RATE, horizon_ns=NO_HORIZON, direction=INGRESS)
    attach(node, edt.loaded.programs["edt_pod_in"])
    start_ns = now_ns() + AHEAD_NS
    edt.set_last(start_ns, INGRESS)
    send(node, cpus)
    sent = 2 * PACKETS
    counted = edt.stats(INGRESS)
    assert (counted["pkts"], counted["bytes"], counted["drop"]) == (sent, sent * FRAME_BYTES, 0)
    assert counted["t_last_ns"] == start_ns + sent * FRAME_NS
