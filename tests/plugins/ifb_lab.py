# SPDX-License-Identifier: Apache-2.0
"""What the tests of ingress limits for ipvlan pods share: a node with such pods, its ifb, and measured traffic."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from tests.lab import iperf
from tests.lab.executable import Chain, Cni, Json
from tests.lab.fabric import OUTSIDE_IP, OUTSIDE_IP6, Fabric
from tests.lab.iperf import PAYLOAD_PER_PACKET, Speed
from tests.lab.node import Node
from tests.lab.residue import difference
from tests.runtime.chains import BANDWIDTH, POD_CIDR, POD_CIDR6, conflist
from tests.runtime.chains import ipvlan as with_snat

EXECUTABLE = "bypath-bandwidth-edt"
IFB = "bypath-ifb"
LINKS = "/sys/fs/bpf/bypath/bandwidth-edt/links"
MBIT = 1_000_000


def chain_of(mode: str, order: str = "edt", **ipvlan: Any) -> Json:
    """order: which chained plugins, and in which order, such as "snat edt"."""
    first, snat, _ = with_snat(mode)["plugins"]
    chained = {"snat": snat, "edt": BANDWIDTH}
    return conflist({**first, **ipvlan}, *(chained[word] for word in order.split()))


def ingress(bits_per_sec: int) -> Json:
    return {"bandwidth": {"ingressRate": bits_per_sec}}


class Place:
    """Node 1, its pods by name, and one chain."""

    def __init__(self, fabric: Fabric, node: Node) -> None:
        self.fabric, self.node = fabric, node
        self._pods: dict[str, tuple[Chain, Json | None]] = {}

    def use(self, name: str, conf: Json, runtime_config: Json | None = None) -> Json:
        """A pod by a whole chain; `remove` takes it away with the same."""
        chain = Chain(self.node, conf)
        self._pods[name] = chain, runtime_config
        return chain.add(name, self.node.add_pod_netns(name), runtime_config=runtime_config)

    def remove(self, *names: str) -> None:
        for name in names or tuple(self._pods):
            chain, runtime_config = self._pods.pop(name)
            chain.delete(name, f"/run/netns/{name}", runtime_config=runtime_config)
            self.node.del_pod_netns(name)

    def check(self, name: str) -> None:
        chain, runtime_config = self._pods[name]
        chain.check(name, f"/run/netns/{name}", runtime_config=runtime_config)

    def edt(self, name: str, limits: Json | None = None) -> Json:
        """The configuration of the shaping plugin alone, as the runtime sends it for this pod after ADD."""
        chain, _ = self._pods[name]
        capabilities = {"runtimeConfig": {"bandwidth": limits["bandwidth"]}} if limits else {}
        names = {"cniVersion": "1.1.0", "name": chain.conflist["name"]}
        return {**names, **BANDWIDTH, **capabilities, "prevResult": chain.cache[name, "eth0"]}

    def change(self, name: str, limits: Json | None) -> None:
        """A second ADD."""
        chain, _ = self._pods[name]
        self._pods[name] = chain, limits
        Cni(self.node, EXECUTABLE).add(self.edt(name, limits), name, f"/run/netns/{name}")

    def killed(self, verb: str, name: str, limits: Json | None, seconds: float) -> None:
        """One call of the shaping plugin, ended by SIGKILL after so long if it still runs then."""
        program = Cni(self.node, EXECUTABLE).path[0] + "/" + EXECUTABLE
        variables = {"CNI_CONTAINERID": name, "CNI_NETNS": f"/run/netns/{name}", "CNI_IFNAME": "eth0"}
        self.node.run(
            ["timeout", "-s", "KILL", f"{seconds:.3f}", program],
            check=False,
            input=json.dumps(self.edt(name, limits)),
            env={"CNI_COMMAND": verb, "CNI_PATH": "/usr/lib/cni", **variables},
        )

    def run(self, name: str, argv: list[str] | str, **options: Any) -> str:
        return self.node.pod_run(name, argv, **options).stdout

    def ifbs(self) -> list[Mapping[str, Any]]:
        """The node's ifb devices, with counters."""
        return list(json.loads(self.node.run("ip -j -s -d link show type ifb").stdout or "[]"))

    def crossed(self) -> int:
        """How many packets came to the ifb so far."""
        (ifb,) = self.ifbs()
        return int(ifb["stats64"]["rx"]["packets"])

    def measure(self, name: str, server: str = OUTSIDE_IP) -> Speed:
        """Of the frames of one TCP flow from the outside to the pod."""
        payload = PAYLOAD_PER_PACKET - (20 if server == OUTSIDE_IP6 else 0)
        run = partial(self.run, name, timeout=120)
        return iperf.measure(self.fabric.outside, run, "-R", server=server, seconds=12).of_frames(payload_bytes=payload)

    def leaves_nothing(self) -> bool:
        """For assertions once no pod is left; they show what is."""
        assert self.ifbs() == []
        assert difference(self.node) == []
        return True

    def clear(self) -> None:
        """After a test that failed half way: nothing that the next one could stumble over."""
        for name, (chain, _) in self._pods.items():
            for conf in reversed(chain.conflist["plugins"]):
                stdin = json.dumps({**conf, "name": chain.conflist["name"], "cniVersion": "1.0.0"})
                Cni(self.node, conf["type"]).run("DEL", stdin, {"CNI_CONTAINERID": name, "CNI_IFNAME": "eth0"})
        self._pods.clear()
        self.node.run(f"ip -all netns delete; ip link del {IFB} 2>/dev/null || :; rm -rf /sys/fs/bpf/bypath")

    @classmethod
    @contextmanager
    def create(cls) -> Iterator[Place]:
        with Fabric.create() as fabric:
            node = fabric.add_node(1)
            fabric.route_pods(POD_CIDR, 1)
            fabric.route_pods(POD_CIDR6, 1)
            yield cls(fabric, node)
