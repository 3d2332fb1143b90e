# SPDX-License-Identifier: Apache-2.0
"""bypath-snat behind bypath-host-gw with connection tracking active: what it translates, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.executable import Chain
from tests.lab.fabric import ECHO_PORT, OUTSIDE_IP, ROUTER_IP, Fabric
from tests.lab.node import Node
from tests.lab.residue import difference, remember
from tests.runtime.traffic import track_connections, tracked_flows

pytestmark = [pytest.mark.feature("snat"), pytest.mark.needs("nf_tables", "conntrack", "nat")]
NODE_IP, SERVICE_IP, NODE_PORT, PORT = "192.0.2.11", "10.96.0.10", 30080, 8080
CONFLIST: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bypath-host-gw",
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.244.1.0/24"}]],
                "dataDir": "/var/lib/cni/networks",
            },
        },
        {"type": "bypath-snat", "nonMasqueradeCIDRs": ["10.0.0.0/8", "192.0.2.0/24"]},
    ],
}
UDP_CALL = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10)
s.connect((sys.argv[1], int(sys.argv[2]))); s.send(sys.argv[3].encode() * int(sys.argv[4]))
print(s.recv(65536).decode())
"""
TCP_ECHO = """
import os, socket, sys, threading
sent = os.urandom(8 << 20); s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
threading.Thread(target=lambda: (s.sendall(sent), s.shutdown(socket.SHUT_WR))).start()
assert b"".join(iter(lambda: s.recv(1 << 16), b"")) == sent
"""
UDP_SERVER = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", int(sys.argv[1]))); print("ready", flush=True)
while True:
    data, peer = s.recvfrom(65536); s.sendto(f"{peer[0]} {peer[1]} {len(data)}".encode(), peer)
