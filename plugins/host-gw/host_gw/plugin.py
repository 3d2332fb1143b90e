# SPDX-License-Identifier: Apache-2.0
"""The verbs of bypath-host-gw."""

from __future__ import annotations

import errno

from bpf import records
from bpf.records import Record, Records
from cni import ipam, netconf, result
from cni.errors import CHECK_FAILED, CONFLICT, INVALID_CONFIG, NOT_READY, CniError
from cni.identity import Attachment, fnv1a_64
from cni.net import ipaddr, link, sysctl
from cni.net.link import Link
from cni.net.netlink import NetlinkError, Socket
from cni.undo import Attempts, Undo
from host_gw import config
from host_gw.config import Config
from host_gw.wire import GATEWAY, Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.net.netns import NetNs
    from cni.net.plan import Plan
    from cni.netconf import NetConf
    from cni.request import Request
    from cni.result import Result

PLUGIN = "host-gw"


class HostGw:
    """A veth pair, plain routes, permanent neighbours."""

    config_keys = config.KEYS
    _config: Config

    def configure(self, conf: NetConf) -> None:
        self._config = Config(conf)

    def add(self, request: Request, conf: NetConf, pod: NetNs) -> Result:
        outcome = result.of_prev(conf) or result.empty()
        attachment = Attachment.of(request, conf.name)
        host = Socket()
        mtu = self._config.mtu_on(host)
        owned = records.open_or_create(PLUGIN)
        record = Record.of(request, pod)
        record.host_name, record.number = attachment.device_name(self._config.prefix), mtu
        with Undo() as undo:
            owned.claim(attachment, record)
            undo.callback(owned.remove, attachment.key, attachment.network_key)
            allotted = ipam.add(request, conf)
            undo.callback(ipam.release, request, conf)
            wire = Wire(attachment, allotted)
            sysctl.require_forwarding(wire.families)
            host_link = _make_veth(host, record.host_name, mtu, attachment, wire, pod)
            undo.callback(link.remove, host, host_link.index, host_link.name)
            _set_up_pod(pod, request.ifname, wire)
            host.ask(link.set_alias(host_link.name, attachment.alias), *wire.host_plan().messages(host_link.index))
            undo.pop_all()
        outcome.add_interface(host_link.name, link.mac_text(wire.host_mac), "", mtu)
        interface = outcome.add_interface(request.ifname, link.mac_text(wire.pod_mac), request.netns, mtu)
        wire.describe(outcome, interface)
        outcome.dns = allotted.dns or netconf.optional_object(conf.raw, "dns") or outcome.dns
        return outcome

    def delete(self, request: Request, conf: NetConf, pod: NetNs | None) -> None:
        attachment = Attachment.of(request, conf.name)
        owned, record = records.find(PLUGIN, attachment)
        name = record.host_name if record else attachment.device_name(config.prefix_for_delete(conf))
        attempts = Attempts()
        attempts.run(_remove_host_end, Socket(), name, attachment.alias)
        if conf.ipam:
            attempts.run(ipam.release, request, conf)
        attempts.finish()
        if owned:
            owned.remove(attachment.key, attachment.network_key)

    def check(self, request: Request, conf: NetConf, pod: NetNs) -> None:
        attachment = Attachment.of(request, conf.name)
        record = records.required(PLUGIN, attachment)
        ipam.check(request, conf)
        final = result.of_prev(conf) or result.empty()
        wire = Wire(attachment, _allotted_part(final, request))
        sysctl.require_forwarding(wire.families)
        host = Socket()
        _check_end(host, record.host_name, record.number, wire.host_mac, wire.host_plan(), "the node")
        _check_end(pod.rtnetlink(), request.ifname, record.number, wire.pod_mac, wire.pod_plan(), "the pod")

    def status(self, request: Request, conf: NetConf) -> None:
        try:
            sysctl.require_forwarding({2})
        except CniError as error:
            raise CniError(NOT_READY, error.msg, error.details) from None
        ipam.status(request, conf)

    def gc(self, request: Request, conf: NetConf) -> None:
        attempts = Attempts()
        host = Socket()
        for owned, key, record in records.stale(PLUGIN, conf):
            attempts.run(_reap, request, conf, owned, host, key, record)
        if conf.ipam:
            attempts.run(ipam.gc, request, conf)
        attempts.finish()


def _make_veth(host: Socket, name: str, mtu: int, attachment: Attachment, wire: Wire, pod: NetNs) -> Link:
    ifname = attachment.ifname
    try:
        host.ask(link.new_veth(name, wire.host_mac, mtu, ifname, wire.pod_mac, pod.descriptor))
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        raise CniError(
            CONFLICT, f"CNI_IFNAME {ifname} exists in {pod.path} already, or {name} on the node; remove it first"
        ) from None
    return link.get(host, name)


def _set_up_pod(pod: NetNs, ifname: str, wire: Wire) -> None:
    if 10 in wire.families:
        pod.inside(sysctl.enable_ipv6, ifname)
    socket = pod.rtnetlink()
    reply = socket.ask(link.set_up(ifname), link.ask_for(ifname))[0]
    socket.ask(*wire.pod_plan().messages(Link(reply).index))


def _remove_host_end(host: Socket, name: str, alias: str) -> None:
    """The pod's end, its routes and the host's go with it. A device without our alias is one that ADD was killed at,
    or somebody else's veth of the same name, which a name made of 44 bits of hash makes impossible in practice."""
    found = link.find(host, name)
    if found and found.kind == "veth" and found.alias in (alias, ""):
        link.remove(host, found.index, found.name)


def _allotted_part(final: Result, request: Request) -> Result:
    """Of the chain's final result, what was ours: the addresses on our interface, and the routes by our gateways."""
    ours = result.empty()
    ours.ips = [{"address": text} for text in final.addresses_of(request.ifname, request.netns)]
    gateways = {ipaddr.text_of(packed) for packed in GATEWAY.values()}
    ours.routes = [route for route in final.routes if route.get("gw") in gateways]
    if not ours.ips:
        raise CniError(INVALID_CONFIG, f"prevResult.ips: none is on {request.ifname} in {request.netns}")
    return ours


def _check_end(socket: Socket, name: str, mtu: int, mac: bytes, plan: Plan, where: str) -> None:
    found = link.find(socket, name)
    if found is None:
        raise CniError(CHECK_FAILED, f"{name} is missing in {where}; the pod must be made anew")
    faults = plan.faults(socket, found.index)
    if not found.is_up:
        faults.insert(0, "is down")
    if found.kind != "veth" or found.mac != mac:
        faults.insert(0, "is not the device that ADD made")
    if found.mtu != mtu:
        faults.insert(0, f"has MTU {found.mtu}, not {mtu}")
    if faults:
        raise CniError(CHECK_FAILED, f"{name} in {where} " + ", ".join(faults))


def _reap(request: Request, conf: NetConf, owned: Records, host: Socket, key: int, record: Record) -> None:
    alias = Attachment(conf.name, record.container_id, record.ifname).alias
    _remove_host_end(host, record.host_name, alias)
    if conf.ipam and record.container_id:
        ipam.release_other(request, conf, record.container_id, record.ifname)
    owned.remove(key, fnv1a_64(conf.name))
