# SPDX-License-Identifier: Apache-2.0
"""Programs of several plugins on one hook of one device: TCX where the kernel has it, clsact elsewhere."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import pytest

from tests.kernels import probes
from tests.lab import hooks
from tests.lab.node import Node
from tests.plugins import attach_hooks
from tests.plugins.rooms import Room

pytestmark = pytest.mark.feature("hook order")
DEVICE = "shared0"
EGRESS = ["snat:nic_out:egress", "snat:pod_out:egress", "bandwidth-edt:edt_pod_in:egress"]
"""In the order in which they have to run."""
LINKS = "/sys/fs/bpf/bypath/snat/links/* /sys/fs/bpf/bypath/bandwidth-edt/links/*"
REPO = Path(__file__).resolve().parents[2]


def attach(room: Room, *words: str) -> None:
    room.node.run([sys.executable, str(Path(attach_hooks.__file__)), DEVICE, *words])


def names(node: Node, direction: str) -> list[str]:
    """Of the programs on one hook of the device, in the order in which they run."""
    if probes.has("tcx"):
        script = f"import json; from tests.lab import hooks; print(json.dumps({hooks.attached.__name__}()))"
        script = script.replace("(attached", "(hooks.attached")
        found = json.loads(node.run(["env", f"PYTHONPATH={REPO}", sys.executable, "-c", script]).stdout)
        ids = [program for device, side, program, _ in found if device == DEVICE and side == direction]
        return [json.loads(node.run(f"bpftool -j prog show id {number}").stdout)["name"] for number in ids]
    filters = json.loads(node.run(f"tc -j filter show dev {DEVICE} {direction}").stdout or "[]")
    return [entry["options"]["bpf_name"] for entry in filters if "bpf_name" in entry.get("options", {})]


@pytest.fixture
def device(room: Room) -> Room:
    room.node.run(f"ip link add {DEVICE} type veth peer name shared1; ip link set {DEVICE} up; ip link set shared1 up")
    room.node.run(f"tc qdisc show dev {DEVICE} > /run/before")
    return room


def remove(room: Room, *words: str) -> None:
    """Detach, see that the device is as it was, and take it away."""
    attach(room, *words)
    assert names(room.node, "egress") == names(room.node, "ingress") == []
    assert room.node.run(f"tc qdisc show dev {DEVICE}").stdout == room.node.run("cat /run/before").stdout
    room.node.run(f"ip link del {DEVICE}; rm /run/before")


@pytest.mark.parametrize("arrival", list(itertools.permutations(range(3))), ids=str)
def test_the_order_is_the_same_whichever_program_came_first(device: Room, arrival: tuple[int, ...]) -> None:
    attach(device, *("+" + EGRESS[place] for place in arrival))
    assert names(device.node, "egress") == ["nic_out", "pod_out", "edt_pod_in"]
    remove(device, *("-" + word for word in EGRESS))


@pytest.mark.parametrize("arrival", list(itertools.permutations(range(3))), ids=str)
def test_a_redirect_is_last_on_ingress_behind_foreign_programs_and_the_translation_first(
    device: Room, arrival: tuple[int, ...]
) -> None:
    words = ["+snat:nic_in:ingress", "=snat:nic_out:ingress", "+bandwidth-edt:edt_to_ifb:ingress"]
    if arrival.index(1) > arrival.index(2):
        words[1] = "+snat:pod_in:ingress"  # a foreign one that comes after the redirect stays behind it
    attach(device, *(words[place] for place in arrival))
    middle = words[1].split(":")[1]
    assert names(device.node, "ingress") == ["nic_in", middle, "edt_to_ifb"]
    device.node.run(f"ip link del {DEVICE}; rm -rf /run/before /sys/fs/bpf/foreign {LINKS} /run/bypath/clsact-*")


def test_attaching_twice_changes_nothing(device: Room) -> None:
    attach(device, "+snat:nic_in:ingress", "+snat:nic_out:egress")
    attach(device, "+snat:nic_in:ingress", "+snat:nic_out:egress")
    assert (names(device.node, "ingress"), names(device.node, "egress")) == (["nic_in"], ["nic_out"])
    remove(device, "-snat:nic_in:ingress", "-snat:nic_out:egress")


def test_a_clsact_and_filter_of_somebody_else_stay(device: Room) -> None:
    attach(device, "+snat:pod_out:egress", "-snat:pod_out:egress")
    pinned = "/sys/fs/bpf/bypath/snat/pod_out"
    device.node.run(
        f"tc qdisc add dev {DEVICE} clsact;"
        f" tc filter add dev {DEVICE} egress pref 7 protocol all bpf da pinned {pinned}"
    )
    before = device.node.run(f"tc qdisc show dev {DEVICE}; tc filter show dev {DEVICE} egress").stdout
    attach(device, "+snat:nic_in:ingress", "+snat:nic_out:egress")
    attach(device, "-snat:nic_in:ingress", "-snat:nic_out:egress")
    assert device.node.run(f"tc qdisc show dev {DEVICE}; tc filter show dev {DEVICE} egress").stdout == before
    device.node.run(f"ip link del {DEVICE}; rm /run/before")
