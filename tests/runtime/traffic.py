# SPDX-License-Identifier: Apache-2.0
"""What pods send, and what the others see of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab import iperf
from tests.lab.fabric import ECHO_PORT, OUTSIDE_IP, Fabric
from tests.lab.iperf import Speed
from tests.lab.node import Node
from tests.runtime.cri import Pod


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


def egress_speed(pod: Pod, fabric: Fabric) -> Speed:
    """Of the frames of one TCP flow from the pod to the outside host."""
    return iperf.measure(fabric.outside, pod.exec).of_frames()


def ingress_speed(pod: Pod, fabric: Fabric) -> Speed:
    """Likewise, from the outside host to the pod."""
    return iperf.measure(fabric.outside, pod.exec, "-R").of_frames()


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
