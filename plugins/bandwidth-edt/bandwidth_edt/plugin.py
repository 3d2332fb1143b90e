# SPDX-License-Identifier: Apache-2.0
"""The verbs of bypath-bandwidth-edt."""

from __future__ import annotations

import posix

from bandwidth_edt import config, ifb, layout, nic
from bandwidth_edt.bucket import Buckets, Setting
from bandwidth_edt.config import Config, Limit
from bandwidth_edt.pod import DIRECTIONS, Pod
from bandwidth_edt.shaper import EGRESS, INGRESS, OBJECT, PLUGIN
from bpf import bpffs, loader, records
from bpf.records import Record, Records
from cni import files, result
from cni.errors import CHECK_FAILED, CONFLICT, INVALID_CONFIG, NOT_READY, UNSUPPORTED_FIELD, CniError
from cni.identity import Attachment, fnv1a_64
from cni.net import ipaddr, link, netns
from cni.net.netlink import Socket
from cni.undo import Attempts, Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.net.netns import NetNs
    from cni.netconf import NetConf
    from cni.request import Request
    from cni.result import Result


class BandwidthEdt:
    """Egress on the pod's own interface, ingress on the host's end of its veth, or on the node's ifb."""

    config_keys = config.KEYS
    _config: Config

    def configure(self, conf: NetConf) -> None:
        self._config = Config(conf)

    def add(self, request: Request, conf: NetConf, pod: NetNs) -> Result:
        """A second ADD of a pod changes its limits; without any limit it takes them away."""
        previous = result.required_prev(conf)
        attachment = Attachment.of(request, conf.name)
        owned = records.open_if_any(PLUGIN)
        record = owned.get(attachment) if owned else None
        if not self._config.egress and not self._config.ingress:
            if owned and record:
                _remove(owned, attachment.key, attachment.network_key, record, pod)
            _settle(at_once=False)
            return previous
        addresses = _addresses(previous, request)
        found = link.get(pod.rtnetlink(), request.ifname)
        wanted = self._wanted(found)
        loader.ensure(OBJECT, _renew_pods)
        owned = records.open_or_create(PLUGIN)
        # An upgrade that runs meanwhile must see the pod whole or not at all, see _renew_pods().
        with bpffs.Lock(PLUGIN), Undo() as undo:
            record = _known(owned, attachment, pod, addresses)
            undo.callback(ifb.settle, owned)
            if record is None:
                record = _claim(owned, attachment, Record.of(request, pod), found, addresses, undo)
            host = Socket()
            undo.callback(nic.put_back, host, not nic.is_in_place())
            _enforce(Pod(Buckets(PLUGIN), attachment.key, record, pod), record, wanted, undo)
            if EGRESS in wanted and wanted[EGRESS].places & layout.AT_NIC:
                nic.have(host, Buckets(PLUGIN))
            else:
                nic.settle(host, at_once=False)
            ifb.settle(owned, record.host_ifindex if _is_on_ifb(wanted) else 0)
            Buckets(PLUGIN).lead(record.addresses, record.number)
            undo.pop_all()
        return previous

    def delete(self, request: Request, conf: NetConf, pod: NetNs | None) -> None:
        attachment = Attachment.of(request, conf.name)
        owned = records.open_if_any(PLUGIN)
        record = owned.get(attachment) if owned else None
        attempts = Attempts()
        if owned and record:
            same_pod = pod if pod and pod.inode == record.netns_inode else None
            attempts.run(_remove, owned, attachment.key, attachment.network_key, record, same_pod)
        attempts.run(_settle, False)
        attempts.finish()

    def check(self, request: Request, conf: NetConf, pod: NetNs) -> None:
        previous = result.required_prev(conf)
        attachment = Attachment.of(request, conf.name)
        if not self._config.egress and not self._config.ingress:
            return
        record = records.required(PLUGIN, attachment)
        wanted = self._wanted(link.get(pod.rtnetlink(), request.ifname))
        faults = Pod(Buckets(PLUGIN), attachment.key, record, pod).faults(wanted, _addresses(previous, request))
        if EGRESS in wanted and wanted[EGRESS].places & layout.AT_NIC:
            faults += nic.faults(Socket(), wanted[EGRESS].places)
        if faults:
            raise CniError(CHECK_FAILED, f"{request.ifname}: " + ", ".join(faults))

    def status(self, request: Request, conf: NetConf) -> None:
        if _kernel_has_fq() is False:
            release = posix.uname().release
            raise CniError(NOT_READY, f"kernel {release} has no fq packet scheduler: neither built in nor a module")
        bpffs.ensure_directory(PLUGIN)

    def gc(self, request: Request, conf: NetConf) -> None:
        owned = records.open_if_any(PLUGIN)
        attempts = Attempts()
        for key, record in records.stale(owned, conf) if owned else []:
            pod = netns.reopen(record.netns_path, record.netns_inode)
            attempts.run(_remove, owned, key, fnv1a_64(conf.name), record, pod)
        if owned:
            attempts.run(_sweep, owned)
        attempts.run(_settle, True)
        attempts.finish()

    def _wanted(self, found: link.Link) -> dict[int, Setting]:
        """Direction -> its setting, of the limited ones. Raises CniError when the pod's device cannot have it."""
        wanted = {}
        if self._config.egress:
            wanted[EGRESS] = _setting(self._config.egress, self._config.egress_places, found.mtu)
        if self._config.ingress:
            wanted[INGRESS] = _setting(self._config.ingress, _ingress_place(found), found.mtu)
        return wanted


