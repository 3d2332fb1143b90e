# SPDX-License-Identifier: Apache-2.0
"""Keeps nf_conntrack away from the packets that bypath-snat masquerades: one nft table of ours per node.

    table ip bypath_snat {
        set pods   { type ipv4_addr; }
        set nomasq { type ipv4_addr; flags interval; }
        chain prerouting { type filter hook prerouting priority raw; meta mark & 0x200000 == 0x200000 notrack; }
        chain output     { type filter hook output priority raw; ip saddr @pods ip daddr != @nomasq notrack; }
    }

The programs mark what a pod's veth or the NIC gives to the stack. The packets of ipvlan l3 and l3s pods meet no program
before conntrack: ipvlan_process_v4_outbound() sends them by ip_local_out(), through the node's own output hook, where
`pods` tells them from the node's. What goes to `nomasq` stays tracked: kube-proxy may have to translate it.

nft_notrack_ops has no init: `notrack` does not register conntrack's hooks, as nft_ct_get_init() does for `ct` by
calling nf_ct_netns_get(), so a node without connection tracking stays without it. The table belongs to the network
namespace in which these functions are called, and vanishes with it. The caller holds the plugin's lock.
"""

from __future__ import annotations

import errno

from cni.log import warn
from cni.net import nftables
from cni.net.netlink import NetlinkError
from cni.net.nftables import Nftables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.net.netlink import Message
    from cni.net.nftables import Element

    Network = tuple[bytes, int]
    """Address and prefix length. Here and below IPv6 is passed over: its packets never meet table ip."""

NOTRACK_MARK = 0x00200000
"""`notrack_mark` in the read-only data of snat.bpf.c."""
TABLE = "bypath_snat"
_PODS, _NOMASQ = "pods", "nomasq"
_PREROUTING, _OUTPUT = "prerouting", "output"
_TEXTS = {
    _PREROUTING: f"meta mark & {NOTRACK_MARK:#010x} == {NOTRACK_MARK:#010x} notrack",
    _OUTPUT: f"ip saddr @{_PODS} ip daddr != @{_NOMASQ} notrack",
}

# No nfnetlink; no nf_tables; nf_tables without IPv4.
_NO_NF_TABLES = (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT)


def ensure(nomasq_networks: Iterable[Network]) -> bool:
    """Make the table when it is missing, and mend it when somebody flushed or disabled it; pods that are in it stay.

    An intact table is left alone, `nomasq` included: `set_nomasq` changes that. False, with a warning, when the kernel
    cannot have the table: masquerading then works, but conntrack sees it.
    """
    try:
        socket = Nftables()
        if _fault_of_table(socket):
            socket.transact(f"set up nft table ip {TABLE}", *_messages(nomasq_networks))
    except OSError as error:
        # The transaction makes all that it names itself, so what it does not find is a type of chain or expression.
        if error.errno not in (*_NO_NF_TABLES, errno.ENOENT):
            raise
        warn(f"masqueraded connections stay in nf_conntrack: no nf_tables with notrack (nft_ct) here: {error.strerror}")
        return False
    return True


def exists() -> bool:
    try:
        return Nftables().table_flags(TABLE) is not None
    except OSError as error:
        if error.errno in _NO_NF_TABLES:
            return False
        raise


def add_pod(addresses: Iterable[bytes]) -> None:
    """Untrack what leaves by the output hook from these addresses (packed). Those that are there are fine."""
    elements = _addresses(addresses)
    if elements:
        Nftables().transact(f"untrack pods in nft table ip {TABLE}", *nftables.put_elements(TABLE, _PODS, elements))


def remove_pod(addresses: Iterable[bytes]) -> None:
    """The contrary of `add_pod`. An address, table or nf_tables that is gone is fine.

    Looks first: a refused transaction waits for an RCU grace period (__nf_tables_abort()), as does the end of a socket
    that removed something (nft_rcv_nl_event()); each takes 5 to 20 ms, though no CPU.
    """
    there = pods()
    for element in _addresses(addresses):
        if element[0] in there:
            # One that is gone by now would take the others of its transaction with it.
            messages = nftables.remove_elements(TABLE, _PODS, [element])
            _transact_unless_gone(f"track a pod again in nft table ip {TABLE}", *messages)


def pods() -> set[bytes]:
    """The addresses that `add_pod` left in the table; none without a table."""
    try:
        return {key for key, _ in Nftables().elements(TABLE, _PODS)}
    except OSError as error:
        if error.errno in (*_NO_NF_TABLES, errno.ENOENT):
            return set()
        raise


def set_nomasq(networks: Iterable[Network]) -> None:
    """Replace the destinations that stay tracked, at once; they may overlap. Raises NetlinkError without a table."""
    socket = Nftables()
    wanted = _intervals(networks)
    if sorted(socket.elements(TABLE, _NOMASQ)) != sorted(wanted):
        socket.transact(f"set {_NOMASQ} of nft table ip {TABLE}", *_nomasq_messages(wanted))


