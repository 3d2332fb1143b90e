# SPDX-License-Identifier: Apache-2.0
"""A precompiled CO-RE object becomes pinned programs and maps: once per boot and object, whoever comes first.

Whether that has happened is told by the pinned map `build`, which holds the object's SHA-256 and is written last:
a loader that was killed half way, or an upgrade of bypath, leaves another hash there and the next ADD loads again.
"""

from __future__ import annotations

import posix
import sys

from cni import files
from cni.errors import INTERNAL, CniError

from . import bpffs, command, pins
from .maps import Map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .libbpf import BpfObject

_HASH_BYTES = 32
_KEY_0 = bytes(4)
BUILD_MAP = "build"


class Object:
    """One object file of one plugin: the names of its maps (without `build`) and programs, which are their pins'."""

    __slots__ = ("file", "maps", "plugin", "programs")

    def __init__(self, plugin: str, file: str, maps: tuple[str, ...], programs: tuple[str, ...]) -> None:
        self.plugin = plugin
        self.file = file
        self.maps = maps
        self.programs = programs


def ensure(wanted: Object, renew: Callable[[], None]) -> None:
    """Have the object's maps and programs pinned. Cheap when they are: one pin, one element, one small file.

    When they were not, programs that run by a TCX link are replaced by the new ones; `renew` attaches those again that
    run by a clsact filter, since only the plugin knows where. It runs under the plugin's lock and before the object
    counts as loaded, so that an upgrade that was killed half way is begun again by the next ADD.
    """
    expected = digest(wanted.file)
    if _loaded_hash(wanted.plugin) == expected:
        return
    bpffs.ensure_directory(wanted.plugin)
    with bpffs.Lock(wanted.plugin):
        # Another ADD may have loaded it while this one waited.
        if _loaded_hash(wanted.plugin) != expected:
            _load(wanted)
            renew()
            Map(wanted.plugin, BUILD_MAP, 4, _HASH_BYTES).put(_KEY_0, expected)


def is_loaded(wanted: Object) -> bool:
    return _loaded_hash(wanted.plugin) == digest(wanted.file)


def object_path(file: str) -> str:
    """Beside the executable; from a checkout, where `make bpf` puts it."""
    if getattr(sys, "frozen", False):
        return sys.executable.rpartition("/")[0] + "/bpf/" + file
    return __file__.rpartition("/bpf/")[0] + "/build/bpf/" + file


def digest(file: str) -> bytes:
    """SHA-256 of an object file of this installation, as the build wrote it down."""
    path = object_path(file).removesuffix(".bpf.o") + ".sha256"
    content = files.read(path)
    if content is None:
        raise CniError(INTERNAL, f"{path} is missing: the installation is incomplete; install bypath again")
    return bytes.fromhex(content[: 2 * _HASH_BYTES].decode())


def _loaded_hash(plugin: str) -> bytes:
    try:
        return Map(plugin, BUILD_MAP, 4, _HASH_BYTES).get(_KEY_0) or b""
    except FileNotFoundError:
        return b""


def _load(wanted: Object) -> None:
    from .libbpf import BpfObject

    paths = {name: pins.pin(wanted.plugin, name) for name in (*wanted.maps, BUILD_MAP)}
    pinned = {name: path for name, path in paths.items() if bpffs.exists(path)}
    with BpfObject.open(object_path(wanted.file), pinned) as loaded:
        loaded.load()
        for name, path in paths.items():
            if name not in pinned:
                loaded.pin_map(name, path)
        for program in wanted.programs:
            _pin_program(loaded, wanted.plugin, program)
    _move_links(wanted)


def _pin_program(loaded: BpfObject, plugin: str, program: str) -> None:
    """Replace the pin by rename, so that a concurrent ADD always finds one."""
    path = pins.pin(plugin, program)
    fresh = f"{path}_new"
    bpffs.unlink(fresh)
    loaded.pin_program(program, fresh)
    posix.rename(fresh, path)


def _move_links(wanted: Object) -> None:
    """An upgrade: programs that run somewhere are replaced in place, without a packet missing them."""
    for name in bpffs.list_directory(pins.links_directory(wanted.plugin)):
        program = pins.program_of_link(name)
        if program in wanted.programs:
            _move_link(f"{pins.links_directory(wanted.plugin)}/{name}", pins.pin(wanted.plugin, program))


def _move_link(link_path: str, program_path: str) -> None:
    link = command.obj_get(link_path)
    try:
        # A link without a device belongs to a pod that is gone; its DEL or GC removes the pin.
        if command.link_info(link)[1]:
            program = command.obj_get(program_path)
            try:
                command.link_update(link, program)
            finally:
                posix.close(program)
    finally:
        posix.close(link)
