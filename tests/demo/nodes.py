# SPDX-License-Identifier: Apache-2.0
"""Two nodes with a containerd each: bypath-host-gw and bypath-snat."""

from __future__ import annotations

import copy
import json
from contextlib import ExitStack
from typing import Any

from tests.demo.show import claim, fact, step
from tests.lab.fabric import OUTSIDE_IP, Fabric
from tests.lab.node import Node
from tests.lab.residue import residue
from tests.runtime.chains import HOST_GW_SNAT
from tests.runtime.containerd import Containerd
from tests.runtime.cri import Pod
from tests.runtime.traffic import fetch, ping, serve_http, track_connections, tracked_flows

PORT = 8080


def conflist(number: int) -> dict[str, Any]:
    """The conflist of node `number`, whose pods have IPv4 addresses in 10.244.<number>.0/24."""
    made = copy.deepcopy(HOST_GW_SNAT)
    made["plugins"][0]["ipam"].update(ranges=[[{"subnet": f"10.244.{number}.0/24"}]], routes=[{"dst": "0.0.0.0/0"}])
    return made


def node_address(number: int) -> str:
    return f"192.0.2.{10 + number}"


def connect(machines: dict[int, Node]) -> None:
    """What a routing daemon or the fabric does in a cluster: each node's pods by a route to that node."""
    for here, machine in machines.items():
        for there in machines.keys() - {here}:
            command = f"ip route add 10.244.{there}.0/24 via {node_address(there)}"
            machine.run(command)
            fact(f"node{here}# {command}")


def tell() -> None:
    with ExitStack() as stack:
        step("Two nodes (network namespaces) on a switch; a router; a host outside of the cluster")
        fabric = stack.enter_context(Fabric.create())
        machines = {number: fabric.add_node(number) for number in (1, 2)}
        for number, machine in machines.items():
            machine.sysctl("net.ipv4.ip_forward", "1")
            fact(f"node{number} {node_address(number)}, its pods 10.244.{number}.0/24")
        fact(f"outside {OUTSIDE_IP}; it knows no route to any pod")
        step("Connection tracking is switched on on node1, as a firewall does, and seen to work")
        track_connections(machines[1])
        step("containerd starts on both; this conflist is its only network configuration (node1's):")
        fact(json.dumps(conflist(1), indent=1))
        runtimes = {n: stack.enter_context(Containerd.create(m, conflist(n))) for n, m in machines.items()}
        step("Three pods, through the CRI as kubelet makes them")
        pods = {name: runtimes[number].cri.run_pod(name) for name, number in (("anna", 1), ("ben", 1), ("carl", 2))}
        for name, pod in pods.items():
            fact(f"{name:5} {pod.ip}")
            serve_http(pod, PORT, name)
        converse(pods, machines)
        teardown(pods, machines, runtimes)


def reach(pods: dict[str, Pod], one: str, other: str) -> None:
    ping(pods[one], pods[other].ip)
    answer = fetch(pods[one], pods[other].ip, PORT).strip()
    claim(answer == other, f"{one} pings {other} and curls http://{pods[other].ip}:{PORT}/, which says '{answer}'")


def converse(pods: dict[str, Pod], machines: dict[int, Node]) -> None:
    step("Pod to pod on one node")
    reach(pods, "anna", "ben")
    step("Pod to the outside, which sees the node's address")
    for name, number in (("anna", 1), ("carl", 2)):
        source = fetch(pods[name], OUTSIDE_IP).split()[0]
        claim(source == node_address(number), f"{name} ({pods[name].ip}) is seen outside as {source}")
    step("Connections that node1 tracked for all this")
    claim(tracked_flows(machines[1]) == 0, "conntrack -C: 0")
    step("Pod to pod across nodes, by plain routes")
    connect(machines)
    reach(pods, "anna", "carl")
    reach(pods, "carl", "ben")


def teardown(pods: dict[str, Pod], machines: dict[int, Node], runtimes: dict[int, Containerd]) -> None:
    step("The pods are stopped and removed")
    for pod in pods.values():
        pod.stop()
        pod.remove()
    for number, machine in machines.items():
        for there in machines.keys() - {number}:
            machine.run(f"ip route del 10.244.{there}.0/24")
        left = residue(machine) + runtimes[number].leftovers()
        what = "no device, route, program, map entry, nft table or address is left"
        claim(not left, f"node{number}: {what} {left or ''}")
