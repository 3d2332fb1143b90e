# SPDX-License-Identifier: Apache-2.0
"""Pods under bypath-sockmap, what stands of them in the pinned maps, and programs in them that talk."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, CompletedProcess, Popen
from typing import Any

from sockmap import layout
from sockmap.config import ANNOTATIONS

from bpf.sockets import root_cgroup
from tests.lab.executable import Cni, Json
from tests.lab.node import Node
from tests.plugins import sockmap_talk
from tests.plugins.chained import Chained

EXECUTABLE, HOST_GW = "bypath-sockmap", "bypath-host-gw"
PINS = "/sys/fs/bpf/bypath/sockmap"
VERDICT = "/run/bypath/sockmap-selftest"
WITHOUT_CGROUP2 = "umount -l -a -t cgroup2 || true"
TALK = str(Path(sockmap_talk.__file__))
COOKIE = "import socket; print(int.from_bytes(socket.socket().getsockopt(socket.SOL_SOCKET, 71, 8), sys.byteorder))"


def raw(listed: list[str]) -> bytes:
    return bytes(int(byte, 16) for byte in listed)


def dump(node: Node, name: str) -> dict[bytes, bytes]:
    """A pinned map's elements; of a map per CPU the values follow each other."""
    shown = node.run(f"[ ! -e {PINS}/{name} ] || bpftool -j map dump pinned {PINS}/{name}").stdout
    return {raw(each["key"]): value_of(each) for each in json.loads(shown or "[]")}


def value_of(element: Json) -> bytes:
    if "values" in element:
        return b"".join(raw(each["value"]) for each in element["values"])
    return raw(element["value"]) if isinstance(element["value"], list) else b""


def links(node: Node) -> list[str]:
    return node.run(f"ls {PINS}/links 2>/dev/null || true").stdout.split()


def annotated(text: str) -> Json:
    return {ANNOTATIONS: {"bypath.dev/sockmap": text}}


@contextmanager
def pod_of(node: Node, name: str) -> Iterator[Pod]:
    made = Pod(node, name)
    try:
        yield made
    finally:
        made.remove()


@contextmanager
def cgroups(node: Node) -> Iterator[Callable[[Pod], None]]:
    """A function that gives a pod a cgroup for its processes, all of which must have ended when the block does."""
    parent = Path(root_cgroup(), f"bypath-{node.pid}")
    parent.mkdir()
    made: list[Path] = []

    def give(pod: Pod) -> None:
        own = parent / pod.name
        own.mkdir()
        made.append(own)
        pod.cgroup = str(own)

    try:
        yield give
    finally:
        for each in (*made, parent):
            if each.exists():
                each.rmdir()


class Talk:
    """A client whose connections stay open from one `ask` to the next."""

    def __init__(self, pod: Pod, address: str, *ports: int) -> None:
        self._pod = pod
        argv = pod.started([sys.executable, TALK, "ask", address, *map(str, ports)])
        self._client = pod.node.pod_popen(pod.name, argv, stdin=PIPE, stdout=PIPE)
        assert self._line() == "open"

    def _line(self) -> str:
        assert self._client.stdout
        return self._client.stdout.readline().strip()

    def ask(self, exchanges: int, size: int) -> int:
        """How many bytes came back as they were sent, which must be all."""
        assert self._client.stdin
        self._client.stdin.write(f"{exchanges} {size}\n")
        self._client.stdin.flush()
        return int(self._line())

    def close(self) -> None:
        """Half closes every connection; the server must have ended them, too."""
        assert self._client.stdin
        self._client.stdin.close()
        assert self._line() == "closed"
        assert self._client.wait(timeout=30) == 0


class Pod(Chained):
    """A veth pod of host-gw in the node's namespace `name`, and this plugin behind it."""

    def __init__(self, node: Node, name: str) -> None:
        self.node, self.name, self.netns = node, name, f"/run/netns/{name}"
        ranges = [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]]
        ipam = {"type": "host-local", "ranges": ranges, "dataDir": "/var/lib/cni/networks"}
        self.first: Json = {"cniVersion": "1.0.0", "name": "pods", "type": HOST_GW, "ipam": ipam}
        self.result = Cni(node, HOST_GW).add(self.first, name, self.netns)
        self.ips = [ip["address"].partition("/")[0] for ip in self.result["ips"]]
        self.cookie = int(node.pod_run(name, [sys.executable, "-c", f"import sys; {COOKIE}"]).stdout)
        self.cni = Cni(node, EXECUTABLE)
        self.cgroup = ""
        """Where `started` puts its processes; empty: where this one is."""
        self._servers: list[Popen[str]] = []

    def conf(self, **keys: Any) -> Json:
        conf = {"cniVersion": "1.0.0", "name": "pods", "type": EXECUTABLE, "mode": "all", "prevResult": self.result}
        return {**conf, **keys}

    def add(self, **keys: Any) -> None:
        assert self.cni.add(self.conf(**keys), self.name, self.netns) == self.result

    def run(self, verb: str, before: str = "true", **keys: Any) -> CompletedProcess[str]:
        """One raw call after `before`, a shell line in a mount namespace of its own."""
        env = {"CNI_COMMAND": verb, "CNI_CONTAINERID": self.name, "CNI_NETNS": self.netns, "CNI_IFNAME": "eth0"}
        script = f'{before}; for d do [ ! -x "$d/$0" ] || exec "$d/$0"; done; exit 127'
        argv = ["unshare", "-m", "sh", "-ec", script, EXECUTABLE, *self.cni.path]
        return self.node.run(argv, env=env, input=json.dumps(self.conf(**keys)), check=False)

    def delete(self) -> None:
        self.cni.delete(self.conf(), self.name, self.netns)

    def stop_servers(self) -> None:
        while self._servers:
            self.node.stop(self._servers.pop())

    def remove(self) -> None:
        self.stop_servers()
        self.delete()
        Cni(self.node, HOST_GW).delete(self.first, self.name, self.netns)

    def started(self, argv: list[str]) -> list[str]:
        """How a process of the pod is started."""
        into = 'echo 0 >"$0/cgroup.procs"; exec "$@"'
        return ["sh", "-ec", into, self.cgroup, *argv] if self.cgroup else argv

    def own_cgroup(self) -> Json:
        """Keys by which a runtime names the pod's cgroup."""
        return {"runtimeConfig": {"cgroupPath": self.cgroup.removeprefix(root_cgroup())}}

    def policy(self) -> Json | None:
        value = dump(self.node, "pods").get(layout.U64.pack(self.cookie))
        return None if value is None else layout.POLICY.named(value)

    def addresses(self) -> int:
        """How many lead to the pod."""
        return list(dump(self.node, "pod_ips").values()).count(layout.U64.pack(self.cookie))

    def counters(self) -> Json:
        values = dump(self.node, "counters")[layout.U64.pack(self.cookie)]
        return dict(layout.sum_counters(values, layout.COUNTERS.size))

    def serve(self, address: str = "::") -> int:
        """The port of a server that lives as long as the pod."""
        argv = self.started([sys.executable, TALK, "serve", address])
        server = self.node.pod_popen(self.name, argv, stdout=PIPE)
        self._servers.append(server)
        assert server.stdout
        return int(server.stdout.readline())
