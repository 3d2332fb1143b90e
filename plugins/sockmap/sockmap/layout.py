# SPDX-License-Identifier: Apache-2.0
"""The maps of bypath-sockmap's programs as Python sees them; a mirror of bpf/include/sockmap.h, compared with it by a
test.

map       key                      value
pods      u64 netns cookie         POLICY
pod_ips   ADDR                     u64 netns cookie
node      u32, 0                   NODE
counters  u64 netns cookie         COUNTERS for each CPU
socks     KEY                      a socket; written by the programs only
"""

from __future__ import annotations

from _struct import Struct

from bpf.layout import Layout

PLUGIN = "sockmap"
SIDECAR, POD = 1, 2
"""enum sm_scope: bits of POLICY's flags."""
EXCLUDE_PORTS, EXCLUDE_UIDS = 32, 16
"""SM_EXCLUDE_PORTS, SM_EXCLUDE_UIDS: as many as a policy has room for."""

POLICY = Layout(
    "sm_policy",
    ("flags", "I"),
    ("limit_bytes", "I"),
    ("exclude_ports", "64s"),
    ("exclude_uids", "64s"),
    ("uid_count", "I"),
    ("cgroup_id", "I"),
    ("attachment", "Q"),
)
ADDR = Layout("sm_addr", ("ip", "16s"))
NODE = Layout("sm_node", ("limit_bytes", "Q"))
COUNTERS = Layout(
    "sm_counters",
    ("paired", "Q"),
    ("insert_fail", "Q"),
    ("redirected_msgs", "Q"),
    ("redirected_bytes", "Q"),
    ("passed_msgs", "Q"),
    ("passed_bytes", "Q"),
    ("fallback_conns", "Q"),
    ("skipped", "Q"),
    ("spills", "Q"),
)

KEY = Layout(
    "sm_key",
    ("netns_cookie", "Q"),
    ("client", "16s"),
    ("client_seq", "I"),
    ("server_seq", "I"),
    ("client_port_be", "2s"),
    ("side", "B"),
    ("pad", "5x"),
)

STRUCTS = (POLICY, ADDR, NODE, COUNTERS, KEY)
U32 = Struct("=I")
U64 = Struct("=Q")
_PORTS = Struct(f"={EXCLUDE_PORTS}H")
_UIDS = Struct(f"={EXCLUDE_UIDS}I")
_V4_MAPPED = bytes(10) + b"\xff\xff"


def pack_addr(address_be: bytes) -> bytes:
    """Key of `pod_ips`: 16 bytes as they are, 4 bytes as ::ffff:a.b.c.d."""
    return ADDR.pack(_V4_MAPPED + address_be if len(address_be) == 4 else address_be)


def pack_policy(
    scopes: int, limit_bytes: int, ports: list[int], uids: list[int], attachment: int, cgroup_id: int = 0
) -> bytes:
    """Ports in the machine's byte order; those that are not used are 0. attachment: its key, 64 bit."""
    return POLICY.pack(
        scopes,
        limit_bytes,
        _PORTS.pack(*ports, *[0] * (EXCLUDE_PORTS - len(ports))),
        _UIDS.pack(*uids, *[0] * (EXCLUDE_UIDS - len(uids))),
        len(uids),
        cgroup_id,
        attachment,
    )


def ports_of(policy: bytes) -> list[int]:
    """Those that are excluded."""
    return [port for port in _PORTS.unpack(POLICY.named(policy)["exclude_ports"]) if port]


def uids_of(policy: bytes) -> list[int]:
    """Those that are excluded."""
    named = POLICY.named(policy)
    return list(_UIDS.unpack(named["exclude_uids"])[: named["uid_count"]])


def sum_counters(values: bytes, stride_bytes: int) -> dict[str, int]:
    """Of all CPUs, from the value that a per-CPU lookup returns."""
    each = [COUNTERS.named(values[at : at + COUNTERS.size]) for at in range(0, len(values), stride_bytes)]
    return {name: sum([counters[name] for counters in each]) for name in each[0]}
