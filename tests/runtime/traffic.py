# SPDX-License-Identifier: Apache-2.0
"""What pods send, and what the others see of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE

from tests.lab.fabric import ECHO_PORT, OUTSIDE_IP, Fabric
from tests.lab.node import Node
from tests.runtime.cri import Pod

PAYLOAD_PER_PACKET, BYTES_PER_PACKET = 1448, 1514
"""Of a full TCP segment with timestamps on an Ethernet of MTU 1500: the shaped rate counts the whole frame."""


def url(address: str, port: int = 80) -> str:
    return f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"


def fetch(pod: Pod, address: str, port: int = 80) -> str:
    """The body that an HTTP server answers the pod with."""
    return pod.exec(["curl", "-sS", "-m", "20", url(address, port)])


def seen_outside(pod: Pod, server: str = OUTSIDE_IP) -> str:
    """The pod's source address as the outside host sees it."""
    return fetch(pod, server).split()[0]


def ping(pod: Pod, address: str) -> None:
    pod.exec(["ping", "-c", "3", "-i", "0.2", "-W", "10", address])


def serve_http(pod: Pod, port: int, text: str) -> None:
    pod.exec(f"mkdir -p /tmp/www; echo {text} > /tmp/www/index.html; busybox httpd -p {port} -h /tmp/www")


def tracked_flows(node: Node) -> int:
    return int(node.run(["conntrack", "-C"]).stdout)


def track_connections(node: Node) -> None:
    """Activates connection tracking as a firewall does, by a rule that needs its state, and proves that it works."""
    for hook in "prerouting", "input", "forward", "output", "postrouting":
        node.run(
            f"nft add table inet firewall; nft add chain inet firewall {hook}"
            f" '{{ type filter hook {hook} priority 0; policy accept; }}';"
            f" nft add rule inet firewall {hook} ct state new,established,related,invalid counter"
        )
    node.run(["curl", "-sS", "-m", "20", "-o", "/dev/null", url(OUTSIDE_IP)])
    assert tracked_flows(node) > 0, "connection tracking is not active, so that a count of 0 would mean nothing"
    forget_flows(node)


def forget_flows(node: Node) -> None:
    node.run(["conntrack", "-F"])
    assert tracked_flows(node) == 0, node.run(["conntrack", "-L"]).stdout


def measured_egress_bits_per_sec(pod: Pod, fabric: Fabric, seconds: int = 8) -> float:
    """Frames' bits per second that one TCP flow of the pod brought to the outside host, its first 2 s left out."""
    return _measured_bits_per_sec(pod, fabric, seconds)


def measured_ingress_bits_per_sec(pod: Pod, fabric: Fabric, seconds: int = 8) -> float:
    """Likewise, from the outside host to the pod."""
    return _measured_bits_per_sec(pod, fabric, seconds, "-R")


def _measured_bits_per_sec(pod: Pod, fabric: Fabric, seconds: int, *options: str) -> float:
    server = fabric.outside.popen(["iperf3", "-s", "-1", "--forceflush"], stdout=PIPE)
    assert server.stdout
    while "listening" not in server.stdout.readline():
        assert server.poll() is None, "the iperf3 server ended"
    report = json.loads(pod.exec(["iperf3", "-c", OUTSIDE_IP, "-J", "-O", "2", "-t", str(seconds), *options]))
    fabric.outside.stop(server)
    return float(report["end"]["sum_received"]["bits_per_second"]) * BYTES_PER_PACKET / PAYLOAD_PER_PACKET


class CountedStream:
    """A pod counts aloud over one TCP connection to the outside host and writes down what is echoed."""

    FILE = "/tmp/echoed"

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        count = f"i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done | nc {OUTSIDE_IP} {ECHO_PORT} > {self.FILE}"
        pod.exec(f"touch {self.FILE}; setsid sh -c '{count}' < /dev/null > /dev/null 2>&1 &")
        self.advance()

    def heard(self) -> int:
        """The last number that came back; every number before it must have come back in its order."""
        # The file may end in half a number.
        echoed = self._pod.exec(["cat", self.FILE]).rpartition("\n")[0].split()
        assert echoed == [str(i + 1) for i in range(len(echoed))], f"the stream lost its order: {echoed}"
        return len(echoed)

    def advance(self, by: int = 20, seconds: float = 60) -> None:
        """Returns once `by` more numbers came back; TimeoutError when they do not."""
        goal = self.heard() + by
        deadline = time.monotonic() + seconds
        while self.heard() < goal:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the stream of pod {self._pod.ip} stands at {self.heard()} of {goal}")
            time.sleep(0.1)


def echo_peers(fabric: Fabric) -> set[str]:
    """The far ends of the connections to the outside host's echo server."""
    shown = fabric.outside.run(["ss", "-Htn", "state", "established", f"sport = :{ECHO_PORT}"]).stdout
    return {line.split()[-1] for line in shown.splitlines()}


@contextmanager
def undisturbed(pod: Pod, fabric: Fabric) -> Iterator[CountedStream]:
    """A counted stream that must still run at the end, on the same connection."""
    stream = CountedStream(pod)
    before = echo_peers(fabric)
    assert len(before) == 1
    yield stream
    stream.advance()
    assert echo_peers(fabric) == before
