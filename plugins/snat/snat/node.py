# SPDX-License-Identifier: Apache-2.0
"""What snat has once per node: settings of each network, programs on the uplinks, the nft table.

The first pod brings it, the last one takes it away; in between every ADD puts right what differs. All of it happens
under one lock, so that a leaving last pod and a coming first one do not meet half way.
"""

from __future__ import annotations

from bpf import bpffs, loader, records
from bpf.attach import Hook
from bpf.loader import Object
from bpf.maps import Map
from cni.identity import fnv1a_64
from cni.net import ipaddr, link
from cni.net.netlink import Socket
from cni.undo import Attempts
from snat import layout, notrack
from snat.config import Config
from snat.uplink import Uplink

PLUGIN = "snat"
OBJECT = Object(
    PLUGIN,
    "snat.bpf.o",
    ("pods", "networks", "nomasq", "uplinks", "fwd", "rev", "frags", "stackflow", "snat_stats"),
    ("nic_in", "nic_out", "pod_in", "pod_out"),
)
_U32 = layout.U32
_UNTRACKED = 1
"""Bit of NETWORK's flags; the programs do not look at it."""


class Network:
    """One network's settings in the form of the maps.

    number     its id in the maps, 32 bit, of its name
    untracked  (packed network, prefix length) that are not masqueraded: as configured, and the node's own addresses
    """

    __slots__ = ("number", "ports", "untracked", "uplinks")

    def __init__(self, name: str, config: Config, uplinks: list[Uplink]) -> None:
        self.number = network_number(name)
        self.ports = config.ports
        self.uplinks = uplinks
        self.untracked = sorted({*config.non_masquerade, *((uplink.address, 32) for uplink in uplinks)})

    def value(self, untracked: bool) -> bytes:
        """With a hash of all that is synchronised, so that the next ADD sees at one look that nothing changed.

        untracked: the kernel took our nft table, so CHECK may ask for it.
        """
        said = [f"{ipaddr.text_of(network)}/{length}" for network, length in self.untracked]
        return layout.NETWORK.pack(
            *self.ports, _UNTRACKED if untracked else 0, fnv1a_64(" ".join([f"{self.ports}", *said]))
        )


def network_number(name: str) -> int:
    return fnv1a_64(name) >> 32


class Maps:
    """The pinned maps that Python writes. Raises FileNotFoundError when no ADD of this boot has loaded the programs."""

    __slots__ = ("networks", "nomasq", "pods", "uplinks")

    def __init__(self) -> None:
        self.pods = Map(PLUGIN, "pods", 4, layout.POD.size)
        self.networks = Map(PLUGIN, "networks", _U32.size, layout.NETWORK.size)
        self.nomasq = Map(PLUGIN, "nomasq", layout.NOMASQ.size, _U32.size)
        self.uplinks = Map(PLUGIN, "uplinks", _U32.size, layout.UPLINK.size)


class Pod:
    """One pod as the programs know it. host_ifindex: its veth's end on the host, 0 for ipvlan.
    leaves_by_output: its packets pass the node's output hook (ipvlan in l3 and l3s), see notrack.py."""

    __slots__ = ("addresses", "host_ifindex", "key", "leaves_by_output")

    def __init__(self, key: int, addresses: list[bytes], host_ifindex: int, leaves_by_output: bool) -> None:
        self.key = key
        self.addresses = [packed for packed in addresses if len(packed) == 4]
        self.host_ifindex = host_ifindex
        self.leaves_by_output = leaves_by_output

    def hooks(self) -> list[Hook]:
        if not self.host_ifindex:
            return []
        place = f"{self.key:016x}"
        return [
            Hook(PLUGIN, "pod_in", self.host_ifindex, "ingress", place),
            Hook(PLUGIN, "pod_out", self.host_ifindex, "egress", place),
        ]


def nic_hooks(index: int) -> list[Hook]:
    return [
        Hook(PLUGIN, "nic_in", index, "ingress", str(index), shared=True),
        Hook(PLUGIN, "nic_out", index, "egress", str(index), shared=True),
    ]


def join(host: Socket, network: Network, pod: Pod) -> None:
    """Have the node ready and the pod known. What of it was new, `leave` takes away again."""
    loader.ensure(OBJECT, lambda: _renew_pods(host))
    with bpffs.Lock():
        maps = Maps()
        untracked = notrack.ensure(network.untracked)
        _put_network(maps, network, untracked)
        for uplink in network.uplinks:
            maps.uplinks.put(_U32.pack(uplink.index), layout.UPLINK.pack(uplink.address))
            for hook in nic_hooks(uplink.index):
                hook.attach(host)
        if untracked:
            notrack.set_nomasq(_all_untracked(maps))
            notrack.add_pod(_leaving_by_output() - notrack.pods() if pod.leaves_by_output else ())
        value = layout.POD.pack(network.number, pod.host_ifindex, pod.key)
        for packed in pod.addresses:
            maps.pods.put(packed, value)
        for hook in pod.hooks():
            hook.attach(host)


