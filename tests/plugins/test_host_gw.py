# SPDX-License-Identifier: Apache-2.0
"""bypath-host-gw: what its pods reach, what they get, and what CHECK notices."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab import ipam
from tests.lab.executable import Cni, Json
from tests.lab.fabric import OUTSIDE_IP, OUTSIDE_IP6, ROUTER_IP, Fabric
from tests.lab.node import Node
from tests.lab.residue import difference, residue
from tests.plugins.rooms import HOST_GW, Room, conf_for, failure_of, with_prev

pytestmark = pytest.mark.feature("host-gw")


def dual_stack(number: int) -> Json:
    """Node `number`'s network, by Debian's host-local."""
    ranges = [[{"subnet": f"10.244.{number}.0/24"}], [{"subnet": f"fd00:10:244:{number}::/64"}]]
    return conf_for(HOST_GW, "1.0.0", ipam={"type": "host-local", "ranges": ranges, "dataDir": "/var/lib/cni/networks"})


def ping(node: Node, pod: str, *destinations: str) -> None:
    for destination in destinations:
        node.pod_run(pod, ["ping", "-c1", "-W5", destination])


def addresses(result: Json) -> list[str]:
    return [ip["address"].partition("/")[0] for ip in result["ips"]]


def routes(node: Node, pod: str, family: str = "-4") -> list[Json]:
    return list(json.loads(node.pod_run(pod, ["ip", "-j", family, "route"]).stdout))


def test_pods_reach_each_other_their_node_and_the_outside_in_both_families(node: Node, fabric: Fabric) -> None:
    conf, cni = dual_stack(1), Cni(node, HOST_GW)
    for cidr in "10.244.1.0/24", "fd00:10:244:1::/64":
        fabric.route_pods(cidr, 1)
    first, second = (cni.add(conf, name, node.add_pod_netns(name)) for name in ("p1", "p2"))
    ping(node, "p1", *addresses(second), "192.0.2.11", "2001:db8:0:1::11", ROUTER_IP, OUTSIDE_IP, OUTSIDE_IP6)
    ping(node, "p2", *addresses(first))
    for address in addresses(first):
        node.run(["ping", "-c1", "-W5", address])
        fabric.outside.run(["ping", "-c1", "-W5", address])
    seen = node.pod_run("p1", ["curl", "-sS", "-m", "10", f"http://{OUTSIDE_IP}/"]).stdout.split()
    assert seen[0] == "10.244.1.2", "nothing on the way translates it"
    shown = node.run("ip neigh show nud reachable; ip neigh show nud stale; ip neigh show nud delay").stdout
    # A pod that speaks from its link-local address (router solicitations, sooner or later) makes the node learn that.
    looked_for = [line for line in shown.splitlines() if " dev bp" in line and not line.startswith("fe80:")]
    assert looked_for == [], "no pod was ever looked for by ARP or ND"
    cni.delete(conf, "p1", "/run/netns/p1")
    ping(node, "p2", OUTSIDE_IP)
    cni.delete(conf, "p2", "/run/netns/p2")
    assert difference(node) == []


def test_pods_of_two_nodes_reach_each_other_over_static_routes(fabric: Fabric) -> None:
    nodes = {number: fabric.add_node(number) for number in (1, 2)}
    for number, node in nodes.items():
        other = 3 - number
        node.run(
            f"ip route add 10.244.{other}.0/24 via 192.0.2.{10 + other};"
            f" ip route add fd00:10:244:{other}::/64 via 2001:db8:0:1::{10 + other}"
        )
    results = {n: Cni(node, HOST_GW).add(dual_stack(n), "c1", node.add_pod_netns("p1")) for n, node in nodes.items()}
    ping(nodes[1], "p1", *addresses(results[2]))
    ping(nodes[2], "p1", *addresses(results[1]))
    for number, node in nodes.items():
        Cni(node, HOST_GW).delete(dual_stack(number), "c1", "/run/netns/p1")
        node.run(f"ip route del 10.244.{3 - number}.0/24; ip route del fd00:10:244:{3 - number}::/64")
        assert residue(node) == []


def test_a_pod_has_host_addresses_a_gateway_and_permanent_neighbours_only(room: Room) -> None:
    cni, conf = room.cni(HOST_GW), conf_for(HOST_GW)
    result = cni.add(conf, "c1", room.netns)
    host, pod = result["interfaces"]
    assert [ip["address"] for ip in result["ips"]] == ["10.244.1.2/32", "fd00:10:244:1::2/128"]
    assert [ip["gateway"] for ip in result["ips"]] == ["169.254.1.1", "fe80::1"]
    default4, link4 = routes(room.node, "p1")
    assert (default4["dst"], default4["gateway"]) == ("default", "169.254.1.1")
    assert (link4["dst"], link4["scope"]) == ("169.254.1.1", "link")
    known = room.node.pod_run("p1", "ip neigh show nud permanent").stdout
    assert f"169.254.1.1 dev eth0 lladdr {host['mac']}" in known and f"fe80::1 dev eth0 lladdr {host['mac']}" in known
    shown = room.node.run(["ip", "-d", "link", "show", host["name"]]).stdout
    assert "alias bypath/pods/c1/eth0" in shown and host["mac"] in shown
    known = room.node.run("ip neigh show nud permanent").stdout
    assert f"10.244.1.2 dev {host['name']} lladdr {pod['mac']}" in known
    assert f"10.244.1.2 dev {host['name']} proto 183 scope link" in room.node.run("ip route").stdout
    cni.delete(conf, "c1", room.netns)


@pytest.mark.parametrize("families", [[4], [6]])
def test_a_pod_of_one_family_gets_nothing_of_the_other(room: Room, families: list[int]) -> None:
    wanted = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    conf = conf_for(HOST_GW, ipam={"type": "lab-ipam", "families": families, "routes": wanted})
    room.node.sysctl("net.ipv6.conf.all.forwarding" if families == [4] else "net.ipv4.ip_forward", 0)
    result = room.cni(HOST_GW).add(conf, "c1", room.netns)
    assert [route["dst"] for route in result["routes"]] == (["0.0.0.0/0"] if families == [4] else ["::/0"])
    room.cni(HOST_GW).check(with_prev(conf, result), "c1", room.netns)
    room.cni(HOST_GW).delete(conf, "c1", room.netns)
    room.node.sysctl("net.ipv6.conf.all.forwarding", 1)
    room.node.sysctl("net.ipv4.ip_forward", 1)
    room.node.run("ip -6 route show default | grep -q . || ip route add default via 2001:db8:0:1::1 dev eth0")


def mtus(room: Room, conf: Json) -> set[int]:
    """Of both ends and both interfaces of the result, which must agree; the pod is removed again."""
    result = room.cni(HOST_GW).add(conf, "c1", room.netns)
    found = {interface["mtu"] for interface in result["interfaces"]}
    host = result["interfaces"][0]["name"]
    found.add(json.loads(room.node.run(["ip", "-j", "link", "show", host]).stdout)[0]["mtu"])
    found.add(json.loads(room.node.pod_run("p1", ["ip", "-j", "link", "show", "eth0"]).stdout)[0]["mtu"])
    room.cni(HOST_GW).check(with_prev(conf, result), "c1", room.netns)
    room.cni(HOST_GW).delete(conf, "c1", room.netns)
    return found


def test_the_mtu_is_the_configured_one_else_that_of_the_way_out_else_1500(room: Room) -> None:
    assert mtus(room, conf_for(HOST_GW, mtu=1280)) == {1280}
    assert mtus(room, conf_for(HOST_GW, mtu=9000)) == {9000}
    room.node.run("ip link set eth0 mtu 1450")
    assert mtus(room, conf_for(HOST_GW)) == {1450}
    room.node.run("ip route del default")
    assert mtus(room, conf_for(HOST_GW)) == {1450}, "IPv6 has a default route too"
    room.node.run("ip -6 route del default")
    assert mtus(room, conf_for(HOST_GW)) == {1500}
    room.node.run(
        "ip link set eth0 mtu 1500; ip route add default via 192.0.2.1 dev eth0;"
        " ip route add default via 2001:db8:0:1::1 dev eth0"
    )


def test_a_node_that_does_not_forward_gets_no_pod_and_is_told_the_command(room: Room) -> None:
    conf, cni = conf_for(HOST_GW), room.cni(HOST_GW)
    room.node.sysctl("net.ipv4.ip_forward", 0)
    failure = failure_of(cni.add, conf, "c1", room.netns)
    assert failure.code == 101 and "sysctl -w net.ipv4.ip_forward=1" in failure.msg
    assert ipam.leases(room.node) == []
    assert room.node.sysctl("net.ipv4.ip_forward") == "0", "a node's sysctl is never written"
    room.node.sysctl("net.ipv4.ip_forward", 1)


@pytest.mark.once
def test_an_interface_that_exists_is_refused_and_left_as_it_was(room: Room) -> None:
    room.node.pod_run("p1", "ip link add eth0 type veth peer name other; ip address add 203.0.113.1/24 dev eth0")
    failure = failure_of(room.cni(HOST_GW).add, conf_for(HOST_GW), "c1", room.netns)
    assert failure.code == 102 and "eth0" in failure.msg and room.netns in failure.msg
    assert "203.0.113.1/24" in room.node.pod_run("p1", "ip address show eth0").stdout
    room.cni(HOST_GW).delete(conf_for(HOST_GW), "c1", room.netns)
    room.node.pod_run("p1", "ip link del eth0")


@pytest.mark.once
@pytest.mark.parametrize("netns", ["/run/netns/p1", "/run/netns/p2"])
def test_a_second_add_of_the_same_attachment_is_refused_and_the_first_pod_undisturbed(room: Room, netns: str) -> None:
    conf, cni = conf_for(HOST_GW), room.cni(HOST_GW)
    result = cni.add(conf, "c1", room.netns)
    failure = failure_of(cni.add, conf, "c1", netns)
    assert failure.code == 102 and "DEL" in failure.msg
    cni.check(with_prev(conf, result), "c1", room.netns)
    assert ipam.leases(room.node) == ["c1 eth0"]
    cni.delete(conf, "c1", room.netns)


def test_ipv6_that_is_off_in_the_pod_is_switched_on_for_its_interface(room: Room) -> None:
    room.node.pod_run("p1", "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")
    conf, cni = conf_for(HOST_GW), room.cni(HOST_GW)
    result = cni.add(conf, "c1", room.netns)
    cni.check(with_prev(conf, result), "c1", room.netns)
    assert room.node.pod_run("p1", "cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6").stdout == "0\n"
    assert room.node.pod_run("p1", "cat /proc/sys/net/ipv6/conf/lo/disable_ipv6").stdout == "1\n"
    cni.delete(conf, "c1", room.netns)
    room.node.pod_run("p1", "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0")


def test_an_ipv6_address_is_usable_at_once(room: Room) -> None:
    conf, cni = conf_for(HOST_GW), room.cni(HOST_GW)
    cni.add(conf, "c1", room.netns)
    shown = room.node.pod_run("p1", "ip -6 address show dev eth0 scope global").stdout
    assert "fd00:10:244:1::2/128" in shown and "tentative" not in shown
    cni.delete(conf, "c1", room.netns)


@pytest.mark.once
def test_routes_of_ipam_take_the_place_of_the_default_route(room: Room) -> None:
    wanted: list[dict[str, Any]] = [
        {"dst": "10.96.5.7/12", "mtu": 1300, "priority": 50, "advmss": 1200},
        {"dst": "203.0.113.0/24", "table": 0, "scope": 0, "gw": "10.244.1.1"},
        {"dst": "198.51.100.0/24", "table": 1000},
        {"dst": "2001:db8:7::/48", "priority": 60},
    ]
    conf, cni = conf_for(HOST_GW, ipam={"type": "lab-ipam", "routes": wanted}), room.cni(HOST_GW)
    result = cni.add(conf, "c1", room.netns)
    assert result["routes"] == [
        {**route, "gw": "fe80::1" if ":" in route["dst"] else "169.254.1.1"} for route in wanted
    ]
    shown = room.node.pod_run("p1", "ip route").stdout
    assert "default" not in shown
    assert "10.96.0.0/12 via 169.254.1.1 dev eth0 metric 50 mtu 1300 advmss 1200" in shown
    assert "203.0.113.0/24 via 169.254.1.1" in shown and "198.51.100.0/24" not in shown
    assert "198.51.100.0/24 via 169.254.1.1" in room.node.pod_run("p1", "ip route show table 1000").stdout
    assert "2001:db8:7::/48 via fe80::1 dev eth0 metric 60" in room.node.pod_run("p1", "ip -6 route").stdout
    cni.check(with_prev(conf, result), "c1", room.netns)
    room.node.pod_run("p1", "ip route del 198.51.100.0/24 table 1000")
    assert "198.51.100.0/24" in failure_of(cni.check, with_prev(conf, result), "c1", room.netns).msg
    cni.delete(conf, "c1", room.netns)


@pytest.mark.once
@pytest.mark.parametrize("prefix", ["v", "abcdef", "bp-x"])
def test_the_hosts_veth_begins_with_the_configured_prefix_and_del_needs_no_prefix(room: Room, prefix: str) -> None:
    conf, cni = conf_for(HOST_GW, hostVethPrefix=prefix), room.cni(HOST_GW)
    name = cni.add(conf, "c1", room.netns)["interfaces"][0]["name"]
    assert name.startswith(prefix) and len(name) == min(15, len(prefix) + 11)
    cni.delete(conf_for(HOST_GW), "c1", room.netns)


@pytest.mark.once
@pytest.mark.parametrize("conf", [{"hostVethPrefix": ""}, {"hostVethPrefix": "seven77"}, {"hostVethPrefix": "a/b"},
                                  {"hostVethPrefix": 5}, {"mtu": 67}, {"mtu": 65536}, {"mtu": "1500"}, {"mtu": 1500.5},
                                  {"mtu": True}, {"source": "kubernetes"}], ids=str)  # fmt: skip
def test_a_value_that_cannot_be_meant_is_refused_by_its_key(room: Room, conf: Json) -> None:
    failure = failure_of(room.cni(HOST_GW).add, {**conf_for(HOST_GW), **conf}, "c1", room.netns)
    assert failure.code == 7 and failure.msg.startswith(f"{next(iter(conf))}:")


@pytest.mark.once
def test_dns_of_ipam_is_told_to_the_runtime(room: Room) -> None:
    dns = {"nameservers": ["10.96.0.10"], "search": ["svc.example"], "options": ["ndots:5"]}
    conf, cni = conf_for(HOST_GW, ipam={"type": "lab-ipam", "dns": dns}), room.cni(HOST_GW)
    assert cni.add(conf, "c1", room.netns)["dns"] == dns
    cni.delete(conf, "c1", room.netns)
