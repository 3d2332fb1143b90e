# SPDX-License-Identifier: Apache-2.0
"""The verbs of bypath-bandwidth-edt."""

from __future__ import annotations

import posix

from bandwidth_edt import bucket, config
from bandwidth_edt.bucket import Buckets
from bandwidth_edt.config import Config, Limit
from bandwidth_edt.shaper import EGRESS, INGRESS, NAMES, OBJECT, PLUGIN, Shaper, hook_of
from bpf import bpffs, loader, records
from bpf.records import Record, Records
from cni import files, result
from cni.errors import CHECK_FAILED, INVALID_CONFIG, NOT_READY, UNSUPPORTED_FIELD, CniError
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
    """Egress on the pod's own interface, ingress on the host's end of its veth. A pod without limits gets nothing."""

    config_keys = config.KEYS
    _config: Config

    def configure(self, conf: NetConf) -> None:
        self._config = Config(conf)

    def add(self, request: Request, conf: NetConf, pod: NetNs) -> Result:
        previous = result.required_prev(conf)
        limits = self._limits()
        if not limits:
            return previous
        attachment = Attachment.of(request, conf.name)
        record = Record.of(request, pod)
        record.addresses = _addresses(previous, request)
        found = link.get(pod.rtnetlink(), request.ifname)
        record.pod_ifindex = found.index
        record.host_ifindex = _host_end(found) if INGRESS in limits else 0
        loader.ensure(OBJECT, _renew_pods)
        owned = records.open_or_create(PLUGIN)
        buckets = Buckets(PLUGIN)
        # An upgrade that runs meanwhile must see the pod whole or not at all, see _renew_pods().
        with bpffs.Lock(PLUGIN), Undo() as undo:
            owned.claim(attachment, record)
            undo.callback(owned.remove, attachment.key, attachment.network_key)
            record.number = buckets.claim(attachment.key)
            undo.callback(buckets.remove, record.addresses, record.number)
            owned.put(attachment, record)
            for direction, limit in limits.items():
                buckets.limit(record.number, direction, limit)
                undo.callback(_detach, pod, record, attachment.key, direction)
                _attach(pod, record, attachment.key, direction, limit)
            buckets.lead(record.addresses, record.number)
            undo.pop_all()
        return previous

    def delete(self, request: Request, conf: NetConf, pod: NetNs | None) -> None:
        attachment = Attachment.of(request, conf.name)
        owned = records.open_if_any(PLUGIN)
        record = owned.get(attachment) if owned else None
        if owned and record:
            same_pod = pod if pod and pod.inode == record.netns_inode else None
            _remove(owned, attachment.key, attachment.network_key, record, same_pod)

    def check(self, request: Request, conf: NetConf, pod: NetNs) -> None:
        previous = result.required_prev(conf)
        limits = self._limits()
        attachment = Attachment.of(request, conf.name)
        if not limits:
            return
        record = records.required(PLUGIN, attachment)
        faults = _map_faults(record, limits, _addresses(previous, request))
        for direction in limits:
            faults += _device_faults(pod, record, attachment.key, direction)
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
        attempts.finish()

    def _limits(self) -> dict[int, Limit]:
        wanted = {EGRESS: self._config.egress, INGRESS: self._config.ingress}
        return {direction: limit for direction, limit in wanted.items() if limit}


def _addresses(previous: Result, request: Request) -> list[bytes]:
    texts = previous.addresses_of(request.ifname, request.netns)
    if not texts:
        raise CniError(INVALID_CONFIG, f"prevResult.ips: none is on {request.ifname} in {request.netns}")
    return [ipaddr.parse_cidr(text, "prevResult.ips")[0] for text in texts]


def _host_end(found: link.Link) -> int:
    """ifindex of a veth's other end; a device of another kind has none to shape on."""
    if found.kind != "veth" or not found.parent:
        raise CniError(
            UNSUPPORTED_FIELD,
            f"ingressRate: {found.name} is a {found.kind or 'device'} without an end on the host, where ingress is "
            "shaped; take the ingress limit off this pod",
        )
    return found.parent


