# SPDX-License-Identifier: Apache-2.0
"""Where our pins are. Paths only: nothing here touches a file.

bpffs refuses names with a dot (bpf_lookup() in kernel/bpf/inode.c), so link names are made of ids, not device names.
"""

from __future__ import annotations

BPFFS = "/sys/fs/bpf"
ROOT = f"{BPFFS}/bypath"
RUN = "/run/bypath"
"""Facts about the node that are not BPF objects, with the lifetime of a boot."""


def directory(plugin: str) -> str:
    return f"{ROOT}/{plugin}"


def links_directory(plugin: str) -> str:
    return f"{ROOT}/{plugin}/links"


def pin(plugin: str, name: str) -> str:
    """A map or a program."""
    return f"{ROOT}/{plugin}/{name}"


def link(plugin: str, program: str, place: str) -> str:
    """`place` tells the attachments of one program apart: an attachment's key, or a NIC's ifindex."""
    return f"{ROOT}/{plugin}/links/{program}-{place}"


def program_of_link(name: str) -> str:
    return name.partition("-")[0]


def is_ours(path: str) -> bool:
    """Nothing is ever removed outside our own root."""
    return path.startswith((f"{ROOT}/", f"{RUN}/")) and "/../" not in path and not path.endswith("/..")
