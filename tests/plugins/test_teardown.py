# SPDX-License-Identifier: Apache-2.0
"""DEL and GC: they always get through, take all of a pod and nothing of another, and go on after an error."""

from __future__ import annotations

import json

import pytest

from tests.lab import ipam
from tests.lab.executable import Json
from tests.plugins.rooms import EXECUTABLES, HOST_GW, HOST_LOCAL, VERSIONS, Room, conf_for, failure_of, with_prev

pytestmark = [pytest.mark.feature("protocol"), pytest.mark.once]
NOWHERE = {
    "unset": None, "empty": "", "gone": "/run/netns/gone", "a plain file": "/var/lib/bypath-test/plain",
    "bytes": "/run/netns/\udcff", "another kind": "/proc/self/ns/pid", "the host's own": "/proc/self/ns/net",
    "relative": "run/netns/p1",
}  # fmt: skip


@pytest.mark.parametrize("netns", NOWHERE.values(), ids=NOWHERE)
@pytest.mark.parametrize("executable", EXECUTABLES)
def test_a_del_of_what_was_never_there_succeeds_in_silence(room: Room, executable: str, netns: str | None) -> None:
    cni = room.cni(executable)
    for version in VERSIONS[0], VERSIONS[-1]:
        cni.delete(conf_for(executable, version), "never", netns)


@pytest.mark.parametrize("netns", [*NOWHERE.values(), "/run/netns/p1"], ids=[*NOWHERE, "there"])
def test_a_del_removes_the_pod_whatever_is_left_of_its_netns(room: Room, netns: str | None) -> None:
    conf = conf_for(HOST_GW)
    cni = room.cni(HOST_GW)
    cni.add(conf, "c1", room.netns)
    cni.delete(conf, "c1", netns)
    assert ipam.leases(room.node) == []
    cni.delete(conf, "c1", netns)


@pytest.mark.parametrize(
    "change",
    [{"mtu": "broken"}, {"hostVethPrefix": "far-too-long-for-a-name"}, {"hostVethPrefix": 7}, {"colour": "red"},
     {"source": "?"}, {"prevResult": {"ips": "none"}}],
    ids=str,
)  # fmt: skip
def test_a_configuration_that_broke_since_add_keeps_no_pod_from_being_removed(room: Room, change: Json) -> None:
    conf = conf_for(HOST_GW)
    cni = room.cni(HOST_GW)
    cni.add(conf, "c1", room.netns)
    cni.delete({**conf, **change}, "c1", room.netns)
    cni.delete({**conf, **change}, "c1", room.netns)


def test_a_late_del_leaves_the_next_pod_in_the_same_netns_alone(room: Room) -> None:
    conf = conf_for(HOST_GW)
    cni = room.cni(HOST_GW)
    result = cni.add(conf, "new", room.netns)
    cni.delete(conf, "old", room.netns)
    cni.check(with_prev(conf, result), "new", room.netns)
    cni.delete(conf, "new", room.netns)


def test_no_words_of_a_del_can_be_taken_for_success(room: Room) -> None:
    said = {"code": 999, "msg": "network not found", "details": "open /x: no such file or directory"}
    conf = conf_for(HOST_GW, ipam={"type": "lab-ipam", "fail": {"DEL": said}})
    cni = room.cni(HOST_GW)
    cni.add(conf, "c1", room.netns)
    failure = failure_of(cni.delete, conf, "c1", "")
    assert failure.code == 999
    assert "not found" not in str(failure) and "no such file or directory" not in str(failure)
    assert ipam.leases(room.node) != [], "nothing is forgotten that is not given back"
    cni.delete(conf_for(HOST_GW), "c1", "")


def test_gc_keeps_what_is_listed_and_reaps_the_rest_with_its_address(room: Room) -> None:
    conf = conf_for(HOST_GW)
    other = conf_for(HOST_GW, name="other", hostVethPrefix="xy")
    cni = room.cni(HOST_GW)
    keep = cni.add(conf, "keep", room.netns)
    cni.add(conf, "reap", room.netns2)
    room.node.add_pod_netns("p3")
    cni.add(other, "else", "/run/netns/p3")
    assert room.node.run(["ip", "link", "show", "type", "veth"]).stdout.count("alias bypath/") == 3
    cni.gc(conf, valid=[("keep", "eth0"), ("reap", "net1"), ("else", "eth0")])
    cni.check(with_prev(conf, keep), "keep", room.netns)
    aliases = room.node.run("ip link show type veth | grep -o 'alias .*' | sort").stdout.splitlines()
    assert aliases == ["alias bypath/other/else/eth0", "alias bypath/pods/keep/eth0"]
    deleted = [call["env"] for call in ipam.calls(room.node) if call["command"] == "DEL"]
    assert [(env["CNI_CONTAINERID"], env["CNI_IFNAME"]) for env in deleted] == [("reap", "eth0")]
    cni.gc(conf, valid=[])
    cni.gc(other, valid=[])
    room.node.del_pod_netns("p3")


def test_gc_without_a_list_keeps_everything(room: Room) -> None:
    conf = conf_for(HOST_GW, "1.0.0", ipam=HOST_LOCAL)
    cni = room.cni(HOST_GW)
    result = cni.add(conf, "c1", room.netns)
    cni.gc({**conf, "cniVersion": "1.1.0"})
    cni.check(with_prev(conf, result), "c1", room.netns)
    cni.delete(conf, "c1", room.netns)


def test_gc_goes_on_after_an_error_and_the_next_one_finishes_the_work(room: Room) -> None:
    conf = conf_for(HOST_GW)
    cni = room.cni(HOST_GW)
    for name, netns in ("c1", room.netns), ("c2", room.netns2):
        cni.add(conf, name, netns)
    bad = conf_for(HOST_GW, ipam={"type": "lab-ipam", "fail": {"DEL": {"code": 77, "msg": "busy"}}})
    assert failure_of(cni.gc, bad, valid=[]).code == 77
    assert room.verbs()[2:] == ["DEL", "DEL", "GC"], "each step is tried"
    cni.gc(conf, valid=[])
    assert room.verbs()[5:] == ["DEL", "DEL", "GC"], "what could not be given back was not forgotten"


@pytest.mark.parametrize("executable", EXECUTABLES)
def test_gc_of_an_empty_node_succeeds_in_silence(room: Room, executable: str) -> None:
    done = room.node.run(
        [room.path_of(executable)],
        input=json.dumps({**conf_for(executable), "cni.dev/valid-attachments": []}),
        env={"CNI_COMMAND": "GC", "CNI_PATH": ipam.DIRECTORY},
    )
    assert (done.stdout, done.stderr) == ("", "")
