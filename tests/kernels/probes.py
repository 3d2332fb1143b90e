# SPDX-License-Identifier: Apache-2.0
"""What the running kernel can do, found out by trying it in a scratch network namespace."""

from __future__ import annotations

import functools
import pathlib
import subprocess
import sys

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
VETH = "ip link add va type veth peer name vb"

# Each script runs in a fresh network and mount namespace and exits 0 exactly when the kernel has the feature.
# Creating the thing autoloads its module, so what is built as a module counts as present.
SCRIPTS: dict[str, str] = {
    "veth": VETH,
    "bridge": "ip link add name bridge0 type bridge",
    "dummy": "ip link add name dummy0 type dummy",
    "ifb": "ip link add name ifb9 type ifb",
    "bond": "ip link add name bond9 type bond",
    "vlan": f"{VETH} && ip link add link va name v type vlan id 5",
    "vxlan": "ip link add name vxlan0 type vxlan id 5 dstport 4789 local 127.0.0.1",
    "ipvlan": f"{VETH} && ip link add link va name i type ipvlan mode l2",
    "ipvlan l3s": f"{VETH} && ip link add link va name i type ipvlan mode l3s",
    "macvlan": f"{VETH} && ip link add link va name m type macvlan mode bridge",
    "netkit": "ip link add name netkit0 type netkit",
    "fq": f"{VETH} && tc qdisc add dev va root fq",
    "fq_codel": f"{VETH} && tc qdisc add dev va root fq_codel",
    "tbf": f"{VETH} && tc qdisc add dev va root tbf rate 1mbit burst 10kb latency 10ms",
    "clsact": f"{VETH} && tc qdisc add dev va clsact",
    "tcx": f"{sys.executable} -m tests.kernels.tcx",
    "sockmap": f"ip link set lo up && make -s build/tests/probe.bpf.o && {sys.executable} -m tests.sockmap.probe",
    "nf_tables": "nft add table inet t",
    "conntrack": "nft add table ip t && nft add chain ip t c '{ type filter hook output priority 0; }' && "
    "nft add rule ip t c ct state new accept",
    "nat": "nft add table ip t && nft add chain ip t c '{ type nat hook postrouting priority 100; }' && "
    "nft add rule ip t c masquerade",
    "overlay": "mount -t tmpfs none /mnt && mkdir /mnt/a /mnt/b /mnt/w /mnt/o && "
    "mount -t overlay -o lowerdir=/mnt/a,upperdir=/mnt/b,workdir=/mnt/w none /mnt/o",
}


class UnknownFeature(Exception):
    """A test needs a kernel feature that no probe knows."""


@functools.cache
def has(feature: str) -> bool:
    """Whether the running kernel has `feature`; tried once a process. Raises UnknownFeature without a probe for it."""
    if feature not in SCRIPTS:
        raise UnknownFeature(f"no probe for the kernel feature {feature!r}; known: {', '.join(sorted(SCRIPTS))}")
    argv = ["unshare", "--net", "--mount", "sh", "-c", SCRIPTS[feature]]
    return subprocess.run(argv, cwd=CHECKOUT, capture_output=True, check=False, timeout=120).returncode == 0
