# SPDX-License-Identifier: Apache-2.0
"""What pods under bypath-sockmap send: between the programs of one pod, between two pods, and what stays plain."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.executable import DIST
from tests.plugins.rooms import Room
from tests.plugins.sockmap_lab import PINS, TALK, Pod, Talk, annotated, dump

pytestmark = [pytest.mark.needs("sockmap"), pytest.mark.feature("sockmap: redirected traffic")]
EXCHANGES, BYTES = 20, 5000
SENT = EXCHANGES * BYTES
"""By each end of one connection."""
LOOPBACKS = ["127.0.0.1", "::1"]


@pytest.fixture
def pods(room: Room) -> Iterator[tuple[Pod, Pod]]:
    made: list[Pod] = []
    try:
        made = [Pod(room.node, "p1"), Pod(room.node, "p2")]
        yield made[0], made[1]
    finally:
        for pod in made:
            pod.remove()


def talk(client: Pod, address: str, port: int) -> None:
    talking = Talk(client, address, port)
    assert talking.ask(EXCHANGES, BYTES) == SENT
    talking.close()


def redirected(pod: Pod) -> int:
    return int(pod.counters()["redirected_bytes"])


@pytest.mark.parametrize("address", LOOPBACKS)
def test_an_app_and_its_sidecar_are_joined_over_loopback(pods: tuple[Pod, Pod], address: str) -> None:
    pod, _ = pods
    pod.add(mode="annotated", runtimeConfig=annotated("sidecar"))
    talk(pod, address, pod.serve())
    counted = pod.counters()
    assert (counted["paired"], counted["redirected_bytes"], counted["passed_bytes"]) == (2, 2 * SENT, 0)


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_a_pods_own_address_is_the_sidecars_too(pods: tuple[Pod, Pod], family: int) -> None:
    pod, _ = pods
    pod.add(scopes=["sidecar"])
    talk(pod, pod.ips[family], pod.serve())
    assert redirected(pod) == 2 * SENT


def test_what_nftables_redirects_to_a_sidecar_is_joined_with_it(pods: tuple[Pod, Pod]) -> None:
    pod, _ = pods
    pod.add(scopes=["sidecar"])
    port = pod.serve("0.0.0.0")
    pod.node.pod_run(
        pod.name,
        "nft add table ip t; nft add chain ip t out '{ type nat hook output priority -100; }';"
        f" nft add rule ip t out ip daddr 10.96.0.0/16 tcp dport 80 redirect to :{port}",
    )
    talk(pod, "10.96.0.1", 80)
    assert redirected(pod) == 2 * SENT


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_two_pods_of_a_node_are_joined_when_both_say_so(pods: tuple[Pod, Pod], family: int) -> None:
    client, server = pods
    client.add()
    server.add()
    talk(client, server.ips[family], server.serve())
    assert (redirected(client), redirected(server)) == (SENT, SENT)


@pytest.mark.parametrize(
    "scopes", [["sidecar"], None], ids=["the other is for sidecars only", "the other has no policy"]
)
def test_two_pods_stay_plain_when_one_does_not_say_so(pods: tuple[Pod, Pod], scopes: list[str] | None) -> None:
    for one, other in (pods, pods[::-1]):
        one.add()
        if scopes:
            other.add(scopes=scopes)
        talk(one, other.ips[0], other.serve())
        talk(other, one.ips[0], one.serve())
        assert (redirected(one), one.counters()["paired"]) == (0, 0)
        one.delete()
        other.delete()


def test_a_pod_without_a_policy_has_no_socket_in_the_map(pods: tuple[Pod, Pod]) -> None:
    plain, accelerated = pods
    accelerated.add()
    plain.add(mode="annotated")
    within, between = plain.serve(), accelerated.serve()
    inside, across = Talk(plain, "127.0.0.1", within), Talk(plain, accelerated.ips[0], between)
    assert (inside.ask(EXCHANGES, BYTES), across.ask(EXCHANGES, BYTES)) == (SENT, SENT)
    assert dump(plain.node, "socks") == {}
    joined = Talk(accelerated, "127.0.0.1", between)
    assert joined.ask(EXCHANGES, BYTES) == SENT
    assert len(dump(plain.node, "socks")) == 2
    for talking in inside, across, joined:
        talking.close()


def test_a_peer_outside_the_node_has_no_socket_in_the_map(pods: tuple[Pod, Pod]) -> None:
    """The node itself is as good as any other host: it is no pod."""
    pod, _ = pods
    pod.add()
    argv = [sys.executable, TALK, "ask", pod.ips[0], str(pod.serve())]
    said = pod.node.run(argv, input=f"{EXCHANGES} {BYTES}\n").stdout.split()
    assert said == ["open", str(SENT), "closed"]
    assert dump(pod.node, "socks") == {} and pod.counters()["paired"] == 0


@pytest.mark.parametrize("excluded", ["port", "user"])
def test_what_a_policy_excludes_stays_plain(pods: tuple[Pod, Pod], excluded: str) -> None:
    pod, _ = pods
    port = pod.serve()
    keys: dict[str, Any] = {"excludePorts": [port]} if excluded == "port" else {"excludeUIDs": [os.getuid()]}
    pod.add(**keys)
    talk(pod, "127.0.0.1", port)
    assert (pod.counters()["paired"], redirected(pod)) == (0, 0)
    pod.add()
    talk(pod, "127.0.0.1", port)
    assert redirected(pod) == 2 * SENT


def test_a_pod_with_a_bandwidth_limit_stays_visible_between_pods(pods: tuple[Pod, Pod]) -> None:
    limited, other = pods
    limited.add(runtimeConfig={"bandwidth": {"egressRate": 80_000_000}})
    other.add()
    talk(limited, other.ips[0], other.serve())
    assert redirected(limited) == 0
    talk(limited, "127.0.0.1", limited.serve())
    assert redirected(limited) == 2 * SENT


def test_connections_that_are_joined_live_on_without_their_policy(pods: tuple[Pod, Pod]) -> None:
    """By TCP. As when a pod is asked to stop: DEL may come before its last connection has ended."""
    client, server = pods
    client.add()
    server.add()
    talking = Talk(client, server.ips[0], server.serve())
    assert talking.ask(EXCHANGES, BYTES) == SENT
    client.delete()
    server.delete()
    assert talking.ask(EXCHANGES, BYTES) == SENT
    talking.close()
    assert dump(client.node, "socks") == {}


@pytest.fixture
def other_build(tmp_path: Path) -> Path:
    """The same programs under another hash, as if one instruction had changed."""
    made = tmp_path / "bypath"
    shutil.copytree(DIST, made)
    digest = made / "bpf/sockmap.sha256"
    digest.write_text(digest.read_text().strip()[::-1])
    return made


def ids(pod: Pod, kind: str, *names: str) -> list[int]:
    return [json.loads(pod.node.run(f"bpftool -j {kind} show pinned {PINS}/{name}").stdout)["id"] for name in names]


def eventually_gone(pod: Pod, programs: set[int]) -> None:
    """The kernel frees a closed socket's programs in its own time."""
    deadline = time.monotonic() + 20
    while programs & {each["id"] for each in json.loads(pod.node.run("bpftool -j prog show").stdout)}:
        assert time.monotonic() < deadline, "an old program still runs somewhere"
        time.sleep(0.1)


def test_an_upgrade_replaces_the_programs_under_live_connections(pods: tuple[Pod, Pod], other_build: Path) -> None:
    old, new = pods
    old.add()
    maps, programs = ids(old, "map", "socks", "pods", "counters"), ids(old, "prog", "sm_ops", "sm_msg", "sm_skb")
    port = old.serve()
    talking = Talk(old, "127.0.0.1", port)
    assert talking.ask(EXCHANGES, BYTES) == SENT

    new.cni.path = [str(other_build), *new.cni.path]
    new.add()
    assert ids(old, "map", "socks", "pods", "counters") == maps
    assert not set(ids(old, "prog", "sm_ops", "sm_msg", "sm_skb")) & set(programs)
    assert talking.ask(EXCHANGES, BYTES) == SENT
    assert redirected(old) == 4 * SENT
    talk(old, new.ips[0], new.serve())
    assert (redirected(old), redirected(new)) == (5 * SENT, SENT)
    old.cni.path = new.cni.path
    old.check()
    new.check()
    talking.close()
    eventually_gone(old, set(programs))
