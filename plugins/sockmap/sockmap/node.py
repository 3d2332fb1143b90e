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
from bpf.sockets import CgroupLink, SocketPrograms, root_cgroup, short_id
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
_OF_PODS = "sm_pod_ops"
_SLICE = ".slice"


def link_at(cgroup_id: int) -> CgroupLink:
    """Of all pods of that cgroup, one as a rule."""
    return CgroupLink(PLUGIN, _OF_PODS, str(cgroup_id))


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


def attach(cgroup: str) -> int:
    """What a pod of this cgroup needs; of none: empty. Returns what its policy says of that: its id, 0 for the root."""
    PROGRAMS.attach_to_map()
    if not cgroup:
        PROGRAMS.entry.attach(root_cgroup())
        return 0
    cgroup_id = short_id(cgroup)
    link_at(cgroup_id).attach(cgroup)
    return cgroup_id


def faults(cgroup: str) -> list[str]:
    """For CHECK: what is not as `attach` left it, as sentences."""
    if cgroup:
        return link_at(short_id(cgroup)).faults(cgroup, f"the pod's cgroup {cgroup}") + PROGRAMS.map_faults()
    return PROGRAMS.faults()


def keep_links(cgroup_ids: Collection[int]) -> None:
    """On these cgroups only, as policies name them."""
    attempts = Attempts()
    for name in bpffs.list_directory(pins.links_directory(PLUGIN)):
        place = name.removeprefix(f"{_OF_PODS}-")
        link = PROGRAMS.entry if place == name else link_at(int(place))
        if (0 if place == name else int(place)) not in cgroup_ids:
            attempts.run(link.detach)
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
