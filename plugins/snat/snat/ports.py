# SPDX-License-Identifier: Apache-2.0
"""Which source ports translated connections may have: none that the node's own sockets pick by themselves."""

from __future__ import annotations

from cni.errors import INVALID_CONFIG, CniError
from cni.net import sysctl

_LOWEST = 1024
_HIGHEST = 65535
_NODE_PORTS = (30000, 32767)
"""kube-apiserver's default --service-node-port-range. Only the default range avoids it: a cluster may have another."""
_LOCAL_RANGE = "net.ipv4.ip_local_port_range"
_RESERVED = "net.ipv4.ip_local_reserved_ports"


def configured(text: str) -> tuple[int, int]:
    """(first, last) of `portRange`, or of the largest span that is free by the node's settings when it is empty.

    Raises CniError(INVALID_CONFIG) when it is not a range, or the node's own sockets may pick ports of it.
    """
    local = _local_range()
    if not text:
        return _largest_gap([local, _NODE_PORTS])
    first_text, dash, last_text = text.partition("-")
    if not (dash and _is_port(first_text) and _is_port(last_text) and int(first_text) <= int(last_text)):
        raise CniError(INVALID_CONFIG, f'portRange: {text!a} must be "first-last", two ports such as "1024-29999"')
    first, last = int(first_text), int(last_text)
    if first <= local[1] and local[0] <= last and not _is_reserved(max(first, local[0]), min(last, local[1])):
        raise CniError(
            INVALID_CONFIG,
            f"portRange: {text} overlaps {_LOCAL_RANGE} {local[0]}-{local[1]}, from which the node's own connections "
            f"take their ports; choose another range, or type: sysctl -w {_RESERVED}={text}",
        )
    return first, last


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= _HIGHEST


def _local_range() -> tuple[int, int]:
    low, _, high = (sysctl.read(_LOCAL_RANGE) or "32768\t60999").partition("\t")
    return int(low), int(high)


def _not_for_sockets() -> list[tuple[int, int]]:
    """ip_local_reserved_ports: spans that the kernel never picks for a socket."""
    spans = []
    for part in (sysctl.read(_RESERVED) or "").split(","):
        low, _, high = part.strip().partition("-")
        if low:
            spans.append((int(low), int(high or low)))
    return spans


def _is_reserved(first: int, last: int) -> bool:
    return any(low <= first and last <= high for low, high in _not_for_sockets())


def _largest_gap(taken: list[tuple[int, int]]) -> tuple[int, int]:
    best, start = (0, -1), _LOWEST
    for low, high in [*sorted(taken), (_HIGHEST + 1, _HIGHEST + 1)]:
        if low - 1 - start > best[1] - best[0]:
            best = (start, low - 1)
        start = max(start, high + 1)
    if best[1] - best[0] < 63:
        raise CniError(
            INVALID_CONFIG, f"portRange: {_LOCAL_RANGE} leaves no 64 free ports; set portRange, or narrow that setting"
        )
    return best
