# SPDX-License-Identifier: Apache-2.0
"""`bypath sockmap`: which pods are accelerated and what came of it, and whether this kernel may do it at all."""

from __future__ import annotations

import json
import platform
import resource
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import click
from sockmap import layout, node, policy, verdict
from sockmap.layout import PLUGIN
from sockmap.pod import Maps

from bpf import command, records
from bpf.maps import Map
from bpf.records import Record
from cli import pods
from cli.quantity import bytes_text
from cni.errors import KERNEL_LACKS, CniError

_SCOPES = {layout.SIDECAR: "sidecar", layout.POD: "pod"}
_COUNTERS = layout.COUNTERS.named(bytes(layout.COUNTERS.size))
_NONE = "has a policy of bypath-sockmap; type: bypath sockmap list"
_TEST = "type: bypath sockmap test"
_NOT_JOINED = """None of its connections was joined: their other ends are not on this node, or have no policy or another
scope, or something forbids it: see docs/sockmap.md."""


class Accelerated(NamedTuple):
    """A pod that has a policy, or is about to get one or to lose it."""

    maps: Maps
    record: Record

    def facts(self) -> dict[str, Any]:
        """Of all that is known, what `list` and `show` print, and their --json. Counters are named as in the map."""
        cookie = self.record.number
        packed = self.maps.policy(cookie) or bytes(layout.POLICY.size)
        found = layout.POLICY.named(packed)
        return {
            **pods.facts(self.record),
            "netnsCookie": cookie,
            "cgroupId": found["cgroup_id"],
            "scopes": [name for bit, name in _SCOPES.items() if found["flags"] & bit],
            "limitBytes": found["limit_bytes"],
            "excludePorts": layout.ports_of(packed),
            "excludeUIDs": layout.uids_of(packed),
            "counters": self.maps.counters(cookie) or _COUNTERS,
        }


def _all() -> list[Accelerated]:
    pods.require_root()
    owned = records.open_if_any(PLUGIN)
    if owned is None:
        return []
    maps = Maps()
    return pods.in_order([Accelerated(maps, record) for _, _, record in owned.items()])


def _listing(accelerated: list[Accelerated]) -> str:
    rows = [["POD", "INTERFACE", "ADDRESSES", "SCOPES", "JOINED", "REDIRECTED", "BY TCP", "SPILLS", "PLAIN", "FAILED"]]
    for pod in accelerated:
        facts = pod.facts()
        count = facts["counters"]
        traffic = [bytes_text(count["redirected_bytes"]), bytes_text(count["passed_bytes"])]
        numbers = [str(count[name]) for name in ("spills", "skipped", "insert_fail")]
        rows.append([*pods.name(facts), ",".join(facts["scopes"]) or "-", str(count["paired"]), *traffic, *numbers])
    return pods.columns(rows)


def _policy_text(facts: dict[str, Any]) -> str:
    if not facts["scopes"]:
        return "none yet, or none any more"
    words = [
        " and ".join(facts["scopes"]),
        f"{bytes_text(facts['limitBytes'])} may wait in each direction of a connection",
    ]
    for name, key in (("ports", "excludePorts"), ("users", "excludeUIDs")):
        if facts[key]:
            words.append(f"not {name} {', '.join(map(str, facts[key]))}")
    words.append(f"seen at {'its own' if facts['cgroupId'] else 'the root'} cgroup")
    return "; ".join(words)


def _shown(facts: dict[str, Any]) -> str:
    count = facts["counters"]
    lines = [
        f"{pods.heading(facts)} (cookie {facts['netnsCookie']})",
        f"policy: {_policy_text(facts)}",
        "",
        f"  {count['paired']} sockets were joined, {count['skipped']} stayed plain, "
        f"{count['insert_fail']} found no room",
        f"  {count['redirected_msgs']} messages of {bytes_text(count['redirected_bytes'])} went past TCP",
        f"  {count['passed_msgs']} of {bytes_text(count['passed_bytes'])} of joined sockets went by TCP: "
        f"{count['fallback_conns']} directions began so, {count['spills']} times one's reader lagged",
    ]
    if facts["scopes"] and count["skipped"] and not count["paired"]:
        lines += ["", _NOT_JOINED]
    return "\n".join(lines)


