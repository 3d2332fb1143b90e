# SPDX-License-Identifier: Apache-2.0
"""One record per attachment in the pinned map `attachments` of each plugin.

It is written before the first effect of an ADD and removed after the last of a DEL, and says enough to undo the ADD
without the netns, without prevResult and without files: whatever moment a plugin is killed at, the next DEL or GC
finds what is left. No BPF program reads this map, so it is made here, by bpf(2), and not by libbpf.
"""

from __future__ import annotations

import errno
import posix
from _struct import Struct

from cni.errors import CONFLICT, IO_FAILURE, TRY_AGAIN_LATER, UNKNOWN_CONTAINER, CniError
from cni.identity import Attachment, fnv1a_64

from . import bpffs, command, pins
from .maps import Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.net.netns import NetNs
    from cni.netconf import NetConf
    from cni.request import Request

MAP_NAME = "attachments"
_MAX_ENTRIES = 16384
_MAX_ADDRESSES = 8
_KEY = Struct("=QQ")
_VALUE = Struct("=QIIQI16s16s128s208s128s")
_MAX_ID_BYTES = 127
_MAX_PATH_BYTES = 207
_V4_MAPPED = bytes(10) + b"\xff\xff"


class Record:
    """What one attachment has on the node.

    container_id  empty when it was longer than 127 bytes
    netns_inode  of the pod's nsfs file, to tell a reused path from the pod's own
    netns_path   at most 207 bytes, empty when it was longer
    ifname       the pod's interface; pod_ifindex is its number in the pod's namespace
    host_name    the device on the host's side, empty when there is none; host_ifindex is its number
    addresses    up to 8, packed, 4 or 16 bytes
    number       the plugin's own, 64 bit, such as a bucket id or a namespace's cookie
    """

    __slots__ = (
        "addresses", "container_id", "host_ifindex", "host_name", "ifname", "netns_inode", "netns_path", "number",
        "pod_ifindex",
    )  # fmt: skip

    def __init__(
        self,
        *,
        container_id: str = "",
        netns_inode: int = 0,
        netns_path: str = "",
        ifname: str = "",
        pod_ifindex: int = 0,
        host_name: str = "",
        host_ifindex: int = 0,
        addresses: list[bytes] | None = None,
        number: int = 0,
    ) -> None:
        self.container_id = container_id
        self.netns_inode = netns_inode
        self.netns_path = netns_path
        self.ifname = ifname
        self.pod_ifindex = pod_ifindex
        self.host_name = host_name
        self.host_ifindex = host_ifindex
        self.addresses = addresses or []
        self.number = number

    @classmethod
    def of(cls, request: Request, pod: NetNs) -> Record:
        """What is known before the first effect."""
        return cls(container_id=request.container_id, netns_inode=pod.inode, netns_path=pod.path, ifname=request.ifname)

    def pack(self) -> bytes:
        container_id, path = self.container_id.encode(), self.netns_path.encode()
        addresses = self.addresses[:_MAX_ADDRESSES]
        return _VALUE.pack(
            self.netns_inode, self.pod_ifindex, self.host_ifindex, self.number, len(addresses),
            self.ifname.encode(), self.host_name.encode(),
            container_id if len(container_id) <= _MAX_ID_BYTES else b"",
            path if len(path) <= _MAX_PATH_BYTES else b"",
            b"".join(a if len(a) == 16 else _V4_MAPPED + a for a in addresses),
        )  # fmt: skip

    @classmethod
    def unpack(cls, value: bytes) -> Record:
        inode, pod_ifindex, host_ifindex, number, count, ifname, host_name, container_id, path, packed = _VALUE.unpack(
            value
        )
        addresses = [packed[16 * i : 16 * i + 16] for i in range(min(count, _MAX_ADDRESSES))]
        return cls(
            container_id=container_id.rstrip(b"\0").decode(),
            netns_inode=inode,
            netns_path=path.rstrip(b"\0").decode(),
            ifname=ifname.rstrip(b"\0").decode(),
            pod_ifindex=pod_ifindex,
            host_name=host_name.rstrip(b"\0").decode(),
            host_ifindex=host_ifindex,
            addresses=[a[12:] if a.startswith(_V4_MAPPED) else a for a in addresses],
            number=number,
        )


