# SPDX-License-Identifier: Apache-2.0
"""What the verbs do for a pod that is accelerated, or was: in the maps, and on the node."""

from __future__ import annotations

from bpf import bpffs, loader, records
from bpf.records import Record, Records
from bpf.sockets import short_id
from cni import log
from cni.errors import KERNEL_LACKS, NOT_READY, UNSUPPORTED_FIELD, CniError
from cni.net import ipaddr, netns
from cni.undo import Attempts, Undo
from sockmap import layout, node, verdict
from sockmap.layout import PLUGIN
from sockmap.pod import Maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.identity import Attachment
    from cni.net.netns import NetNs
    from cni.request import Request
    from cni.result import Result
    from sockmap.config import Config


def put_in_force(request: Request, attachment: Attachment, pod: NetNs, previous: Result, config: Config) -> None:
    """For ADD, the first of a pod and every later one. All of it, or nothing and an error."""
    addresses, cookie = _addresses(previous, request), _cookie(pod)
    cgroup = node.cgroup_of(config.cgroup_path)
    loader.ensure(node.OBJECT, node.PROGRAMS.renew)
    owned = records.open_or_create(PLUGIN)
    with bpffs.Lock(PLUGIN), Undo() as undo:
        maps = Maps()
        if not _is_known(owned, attachment, cookie, addresses):
            record = Record.of(request, pod)
            record.addresses, record.number = addresses, cookie
            owned.claim(attachment, record)
            undo.callback(_take_away, owned, maps, attachment.key, attachment.network_key, record)
        before = maps.policy(cookie)
        cgroup_id = node.attach(cgroup)
        maps.have_counters(cookie)
        maps.lead(addresses, cookie)
        # A change that fails before this line has changed nothing.
        maps.put_policy(cookie, _packed(config, attachment, cgroup_id))
        undo.pop_all()
        maps.put_node_limit(config.node_limit_bytes)
        if before and layout.POLICY.named(before)["cgroup_id"] != cgroup_id:
            node.keep_links(maps.cgroup_ids())


def faults(request: Request, attachment: Attachment, pod: NetNs, previous: Result, config: Config) -> list[str]:
    """For CHECK: what is not as ADD left it, as sentences without their subject, the interface."""
    record = records.required(PLUGIN, attachment)
    cookie = _cookie(pod)
    if record.number != cookie:
        return [f"is in another network namespace than at ADD (cookie {cookie} instead of {record.number})"]
    maps = Maps()
    cgroup = node.cgroup_of(config.cgroup_path)
    found = node.faults(cgroup)
    cgroup_id = short_id(cgroup) if cgroup else 0
    if not _is_same(maps.policy(cookie), _packed(config, attachment, cgroup_id)):
        found.append("the policy in force is not the configured one")
    stray = maps.stray(_addresses(previous, request), cookie)
    return [*found, *(f"{ipaddr.text_of(packed)} does not lead to the pod" for packed in stray)]


def take_away(owned: Records, key: int, network_key: int, record: Record) -> None:
    """For DEL and GC."""
    with bpffs.Lock(PLUGIN):
        _take_away(owned, Maps(), key, network_key, record)


def sweep(owned: Records) -> None:
    """For GC: what no record names, and the node's part when there is no record at all."""
    with bpffs.Lock(PLUGIN):
        maps = Maps()
        maps.keep_only(owned.numbers())
        node.keep_links(maps.cgroup_ids())
        if owned.is_empty():
            node.PROGRAMS.detach()


def fault_of_kernel() -> str:
    """Why redirected TCP cannot be trusted here, empty when it can. The first one to ask on a kernel tests it."""
    known = verdict.known(node.OBJECT)
    if known is not None:
        return known
    from sockmap import selftest

    return node.fault() or verdict.find(node.OBJECT, selftest.run)


def is_refused_by_kernel() -> bool:
    """As far as it is known: CHECK tests nothing."""
    return bool(verdict.known(node.OBJECT))


def refuse_or_warn(attachment: Attachment, config: Config, fault: str) -> None:
    if config.is_required:
        raise CniError(KERNEL_LACKS, f'{fault}; set onUnsupported to "skip" to start pods without bypath-sockmap')
    log.warn(f"{attachment.alias}: stays without bypath-sockmap: {fault}")


def require_suitable_kernel() -> None:
    """For STATUS, which has no effects: what is known, and what can be seen without a test."""
    fault = verdict.known(node.OBJECT) or node.fault()
    if fault:
        raise CniError(NOT_READY, fault)


def _cookie(pod: NetNs) -> int:
    """Raises CniError for the node's own namespace: its policy would be one for every process of the node."""
    cookie = pod.inside(netns.cookie)
    if cookie == netns.cookie():
        raise CniError(UNSUPPORTED_FIELD, "mode: the host's own network namespace cannot be accelerated; set it to off")
    return cookie


def _addresses(previous: Result, request: Request) -> list[bytes]:
    """A pod may have none: what is sent over loopback needs none."""
    texts = previous.addresses_of(request.ifname, request.netns)
    return [ipaddr.parse_cidr(text, "prevResult.ips")[0] for text in texts]


def _packed(config: Config, attachment: Attachment, cgroup_id: int) -> bytes:
    return layout.pack_policy(
        config.scopes, config.limit_bytes, config.ports, config.uids, attachment.key, cgroup_id
    )  # fmt: skip


def _is_same(policy: bytes | None, wanted: bytes) -> bool:
    """Whichever of the pod's attachments wrote it, which is the last field."""
    return policy is not None and layout.POLICY.unpack(policy)[:-1] == layout.POLICY.unpack(wanted)[:-1]


def _is_known(owned: Records, attachment: Attachment, cookie: int, addresses: list[bytes]) -> bool:
    """Whether an earlier ADD of this pod left a record. Raises CniError(CONFLICT) when it was of another pod."""
    record = owned.get(attachment)
    if record is None:
        return False
    if (record.number, record.addresses) != (cookie, addresses):
        raise records.of_another_pod(attachment)
    return True


def _take_away(owned: Records, maps: Maps, key: int, network_key: int, record: Record) -> None:
    """The record goes last: until then the next DEL or GC does all of this again.

    A pod may have another attachment, of this network or another, and keeps its policy until the last one goes.
    """
    others = [other for _, other_key, other in owned.items() if other_key != key]
    attempts = Attempts()
    cookie = record.number
    is_last_of_pod = all(other.number != cookie for other in others)
    attempts.run(lambda: maps.forget(record.addresses, cookie, with_policy=is_last_of_pod))
    attempts.run(lambda: node.keep_links(maps.cgroup_ids()))
    if not others:
        attempts.run(node.PROGRAMS.detach)
    attempts.finish()
    owned.remove(key, network_key)
