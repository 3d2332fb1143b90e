# SPDX-License-Identifier: Apache-2.0
"""CNI executables called as a runtime calls them: one at a time (Cni) and as a whole chain (Chain)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tests.lab.node import Node

REPO = Path(__file__).resolve().parents[2]
DIST = Path(os.environ.get("BYPATH_DIST", REPO / "dist" / "bypath")).resolve()
REFERENCE = Path("/usr/lib/cni")
FROM_CHECKOUT = "/run/lab/cni"  # inside a node
Json = dict[str, Any]


class CniFailure(Exception):
    """An executable ended with a status other than 0 and printed a CNI error."""

    def __init__(self, executable: str, command: str, error: Json, exit_code: int) -> None:
        super().__init__(f"{executable} {command} -> exit {exit_code}: {error}")
        self.code = int(error["code"])
        self.msg = str(error["msg"])
        self.details = str(error.get("details", ""))
        self.exit = exit_code


def search_path(node: Node) -> list[str]:
    """The directories of CNI_PATH inside the node: what was built, or else the checkout, then the reference plugins."""
    if os.environ.get("BYPATH_FROM_CHECKOUT") == "1":
        types = [f"bypath-{room.name}" for room in (REPO / "plugins").glob("*") if room.is_dir()]
        missing = [name for name in types if not (DIST / name).exists()]
        for name in missing:
            shim = f'#!/bin/sh\nexec "{REPO}/bin/run" {name} "$@"\n'
            line = 'mkdir -p "$1"; cat > "$1/$2"; chmod 755 "$1/$2"'
            node.run(["sh", "-c", line, "sh", FROM_CHECKOUT, name], input=shim)
        return [str(DIST), *([FROM_CHECKOUT] if missing else []), str(REFERENCE)]
    return [str(DIST), str(REFERENCE)]


class Cni:
    """One executable in a node. Names in CAPITALS given to a verb are more environment variables, or replace ours."""

    def __init__(self, node: Node, executable: str) -> None:
        self.node, self.executable = node, executable
        self.path = search_path(node)

    def run(self, command: str, stdin: str | None, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """One raw call; status 127 when there is no such executable."""
        search = 'for d do [ ! -x "$d/$0" ] || exec "$d/$0"; done; exit 127'
        full = {"CNI_COMMAND": command, "CNI_PATH": ":".join(self.path), **env}
        return self.node.run(
            ["sh", "-c", search, self.executable, *self.path], check=False, input=stdin or "", env=full
        )

    def call(self, command: str, conf: Json | None, env: Mapping[str, str]) -> Any:
        """The document that the executable printed (None for nothing at all); raises CniFailure."""
        done = self.run(command, None if conf is None else json.dumps(conf), env)
        if done.returncode == 127:
            raise FileNotFoundError(f"{self.executable} is in none of {self.path}")
        try:
            document = json.loads(done.stdout) if done.stdout else None
        except ValueError as error:
            raise AssertionError(f"{self.executable} {command} printed {done.stdout!r}, {done.stderr!r}") from error
        if done.returncode:
            assert document, f"{self.executable} {command}: exit {done.returncode}, no error on stdout: {done.stderr}"
            raise CniFailure(self.executable, command, document, done.returncode)
        return document

    def add(self, conf: Json, container_id: str, netns: str, ifname: str = "eth0", **env: str) -> Json:
        result = self.call("ADD", conf, attachment(container_id, netns, ifname, env))
        assert isinstance(result, dict), f"{self.executable} ADD printed no result"
        return result

    def delete(self, conf: Json, container_id: str, netns: str | None = "", ifname: str = "eth0", **env: str) -> None:
        """`netns` None leaves CNI_NETNS unset."""
        printed = self.call("DEL", conf, attachment(container_id, netns, ifname, env))
        assert printed is None, f"{self.executable} DEL printed {printed}"

    def check(self, conf: Json, container_id: str, netns: str, ifname: str = "eth0", **env: str) -> None:
        printed = self.call("CHECK", conf, attachment(container_id, netns, ifname, env))
        assert printed is None, f"{self.executable} CHECK printed {printed}"

    def gc(self, conf: Json, valid: Collection[tuple[str, str]] | None = None, **env: str) -> None:
        """`valid`: (container id, ifname) of what lives; None leaves the key out, which means unknown."""
        self.call("GC", {**conf, **({} if valid is None else valid_attachments(valid))}, env)

    def status(self, conf: Json, **env: str) -> None:
        self.call("STATUS", conf, env)

    def version(self, **env: str) -> Json:
        answer = self.call("VERSION", {"cniVersion": "1.0.0"}, env)
        assert isinstance(answer, dict)
        return answer


def attachment(container_id: str, netns: str | None, ifname: str, env: Mapping[str, str]) -> dict[str, str]:
    where = {} if netns is None else {"CNI_NETNS": netns}
    return {"CNI_CONTAINERID": container_id, "CNI_IFNAME": ifname, **where, **env}


def valid_attachments(valid: Collection[tuple[str, str]]) -> Json:
    """Both spellings, as libcni sends them."""
    attachments = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in valid]
    return {"cni.dev/valid-attachments": attachments, "cni.dev/attachments": attachments}


class Chain:
    """A conflist run as libcni runs it, with its cache of the results that DEL and CHECK are given."""

    def __init__(self, node: Node, conflist: Json) -> None:
        self.node, self.conflist = node, conflist
        self.cache: dict[tuple[str, str], Json] = {}
        """Final result of each attachment; delete an entry to imitate a runtime that lost its cache."""

    def _conf(self, plugin: Json, result: Json | None, offered: Mapping[str, Any] | None) -> Json:
        """What one plugin reads on stdin; `offered` runtime configuration reaches it by declared capability only."""
        declared = plugin.get("capabilities", {})
        runtime = {key: value for key, value in (offered or {}).items() if declared.get(key)}
        conf = {**plugin, "name": self.conflist["name"], "cniVersion": self.conflist["cniVersion"]}
        if runtime:
            conf["runtimeConfig"] = runtime
        return conf if result is None else {**conf, "prevResult": result}

    def add(
        self,
        container_id: str,
        netns: str,
        ifname: str = "eth0",
        runtime_config: Mapping[str, Any] | None = None,
        **env: str,
    ) -> Json:
        """The final result. As with libcni a failure undoes nothing: the runtime, here the test, calls `delete`."""
        result: Json | None = None
        for plugin in self.conflist["plugins"]:
            conf = self._conf(plugin, result, runtime_config)
            result = Cni(self.node, plugin["type"]).add(conf, container_id, netns, ifname, **env)
        assert result is not None
        self.cache[container_id, ifname] = result
        return result

    def delete(
        self,
        container_id: str,
        netns: str | None = "",
        ifname: str = "eth0",
        runtime_config: Mapping[str, Any] | None = None,
        **env: str,
    ) -> None:
        """In reverse order, ended by the first error; the result is forgotten only when all succeeded."""
        cached = self.cache.get((container_id, ifname))
        for plugin in reversed(self.conflist["plugins"]):
            conf = self._conf(plugin, cached, runtime_config)
            Cni(self.node, plugin["type"]).delete(conf, container_id, netns, ifname, **env)
        self.cache.pop((container_id, ifname), None)

    def check(
        self,
        container_id: str,
        netns: str,
        ifname: str = "eth0",
        runtime_config: Mapping[str, Any] | None = None,
        **env: str,
    ) -> None:
        """Every plugin is given the chain's final result; KeyError when ADD never succeeded."""
        cached = self.cache[container_id, ifname]
        for plugin in self.conflist["plugins"]:
            conf = self._conf(plugin, cached, runtime_config)
            Cni(self.node, plugin["type"]).check(conf, container_id, netns, ifname, **env)

    def gc(self, valid: Collection[tuple[str, str]]) -> None:
        """Every plugin is called although others fail; raises the first failure at the end."""
        failures = []
        for plugin in self.conflist["plugins"]:
            try:
                Cni(self.node, plugin["type"]).gc(self._conf(plugin, None, None), valid)
            except CniFailure as failure:
                failures.append(failure)
        self.cache = {key: result for key, result in self.cache.items() if key in set(valid)}
        if failures:
            raise failures[0]

    def status(self) -> None:
        for plugin in self.conflist["plugins"]:
            Cni(self.node, plugin["type"]).status(self._conf(plugin, None, None))
