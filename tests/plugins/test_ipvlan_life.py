# SPDX-License-Identifier: Apache-2.0
"""bypath-ipvlan's refusals and the end of its pods: one mode a master, DEL, GC, STATUS, and nothing left behind."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator

import pytest

from cni.identity import Attachment
from tests.lab.executable import CniFailure, Json
from tests.lab.fabric import OUTSIDE_IP, ROUTER_IP, ROUTER_IP6
from tests.lab.node import Node
from tests.lab.residue import remember, residue
from tests.plugins.ipvlan_lab import Lab, Pod, l2, routed

pytestmark = [pytest.mark.needs("ipvlan"), pytest.mark.feature("ipvlan life")]


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


def refusal(pod: Pod, conf: Json) -> CniFailure:
    with pytest.raises(CniFailure) as caught:
        pod.add(conf)
    return caught.value


def test_a_second_mode_on_one_master_is_refused_and_the_pods_do_not_notice(node: Node) -> None:
    pod, other = Pod(node, "pod1").add(l2()), Pod(node, "pod2")
    pinging = node.pod_popen("pod1", ["ping", "-i0.2", OUTSIDE_IP], stdout=-1)
    for conf in routed("l3"), routed("l3s"), l2(name="apart", flag="private"):
        failure = refusal(other, conf)
        assert failure.code == 7 and "mode l2 and flag bridge (container pod1)" in failure.msg
    with pytest.raises(CniFailure, match="mode l2") as caught:
        other.cni.status(routed("l3"))
    assert caught.value.code == 50
    node.stop(pinging, signal.SIGINT)
    assert pinging.stdout and ", 0% packet loss" in pinging.stdout.read()
    assert pod.setting == "l2 bridge"
    pod.delete()
    other.add(routed("l3"))
    # The pod is gone without a DEL, and the kernel has no slave left: the record alone must not keep others out.
    node.del_pod_netns("pod2")
    pod.add(l2())
    # Nor may it, now that it is passed over, let in what the new pods contradict.
    assert refusal(Pod(node, "pod3"), routed("l3")).code == 7
    pod.delete()
    other.cni.delete(other.with_result(), "pod2", other.netns)
    assert residue(node) == []


def test_of_two_modes_at_once_one_wins(node: Node) -> None:
    pods = {"l2": Pod(node, "pod1"), "l3": Pod(node, "pod2"), "l3s": Pod(node, "pod3")}
    outcomes: dict[str, int] = {}

    def attempt(mode: str) -> None:
        try:
            pods[mode].add(l2() if mode == "l2" else routed(mode))
            outcomes[mode] = 0
        except CniFailure as failure:
            outcomes[mode] = failure.code

    threads = [threading.Thread(target=attempt, args=(mode,)) for mode in pods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes.values()) == [0, 7, 7]
    (winner,) = (mode for mode, code in outcomes.items() if not code)
    assert pods[winner].setting == f"{winner} bridge"
    pods[winner].delete()
    assert residue(node) == []


def test_slaves_that_others_made_keep_their_mode(node: Node) -> None:
    pod, foreign = Pod(node, "pod1"), Pod(node, "pod2")
    for make, place in (
        ("ip link add link eth0 name ipv0 type ipvlan mode l3", "ipv0"),
        ("ip link add link eth0 name ipv0 netns pod2 type ipvlan mode l3", "ipv0 in /run/netns/pod2"),
    ):
        node.run(make)
        failure = refusal(pod, l2())
        assert failure.code == 7 and f"mode l3 and flag bridge ({place})" in failure.msg
        assert residue(node) == (["device ipv0"] if place == "ipv0" else [])
        node.run("ip link del ipv0 2>/dev/null || ip netns exec pod2 ip link del ipv0")
    node.run("ip link add link eth0 name ipv0 netns pod2 type ipvlan mode l2")
    pod.add(l2()).delete()
    assert foreign.device_names() == ["ipv0", "lo"]
    foreign.run("ip link del ipv0")
    assert residue(node) == []


def test_a_refused_add_leaves_nothing(node: Node) -> None:
    pod = Pod(node, "pod1")
    nics = "ip link del nic1; ip link del nic2; ip link del br9"
    node.run(
        """
        ip link add nic1 type veth peer name nic1p; ip link add link nic1 name mac0 type macvlan; ip link set nic1 up
        ip link add br9 type bridge; ip link add nic2 type veth peer name nic2p; ip link set nic2 master br9 up
        """
    )
    remember(node)
    flat = l2()["ipam"]
    pod.run("ip link add eth5 type bridge")
    for conf, code, said in (
        (routed("l3", ipam=flat), 7, "192.0.2.0/24"),
        (l2(mtu=1501), 7, "1500"),
        (l2(mtu=1279), 7, "1280"),
        (l2(master="lo"), 7, "not an Ethernet device"),
        (l2(master="eth0.7"), 7, "type vlan id 7"),
        (l2(master="nic1"), 102, "macvlan"),
        (l2(master="nic2"), 102, "port of bridge br9"),
        (l2(master="nic1p"), 101, "ip link set nic1p up"),
    ):
        failure = refusal(pod, conf)
        assert failure.code == code and said in failure.msg, failure
        assert residue(node) == []
    with pytest.raises(CniFailure, match="eth5 exists") as caught:
        pod.cni.add(l2(), "pod1", pod.netns, "eth5")
    assert caught.value.code == 102 and pod.device_names() == ["eth5", "lo"]
    node.run(nics)
    assert residue(node) == []


def test_del_removes_ours_whatever_the_runtime_still_knows(node: Node) -> None:
    conf = l2()
    bare = {key: conf[key] for key in ("cniVersion", "name", "type", "ipam")}
    pod = Pod(node, "pod1").add(conf)
    two = {"interfaces": [{"name": "tap0"}, *pod.result["interfaces"]], "ips": pod.result["ips"]}
    pod.cni.delete({**bare, "prevResult": two}, "pod1", pod.netns)
    assert pod.device_names() == ["lo"] and residue(node) == []
    pod.cni.delete(bare, "pod1", pod.netns)
    pod.add(conf).cni.delete({**bare, "master": "gone0", "surplus": 1}, "pod1", None)
    assert pod.device_names() == ["lo"] and residue(node) == []
    # As an ADD leaves it that is killed before it has named the device.
    early = Attachment("flat", "pod1", "eth0").device_name("bp")
    pod.add(conf).run(f"ip link set eth0 down; ip link set eth0 alias '' name {early}")
    pod.delete()
    assert pod.device_names() == ["lo"]
    pod.add(conf)
    node.del_pod_netns("pod1")
    stranger = Pod(node, "pod1")
    node.run("ip link add link eth0 name ipv0 netns pod1 type ipvlan mode l2")
    stranger.run("ip link set ipv0 name eth0 alias somebody-elses")
    for _ in range(2):
        pod.delete()
    assert stranger.device_names() == ["eth0", "lo"] and residue(node) == []


def test_gc_reaps_what_the_runtime_does_not_list(node: Node) -> None:
    kept, lost, reused = (Pod(node, f"pod{number}").add(l2()) for number in (1, 2, 3))
    node.del_pod_netns("pod3")
    stranger = Pod(node, "pod3")
    node.run("ip link add link eth0 name ipv0 netns pod3 type ipvlan mode l2")
    stranger.run("ip link set ipv0 name eth0")
    kept.cni.gc(l2())
    lost.check()
    kept.cni.gc(l2(), [("pod1", "eth0")])
    assert (lost.device_names(), stranger.device_names()) == (["lo"], ["eth0", "lo"])
    kept.check()
    reserved = node.run("ls /var/lib/cni/networks/flat").stdout
    assert kept.addresses[0] in reserved
    assert lost.addresses[0] not in reserved and reused.addresses[0] not in reserved
    kept.delete()
    assert residue(node) == []


def test_status_tells_whether_an_add_could_succeed(node: Node) -> None:
    pod = Pod(node, "pod1")
    before = json.loads(node.run("ip -j -d link").stdout)
    pod.cni.status(l2())
    pod.cni.status(l2(linkInContainer=True, master="net1"))
    assert json.loads(node.run("ip -j -d link").stdout) == before
    node.run("ip link add nic1 type veth peer name nic1p")
    for conf, said in (
        (l2(master="nope"), "nope"),
        (l2(master="nic1"), "ip link set nic1 up"),
        (l2(mtu=9000), "1500"),
        (l2(ipam={"type": "no-such-ipam"}), "no-such-ipam"),
    ):
        with pytest.raises(CniFailure) as caught:
            pod.cni.status(conf)
        assert caught.value.code == 50 and said in caught.value.msg
    node.run("ip link del nic1; ip route del default; ip -6 route del default")
    with pytest.raises(CniFailure, match="default route") as caught:
        pod.cni.status(l2())
    assert caught.value.code == 50
    node.run(f"ip route add default via {ROUTER_IP}; ip -6 route add default via {ROUTER_IP6}")
    assert residue(node) == []
