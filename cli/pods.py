# SPDX-License-Identifier: Apache-2.0
"""Pods as an operator names them and sees them, whatever the command is about."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import click

from bpf.records import Record
from cni.errors import UNKNOWN_CONTAINER, CniError
from cni.net import ipaddr

_SHORT_ID = 12

POD = click.argument("pod")
INTERFACE = click.option("--interface", metavar="NAME", help="Of a pod that has several in the list.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")


class Known(Protocol):
    """What a command knows of a pod."""

    @property
    def record(self) -> Record: ...


KnownPod = TypeVar("KnownPod", bound=Known)


def require_root() -> None:
    """Without it pins look as if they were not there."""
    if os.geteuid():
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def in_order(known: Sequence[KnownPod]) -> list[KnownPod]:
    return sorted(known, key=lambda pod: (pod.record.container_id, pod.record.ifname))


def pick(known: Sequence[KnownPod], container_id: str, interface: str | None, none: str) -> KnownPod:
    """The pod whose id begins so. Raises CniError when there is more than one, or none, which `none` says."""
    ids = [pod for pod in known if pod.record.container_id.startswith(container_id)]
    found = [pod for pod in ids if interface in (None, pod.record.ifname)]
    if len(found) == 1:
        return found[0]
    if found:
        those = ", ".join(f"{pod.record.container_id} {pod.record.ifname}" for pod in found)
        raise CniError(UNKNOWN_CONTAINER, f"{container_id} is not one pod but several: {those}; see --interface")
    raise CniError(UNKNOWN_CONTAINER, f"no pod {container_id} {none}")


def facts(record: Record) -> dict[str, Any]:
    """What every --json has of a pod."""
    return {
        "containerId": record.container_id,
        "interface": record.ifname,
        "netns": record.netns_path,
        "addresses": [ipaddr.text_of(packed) for packed in record.addresses],
    }


def name(of_pod: dict[str, Any]) -> list[str]:
    """The first three columns of a list."""
    return [of_pod["containerId"][:_SHORT_ID] or "(a long id)", of_pod["interface"], " ".join(of_pod["addresses"])]


def heading(of_pod: dict[str, Any]) -> str:
    where = f"{of_pod['interface']} in {of_pod['netns']}"
    return f"pod {of_pod['containerId']}, {where}: {' '.join(of_pod['addresses'])}"


def columns(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
