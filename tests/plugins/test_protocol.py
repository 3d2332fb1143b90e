# SPDX-License-Identifier: Apache-2.0
"""What the CNI spec asks of every executable, in every version that it speaks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab import ipam
from tests.lab.executable import Json
from tests.plugins.rooms import (
    CHAINED,
    DELEGATING,
    EXECUTABLES,
    HOST_GW,
    HOST_LOCAL,
    VERSIONS,
    Room,
    conf_for,
    document_of,
    environment,
    failure_of,
    with_prev,
    without_node_pins,
)

pytestmark = [pytest.mark.feature("protocol"), pytest.mark.once]
# A kernel without the device that a plugin makes cannot try it; there is no other list of plugins here.
INTERFACES = [
    pytest.param(executable, marks=[pytest.mark.needs("ipvlan")] if "ipvlan" in executable else [])
    for executable in DELEGATING
]
# Debian 12's host-local speaks no 1.1.0: test_a_delegate_too_old_... is its part in it.
SPOKEN = [("lab-ipam", version) for version in VERSIONS] + [("host-local", version) for version in VERSIONS[:-1]]


def interface_of(result: Json, netns: str) -> Json:
    return next(interface for interface in result["interfaces"] if interface.get("sandbox") == netns)


@pytest.mark.parametrize("executable", EXECUTABLES)
@pytest.mark.parametrize("stdin", ["<&-", "</dev/null", "</var/lib/bypath-test/plain", "<>/var/lib/bypath-test/fifo"])
def test_version_is_answered_by_anyone_whatever_stdin_is(room: Room, executable: str, stdin: str) -> None:
    script = f'exec setpriv --reuid 65534 --regid 65534 --clear-groups "$0" {stdin}'
    room.node.run("chmod 666 /var/lib/bypath-test/*")
    done = room.node.run(["sh", "-c", script, room.path_of(executable)], env={"CNI_COMMAND": "VERSION"}, timeout=20)
    assert document_of(done) == {"cniVersion": "1.1.0", "supportedVersions": VERSIONS}
    assert done.stderr == ""
    room.node.run(["test", "!", "-e", "/sys/fs/bpf/bypath/" + executable.removeprefix("bypath-")])


@pytest.mark.parametrize("executable", INTERFACES)
@pytest.mark.parametrize(("delegate", "version"), SPOKEN)
def test_a_pod_is_made_checked_and_removed_in_every_version(
    room: Room, executable: str, delegate: str, version: str
) -> None:
    conf = conf_for(executable, version, ipam=HOST_LOCAL if delegate == "host-local" else {"type": delegate})
    cni = room.cni(executable)
    result = cni.add(conf, "c1", room.netns, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=anna")
    assert result["cniVersion"] == version
    assert interface_of(result, room.netns)["name"] == "eth0"
    assert all(("mtu" in interface) is (version == "1.1.0") for interface in result["interfaces"])
    assert all(("version" in ip) is (version < "1") for ip in result["ips"])
    assert {result["interfaces"][ip["interface"]]["name"] for ip in result["ips"]} == {"eth0"}
    assert "dns" not in result
    if version >= "0.4.0":
        cni.check(with_prev(conf, result), "c1", room.netns)
    else:
        assert failure_of(cni.check, with_prev(conf, result), "c1", room.netns).code == 1
    cni.delete(with_prev(conf, result), "c1", room.netns)
    cni.delete(conf, "c1", room.netns)
    if delegate == "lab-ipam":
        assert room.verbs() == ["ADD", *(["CHECK"] if version >= "0.4.0" else []), "DEL", "DEL"]


def test_the_delegate_sees_the_same_environment_and_the_whole_configuration(room: Room) -> None:
    conf = {**conf_for(HOST_GW, mtu=1400), "example.com/note": {"deep": [None, 1.5, "\u00e9"]}}
    conf["ipam"]["note"] = "kept"
    cni = room.cni(HOST_GW)
    result = cni.add(conf, "c1", room.netns, CNI_ARGS="K8S_POD_NAME=anna")
    cni.check(with_prev(conf, result), "c1", room.netns, CNI_ARGS="K8S_POD_NAME=anna")
    cni.delete(conf, "c1", None, CNI_ARGS="K8S_POD_NAME=anna")
    added, checked, deleted = ipam.calls(room.node)
    assert (added["conf"], checked["conf"], deleted["conf"]) == (conf, with_prev(conf, result), conf)
    wanted = {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": room.netns, "CNI_ARGS": "K8S_POD_NAME=anna",
              "CNI_PATH": ":".join(cni.path)}  # fmt: skip
    for call, netns in (added, room.netns), (checked, room.netns), (deleted, ""):
        assert call["env"] == {**wanted, "CNI_NETNS": netns, "CNI_COMMAND": call["command"]}


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL", "STATUS", "GC"])
def test_a_delegates_error_is_passed_on_unchanged(room: Room, verb: str) -> None:
    error = {"code": 123, "msg": "the pool is \u00e9xhausted", "details": "10.244.1.0/24"}
    good = conf_for(HOST_GW)
    bad = conf_for(HOST_GW, ipam={"type": "lab-ipam", "fail": {verb: error}})
    cni = room.cni(HOST_GW)
    result = cni.add(good, "c1", room.netns) if verb != "ADD" else {}
    actions: dict[str, Any] = {
        "ADD": lambda: cni.add(bad, "c1", room.netns),
        "CHECK": lambda: cni.check(with_prev(bad, result), "c1", room.netns),
        "DEL": lambda: cni.delete(bad, "c1", room.netns),
        "STATUS": lambda: cni.status(bad),
        "GC": lambda: cni.gc(bad, valid=[("c1", "eth0")]),
    }
    failure = failure_of(actions[verb])
    assert (failure.code, failure.msg, failure.details) == (123, error["msg"], error["details"])
    cni.delete(good, "c1", room.netns)


def test_a_delegate_that_failed_is_asked_to_forget_what_it_may_have_reserved(room: Room) -> None:
    conf = conf_for(HOST_GW, ipam={"type": "lab-ipam", "crash": {"ADD": -9}})
    failure = failure_of(room.cni(HOST_GW).add, conf, "c1", room.netns)
    assert failure.code == 5 and "signal 9" in failure.msg
    assert room.verbs() == ["ADD", "DEL"] and ipam.leases(room.node) == []


@pytest.mark.parametrize(
    ("before", "after", "routes"),
    [
        ("sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1", []),
        ("sysctl -qw net.ipv6.conf.all.forwarding=0", "sysctl -qw net.ipv6.conf.all.forwarding=1", []),
        ("nsenter --net=/run/netns/p1 ip link add eth0 type veth peer name x",
         "nsenter --net=/run/netns/p1 ip link del eth0", []),
        ("ip route add 10.244.1.2/32 dev eth0", "ip route del 10.244.1.2/32", []),
        ("ip -6 route add fd00:10:244:1::2/128 dev eth0", "ip -6 route del fd00:10:244:1::2/128", []),
        ("true", "true", [{"dst": "10.0.0.0/8"}, {"dst": "10.0.0.0/8"}]),
        ("true", "true", [{"dst": "10.0.0.0/8", "scope": 254}]),
    ],
    ids=["no IPv4 forwarding", "no IPv6 forwarding", "the ifname exists", "the host's route exists",
         "the host's IPv6 route exists", "a route twice", "a route that the kernel refuses"],
)  # fmt: skip
def test_the_address_is_given_back_whatever_fails_after_it_was_reserved(
    room: Room, before: str, after: str, routes: list[Json]
) -> None:
    conf = conf_for(HOST_GW, ipam={"type": "lab-ipam", "routes": routes})
    room.node.run(before)
    state = without_node_pins(room.snapshot())
    try:
        failure_of(room.cni(HOST_GW).add, conf, "c1", room.netns)
        assert without_node_pins(room.snapshot()) == state
    finally:
        room.node.run(after)
    assert room.verbs() == ["ADD", "DEL"] and ipam.leases(room.node) == []


def test_status_asks_the_delegate_and_tells_what_the_operator_must_change(room: Room) -> None:
    conf = conf_for(HOST_GW)
    cni = room.cni(HOST_GW)
    cni.status(conf)
    assert room.verbs() == ["STATUS"]
    room.node.sysctl("net.ipv4.ip_forward", 0)
    failure = failure_of(cni.status, conf)
    room.node.sysctl("net.ipv4.ip_forward", 1)
    assert failure.code == 50 and "sysctl -w net.ipv4.ip_forward=1" in failure.msg


def test_a_delegate_too_old_for_status_and_gc_is_told_apart_from_one_that_is_not_ready(room: Room) -> None:
    old = conf_for(HOST_GW, "1.0.0", ipam=HOST_LOCAL)
    new = conf_for(HOST_GW, "1.1.0", ipam=HOST_LOCAL)
    cni = room.cni(HOST_GW)
    assert failure_of(cni.add, new, "c1", room.netns).code == 1
    failure = failure_of(cni.status, new)
    assert failure.code == 50 and "host-local" in failure.msg and "cniVersion 1.1.0" in failure.msg
    result = cni.add(old, "c1", room.netns)
    cni.gc(new, valid=[("c1", "eth0")])
    cni.check(with_prev(old, result), "c1", room.netns)
    cni.delete(old, "c1", room.netns)


def test_what_others_said_in_the_result_survives_and_ours_comes_last(room: Room) -> None:
    said = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "dummy0", "sandbox": "/run/netns/else", "example.com/a": 1}],
        "ips": [{"address": "203.0.113.5/24", "interface": 0, "example.com/b": 2}],
        "routes": [{"dst": "203.0.113.0/24", "table": 0, "scope": 0}],
        "dns": {"nameservers": ["10.0.0.10"]},
        "example.com/c": [3],
    }
    conf = conf_for(HOST_GW, "1.0.0")
    cni = room.cni(HOST_GW)
    result = cni.add(with_prev(conf, said), "c1", room.netns)
    assert [result[key][:1] for key in ("interfaces", "ips", "routes")] == [
        said[key] for key in ("interfaces", "ips", "routes")
    ]
    assert (result["dns"], result["example.com/c"]) == (said["dns"], [3])
    assert [ip["interface"] for ip in result["ips"]] == [0, 2, 2]
    cni.check(with_prev(conf, result), "c1", room.netns)
    cni.delete(conf, "c1", room.netns)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("executable", CHAINED)
def test_a_chained_plugin_passes_on_the_result_whole(room: Room, executable: str, version: str) -> None:
    first = conf_for(HOST_GW, version)
    result = room.cni(HOST_GW).add(first, "c1", room.netns)
    said = {**result, "example.com/c": [3], "dns": {"search": ["example.com"]}}
    said["interfaces"] = [{**interface, "example.com/a": 1} for interface in said["interfaces"]]
    conf = conf_for(executable, version)
    cni = room.cni(executable)
    try:
        assert cni.add(with_prev(conf, said), "c1", room.netns) == said
        if version >= "0.4.0":
            cni.check(with_prev(conf, said), "c1", room.netns)
    finally:
        cni.delete(with_prev(conf, said), "c1", room.netns)
        room.cni(HOST_GW).delete(first, "c1", room.netns)


def test_the_hosts_own_netns_is_taken_only_when_that_is_meant(room: Room) -> None:
    routes = [{"dst": "203.0.113.0/24"}, {"dst": "2001:db8:f::/48"}]
    conf = conf_for(HOST_GW, ipam={"type": "lab-ipam", "routes": routes})
    cni = room.cni(HOST_GW)
    failure = failure_of(cni.add, conf, "c1", "/proc/self/ns/net", "pod0")
    assert failure.code == 4 and "CNI_NETNS_OVERRIDE" in failure.msg and room.verbs() == []
    result = cni.add(conf, "c1", "/proc/self/ns/net", "pod0", CNI_NETNS_OVERRIDE="1")
    assert interface_of(result, "/proc/self/ns/net")["name"] == "pod0"
    cni.delete(conf, "c1", "/proc/self/ns/net", "pod0", CNI_NETNS_OVERRIDE="1")


@pytest.mark.parametrize("gone", ["umount /sys/fs/bpf", "mount --bind /sys /sys"])
def test_a_bpffs_that_is_not_mounted_is_mounted(room: Room, gone: str) -> None:
    """Nor seen: a new /sys hides the one of before, which /proc/mounts goes on to list."""
    conf = conf_for(HOST_GW)
    script = """
        eval "$2"
        echo "$1" | CNI_COMMAND=ADD "$0" && stat -fc %T /sys/fs/bpf && ls /sys/fs/bpf/bypath/host-gw
        echo "$1" | CNI_COMMAND=DEL "$0"
    """
    done = room.node.run(
        ["unshare", "-m", "sh", "-ec", script, room.path_of(HOST_GW), json.dumps(conf), gone],
        env=environment(room, HOST_GW, ""),
    )
    assert done.stdout.splitlines()[1:] == ["bpf_fs", "attachments", "links"]


def test_what_a_delegate_says_on_stderr_is_passed_on_and_stdout_stays_one_document(room: Room) -> None:
    line = 'printf "#!/bin/sh\\necho noise >&2\\nexec %s/lab-ipam\\n" "$0" > "$0/noisy"; chmod 755 "$0/noisy"'
    room.node.run(["sh", "-c", line, ipam.DIRECTORY])
    conf = conf_for(HOST_GW, ipam={"type": "noisy"})
    done = room.cni(HOST_GW).run("ADD", json.dumps(conf), environment(room, HOST_GW, "ADD"))
    assert document_of(done)["ips"] and done.stderr == "noise\n"
    done = room.cni(HOST_GW).run("DEL", json.dumps(conf), environment(room, HOST_GW, "DEL"))
    assert (done.returncode, done.stdout) == (0, "")
