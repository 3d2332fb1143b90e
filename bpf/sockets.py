# SPDX-License-Identifier: Apache-2.0
"""Programs on sockets: sock_ops programs on cgroups, which put some into a map, and the map's own programs.

The first are links, pinned; the others go with the map. A socket keeps the programs that the map had
when it entered, until it is closed: replacing or taking away programs never touches an open connection, and no element
of the map is ever deleted from here.
"""

from __future__ import annotations

import errno
import posix

from cni import files
from cni.errors import KERNEL_LACKS, NODE_NOT_READY, CniError

from . import bpffs, command, pins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PLACE = "root"
_CGROUP2_ROOT = b"/"
_OF_CGROUP2 = "cgroup.controllers"


def root_cgroup() -> str:
    """Where the whole cgroup v2 hierarchy is mounted: not always at /sys/fs/cgroup. See proc_pid_mountinfo(5)."""
    for line in (files.read("/proc/self/mountinfo") or b"").splitlines():
        mount, _, file_system = line.partition(b" - ")
        _, _, _, root, point = mount.split(b" ")[:5]
        # Mounts that are hidden under others are listed too.
        if (
            root == _CGROUP2_ROOT
            and file_system.startswith(b"cgroup2 ")
            and bpffs.exists(f"{point.decode()}/{_OF_CGROUP2}")
        ):
            return point.decode()
    raise CniError(
        NODE_NOT_READY, "no cgroup v2 hierarchy is mounted; type: mount -t cgroup2 none /sys/fs/cgroup/unified"
    )


class CgroupLink:
    """A sock_ops program on a cgroup: it sees all sockets of the processes in it, and in those below.

    Pinned under a name that tells its place from others of the program. Whoever calls holds the plugin's lock, and has
    the object loaded (loader.ensure()).
    """

    __slots__ = ("_plugin", "_program", "path")

    def __init__(self, plugin: str, program: str, place: str) -> None:
        self._plugin = plugin
        self._program = program
        self.path = pins.link(plugin, program, place)

    def attach(self, directory: str) -> None:
        """To this cgroup and no other; cheap when it is."""
        if self._info()[1] == short_id(directory):
            return
        self.detach()
        program, cgroup = command.obj_get(pins.pin(self._plugin, self._program)), _open_directory(directory)
        try:
            link = _create_link(program, cgroup)
            try:
                command.obj_pin(link, self.path)
            finally:
                posix.close(link)
        finally:
            posix.close(program)
            posix.close(cgroup)

    def detach(self) -> None:
        """What has been taken away already is fine."""
        try:
            link = command.obj_get(self.path)
        except FileNotFoundError:
            return
        try:
            command.link_detach(link)
        finally:
            posix.close(link)
        bpffs.unlink(self.path)

    def is_attached(self) -> bool:
        """To a cgroup that is still there."""
        return self._info()[1] != 0

    def faults(self, directory: str, name: str) -> list[str]:
        """For CHECK: what is not as `attach` left it, as sentences; name: of the cgroup."""
        program_id, cgroup_id = self._info()
        if cgroup_id != short_id(directory):
            return [f"{self._program} is not attached to {name}"]
        if program_id != _pinned_id(self._plugin, self._program):
            return [f"another version of {self._program} is attached to {name}"]
        return []

    def _info(self) -> tuple[int, int]:
        """(program id, lower half of the cgroup's id); the second is 0 when there is no link, or no cgroup any more."""
        try:
            link = command.obj_get(self.path)
        except FileNotFoundError:
            return 0, 0
        try:
            return command.link_info(link)
        finally:
            posix.close(link)


class SocketPrograms:
    """Three programs and a map of one plugin, by their names, which are their pins' too.

    entry    sock_ops on the root: sees every socket of the node, and puts those of its choice into the map
    message  sk_msg verdict of the map: sees what its sockets send
    stream   sk_skb verdict of the map: sees what its sockets receive

    Whoever calls holds the plugin's lock, and has the object loaded (loader.ensure()).
    """

    __slots__ = ("entry", "message", "plugin", "sockets", "stream")

    def __init__(self, plugin: str, sockets: str, entry: str, message: str, stream: str) -> None:
        self.plugin = plugin
        self.sockets = sockets
        self.entry = CgroupLink(plugin, entry, _PLACE)
        self.message = message
        self.stream = stream

    def attach(self) -> None:
        """Attach what is not; cheap when all is."""
        self.attach_to_map()
        self.entry.attach(root_cgroup())

    def attach_to_map(self) -> None:
        """No socket may enter a map that has no programs yet."""
        if self.map_faults():
            self.renew()

    def renew(self) -> None:
        """For loader.ensure(), after an upgrade: sockets that enter from now on get the pinned programs. Links have
        been moved by the loader."""
        for name, hook in self._verdicts():
            self._on_map(command.map_attach, name, hook)

    def detach(self) -> None:
        """No socket enters any more, and the map is without programs. What has been taken away already is fine."""
        self.entry.detach()
        for name, hook in self._verdicts():
            try:
                self._on_map(command.map_detach, name, hook)
            except FileNotFoundError:
                continue

    def faults(self) -> list[str]:
        """For CHECK: what is not as `attach` left it, as sentences; empty when all is."""
        return self.entry.faults(root_cgroup(), "the root cgroup") + self.map_faults()

    def map_faults(self) -> list[str]:
        """Of the two programs that are not a cgroup's."""
        descriptor = command.obj_get(pins.pin(self.plugin, self.sockets))
        try:
            return [
                f"the map {self.sockets} does not give {name} to its sockets"
                for name, hook in self._verdicts()
                if command.map_programs(descriptor, hook) != [_pinned_id(self.plugin, name)]
            ]
        finally:
            posix.close(descriptor)

    def _verdicts(self) -> tuple[tuple[str, int], tuple[str, int]]:
        return (self.message, command.SK_MSG_VERDICT), (self.stream, command.SK_SKB_VERDICT)

    def _on_map(self, act: Callable[[int, int, int], object], name: str, hook: int) -> None:
        program = command.obj_get(pins.pin(self.plugin, name))
        try:
            descriptor = command.obj_get(pins.pin(self.plugin, self.sockets))
            try:
                act(program, descriptor, hook)
            finally:
                posix.close(descriptor)
        finally:
            posix.close(program)


def _pinned_id(plugin: str, name: str) -> int:
    descriptor = command.obj_get(pins.pin(plugin, name))
    try:
        return command.object_id(descriptor)
    finally:
        posix.close(descriptor)


def _open_directory(path: str) -> int:
    return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_DIRECTORY)


def short_id(cgroup: str) -> int:
    """The lower half of a cgroup's id, which is its directory's inode number: what link_info() tells of it."""
    return posix.stat(cgroup).st_ino & 0xFFFFFFFF


def _create_link(program: int, cgroup: int) -> int:
    try:
        return command.link_create_cgroup(program, cgroup, command.SOCK_OPS)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            raise CniError(
                KERNEL_LACKS,
                "the kernel links no sock_ops program to a cgroup; it needs CONFIG_CGROUP_BPF and Linux 5.7",
            ) from None
        raise
