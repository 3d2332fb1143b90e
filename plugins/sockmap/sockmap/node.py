# SPDX-License-Identifier: Apache-2.0
"""What sockmap has once per node: the programs, on the map of sockets and on the root of the cgroup hierarchy.

The first pod with a policy has them attached, the last one takes them away again: while no pod wants them, no
connection of the node passes them.
"""

from __future__ import annotations

import posix

from bpf import bpffs
from bpf.loader import Object
from bpf.sockets import SocketPrograms, root_cgroup
from cni.errors import CniError
from sockmap.layout import PLUGIN

_BTF = "/sys/kernel/btf/vmlinux"
OBJECT = Object(
    PLUGIN,
    "sockmap.bpf.o",
    ("pods", "pod_ips", "node", "counters", "socks", "hints", "half", "seen_seq", "state"),
    ("sm_ops", "sm_msg", "sm_skb"),
)
PROGRAMS = SocketPrograms(PLUGIN, "socks", "sm_ops", "sm_msg", "sm_skb")


def fault() -> str:
    """What can be seen to be missing without a test, as a sentence; empty when nothing is."""
    if not bpffs.exists(_BTF):
        return f"kernel {posix.uname().release} does not describe its types: {_BTF} is missing (CONFIG_DEBUG_INFO_BTF)"
    try:
        root_cgroup()
    except CniError as error:
        return error.msg
    return ""
