# SPDX-License-Identifier: Apache-2.0
"""What becomes of a pod that has limits, or had some: on its own devices, in the maps, and on the node.

The verbs come here, and so does the operator who changes the limits of a pod that runs (`bypath bandwidth set`).
"""

from __future__ import annotations

from bandwidth_edt import ifb, layout, nic
from bandwidth_edt.bucket import Buckets, Setting
from bandwidth_edt.config import EARLY_NS, HORIZON_NS
from bandwidth_edt.layout import PLUGIN
from bandwidth_edt.pod import DIRECTIONS, Pod
from bandwidth_edt.shaper import EGRESS, INGRESS, OBJECT
from bpf import bpffs, loader, records
from bpf.records import Record, Records
from cni.errors import INVALID_CONFIG, UNKNOWN_CONTAINER, UNSUPPORTED_FIELD, CniError
from cni.net import ipaddr, link, netns
from cni.net.netlink import Socket
from cni.undo import Attempts, Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bandwidth_edt.config import Config, Limit
    from cni.identity import Attachment
    from cni.net.netns import NetNs
    from cni.request import Request
    from cni.result import Result


def put_in_force(request: Request, attachment: Attachment, pod: NetNs, previous: Result, config: Config) -> None:
    """For ADD, the first of a pod and every later one. All of it, or nothing and an error."""
    addresses = _addresses(previous, request)
    found = link.get(pod.rtnetlink(), request.ifname)
    wanted = _wanted(found, config)
    loader.ensure(OBJECT, _renew_pods)
    owned, buckets = records.open_or_create(PLUGIN), Buckets(PLUGIN)
    # An upgrade that runs meanwhile must see the pod whole or not at all, see _renew_pods().
    with bpffs.Lock(PLUGIN), Undo() as undo:
        record = _known(owned, buckets, attachment, pod, addresses)
        undo.callback(ifb.settle, owned)
        if record is None:
            record = _record_of(request, pod, found, addresses)
            _claim(owned, buckets, attachment, record, undo)
        _enforce(Pod(buckets, attachment.key, record, pod), owned, buckets, record, wanted, undo)
        buckets.lead(record.addresses, record.number)
        undo.pop_all()


def change(owned: Records, network_key: int, key: int, limits: dict[int, Limit | None], egress_places: int) -> None:
    """Other limits for a pod of which an ADD has left a record. All of it, or nothing and an error.

    limits         direction -> its limit from now on; a direction that is not named keeps its own
    egress_places  where the egress limit is kept from now on; 0: where it was, at the pod when there was none
    """
    with bpffs.Lock(PLUGIN), Undo() as undo:
        buckets = Buckets(PLUGIN)
        record = owned.by_key(key, network_key)
        if record and not buckets.is_of(record.number, key):
            record = None  # Of an ADD that was killed, see _known().
        pod = netns.reopen(record.netns_path, record.netns_inode) if record else None
        found = link.find_by_index(pod.rtnetlink(), record.pod_ifindex) if record and pod else None
        if not (record and pod and found):
            raise CniError(UNKNOWN_CONTAINER, "the pod is gone, or its interface; its DEL or the next GC forgets it")
        wanted = {direction: kept for direction in DIRECTIONS if (kept := buckets.get(record.number, direction))}
        places = egress_places or (wanted[EGRESS].places if EGRESS in wanted else layout.AT_POD)
        if EGRESS in wanted:
            wanted[EGRESS].places = places
        for direction, limit in limits.items():
            wanted.pop(direction, None)
            if limit:
                wanted[direction] = _setting_of(direction, limit, places, found)
        if egress_places and EGRESS not in wanted:
            raise CniError(INVALID_CONFIG, "enforce: the pod has no egress limit; set one as well")
        undo.callback(ifb.settle, owned)
        _enforce(Pod(buckets, key, record, pod), owned, buckets, record, wanted, undo)
        undo.pop_all()


def faults(request: Request, attachment: Attachment, pod: NetNs, previous: Result, config: Config) -> list[str]:
    """For CHECK: what is not as ADD left it, as sentences without their subject, the interface."""
    record = records.required(PLUGIN, attachment)
    wanted = _wanted(link.get(pod.rtnetlink(), request.ifname), config)
    found = Pod(Buckets(PLUGIN), attachment.key, record, pod).faults(wanted, _addresses(previous, request))
    if EGRESS in wanted and wanted[EGRESS].places & layout.AT_NIC:
        found += nic.faults(Socket(), wanted[EGRESS].places)
    return found