def _renew_pods() -> None:
    """An upgrade: pods that are there get the new programs too. loader.ensure() holds the lock."""
    owned, buckets = records.open_or_create(PLUGIN), Buckets(PLUGIN)
    for _, key, record in owned.items():
        pod = netns.reopen(record.netns_path, record.netns_inode)
        for direction in (EGRESS, INGRESS):
            shaper = _shaper(pod, record, key, direction) if buckets.limit_of(record.number, direction) else None
            if shaper:
                shaper.renew()


def _device(pod: NetNs | None, record: Record, direction: int) -> tuple[Socket, link.Link] | None:
    """Where this direction is shaped, or None when that device is gone."""
    if direction == INGRESS:
        socket, index = Socket(), record.host_ifindex
    elif pod is not None:
        socket, index = pod.rtnetlink(), record.pod_ifindex
    else:
        return None
    found = link.find_by_index(socket, index) if index else None
    return (socket, found) if found else None


def _shaper(pod: NetNs | None, record: Record, key: int, direction: int) -> Shaper | None:
    device = _device(pod, record, direction)
    return Shaper(direction, *device, f"{key:016x}", pod if direction == EGRESS else None) if device else None


def _attach(pod: NetNs, record: Record, key: int, direction: int, limit: Limit) -> None:
    shaper = _shaper(pod, record, key, direction)
    if shaper is None:
        raise CniError(INVALID_CONFIG, f"{record.ifname} vanished from {pod.path} during ADD")
    shaper.attach(limit)


def _detach(pod: NetNs | None, record: Record, key: int, direction: int) -> None:
    """Give the device back; of a device that is gone, only the pin of its link is left."""
    shaper = _shaper(pod, record, key, direction)
    if shaper:
        shaper.detach()
    else:
        hook_of(direction, 0, f"{key:016x}").detach(None)


def _remove(owned: Records, key: int, network_key: int, record: Record, pod: NetNs | None) -> None:
    attempts = Attempts()
    with bpffs.Lock(PLUGIN):
        for direction in (EGRESS, INGRESS):
            attempts.run(_detach, pod, record, key, direction)
        if record.number:
            attempts.run(Buckets(PLUGIN).remove, record.addresses, record.number)
        attempts.finish()
        owned.remove(key, network_key)


def _sweep(owned: Records) -> None:
    """Buckets that no record names: of an ADD that was killed between taking one and writing it down."""
    with bpffs.Lock(PLUGIN):
        Buckets(PLUGIN).keep_only(owned.numbers())


def _map_faults(record: Record, limits: dict[int, Limit], addresses: list[bytes]) -> list[str]:
    buckets = Buckets(PLUGIN)
    faults = []
    for direction, limit in limits.items():
        if buckets.limit_of(record.number, direction) != bucket.pack_limit(limit):
            faults.append(f"the {NAMES[direction]} limit in force is not {limit.rate_bytes_per_sec * 8} bit/s")
    for packed in addresses:
        if buckets.leads_to(packed) != record.number:
            faults.append(f"{ipaddr.text_of(packed)} does not lead to the pod's bucket")
    return faults


def _device_faults(pod: NetNs, record: Record, key: int, direction: int) -> list[str]:
    shaper = _shaper(pod, record, key, direction)
    return shaper.faults() if shaper else [f"the device of the {NAMES[direction]} limit is gone"]


def _kernel_has_fq() -> bool | None:
    """Without loading it: STATUS has no effects. None when this file system does not tell, as in a container."""
    if bpffs.exists("/sys/module/sch_fq"):
        return True
    modules = f"/lib/modules/{posix.uname().release}"
    known = [
        text for name in ("modules.builtin", "modules.dep") if (text := files.read(f"{modules}/{name}")) is not None
    ]
    return any(b"/sch_fq.ko" in text for text in known) if known else None