"""


class Place:
    """Node 1 with two pods, "a" and "b"; b serves HTTP and UDP on PORT."""

    def __init__(self, fabric: Fabric, node: Node) -> None:
        self.fabric, self.node = fabric, node
        self.chain = Chain(node, CONFLIST)
        self.ips = {}
        for name in "a", "b":
            result = self.chain.add(name, node.add_pod_netns(name))
            self.ips[name] = result["ips"][0]["address"].partition("/")[0]
        enter = ["nsenter", "--net=/run/netns/b", "--"]
        self.servers = [
            node.popen(
                [*enter, "python3", "-m", "http.server", str(PORT), "-d", "/sys/class/net"], stdout=-1, stderr=-1
            ),
            node.popen([*enter, "python3", "-c", UDP_SERVER, str(PORT)], stdout=-1),
        ]
        assert self.servers[1].stdout and self.servers[1].stdout.readline() == "ready\n"
        self.get("a", self.ips["b"], PORT, "--retry-connrefused", "--retry", "30", "--retry-delay", "1")

    def get(self, pod: str, address: str, port: int = 80, *options: str) -> str:
        url = f"http://{address}:{port}/"
        return self.node.pod_run(pod, ["curl", "-sS", "-m", "20", *options, url], timeout=90).stdout

    def udp(self, pod: str, address: str, port: int, text: str = "x", times: int = 1) -> str:
        return self.node.pod_run(pod, ["python3", "-c", UDP_CALL, address, str(port), text, str(times)]).stdout.strip()

    def tracked(self) -> list[str]:
        """The IPv4 flows that connection tracking knows."""
        return self.node.run(["conntrack", "-L", "-f", "ipv4"]).stdout.splitlines()

    def close(self) -> None:
        for server in self.servers:
            self.node.stop(server)
        for name in "a", "b":
            self.chain.check(name, f"/run/netns/{name}")
            self.chain.delete(name, f"/run/netns/{name}")
        assert difference(self.node) == []


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with Fabric.create() as fabric:
        node = fabric.add_node(1)
        node.sysctl("net.ipv4.ip_forward", "1")
        # As kube-proxy does it: a Service and a NodePort, both served by pod b.
        node.run(
            f"""
            nft add table ip services
            nft add chain ip services pre '{{ type nat hook prerouting priority -100; }}'
            nft add rule ip services pre ip daddr {SERVICE_IP} tcp dport 80 dnat to 10.244.1.3:{PORT}
            nft add rule ip services pre ip daddr {SERVICE_IP} udp dport 80 dnat to 10.244.1.3:{PORT}
            nft add rule ip services pre ip daddr {NODE_IP} tcp dport {NODE_PORT} dnat to 10.244.1.3:{PORT}
            """
        )
        track_connections(node)
        remember(node)
        made = Place(fabric, node)
        yield made
        made.close()


@pytest.fixture(autouse=True)
def forgotten(place: Place) -> None:
    place.node.run(["conntrack", "-F"])


def test_tcp_udp_and_echo_leave_with_the_nodes_address_and_are_not_tracked(place: Place) -> None:
    assert place.get("a", OUTSIDE_IP).split()[0] == NODE_IP
    assert place.udp("a", OUTSIDE_IP, ECHO_PORT).split()[0] == NODE_IP
    place.node.pod_run("a", ["ping", "-c2", "-i0.2", "-W10", OUTSIDE_IP])
    assert place.tracked() == []


def test_a_destination_that_is_not_masqueraded_sees_the_pods_own_address(place: Place) -> None:
    place.fabric.route_pods("10.244.1.0/24", 1)
    capture = place.fabric.router.popen(
        ["timeout", "20", "tcpdump", "-lni", "br0", "-c1", "icmp[icmptype] == icmp-echo"], stdout=-1, stderr=-1
    )
    assert capture.stderr and capture.stdout
    while "listening" not in capture.stderr.readline():
        assert capture.poll() is None
    place.node.pod_run("a", ["ping", "-c1", "-W10", ROUTER_IP])
    assert f"IP {place.ips['a']} > {ROUTER_IP}" in capture.stdout.read()
    place.fabric.router.stop(capture)


def test_datagrams_larger_than_the_mtu_pass_in_fragments(place: Place) -> None:
    assert place.udp("a", OUTSIDE_IP, ECHO_PORT, "y", 4000).split()[0] == NODE_IP
    place.node.pod_run("a", ["ping", "-c1", "-s3000", "-W10", OUTSIDE_IP])


def test_an_icmp_error_about_a_translated_packet_reaches_the_pod(place: Place) -> None:
    refused = place.node.pod_run("a", ["python3", "-c", UDP_CALL, OUTSIDE_IP, "9", "x", "1"], check=False)
    assert "ConnectionRefusedError" in refused.stderr


def test_bulk_that_leaves_and_comes_in_gso_packets_arrives_byte_by_byte(place: Place) -> None:
    place.node.pod_run("a", ["python3", "-c", TCP_ECHO, OUTSIDE_IP, str(ECHO_PORT)], timeout=120)
    assert place.tracked() == []


def test_pods_of_one_node_talk_untracked(place: Place) -> None:
    assert "eth0" in place.get("a", place.ips["b"], PORT)
    assert place.udp("a", place.ips["b"], PORT).split()[0] == place.ips["a"]
    assert place.tracked() == []


def test_a_service_with_its_endpoint_on_the_same_node_works_by_tcp_and_udp(place: Place) -> None:
    for _ in range(3):
        assert "eth0" in place.get("a", SERVICE_IP)
        assert place.udp("a", SERVICE_IP, 80).split()[0] == place.ips["a"]
    assert any(SERVICE_IP in flow for flow in place.tracked()), "what is translated must be tracked"


def test_a_pod_may_use_a_service_and_its_endpoint_at_the_same_time(place: Place) -> None:
    for _ in range(3):
        assert "eth0" in place.get("a", SERVICE_IP)
        assert "eth0" in place.get("a", place.ips["b"], PORT)
        assert place.get("a", OUTSIDE_IP).split()[0] == NODE_IP


def test_a_node_port_answers_the_outside_with_the_nodes_address(place: Place) -> None:
    answer = place.fabric.outside.run(["curl", "-sS", "-m", "20", f"http://{NODE_IP}:{NODE_PORT}/"]).stdout
    assert "eth0" in answer
    assert tracked_flows(place.node) > 0


def test_the_node_itself_reaches_its_pods_and_the_outside_as_before(place: Place) -> None:
    assert "eth0" in place.node.run(["curl", "-sS", "-m", "20", f"http://{place.ips['b']}:{PORT}/"]).stdout
    assert place.node.run(["curl", "-sS", "-m", "20", f"http://{OUTSIDE_IP}/"]).stdout.split()[0] == NODE_IP
