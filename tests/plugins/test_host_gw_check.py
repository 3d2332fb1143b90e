# SPDX-License-Identifier: Apache-2.0
"""CHECK of bypath-host-gw: it notices what differs from what ADD made, and nothing else."""

from __future__ import annotations

import pytest

from tests.plugins.rooms import HOST_GW, Room, conf_for, failure_of, with_prev

pytestmark = [pytest.mark.feature("host-gw"), pytest.mark.once]

DAMAGES = {
    "the pod's address": ("p1", "ip address del 10.244.1.2/32 dev eth0", "10.244.1.2/32"),
    "the pod's IPv6 address": ("p1", "ip address del fd00:10:244:1::2/128 dev eth0", "fd00:10:244:1::2/128"),
    "the pod's default route": ("p1", "ip route del default", "0.0.0.0/0 via 169.254.1.1"),
    "the pod's default route's gateway": (
        "p1", "ip route replace default via 169.254.1.9 dev eth0 onlink", "0.0.0.0/0 via 169.254.1.1"),
    "the pod's IPv6 default route": ("p1", "ip -6 route del default", "::/0 via fe80::1"),
    "the pod's neighbour": ("p1", "ip neigh del 169.254.1.1 dev eth0", "169.254.1.1"),
    "the pod's neighbour's MAC": ("p1", "ip neigh replace 169.254.1.1 lladdr 0a:00:00:00:00:09 dev eth0 nud permanent",
                                  "169.254.1.1"),
    "the pod's neighbour's permanence": ("p1", "ip neigh change 169.254.1.1 dev eth0 nud stale", "169.254.1.1"),
    "the pod's MTU": ("p1", "ip link set eth0 mtu 1400", "MTU 1400"),
    "the pod's MAC": ("p1", "ip link set eth0 address 0a:00:00:00:00:09", "not the device"),
    "the pod's link": ("p1", "ip link set eth0 down", "is down"),
    "the pod's interface": ("p1", "ip link set eth0 down; ip link set eth0 name eth9", "eth0 is missing in the pod"),
    "the host's MTU": ("", "ip link set {host} mtu 1400", "MTU 1400"),
    "the host's link": ("", "ip link set {host} down", "is down"),
    "the host's route": ("", "ip route del 10.244.1.2", "no route 10.244.1.2/32"),
    "the host's IPv6 route": ("", "ip -6 route del fd00:10:244:1::2", "no route fd00:10:244:1::2/128"),
    "the host's route's device": ("", "ip route replace 10.244.1.2 dev eth0 proto 183", "no route 10.244.1.2/32"),
    "the host's neighbour": ("", "ip neigh del 10.244.1.2 dev {host}", "10.244.1.2"),
    "the host's veth": ("", "ip link del {host}", "missing in the node"),
    "the node's forwarding": ("", "sysctl -qw net.ipv4.ip_forward=0", "ip_forward"),
    "the lease": ("", "rm /var/lib/cni/networks/lab-ipam/2", "no lease"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_notices_a_change_of(room: Room, damage: str) -> None:
    conf, cni = conf_for(HOST_GW), room.cni(HOST_GW)
    result = cni.add(conf, "c1", room.netns)
    host = result["interfaces"][0]["name"]
    cni.check(with_prev(conf, result), "c1", room.netns)
    pod, deed, named = DAMAGES[damage]
    line = deed.format(host=host)
    if pod:
        room.node.pod_run(pod, line)
    else:
        room.node.run(line)
    failure = failure_of(cni.check, with_prev(conf, result), "c1", room.netns)
    room.node.sysctl("net.ipv4.ip_forward", 1)
    assert failure.code in (3, 101, 103) and named in failure.msg, failure
    cni.delete(conf, "c1", room.netns)
    room.node.run("ip route show 10.244.1.2 | grep -q . && ip route del 10.244.1.2 || :")


def test_check_tolerates_what_later_plugins_and_the_kernel_added(room: Room) -> None:
    conf, cni = conf_for(HOST_GW), room.cni(HOST_GW)
    result = cni.add(conf, "c1", room.netns)
    room.node.pod_run(
        "p1",
        "ip address add 203.0.113.7/24 dev eth0; ip route add 203.0.114.0/24 via 169.254.1.1;"
        " tc qdisc add dev eth0 root pfifo; ip link add other type veth peer name more",
    )
    result["interfaces"].append({"name": "other", "mac": "0a:00:00:00:00:05", "sandbox": room.netns})
    result["interfaces"].append({"name": "eth0", "sandbox": "/run/netns/another"})
    result["ips"].append({"address": "203.0.113.9/24", "interface": 2})
    result["ips"].append({"address": "203.0.113.10/24", "interface": 3})
    result["routes"].append({"dst": "203.0.115.0/24", "gw": "203.0.113.1"})
    cni.check(with_prev(conf, result), "c1", room.netns)
    cni.delete(conf, "c1", room.netns)
    room.node.pod_run("p1", "ip link del other")


def test_check_of_what_was_never_added_says_so(room: Room) -> None:
    conf, cni = conf_for(HOST_GW), room.cni(HOST_GW)
    result = cni.add(conf, "c1", room.netns)
    failure = failure_of(cni.check, with_prev(conf, result), "c2", room.netns)
    assert failure.code == 3 and "c2" in failure.msg
    cni.delete(conf, "c1", room.netns)
    assert failure_of(cni.check, with_prev(conf, result), "c1", room.netns).code == 3
