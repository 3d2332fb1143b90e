# SPDX-License-Identifier: Apache-2.0
"""The verbs of bypath-ipvlan."""

from __future__ import annotations

from bpf import bpffs, records
from bpf.records import Record
from cni import ipam, netconf, result
from cni.errors import CHECK_FAILED, LIMITED, NOT_READY, CniError
from cni.identity import Attachment, fnv1a_64
from cni.net import address, link
from cni.net.netlink import NetlinkError, Socket
from cni.undo import Attempts, Undo
from ipvlan import config, layout, master, slave
from ipvlan.config import Config
from ipvlan.layout import Layout
from ipvlan.port import Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bpf.records import Records
    from cni.net.link import Link
    from cni.net.netns import NetNs
    from cni.netconf import NetConf
    from cni.request import Request
    from cni.result import Result

PLUGIN = "ipvlan"


class Ipvlan:
    """One ipvlan device a pod, on the node's NIC or one of the pod's own."""

    config_keys = config.KEYS
    _config: Config

    def configure(self, conf: NetConf) -> None:
        self._config = Config(conf)

    def add(self, request: Request, conf: NetConf, pod: NetNs) -> Result:
        chosen = self._config
        attachment = Attachment.of(request, conf.name)
        socket = pod.rtnetlink() if chosen.in_container else Socket()
        below = master.find(socket, chosen)
        mtu = master.mtu_on(below, chosen)
        owned = records.open_or_create(PLUGIN)
        with Undo() as undo:
            self._claim(owned, attachment, Record.of(request, pod), Port(socket, below, self._inside(pod)))
            undo.callback(owned.remove, attachment.key, attachment.network_key)
            allotted = ipam.add(request, conf)
            undo.callback(ipam.release, request, conf)
            wanted = Layout(chosen.setting.mode, allotted)
            wanted.refuse_mtu(mtu)
            wanted.refuse_subnets(below.name, address.list_of(socket, below.index))
            made = slave.create(socket, pod, attachment, below, chosen.setting, mtu)
            undo.callback(link.remove, pod.rtnetlink(), made.index, made.name)
            slave.set_up(pod, made, wanted)
            undo.pop_all()
        outcome = result.of_prev(conf) or result.empty()
        interface = outcome.add_interface(made.name, link.mac_text(made.mac), request.netns, made.mtu)
        wanted.describe(outcome, interface)
        outcome.dns = allotted.dns or netconf.optional_object(conf.raw, "dns") or outcome.dns
        return outcome

    def _inside(self, pod: NetNs) -> NetNs | None:
        return pod if self._config.in_container else None

    def _claim(self, owned: Records, attachment: Attachment, record: Record, port: Port) -> None:
        """The record is the word on the master's mode, so nobody may look between our look and our word."""
        record.host_ifindex = port.master.index
        record.number = self._config.setting.number(self._config.in_container)
        with bpffs.Lock(PLUGIN):
            port.claim(self._config.setting, owned)
            owned.claim(attachment, record)

    def delete(self, request: Request, conf: NetConf, pod: NetNs | None) -> None:
        attachment = Attachment.of(request, conf.name)
        owned, record = records.find(PLUGIN, attachment)
        attempts = Attempts()
        attempts.run(slave.remove_ours, pod, attachment, record)
        if conf.ipam:
            attempts.run(ipam.release, request, conf)
        attempts.finish()
        if owned:
            owned.remove(attachment.key, attachment.network_key)

    def check(self, request: Request, conf: NetConf, pod: NetNs) -> None:
        attachment = Attachment.of(request, conf.name)
        record = records.required(PLUGIN, attachment)
        ipam.check(request, conf)
        chosen = self._config
        expected = layout.of_final(chosen.setting.mode, result.of_prev(conf) or result.empty(), request)
        below = self._master_of(record, pod)
        socket = pod.rtnetlink()
        found = link.find(socket, request.ifname)
        if found is None:
            raise CniError(CHECK_FAILED, f"{request.ifname} is missing in the pod, which must be made anew")
        faults = slave.faults(socket, found, below, chosen.setting, chosen.mtu or below.mtu, expected.plan())
        if found.alias != attachment.alias:
            faults.append(f"has the alias {found.alias!a}, not {attachment.alias}")
        if faults:
            raise CniError(CHECK_FAILED, f"{request.ifname} in the pod " + ", ".join(faults))

    def _master_of(self, record: Record, pod: NetNs) -> Link:
        """The one that ADD took: the default route may lead elsewhere by now."""
        socket = pod.rtnetlink() if self._config.in_container else Socket()
        try:
            return link.get_by_index(socket, record.host_ifindex)
        except NetlinkError as error:
            raise CniError(CHECK_FAILED, "the pod's master is gone, and its interface with it", str(error)) from None

    def status(self, request: Request, conf: NetConf) -> None:
        socket = Socket()
        try:
            if not self._config.in_container:
                below = master.find(socket, self._config)
                master.mtu_on(below, self._config)
                port = Port(socket, below, None)
                port.refuse_other(self._config.setting, records.open_if_any(PLUGIN))
            slave.require_kernel(socket)
            ipam.status(request, conf)
        except CniError as error:
            code = error.code if error.code in (NOT_READY, LIMITED) else NOT_READY
            raise CniError(code, error.msg, error.details) from None

    def gc(self, request: Request, conf: NetConf) -> None:
        attempts = Attempts()
        for owned, key, record in records.stale(PLUGIN, conf):
            attempts.run(_reap, request, conf, owned, key, record)
        if conf.ipam:
            attempts.run(ipam.gc, request, conf)
        attempts.finish()


def _reap(request: Request, conf: NetConf, owned: Records, key: int, record: Record) -> None:
    slave.remove_ours(None, Attachment(conf.name, record.container_id, record.ifname), record)
    if conf.ipam and record.container_id:
        ipam.release_other(request, conf, record.container_id, record.ifname)
    owned.remove(key, fnv1a_64(conf.name))
