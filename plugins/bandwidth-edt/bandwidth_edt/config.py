# SPDX-License-Identifier: Apache-2.0
"""The keys of bypath-bandwidth-edt: those of the reference `bandwidth` plugin, and what runtimes put into them.

runtimeConfig.bandwidth, which is the pod's annotation, wins over the conflist's rates, which are the node's default.
"""

from __future__ import annotations

from cni import netconf
from cni.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from cni.netconf import NetConf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KEYS = frozenset(("ingressRate", "ingressBurst", "egressRate", "egressBurst", "enforce"))

_NS_PER_SEC = 1_000_000_000
_MAX_INT64 = (1 << 63) - 1
_ABSENT_BURSTS = (0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFFFFFFFFFF, _MAX_INT64)
"""What containerd and CRI-O send as burst when the annotation had only a rate."""
DEFAULT_BURST_NS = 10_000_000
"""Enough to catch up after a stall of the CPU, too little to be seen in a second's average."""
HORIZON_NS = 100_000_000
ECN_NS = 5_000_000
_LOWEST_RATE_BITS = 8 * 1000
"""Below this one full frame takes longer than a second."""


class Limit:
    """One direction of one pod.

    rate_bytes_per_sec  the sustained rate, of whole frames as they are on the wire
    burst_ns            how much of unused time a bucket keeps: burst / rate
    """

    __slots__ = ("burst_ns", "rate_bytes_per_sec")

    def __init__(self, rate_bits_per_sec: int, burst_bits: int | None) -> None:
        self.rate_bytes_per_sec = rate_bits_per_sec // 8
        if burst_bits is None or burst_bits in _ABSENT_BURSTS or burst_bits > rate_bits_per_sec:
            self.burst_ns = DEFAULT_BURST_NS
        else:
            self.burst_ns = burst_bits * _NS_PER_SEC // rate_bits_per_sec


class Config:
    """egress, ingress: None means no limit in that direction."""

    __slots__ = ("egress", "ingress")

    def __init__(self, conf: NetConf) -> None:
        enforce = netconf.optional_choice(conf.raw, "enforce", ("pod", "nic", "both"), "pod")
        if enforce != "pod":
            raise CniError(UNSUPPORTED_FIELD, f'enforce: "{enforce}" is not supported by this version; use "pod"')
        annotated = _in_our_case(netconf.optional_object(conf.runtime_config, "bandwidth"))
        self.egress = _limit(conf.raw, annotated, "egress")
        self.ingress = _limit(conf.raw, annotated, "ingress")


def _in_our_case(annotated: dict[str, Any]) -> dict[str, Any]:
    """containerd writes EgressRate where the convention says egressRate (its go-cni has no JSON names for these
    fields), which a decoder in Go does not notice: it takes keys in any case."""
    spelled = {key.lower(): key for key in KEYS}
    return {spelled.get(key.lower(), key): value for key, value in annotated.items()}


def _limit(raw: dict[str, Any], annotated: dict[str, Any], direction: str) -> Limit | None:
    limit = _limit_in(annotated, direction, "runtimeConfig.bandwidth.")
    return limit or _limit_in(raw, direction, "")


def _limit_in(where: dict[str, Any], direction: str, prefix: str) -> Limit | None:
    """0 or null is what a runtime sends for the direction that was not annotated."""
    rate_key, burst_key = f"{direction}Rate", f"{direction}Burst"
    rate = _bits(where, rate_key, prefix)
    burst = _bits(where, burst_key, prefix)
    if not rate:
        if burst and burst not in _ABSENT_BURSTS:
            raise CniError(INVALID_CONFIG, f"{prefix}{burst_key}: set without {prefix}{rate_key}; set both, or none")
        return None
    if rate < _LOWEST_RATE_BITS:
        raise CniError(INVALID_CONFIG, f"{prefix}{rate_key}: {rate} bit/s is too little; at least {_LOWEST_RATE_BITS}")
    return Limit(rate, burst or None)


def _bits(where: dict[str, Any], key: str, prefix: str) -> int | None:
    try:
        return netconf.optional_int(where, key, 0, 0xFFFFFFFFFFFFFFFF if key.endswith("Burst") else _MAX_INT64)
    except CniError as error:
        raise CniError(error.code, prefix + error.msg) from None
