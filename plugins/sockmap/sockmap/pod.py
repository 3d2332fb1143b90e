# SPDX-License-Identifier: Apache-2.0
"""A pod in the programs' maps: its policy by the cookie of its network namespace, its addresses, its counters.

Nothing of a pod is in force without its policy, which is therefore the last to come and the first to go.
"""

from __future__ import annotations

from bpf.maps import Map, PerCpuMap
from cni.undo import Attempts
from sockmap import layout
from sockmap.layout import PLUGIN, U32, U64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

_KEY_0 = U32.pack(0)


class Maps:
    """Those that Python writes. Raises FileNotFoundError when no ADD of this boot has loaded the programs."""

    __slots__ = ("_addresses", "_counters", "_node", "_policies")

    def __init__(self) -> None:
        self._policies = Map(PLUGIN, "pods", U64.size, layout.POLICY.size)
        self._addresses = Map(PLUGIN, "pod_ips", layout.ADDR.size, U64.size)
        self._counters = PerCpuMap(PLUGIN, "counters", U64.size, layout.COUNTERS.size)
        self._node = Map(PLUGIN, "node", U32.size, layout.NODE.size)

    def policy(self, cookie: int) -> bytes | None:
        return self._policies.get(U64.pack(cookie))

    def put_policy(self, cookie: int, policy: bytes) -> None:
        self._policies.put(U64.pack(cookie), policy)

    def put_node_limit(self, limit_bytes: int) -> None:
        """One for all pods of the node, whatever their network: the last ADD's."""
        self._node.put(_KEY_0, layout.NODE.pack(limit_bytes))

    def cgroup_ids(self) -> set[int]:
        """Where the pods are seen, as their policies say; 0: at the root."""
        return {layout.POLICY.named(policy)["cgroup_id"] for _, policy in self._policies.items()}

    def node_limit_bytes(self) -> int:
        """0: the first figure of net.ipv4.tcp_mem."""
        limit: int = layout.NODE.named(self._node.get(_KEY_0) or bytes(layout.NODE.size))["limit_bytes"]
        return limit

    def counters(self, cookie: int) -> dict[str, int] | None:
        values = self._counters.get(U64.pack(cookie))
        return None if values is None else layout.sum_counters(values, self._counters.stride_bytes)

    def have_counters(self, cookie: int) -> None:
        """Those of a pod that has some go on."""
        key = U64.pack(cookie)
        if self._counters.get(key) is None:
            self._counters.put(key, bytes(layout.COUNTERS.size))

    def lead(self, addresses: list[bytes], cookie: int) -> None:
        """Addresses that are still another pod's, one that is gone without a DEL, are this one's from now on."""
        for packed in addresses:
            self._addresses.put(layout.pack_addr(packed), U64.pack(cookie))

    def stray(self, addresses: list[bytes], cookie: int) -> list[bytes]:
        """Those that do not lead to the pod."""
        return [packed for packed in addresses if self._addresses.get(layout.pack_addr(packed)) != U64.pack(cookie)]

    def forget(self, addresses: list[bytes], cookie: int, *, with_policy: bool) -> None:
        """Addresses that are another pod's by now stay. Connections that are joined already go on by TCP."""
        attempts = Attempts()
        if with_policy:
            attempts.run(self._policies.remove, U64.pack(cookie))
        for packed in addresses:
            if self._addresses.get(layout.pack_addr(packed)) == U64.pack(cookie):
                attempts.run(self._addresses.remove, layout.pack_addr(packed))
        if with_policy:
            attempts.run(self._counters.remove, U64.pack(cookie))
        attempts.finish()

    def keep_only(self, cookies: Collection[int]) -> None:
        """Forget every pod that is not among them."""
        attempts = Attempts()
        kept = {U64.pack(cookie) for cookie in cookies}
        for of_pods in (self._policies, self._counters):
            for key in of_pods.every_key():
                if key not in kept:
                    attempts.run(of_pods.remove, key)
        for key, cookie in list(self._addresses.items()):
            if cookie not in kept:
                attempts.run(self._addresses.remove, key)
        attempts.finish()
