# SPDX-License-Identifier: Apache-2.0
"""What one attachment is called: in our maps, on a device, in a MAC address.

An attachment is (network name, container id, ifname), the key that the CNI spec gives it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .request import Request

_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3
_MASK_64 = 0xFFFFFFFFFFFFFFFF

ALIAS_PREFIX = "bypath/"


def fnv1a_64(text: str) -> int:
    """FNV-1a, 64 bit, with a final mix (murmur3's fmix64) since device names keep only its upper bits."""
    value = _FNV_OFFSET
    for byte in text.encode():
        value = (value ^ byte) * _FNV_PRIME & _MASK_64
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & _MASK_64
    return value ^ value >> 33


class Attachment:
    """One interface of one container on one network.

    key           64 bit, of all three names: device names, MACs and map keys are made of it
    network_key   64 bit, of the network's name: GC touches only records that carry its own
    alias         IFLA_IFALIAS of the device, so that `ip link` tells whose it is (at most 255 bytes)
    """

    __slots__ = ("alias", "container_id", "ifname", "key", "network", "network_key")

    def __init__(self, network: str, container_id: str, ifname: str) -> None:
        self.network = network
        self.container_id = container_id
        self.ifname = ifname
        # The separator is not a legal character of any of the three.
        self.key = fnv1a_64(f"{network}\n{container_id}\n{ifname}")
        self.network_key = fnv1a_64(network)
        self.alias = f"{ALIAS_PREFIX}{network}/{container_id}/{ifname}"[:255]

    @classmethod
    def of(cls, request: Request, network: str) -> Attachment:
        return cls(network, request.container_id, request.ifname)

    def device_name(self, prefix: str) -> str:
        """<prefix> and as many hex digits of the key as fit into IFNAMSIZ - 1 = 15 bytes, 11 at most."""
        return prefix + f"{self.key:016x}"[: min(11, 15 - len(prefix))]

    def mac(self, end: int) -> bytes:
        """6 bytes, locally administered unicast; `end` tells the two ends of a veth apart (0..255)."""
        return bytes((0x0A, end)) + (self.key & 0xFFFFFFFF).to_bytes(4, "big")
