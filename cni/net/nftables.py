# SPDX-License-Identifier: Apache-2.0
"""nf_tables over nfnetlink: the few objects and expressions that bypath uses, without nft's 20 ms and its library.

Objects live in `table ip`, in the network namespace of the socket, and vanish with that namespace. Attributes are those
of linux/netfilter/nf_tables.h; unlike rtnetlink's, their integers are big endian.
"""

from __future__ import annotations

import errno
from _struct import pack, unpack_from

from .netlink import (
    NETLINK_NETFILTER,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    Message,
    NetlinkError,
    Socket,
    attr,
    attr_nest,
    attr_text,
    attrs,
    error_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    Element = tuple[bytes, bool]
    """A set element's key, and whether it ends an interval: NFT_SET_ELEM_INTERVAL_END, itself no longer inside."""

    Expression = tuple[str, dict[int, bytes]]
    """An expression's name and its attributes as the kernel spells them."""

_NLMSG_ERROR = 2
_NFNL_MSG_BATCH_BEGIN, _NFNL_MSG_BATCH_END = 16, 17
_SUBSYSTEM = 10
_FAMILY = 2
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _GETRULE, _DELRULE = 0, 1, 2, 3, 6, 7, 8
_NEWSET, _NEWSETELEM, _GETSETELEM, _DELSETELEM = 9, 12, 13, 14

# NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE and NFTA_SET_ELEM_LIST_TABLE are all 1.
_TABLE = 1
_TABLE_FLAGS = 2
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_CHAIN, _RULE_EXPRESSIONS = 2, 4
_SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, _SET_KEY_LENGTH, _SET_ID, _SET_USERDATA = 2, 3, 4, 5, 10, 13
_LIST_SET, _LIST_ELEMENTS = 2, 3
_ELEMENT_KEY, _ELEMENT_FLAGS = 1, 3
_LIST_ELEMENT = 1
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_DATA_VALUE = 1
_META_TARGET, _META_KEY = 1, 2
_BITWISE_SOURCE, _BITWISE_TARGET, _BITWISE_LENGTH, _BITWISE_MASK, _BITWISE_XOR = 1, 2, 3, 4, 5
_COMPARE_SOURCE, _COMPARE_HOW, _COMPARE_DATA = 1, 2, 3
_PAYLOAD_TARGET, _PAYLOAD_BASE, _PAYLOAD_OFFSET, _PAYLOAD_LENGTH = 1, 2, 3, 4
_LOOKUP_SET, _LOOKUP_SOURCE, _LOOKUP_FLAGS = 1, 2, 5

TABLE_DORMANT = 1
PREROUTING, OUTPUT = 0, 3
PRIORITY_RAW = -300
_NF_ACCEPT = 1
_SET_INTERVAL = 4
_INTERVAL_END = 1
_REGISTER = 1
_META_MARK = 3
_EQUAL = 0
_NETWORK_HEADER = 1
IPV4_SOURCE, IPV4_DESTINATION = 12, 16
_ADDRESS_BYTES = 4

# What only nft(8) reads, to print the sets: the data type ipv4_addr, and that keys are big endian (libnftnl's TLV
# NFTNL_UDATA_SET_KEYBYTEORDER).
_NFT_TYPE_IPV4_ADDR = 7
_NFT_KEYS_BIG_ENDIAN = b"\0\4\2\0\0\0"

# A nested attribute holds 65535 bytes at most, an element takes 24 at most.
_ELEMENTS_PER_MESSAGE = 1000


def _u32(kind: int, value: int) -> bytes:
    return pack("=HH", 8, kind) + pack(">I", value & 0xFFFFFFFF)


def _message(kind: int, flags: int, body: bytes, what: str) -> Message:
    return Message(_SUBSYSTEM << 8 | kind, flags, pack("=BBH", _FAMILY, 0, 0) + body, what)


def _boundary(kind: int, what: str) -> Message:
    """NFNL_MSG_BATCH_BEGIN or _END; struct nfgenmsg carries the subsystem in place of a resource."""
    return Message(kind, NLM_F_REQUEST, pack(">BBH", 0, 0, _SUBSYSTEM), what)


class Nftables(Socket):
    """An nfnetlink socket in the network namespace that was current when it was made.

    Raises OSError with EPROTONOSUPPORT on a kernel without nfnetlink; everything else raises NetlinkError, with
    EOPNOTSUPP on a kernel without nf_tables.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def transact(self, what: str, *messages: Message) -> None:
        """All of the messages take effect at once, or none. `what`: the whole, in an operator's words.

        No ack is asked for: nfnetlink_rcv_batch() runs inside of send(2) and answers errors in any case, in the order
        of the messages, and to BATCH_BEGIN what concerns the batch as a whole (EPERM, EOPNOTSUPP, a failed commit).
        Acks mislead besides: Linux 6.10 to 6.17 send one too many when a module had to be loaded.
        EAGAIN never arrives, it is what makes the kernel replay the batch after loading that module. ERESTART arrives
        only when NFNL_BATCH_GENID names a generation, which is for callers whose messages depend on what they have read
        before. Those of bypath create, flush and add whatever is there, so batches may follow each other in any order.
        """
        for message in messages:
            message.flags |= NLM_F_REQUEST
        batch = (_boundary(_NFNL_MSG_BATCH_BEGIN, what), *messages, _boundary(_NFNL_MSG_BATCH_END, what))
        first = self.send_batch(batch)
        for kind, flags, sequence, body in self._queued():
            failure = error_of(body, flags, batch[sequence - first].what) if kind == _NLMSG_ERROR else None
            if failure:
                raise failure

    def _queued(self) -> list[tuple[int, int, int, bytes]]:
        answers = []
        self._socket.setblocking(False)
        try:
            while True:
                answers += self._receive()
        except BlockingIOError:
            return answers
        finally:
            self._socket.setblocking(True)

    def _read(self, dump: bool, kind: int, body: bytes, what: str) -> list[dict[int, bytes]]:
        """The attributes of each reply."""
        message = _message(kind, 0, body, what)
        try:
            return [dict(attrs(reply, 4)) for reply in (self.dump(message) if dump else self.ask(message))]
        except NetlinkError as error:
            if error.errno != errno.EINVAL:
                raise
            # nfnetlink_rcv_msg() says EINVAL where nfnetlink_rcv_batch() says EOPNOTSUPP: there is no nf_tables.
            raise NetlinkError(errno.EOPNOTSUPP, error.strerror) from error

    def table_flags(self, table: str) -> int | None:
        """NFT_TABLE_F_*, None without such a table."""
        try:
            found = self._read(False, _GETTABLE, attr_text(_TABLE, table), f"look up nft table ip {table}")[0]
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return int(unpack_from(">I", found[_TABLE_FLAGS])[0])

    def rules(self, table: str) -> list[tuple[str, list[Expression]]]:
        """(chain, expressions) of each rule, in order; none without such a table."""
        found = self._read(True, _GETRULE, attr_text(_TABLE, table), f"list the rules of nft table ip {table}")
        return [(_text(rule[_RULE_CHAIN]), decoded(rule.get(_RULE_EXPRESSIONS, b""))) for rule in found]

    def elements(self, table: str, name: str) -> list[Element]:
        """Elements of a set in no particular order. Raises NetlinkError with ENOENT without such a set."""
        body = attr_text(_TABLE, table) + attr_text(_LIST_SET, name)
        found = []
        for part in self._read(True, _GETSETELEM, body, f"list the set {name} of nft table ip {table}"):
            for _, element in attrs(part.get(_LIST_ELEMENTS, b"")):
                parts = dict(attrs(element))
                flags = unpack_from(">I", parts.get(_ELEMENT_FLAGS, bytes(4)))[0]
                found.append((dict(attrs(parts[_ELEMENT_KEY]))[_DATA_VALUE], bool(flags & _INTERVAL_END)))
        return found


def _text(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode("utf-8", "replace")


def put_table(table: str) -> Message:
    """Made when missing, woken up when dormant."""
    body = attr_text(_TABLE, table) + _u32(_TABLE_FLAGS, 0)
    return _message(_NEWTABLE, NLM_F_CREATE, body, f"add nft table ip {table}")


def remove_table(table: str) -> Message:
    """With all that is in it. Refused with ENOENT when it is not there."""
    return _message(_DELTABLE, 0, attr_text(_TABLE, table), f"remove nft table ip {table}")


def put_chain(table: str, name: str, hook: int, priority: int) -> Message:
    """A base chain of type filter whose policy is accept; one that is there must have the same hook and priority."""
    body = attr_text(_TABLE, table) + attr_text(_CHAIN_NAME, name) + attr_text(_CHAIN_TYPE, "filter")
    body += attr_nest(_CHAIN_HOOK, _u32(_HOOK_NUMBER, hook), _u32(_HOOK_PRIORITY, priority))
    body += _u32(_CHAIN_POLICY, _NF_ACCEPT)
    return _message(_NEWCHAIN, NLM_F_CREATE, body, f"add chain {name} to nft table ip {table}")


def put_address_set(table: str, name: str, identity: int, interval: bool = False) -> Message:
    """A set of IPv4 addresses, or of intervals of them; one that is there stays with its elements.

    `identity` must differ from that of the transaction's other sets.
    """
    body = attr_text(_TABLE, table) + attr_text(_SET_NAME, name)
    body += _u32(_SET_FLAGS, _SET_INTERVAL if interval else 0) + _u32(_SET_KEY_TYPE, _NFT_TYPE_IPV4_ADDR)
    body += _u32(_SET_KEY_LENGTH, _ADDRESS_BYTES) + _u32(_SET_ID, identity) + attr(_SET_USERDATA, _NFT_KEYS_BIG_ENDIAN)
    return _message(_NEWSET, NLM_F_CREATE, body, f"add set {name} to nft table ip {table}")


def put_elements(table: str, name: str, elements: list[Element]) -> list[Message]:
    """Elements that are there already are fine, unless an interval overlaps another one only in part."""
    return _element_messages(_NEWSETELEM, NLM_F_CREATE, table, name, elements, "add to")


def remove_elements(table: str, name: str, elements: list[Element]) -> list[Message]:
    """Refused with ENOENT when one of them is not there."""
    return _element_messages(_DELSETELEM, 0, table, name, elements, "remove from")


def _element_messages(
    kind: int, flags: int, table: str, name: str, elements: list[Element], verb: str
) -> list[Message]:
    what = f"{verb} the set {name} of nft table ip {table}"
    messages = []
    for start in range(0, len(elements), _ELEMENTS_PER_MESSAGE):
        encoded = [_element(*element) for element in elements[start : start + _ELEMENTS_PER_MESSAGE]]
        body = attr_text(_TABLE, table) + attr_text(_LIST_SET, name) + attr_nest(_LIST_ELEMENTS, *encoded)
        messages.append(_message(kind, flags, body, what))
    return messages


def _element(key: bytes, ends_interval: bool) -> bytes:
    flags = _u32(_ELEMENT_FLAGS, _INTERVAL_END) if ends_interval else b""
    return attr_nest(_LIST_ELEMENT, flags, attr_nest(_ELEMENT_KEY, attr(_DATA_VALUE, key)))


def flush_set(table: str, name: str) -> Message:
    body = attr_text(_TABLE, table) + attr_text(_LIST_SET, name)
    return _message(_DELSETELEM, 0, body, f"empty the set {name} of nft table ip {table}")


def remove_rules(table: str) -> Message:
    """All rules of all chains of the table; none is fine."""
    return _message(_DELRULE, 0, attr_text(_TABLE, table), f"remove the rules of nft table ip {table}")


def append_rule(table: str, chain: str, expressions: bytes) -> Message:
    """`expressions`: what the functions below return, one after the other."""
    body = attr_text(_TABLE, table) + attr_text(_RULE_CHAIN, chain) + attr_nest(_RULE_EXPRESSIONS, expressions)
    return _message(_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, body, f"add a rule to chain {chain} of nft table ip {table}")


def decoded(expressions: bytes) -> list[Expression]:
    """NFTA_RULE_EXPRESSIONS: the name and attributes of each expression."""
    found = []
    for _, expression in attrs(expressions):
        parts = dict(attrs(expression))
        found.append((_text(parts[_EXPRESSION_NAME]), dict(attrs(parts.get(_EXPRESSION_DATA, b"")))))
    return found


def carries(found: list[Expression], wanted: list[Expression]) -> bool:
    """Whether a rule that was read back is the wanted one; the kernel adds attributes that were left to default."""
    return [name for name, _ in found] == [name for name, _ in wanted] and all(
        has.items() >= asked.items() for (_, has), (_, asked) in zip(found, wanted, strict=True)
    )


def _expression(name: str, *attributes: bytes) -> bytes:
    data = attr_nest(_EXPRESSION_DATA, *attributes) if attributes else b""
    return attr_nest(_LIST_ELEMENT, attr_text(_EXPRESSION_NAME, name), data)


def match_mark(mask: int, value: int) -> bytes:
    """meta mark & mask == value. The mark is in host byte order, as the packet's metadata has it."""
    load = _expression("meta", _u32(_META_KEY, _META_MARK), _u32(_META_TARGET, _REGISTER))
    registers = _u32(_BITWISE_SOURCE, _REGISTER), _u32(_BITWISE_TARGET, _REGISTER), _u32(_BITWISE_LENGTH, 4)
    and_mask = attr_nest(_BITWISE_MASK, attr(_DATA_VALUE, pack("=I", mask)))
    xor_nothing = attr_nest(_BITWISE_XOR, attr(_DATA_VALUE, bytes(4)))
    reduce = _expression("bitwise", *registers, and_mask, xor_nothing)
    wanted = attr_nest(_COMPARE_DATA, attr(_DATA_VALUE, pack("=I", value)))
    return load + reduce + _expression("cmp", _u32(_COMPARE_SOURCE, _REGISTER), _u32(_COMPARE_HOW, _EQUAL), wanted)


def match_address(offset: int, name: str, inverted: bool = False) -> bytes:
    """The IPv4 header's address at `offset` (IPV4_SOURCE, IPV4_DESTINATION) is in the set `name`, or is not."""
    place = _u32(_PAYLOAD_BASE, _NETWORK_HEADER), _u32(_PAYLOAD_OFFSET, offset), _u32(_PAYLOAD_LENGTH, _ADDRESS_BYTES)
    load = _expression("payload", _u32(_PAYLOAD_TARGET, _REGISTER), *place)
    where = attr_text(_LOOKUP_SET, name), _u32(_LOOKUP_SOURCE, _REGISTER), _u32(_LOOKUP_FLAGS, int(inverted))
    return load + _expression("lookup", *where)


def notrack() -> bytes:
    """Connection tracking, when it comes to the packet at priority -200, lets it alone."""
    return _expression("notrack")
