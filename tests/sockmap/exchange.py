# SPDX-License-Identifier: Apache-2.0
"""Ways for the load of load/ to take, and its figures."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from tests.sockmap.attached import CHECKOUT
from tests.sockmap.pods import Pod

PROGRAM = CHECKOUT / "build/tests/exchange"
PROXY_PORT = 15001
DESTINATIONS = 8


class Way(NamedTuple):
    """Where clients and servers are, and how they are called.

    redirected  how what goes to all destinations is led to one proxy; empty: not at all
                "nft" or "iptables": on its way out of the clients' pod; "TPROXY": on its way into the servers'
    """

    clients: Pod
    servers: Pod
    source: str
    destinations: Sequence[str]
    listen: str = ""
    redirected: str = ""


def ways(app: Pod, db: Pod) -> dict[str, Way]:
    def ports(address: str) -> list[str]:
        return [f"{address}@{9000 + i}" for i in range(DESTINATIONS)]

    services = [f"10.96.0.{i + 1}@80" for i in range(DESTINATIONS)]
    services6 = [f"fd00:96::{i + 1}@80" for i in range(DESTINATIONS)]
    return {
        "loopback": Way(app, app, "127.0.0.1", ports("127.0.0.1")),
        "loopback, IPv6": Way(app, app, "::1", ports("::1")),
        "own address": Way(app, app, app.ipv4, ports(app.ipv4)),
        "iptables REDIRECT": Way(app, app, app.ipv4, services, "0.0.0.0", "iptables"),
        "nft redirect, IPv6": Way(app, app, app.ipv6, services6, "::", "nft"),
        "TPROXY": Way(app, db, app.ipv4, ports(db.ipv4), "0.0.0.0", "TPROXY"),
        "pod to pod": Way(app, db, app.ipv4, ports(db.ipv4)),
        "pod to pod, IPv6": Way(app, db, app.ipv6, ports(db.ipv6)),
        "IPv4 in IPv6 sockets": Way(app, db, f"::ffff:{app.ipv4}", ports(f"::ffff:{db.ipv4}"), "::"),
        "IPv4 to an IPv6 listener": Way(app, db, app.ipv4, ports(db.ipv4), "::"),
    }


class Figures(NamedTuple):
    """What the load counted; `log` is what it complained about."""

    exchanges: int
    bytes: int
    connections: int
    reused: int
    wrong: int
    hung: int
    failed: int
    log: str

    def faults(self) -> tuple[int, int, int]:
        return self.wrong, self.hung, self.failed


RULES = {
    "": "true",
    "iptables": f"""
        iptables -t nat -F OUTPUT
        iptables -t nat -A OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports {PROXY_PORT}""",
    "nft": f"""
        nft add table inet proxy; nft delete table inet proxy; nft add table inet proxy
        nft add chain inet proxy out '{{ type nat hook output priority -100; }}'
        nft add rule inet proxy out meta l4proto tcp tcp dport 80 redirect to :{PROXY_PORT}""",
    "TPROXY": f"""
        ip rule del fwmark 1 lookup 100 2>/dev/null || true
        ip rule add fwmark 1 lookup 100; ip route replace local default dev lo table 100
        iptables -t mangle -F PREROUTING
        iptables -t mangle -A PREROUTING -p tcp --dport 9000:9100 -j TPROXY --on-port {PROXY_PORT} --tproxy-mark 1""",
}
REMOVAL = """
    iptables -t mangle -F PREROUTING
    iptables -t nat -F OUTPUT
    nft add table inet proxy; nft delete table inet proxy
"""


def in_pod(pod: Pod, script: str) -> None:
    subprocess.run(["nsenter", f"--net={pod.path}", "sh", "-ec", script], check=True)


def redirect(way: Way) -> None:
    """Puts the rules in force that the way needs, and no others."""
    in_pod(way.servers, REMOVAL)
    in_pod(way.clients, REMOVAL)
    in_pod(way.servers if way.redirected == "TPROXY" else way.clients, RULES[way.redirected])


LOSS = """
    nft add table inet loss
    nft add chain inet loss in '{{ type filter hook input priority 0; }}'
    nft add rule inet loss in 'tcp flags & (syn|fin|rst) == 0 numgen random mod 1000 < {per_mille} drop'
"""


@contextmanager
def losing(way: Way, per_mille: int) -> Iterator[None]:
    """So many of the segments that come to one of the pods are lost, but none that begins or ends a connection."""
    pods = {way.clients, way.servers} if per_mille else set()
    try:
        for pod in pods:
            in_pod(pod, LOSS.format(per_mille=per_mille))
        yield
    finally:
        for pod in pods:
            in_pod(pod, "nft add table inet loss; nft delete table inet loss")


def run(way: Way, exchanges: int, *options: str, timeout: float = 120, verbose: bool = False) -> Figures:
    """One run. Options are the program's: -b bytes, -n connections at once, -P source ports from -p on that all share
    (0: each has its own), -w percent of slow readers, -h ms until a connection hangs, -B bytes of a long transfer.
    Raises RuntimeError without figures."""
    redirect(way)
    for pod in {way.clients, way.servers}:
        # A port in TIME_WAIT could not be used again at once.
        in_pod(pod, "sysctl -qw net.ipv4.tcp_max_tw_buckets=1")
    argv = [str(PROGRAM), "-c", way.clients.path, "-s", way.servers.path, "-a", way.source, "-e", str(exchanges)]
    for destination in way.destinations:
        argv += ["-d", destination]
    argv += ["-l", way.listen] if way.listen else []
    argv += ["-r", str(PROXY_PORT)] if way.redirected else []
    argv += ["-t"] if way.redirected == "TPROXY" else []
    stderr = None if verbose else subprocess.PIPE
    done = subprocess.run([*argv, *options], stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=timeout)
    if not done.stdout:
        raise RuntimeError(f"{argv} -> {done.returncode}: {done.stderr}")
    return Figures(**json.loads(done.stdout), log=done.stderr or "")
