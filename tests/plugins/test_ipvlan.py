# SPDX-License-Identifier: Apache-2.0
"""bypath-ipvlan's pods: what they reach in each mode, and that CHECK sees what became of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.executable import CniFailure, Json
from tests.lab.fabric import ROUTER_IP, ROUTER_IP6
from tests.lab.node import Node
from tests.lab.residue import difference, residue
from tests.plugins.ipvlan_lab import Lab, Pod, conf_of, host_link, l2, routed

pytestmark = pytest.mark.needs("ipvlan")


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    with Lab.create() as made:
        yield made


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    yield shared
    shared.remove_pods()


@pytest.fixture
def node(lab: Lab) -> Node:
    return lab.nodes[0]


MODES = [
    pytest.param("l2", marks=pytest.mark.feature("ipvlan l2")),
    pytest.param("l3", marks=pytest.mark.feature("ipvlan l3")),
    pytest.param("l3s", marks=[pytest.mark.feature("ipvlan l3s"), pytest.mark.needs("ipvlan l3s")]),
]


@pytest.mark.parametrize("mode", MODES)
def test_a_pod_reaches_its_neighbour_the_other_node_and_the_outside(lab: Lab, mode: str) -> None:
    first, second = lab.nodes
    pod, near, far = Pod(first, "pod1"), Pod(first, "pod2"), Pod(second, "pod3")
    for each, number in (pod, 1), (near, 1), (far, 2):
        each.add(conf_of(mode, number))
    told, made, master = pod.result["interfaces"], pod.link(), host_link(first)
    assert told == [{"name": "eth0", "mac": master["address"], "mtu": 1500, "sandbox": pod.netns}]
    assert made["linkinfo"]["info_kind"] == "ipvlan" and pod.setting == f"{mode} bridge"
    assert (made["address"], made["mtu"], made["ifalias"]) == (
        master["address"],
        1500,
        f"bypath/{pod.conf['name']}/pod1/eth0",
    )
    for address in near.addresses + far.addresses:
        assert pod.reaches(address), f"{mode}: {pod.addresses} does not reach {address}"
    assert pod.seen_outside_as() == pod.addresses
    for address in pod.addresses:
        lab.fabric.outside.run(["ping", "-c1", "-W5", address])
    for each in pod, near, far:
        each.check()
        each.delete()
        assert each.device_names() == ["lo"]
    assert difference(first) + residue(second) == []


@pytest.mark.feature("ipvlan l2")
def test_l2_routes_are_those_of_ipam_and_l3_routes_are_the_devices_own(node: Node) -> None:
    flat = Pod(node, "pod1").add(l2())
    defaults = [{"dst": "0.0.0.0/0", "gw": ROUTER_IP}, {"dst": "::/0", "gw": ROUTER_IP6}]
    assert flat.result["routes"] == defaults
    assert [ip["gateway"] for ip in flat.result["ips"]] == [ROUTER_IP, ROUTER_IP6]
    assert flat.run("ip route show default").split() == ["default", "via", ROUTER_IP, "dev", "eth0"]
    flat.delete()
    deep = Pod(node, "pod2").add(routed("l3"))
    assert deep.result["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    assert all("gateway" not in ip for ip in deep.result["ips"])
    assert deep.run("ip route show default").split() == ["default", "dev", "eth0", "scope", "link"]
    assert "via" not in deep.run("ip -6 route show default")
    deep.delete()
    assert residue(node) == []


@pytest.mark.feature("ipvlan l2")
def test_every_spec_version_gets_its_own_result(node: Node) -> None:
    for version in ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"):
        pod = Pod(node, f"pod-{version}").add(l2(version=version, mtu=1400))
        result = pod.result
        assert result["cniVersion"] == version
        assert ["version" in ip for ip in result["ips"]] == [version < "1.0.0"] * 2
        assert ("mtu" in result["interfaces"][0]) == (version == "1.1.0")
        assert [ip["interface"] for ip in result["ips"]] == [0, 0]
        assert pod.link()["mtu"] == 1400
        if version >= "0.4.0":
            pod.check()
        pod.delete()
    assert residue(node) == []


@pytest.mark.feature("ipvlan private and vepa")
def test_private_and_vepa_keep_pods_of_one_node_apart(node: Node, lab: Lab) -> None:
    for flag in "private", "vepa":
        pod, near = Pod(node, f"{flag}1").add(l2(flag=flag)), Pod(node, f"{flag}2").add(l2(flag=flag))
        assert pod.setting == f"l2 {flag}"
        assert pod.seen_outside_as() == pod.addresses
        assert not pod.reaches(near.addresses[0], seconds=1)
        if flag == "vepa":
            # The switch decides: one that sends frames back to the port they came from lets the pods meet.
            lab.fabric.router.run("bridge link set dev port1 hairpin on")
            assert pod.reaches(near.addresses[0]) and pod.reaches(near.addresses[1])
            lab.fabric.router.run("bridge link set dev port1 hairpin off")
        pod.check()
        pod.delete()
        near.delete()
    assert residue(node) == []


@pytest.mark.feature("ipvlan l2")
def test_an_address_that_moved_to_another_node_is_reached_at_once(lab: Lab) -> None:
    conf = l2(7)
    for node in lab.nodes:
        pod = Pod(node, "pod1").add(conf)
        for address in pod.addresses:
            # A second is far less than the router keeps to what it has learned of the node before.
            lab.fabric.router.run(["ping", "-c1", "-W1", address])
        pod.delete()
        assert residue(node) == []


DAMAGES = [
    ("ip link set eth0 type ipvlan mode l3", "ip link set eth0 type ipvlan mode l2", "mode l3"),
    ("ip link set eth0 type ipvlan private", "ip link set eth0 type ipvlan bridge", "flag private"),
    ("ip link set eth0 mtu 1300", "ip link set eth0 mtu 1500", "MTU 1300"),
    (
        "ip address del {v4}/24 dev eth0",
        "ip address add {v4}/24 dev eth0; " + f"ip route add default via {ROUTER_IP}",
        "{v4}",
    ),
    ("ip -6 route del default", f"ip -6 route add default via {ROUTER_IP6}", f"::/0 via {ROUTER_IP6}"),
    ("ip route replace default via 192.0.2.9", f"ip route replace default via {ROUTER_IP}", f"via {ROUTER_IP}"),
    ("ip link set eth0 alias mine", "ip link set eth0 alias bypath/flat/pod1/eth0", "alias"),
    ("ip -6 address del {v6}/64 dev eth0", "", "{v6}"),
    ("ip link set eth0 down", "", "is down"),
    ("ip link set eth0 name eth9; ip link add eth0 type bridge", "", "not an ipvlan device"),
    ("ip link del eth0; ip link del eth9", "", "missing"),
]
"""What was done to the pod, how it is mended (or not, up to the end), and what CHECK says of it."""


@pytest.mark.feature("ipvlan CHECK")
def test_check_names_each_damage(node: Node) -> None:
    pod = Pod(node, "pod1").add(l2())
    v4, v6 = pod.addresses
    later: Json = {"name": "tap0", "mac": "0a:00:00:00:00:01", "sandbox": pod.netns}
    pod.result["interfaces"].insert(0, later)
    for ip in pod.result["ips"]:
        ip["interface"] = 1
    pod.result["routes"].append({"dst": "203.0.113.0/24", "gw": "10.9.9.9"})
    pod.check()
    for damage, mend, said in DAMAGES:
        pod.run(damage.format(v4=v4, v6=v6))
        with pytest.raises(CniFailure) as caught:
            pod.check()
        assert caught.value.code == 103 and said.format(v4=v4, v6=v6) in caught.value.msg, (damage, caught.value)
        if mend:
            pod.run(mend.format(v4=v4, v6=v6))
    pod.delete()
    assert residue(node) == []


@pytest.mark.feature("ipvlan linkInContainer")
def test_a_master_inside_the_pod_carries_the_interface(node: Node, lab: Lab) -> None:
    pod = Pod(node, "pod1")
    lab.fabric.router.run("ip link add pod0 type veth peer name net0; ip link set pod0 master br0 up")
    lab.fabric.router.run(f"ip link set net0 netns {node.pid}")
    node.run("ip link set net0 netns pod1")
    conf = l2(master="net0", linkInContainer=True)
    with pytest.raises(CniFailure, match="net0 is down"):
        pod.add(conf)
    pod.run("ip link set net0 up")
    pod.add(conf)
    assert pod.seen_outside_as() == pod.addresses
    pod.check()
    with pytest.raises(CniFailure, match="flag bridge") as caught:
        pod.cni.add({**conf, "flag": "private"}, "pod1", pod.netns, "eth1")
    assert caught.value.code == 7
    pod.delete()
    assert pod.device_names() == ["lo", "net0"]
    assert residue(node) == []