def remove() -> None:
    """Delete the table with all that is in it; gone is fine."""
    _transact_unless_gone(f"remove nft table ip {TABLE}", nftables.remove_table(TABLE))


def fault(pod_addresses: Iterable[bytes] = (), nomasq_networks: Iterable[Network] | None = None) -> str:
    """For CHECK: a sentence about what of the table is not as `ensure` makes it, "" when nothing.

    Also when one of `pod_addresses` is missing, or `nomasq` is not `nomasq_networks` (None: whatever it is). A kernel
    without nf_tables is no fault: ADD has put up with it.
    """
    try:
        return _fault(Nftables(), _addresses(pod_addresses), nomasq_networks)
    except OSError as error:
        if error.errno in _NO_NF_TABLES:
            return ""
        raise


def _fault(socket: Nftables, wanted: list[Element], nomasq_networks: Iterable[Network] | None) -> str:
    problem = _fault_of_table(socket)
    if problem:
        return problem
    if wanted and not set(wanted) <= set(socket.elements(TABLE, _PODS)):
        return f"the set {_PODS} of nft table ip {TABLE} lacks the pod's address"
    if nomasq_networks is None or sorted(socket.elements(TABLE, _NOMASQ)) == sorted(_intervals(nomasq_networks)):
        return ""
    return f"the set {_NOMASQ} of nft table ip {TABLE} is not what nonMasqueradeCIDRs says"


def _rules() -> dict[str, bytes]:
    """The one rule of each chain."""
    from_pod = nftables.match_address(nftables.IPV4_SOURCE, _PODS)
    to_elsewhere = nftables.match_address(nftables.IPV4_DESTINATION, _NOMASQ, inverted=True)
    return {
        _PREROUTING: nftables.match_mark(NOTRACK_MARK, NOTRACK_MARK) + nftables.notrack(),
        _OUTPUT: from_pod + to_elsewhere + nftables.notrack(),
    }


def _fault_of_table(socket: Nftables) -> str:
    flags = socket.table_flags(TABLE)
    if flags is None:
        return f"nft table ip {TABLE} is missing"
    if flags & nftables.TABLE_DORMANT:
        return f"nft table ip {TABLE} is dormant"
    found = socket.rules(TABLE)
    for chain, rule in _rules().items():
        there = [expressions for name, expressions in found if name == chain]
        if len(there) != 1 or not nftables.carries(there[0], nftables.decoded(rule)):
            return f"chain {chain} of nft table ip {TABLE} must hold exactly the rule: {_TEXTS[chain]}"
    return ""


def _messages(nomasq_networks: Iterable[Network]) -> list[Message]:
    """One and the same for making and for mending: what is there stays, but rules and `nomasq` are written anew."""
    return [
        nftables.put_table(TABLE),
        nftables.put_address_set(TABLE, _PODS, 1),
        nftables.put_address_set(TABLE, _NOMASQ, 2, interval=True),
        *_nomasq_messages(_intervals(nomasq_networks)),
        nftables.put_chain(TABLE, _PREROUTING, nftables.PREROUTING, nftables.PRIORITY_RAW),
        nftables.put_chain(TABLE, _OUTPUT, nftables.OUTPUT, nftables.PRIORITY_RAW),
        nftables.remove_rules(TABLE),
        *[nftables.append_rule(TABLE, chain, rule) for chain, rule in _rules().items()],
    ]


def _nomasq_messages(wanted: list[Element]) -> list[Message]:
    return [nftables.flush_set(TABLE, _NOMASQ), *nftables.put_elements(TABLE, _NOMASQ, wanted)]


def _intervals(networks: Iterable[Network]) -> list[Element]:
    """The fewest intervals that cover the IPv4 networks, in ascending order: each one's first address, then its end.

    nft_rbtree_insert() refuses an interval that overlaps another one, hence the merging. An interval that reaches
    255.255.255.255 has no end element: the address after the last would not fit into four bytes.
    """
    merged: list[list[int]] = []
    for first, end in sorted(_span(*network) for network in networks if len(network[0]) == 4):
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(end, merged[-1][1])
        else:
            merged.append([first, end])
    elements = []
    for first, end in merged:
        elements.append((first.to_bytes(4, "big"), False))
        if end < 1 << 32:
            elements.append((end.to_bytes(4, "big"), True))
    return elements


def _span(address: bytes, prefix_length: int) -> tuple[int, int]:
    """An IPv4 network's first address and the one after its last; host bits are dropped."""
    size = 1 << (32 - prefix_length)
    first = int.from_bytes(address, "big") & -size
    return first, first + size


def _addresses(addresses: Iterable[bytes]) -> list[Element]:
    return [(address, False) for address in addresses if len(address) == 4]


def _transact_unless_gone(what: str, *messages: Message) -> None:
    try:
        Nftables().transact(what, *messages)
    except NetlinkError as error:
        if error.errno not in (*_NO_NF_TABLES, errno.ENOENT):
            raise
    except OSError as error:
        if error.errno not in _NO_NF_TABLES:
            raise
