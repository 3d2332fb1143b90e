# SPDX-License-Identifier: Apache-2.0
"""RTM_*NEIGH: permanent entries, so that no ARP or ND ever runs between a pod and its node."""

from __future__ import annotations

from _struct import pack, unpack_from

from . import ipaddr
from .netlink import NLM_F_CREATE, NLM_F_REPLACE, Message, Socket, attr, attr_u32, attrs

_RTM_NEWNEIGH, _RTM_GETNEIGH = 28, 30
_NDA_DST, _NDA_LLADDR, _NDA_IFINDEX = 1, 2, 8
_NUD_PERMANENT = 0x80


def new_permanent(index: int, address: bytes, mac: bytes) -> Message:
    body = pack("=BxHiHBB", ipaddr.family_of(address), 0, index, _NUD_PERMANENT, 0, 0)
    body += attr(_NDA_DST, address) + attr(_NDA_LLADDR, mac)
    return Message(_RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, f"add neighbour {ipaddr.text_of(address)}")


def permanent_of(socket: Socket, family: int, index: int) -> dict[bytes, bytes]:
    """Packed address -> MAC of one device's permanent entries."""
    body = pack("=BxHiHBB", family, 0, 0, 0, 0, 0) + attr_u32(_NDA_IFINDEX, index)
    found = {}
    for reply in socket.dump(Message(_RTM_GETNEIGH, 0, body, "list neighbours")):
        _, _, of_index, state = unpack_from("=BxHiH", reply)
        parts = dict(attrs(reply, 12))
        if of_index == index and state & _NUD_PERMANENT and _NDA_DST in parts:
            found[parts[_NDA_DST]] = parts.get(_NDA_LLADDR, b"")
    return found
