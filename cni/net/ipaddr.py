# SPDX-License-Identifier: Apache-2.0
"""IPv4 and IPv6 addresses as packed bytes (network order, 4 or 16 bytes), by inet_pton(3).

The ipaddress module costs 8 ms to import. inet_pton is as strict: no octal, no missing parts.
"""

from __future__ import annotations

import _socket

from ..errors import INVALID_CONFIG, CniError


def parse_address(text: object, what: str) -> bytes:
    """4 or 16 bytes. Raises CniError(INVALID_CONFIG) that names `what`."""
    if isinstance(text, str) and text.isascii():
        try:
            return _socket.inet_pton(_socket.AF_INET6 if ":" in text else _socket.AF_INET, text)
        except (OSError, ValueError):
            text = text[:60]
    raise CniError(INVALID_CONFIG, f"{what}: {text!a} is not an IPv4 or IPv6 address")


def parse_cidr(text: object, what: str) -> tuple[bytes, int]:
    """(address, prefix length); host bits are kept. Raises CniError(INVALID_CONFIG) that names `what`."""
    if isinstance(text, str) and text.isascii():
        address_text, slash, length_text = text.partition("/")
        if slash and length_text.isdigit() and len(length_text) <= 3:
            address = parse_address(address_text, what)
            if int(length_text) <= 8 * len(address):
                return address, int(length_text)
        text = text[:60]
    raise CniError(INVALID_CONFIG, f"{what}: {text!a} is not a network such as 10.0.0.0/8 or fd00::/64")


def network_of(address: bytes, prefix_length: int) -> bytes:
    """The address with its host bits cleared."""
    bits = 8 * len(address)
    mask = ((1 << prefix_length) - 1) << (bits - prefix_length)
    return (int.from_bytes(address, "big") & mask).to_bytes(len(address), "big")


def contains(network: bytes, prefix_length: int, address: bytes) -> bool:
    return len(network) == len(address) and network_of(address, prefix_length) == network_of(network, prefix_length)


def text_of(address: bytes) -> str:
    return _socket.inet_ntop(family_of(address), address)


def family_of(address: bytes) -> int:
    """AF_INET or AF_INET6."""
    return int(_socket.AF_INET6 if len(address) == 16 else _socket.AF_INET)
