# SPDX-License-Identifier: Apache-2.0
"""A limited veth pod's real traffic: TCP with and without BBR, datagrams, and a request beside bulk."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest

from tests.lab import iperf
from tests.lab.executable import Cni
from tests.lab.fabric import ECHO_PORT, OUTSIDE_IP, OUTSIDE_IP6, Fabric
from tests.lab.iperf import Speed, kept
from tests.lab.residue import difference
from tests.plugins.bandwidth_lab import EXECUTABLE, Pod

pytestmark = [pytest.mark.needs("fq"), pytest.mark.feature("bandwidth-edt: traffic of veth pods")]
TWENTY = 20_000_000
ETHER_IPV4_UDP, ETHER_IPV4_TCP, ETHER_IPV6_TCP = 14 + 20 + 8, 14 + 20 + 32, 14 + 40 + 32
"""Bytes of a frame beside its payload; TCP with timestamps."""
REQUESTS = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    started = time.perf_counter(); s.sendall(bytes(64)); left = 64
    while left: left -= len(s.recv(left))
    print(1000 * (time.perf_counter() - started)); time.sleep(0.01)
"""


class Place:
    """A pod that is limited to TWENTY, and the outside host."""

    def __init__(self, fabric: Fabric, pod: Pod) -> None:
        self.fabric, self.pod = fabric, pod

    def speed(self, *options: str, server: str = OUTSIDE_IP) -> Speed:
        """Of the payload that arrived outside."""
        run = partial(self.pod.node.pod_run, self.pod.name, timeout=120)
        return iperf.measure(self.fabric.outside, lambda argv: run(argv).stdout, *options, server=server)

    def kept(
        self, frame_bytes: int, payload_bytes: int, *options: str, server: str = OUTSIDE_IP, rate: int = TWENTY
    ) -> None:
        kept(rate, lambda: self.speed(*options, server=server).of_frames(frame_bytes, payload_bytes))

    def request_ms(self) -> float:
        """The median of a request of 64 bytes and its echo."""
        argv = ["python3", "-c", REQUESTS, OUTSIDE_IP, str(ECHO_PORT), "4"]
        return statistics.median(map(float, self.pod.node.pod_run(self.pod.name, argv).stdout.split()))


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with Fabric.create() as fabric:
        node = fabric.add_node(1)
        fabric.route_pods("10.244.1.0/24", 1)
        fabric.route_pods("fd00:10:244:1::/64", 1)
        pod = Pod(node, "pod1")
        pod.limit(egressRate=TWENTY)
        yield Place(fabric, pod)
        pod.check(egressRate=TWENTY)
        pod.remove()
        node.del_pod_netns("pod1")
        assert difference(node) == []


def test_tcp_keeps_the_rate_in_both_families(place: Place) -> None:
    place.kept(1448 + ETHER_IPV4_TCP, 1448)
    place.kept(1428 + ETHER_IPV6_TCP, 1428, server=OUTSIDE_IP6)


def test_large_datagrams_keep_the_rate_that_they_were_not_asked_to_keep(place: Place) -> None:
    """What comes too fast is dropped before it is charged, so what is left has the whole rate. An emulated machine
    hardly manages 20 Mbit/s of datagrams, hence a quarter of that."""
    five = TWENTY // 4
    place.pod.limit(egressRate=five)
    place.kept(1448 + ETHER_IPV4_UDP, 1448, "-u", "-l", "1448", "-b", "8M", rate=five)
    place.pod.limit(egressRate=TWENTY)


def test_a_flow_that_bbr_paces_keeps_the_rate(place: Place) -> None:
    place.pod.node.run("modprobe tcp_bbr 2>/dev/null || :")
    assert "bbr" in place.pod.node.sysctl("net.ipv4.tcp_available_congestion_control")
    place.kept(1448 + ETHER_IPV4_TCP, 1448, "-C", "bbr")


def test_a_request_hardly_waits_beside_bulk_of_its_own_pod(place: Place) -> None:
    """Behind it, it would wait for the two GSO packets of 4 ms that a bulk flow keeps in the queue at least. Three
    tries, since an emulated machine stands still at times."""
    idle = place.request_ms()
    beside: list[float] = []
    while not beside or (beside[-1] > idle + 5 and len(beside) < 3):
        listening = place.fabric.outside.popen(["iperf3", "-s", "-1", "--forceflush"], stdout=subprocess.PIPE)
        assert listening.stdout
        while "listening" not in listening.stdout.readline():
            assert listening.poll() is None, "the iperf3 server ended"
        bulk = place.pod.node.pod_popen(place.pod.name, ["iperf3", "-c", OUTSIDE_IP, "-t", "60"], stdout=-1, stderr=-1)
        beside.append(place.request_ms())
        assert bulk.poll() is None, "the bulk ended too early"
        place.pod.node.stop(bulk)
        place.fabric.outside.stop(listening)
    assert beside[-1] <= idle + 5, (idle, beside)


def test_a_second_adds_rate_is_kept_from_then_on(place: Place) -> None:
    place.pod.limit(egressRate=TWENTY // 2)
    slower = place.speed().of_frames().mean
    Cni(place.pod.node, EXECUTABLE).add(place.pod.conf(egressRate=TWENTY), place.pod.name, place.pod.netns)
    assert slower <= 1.05 * TWENTY / 2
