# SPDX-License-Identifier: Apache-2.0
"""Two accelerated pods and what runs in them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.lab.node import Node
from tests.plugins.sockmap_lab import Pod
from tests.sockmap.programs import bodies
from tests.sockmap.programs.proxies import Address, running

SIDECAR, POD_TO_POD = "sidecar", "pod to pod"
BODIES = [sys.executable, "-I", "-S", bodies.__file__]
MOST_OF_IT = 0.9
"""Of what is sent while many connections open at once, some is before both ends were joined."""


class Seen(NamedTuple):
    """What clients saw, and what the programs counted meanwhile, of both pods together."""

    exchanges: int
    bytes: int
    wrong: int
    counted: dict[str, int]


class Town:
    """app, where clients are, and db. A test's programs are in its `stack`, and their files in its `room`."""

    def __init__(self, node: Node, app: Pod, db: Pod, stack: ExitStack, room: Path) -> None:
        self.node, self.app, self.db = node, app, db
        self._stack, self.room = stack, room

    def server(self, where: str) -> Pod:
        """Beside the client, or in the other pod."""
        return self.app if where == SIDECAR else self.db

    def address(self, where: str) -> str:
        return "127.0.0.1" if where == SIDECAR else self.db.ips[0]

    def start(self, pod: Pod, argv: list[str], *ports: int) -> None:
        log = self.room / f"{pod.name}-{ports[0]}.log"
        self._stack.enter_context(running(self.node, pod.name, argv, log, *ports))

    def origin(self, pod: Pod, port: int = 7001) -> Address:
        self.start(pod, [*BODIES, "serve", str(port)], port)
        return "127.0.0.1", port

    def counted(self) -> dict[str, int]:
        each = [pod.counters() for pod in (self.app, self.db)]
        return {name: sum(counters[name] for counters in each) for name in each[0]}

    @contextmanager
    def counting(self) -> Iterator[dict[str, int]]:
        """Filled when the block ends with what was counted in it."""
        before = self.counted()
        counted: dict[str, int] = {}
        yield counted
        counted.update({name: value - before[name] for name, value in self.counted().items()})

    def ask(
        self, *servers: str, methods: str = "GET,POST", threads: int = 12, count: int = 25, patience_sec: float = 20
    ) -> Seen:
        """Clients in app of HTTP servers, each "ADDRESS:PORT"."""
        numbers = [str(number) for number in (threads, count, patience_sec)]
        return self.clients([*BODIES, "ask", methods, *numbers, *servers])

    def clients(self, argv: list[str]) -> Seen:
        """What a program in app saw that prints the first three fields of Seen as JSON. Raises CommandFailed."""
        with self.counting() as counted:
            done = self.node.pod_run(self.app.name, argv, timeout=120)
        (self.room / "clients.log").write_text(done.stderr)
        return Seen(**json.loads(done.stdout), counted=counted)


def assert_exact_and_redirected(seen: Seen, connections: int) -> None:
    """connections: how many each body has to pass, one behind the other."""
    assert seen.wrong == 0, f"{seen.wrong} of {seen.exchanges} bodies were not what was sent; {seen.counted}"
    wanted = MOST_OF_IT * connections * seen.bytes
    assert seen.counted["redirected_bytes"] > wanted, f"{seen.bytes} bytes over {connections}: {seen.counted}"
    assert seen.counted["paired"] >= 2 * connections
