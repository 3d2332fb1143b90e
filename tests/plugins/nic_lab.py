# SPDX-License-Identifier: Apache-2.0
"""What the tests of limits at the NIC share: a node with a NIC of any kind, pods with a limit there, looks at both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from bandwidth_edt import layout, queues

from cni.net import link
from cni.net.netlink import Socket
from tests.kernels import probes
from tests.lab.executable import Cni, CniFailure, Json
from tests.lab.hooks import DIRECTIONS, tcx_programs
from tests.lab.inside import inside
from tests.lab.node import Node
from tests.lab.residue import difference, remember

EXECUTABLE = "bypath-bandwidth-edt"
PINS = "/sys/fs/bpf/bypath/bandwidth-edt"
TWENTY = 20_000_000

VETH = "ip link add nic0 type veth peer name far0; ip link set far0 up"
ONE_QUEUE = "ip link add nic0 type ifb"
FOUR_QUEUES = "ip link add nic0 numtxqueues 4 type ifb"
TBF = "root handle 1: tbf rate 300mbit burst 123456 latency 70ms"
LEAVES = [f"parent 7:{queue} handle {queue}0: fq_codel target {queue}ms" for queue in range(1, 5)]


class NicNode:
    """A node whose default route leads to nic0, made by a line of shell, with the qdiscs that tc's words set."""

    def __init__(self, node: Node, make: str, words: list[str]) -> None:
        self.node = node
        node.run(f"{make}; ip link set nic0 up; ip address add 192.0.2.11/24 dev nic0; ip route add default dev nic0")
        for each in words:
            self.tc(each)
        self.socket = inside(node, Socket)
        self.cni = Cni(node, EXECUTABLE)
        self.pods: list[Pod] = []

    @classmethod
    @contextmanager
    def create(cls, make: str = VETH, words: list[str] | None = None, pods: int = 1) -> Iterator[NicNode]:
        """It must be at the end as it was in the beginning."""
        with Node.create("nic") as node:
            made = cls(node, make, words or [])
            made.pods = [Pod(made, number + 1) for number in range(pods)]
            remember(node)
            before = made.raw()
            yield made
            assert difference(node) == []
            assert made.raw() == before

    def tc(self, words: str, device: str = "nic0") -> None:
        self.node.run(f"tc qdisc replace dev {device} {words}")

    def raw(self, device: str = "nic0") -> list[tuple[int, int, str, bytes]]:
        """Handle, parent, kind and options of each of a device's qdiscs."""
        found = queues.of(self.socket, link.get(self.socket, device).index)
        return [(each.handle, each.parent, each.kind, each.options) for each in found]

    def kinds(self, device: str = "nic0") -> list[str]:
        """Of the qdiscs, such as mq and fq."""
        return sorted({kind for _, _, kind, _ in self.raw(device)})

    def is_ours(self, device: str = "nic0") -> bool:
        return self.raw(device)[0][0] == 0xB1970000

    def programs(self, device: str = "nic0") -> list[str]:
        """On the device's egress, in the order in which they run."""
        if probes.has("tcx"):
            index = link.get(self.socket, device).index
            ids = [program for program, _ in inside(self.node, tcx_programs, index, DIRECTIONS["egress"])]
            return [json.loads(self.node.run(f"bpftool -j prog show id {number}").stdout)["name"] for number in ids]
        filters = json.loads(self.node.run(f"tc -j filter show dev {device} egress").stdout or "[]")
        return [entry["options"]["bpf_name"] for entry in filters if "options" in entry]

    def files(self) -> list[str]:
        return self.node.run("find /run/bypath -name 'qdiscs-*' -printf '%f\n'").stdout.split()

    def gc(self, *valid: Pod) -> None:
        conf = {"cniVersion": "1.1.0", "name": "pods", "type": EXECUTABLE}
        self.cni.gc(conf, valid=[(pod.name, "eth0") for pod in valid])

    def age(self, seconds: int) -> None:
        """As if the last pod had left so much earlier."""
        for name in self.files():
            said = json.loads(self.node.run(f"cat /run/bypath/{name}").stdout)
            said["left_at_sec"] -= seconds
            self.node.run(f"cat > /run/bypath/{name}", input=json.dumps(said))


class Pod:
    """A namespace with one end of a veth, as a plugin before this one would have left it."""

    def __init__(self, nic: NicNode, number: int) -> None:
        self.nic, self.name = nic, f"pod{number}"
        self.netns = nic.node.add_pod_netns(self.name)
        nic.node.run(
            f"ip link add host{number} type veth peer name eth0 netns {self.name}; ip link set host{number} up"
        )
        nic.node.pod_run(self.name, "ip link set eth0 up")
        interfaces: list[Json] = [{"name": f"host{number}"}, {"name": "eth0", "sandbox": self.netns}]
        ips = [{"address": f"10.244.1.{number}/32", "interface": 1}]
        self.result: Json = {"cniVersion": "1.0.0", "interfaces": interfaces, "ips": ips}

    def conf(self, enforce: str | None = "nic", **keys: Any) -> Json:
        """Of a pod with an egress limit at the NIC, unless told otherwise."""
        conf = {"cniVersion": "1.0.0", "name": "pods", "type": EXECUTABLE, "prevResult": self.result}
        return conf | ({"enforce": enforce, "egressRate": TWENTY} if enforce else {}) | keys

    def add(self, enforce: str | None = "nic", **keys: Any) -> None:
        assert self.nic.cni.add(self.conf(enforce, **keys), self.name, self.netns) == self.result

    def check(self, enforce: str = "nic", **keys: Any) -> None:
        self.nic.cni.check(self.conf(enforce, **keys), self.name, self.netns)

    def fault(self, enforce: str = "nic") -> str:
        with pytest.raises(CniFailure) as caught:
            self.check(enforce)
        assert caught.value.code == 103
        return caught.value.msg

    def refusal(self, enforce: str = "nic") -> CniFailure:
        with pytest.raises(CniFailure) as caught:
            self.add(enforce)
        return caught.value

    def delete(self) -> None:
        self.nic.cni.delete(self.conf(), self.name, self.netns)

    def root(self) -> str:
        return str(json.loads(self.nic.node.pod_run(self.name, "tc -j qdisc show dev eth0 root").stdout)[0]["kind"])


def state_of(node: Node, direction: int, number: int | None = None) -> Json:
    """STATE of a pod's bucket; of the only pod's unless its id is told."""
    if number is None:
        (entry,) = json.loads(node.run(f"bpftool -j map dump pinned {PINS}/edt_ids").stdout)
        number = int(layout.U32.unpack(_bytes(entry["key"]))[0])
    key = " ".join(map(str, layout.bucket(number, direction)))
    shown = node.run(f"bpftool -j map lookup pinned {PINS}/edt_state key {key}").stdout
    return layout.STATE.named(_bytes(json.loads(shown)["value"]))


def _bytes(listed: list[str]) -> bytes:
    return bytes(int(byte, 16) for byte in listed)
