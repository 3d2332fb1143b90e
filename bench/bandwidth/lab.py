# SPDX-License-Identifier: Apache-2.0
"""A node with limited pods, and a host outside of it that they talk to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.bandwidth import ROOMS, adjust, plan
from tests.lab.executable import Chain
from tests.lab.fabric import Fabric
from tests.lab.node import Node
from tests.lab.residue import difference

POD_CIDR = "10.244.1.0/24"
PTP: plan.Json = {
    "type": "ptp",
    "ipMasq": False,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": POD_CIDR}]], "routes": [{"dst": "0.0.0.0/0"}]},
}
"""The same for all: nothing but the shaper differs."""
ENVIRONMENT = {"PYTHONPATH": ":".join(ROOMS), "PYTHONDONTWRITEBYTECODE": "1"}


class Pod:
    """A pod with an address and at most one limit."""

    def __init__(self, lab: Lab, contender: plan.Contender, name: str) -> None:
        self._lab = lab
        self.contender = contender
        self.name = name
        plugins = [PTP, *([contender.plugin] if contender.plugin else [])]
        self._chain = Chain(lab.node, {"cniVersion": "1.0.0", "name": "pods", "plugins": plugins})
        self.netns = lab.node.add_pod_netns(name)
        self.address = ""

    def add(self, **limits: int) -> None:
        """limits: the keys of runtimeConfig.bandwidth."""
        result = self._chain.add(self.name, self.netns, runtime_config={"bandwidth": limits})
        self.address = result["ips"][0]["address"].partition("/")[0]
        if self.contender.adjust:
            argv = [sys.executable, str(Path(adjust.__file__)), self.address, *self.contender.adjust]
            self._lab.node.run(argv, env=ENVIRONMENT)
        if self.contender.uncapped:
            self.run("ip link set dev eth0 gso_max_size 65536")

    def delete(self) -> None:
        self._chain.delete(self.name, self.netns)
        self._lab.node.del_pod_netns(self.name)

    def run(self, argv: list[str] | str, **options: Any) -> str:
        """What the command printed."""
        return str(self._lab.node.pod_run(self.name, argv, **options).stdout)


class Lab:
    """Make it with `Lab.create()`; pods are made once and measured in turn."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.node: Node = fabric.add_node(1)
        fabric.route_pods(POD_CIDR, 1)
        self.pods: list[Pod] = []

    @classmethod
    @contextmanager
    def create(cls) -> Iterator[Lab]:
        with Fabric.create() as fabric:
            yield cls(fabric)

    def pod(self, contender: str, **limits: int) -> Pod:
        made = Pod(self, plan.CONTENDERS[contender], f"pod{len(self.pods)}")
        made.add(**limits)
        self.pods.append(made)
        return made

    def egress_pod(self, contender: str, rate_bits_per_sec: int) -> Pod:
        return self.pod(contender, egressRate=rate_bits_per_sec, egressBurst=plan.burst_bits(rate_bits_per_sec))

    def ingress_pod(self, contender: str, rate_bits_per_sec: int) -> Pod:
        return self.pod(contender, ingressRate=rate_bits_per_sec, ingressBurst=plan.burst_bits(rate_bits_per_sec))

    def devices(self) -> int:
        """On the host; what is in the pods does not count."""
        return len(self.node.run(["ls", "/sys/class/net"]).stdout.split())

    def remove_pods(self) -> None:
        """Raises RuntimeError when they leave anything: what does not clean up costs more than was measured."""
        for pod in self.pods:
            pod.delete()
        self.pods.clear()
        left = difference(self.node)
        if left:
            raise RuntimeError(f"the pods are gone, and the node is not as it was: {left}")
