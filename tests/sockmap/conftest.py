# SPDX-License-Identifier: Apache-2.0
"""The programs and two pods for a module's tests; each test begins without policies and must leave no socket behind."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.sockmap.attached import CHECKOUT, Attached, attach
from tests.sockmap.pods import Pod, two_pods


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    """What `make test` has built already is up to date."""
    subprocess.run(
        ["make", "-s", "build/bpf/sockmap.bpf.o", "build/bpf/sockmap.sha256", "test-programs"], cwd=CHECKOUT, check=True
    )


@pytest.fixture(scope="module")
def pods() -> Iterator[tuple[Pod, Pod]]:
    with two_pods() as (_, app, db):
        yield app, db


@pytest.fixture
def app(pods: tuple[Pod, Pod]) -> Pod:
    return pods[0]


@pytest.fixture
def db(pods: tuple[Pod, Pod]) -> Pod:
    return pods[1]


@pytest.fixture(scope="module")
def attached(built: None) -> Iterator[Attached]:
    with attach() as made:
        yield made


@pytest.fixture
def programs(attached: Attached) -> Iterator[Attached]:
    """Attached, and no pod has a policy yet."""
    yield attached
    deadline = time.monotonic() + 5
    while attached.sockets() and time.monotonic() < deadline:
        time.sleep(0.05)
    left = attached.sockets()
    attached.forget_pods()
    attached.set_node_limit(0)
    assert left == 0, "sockets are still in the map after all of them were closed"


@pytest.fixture
def accelerated(programs: Attached, app: Pod, db: Pod) -> Attached:
    """Both pods want both scopes."""
    for pod in (app, db):
        programs.add_pod(pod.cookie, [pod.ipv4, pod.ipv6])
    return programs
