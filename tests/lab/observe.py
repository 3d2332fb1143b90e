# SPDX-License-Identifier: Apache-2.0
"""What a node consists of, as sentences: a program that is run inside it, and prints them as a JSON list.

Seen: devices and addresses, routes, rules, permanent neighbours, qdiscs, tc filters and TCX programs, pinned links,
per-pod records in pinned maps, files under /run/bypath, nft tables of ours, addresses that host-local reserved.
Pinned programs and node-level maps stay until uninstall, so they are not told.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bpf import command
from tests.lab import hooks

PINS = Path("/sys/fs/bpf/bypath")
PER_POD_MAPS = frozenset(
    (
        "attachments", "pods", "networks", "nomasq", "uplinks", "ip2id", "edt_ids", "edt_ifbs", "pod_ips", "counters",
    )
)  # fmt: skip
"""Pinned maps in which any entry at all needs a living pod."""
SLOT, SEVERAL = struct.Struct("=16sI"), 0xFFFFFFFF
"""struct edt_slot."""
OF_THE_BOOT = frozenset(("sockmap-selftest",))
"""Files under /run/bypath that tell of the kernel, not of a pod."""


def listing(*argv: str) -> list[Any]:
    """The JSON list that a tool prints; an empty answer is the empty list, as iproute2 prints it."""
    printed = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
    return list(json.loads(printed.strip() or "[]"))


def devices() -> Iterator[str]:
    for link in listing("ip", "-j", "-d", "address", "show"):
        name = link["ifname"]
        alias = f" ({link['ifalias']})" if "ifalias" in link else ""
        yield f"device {name}{alias}"
        for address in link["addr_info"]:
            if address["scope"] != "link" and "local" in address:  # the kernel adds fe80::/64 when it pleases
                yield f"address {address['local']}/{address['prefixlen']} on {name}"


def routes() -> Iterator[str]:
    for family in "-4", "-6":
        for route in listing("ip", "-j", family, "route", "show", "table", "all"):
            if route.get("protocol") != "kernel":
                via = route.get("gateway") or route.get("via", {}).get("host", "")
                table = route.get("table", "main")
                yield f"route {route.get('type', '')} {route['dst']} via {via} dev {route.get('dev')} table {table}"
        for rule in listing("ip", "-j", family, "rule", "show"):
            yield f"rule {family} {json.dumps(rule, sort_keys=True)}"


def neighbours() -> Iterator[str]:
    for entry in listing("ip", "-j", "neigh", "show", "nud", "permanent"):
        yield f"permanent neighbour {entry['dst']} on {entry['dev']}"
    for entry in listing("ip", "-j", "neigh", "show", "proxy"):
        yield f"proxy neighbour {entry['dst']} on {entry['dev']}"


def queues() -> Iterator[str]:
    for qdisc in listing("tc", "-j", "qdisc", "show"):
        yield f"qdisc {qdisc['kind']} {qdisc['handle']} on {qdisc['dev']} at {qdisc.get('parent', 'root')}"
        if qdisc["kind"] == "clsact":
            yield from filters(qdisc["dev"], "ingress")
            yield from filters(qdisc["dev"], "egress")
        elif qdisc["kind"] == "ingress":
            yield from filters(qdisc["dev"], "ingress")


def filters(device: str, hook: str) -> Iterator[str]:
    for entry in listing("tc", "-j", "filter", "show", "dev", device, hook):
        if "options" in entry:
            name = entry["options"].get("bpf_name", entry["kind"])
            yield f"tc filter {name} prio {entry['pref']} on {device} {hook}"


def tcx() -> Iterator[str]:
    for device, hook, program, link in hooks.attached():
        yield f"TCX program {program} (link {link}) on {device} {hook}"


def files(below: Path) -> Iterator[Path]:
    return (path for path in sorted(below.rglob("*")) if path.is_file())


def pins() -> Iterator[str]:
    for path in files(PINS):
        if "links" in path.parts:
            yield f"pinned link {path}"
        elif path.name in PER_POD_MAPS:
            with opened(path) as descriptor:
                for key in command.keys(descriptor, command.map_sizes(descriptor)[0]):
                    yield f"entry {key.hex()} in {path}"
        elif path.name == "edt_slots":
            yield from slots(path)


def slots(path: Path) -> Iterator[str]:
    """Those with one address. One that several have shared says so until the next GC."""
    with opened(path) as descriptor:
        for _, value in command.items(descriptor, 4, SLOT.size):
            addr, number = SLOT.unpack(value)
            if number not in (0, SEVERAL):
                yield f"slot of {addr.hex()} in {path}"


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = command.obj_get(str(path))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def leftovers() -> Iterator[str]:
    for path in (*files(Path("/run/bypath")), *files(Path("/var/lib/cni"))):
        is_lock = path.suffix == ".lock" or path.name == "lock"
        if not is_lock and path.name not in OF_THE_BOOT and not path.name.startswith("last_reserved_ip."):
            yield f"file {path}"
    printed = subprocess.run(["nft", "-j", "list", "tables"], check=True, stdout=subprocess.PIPE, text=True).stdout
    for item in json.loads(printed)["nftables"]:
        if "table" in item and item["table"]["name"].startswith("bypath"):
            yield f"nft table {item['table']['family']} {item['table']['name']}"


VIEWS: list[Callable[[], Iterator[str]]] = [devices, routes, neighbours, queues, tcx, pins, leftovers]


def main() -> None:
    print(json.dumps(sorted({fact for view in VIEWS for fact in view()})))


if __name__ == "__main__":
    main()
