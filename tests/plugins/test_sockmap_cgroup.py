# SPDX-License-Identifier: Apache-2.0
"""bypath-sockmap on pods whose cgroup the runtime names: their own connections are looked at, and nobody else's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sockmap import node
from sockmap.layout import POD, SIDECAR

from bpf.sockets import root_cgroup, short_id
from tests.plugins.rooms import Room
from tests.plugins.sockmap_lab import PINS, Pod, Talk, cgroups, dump, links

pytestmark = [pytest.mark.needs("sockmap"), pytest.mark.feature("sockmap: cgroups of pods")]
EXCHANGES, SIZE = 10, 1000


@pytest.fixture
def pods(room: Room) -> Iterator[tuple[Pod, Pod]]:
    """Two, each with a cgroup for its processes."""
    made: list[Pod] = []
    with cgroups(room.node) as give_cgroup:
        try:
            for name in ("p1", "p2"):
                made.append(Pod(room.node, name))
                give_cgroup(made[-1])
            yield made[0], made[1]
        finally:
            for pod in made:
                pod.remove()
    assert links(room.node) == []


def programs_on(pod: Pod, cgroup: str) -> list[str]:
    """Names of this node's programs among those attached to the cgroup itself."""
    names = {}
    for name in ("sm_ops", "sm_pod_ops"):
        names[json.loads(pod.node.run(f"bpftool -j prog show pinned {PINS}/{name}").stdout)["id"]] = name
    shown = pod.node.run(f"bpftool -j cgroup show {cgroup}").stdout.strip()
    return sorted(names[each["id"]] for each in json.loads(shown or "[]") if each["id"] in names)


def link_of(pod: Pod) -> str:
    return f"sm_pod_ops-{short_id(pod.cgroup)}"


def talk(client: Pod, server: Pod, address: str) -> None:
    made = Talk(client, address, server.serve())
    assert made.ask(EXCHANGES, SIZE) == EXCHANGES * SIZE
    made.close()


def test_a_pod_is_looked_at_in_its_own_cgroup_and_nobody_else_is(pods: tuple[Pod, Pod]) -> None:
    pod, _ = pods
    pod.add(**pod.own_cgroup())
    policy = pod.policy()
    assert policy and (policy["flags"], policy["cgroup_id"]) == (SIDECAR | POD, short_id(pod.cgroup))
    assert links(pod.node) == [link_of(pod)]
    assert programs_on(pod, pod.cgroup) == ["sm_pod_ops"] and programs_on(pod, root_cgroup()) == []
    pod.check(**pod.own_cgroup())
    talk(pod, pod, "127.0.0.1")
    counted = pod.counters()
    assert (counted["paired"], counted["skipped"], counted["redirected_bytes"]) == (2, 0, 2 * EXCHANGES * SIZE)
    pod.delete()
    assert (pod.policy(), links(pod.node)) == (None, []) and programs_on(pod, pod.cgroup) == []


def test_pods_with_and_without_a_cgroup_meet_and_are_counted_once(pods: tuple[Pod, Pod]) -> None:
    """The one that is seen from the root is above the other's cgroup, too."""
    app, db = pods
    app.add(scopes=["pod"], **app.own_cgroup())
    db.add()
    assert links(app.node) == ["sm_ops-root", link_of(app)]
    for client, server in ((app, db), (db, app)):
        before = app.counters()["paired"], db.counters()["paired"]
        talk(client, server, server.ips[0])
        assert (app.counters()["paired"], db.counters()["paired"]) == (before[0] + 1, before[1] + 1)
    talk(app, app, "127.0.0.1")
    for pod, skipped in ((app, 2), (db, 0)):
        found = pod.counters()
        assert (found["paired"], found["skipped"], found["insert_fail"]) == (2, skipped, 0)


@pytest.mark.parametrize("inside", ["", "/inside"])
def test_pods_that_share_a_cgroup_or_lie_in_anothers_are_joined_once(pods: tuple[Pod, Pod], inside: str) -> None:
    app, db = pods
    given, db.cgroup = db.cgroup, app.cgroup + inside
    Path(db.cgroup).mkdir(exist_ok=True)
    try:
        for pod in pods:
            pod.add(**pod.own_cgroup())
        assert set(links(app.node)) == {link_of(app), link_of(db)}
        talk(app, db, db.ips[0])
        talk(db, db, "127.0.0.1")
        for pod, paired in ((app, 1), (db, 3)):
            found = pod.counters()
            assert (found["paired"], found["skipped"], found["insert_fail"]) == (paired, 0, 0)
        assert app.counters()["redirected_bytes"] == EXCHANGES * SIZE
        app.delete()
        assert links(app.node) == [link_of(db)]
        talk(db, db, "127.0.0.1")
        assert db.counters()["paired"] == 5
    finally:
        db.stop_servers()
        if inside:
            Path(db.cgroup).rmdir()
        db.cgroup = given