def _setting(limit: Limit, places: int, mtu: int) -> Setting:
    return Setting(limit.rate_bytes_per_sec, limit.burst_ns, places, limit.horizon_ns(mtu))


def _known(owned: Records, attachment: Attachment, pod: NetNs, addresses: list[bytes]) -> Record | None:
    """What an earlier ADD of this pod left. Raises CniError(CONFLICT) when it was of another pod."""
    record = owned.get(attachment)
    if record is None:
        return None
    if not Buckets(PLUGIN).is_of(record.number, attachment.key):
        # Of an ADD or DEL that was killed before it had an id, or after it gave it back: that is all there is.
        owned.remove(attachment.key, attachment.network_key)
        return None
    if (record.netns_inode, record.addresses) != (pod.inode, addresses):
        raise CniError(
            CONFLICT,
            f"CNI_CONTAINERID {attachment.container_id} has {attachment.ifname} on network {attachment.network} "
            "already, in another network namespace or with other addresses; call DEL for it first",
        )
    return record


def _claim(
    owned: Records, attachment: Attachment, record: Record, found: link.Link, addresses: list[bytes], undo: Undo
) -> Record:
    """Write down what a first ADD is about to do, and take an id."""
    record.addresses = addresses
    record.pod_ifindex = found.index
    record.host_ifindex, record.host_name = _host_side(found)
    buckets = Buckets(PLUGIN)
    owned.claim(attachment, record)
    undo.callback(owned.remove, attachment.key, attachment.network_key)
    record.number = buckets.claim(attachment.key)
    undo.callback(buckets.remove, record.addresses, record.number)
    owned.put(attachment, record)
    return record


def _enforce(pod: Pod, record: Record, wanted: dict[int, Setting], undo: Undo) -> None:
    """Every direction from what is in force to what is wanted."""
    buckets = Buckets(PLUGIN)
    for direction in DIRECTIONS:
        before, after = buckets.get(record.number, direction), wanted.get(direction)
        undo.callback(pod.change, direction, after, before)
        pod.change(direction, before, after)


def _addresses(previous: Result, request: Request) -> list[bytes]:
    texts = previous.addresses_of(request.ifname, request.netns)
    if not texts:
        raise CniError(INVALID_CONFIG, f"prevResult.ips: none is on {request.ifname} in {request.netns}")
    return [ipaddr.parse_cidr(text, "prevResult.ips")[0] for text in texts]


def _ingress_place(found: link.Link) -> int:
    if found.kind == "veth" and found.parent:
        return layout.AT_POD
    if ifb.nic_of(found):
        return layout.AT_IFB
    raise CniError(
        UNSUPPORTED_FIELD,
        f"ingressRate: {found.name} is a {found.kind or 'device'} without an end on the host, and no ipvlan of one of "
        "the host's NICs, so there is no place to shape ingress; take the ingress limit off this pod",
    )


def _is_on_ifb(wanted: dict[int, Setting]) -> bool:
    return any(setting.places & layout.AT_IFB for setting in wanted.values())


def _host_side(found: link.Link) -> tuple[int, str]:
    """For the record: ifindex of a veth's end on the host without its name, or both of an ipvlan device's NIC."""
    if found.kind == "veth":
        return found.parent, ""
    nic = ifb.nic_of(found)
    return (nic.index, nic.name) if nic else (0, "")


def _renew_pods() -> None:
    """An upgrade: pods that are there get the new programs too. loader.ensure() holds the lock."""
    buckets, owned = Buckets(PLUGIN), records.open_or_create(PLUGIN)
    for _, key, record in owned.items():
        Pod(buckets, key, record, netns.reopen(record.netns_path, record.netns_inode)).renew()
    nic.renew(Socket(), buckets)
    ifb.settle(owned, repair=True)


def _remove(owned: Records, key: int, network_key: int, record: Record, pod: NetNs | None) -> None:
    """The record goes last: until then the next DEL or GC does all of this again."""
    attempts = Attempts()
    with bpffs.Lock(PLUGIN):
        attempts.run(Pod(Buckets(PLUGIN), key, record, pod).remove)
        attempts.run(ifb.settle, owned)
        attempts.finish()
        owned.remove(key, network_key)


def _settle(at_once: bool) -> None:
    """Give the node back what only limits that are gone needed."""
    if nic.is_in_place():
        bpffs.ensure_directory(PLUGIN)
        with bpffs.Lock(PLUGIN):
            nic.settle(Socket(), at_once)


def _sweep(owned: Records) -> None:
    """Buckets that no record names: of an ADD that was killed between taking one and writing it down."""
    with bpffs.Lock(PLUGIN):
        Buckets(PLUGIN).keep_only(owned.numbers())
        ifb.settle(owned)


def _kernel_has_fq() -> bool | None:
    """Without loading it: STATUS has no effects. None when this file system does not tell, as in a container."""
    if bpffs.exists("/sys/module/sch_fq"):
        return True
    modules = f"/lib/modules/{posix.uname().release}"
    known = [
        text for name in ("modules.builtin", "modules.dep") if (text := files.read(f"{modules}/{name}")) is not None
    ]
    return any(b"/sch_fq.ko" in text for text in known) if known else None
