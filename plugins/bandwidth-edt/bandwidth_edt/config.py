# SPDX-License-Identifier: Apache-2.0
"""The keys of bypath-bandwidth-edt: those of the reference `bandwidth` plugin, and what runtimes put into them.

runtimeConfig.bandwidth, which is the pod's annotation, wins over the conflist's rates, which are the node's default.
"""

from __future__ import annotations

from bandwidth_edt import layout
from cni import netconf
from cni.errors import INVALID_CONFIG, CniError
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
_LONGEST_HORIZON_NS = 2_000_000_000
_FRAMES_WITHIN_HORIZON = 4
"""Two GSO packets of the smallest size: fewer, and TCP could not even keep one waiting while another is sent."""
ECN_NS = 5_000_000
EARLY_NS = 50_000_000
"""Half the horizon: a sender that is told so late still has as much room until its packets are dropped in a row."""
_LOWEST_RATE_BITS = 8 * 1000
_ETHERNET_HEADER_BYTES = 14

ENFORCE = {"pod": layout.AT_POD, "nic": layout.AT_NIC, "both": layout.AT_POD | layout.AT_NIC}


class Limit:
    """One direction of one pod.

    key                 the name of its keys without "Rate" and "Burst", for errors
    rate_bytes_per_sec  the sustained rate, of whole frames as they are on the wire
    burst_ns            how much of unused time a bucket keeps: burst / rate
    """

    __slots__ = ("_burst_bits", "burst_ns", "key", "rate_bytes_per_sec")

    def __init__(self, key: str, rate_bits_per_sec: int, burst_bits: int | None) -> None:
        self.key = key
        self.rate_bytes_per_sec = rate_bits_per_sec // 8
        if burst_bits is None or burst_bits in _ABSENT_BURSTS or burst_bits > rate_bits_per_sec:
            self._burst_bits: int | None = None
            self.burst_ns = DEFAULT_BURST_NS
        else:
            self._burst_bits = burst_bits
            self.burst_ns = burst_bits * _NS_PER_SEC // rate_bits_per_sec

    def horizon_ns(self, mtu: int) -> int:
        """How long a packet may wait on a device of this MTU: longer for rates at which a few frames take longer.

        Raises CniError(INVALID_CONFIG) when not even one frame fits into the longest, or into the burst.
        """
        frame_bytes = mtu + _ETHERNET_HEADER_BYTES
        frame_ns = frame_bytes * _NS_PER_SEC // self.rate_bytes_per_sec
        if frame_ns > _LONGEST_HORIZON_NS:
            least = -(-frame_bytes * 8 * _NS_PER_SEC // _LONGEST_HORIZON_NS)
            raise CniError(
                INVALID_CONFIG,
                f"{self.key}Rate: one frame (MTU {mtu} and {_ETHERNET_HEADER_BYTES} bytes) takes longer than 2 s; "
                f"at least {least} bit/s",
            )
        if self._burst_bits is not None and self._burst_bits < frame_bytes * 8:
            raise CniError(
                INVALID_CONFIG,
                f"{self.key}Burst: {self._burst_bits} bits are less than one frame (MTU {mtu} and "
                f"{_ETHERNET_HEADER_BYTES} bytes, {frame_bytes * 8} bits); leave it out for 10 ms of the rate",
            )
        return min(_LONGEST_HORIZON_NS, max(HORIZON_NS, _FRAMES_WITHIN_HORIZON * frame_ns))


class Config:
    """egress, ingress: None means no limit in that direction. egress_places: bits of layout.AT_*."""

    __slots__ = ("egress", "egress_places", "ingress")

    def __init__(self, conf: NetConf) -> None:
        self.egress_places = ENFORCE[netconf.optional_choice(conf.raw, "enforce", tuple(ENFORCE), "pod")]
        annotated = _in_our_case(netconf.optional_object(conf.runtime_config, "bandwidth"))
        self.egress = _limit(conf.raw, annotated, "egress")
        self.ingress = _limit(conf.raw, annotated, "ingress")

    @property
    def is_unlimited(self) -> bool:
        return not (self.egress or self.ingress)


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
    return checked_limit(f"{prefix}{direction}", rate, burst or None)


def checked_limit(key: str, rate_bits_per_sec: int, burst_bits: int | None) -> Limit:
    if rate_bits_per_sec < _LOWEST_RATE_BITS:
        text = f"{key}Rate: {rate_bits_per_sec} bit/s is too little; at least {_LOWEST_RATE_BITS}"
        raise CniError(INVALID_CONFIG, text)
    return Limit(key, rate_bits_per_sec, burst_bits)


def _bits(where: dict[str, Any], key: str, prefix: str) -> int | None:
    try:
        return netconf.optional_int(where, key, 0, 0xFFFFFFFFFFFFFFFF if key.endswith("Burst") else _MAX_INT64)
    except CniError as error:
        raise CniError(error.code, prefix + error.msg) from None
