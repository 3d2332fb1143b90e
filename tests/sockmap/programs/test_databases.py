# SPDX-License-Identifier: Apache-2.0
"""redis and PostgreSQL beside their clients and in another pod, all of whose connections are redirected."""

from __future__ import annotations

import hashlib
import sys

import pytest

from tests.sockmap.programs import databases, resp
from tests.sockmap.programs.town import MOST_OF_IT, POD_TO_POD, SIDECAR, Town, assert_exact_and_redirected

pytestmark = [
    pytest.mark.needs("sockmap"),
    pytest.mark.feature("sockmap: real programs"),
    pytest.mark.parametrize("where", [SIDECAR, POD_TO_POD]),
]

REDIS_PORT, POSTGRES_PORT = 6379, 5432
ROWS, ROW_BYTES = 12_000, 700
CLIENTS = 30
COPY_ALL_AT_ONCE = """
for client in $(seq "$1")
do (psql -c "\\copy rows to stdout" | sha256sum) &
done
wait
"""


@pytest.mark.parametrize("what", ["pipelines", "large", "subscribers"])
def test_redis_answers(town: Town, where: str, what: str) -> None:
    town.start(town.server(where), databases.redis_argv(REDIS_PORT), REDIS_PORT)
    argv = [sys.executable, "-I", "-S", resp.__file__, town.address(where), str(REDIS_PORT), what]
    seen = town.clients(argv)
    assert seen.exchanges > 0
    assert_exact_and_redirected(seen, connections=1)
    assert seen.counted["paired"] == 2 * resp.CONNECTIONS


def rows() -> bytes:
    """Lines for COPY, each its number and hex digits."""
    lines = [b"%d\t%s\n" % (at, hashlib.shake_128(b"%d" % at).hexdigest(ROW_BYTES // 2).encode()) for at in range(ROWS)]
    return b"".join(lines)


def test_postgresql_copies_in_and_out_of_many_clients(town: Town, where: str) -> None:
    pod = town.server(where)
    data = f"/run/lab/postgres-{pod.name}"
    town.start(pod, databases.postgres_argv(town.node, data, POSTGRES_PORT), POSTGRES_PORT)
    content = rows()
    (town.room / "rows").write_bytes(content)
    env = {
        "PGHOST": town.address(where),
        "PGUSER": databases.POSTGRES_USER,
        "PGSSLMODE": "disable",
        "PGGSSENCMODE": "disable",
        "PGOPTIONS": "-c client_min_messages=warning",
    }
    create = ["psql", "-qc", "create table rows (number int, digits text)"]
    fill = ["psql", "-qc", f"\\copy rows from {town.room / 'rows'}"]
    everybody = ["sh", "-c", COPY_ALL_AT_ONCE, "sh", str(CLIENTS)]
    with town.counting() as counted:
        for argv in (create, fill):
            town.node.pod_run("app", argv, env=env)
        digests = town.node.pod_run("app", everybody, env=env, timeout=120).stdout.split("\n")
    wanted = f"{hashlib.sha256(content).hexdigest()}  -"
    assert digests == [wanted] * CLIENTS + [""]
    assert counted["redirected_bytes"] > MOST_OF_IT * (1 + CLIENTS) * len(content), counted
    assert counted["paired"] == 2 * (2 + CLIENTS)
