# SPDX-License-Identifier: Apache-2.0
"""The pinned programs' life, run as a program inside a node of the laboratory, whose bpffs it has for itself.

python -m tests.sockmap.pinned SCENARIO     ends with status 0 when all was as it should be
"""

from __future__ import annotations

import os
import pathlib
import shutil
import socket
import sys
import tempfile

from bpf import bpffs, command, loader, pins
from bpf.loader import Object
from bpf.sockets import SocketPrograms
from tests.progs.run import Table
from tests.sockmap.attached import OBJECT as BUILT
from tests.sockmap.attached import SIDECAR, netns_cookie

PLUGIN = "sockmap"
MAPS = ("pods", "pod_ips", "node", "counters", "socks", "hints", "half", "seen_seq", "state")
OBJECT = Object(PLUGIN, "sockmap.bpf.o", MAPS, ("sm_ops", "sm_pod_ops", "sm_msg", "sm_skb"))
PROGRAMS = SocketPrograms(PLUGIN, "socks", "sm_ops", "sm_msg", "sm_skb")
POLICY_BYTES, LIMIT_BYTES = 152, 1 << 20


def table(name: str) -> Table:
    return Table(command.obj_get(pins.pin(PLUGIN, name)))


def in_map() -> int:
    return len(table("socks"))


def begin() -> None:
    """Load and attach, and give this namespace a policy."""
    loader.ensure(OBJECT, PROGRAMS.renew)
    with bpffs.Lock(PLUGIN):
        PROGRAMS.attach()
    key = netns_cookie().to_bytes(8, "little")
    table("counters").zero_per_cpu(key)
    flags_and_limit = SIDECAR.to_bytes(4, "little") + LIMIT_BYTES.to_bytes(4, "little")
    table("pods")[key] = flags_and_limit.ljust(POLICY_BYTES, b"\0")


def connection() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    for end in (client, server):
        end.settimeout(10)
    return client, server


def exchange(client: socket.socket, server: socket.socket) -> None:
    for sender, receiver in ((client, server), (server, client)):
        content = os.urandom(5000)
        sender.sendall(content)
        assert receiver.recv(5000) == content


def redirected_bytes() -> int:
    values = table("counters").per_cpu(netns_cookie().to_bytes(8, "little"))
    return sum(int.from_bytes(value[24:32], "little") for value in values)


def program_ids() -> list[int]:
    return [command.object_id(command.obj_get(pins.pin(PLUGIN, name))) for name in OBJECT.programs]


def attach_is_repeatable() -> None:
    begin()
    assert PROGRAMS.faults() == []
    link = command.object_id(command.obj_get(PROGRAMS.entry.path))
    PROGRAMS.attach()
    assert command.object_id(command.obj_get(PROGRAMS.entry.path)) == link
    client, server = connection()
    assert in_map() == 2
    exchange(client, server)
    assert redirected_bytes() == 10000
    client.close()
    server.close()


def an_upgrade_leaves_open_connections_alone() -> None:
    begin()
    before, maps = program_ids(), [command.object_id(table(name).descriptor) for name in MAPS]
    client, server = connection()
    client.sendall(b"unread")
    with tempfile.TemporaryDirectory() as other:
        shutil.copy(BUILT, other)
        (pathlib.Path(other) / "sockmap.sha256").write_text("ab" * 32)
        loader.object_path = lambda file: f"{other}/{file}"
        assert not loader.is_loaded(OBJECT)
        loader.ensure(OBJECT, PROGRAMS.renew)
        assert loader.is_loaded(OBJECT)
    assert not set(before) & set(program_ids())
    assert [command.object_id(table(name).descriptor) for name in MAPS] == maps
    assert PROGRAMS.faults() == []
    assert server.recv(100) == b"unread"
    exchange(client, server)
    exchange(*connection())
    assert redirected_bytes() == 6 + 20000


def what_is_missing_is_told_and_put_back() -> None:
    begin()
    older = command.obj_get(pins.pin(PLUGIN, "sm_msg"))
    sockets = table("socks").descriptor
    assert command.map_detach(older, sockets, command.SK_MSG_VERDICT)
    assert not command.map_detach(older, sockets, command.SK_MSG_VERDICT)
    assert PROGRAMS.faults() == ["the map socks does not give sm_msg to its sockets"]
    command.link_detach(command.obj_get(PROGRAMS.entry.path))
    assert "sm_ops is not attached to the root cgroup" in PROGRAMS.faults()
    os.unlink(PROGRAMS.entry.path)
    assert "sm_ops is not attached to the root cgroup" in PROGRAMS.faults()
    PROGRAMS.attach()
    assert PROGRAMS.faults() == []
    exchange(*connection())
    assert redirected_bytes() == 10000


def detaching_loses_nothing() -> None:
    begin()
    client, server = connection()
    client.sendall(b"x" * 50000)
    # Whoever looks at the link at that moment, bpftool for one, must not keep it in force.
    held = command.obj_get(PROGRAMS.entry.path)
    PROGRAMS.detach()
    PROGRAMS.detach()
    assert not os.path.exists(PROGRAMS.entry.path)
    assert len(PROGRAMS.faults()) == 3
    plain = connection()
    assert in_map() == 2
    exchange(*plain)
    os.close(held)
    assert len(server.recv(50000, socket.MSG_WAITALL)) == 50000
    exchange(client, server)
    PROGRAMS.attach()
    assert PROGRAMS.faults() == []
    exchange(*connection())


def taking_all_pins_away_loses_nothing() -> None:
    begin()
    client, server = connection()
    client.sendall(b"x" * 50000)
    PROGRAMS.detach()
    shutil.rmtree(pins.directory(PLUGIN))
    PROGRAMS.detach()
    client.sendall(b"y" * 1000)
    client.close()
    content = bytearray()
    while part := server.recv(65536):
        content += part
    assert content == b"x" * 50000 + b"y" * 1000


SCENARIOS = (
    attach_is_repeatable,
    an_upgrade_leaves_open_connections_alone,
    what_is_missing_is_told_and_put_back,
    detaching_loses_nothing,
    taking_all_pins_away_loses_nothing,
)


def main() -> None:
    scenario = {found.__name__: found for found in SCENARIOS}[sys.argv[1]]
    try:
        scenario()
    finally:
        # The node's bpffs goes with the node, the descriptors with this process; the link is detached at once.
        PROGRAMS.detach()


if __name__ == "__main__":
    main()
