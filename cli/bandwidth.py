# SPDX-License-Identifier: Apache-2.0
"""`bypath bandwidth`: the limits of the pods of this node, what they do, and other ones for a pod that runs."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import click
from bandwidth_edt import layout, limits, saved
from bandwidth_edt.bucket import Buckets, Setting
from bandwidth_edt.config import ENFORCE, checked_limit
from bandwidth_edt.layout import PLUGIN

from bpf import records
from bpf.records import Record, Records
from cli import pods
from cli.quantity import Bits, bits_text, time_text

_DIRECTIONS = {"egress": layout.EGRESS, "ingress": layout.INGRESS}
_PLACES = {places: name for name, places in ENFORCE.items()} | {layout.AT_IFB: "ifb"}
_BAR = 40
_NONE = (
    "has limits; type: bypath bandwidth list. Only pods that got some from their runtime, by annotations or by the "
    "conflist, can be given others"
)


class Limited(NamedTuple):
    """A pod that has limits, or had some: its record, and the keys that this is found by."""

    owned: Records
    buckets: Buckets
    network_key: int
    key: int
    record: Record

    def setting(self, direction: str) -> Setting | None:
        return self.buckets.get(self.record.number, _DIRECTIONS[direction])

    def facts(self) -> dict[str, Any]:
        """Of all that is known, what `list` and `show` print, and their --json."""
        record = self.record
        found = {direction: setting for direction in _DIRECTIONS if (setting := self.setting(direction))}
        return {
            **pods.facts(record),
            **{direction: self._limit_facts(direction, setting) for direction, setting in found.items()},
        }

    def _limit_facts(self, direction: str, setting: Setting) -> dict[str, Any]:
        counters = self.buckets.counters(self.record.number, _DIRECTIONS[direction])
        delays = list(layout.HIST.unpack(counters["hist"]))
        return {
            "rate": setting.rate_bytes_per_sec * 8,
            "burstNs": setting.burst_ns,
            "horizonNs": setting.horizon_ns,
            "at": _PLACES[setting.places],
            "bytes": counters["bytes"],
            "packets": sum(delays),
            "delayed": counters["delayed"],
            "passed": counters["bypass"],
            "marked": counters["ce"],
            "dropped": counters["drop"],
            "maxDelayNs": counters["max_delay_ns"],
            "delays": delays,
        }


def _all() -> list[Limited]:
    pods.require_root()
    owned = records.open_if_any(PLUGIN)
    if owned is None:
        return []
    buckets = Buckets(PLUGIN)
    return pods.in_order([Limited(owned, buckets, *keys_and_record) for keys_and_record in owned.items()])


def _one(container_id: str, interface: str | None) -> Limited:
    return pods.pick(_all(), container_id, interface, _NONE)


def _limit_text(limit: dict[str, Any] | None) -> str:
    return f"{bits_text(limit['rate'])}, burst {time_text(limit['burstNs'])}, at {limit['at']}" if limit else "-"


def _listing(limited: list[Limited]) -> str:
    rows = [["POD", "INTERFACE", "ADDRESSES", "EGRESS", "INGRESS"]]
    for pod in limited:
        facts = pod.facts()
        rows.append([*pods.name(facts), *(_limit_text(facts.get(direction)) for direction in _DIRECTIONS)])
    return pods.columns(rows)


def _delays_text(delays: list[int]) -> str:
    """A row for each delay up to the longest that a packet had."""
    last = max((place for place, count in enumerate(delays) if count), default=0)
    rows = []
    for place, count in enumerate(delays[: last + 1]):
        most = time_text(1 << layout.HIST_SHIFT + place)
        until = f"< {most}" if place < len(delays) - 1 else "longer"
        rows.append([f"  {until}", str(count), "█" * round(_BAR * count / max(delays)) if count else ""])
    return pods.columns(rows)


def _shown(facts: dict[str, Any]) -> str:
    lines = [pods.heading(facts)]
    for direction in _DIRECTIONS:
        limit = facts.get(direction)
        lines += ["", f"{direction}: {_limit_text(limit)}"]
        if limit:
            lines += [
                f"  {limit['packets']} packets of {limit['bytes']} bytes went, {limit['delayed']} of them later than "
                f"they came, by {time_text(limit['maxDelayNs'])} at most",
                f"  {limit['passed']} went ahead as sparse, {limit['marked']} marked CE, {limit['dropped']} dropped",
                "  packets by delay:",
                _delays_text(limit["delays"]),
            ]
    return "\n".join(lines)


# Help stands in arguments: the build leaves docstrings out.
_CHANGE_HELP = """Other limits for POD, which has some: in force from its next packet on.

A direction that is not named keeps its limit, and every bucket its clock and counters. The next ADD of this pod by its
runtime puts its own limits in force again, and until then CHECK says that they are not."""
_RELEASE_HELP = """Give the NICs' qdiscs back that no pod needs any more, now instead of later: before an uninstall.

What pods with limits at the NIC still need stays, and is counted."""


@click.group(help="Bandwidth limits of this node's pods.")
def bandwidth() -> None:
    pass


@bandwidth.command("list", help="All pods that have limits.")
@pods.AS_JSON
def list_pods(as_json: bool) -> None:
    limited = _all()
    click.echo(json.dumps([pod.facts() for pod in limited], indent=2) if as_json else _listing(limited))


@bandwidth.command(help="One POD, by its container id or the beginning of it: its limits, and what its packets met.")
@pods.POD
@pods.INTERFACE
@pods.AS_JSON
def show(pod: str, interface: str | None, as_json: bool) -> None:
    facts = _one(pod, interface).facts()
    click.echo(json.dumps(facts, indent=2) if as_json else _shown(facts))


@bandwidth.command("set", help=_CHANGE_HELP)
@pods.POD
@pods.INTERFACE
@click.option("--egress", type=Bits(or_none=True), help="Bits per second out of the pod, or none.")
@click.option("--egress-burst", type=Bits(), help="Without it 10 ms of the rate.")
@click.option("--ingress", type=Bits(or_none=True), help="Bits per second into the pod, or none.")
@click.option("--ingress-burst", type=Bits(), help="Without it 10 ms of the rate.")
@click.option("--enforce", type=click.Choice(list(ENFORCE)), help="Where the egress limit is kept.")
def change(
    pod: str,
    interface: str | None,
    egress: int | None,
    egress_burst: int | None,
    ingress: int | None,
    ingress_burst: int | None,
    enforce: str | None,
) -> None:
    wanted = {}
    for name, rate, burst in (("egress", egress, egress_burst), ("ingress", ingress, ingress_burst)):
        if burst is not None and not rate:
            raise click.UsageError(f"--{name}-burst needs --{name} with a rate")
        if rate is not None:
            wanted[_DIRECTIONS[name]] = checked_limit(name, rate, burst) if rate else None
    if not wanted and not enforce:
        raise click.UsageError("nothing to change: give --egress, --ingress or --enforce")
    found = _one(pod, interface)
    limits.change(found.owned, found.network_key, found.key, wanted, ENFORCE[enforce] if enforce else 0)
    click.echo(_listing([found]))


@bandwidth.command(help=_RELEASE_HELP)
def release() -> None:
    pods.require_root()
    if saved.indexes():
        limits.settle_nics(at_once=True)
    left = saved.indexes()
    if not left:
        click.echo("Nothing of bypath-bandwidth-edt is on a NIC of this node.")
        return
    needed_by = len(Buckets(PLUGIN).users(layout.AT_NIC))
    click.echo(f"NICs that keep fq from bypath: {len(left)}; pods that have a limit there: {needed_by}.")
