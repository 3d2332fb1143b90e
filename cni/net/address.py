# SPDX-License-Identifier: Apache-2.0
"""RTM_*ADDR."""

from __future__ import annotations

from _struct import pack, unpack_from

from . import ipaddr
from .netlink import NLM_F_CREATE, NLM_F_EXCL, Message, Socket, attr, attrs

_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_NODAD = 0x02


def new(index: int, address: bytes, prefix_length: int) -> Message:
    """Packed address, 4 or 16 bytes. Without duplicate address detection: IPAM already promised that it is unique,
    and a tentative IPv6 address would hold up the pod's first packets by a second."""
    family = ipaddr.family_of(address)
    body = pack("=BBBBI", family, prefix_length, _IFA_F_NODAD, 0, index) + attr(_IFA_LOCAL, address)
    body += attr(_IFA_ADDRESS, address)
    what = f"add address {ipaddr.text_of(address)}/{prefix_length}"
    return Message(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, what)


def list_of(socket: Socket, index: int) -> list[tuple[bytes, int]]:
    """(packed address, prefix length) of both families on one device."""
    body = pack("=BBBBI", 0, 0, 0, 0, index)
    found = []
    for reply in socket.dump(Message(_RTM_GETADDR, 0, body, f"list addresses of device {index}")):
        _, prefix_length, _, _, of_index = unpack_from("=BBBBI", reply)
        parts = dict(attrs(reply, 8))
        address = parts.get(_IFA_LOCAL, parts.get(_IFA_ADDRESS, b""))
        if of_index == index and address:
            found.append((address, prefix_length))
    return found
