# SPDX-License-Identifier: Apache-2.0
"""The programs of bypath-sockmap on every socket of the machine while an `Attached` is open; nothing is pinned.

Only network namespaces that a test names in `pods` are touched. Whatever way the test process ends, its descriptors go
and the programs with them.
"""

from __future__ import annotations

import os
import pathlib
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bpf import command, sockets
from tests.progs.btf import Btf
from tests.progs.run import Loaded

CHECKOUT = pathlib.Path(__file__).parents[2]
OBJECT = CHECKOUT / "build/bpf/sockmap.bpf.o"
SIDECAR, POD = 1, 2
MIB = 1 << 20
SO_NETNS_COOKIE = 71
V4_MAPPED = bytes(10) + b"\xff\xff"


def netns_cookie() -> int:
    """Of the calling thread's network namespace."""
    with socket.socket() as probe:
        return int(struct.unpack("=Q", probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0])


def address_key(text: str) -> bytes:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    packed = socket.inet_pton(family, text)
    return packed if len(packed) == 16 else V4_MAPPED + packed


class Attached:
    """An object's three programs, attached, and its maps."""

    def __init__(self, path: pathlib.Path = OBJECT) -> None:
        self._structs = Btf(path).structs("sm_")
        self._loaded = Loaded(str(path))
        self.tables = self._loaded.tables
        programs = self._loaded.programs
        socks = self.tables["socks"].descriptor
        command.map_attach(programs["sm_msg"], socks, command.SK_MSG_VERDICT)
        command.map_attach(programs["sm_skb"], socks, command.SK_SKB_VERDICT)
        cgroup = os.open(sockets.root_cgroup(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._link = command.link_create_cgroup(programs["sm_ops"], cgroup, command.SOCK_OPS)
        os.close(cgroup)

    def close(self) -> None:
        os.close(self._link)
        self._loaded.close()

    def add_pod(
        self,
        cookie: int,
        addresses: Sequence[str] = (),
        *,
        scopes: int = SIDECAR | POD,
        limit_bytes: int = 64 * MIB,
        ports: Sequence[int] = (),
        uids: Sequence[int] = (),
    ) -> None:
        """Give a network namespace a policy, or another one; its counters begin at zero."""
        policy = self.pack(
            "sm_policy",
            flags=scopes,
            limit_bytes=limit_bytes,
            exclude_ports=struct.pack(f"={len(ports)}H", *ports),
            exclude_uids=struct.pack(f"={len(uids)}I", *uids),
            uid_count=len(uids),
        )
        key = cookie.to_bytes(8, "little")
        self.tables["counters"].zero_per_cpu(key)
        for address in addresses:
            self.tables["pod_ips"][address_key(address)] = key
        self.tables["pods"][key] = policy

    def forget_pods(self) -> None:
        for name in ("pods", "pod_ips", "counters"):
            self.tables[name].clear()

    def set_node_limit(self, limit_bytes: int) -> None:
        self.tables["node"][bytes(4)] = self.pack("sm_node", limit_bytes=limit_bytes)

    def pack(self, struct_name: str, **values: int | bytes) -> bytes:
        """One of the programs' structs, with zeroes in the fields that are not named."""
        size, fields = self._structs[struct_name]
        raw = bytearray(size)
        places = {name: (offset, length) for name, offset, length in fields}
        for name, value in values.items():
            offset, length = places[name]
            content = value.to_bytes(length, "little") if isinstance(value, int) else value.ljust(length, b"\0")
            raw[offset : offset + length] = content
        return bytes(raw)

    def counters(self, *cookies: int) -> dict[str, int]:
        """The counters of these pods together, over all processors."""
        total: dict[str, int] = {}
        for cookie in cookies:
            for raw in self.tables["counters"].per_cpu(cookie.to_bytes(8, "little")):
                for name, offset, length in self._structs["sm_counters"][1]:
                    value = int.from_bytes(raw[offset : offset + length], "little")
                    total[name] = total.get(name, 0) + value
        return total

    def sockets(self) -> int:
        """How many sockets are in the map."""
        return len(self.tables["socks"])


@contextmanager
def attach(path: pathlib.Path = OBJECT) -> Iterator[Attached]:
    made = Attached(path)
    try:
        yield made
    finally:
        made.close()