def _status() -> dict[str, Any]:
    pods.require_root()
    known = verdict.known(node.OBJECT)
    fault = known or node.fault()
    found = {
        "kernel": platform.release(),
        "selfTest": "failed" if fault else "passed" if known == "" else "not made",
        "fault": fault,
        "tcpMemoryBytes": _tcp_memory_bytes(),
    }
    accelerated = _all()
    if not accelerated:
        return {**found, "pods": 0}
    sockets, sockets_max = _joined()
    return {
        **found,
        "pods": len(accelerated),
        "nodeLimitBytes": accelerated[0].maps.node_limit_bytes() or _tcp_mem_bytes(),
        "sockets": sockets,
        "socketsMax": sockets_max,
        "faults": _faults(accelerated),
    }


def _faults(accelerated: list[Accelerated]) -> list[str]:
    """What is attached no more, as sentences; CHECK knows more, since it is told which cgroup is a pod's."""
    found = node.PROGRAMS.faults() if 0 in accelerated[0].maps.cgroup_ids() else node.PROGRAMS.map_faults()
    for pod in accelerated:
        facts = pod.facts()
        if facts["cgroupId"] and not node.link_at(facts["cgroupId"]).is_attached():
            found.append(f"sm_pod_ops is not attached to the cgroup of pod {pods.name(facts)[0]}")
    return found


def _joined() -> tuple[int, int]:
    """How many sockets are joined, and how many can be. A walk whose socket goes begins anew, so it is cut short."""
    socks = Map(PLUGIN, "socks", layout.KEY.size, layout.U64.size)
    most = command.map_sizes(socks.descriptor)[2]
    return len(set(islice(command.keys(socks.descriptor, socks.key_bytes), most))), most


def _status_text(found: dict[str, Any]) -> str:
    test = {
        "passed": "has passed the self-test",
        "failed": f"cannot be trusted with redirected TCP: {found['fault']}",
        "not made": f"has not been tested since it booted; the first pod with a policy does that, or {_TEST}",
    }[found["selfTest"]]
    lines = [f"kernel {found['kernel']} {test}"]
    if not found["pods"]:
        return "\n".join([*lines, "no pod of this node has a policy, and nothing is attached"])
    limit = found["nodeLimitBytes"]
    lines += [
        f"{found['pods']} pods have a policy; {found['sockets']} sockets are joined, {found['socketsMax']} can be",
        f"TCP of the node has {bytes_text(found['tcpMemoryBytes'])} of memory; queues stop growing at "
        f"{bytes_text(limit) if limit else 'the first figure of net.ipv4.tcp_mem'}",
        *(f"{fault}; the next ADD of a pod with a policy mends it" for fault in found["faults"]),
    ]
    return "\n".join(lines)


def _tcp_memory_bytes() -> int:
    """Of all TCP sockets of the machine."""
    words = Path("/proc/net/sockstat").read_text().partition("TCP: ")[2].split()
    return int(words[words.index("mem") + 1]) * resource.getpagesize()


def _tcp_mem_bytes() -> int | None:
    """The kernel shows it in the node's own network namespace only."""
    shown = Path("/proc/sys/net/ipv4/tcp_mem")
    return int(shown.read_text().split()[0]) * resource.getpagesize() if shown.exists() else None


# Help stands in arguments: the build leaves docstrings out.
_TEST_HELP = """Try whether this kernel treats redirected bytes as programs expect, now and whatever was found before.

Takes 0.2 s, in a network namespace of its own, and changes nothing for pods that run. Pods that come later go by what
is found. The exit status is 1 when the kernel cannot be trusted."""


@click.group(help="TCP between sockets of this node, past TCP.")
def sockmap() -> None:
    pass


@sockmap.command("list", help="All pods that have a policy, and what their sockets have done.")
@pods.AS_JSON
def list_pods(as_json: bool) -> None:
    accelerated = _all()
    click.echo(json.dumps([pod.facts() for pod in accelerated], indent=2) if as_json else _listing(accelerated))


@sockmap.command(
    help="One POD, by its container id or the beginning of it: its policy, and what its sockets have done."
)
@pods.POD
@pods.INTERFACE
@pods.AS_JSON
def show(pod: str, interface: str | None, as_json: bool) -> None:
    facts = pods.pick(_all(), pod, interface, _NONE).facts()
    click.echo(json.dumps(facts, indent=2) if as_json else _shown(facts))


@sockmap.command(help="The node: whether its kernel has passed the self-test, what is attached, how much is joined.")
@pods.AS_JSON
def status(as_json: bool) -> None:
    found = _status()
    click.echo(json.dumps(found, indent=2) if as_json else _status_text(found))


@sockmap.command(help=_TEST_HELP)
def test() -> None:
    pods.require_root()
    verdict.forget()
    fault = policy.fault_of_kernel()
    if fault:
        raise CniError(KERNEL_LACKS, fault)
    click.echo(f"kernel {platform.release()} has passed: bypath-sockmap may be switched on here")
