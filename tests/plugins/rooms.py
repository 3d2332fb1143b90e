# SPDX-License-Identifier: Apache-2.0
"""Every executable there is, found by globbing plugins/, and one node in which its calls can be tried quickly."""

from __future__ import annotations

import ast
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab import ipam
from tests.lab.executable import REPO, Cni, CniFailure, Json
from tests.lab.node import Node
from tests.lab.residue import remember

VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
PACKAGES = {f"bypath-{main.parent.parent.name}": main.parent for main in sorted(REPO.glob("plugins/*/*/__main__.py"))}
"""Executable -> its package's directory."""
EXECUTABLES = list(PACKAGES)


def imports_ipam(package: Path) -> bool:
    for path in package.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "cni" and "ipam" in [a.name for a in node.names]:
                return True
    return False


DELEGATING = [executable for executable, package in PACKAGES.items() if imports_ipam(package)]
"""Those that make an interface and delegate to IPAM; the others are chained behind one of them."""
HOST_GW = "bypath-host-gw"
"""Where one interface plugin must do for all: it needs nothing of the kernel but veth."""
HOST_LOCAL: Json = {
    "type": "host-local",
    "dataDir": "/var/lib/cni/networks",
    "ranges": [[{"subnet": "10.244.1.0/24"}]],
}
CHAINED = [executable for executable in EXECUTABLES if executable not in DELEGATING]

# One command, so that it is cheap enough to be taken around every single call.
SNAPSHOT = """
ip -d -o link; ip -o address; ip route show table all; ip -6 route show table all; ip neigh show nud permanent
ip rule; tc qdisc; nft list ruleset
for pod in /run/netns/*; do echo "$pod"; nsenter --net="$pod" sh -c 'ip -o address; ip route; ip neigh; tc qdisc'; done
find /run/bypath /var/lib/cni ! -name lock ! -name 'last_reserved_ip.*' -type f
[ ! -e /sys/fs/bpf/bypath ] || find /sys/fs/bpf/bypath
for map in /sys/fs/bpf/bypath/*/attachments; do [ ! -e "$map" ] || bpftool map dump pinned "$map"; done
"""


OF_THE_KERNEL = ("valid_lft", "fe80:", "ff00::", "qdisc noqueue", "Found 0 elements")


class Room:
    """A node with an uplink that leads nowhere, a pod namespace "p1" and the IPAM double."""

    def __init__(self, node: Node) -> None:
        self.node = node
        node.run(
            """
            ip link add eth0 type veth peer name nowhere
            ip link set eth0 up; ip link set nowhere up
            ip address add 192.0.2.11/24 dev eth0; ip address add 2001:db8:0:1::11/64 dev eth0 nodad
            ip route add default via 192.0.2.1 dev eth0; ip route add default via 2001:db8:0:1::1 dev eth0
            mkdir -p /var/lib/cni/networks; echo text > /var/lib/bypath-test/plain; mkfifo /var/lib/bypath-test/fifo
            """
        )
        ipam.install(node)
        self.netns, self.netns2 = node.add_pod_netns("p1"), node.add_pod_netns("p2")
        remember(node)
        self.state = self.snapshot()
        """The last snapshot that was taken: what the next call finds."""

    @classmethod
    @contextmanager
    def create(cls) -> Iterator[Room]:
        with Node.create("room") as node:
            yield cls(node)

    def cni(self, executable: str) -> Cni:
        cni = Cni(self.node, executable)
        cni.path = [*cni.path, ipam.DIRECTORY]
        return cni

    def verbs(self) -> list[str]:
        """With which the IPAM double was called in this test."""
        return [call["command"] for call in ipam.calls(self.node)]

    def path_of(self, executable: str) -> str:
        """Of the executable, as seen inside the node."""
        for directory in self.cni(executable).path:
            if self.node.run(["test", "-x", f"{directory}/{executable}"], check=False).returncode == 0:
                return f"{directory}/{executable}"
        raise FileNotFoundError(f"{executable} is not built")

    def snapshot(self) -> list[str]:
        """What a call that fails must leave as it was. What the kernel does in its own time is no part of it."""
        lines = self.node.run(SNAPSHOT).stdout.splitlines()
        return sorted(line for line in lines if not any(word in line for word in OF_THE_KERNEL))


def without_node_pins(lines: list[str]) -> list[str]:
    """Programs and maps stay until bypath is uninstalled: a failed first ADD may leave them, but no link."""
    return [line for line in lines if not line.startswith("/sys/fs/bpf/bypath") or "/links/" in line]


def conf_for(executable: str, version: str = "1.1.0", **changes: Any) -> Json:
    """A minimal configuration with which nothing is wrong, then `changes`; a value of None takes a key away."""
    conf: Json = {"cniVersion": version, "name": "pods", "type": executable}
    if executable in DELEGATING:
        conf["ipam"] = {"type": "lab-ipam"}
    conf.update(changes)
    return {key: value for key, value in conf.items() if value is not None}


def environment(room: Room, executable: str, command: str, **changes: str | None) -> dict[str, str]:
    """A complete environment, then `changes`; a value of None takes a variable away."""
    full: dict[str, str | None] = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": room.netns,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": ":".join(room.cni(executable).path),
        **changes,
    }
    return {key: value for key, value in full.items() if value is not None}


def document_of(done: subprocess.CompletedProcess[str]) -> Any:
    """The one JSON document on stdout; None when there is nothing at all."""
    if not done.stdout:
        return None
    document, end = json.JSONDecoder().raw_decode(done.stdout)
    assert done.stdout[end:].strip() == "", f"more than one document on stdout: {done.stdout!r}"
    return document


def error_of(done: subprocess.CompletedProcess[str]) -> Json:
    """The CNI error of a call that must have failed."""
    assert done.returncode > 0, f"status {done.returncode}: {done.stdout} {done.stderr}"
    error = document_of(done)
    assert isinstance(error, dict), f"no error on stdout: {done.stdout!r} {done.stderr!r}"
    assert isinstance(error["code"], int) and error["code"] > 0 and error["cniVersion"] in VERSIONS
    assert isinstance(error["msg"], str) and error["msg"] and "defect" not in error["msg"], error
    return error


def prev_result(room: Room, version: str = "1.1.0", **more: Any) -> Json:
    """What an interface plugin before a chained one would have answered; its devices do not exist."""
    interfaces = [
        {"name": "bp0", "mac": "0a:00:00:00:00:01"},
        {"name": "eth0", "mac": "0a:01:00:00:00:01", "sandbox": room.netns},
    ]
    ip = {"address": "10.244.1.2/32", "interface": 1, **({} if version.startswith("1.") else {"version": "4"})}
    return {"cniVersion": version, "interfaces": interfaces, "ips": [ip], **more}


def failure_of(action: Any, *arguments: Any, **named: Any) -> CniFailure:
    """The CniFailure that the call must raise."""
    try:
        action(*arguments, **named)
    except CniFailure as failure:
        return failure
    raise AssertionError(f"{action.__name__} did not fail")


def with_prev(conf: Json, result: Mapping[str, Any]) -> Json:
    return {**conf, "prevResult": dict(result)}
