# SPDX-License-Identifier: Apache-2.0
"""The maps of bypath-snat's programs as Python sees them; a mirror of bpf/include/snat.h, compared with it by a test.

map        key                     value
pods       IPv4 address, 4 bytes   POD
networks   u32 network id          NETWORK
nomasq     NOMASQ                  u32, any
uplinks    u32 ifindex             UPLINK
fwd        TUPLE, pod -> remote    SESSION
rev        TUPLE, remote -> node   OWNER
frags      FRAG_KEY                FRAG
stackflow  TUPLE, remote -> pod    STACKFLOW
snat_stats u32 index into STATS    u64 for each CPU
"""

from __future__ import annotations

from _struct import Struct

from bpf.layout import Layout

POD = Layout("snat_pod", ("network_id", "I"), ("host_ifindex", "I"), ("attachment", "Q"))
NETWORK = Layout("snat_network", ("port_first", "H"), ("port_last", "H"), ("flags", "I"), ("config_hash", "Q"))
NOMASQ = Layout("snat_nomasq", ("prefixlen", "I"), ("network_id", "I"), ("addr_be", "4s"))
UPLINK = Layout("snat_uplink", ("addr_be", "4s"))
TUPLE = Layout(
    "snat_tuple",
    ("src_be", "4s"),
    ("dst_be", "4s"),
    ("sport_be", "2s"),
    ("dport_be", "2s"),
    ("proto", "B"),
    ("pad", "3x"),
)
SESSION = Layout("snat_session", ("nat_addr_be", "4s"), ("nat_port_be", "2s"), ("pad", "2x"), ("network_id", "I"))
OWNER = Layout("snat_owner", ("pod_addr_be", "4s"), ("pod_port_be", "2s"), ("state", "H"), ("last_seen_ns", "Q"))
FRAG_KEY = Layout("snat_frag_key", ("src_be", "4s"), ("dst_be", "4s"), ("id_be", "2s"), ("proto", "B"), ("hook", "B"))
FRAG = Layout("snat_frag", ("addr_be", "4s"), ("pad", "4x"), ("seen_ns", "Q"))
STACKFLOW = Layout("snat_stackflow", ("first_seen_ns", "Q"))

STRUCTS = (POD, NETWORK, NOMASQ, UPLINK, TUPLE, SESSION, OWNER, FRAG_KEY, FRAG, STACKFLOW)
U32 = Struct("=I")

REPLIED, ASSURED, FIN_OUT, FIN_IN, RESET = 1, 2, 4, 8, 16
"""Bits of OWNER's state, enum snat_state."""

STATS = (
    "translated_out",
    "translated_in",
    "session_new",
    "port_kept",
    "port_retry",
    "port_local",
    "taken_idle",
    "taken_closed",
    "taken_early",
    "healed_rev",
    "healed_fwd",
    "icmp_out",
    "icmp_in",
    "frag_out",
    "frag_in",
    "bypass",
    "stackflow_new",
    "skip_network",
    "skip_uplink",
    "skip_reply",
    "skip_proto",
    "skip_icmp",
    "skip_truncated",
    "drop_ports",
    "drop_fragment",
    "drop_rewrite",
)
"""The counters' names in the order of enum snat_stat."""


def pack_nomasq(network_id: int, address_be: bytes, prefix_bits: int) -> bytes:
    """Key of `nomasq` for one CIDR; the network id counts as 32 leading bits of the prefix."""
    return NOMASQ.pack(32 + prefix_bits, network_id, address_be)
