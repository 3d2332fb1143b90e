# SPDX-License-Identifier: Apache-2.0
"""redis and PostgreSQL as Debian packages them, in a pod and without a disk."""

from __future__ import annotations

from pathlib import Path

from tests.lab.node import Node

POSTGRES_USER = "postgres"
_AS_POSTGRES = ["setpriv", f"--reuid={POSTGRES_USER}", f"--regid={POSTGRES_USER}", "--clear-groups", "--"]
_SETTINGS = {
    "listen_addresses": "*",
    "unix_socket_directories": "",
    "max_connections": "80",
    "fsync": "off",
    "shared_buffers": "32MB",
    # A scan may otherwise begin where another one is, and its lines come in another order.
    "synchronize_seqscans": "off",
}


def redis_argv(port: int) -> list[str]:
    alone = ["--save", "", "--appendonly", "no", "--protected-mode", "no", "--daemonize", "no"]
    return ["redis-server", "--port", str(port), "--bind", "0.0.0.0", "--maxmemory", "0", "--dir", "/run", *alone]


def postgres_argv(node: Node, data: str, port: int) -> list[str]:
    """A new cluster in the directory `data` of the node, where everybody may connect as anybody."""
    (programs,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
    node.run(["install", "-d", "-m", "700", "-o", POSTGRES_USER, "-g", POSTGRES_USER, data])
    made = [str(programs / "initdb"), "-D", data, "--auth=trust", "--no-sync", "-U", POSTGRES_USER, "--encoding=UTF8"]
    node.run([*_AS_POSTGRES, *made, "--locale=C.UTF-8"])
    node.run(["sh", "-c", 'echo "host all all 0.0.0.0/0 trust" >> "$1/pg_hba.conf"', "sh", data])
    settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
    return [*_AS_POSTGRES, str(programs / "postgres"), "-D", data, "-p", str(port), *settings]
