# SPDX-License-Identifier: Apache-2.0
"""bypath-ipvlan where the kernel's ipvlan does not matter: its keys, its layouts, and a kernel without it."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any

import pytest
from ipvlan import layout, search, slave
from ipvlan.config import Config
from ipvlan.port import FLAGS, MODES, Setting

from cni import result
from cni.errors import CniError
from cni.identity import Attachment
from cni.net import ipaddr
from cni.net.netlink import NetlinkError
from cni.netconf import NetConf
from cni.request import Request
from cni.result import Result
from tests.kernels import probes
from tests.lab.executable import CniFailure, Json
from tests.lab.node import Node
from tests.lab.residue import residue
from tests.plugins.ipvlan_lab import Pod, install_ipam, l2

L2, L3 = MODES.index("l2"), MODES.index("l3")
DEFAULT = "0.0.0.0/0"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"mode": "l4"}, "mode: must be one of l2, l3, l3s"),
        ({"flag": "public"}, "flag: must be one of bridge, private, vepa"),
        ({"hostAccess": "veth"}, "hostAccess: must be one of none"),
        ({"mtu": 67}, "mtu: must be a whole number from 68"),
        ({"mtu": "1500"}, "mtu: must be a whole number"),
        ({"linkInContainer": "yes"}, "linkInContainer: must be true or false"),
        ({"master": "eth0/1"}, "master: 'eth0/1' holds '/'"),
        ({"master": ["eth0"]}, "master: must be a string"),
        ({"ipam": {}}, "ipam: missing"),
    ],
)
def test_a_bad_value_is_refused_by_its_key(keys: Json, said: str) -> None:
    with pytest.raises(CniError) as caught:
        Config(NetConf(l2(**keys)))
    assert caught.value.code == 7 and said in caught.value.msg


def test_an_empty_configuration_means_l2_bridge_on_the_default_routes_nic() -> None:
    conf = l2()
    del conf["mode"]
    chosen = Config(NetConf(conf))
    assert (chosen.master, chosen.mtu, chosen.in_container) == ("", None, False)
    assert str(chosen.setting) == "mode l2 and flag bridge"


def test_a_setting_survives_its_record() -> None:
    for mode in range(len(MODES)):
        for flags in range(len(FLAGS)):
            assert Setting.of_number(Setting(mode, flags).number(in_container=True)) == Setting(mode, flags)
    assert Setting(0, 1) != Setting(0, 0) != Setting(1, 0)


def allotted(ips: list[Json], *routes: Json) -> Result:
    return result.parse({"ips": ips, "routes": list(routes)}, "test")


def routes_of(mode: int, given: Result) -> list[tuple[str, str]]:
    planned = layout.Layout(mode, given).plan().routes
    return [(route.text, ipaddr.text_of(route.gateway) if route.gateway else "") for route in planned]


V4: Json = {"address": "10.1.2.3/24", "gateway": "10.1.2.1"}
V6: Json = {"address": "fd00::3/64"}


def test_l2_routes_take_their_own_gateway_or_that_of_their_family() -> None:
    routes = [{"dst": DEFAULT}, {"dst": "10.9.9.9/8", "gw": "10.1.2.9"}, {"dst": "fd01::/16"}]
    expected = [(DEFAULT, "10.1.2.1"), ("10.0.0.0/8", "10.1.2.9"), ("fd01::/16", "")]
    assert routes_of(L2, allotted([V4, V6], *routes)) == expected
    assert routes_of(L2, allotted([V4])) == []
    assert routes_of(L2, allotted([V4], {"dst": "::/0"})) == []


def test_l3_routes_have_no_gateway_and_a_default_where_ipam_gives_none() -> None:
    given = allotted([V4, V6], {"dst": "10.0.0.0/8", "gw": "10.1.2.9"})
    assert routes_of(L3, given) == [("10.0.0.0/8", ""), ("::/0", "")]


@pytest.mark.parametrize("mode", [L2, L3])
def test_check_wants_what_add_told_and_nothing_of_later_plugins(mode: int) -> None:
    made = layout.Layout(mode, allotted([V4, V6], {"dst": DEFAULT}, {"dst": "fd01::/16"}))
    final = result.empty()
    final.add_interface("tap0", "0a:00:00:00:00:01", "", 1500)
    made.describe(final, final.add_interface("eth0", "0a:00:00:00:00:02", "/run/netns/a", 1500))
    final.routes.append({"dst": "203.0.113.0/24", "gw": "169.254.1.1"})
    final.ips.append({"address": "10.7.7.7/24", "interface": 0})
    request = Request("CHECK", {"CNI_IFNAME": "eth0", "CNI_NETNS": "/run/netns/a"})
    again = layout.of_final(mode, final, request)
    assert again.addresses == made.addresses
    assert [route[:3] for route in again.routes] == [route[:3] for route in made.routes]


def test_an_l3_pod_in_the_nics_network_is_refused_and_an_l2_pod_is_not() -> None:
    subnets = [ipaddr.parse_cidr("10.1.2.77/24", "test")]
    layout.Layout(L2, allotted([V4])).refuse_subnets("eth0", subnets)
    layout.Layout(L3, allotted([V6])).refuse_subnets("eth0", subnets)
    with pytest.raises(CniError, match=r"10\.1\.2\.3 is in 10\.1\.2\.0/24") as caught:
        layout.Layout(L3, allotted([V6, V4])).refuse_subnets("eth0", subnets)
    assert caught.value.code == 7


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (errno.EOPNOTSUPP, 100, "modprobe ipvlan"),
        (524, 100, "CONFIG_IPVLAN_L3S"),
        (errno.EBUSY, 102, "macvlan"),
        (errno.ENODEV, 7, "vanished"),
    ],
)
def test_what_the_kernel_refuses_becomes_a_sentence(number: int, code: int, said: str) -> None:
    class Refusing:
        def ask(self, *_messages: object) -> list[bytes]:
            raise NetlinkError(number, "create ipvlan device eth0: no")

    socket: Any = Refusing()
    pod: Any = SimpleNamespace(path="/run/netns/a", descriptor=3)
    master: Any = SimpleNamespace(index=2, name="nic0")
    with pytest.raises(CniError) as caught:
        slave.create(socket, pod, Attachment("flat", "pod1", "eth0"), master, Setting(2, 0), 1500)
    assert caught.value.code == code and said in caught.value.msg and "no" in caught.value.details


def test_the_search_sees_namespaces_of_mounts_and_of_processes(node: Node) -> None:
    pod = Pod(node, "pod1")
    name = f"here{os.getpid()}"  # the whole machine is searched, other runs of this test included
    mounted = node.pod_popen("pod1", ["sleep", "60"])
    other = node.popen(
        ["unshare", "--net", "sh", "-c", f"ip link add {name} type bridge; echo ready; sleep 60"], stdout=-1
    )
    assert other.stdout and other.stdout.readline() == "ready\n"
    pod.run(f"ip link add {name} type bridge")
    code = (
        "from cni.net import link; from ipvlan import search;"
        f"look = lambda s: [x for x in link.list_all(s) if x.name == '{name}'];"
        "print([path for _, path in search.all_namespaces(look)])"
    )
    path = ":".join(search.__file__.rsplit("/", depth)[0] for depth in (2, 4))
    found = node.run(["/usr/bin/python3", "-c", code], env={"PYTHONPATH": path}).stdout
    assert "'/run/netns/pod1'" in found and f"'/proc/{other.pid}/ns/net'" in found
    assert found.count("'") == 4, "each namespace once, ours not at all"
    node.stop(mounted)


def test_unknown_keys_are_refused_by_name_and_version_needs_nothing(node: Node) -> None:
    install_ipam(node)
    pod = Pod(node, "pod1")
    with pytest.raises(CniFailure, match="masters, mod: unknown") as caught:
        pod.add(l2(masters="eth0", mod="l2"))
    assert caught.value.code == 2
    assert "1.1.0" in pod.cni.version()["supportedVersions"]
    pod.cni.delete(l2(), "pod1", pod.netns)
    pod.cni.gc(l2(), [])
    assert node.run("[ ! -e /sys/fs/bpf/bypath ]").returncode == 0
    assert residue(node) == []


if not probes.has("ipvlan"):  # This kernel is the case; where there is ipvlan, test_ipvlan.py has the contrary.

    def test_a_kernel_without_ipvlan_is_named_and_left_as_it_was(node: Node) -> None:
        install_ipam(node)
        pod = Pod(node, "pod1")
        with pytest.raises(CniFailure, match="CONFIG_IPVLAN") as caught:
            pod.add(l2())
        assert caught.value.code == 100 and "modprobe ipvlan" in caught.value.msg
        with pytest.raises(CniFailure, match="CONFIG_IPVLAN") as caught:
            pod.cni.status(l2())
        assert caught.value.code == 50
        assert pod.device_names() == ["lo"] and residue(node) == []
        pod.cni.delete(l2(), "pod1", pod.netns)
        assert residue(node) == []
