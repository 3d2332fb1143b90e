# SPDX-License-Identifier: Apache-2.0
"""One table of errors over all executables: what is wrong, which code answers it, and what the answer must name.

Every row also asserts that the call ended with a status above 0 and one JSON error on stdout, and that the node is as
it was. Rows that depend on the kernel carry the mark of the table's row; the others need to run on one kernel only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kernels import probes
from tests.lab.executable import Json
from tests.lab.residue import residue
from tests.plugins.rooms import (
    CHAINED,
    DELEGATING,
    EXECUTABLES,
    Room,
    conf_for,
    environment,
    error_of,
    prev_result,
    without_node_pins,
)

pytestmark = pytest.mark.once
KERNEL = pytest.mark.feature("error table")
VERSION, FIELD, CONTAINER, ENV, IO, DECODE, CONFIG = range(1, 8)
LACKS, NODE = 100, 101

DEEP = '{"a":' * 5000
HOST_LOCAL: dict[str, Any] = {"type": "host-local", "dataDir": "/var/lib/cni/networks"}


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    """One for the whole table: every row compares the snapshots before and after, residue() has the last word."""
    with Room.create() as made:
        yield made
        assert residue(made.node) == []


class Row:
    """What to do wrong: changes of the configuration or a raw stdin, changes of the environment, how to start it."""

    def __init__(
        self,
        codes: int | tuple[int, ...],
        *names: str,
        command: str = "ADD",
        conf: dict[str, Any] | None = None,
        stdin: str | None = None,
        start: str = "exec",
        **env: str | None,
    ) -> None:
        self.codes = codes if isinstance(codes, tuple) else (codes,)
        self.names, self.command, self.conf, self.stdin, self.start, self.env = names, command, conf, stdin, start, env


def read_by(executable: str, room: Room, row: Row) -> str:
    if row.stdin is not None:
        return row.stdin
    conf = conf_for(executable)
    if executable in CHAINED or row.command == "CHECK":
        conf["prevResult"] = prev_result(room)
    return json.dumps({key: value for key, value in {**conf, **(row.conf or {})}.items() if value is not None})


def refused(room: Room, executable: str, row: Row, *, untouched: bool = False) -> None:
    """`untouched`: it is refused so early that not even a node-wide map may have been made."""
    env = environment(room, executable, row.command, **row.env)
    script = f'{row.start} "$0"'
    done = room.node.run(
        ["sh", "-c", script, room.path_of(executable)], check=False, input=read_by(executable, room, row), env=env
    )
    error = error_of(done)
    assert error["code"] in row.codes, error
    for name in row.names:
        assert name in error["msg"], error
    if row.command == "DEL":
        assert "not found" not in done.stdout
    before, room.state = room.state, room.snapshot()
    after = room.state
    if not untouched:
        before, after = without_node_pins(before), without_node_pins(room.state)
    assert after == before


@contextmanager
def pod_before(room: Room) -> Iterator[Json]:
    """The result of a pod that bypath-host-gw made; what a chained plugin does is done to it."""
    first = room.cni("bypath-host-gw")
    conf = conf_for("bypath-host-gw")
    result = first.add(conf, "c1", room.netns)
    room.state = room.snapshot()
    try:
        yield result
    finally:
        first.delete(conf, "c1", room.netns)
        room.state = room.snapshot()


DOCUMENTS = {
    "empty": Row(DECODE, "stdin is empty", stdin=""),
    "white space": Row(DECODE, "stdin is empty", stdin=" \n\t"),
    "malformed": Row(DECODE, "stdin", "line 1 column", stdin="{'cniVersion': 1}"),
    "truncated": Row(DECODE, "stdin", stdin='{"cniVersion": "1.1.0", "name": "po'),
    "two documents": Row(DECODE, "stdin has more after", stdin="{} {}"),
    "nested deeply": Row(DECODE, "stdin is nested deeper", stdin=DEEP),
    "NaN": Row(DECODE, "NaN", stdin='{"cniVersion": "1.1.0", "mtu": NaN}'),
    "Infinity": Row(DECODE, "Infinity", stdin='{"cniVersion": "1.1.0", "mtu": -Infinity}'),
    "a number beyond doubles": Row(DECODE, "1e400", stdin='{"cniVersion": "1.1.0", "mtu": 1e400}'),
    "no object": Row(CONFIG, "object", stdin='["1.1.0"]'),
    "no cniVersion": Row(VERSION, "cniVersion", conf={"cniVersion": None}),
    "a cniVersion to come": Row(VERSION, "cniVersion", "1.1.0", conf={"cniVersion": "2.0.0"}),
    "a cniVersion of old": Row(VERSION, "cniVersion", conf={"cniVersion": "0.2.0"}),
    "a cniVersion that is a number": Row(VERSION, "cniVersion", conf={"cniVersion": 1.1}),
    "no name": Row(CONFIG, "name", conf={"name": None}),
    "a name with a slash": Row(CONFIG, "name", conf={"name": "../pods"}),
    "a name with a newline": Row(CONFIG, "name", conf={"name": "pods\n"}),
    "no type": Row(CONFIG, "type", conf={"type": None}),
    "an unknown key": Row(FIELD, "colour", conf={"colour": "red"}),
    "a prevResult that is a list": Row(CONFIG, "prevResult", conf={"prevResult": [1]}),
    "a prevResult with a bad address": Row(
        CONFIG, "prevResult.ips[0]", conf={"prevResult": {"ips": [{"address": "x"}]}}
    ),
    "a prevResult with a bad index": Row(
        CONFIG, "prevResult.ips[0]", conf={"prevResult": {"ips": [{"address": "10.0.0.1/8", "interface": 7}]}}
    ),
    "CHECK without prevResult": Row(CONFIG, "prevResult", command="CHECK", conf={"prevResult": None}),
    "CHECK before it was invented": Row(VERSION, "CHECK", "0.4.0", command="CHECK", conf={"cniVersion": "0.3.1"}),
    "GC before it was invented": Row(VERSION, "GC", "1.1.0", command="GC", conf={"cniVersion": "1.0.0"}),
    "STATUS before it was invented": Row(VERSION, "STATUS", "1.1.0", command="STATUS", conf={"cniVersion": "1.0.0"}),
    "GC with a malformed list": Row(
        CONFIG, "cni.dev/valid-attachments", command="GC", conf={"cni.dev/valid-attachments": [{"containerID": 5}]}
    ),
    **{f"malformed {verb}": Row(DECODE, "stdin", command=verb, stdin="{") for verb in ("DEL", "CHECK", "GC", "STATUS")},
}

ENVIRONMENTS = {
    "no command": Row(ENV, "CNI_COMMAND", CNI_COMMAND=None),
    "a command in small letters": Row(ENV, "CNI_COMMAND", CNI_COMMAND="add"),
    "a command with a newline": Row(ENV, "CNI_COMMAND", CNI_COMMAND="ADD\n"),
    "nothing": Row(ENV, "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", CNI_CONTAINERID=None, CNI_NETNS=None,
                   CNI_IFNAME=None),
    "everything empty": Row(ENV, "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", CNI_CONTAINERID="", CNI_NETNS="",
                            CNI_IFNAME=""),
    "everything hostile": Row(ENV, "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", CNI_CONTAINERID="../../x",
                              CNI_NETNS="run/x", CNI_IFNAME="a/b"),
    "DEL without an id": Row(ENV, "CNI_CONTAINERID", command="DEL", CNI_CONTAINERID=None),
    "DEL with a hostile ifname": Row(ENV, "CNI_IFNAME", command="DEL", CNI_IFNAME=".."),
    "CHECK without a netns": Row(ENV, "CNI_NETNS", command="CHECK", CNI_NETNS=None),
    "an id with a newline": Row(ENV, "CNI_CONTAINERID", CNI_CONTAINERID="c1\n"),
    "an id in another script": Row(ENV, "CNI_CONTAINERID", CNI_CONTAINERID="c\u0661"),
    "an id of bytes": Row(ENV, "CNI_CONTAINERID", CNI_CONTAINERID="c\udcff"),
    "an id longer than a record": Row(ENV, "CNI_CONTAINERID", CNI_CONTAINERID="c" * 128),
    "an ifname of 16 bytes": Row(ENV, "CNI_IFNAME", CNI_IFNAME="e" * 16),
    "an ifname with a colon": Row(ENV, "CNI_IFNAME", CNI_IFNAME="eth0:1"),
    "an ifname with a pattern": Row(ENV, "CNI_IFNAME", CNI_IFNAME="eth%d"),
    "an ifname with a space": Row(ENV, "CNI_IFNAME", CNI_IFNAME="eth 0"),
    "a netns of bytes": Row(ENV, "CNI_NETNS", CNI_NETNS="/run/netns/\udcff"),
}  # fmt: skip

NAMESPACES = {
    "a netns that is gone": Row(ENV, "CNI_NETNS", "/run/netns/gone", CNI_NETNS="/run/netns/gone"),
    "a plain file": Row(ENV, "CNI_NETNS", "not a network namespace", CNI_NETNS="/var/lib/bypath-test/plain"),
    "a directory": Row(ENV, "CNI_NETNS", "not a network namespace", CNI_NETNS="/run/netns"),
    "a fifo": Row(ENV, "CNI_NETNS", "not a network namespace", CNI_NETNS="/var/lib/bypath-test/fifo"),
    "a path through a file": Row(ENV, "CNI_NETNS", CNI_NETNS="/var/lib/bypath-test/plain/x"),
    "a pid namespace": Row(ENV, "CNI_NETNS", "another kind", CNI_NETNS="/proc/self/ns/pid"),
    "the host's own": Row(ENV, "CNI_NETNS", "CNI_NETNS_OVERRIDE", CNI_NETNS="/proc/self/ns/net"),
    "the host's own for CHECK": Row(ENV, "CNI_NETNS", command="CHECK", CNI_NETNS="/proc/self/ns/net"),
}

NODES = {
    "a read-only bpffs": Row(
        (NODE, LACKS), "", start="exec unshare -m sh -c 'mount -t tmpfs -o ro none /sys/fs/bpf; exec \"$0\"'"
    ),
    "a bpffs that cannot be mounted": Row(
        (NODE, LACKS, IO), "", start="exec unshare -m sh -c 'umount /sys/fs/bpf; exec setpriv --bounding-set -sys_admin"
        " --inh-caps -sys_admin \"$0\"'",
    ),
    "another user than root": Row(IO, "root", start="exec setpriv --reuid 65534 --regid 65534 --clear-groups"),
}  # fmt: skip

SOMETHING_TO_DO: dict[str, Json] = {
    "bypath-bandwidth-edt": {"egressRate": 8_000_000},
    "bypath-sockmap": {"mode": "all", "onUnsupported": "fail"},
}
"""Without it these have nothing to complain about."""

DELEGATES = {
    "no ipam": Row(CONFIG, "ipam", conf={"ipam": None}),
    "an ipam that is a text": Row(CONFIG, "ipam", conf={"ipam": "host-local"}),
    "an ipam without a type": Row(CONFIG, "ipam", conf={"ipam": {"ranges": []}}),
    "an ipam type that is a number": Row(CONFIG, "ipam.type", conf={"ipam": {"type": 5}}),
    "an ipam type that is a path": Row(CONFIG, "ipam.type", conf={"ipam": {"type": "../host-local"}}),
    "an ipam type that leads upwards": Row(CONFIG, "ipam.type", conf={"ipam": {"type": ".."}}),
    "an ipam type with a null byte": Row(CONFIG, "ipam.type", conf={"ipam": {"type": "host\0local"}}),
    "an ipam type that is not installed": Row(CONFIG, "no-such-ipam", "CNI_PATH",
                                              conf={"ipam": {"type": "no-such-ipam"}}),
    "an ipam type that is a directory": Row(CONFIG, "netns", "CNI_PATH", conf={"ipam": {"type": "netns"}},
                                            CNI_PATH="/run"),
    "an ipam type that is no program": Row(CONFIG, "plain", "CNI_PATH", conf={"ipam": {"type": "plain"}},
                                           CNI_PATH="/var/lib/bypath-test"),
    "no CNI_PATH": Row(CONFIG, "lab-ipam", "CNI_PATH", CNI_PATH=None),
    "an empty CNI_PATH": Row(CONFIG, "lab-ipam", "CNI_PATH", CNI_PATH=":"),
    "DEL with an ipam that is not installed": Row(CONFIG, "no-such-ipam", command="DEL",
                                                  conf={"ipam": {"type": "no-such-ipam"}}),
    "an ipam that is not a whole program": Row(999, "", conf={"ipam": HOST_LOCAL, "cniVersion": "1.0.0"}),
    "an ipam that gives no address": Row(CONFIG, "lab-ipam", "no address",
                                         conf={"ipam": {"type": "lab-ipam", "families": []}}),
    "an ipam that says nothing": Row(DECODE, "lab-ipam", conf={"ipam": {"type": "lab-ipam", "answer": {"ADD": ""}}}),
    "an ipam that says nonsense": Row(DECODE, "lab-ipam", conf={"ipam": {"type": "lab-ipam", "answer": {"ADD": "ok"}}}),
    "an ipam that gives half an address": Row(
        CONFIG, "lab-ipam", "ips[0].address",
        conf={"ipam": {"type": "lab-ipam", "answer": {"ADD": '{"ips": [{"address": "10.0.0.5"}]}'}}}),
    "an ipam whose route has a bad number": Row(
        CONFIG, "lab-ipam", "routes[0].priority",
        conf={"ipam": {"type": "lab-ipam", "routes": [{"dst": "10.0.0.0/8", "priority": "high"}]}}),
    "an ipam that crashes": Row(IO, "lab-ipam", "status 3",
                                conf={"ipam": {"type": "lab-ipam", "crash": {"ADD": 3}}}),
    "an ipam that is killed": Row(IO, "lab-ipam", "signal 9",
                                  conf={"ipam": {"type": "lab-ipam", "crash": {"ADD": -9}}}),
}  # fmt: skip


def cases(rows: dict[str, Row], executables: list[str], *marks: pytest.MarkDecorator) -> list[Any]:
    return [
        pytest.param(executable, row, id=f"{executable}-{name}", marks=marks)
        for executable in executables
        for name, row in rows.items()
    ]


@pytest.mark.parametrize(
    ("executable", "row"),
    cases({**DOCUMENTS, **ENVIRONMENTS}, EXECUTABLES) + cases(NAMESPACES, EXECUTABLES, KERNEL),
)
def test_a_call_that_cannot_be_understood_is_refused_and_changes_nothing(room: Room, executable: str, row: Row) -> None:
    refused(room, executable, row, untouched=True)


@pytest.mark.parametrize(("executable", "row"), cases(DELEGATES, DELEGATING))
def test_what_is_wrong_with_ipam_is_refused_and_no_address_is_kept(room: Room, executable: str, row: Row) -> None:
    if executable == "bypath-ipvlan" and not probes.has("ipvlan"):
        row.codes = (*row.codes, LACKS)
    refused(room, executable, row)


@pytest.mark.parametrize("executable", CHAINED)
def test_a_chained_plugin_needs_the_result_of_those_before_it(room: Room, executable: str) -> None:
    refused(room, executable, Row(CONFIG, "prevResult", conf={"prevResult": None}))


@pytest.mark.parametrize(("executable", "row"), cases(NODES, EXECUTABLES, KERNEL))
def test_what_is_wrong_with_the_node_is_told_to_its_operator(room: Room, executable: str, row: Row) -> None:
    if executable in DELEGATING:
        refused(room, executable, row)
        return
    with pod_before(room) as result:
        work = SOMETHING_TO_DO.get(executable, {})
        refused(room, executable, Row(row.codes, *row.names, start=row.start, conf={"prevResult": result, **work}))


@KERNEL
@pytest.mark.parametrize("executable", [executable for executable in DELEGATING if "ipvlan" in executable])
def test_a_master_that_is_missing_is_named(room: Room, executable: str) -> None:
    refused(room, executable, Row(CONFIG, "master", "none0", conf={"master": "none0"}))


if not probes.has("fq"):  # On a kernel that has fq there is no such error, and so no such test.

    @KERNEL
    def test_a_kernel_without_fq_is_named_as_what_keeps_a_limit_from_being_set(room: Room) -> None:
        with pod_before(room) as result:
            conf = {"prevResult": result, "egressRate": 8_000_000}
            refused(room, "bypath-bandwidth-edt", Row(LACKS, "fq", conf=conf))


def test_every_executable_is_in_the_table() -> None:
    assert "bypath-host-gw" in DELEGATING and "bypath-snat" in CHAINED
