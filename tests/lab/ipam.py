# SPDX-License-Identifier: Apache-2.0
"""An IPAM plugin that knows every verb and version, does as it is told, and writes down how it was called.

`install(node)` puts the executable "lab-ipam" into the node; this file is also its program. Keys of `ipam` beside type:

    families   [4], [6] or [4, 6] (default), which addresses to give
    routes     routes[] of the result, as they are
    answer     {verb: text} printed in place of the answer, with status 0, after the verb's work is done
    fail       {verb: {code, msg, details}} printed as error, with status 1, before anything is done
    crash      {verb: status} ends without a word, after the work is done; a negative status is a signal

A lease is a file in /var/lib/cni/networks/lab-ipam, which residue() sees; leases are of container id and ifname.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tests.lab.node import Node

DIRECTORY = "/var/lib/bypath-test/cni"
"""Inside a node; to be added to CNI_PATH."""
CALLS = "/var/lib/bypath-test/ipam-calls"
LEASES = "/var/lib/cni/networks/lab-ipam"
VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
UNKNOWN_CONTAINER = 3


def install(node: Node, name: str = "lab-ipam") -> None:
    program = f'#!/bin/sh\nexec "{sys.executable}" -I -S "{os.path.abspath(__file__)}"\n'
    line = 'mkdir -p "$1"; cat > "$1/$2"; chmod 755 "$1/$2"'
    node.run(["sh", "-c", line, "sh", DIRECTORY, name], input=program)


def calls(node: Node) -> list[dict[str, Any]]:
    """Every call so far: {"command", "env" (CNI_* only), "conf"}."""
    return [json.loads(line) for line in node.run(f"cat {CALLS} 2>/dev/null || :").stdout.splitlines()]


def forget(node: Node) -> None:
    node.run(["rm", "-f", CALLS])


def leases(node: Node) -> list[str]:
    """ "<container id> <ifname>" of each lease, by number."""
    return node.run(f"cat {LEASES}/[0-9]* 2>/dev/null || :").stdout.splitlines()


class Ipam:
    """One invocation."""

    def __init__(self, conf: dict[str, Any], environ: dict[str, str]) -> None:
        self.conf, self.ipam = conf, conf.get("ipam", {})
        self.owner = f"{environ.get('CNI_CONTAINERID', '')} {environ.get('CNI_IFNAME', '')}"
        os.makedirs(LEASES, exist_ok=True)

    def _held(self) -> dict[str, str]:
        found = {}
        for name in os.listdir(LEASES):
            if name != "lock":
                with open(f"{LEASES}/{name}") as lease:
                    found[name] = lease.read().strip()
        return found

    def _drop(self, unwanted: Any) -> None:
        for name, owner in self._held().items():
            if unwanted(owner):
                os.unlink(f"{LEASES}/{name}")

    def add(self) -> dict[str, Any]:
        held = self._held()
        number = next(n for n in range(2, 1000) if str(n) not in held)
        with open(f"{LEASES}/{number}", "w") as lease:
            lease.write(self.owner + "\n")
        texts = {4: f"10.244.1.{number}/24", 6: f"fd00:10:244:1::{number:x}/64"}
        ips: list[dict[str, Any]] = [{"address": texts[family]} for family in self.ipam.get("families", [4, 6])]
        if not self.conf["cniVersion"].startswith("1."):
            for ip in ips:
                ip["version"] = "6" if "::" in ip["address"] else "4"
        result: dict[str, Any] = {"cniVersion": self.conf["cniVersion"], "ips": ips}
        return {**result, **{key: self.ipam[key] for key in ("routes", "dns") if key in self.ipam}}

    def delete(self) -> None:
        self._drop(lambda owner: owner == self.owner)

    def check(self) -> None:
        if self.owner not in self._held().values():
            refuse(UNKNOWN_CONTAINER, f"no lease of {self.owner}")

    def gc(self) -> None:
        valid = {f"{entry['containerID']} {entry['ifname']}" for entry in self.conf["cni.dev/valid-attachments"]}
        self._drop(lambda owner: owner not in valid)

    def status(self) -> None:
        pass


def refuse(code: int, msg: str, details: str = "") -> None:
    print(json.dumps({"cniVersion": "1.0.0", "code": code, "msg": msg, "details": details}))
    sys.exit(1)


def main() -> None:
    command = os.environ.get("CNI_COMMAND", "")
    if command == "VERSION":
        print(json.dumps({"cniVersion": "1.1.0", "supportedVersions": VERSIONS}))
        return
    conf = json.load(sys.stdin)
    environ = {key: value for key, value in os.environ.items() if key.startswith("CNI_")}
    with open(CALLS, "a") as log:
        log.write(json.dumps({"command": command, "env": environ, "conf": conf}) + "\n")
    ipam = Ipam(conf, environ)
    if command in ipam.ipam.get("fail", {}):
        refuse(**ipam.ipam["fail"][command])
    with open(f"{LEASES}/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = getattr(ipam, {"DEL": "delete"}.get(command, command.lower()))()
    crash = ipam.ipam.get("crash", {}).get(command)
    if crash is not None:
        os.kill(os.getpid(), -crash) if crash < 0 else os._exit(crash)
    text = ipam.ipam.get("answer", {}).get(command)
    sys.stdout.write(text if text is not None else json.dumps(answer) if answer else "")


if __name__ == "__main__":
    main()