def take_away(owned: Records, key: int, network_key: int, record: Record, pod: NetNs | None) -> None:
    """For DEL and GC. The record goes last: until then the next one does all of this again."""
    attempts = Attempts()
    with bpffs.Lock(PLUGIN):
        attempts.run(Pod(Buckets(PLUGIN), key, record, pod).remove)
        attempts.run(ifb.settle, owned)
        attempts.finish()
        owned.remove(key, network_key)


def sweep() -> None:
    """For GC: buckets that no record names, of an ADD that was killed between taking one and writing it down."""
    owned = records.open_if_any(PLUGIN)
    if owned is None:
        return
    with bpffs.Lock(PLUGIN):
        Buckets(PLUGIN).keep_only(owned.numbers())
        ifb.settle(owned)


def settle_nics(at_once: bool) -> None:
    bpffs.ensure_directory(PLUGIN)
    with bpffs.Lock(PLUGIN):
        nic.settle(Socket(), at_once)


def _wanted(found: link.Link, config: Config) -> dict[int, Setting]:
    """Direction -> its setting, of the limited ones. Raises CniError when the pod's device cannot have it."""
    wanted = {}
    if config.egress:
        wanted[EGRESS] = _setting_of(EGRESS, config.egress, config.egress_places, found)
    if config.ingress:
        wanted[INGRESS] = _setting_of(INGRESS, config.ingress, 0, found)
    return wanted


def _setting_of(direction: int, limit: Limit, egress_places: int, found: link.Link) -> Setting:
    places = _ingress_place(found) if direction == INGRESS else egress_places
    setting = Setting(limit.rate_bytes_per_sec, limit.burst_ns, places, limit.horizon_ns(found.mtu))
    # Who sends into the pod is far away: unlike the pod's own sockets, nothing holds it back but a loss. A longer
    # horizon than usual is one of four frames, of which none is to spare.
    if direction == INGRESS and setting.horizon_ns == HORIZON_NS:
        setting.early_ns = EARLY_NS
    return setting


def _known(
    owned: Records, buckets: Buckets, attachment: Attachment, pod: NetNs, addresses: list[bytes]
) -> Record | None:
    """What an earlier ADD of this pod left. Raises CniError(CONFLICT) when it was of another pod."""
    record = owned.get(attachment)
    if record is None:
        return None
    if not buckets.is_of(record.number, attachment.key):
        # Of an ADD or DEL that was killed before it had an id, or after it gave it back: that is all there is.
        owned.remove(attachment.key, attachment.network_key)
        return None
    if (record.netns_inode, record.addresses) != (pod.inode, addresses):
        raise records.of_another_pod(attachment)
    return record


def _claim(owned: Records, buckets: Buckets, attachment: Attachment, record: Record, undo: Undo) -> None:
    """Write down what a first ADD is about to do, and take an id."""
    owned.claim(attachment, record)
    undo.callback(owned.remove, attachment.key, attachment.network_key)
    record.number = buckets.claim(attachment.key)
    undo.callback(buckets.remove, record.addresses, record.number)
    owned.put(attachment, record)


def _enforce(
    pod: Pod, owned: Records, buckets: Buckets, record: Record, wanted: dict[int, Setting], undo: Undo
) -> None:
    """Every direction from what is in force to what is wanted, and the node's devices with it."""
    host = Socket()
    undo.callback(nic.put_back, host, not nic.is_in_place())
    for direction in DIRECTIONS:
        before, after = buckets.get(record.number, direction), wanted.get(direction)
        undo.callback(pod.change, direction, after, before)
        pod.change(direction, before, after)
    if EGRESS in wanted and wanted[EGRESS].places & layout.AT_NIC:
        nic.have(host, buckets)
    else:
        nic.settle(host, at_once=False)
    ifb.settle(owned, record.host_ifindex if _is_on_ifb(wanted) else 0)


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


def _record_of(request: Request, pod: NetNs, found: link.Link, addresses: list[bytes]) -> Record:
    """host_ifindex: of a veth's end on the host, without a name; or of an ipvlan device's NIC, with its name."""
    record = Record.of(request, pod)
    record.addresses = addresses
    record.pod_ifindex = found.index
    below = ifb.nic_of(found)
    if found.kind == "veth":
        record.host_ifindex = found.parent
    elif below:
        record.host_ifindex, record.host_name = below.index, below.name
    return record


def _renew_pods() -> None:
    """An upgrade: pods that are there get the new programs too. loader.ensure() holds the lock."""
    buckets, owned = Buckets(PLUGIN), records.open_or_create(PLUGIN)
    buckets.addresses.settle_slots()
    for _, key, record in owned.items():
        Pod(buckets, key, record, netns.reopen(record.netns_path, record.netns_inode)).renew()
    nic.renew(Socket(), buckets)
    ifb.settle(owned, repair=True)
