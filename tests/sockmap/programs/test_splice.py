# SPDX-License-Identifier: Apache-2.0
"""haproxy that splices, which must be kept out: what splice(2) takes from a redirected socket is lost (README.md of
plugins/sockmap). Its ports or its user are excluded, and everybody else in the pod is still accelerated."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sockmap.programs import proxies
from tests.sockmap.programs.town import Town

pytestmark = [pytest.mark.needs("sockmap"), pytest.mark.feature("sockmap: real programs")]

PORT, ORIGIN_PORT, OTHER_PORT = 8001, 7001, 7002
SPLICE = "option splice-request\n    option splice-response"
USER = 4099
AS_USER = ["setpriv", "--reuid", str(USER), "--clear-groups", "--"]
EXCLUSIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "ports": ({"excludePorts": [PORT, ORIGIN_PORT]}, []),
    "user": ({"excludeUIDs": [USER]}, AS_USER),
}
"""Keys of the configuration, and what haproxy is started by."""


def start_haproxy(town: Town, by: list[str]) -> None:
    upstream = town.origin(town.app, ORIGIN_PORT)
    argv = proxies.haproxy_argv(town.room, PORT, upstream, mode="tcp", options=SPLICE)
    config = town.room / f"haproxy-{PORT}.cfg"
    # The user can read nothing below pytest's own directory.
    town.node.run(["cp", str(config), "/run/lab/haproxy.cfg"])
    town.start(town.app, [*by, *argv[:-1], "/run/lab/haproxy.cfg"], PORT)


@pytest.mark.parametrize("by", EXCLUSIONS)
def test_haproxy_that_splices_is_exact_when_it_is_excluded(town: Town, by: str) -> None:
    keys, prefix = EXCLUSIONS[by]
    town.app.add(**keys)
    start_haproxy(town, prefix)
    seen = town.ask(f"127.0.0.1:{PORT}")
    assert seen.wrong == 0
    assert seen.counted["paired"] == 0, "a socket of haproxy is in the map"
    assert seen.counted["redirected_bytes"] == 0
    assert seen.counted["skipped"] >= 4, "the client's socket, both of haproxy, and the origin's"


@pytest.mark.parametrize("by", EXCLUSIONS)
def test_what_is_beside_an_excluded_haproxy_is_redirected(town: Town, by: str) -> None:
    keys, prefix = EXCLUSIONS[by]
    town.app.add(**keys)
    start_haproxy(town, prefix)
    town.origin(town.app, OTHER_PORT)
    threads = 8
    seen = town.ask(f"127.0.0.1:{PORT}", f"127.0.0.1:{OTHER_PORT}", threads=threads)
    assert seen.wrong == 0
    assert seen.counted["paired"] == 2 * threads, "both ends of the connections that do not lead to haproxy"
    assert seen.counted["redirected_bytes"] > 0


def test_without_the_exclusion_what_haproxy_splices_is_lost(town: Town) -> None:
    """So that the tests above are known to see it. When a kernel passes this load, the exclusion can go."""
    start_haproxy(town, [])
    seen = town.ask(f"127.0.0.1:{PORT}", threads=4, count=1, patience_sec=2)
    assert seen.counted["redirected_bytes"] > 0
    assert seen.wrong > 0
