# SPDX-License-Identifier: Apache-2.0
"""The programs: on the map of sockets, on the cgroups of pods that have one of their own, or on the root of all.

The first pod that needs one of them has it attached, the last one takes it away again. On the root it is asked about
all connections of the node, which costs those of other processes twice what they pay for programs on the cgroups of
others (docs/design/0013).
"""

from __future__ import annotations

import posix

from bpf import bpffs, pins
from bpf.loader import Object
from bpf.sockets import CgroupLink, SocketPrograms, root_cgroup
from cni.errors import CniError
from cni.undo import Attempts
from sockmap.layout import PLUGIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

_BTF = "/sys/kernel/btf/vmlinux"
OBJECT = Object(
    PLUGIN,
    "sockmap.bpf.o",
    ("pods", "pod_ips", "node", "counters", "socks", "hints", "half", "seen_seq", "state"),
    ("sm_ops", "sm_pod_ops", "sm_msg", "sm_skb"),
)
PROGRAMS = SocketPrograms(PLUGIN, "socks", "sm_ops", "sm_msg", "sm_skb")
_OF_A_POD = "sm_pod_ops"
_SLICE = ".slice"


def link_of_pod(cookie: int) -> CgroupLink:
    return CgroupLink(PLUGIN, _OF_A_POD, str(cookie))


def cgroup_of(named: str) -> str:
    """The directory of the cgroup that a runtime names for a pod, by its path or by systemd's name of a slice.

    Empty when it names none, or one that cgroup v2 does not have: then the pod is seen from the root.
    """
    parts = named.strip("/").split("/")
    if not parts[-1] or ".." in parts:
        return ""
    if parts[-1].endswith(_SLICE):
        # systemd.slice(5): a-b.slice is in a.slice.
        words = parts[-1].removesuffix(_SLICE).split("-")
        parts = ["-".join(words[:count]) + _SLICE for count in range(1, len(words) + 1)]
    directory = "/".join([root_cgroup(), *parts])
    return directory if bpffs.exists(f"{directory}/cgroup.procs") else ""


def attach(cookie: int, cgroup: str) -> None:
    """What the pod needs. cgroup: its own, or empty."""
    PROGRAMS.attach_to_map()
    if cgroup:
        link_of_pod(cookie).attach(cgroup)
    else:
        PROGRAMS.entry.attach(root_cgroup())


def faults(cookie: int, cgroup: str) -> list[str]:
    """For CHECK: what is not as `attach` left it, as sentences."""
    if cgroup:
        return link_of_pod(cookie).faults(cgroup, f"the pod's cgroup {cgroup}") + PROGRAMS.map_faults()
    return PROGRAMS.faults()


def keep_links(cookies: Collection[int]) -> None:
    """Of these pods only; the root's stays as it is."""
    attempts = Attempts()
    for name in bpffs.list_directory(pins.links_directory(PLUGIN)):
        place = name.removeprefix(f"{_OF_A_POD}-")
        if place != name and int(place) not in cookies:
            attempts.run(link_of_pod(int(place)).detach)
    attempts.finish()


def fault() -> str:
    """What can be seen to be missing without a test, as a sentence; empty when nothing is."""
    if not bpffs.exists(_BTF):
        return f"kernel {posix.uname().release} does not describe its types: {_BTF} is missing (CONFIG_DEBUG_INFO_BTF)"
    try:
        root_cgroup()
    except CniError as error:
        return error.msg
    return ""
