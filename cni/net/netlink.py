# SPDX-License-Identifier: Apache-2.0
"""rtnetlink for the hot path: an encoder, one socket, many requests in one datagram.

pyroute2 is what the rest of bypath uses; its import costs 190 ms, an ADD has 10. Message layouts are those of
rtnetlink(7) and linux/netlink.h, all in host byte order unless a name says `_be`.
"""

from __future__ import annotations

import _socket
import posix
from _struct import pack, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_DUMP = 0x300

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLMSGHDR_BYTES = 16
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_RECEIVE_BYTES = 1 << 16


def attr(kind: int, payload: bytes) -> bytes:
    """struct nlattr and payload, padded to NLA_ALIGNTO."""
    return pack("=HH", len(payload) + 4, kind) + payload + b"\0" * (-len(payload) & 3)


def attr_u32(kind: int, value: int) -> bytes:
    return pack("=HHI", 8, kind, value)


def attr_text(kind: int, text: str) -> bytes:
    return attr(kind, text.encode() + b"\0")


def attr_nest(kind: int, *parts: bytes) -> bytes:
    return attr(kind | _NLA_F_NESTED, b"".join(parts))


def attrs(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(type without flags, payload) of each attribute from `offset` on."""
    while offset + 4 <= len(data):
        length, kind = unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & _NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += length + 3 & ~3


class NetlinkError(OSError):
    """A request that the kernel refused: errno, and in strerror what was asked, errno's text and the extended ack."""


class Message:
    """One request: nlmsg_type, nlmsg_flags besides REQUEST and ACK, body, and what it does in an operator's words."""

    __slots__ = ("body", "flags", "kind", "what")

    def __init__(self, kind: int, flags: int, body: bytes, what: str) -> None:
        self.kind = kind
        self.flags = flags
        self.body = body
        self.what = what


class Socket:
    """A netlink socket in the network namespace that was current when it was made."""

    __slots__ = ("_sequence", "_socket")

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
        self._socket = _socket.socket(_socket.AF_NETLINK, kind, protocol)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        if protocol == NETLINK_ROUTE:
            # Dumps then honour their filter (ifindex, table) in the kernel instead of ignoring it silently.
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def ask(self, *messages: Message) -> list[bytes]:
        """Send all messages in one datagram, wait for each one's ack, return the bodies of the replies in order.

        The kernel works through a datagram in order and goes on after an error (netlink_rcv_skb()), so the first error
        is raised after all have been answered.
        """
        first = self._sequence + 1
        for message in messages:
            message.flags |= NLM_F_REQUEST | NLM_F_ACK
        self._send(messages)
        waiting = len(messages)
        replies: list[bytes] = []
        failure: NetlinkError | None = None
        while waiting:
            for kind, flags, sequence, body in self._receive():
                if sequence < first:
                    continue
                if kind == _NLMSG_ERROR:
                    waiting -= 1
                    failure = failure or error_of(body, flags, messages[sequence - first].what)
                else:
                    replies.append(body)
        if failure:
            raise failure
        return replies

    def dump(self, message: Message) -> list[bytes]:
        """All objects of one kind."""
        message.flags |= NLM_F_REQUEST | NLM_F_DUMP
        self._send((message,))
        replies: list[bytes] = []
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    # A dump that fails on the way says so in its end, which has no copy of the request in it.
                    copied = kind == _NLMSG_ERROR
                    failure = error_of(body, flags, message.what, copied) if len(body) >= 4 else None
                    if failure:
                        raise failure
                    return replies
                replies.append(body)

    def send_batch(self, messages: tuple[Message, ...]) -> int:
        """Send as they are, flags included, for nfnetlink's transactions. Returns the first sequence number."""
        first = self._sequence + 1
        self._send(messages)
        return first

    def _send(self, messages: tuple[Message, ...]) -> None:
        parts = []
        for message in messages:
            self._sequence += 1
            length = _NLMSGHDR_BYTES + len(message.body)
            parts.append(pack("=IHHII", length, message.kind, message.flags, self._sequence, 0) + message.body)
            parts.append(b"\0" * (-length & 3))
        self._socket.send(b"".join(parts))

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        """(nlmsg_type, nlmsg_flags, nlmsg_seq, body) of each message of one datagram."""
        data = self._socket.recv(_RECEIVE_BYTES)
        messages = []
        offset = 0
        while offset + _NLMSGHDR_BYTES <= len(data):
            length, kind, flags, sequence = unpack_from("=IHHI", data, offset)
            messages.append((kind, flags, sequence, data[offset + _NLMSGHDR_BYTES : offset + length]))
            offset += length + 3 & ~3
        return messages


def error_of(body: bytes, flags: int, what: str, copied: bool = True) -> NetlinkError | None:
    """struct nlmsgerr: errno, then the request's header (its body too unless capped), then extended-ack attributes.
    Not `copied`: the attributes follow the errno."""
    number = -int(unpack_from("=i", body)[0])
    if not number:
        return None
    said = ""
    if flags & _NLM_F_ACK_TLVS:
        start = 4 + _NLMSGHDR_BYTES if copied else 4
        if copied and not flags & _NLM_F_CAPPED:
            start += unpack_from("=I", body, 4)[0] - _NLMSGHDR_BYTES
        for kind, payload in attrs(body, start):
            if kind == _NLMSGERR_ATTR_MSG:
                said = f" ({payload.rstrip(bytes(1)).decode('utf-8', 'replace')})"
    return NetlinkError(number, f"{what}: {posix.strerror(number)}{said}")
