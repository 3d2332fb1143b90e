# SPDX-License-Identifier: Apache-2.0
"""A node with two pairs of pods, of which the policy selects one, and what the programs counted of them."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from sockmap import layout

from bench.sockmap import plan
from tests.lab.executable import REPO
from tests.lab.node import Node
from tests.lab.residue import difference, remember
from tests.plugins.sockmap_lab import Pod, cgroups, dump, links
from tests.sockmap.programs import proxies

LOAD = str(REPO / "build/bench/load")
SERVE, ACCEPT = "serve", "accept"
"""Commands of the load."""
SERVER_PORT, ACCEPT_PORT = 7001, 7002
PROXY_PORTS = {proxy: 8001 + number for number, proxy in enumerate(plan.PROXIES)}
PATIENCE_SEC = 60


class Pair(NamedTuple):
    """Two pods of one policy: `app` asks, itself or `db` answers."""

    app: Pod
    db: Pod
    pids: dict[tuple[str, str], int]
    """By pod and program."""

    @property
    def pods(self) -> tuple[Pod, Pod]:
        return self.app, self.db

    def at(self, place: str) -> Pod:
        """Where the server is."""
        return self.app if place == plan.LOOPBACK else self.db

    def address(self, place: str) -> str:
        return "127.0.0.1" if place == plan.LOOPBACK else self.db.ips[0]

    def load(self, *words: str | int) -> dict[str, float]:
        """What one run of the load in `app` printed. Raises CommandFailed."""
        argv = self.app.started([LOAD, *map(str, words)])
        figures: dict[str, float] = json.loads(self.app.node.pod_run(self.app.name, argv, timeout=PATIENCE_SEC).stdout)
        return figures


class Lab:
    """Make it with `create()`; the pairs are made once and measured in turn."""

    def __init__(self, programs: ExitStack, node: Node, room: Path, give_cgroup: Callable[[Pod], None]) -> None:
        self._programs, self._room, self._give_cgroup = programs, room, give_cgroup
        self.node = node
        self.pairs = {half: self._pair(number) for number, half in enumerate(plan.HALVES)}
        self.select()

    @classmethod
    @contextmanager
    def create(cls, room: Path) -> Iterator[Lab]:
        """room: an empty directory for what the programs write. Raises RuntimeError when the node is not at the end as
        it was: what does not clean up costs more than was measured."""
        with Node.create("bench-sockmap") as node:
            remember(node)
            with cgroups(node) as give_cgroup, ExitStack() as programs:
                made = cls(programs, node, room, give_cgroup)
                yield made
            for pair in made.pairs.values():
                for pod in pair.pods:
                    pod.remove()
                    node.del_pod_netns(pod.name)
            left = difference(node)
            if left:
                raise RuntimeError(f"the pods are gone, and the node is not as it was: {left}")

    def select(self, *, by_root: bool = False, **keys: int) -> None:
        """keys: of the policy, beside mode "all"; it is for connections that are made afterwards. by_root: the runtime
        names no cgroup."""
        for pod in self.pairs[plan.BYPATH].pods:
            pod.add(**({} if by_root else pod.own_cgroup()), **keys)

    def deselect(self) -> None:
        """Nobody is selected any more, and so nothing of bypath-sockmap is attached."""
        for pod in self.pairs[plan.BYPATH].pods:
            pod.delete()
        if links(self.node):
            raise RuntimeError("no pod has a policy, and the programs are still attached")

    def counted(self) -> dict[str, int]:
        """The counters of all pods of the node together."""
        each = [layout.sum_counters(raw, layout.COUNTERS.size) for raw in dump(self.node, "counters").values()]
        return {name: sum(counters[name] for counters in each) for name in each[0]}

    def tcp_memory_bytes(self) -> int:
        """Of all TCP sockets of the machine: what the programs' node limit is compared with."""
        (line,) = [line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:")]
        fields = line.split()
        return int(fields[fields.index("mem") + 1]) * resource.getpagesize()

    def tcp_window_bytes(self) -> int:
        """The most that one direction of a plain connection holds: a sender's buffer and a receiver's."""
        return sum(int(self.node.sysctl(f"net.ipv4.tcp_{which}mem").split()[2]) for which in ("w", "r"))

    def _pair(self, number: int) -> Pair:
        pods = []
        for name in (f"app{number}", f"db{number}"):
            self.node.add_pod_netns(name)
            pods.append(Pod(self.node, name))
            self._give_cgroup(pods[-1])
        app, db = pods
        pair = Pair(app, db, {})
        for pod in pods:
            for program, port in ((SERVE, SERVER_PORT), (ACCEPT, ACCEPT_PORT)):
                self._start(pair, pod, program, [LOAD, program, "0.0.0.0", str(port)], port)
        for proxy, port in PROXY_PORTS.items():
            self._start(pair, db, proxy, self._proxy(db, proxy, port, ("127.0.0.1", SERVER_PORT)), port)
            self._start(pair, app, proxy, self._proxy(app, proxy, port, (db.ips[0], port)), port)
        return pair

    def _proxy(self, pod: Pod, proxy: str, port: int, upstream: proxies.Address) -> list[str]:
        room = self._room / f"{pod.name}-{proxy}"
        room.mkdir()
        if proxy == "nginx":
            return proxies.nginx_argv(room, servers=proxies.nginx_http(port, upstream))
        if proxy == "haproxy":
            return proxies.haproxy_argv(room, port, upstream)
        return proxies.envoy_argv(room, port, upstream)

    def _start(self, pair: Pair, pod: Pod, program: str, argv: list[str], port: int) -> None:
        log = self._room / f"{pod.name}-{program}.log"
        child = self._programs.enter_context(proxies.running(self.node, pod.name, pod.started(argv), log, port))
        pair.pids[pod.name, program] = child.pid
