# SPDX-License-Identifier: Apache-2.0
"""nginx, haproxy and Envoy beside their clients and in another pod, all of whose connections are redirected."""

from __future__ import annotations

import pytest

from tests.sockmap.programs import proxies
from tests.sockmap.programs.town import BODIES, POD_TO_POD, SIDECAR, Town, assert_exact_and_redirected

pytestmark = [
    pytest.mark.needs("sockmap"),
    pytest.mark.feature("sockmap: real programs"),
    pytest.mark.parametrize("where", [SIDECAR, POD_TO_POD]),
]

PORT = 8001
FILES_PORT = 8002


def test_nginx_passes_requests_on(town: Town, where: str) -> None:
    upstream = town.origin(town.server(where))
    town.start(town.server(where), proxies.nginx_argv(town.room, servers=proxies.nginx_http(PORT, upstream)), PORT)
    assert_exact_and_redirected(town.ask(f"{town.address(where)}:{PORT}"), connections=2)


def test_nginx_passes_requests_on_without_a_buffer(town: Town, where: str) -> None:
    upstream = town.origin(town.server(where))
    servers = proxies.nginx_http(PORT, upstream, "proxy_buffering off; proxy_request_buffering off;")
    town.start(town.server(where), proxies.nginx_argv(town.room, servers=servers), PORT)
    assert_exact_and_redirected(town.ask(f"{town.address(where)}:{PORT}"), connections=2)


def test_nginx_passes_streams_on(town: Town, where: str) -> None:
    upstream = town.origin(town.server(where))
    blocks, module = proxies.nginx_stream(PORT, upstream), proxies.NGINX_STREAM_MODULE
    town.start(town.server(where), proxies.nginx_argv(town.room, blocks=blocks, modules=module), PORT)
    assert_exact_and_redirected(town.ask(f"{town.address(where)}:{PORT}"), connections=2)


def test_nginx_sends_files(town: Town, where: str) -> None:
    files = town.room / "files"
    town.node.run([*BODIES, "tree", str(files)])
    servers = proxies.nginx_files(FILES_PORT, files)
    town.start(town.server(where), proxies.nginx_argv(town.room, servers=servers), FILES_PORT)
    seen = town.ask(f"{town.address(where)}:{FILES_PORT}", methods="GET", count=50)
    assert_exact_and_redirected(seen, connections=1)


@pytest.mark.parametrize("mode", ["http", "tcp"])
def test_haproxy_that_does_not_splice_passes_on(town: Town, where: str, mode: str) -> None:
    upstream = town.origin(town.server(where))
    town.start(town.server(where), proxies.haproxy_argv(town.room, PORT, upstream, mode=mode), PORT)
    assert_exact_and_redirected(town.ask(f"{town.address(where)}:{PORT}"), connections=2)


def test_envoy_passes_requests_on(town: Town, where: str) -> None:
    upstream = town.origin(town.server(where))
    town.start(town.server(where), proxies.envoy_argv(town.room, PORT, upstream), PORT)
    assert_exact_and_redirected(town.ask(f"{town.address(where)}:{PORT}"), connections=2)