class Records:
    """The records of one plugin, of all networks."""

    __slots__ = ("_map",)

    def __init__(self, plugin: str) -> None:
        """Opens the map, which must exist. Raises FileNotFoundError otherwise."""
        self._map = Map(plugin, MAP_NAME, _KEY.size, _VALUE.size)

    def put(self, attachment: Attachment, record: Record) -> None:
        self._map.put(_key(attachment), record.pack())

    def claim(self, attachment: Attachment, record: Record) -> None:
        """`put` for an attachment that has none yet. Raises CniError(CONFLICT) when an ADD was there before."""
        try:
            self._map.put(_key(attachment), record.pack(), command.BPF_NOEXIST)
        except OSError as error:
            if error.errno == errno.E2BIG:
                raise CniError(
                    TRY_AGAIN_LATER,
                    f"the map {MAP_NAME} is full with {_MAX_ENTRIES} attachments; call GC with those that are valid",
                ) from None
            if error.errno != errno.EEXIST:
                raise
            raise CniError(
                CONFLICT,
                f"CNI_CONTAINERID {attachment.container_id} has {attachment.ifname} on network {attachment.network} "
                "already; call DEL for it first",
            ) from None

    def get(self, attachment: Attachment) -> Record | None:
        return self.by_key(attachment.key, attachment.network_key)

    def by_key(self, attachment_key: int, network_key: int) -> Record | None:
        value = self._map.get(_KEY.pack(network_key, attachment_key))
        return None if value is None else Record.unpack(value)

    def remove(self, attachment_key: int, network_key: int) -> None:
        self._map.remove(_KEY.pack(network_key, attachment_key))

    def replace(self, attachment_key: int, network_key: int, record: Record) -> bool:
        """False when the attachment has no record any more: its DEL was quicker."""
        try:
            self._map.put(_KEY.pack(network_key, attachment_key), record.pack(), command.BPF_EXIST)
        except FileNotFoundError:
            return False
        return True

    def items(self) -> Iterator[tuple[int, int, Record]]:
        """(network key, attachment key, record) of all networks; who stops early reads no more of them."""
        for key, value in self._map.items():
            network_key, attachment_key = _KEY.unpack(key)
            yield network_key, attachment_key, Record.unpack(value)

    def of_network(self, network_key: int) -> list[tuple[int, Record]]:
        """(attachment key, record) of each attachment of one network."""
        return [(key, record) for network, key, record in self.items() if network == network_key]

    def numbers(self) -> set[int]:
        """The plugin's own numbers that are in use, by the attachments of all networks."""
        return {record.number for _, _, record in self.items()}

    def is_empty(self) -> bool:
        return self._map.is_empty()


def _key(attachment: Attachment) -> bytes:
    return _KEY.pack(attachment.network_key, attachment.key)


def open_or_create(plugin: str) -> Records:
    try:
        return Records(plugin)
    except FileNotFoundError:
        bpffs.ensure_directory(plugin)
    descriptor = _create()
    try:
        command.obj_pin(descriptor, pins.pin(plugin, MAP_NAME))
    except OSError as error:
        # Another ADD was quicker: use its map.
        if error.errno != errno.EEXIST:
            raise
    finally:
        posix.close(descriptor)
    return Records(plugin)


def _create() -> int:
    try:
        return command.map_create(
            command.MAP_TYPE_HASH, _KEY.size, _VALUE.size, _MAX_ENTRIES, command.F_NO_PREALLOC, MAP_NAME
        )
    except OSError as error:
        raise CniError(
            IO_FAILURE, f"the BPF map {MAP_NAME} cannot be made: {error.strerror}; it needs root and CONFIG_BPF_SYSCALL"
        ) from None


def open_if_any(plugin: str) -> Records | None:
    """For DEL and GC: None when no ADD of this boot got as far as a record."""
    try:
        return Records(plugin)
    except FileNotFoundError:
        return None


def find(plugin: str, attachment: Attachment) -> tuple[Records | None, Record | None]:
    """For DEL: the plugin's records, as open_if_any(), and the attachment's among them."""
    owned = open_if_any(plugin)
    return owned, owned.get(attachment) if owned else None


def required(plugin: str, attachment: Attachment) -> Record:
    """For CHECK. Raises CniError(UNKNOWN_CONTAINER) when no ADD of this boot made the attachment."""
    _, record = find(plugin, attachment)
    if record is None:
        raise CniError(UNKNOWN_CONTAINER, f"no record of {attachment.alias}: its ADD did not run since boot")
    return record


def of_another_pod(attachment: Attachment) -> CniError:
    """For a second ADD, where that changes a pod's settings: its id has a record, and the pod is not that one's."""
    return CniError(
        CONFLICT,
        f"CNI_CONTAINERID {attachment.container_id} has {attachment.ifname} on network {attachment.network} "
        "already, in another network namespace or with other addresses; call DEL for it first",
    )


def stale(plugin: str, conf: NetConf) -> list[tuple[Records, int, Record]]:
    """What GC must reap: those of unlisted(), each with the records that it is removed from."""
    owned = open_if_any(plugin)
    return [(owned, key, record) for key, record in unlisted(owned, conf)] if owned else []


def unlisted(owned: Records, conf: NetConf) -> list[tuple[int, Record]]:
    """(attachment key, record) of this network's that the runtime does not list. Nothing when it sent no list."""
    listed = conf.valid_attachments()
    if listed is None:
        return []
    valid = {Attachment(conf.name, container_id, ifname).key for container_id, ifname in listed}
    return [(key, record) for key, record in owned.of_network(fnv1a_64(conf.name)) if key not in valid]
