# SPDX-License-Identifier: Apache-2.0
"""The verbs of bypath-snat."""

from __future__ import annotations

from bpf import bpffs, records
from bpf.records import Record, Records
from cni import result
from cni.errors import CHECK_FAILED, NOT_READY, CniError
from cni.identity import Attachment, fnv1a_64
from cni.net import ipaddr, link
from cni.net.netlink import Socket
from cni.undo import Attempts, Undo
from snat import config, node, uplink
from snat.config import Config
from snat.node import PLUGIN, Network, Pod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.net.netns import NetNs
    from cni.netconf import NetConf
    from cni.request import Request
    from cni.result import Result

_IPVLAN_L2 = 0


class Snat:
    """IPv4 masquerade by tc programs on the node's uplinks."""

    config_keys = config.KEYS
    _config: Config

    def configure(self, conf: NetConf) -> None:
        self._config = Config(conf)

    def add(self, request: Request, conf: NetConf, pod: NetNs) -> Result:
        previous = result.required_prev(conf)
        addresses = _ipv4_addresses(previous, request)
        if not addresses:
            return previous
        attachment = Attachment.of(request, conf.name)
        host = Socket()
        network = Network(conf.name, self._config, uplink.find(host, self._config.uplinks))
        record = Record.of(request, pod)
        record.addresses = addresses
        record.host_ifindex, record.number = _way_out(link.get(pod.rtnetlink(), request.ifname))
        owned = records.open_or_create(PLUGIN)
        with Undo() as undo:
            owned.claim(attachment, record)
            undo.callback(owned.remove, attachment.key, attachment.network_key)
            known = _pod_of(attachment.key, record)
            undo.callback(node.leave, host, conf.name, known)
            node.join(host, network, known)
            undo.pop_all()
        return previous

    def delete(self, request: Request, conf: NetConf, pod: NetNs | None) -> None:
        attachment = Attachment.of(request, conf.name)
        owned, record = records.find(PLUGIN, attachment)
        if owned and record:
            _remove(owned, conf, attachment.key, record)

    def check(self, request: Request, conf: NetConf, pod: NetNs) -> None:
        addresses = _ipv4_addresses(result.required_prev(conf), request)
        if not addresses:
            return
        attachment = Attachment.of(request, conf.name)
        record = records.required(PLUGIN, attachment)
        host = Socket()
        network = Network(conf.name, self._config, uplink.find(host, self._config.uplinks))
        faults = node.faults(host, network, _pod_of(attachment.key, record))
        if sorted(record.addresses) != sorted(addresses):
            faults.append("the pod's addresses are not those that ADD translated")
        if faults:
            raise CniError(CHECK_FAILED, f"{request.ifname}: " + ", ".join(faults))

    def status(self, request: Request, conf: NetConf) -> None:
        try:
            uplink.find(Socket(), self._config.uplinks)
            bpffs.ensure_directory(PLUGIN)
        except CniError as error:
            raise CniError(NOT_READY, error.msg, error.details) from None

    def gc(self, request: Request, conf: NetConf) -> None:
        attempts = Attempts()
        for owned, key, record in records.stale(PLUGIN, conf):
            attempts.run(_remove, owned, conf, key, record)
        attempts.finish()


def _ipv4_addresses(previous: Result, request: Request) -> list[bytes]:
    """The pod's; IPv6 is not translated, so a pod without IPv4 passes through."""
    texts = previous.addresses_of(request.ifname, request.netns)
    packed = [ipaddr.parse_cidr(text, "prevResult.ips")[0] for text in texts]
    return [address for address in packed if len(address) == 4]


def _way_out(pod_link: link.Link) -> tuple[int, int]:
    """(ifindex of the veth's end on the host or 0, 1 when packets pass the node's output hook)."""
    if pod_link.kind == "veth":
        return pod_link.parent, 0
    return 0, int(pod_link.kind == "ipvlan" and link.ipvlan_mode_of(pod_link) != _IPVLAN_L2)


def _pod_of(key: int, record: Record) -> Pod:
    return Pod(key, record.addresses, record.host_ifindex, bool(record.number))


def _remove(owned: Records, conf: NetConf, key: int, record: Record) -> None:
    node.leave(Socket(), conf.name, _pod_of(key, record))
    owned.remove(key, fnv1a_64(conf.name))
