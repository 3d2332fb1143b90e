# SPDX-License-Identifier: Apache-2.0
"""A veth pod of host-gw that bypath-bandwidth-edt gives limits, and what its maps have of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bandwidth_edt import layout

from tests.lab.executable import Cni, Json
from tests.lab.node import Node
from tests.lab.residue import difference
from tests.plugins.chained import Chained

EXECUTABLE = "bypath-bandwidth-edt"
PINS = "/sys/fs/bpf/bypath/bandwidth-edt"
TEN, TWENTY = 10_000_000, 20_000_000


class Pod(Chained):
    """A veth pod of host-gw, and this plugin behind it."""

    def __init__(self, node: Node, name: str) -> None:
        self.node, self.name = node, name
        self.netns = node.add_pod_netns(name)
        ranges = [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]]
        ipam = {"type": "host-local", "ranges": ranges, "dataDir": "/var/lib/cni/networks"}
        self.first: Json = {"cniVersion": "1.0.0", "name": "pods", "type": "bypath-host-gw", "ipam": ipam}
        self.result = Cni(node, "bypath-host-gw").add(self.first, name, self.netns)
        self.host = self.result["interfaces"][0]["name"]
        self.cni = Cni(node, EXECUTABLE)

    def conf(self, **keys: Any) -> Json:
        return {"cniVersion": "1.0.0", "name": "pods", "type": EXECUTABLE, "prevResult": self.result, **keys}

    def limit(self, **keys: Any) -> None:
        assert self.cni.add(self.conf(**keys), self.name, self.netns) == self.result

    def remove(self) -> None:
        self.cni.delete(self.conf(), self.name, self.netns)
        Cni(self.node, "bypath-host-gw").delete(self.first, self.name, self.netns)

    def roots(self) -> tuple[str, str]:
        """Kind of the root qdisc of the pod's own device and of its end on the host."""
        own = json.loads(self.node.pod_run(self.name, "tc -j qdisc show dev eth0 root").stdout)
        host = json.loads(self.node.run(f"tc -j qdisc show dev {self.host} root").stdout)
        return own[0]["kind"], host[0]["kind"]

    def number(self) -> int:
        """The pod's bucket id."""
        (entry,) = json.loads(self.node.run(f"bpftool -j map dump pinned {PINS}/edt_ids").stdout)
        return int(layout.U32.unpack(raw(entry["key"]))[0])


def raw(listed: list[str]) -> bytes:
    return bytes(int(byte, 16) for byte in listed)


def element(node: Node, name: str, key: bytes) -> bytes:
    shown = node.run(f"bpftool -j map lookup pinned {PINS}/{name} key {' '.join(map(str, key))}").stdout
    return raw(json.loads(shown)["value"])


@contextmanager
def limited_pod(node: Node) -> Iterator[Pod]:
    """Without limits yet. Afterwards nothing of it is left."""
    made = Pod(node, "pod1")
    try:
        yield made
    finally:
        made.remove()
        node.del_pod_netns("pod1")
    assert difference(node) == []
