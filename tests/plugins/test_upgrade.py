# SPDX-License-Identifier: Apache-2.0
"""Another build of bypath on a node with pods: programs are replaced in place, maps and flows stay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.lab.executable import DIST, Chain, Cni
from tests.lab.fabric import OUTSIDE_IP, Fabric
from tests.lab.node import Node
from tests.lab.residue import residue

pytestmark = pytest.mark.feature("upgrade")
CHAIN: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bypath-host-gw",
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.244.1.0/24"}]],
                "dataDir": "/var/lib/cni/networks",
            },
        },
        {"type": "bypath-snat", "nonMasqueradeCIDRs": ["10.244.0.0/16", "192.0.2.0/24"]},
    ],
}


@pytest.fixture
def other_build(tmp_path: Path) -> Path:
    """The same programs under another hash, as if one instruction had changed."""
    made = tmp_path / "bypath"
    shutil.copytree(DIST, made)
    digest = made / "bpf/snat.sha256"
    text = digest.read_text().strip()
    digest.write_text(text[::-1] if text[::-1] != text else "0" * 64)
    return made


def ids(node: Node, kind: str, *names: str) -> list[int]:
    pins = [f"/sys/fs/bpf/bypath/snat/{name}" for name in names]
    return [int(json.loads(node.run(f"bpftool -j {kind} show pinned {pin}").stdout)["id"]) for pin in pins]


def seen_outside(node: Node, pod: str) -> str:
    return node.pod_run(pod, ["curl", "-sS", "-m", "20", f"http://{OUTSIDE_IP}/"]).stdout.split()[0]


def test_a_new_build_replaces_the_programs_and_keeps_maps_and_sessions(
    fabric: Fabric, node: Node, other_build: Path
) -> None:
    node.sysctl("net.ipv4.ip_forward", "1")
    chain = Chain(node, CHAIN)
    first, second = node.add_pod_netns("first"), node.add_pod_netns("second")
    chain.add("c1", first)
    assert seen_outside(node, "first") == "192.0.2.11"
    maps = ids(node, "map", "pods", "fwd", "rev", "networks", "attachments")
    programs = ids(node, "prog", "nic_in", "nic_out", "pod_in", "pod_out")
    sessions = node.run("bpftool -j map dump pinned /sys/fs/bpf/bypath/snat/fwd").stdout

    upgraded = Chain(node, CHAIN)
    result = Cni(node, "bypath-host-gw").add(
        {**CHAIN["plugins"][0], "name": "pods", "cniVersion": "1.0.0"}, "c2", second
    )
    newer = Cni(node, "bypath-snat")
    newer.path = [str(other_build), *newer.path]
    newer.add({**CHAIN["plugins"][1], "name": "pods", "cniVersion": "1.0.0", "prevResult": result}, "c2", second)
    upgraded.cache["c2", "eth0"] = result

    assert ids(node, "map", "pods", "fwd", "rev", "networks", "attachments") == maps
    replaced = ids(node, "prog", "nic_in", "nic_out", "pod_in", "pod_out")
    assert not set(replaced) & set(programs)
    assert json.loads(sessions)[0] in json.loads(
        node.run("bpftool -j map dump pinned /sys/fs/bpf/bypath/snat/fwd").stdout
    )
    assert seen_outside(node, "first") == seen_outside(node, "second") == "192.0.2.11"
    running = node.run("bpftool -j prog show").stdout
    assert {entry["id"] for entry in json.loads(running)} & set(programs) == set(), (
        "an old program still runs somewhere"
    )

    newer.delete({**CHAIN["plugins"][1], "name": "pods", "cniVersion": "1.0.0"}, "c2", second)
    Cni(node, "bypath-host-gw").delete({**CHAIN["plugins"][0], "name": "pods", "cniVersion": "1.0.0"}, "c2", second)
    newer.delete({**CHAIN["plugins"][1], "name": "pods", "cniVersion": "1.0.0"}, "c1", first)
    Cni(node, "bypath-host-gw").delete({**CHAIN["plugins"][0], "name": "pods", "cniVersion": "1.0.0"}, "c1", first)
    assert residue(node) == []