def _leaving_by_output() -> set[bytes]:
    """Of all pods, not just the one that comes: somebody may have flushed the whole ruleset, our set with it."""
    owned = records.open_or_create(PLUGIN)
    return {packed for _, _, record in owned.items() if record.number for packed in record.addresses}


def _renew_pods(host: Socket) -> None:
    """An upgrade: pods that are there get the new programs too, see loader.ensure()."""
    with bpffs.Lock():
        for _, value in Maps().pods.items():
            _, host_ifindex, key = layout.POD.unpack(value)
            if host_ifindex and _exists(host, host_ifindex):
                for hook in Pod(key, [], host_ifindex, False).hooks():
                    hook.attach(host)


def leave(host: Socket, network_name: str, pod: Pod) -> None:
    """Undo `join`, as much of it as there is. Addresses that are another pod's by now stay."""
    attempts = Attempts()
    host_device = host if pod.host_ifindex and _exists(host, pod.host_ifindex) else None
    # One step for all of it: an upgrade that runs meanwhile must see the pod whole or not at all, see _renew_pods().
    with bpffs.Lock():
        for hook in pod.hooks():
            attempts.run(hook.detach, host_device)
        try:
            maps = Maps()
        except FileNotFoundError:
            attempts.finish()
            return
        mine = [packed for packed in pod.addresses if _is_of(maps, packed, pod.key)]
        for packed in mine:
            attempts.run(maps.pods.remove, packed)
        attempts.run(notrack.remove_pod, mine)
        number = network_number(network_name)
        if not any(layout.POD.unpack(value)[0] == number for _, value in maps.pods.items()):
            attempts.run(_remove_network, maps, number)
        if maps.pods.is_empty():
            attempts.run(_leave_node, host, maps)
    attempts.finish()


def faults(host: Socket, network: Network, pod: Pod) -> list[str]:
    """For CHECK: what is not as `join` left it, as sentences."""
    maps = Maps()
    found = []
    value = layout.POD.pack(network.number, pod.host_ifindex, pod.key)
    for packed in pod.addresses:
        if maps.pods.get(packed) != value:
            found.append(f"{ipaddr.text_of(packed)} is not known to the programs as this pod's")
    settings = maps.networks.get(_U32.pack(network.number)) or bytes(layout.NETWORK.size)
    untracked = bool(layout.NETWORK.unpack(settings)[2] & _UNTRACKED)
    if settings != network.value(untracked):
        found.append("the network's ports or nonMasqueradeCIDRs in force are not those of its configuration")
    for uplink in network.uplinks:
        if maps.uplinks.get(_U32.pack(uplink.index)) != layout.UPLINK.pack(uplink.address):
            found.append(f"uplink {uplink.name} translates to another address than {ipaddr.text_of(uplink.address)}")
        found += [f"uplink {uplink.name} {fault}" for hook in nic_hooks(uplink.index) if (fault := hook.fault(host))]
    found += [f"the pod's veth {fault}" for hook in pod.hooks() if (fault := hook.fault(host))]
    fault = notrack.fault(pod.addresses if pod.leaves_by_output else ()) if untracked else ""
    return [*found, fault] if fault else found


def _put_network(maps: Maps, network: Network, untracked: bool) -> None:
    """First the exceptions, then the value that tells that they are in: a kill in between has the next ADD repeat."""
    key, value = _U32.pack(network.number), network.value(untracked)
    if maps.networks.get(key) == value:
        return
    wanted = {layout.pack_nomasq(network.number, packed, length) for packed, length in network.untracked}
    for exception in wanted:
        maps.nomasq.put(exception, _U32.pack(1))
    for exception in _exceptions_of(maps, network.number):
        if exception not in wanted:
            maps.nomasq.remove(exception)
    maps.networks.put(key, value)


def _exceptions_of(maps: Maps, number: int) -> list[bytes]:
    return [key for key in maps.nomasq.every_key() if layout.NOMASQ.unpack(key)[1] == number]


def _all_untracked(maps: Maps) -> list[tuple[bytes, int]]:
    """Of all networks: the nft table has one set of them. What one network too many excepts is tracked, no more."""
    keys = [layout.NOMASQ.unpack(key) for key in maps.nomasq.every_key()]
    return [(packed, prefix_bits - 32) for prefix_bits, _, packed in keys]


def _remove_network(maps: Maps, number: int) -> None:
    maps.networks.remove(_U32.pack(number))
    for exception in _exceptions_of(maps, number):
        maps.nomasq.remove(exception)


def _leave_node(host: Socket, maps: Maps) -> None:
    """The last pod is gone: the uplinks and netfilter are as they were. Programs and sessions stay pinned, unused."""
    attempts = Attempts()
    for key in maps.uplinks.every_key():
        index = int(_U32.unpack(key)[0])
        device = host if _exists(host, index) else None
        for hook in nic_hooks(index):
            attempts.run(hook.detach, device)
        attempts.run(maps.uplinks.remove, key)
    attempts.run(notrack.remove)
    attempts.finish()


def _is_of(maps: Maps, packed: bytes, key: int) -> bool:
    value = maps.pods.get(packed)
    return value is not None and layout.POD.unpack(value)[2] == key


def _exists(host: Socket, index: int) -> bool:
    return link.find_by_index(host, index) is not None