def test_processes_of_the_pod_that_are_elsewhere_stay_plain(pods: tuple[Pod, Pod]) -> None:
    pod, _ = pods
    pod.add(**pod.own_cgroup())
    port = pod.serve()
    pod.cgroup = ""
    made = Talk(pod, "127.0.0.1", port)
    assert made.ask(EXCHANGES, SIZE) == EXCHANGES * SIZE
    made.close()
    assert (pod.counters()["paired"], pod.counters()["redirected_msgs"]) == (0, 0)


def test_the_root_is_left_when_the_last_pod_that_needs_it_goes(pods: tuple[Pod, Pod]) -> None:
    app, db = pods
    db.add()
    app.add(**app.own_cgroup())
    assert "sm_ops-root" in links(app.node)
    db.delete()
    assert links(app.node) == [link_of(app)]
    talk(app, app, "127.0.0.1")
    assert app.counters()["paired"] == 2


def test_a_second_add_moves_a_pod_between_the_root_and_its_cgroup(pods: tuple[Pod, Pod]) -> None:
    pod, _ = pods
    for conf, left in (({}, "sm_ops-root"), (pod.own_cgroup(), link_of(pod)), ({}, "sm_ops-root")):
        pod.add(**conf)
        assert links(pod.node) == [left]
        pod.check(**conf)
        before = pod.counters()["paired"]
        talk(pod, pod, "127.0.0.1")
        assert pod.counters()["paired"] == before + 2
    assert "the policy in force is not the configured one" in pod.fault(**pod.own_cgroup())


def test_a_cgroup_that_is_not_there_leaves_the_pod_to_the_root(pods: tuple[Pod, Pod]) -> None:
    pod, _ = pods
    conf = {"runtimeConfig": {"cgroupPath": "/kubepods/burstable/pod-of-cgroup-v1"}}
    pod.add(**conf)
    assert links(pod.node) == ["sm_ops-root"]
    pod.check(**conf)


def test_check_names_a_link_that_somebody_took_away_and_add_mends_it(pods: tuple[Pod, Pod]) -> None:
    pod, _ = pods
    pod.add(**pod.own_cgroup())
    pod.node.run(f"bpftool link detach pinned {PINS}/links/{link_of(pod)}")
    assert f"sm_pod_ops is not attached to the pod's cgroup {pod.cgroup}" in pod.fault(**pod.own_cgroup())
    pod.add(**pod.own_cgroup())
    pod.check(**pod.own_cgroup())


def test_gc_takes_the_links_of_pods_that_are_not_listed(pods: tuple[Pod, Pod]) -> None:
    app, db = pods
    for pod in pods:
        pod.add(**pod.own_cgroup())
    app.cni.gc(app.conf(cniVersion="1.1.0"), valid=[("p1", "eth0")])
    assert links(app.node) == [link_of(app)] and db.policy() is None
    # One that no record names, as an ADD that was killed leaves it.
    pod = db
    pod.add(**pod.own_cgroup())
    pod.node.run(f"mv {PINS}/links/{link_of(pod)} {PINS}/links/sm_pod_ops-1")
    app.cni.gc(app.conf(cniVersion="1.1.0"), valid=[("p1", "eth0"), ("p2", "eth0")])
    assert links(app.node) == [link_of(app)]


def test_a_cgroup_that_went_before_the_pod_is_no_error_for_del(pods: tuple[Pod, Pod]) -> None:
    pod, _ = pods
    pod.add(**pod.own_cgroup())
    Path(pod.cgroup).rmdir()
    pod.delete()
    assert links(pod.node) == [] and dump(pod.node, "pods") == {}


def test_a_cgroup_path_that_is_no_text_is_an_error_that_names_it(pods: tuple[Pod, Pod]) -> None:
    done = pods[0].run("ADD", runtimeConfig={"cgroupPath": 7})
    assert done.returncode and "runtimeConfig.cgroupPath" in json.loads(done.stdout)["msg"]


FOUND = {
    "/kubepods/pod1": "kubepods/pod1",
    "kubepods/pod1": "kubepods/pod1",
    "/a.slice/a-b.slice/a-b-c.slice": "a.slice/a-b.slice/a-b-c.slice",
    "a-b-c.slice": "a.slice/a-b.slice/a-b-c.slice",
    "a.slice": "a.slice",
}
NOT_FOUND = ["", "/", "-.slice", "a-c.slice", "/kubepods/../kubepods/pod1", "/kubepods/pod2", "file"]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in set(FOUND.values()):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    for directory in [tmp_path, *(each for each in tmp_path.rglob("*"))]:
        (directory / "cgroup.procs").touch()
    (tmp_path / "file").touch()
    monkeypatch.setattr(node, "root_cgroup", lambda: str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("named, found", FOUND.items())
def test_a_cgroup_is_found_by_its_path_and_by_systemds_name(tree: Path, named: str, found: str) -> None:
    assert node.cgroup_of(named) == f"{tree}/{found}"


@pytest.mark.parametrize("named", NOT_FOUND)
def test_what_is_no_cgroup_of_a_pod_is_not_found(tree: Path, named: str) -> None:
    assert node.cgroup_of(named) == ""
