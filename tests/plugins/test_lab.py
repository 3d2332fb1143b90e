# SPDX-License-Identifier: Apache-2.0
"""The laboratory itself, tried with the reference plugins: what it builds works, and what is left behind is seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.executable import Chain, Cni, CniFailure
from tests.lab.fabric import ECHO_PORT, OUTSIDE_IP, OUTSIDE_IP6, Fabric
from tests.lab.node import CommandFailed, Node, tied
from tests.lab.residue import missing, remember, residue

PTP = {
    "type": "ptp",
    "ipMasq": False,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:10:244:1::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    },
}
CONFLIST = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [PTP, {"type": "bandwidth", "capabilities": {"bandwidth": True}}],
}
BANDWIDTH = {"bandwidth": {"egressRate": 10_000_000, "egressBurst": 1_000_000}}


def curl(node: Node, url: str, pod: str | None = None) -> str:
    argv = ["curl", "-sS", "-m", "10", url]
    return (node.pod_run(pod, argv) if pod else node.run(argv)).stdout


def test_a_node_sees_its_own_devices_and_bpffs_and_run(node: Node) -> None:
    assert sorted(node.run("ls /sys/class/net").stdout.split()) == ["eth0", "lo"]
    node.run('[ ! -e /sys/fs/bpf/bypath ] && [ -z "$(ls -A /run/bypath)" ]')
    assert node.run(["stat", "-fc", "%T", "/sys/fs/bpf"]).stdout.strip() == "bpf_fs"
    assert node.run(["hostname"]).stdout.strip() == "node1"
    node.run("touch /run/bypath/mark /var/lib/cni/mark")
    assert not Path("/run/bypath/mark").exists() and not Path("/var/lib/cni/mark").exists()


def test_a_failed_command_raises_with_what_it_printed(node: Node) -> None:
    with pytest.raises(CommandFailed, match="one\ntwo"):
        node.run("echo one; echo two >&2; exit 3")
    assert node.run("exit 3", check=False).returncode == 3
    with pytest.raises(CommandFailed):
        node.run("false; true")


def test_a_sysctl_is_the_nodes_own(node: Node) -> None:
    machine = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    assert node.sysctl("net.ipv4.ip_forward") == "1"
    assert node.sysctl("net.ipv4.ip_forward", 0) == "0"
    assert node.sysctl("net/ipv4/conf/eth0/rp_filter", "2") == "2"
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == machine


def test_the_outside_host_tells_whom_it_sees(node: Node) -> None:
    assert curl(node, f"http://{OUTSIDE_IP}/").split()[0] == "192.0.2.11"
    assert curl(node, f"http://[{OUTSIDE_IP6}]/").split()[0] == "2001:db8:0:1::11"
    assert len(curl(node, f"http://{OUTSIDE_IP}/bytes/70000")) == 70000
    ask = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(10);"
        f"s.sendto(b'ask', ('{OUTSIDE_IP}', {ECHO_PORT})); print(s.recv(99).decode(), s.getsockname()[1])"
    )
    address, seen_port, said, own_port = node.run([sys.executable, "-c", ask]).stdout.split()
    assert (address, said) == ("192.0.2.11", "ask") and seen_port == own_port


def test_two_nodes_and_their_pod_routes_reach_each_other(fabric: Fabric) -> None:
    first, second = fabric.add_node(1), fabric.add_node(2)
    second.run("ip link add pod0 type bridge; ip address add 10.244.2.5/24 dev pod0; ip link set pod0 up")
    fabric.route_pods("10.244.2.0/24", 2)
    first.run(["ping", "-c1", "-W5", "192.0.2.12"])
    first.run(["ping", "-c1", "-W5", "2001:db8:0:1::12"])
    fabric.outside.run(["ping", "-c1", "-W5", "10.244.2.5"])


def test_a_chain_of_reference_plugins_gives_a_pod_both_families_and_its_bandwidth(node: Node, fabric: Fabric) -> None:
    chain = Chain(node, CONFLIST)
    netns = node.add_pod_netns("pod1")
    result = chain.add("c1", netns, runtime_config=BANDWIDTH)
    assert [ip["address"] for ip in result["ips"]] == ["10.244.1.2/24", "fd00:10:244:1::2/64"]
    fabric.route_pods("10.244.1.0/24", 1)
    assert curl(node, f"http://{OUTSIDE_IP}/", pod="pod1").split()[0] == "10.244.1.2"
    assert "tbf" in node.run(["tc", "qdisc"]).stdout
    chain.check("c1", netns, runtime_config=BANDWIDTH)
    assert any("10.244.1.2" in fact for fact in residue(node))
    chain.delete("c1", netns)
    chain.delete("c1", netns)
    assert residue(node) == []
    assert missing(node) == []


def test_runtime_configuration_reaches_only_the_plugin_that_declared_it(node: Node) -> None:
    chain = Chain(node, {**CONFLIST, "plugins": [PTP, {"type": "bandwidth"}]})
    chain.add("c1", node.add_pod_netns("pod1"), runtime_config=BANDWIDTH)
    assert "tbf" not in node.run(["tc", "qdisc"]).stdout
    chain.delete("c1", "")
    assert residue(node) != [], "without its netns ptp cannot find the veth: the laboratory must notice"
    node.del_pod_netns("pod1")
    while "veth" in node.run(["ip", "link"]).stdout:  # the kernel dismantles a namespace a little later
        time.sleep(0.01)
    assert residue(node) == []


def test_a_failure_carries_the_cni_code(node: Node) -> None:
    conf = {**PTP, "cniVersion": "1.0.0", "name": "pods"}
    with pytest.raises(CniFailure) as failure:
        Cni(node, "ptp").add({**conf, "ipam": {"type": "host-local"}}, "c1", node.add_pod_netns("pod1"))
    assert failure.value.code == 999 and failure.value.exit == 1 and "IP range" in failure.value.msg
    with pytest.raises(CniFailure) as failure:
        Cni(node, "ptp").add(conf, "c1", "", CNI_COMMAND="ADD")
    assert failure.value.code == 4 and "CNI_NETNS" in failure.value.msg
    assert "1.0.0" in Cni(node, "ptp").version()["supportedVersions"]
    with pytest.raises(FileNotFoundError):
        Cni(node, "no-such-plugin").version()


@pytest.mark.parametrize(
    ("deed", "seen"),
    [
        ("ip link add bp0123456789a type veth peer name other", "device bp0123456789a"),
        ("ip route add 10.244.1.9/32 dev eth0", "route"),
        ("ip -6 route add blackhole fd00::/64", "blackhole fd00::/64"),
        ("ip rule add from 10.244.1.9 lookup 77", "rule"),
        ("ip address add 192.0.2.99/24 dev eth0", "address 192.0.2.99/24 on eth0"),
        ("ip neigh add 192.0.2.98 lladdr 02:00:00:00:00:01 dev eth0 nud permanent", "permanent neighbour 192.0.2.98"),
        ("tc qdisc add dev eth0 root tbf rate 1mbit burst 10k latency 1ms", "qdisc tbf"),
        ("tc qdisc add dev eth0 clsact; tc filter add dev eth0 egress bpf bytecode '1,6 0 0 0'", "tc filter bpf"),
        ("nft add table inet bypath_test", "nft table inet bypath_test"),
        ("echo x > /run/bypath/eth0.qdiscs", "file /run/bypath/eth0.qdiscs"),
        ("mkdir -p /var/lib/cni/networks/pods; echo c1 > /var/lib/cni/networks/pods/10.244.1.2", "pods/10.244.1.2"),
        (
            "mkdir -p /sys/fs/bpf/bypath/snat; bpftool map create /sys/fs/bpf/bypath/snat/attachments"
            " type hash key 4 value 4 entries 8 name attachments;"
            " bpftool map update pinned /sys/fs/bpf/bypath/snat/attachments key 1 2 3 4 value 0 0 0 0",
            "entry 01020304 in /sys/fs/bpf/bypath/snat/attachments",
        ),
        (
            "mkdir -p /sys/fs/bpf/bypath/bandwidth-edt; bpftool map create /sys/fs/bpf/bypath/bandwidth-edt/edt_slots"
            " type array key 4 value 20 entries 4 name edt_slots; bpftool map update pinned"
            " /sys/fs/bpf/bypath/bandwidth-edt/edt_slots"
            " key 2 0 0 0 value 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 7 0 0 0",
            "slot of 0102030405060708090a0b0c0d0e0f10 in /sys/fs/bpf/bypath/bandwidth-edt/edt_slots",
        ),
    ],
)
def test_residue_sees(node: Node, deed: str, seen: str) -> None:
    assert residue(node) == []
    node.run(deed)
    assert any(seen in fact for fact in residue(node)), residue(node)
    remember(node)
    assert residue(node) == []


def test_an_empty_pinned_map_is_no_residue(node: Node) -> None:
    node.run(
        "mkdir -p /sys/fs/bpf/bypath/snat; touch /run/bypath/snat.lock; bpftool map create"
        " /sys/fs/bpf/bypath/snat/attachments type hash key 4 value 4 entries 8 name attachments"
    )
    assert residue(node) == []


def test_nothing_outlives_a_test_process_that_is_killed() -> None:
    program = (
        "import sys, time\nfrom tests.lab.fabric import Fabric\n"
        "with Fabric.create() as fabric:\n"
        "    node = fabric.add_node(1)\n    child = node.popen('sleep 600')\n"
        "    print(node.pid, child.pid, fabric.outside.pid, flush=True)\n    time.sleep(600)\n"
    )
    victim = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=os.getcwd())
    assert victim.stdout
    with victim, victim.stdout:
        pids = [int(pid) for pid in victim.stdout.readline().split()]
        assert len(pids) == 3 and all(Path(f"/proc/{pid}").exists() for pid in pids)
        victim.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def test_nothing_is_started_for_a_process_that_is_dead_already(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    start = f'"$0" "$PPID" touch {mark}; test $? = 125'
    subprocess.run(["sh", "-c", start, tied()[0]], check=True)
    assert not mark.exists()
    subprocess.run([*tied(), "touch", str(mark)], check=True)
    assert mark.exists()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
