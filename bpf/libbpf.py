# SPDX-License-Identifier: Apache-2.0
"""libbpf by ctypes: opens a CO-RE object, reuses pinned maps, loads, pins. The cold path: once per boot and object.

The library is the extension module of the pylibbpf wheel, which exports the whole libbpf API. Its Python layer is not
imported: that would import llvmlite and cannot pin or reuse maps.
"""

from __future__ import annotations

import ctypes
import errno
import posix
import sys

from cni.errors import CONFLICT, INTERNAL, KERNEL_LACKS, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_WARN = 0  # enum libbpf_print_level
_LOG_BYTES = 1 << 20  # a verifier log comes as one message, and its end matters most
_LOG_LINES = 12
_BTF_KIND_DATASEC = 15
_ENOTSUPP = 524  # the kernel's own, unknown to libc
_POINTER = ctypes.c_void_p
_TEXT = ctypes.c_char_p
_PrintFn = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, _TEXT, _POINTER)

# name: (result, *arguments). Pointers come back as None with errno set, integers as -errno.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "bpf_map__fd": (ctypes.c_int, _POINTER),
    "bpf_map__initial_value": (_POINTER, _POINTER, ctypes.POINTER(ctypes.c_size_t)),
    "bpf_map__is_internal": (ctypes.c_bool, _POINTER),
    "bpf_map__key_size": (ctypes.c_uint32, _POINTER),
    "bpf_map__map_flags": (ctypes.c_uint32, _POINTER),
    "bpf_map__max_entries": (ctypes.c_uint32, _POINTER),
    "bpf_map__name": (_TEXT, _POINTER),
    "bpf_map__pin": (ctypes.c_int, _POINTER, _TEXT),
    "bpf_map__reuse_fd": (ctypes.c_int, _POINTER, ctypes.c_int),
    "bpf_map__type": (ctypes.c_uint32, _POINTER),
    "bpf_map__value_size": (ctypes.c_uint32, _POINTER),
    "bpf_obj_get": (ctypes.c_int, _TEXT),
    "bpf_obj_get_info_by_fd": (ctypes.c_int, ctypes.c_int, _POINTER, ctypes.POINTER(ctypes.c_uint32)),
    "bpf_object__btf": (_POINTER, _POINTER),
    "bpf_object__close": (None, _POINTER),
    "bpf_object__find_map_by_name": (_POINTER, _POINTER, _TEXT),
    "bpf_object__find_program_by_name": (_POINTER, _POINTER, _TEXT),
    "bpf_object__load": (ctypes.c_int, _POINTER),
    "bpf_object__next_map": (_POINTER, _POINTER, _POINTER),
    "bpf_object__next_program": (_POINTER, _POINTER, _POINTER),
    "bpf_object__open_file": (_POINTER, _TEXT, _POINTER),
    "bpf_program__fd": (ctypes.c_int, _POINTER),
    "bpf_program__name": (_TEXT, _POINTER),
    "bpf_program__pin": (ctypes.c_int, _POINTER, _TEXT),
    "btf__find_by_name_kind": (ctypes.c_int, _POINTER, _TEXT, ctypes.c_uint32),
    "btf__name_by_offset": (_TEXT, _POINTER, ctypes.c_uint32),
    "btf__type_by_id": (_POINTER, _POINTER, ctypes.c_uint32),
    "libbpf_set_print": (_POINTER, _PrintFn),
}


class _MapInfo(ctypes.Structure):
    """The head of struct bpf_map_info; the kernel fills as much as it is given room for."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
    ]


class _Library:
    """The loaded library, its functions with their types, and what it last said."""

    def __init__(self, path: str) -> None:
        try:
            self._dll = ctypes.CDLL(path, use_errno=True)
        except OSError as error:
            raise CniError(INTERNAL, f"{path} cannot be loaded: {error}; install bypath again") from None
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(self._dll, name)
            function.restype = result
            function.argtypes = arguments
        self.said: list[str] = []
        self._vsnprintf = ctypes.CDLL(None).vsnprintf
        self._print = _PrintFn(self._hear)  # held as long as the library may call it
        self._dll.libbpf_set_print(self._print)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A function of _FUNCTIONS."""
        function: Callable[..., Any] = getattr(self._dll, name)
        return function

    def _hear(self, level: int, form: bytes, arguments: int) -> int:
        if level == _WARN:
            text = ctypes.create_string_buffer(_LOG_BYTES)
            # A va_list is an array or a large struct on every 64-bit ABI, so it is passed on as the pointer it came as.
            self._vsnprintf(text, ctypes.c_size_t(_LOG_BYTES), form, _POINTER(arguments))
            self.said += text.value.decode(errors="replace").splitlines()
        return 0

    def last_lines(self) -> str:
        return "\n".join(self.said[-_LOG_LINES:])


_library: _Library | None = None


def library_path() -> str:
    """Of the wheel in a checkout's sys.path, or where PyInstaller put it. Raises CniError(INTERNAL) without one."""
    roots = [str(getattr(sys, "_MEIPASS", "")), sys.executable.rpartition("/")[0], *sys.path]
    places = [place for root in roots if root for place in (f"{root}/pylibbpf", root, f"{root}/_internal/pylibbpf")]
    for place in places:
        try:
            names = posix.listdir(place)
        except OSError:
            continue
        for name in names:
            if name.startswith("pylibbpf.") and name.endswith(".so"):
                return f"{place}/{name}"
    raise CniError(
        INTERNAL,
        "the library of pylibbpf is not in this installation; install bypath again",
        "looked in " + " ".join(places),
    )


def _libbpf() -> _Library:
    global _library
    if _library is None:
        _library = _Library(library_path())
    return _library


class BpfObject:
    """One object file between open and close; what it loaded lives on by its pins and attachments.

    Maps and programs go by their C names. Every failure is a CniError with libbpf's last lines in its details.
    """

    def __init__(self, library: _Library, handle: int, path: str) -> None:
        self._library = library
        self._handle = handle
        self._path = path

    @classmethod
    def open(cls, path: str, pins: Mapping[str, str] | None = None) -> BpfObject:
        """Parse the object; each pin of `pins` (map name -> path) that exists is used instead of a new map.

        Raises CniError(CONFLICT), which names the map and the pin, when a pinned map has another type, size or flags
        than the object's; CniError(INTERNAL) for a map the object does not have.
        """
        library = _libbpf()
        library.said.clear()
        handle = library.bpf_object__open_file(path.encode(), None)
        if not handle:
            raise _failure(library, ctypes.get_errno(), f"{path} cannot be opened as a BPF object")
        opened = cls(library, handle, path)
        try:
            for name, pin in (pins or {}).items():
                opened._reuse(name, pin)
        except BaseException:
            opened.close()
            raise
        return opened

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._handle:
            self._library.bpf_object__close(self._handle)
            self._handle = 0

    def set_rodata(self, variable: str, value: bytes) -> None:
        """Set a `const volatile` variable, in the kernel's byte order, before load()."""
        offset, size = self._rodata_place(variable)
        if len(value) != size:
            raise CniError(INTERNAL, f"{self._path}: {variable} has {size} bytes, not {len(value)}")
        start = self._library.bpf_map__initial_value(self._map(".rodata"), ctypes.byref(ctypes.c_size_t()))
        if not start:
            raise _failure(self._library, ctypes.get_errno(), f"{self._path}: constants cannot be set after load")
        ctypes.memmove(start + offset, value, size)

    def load(self) -> None:
        """Create the maps that are not reused and have the verifier check every program."""
        outcome = self._library.bpf_object__load(self._handle)
        if outcome < 0:
            raise _failure(self._library, -outcome, f"{self._path} cannot be loaded into this kernel")

    def pin_map(self, name: str, path: str) -> None:
        self._pin(self._library.bpf_map__pin(self._map(name), path.encode()), f"map {name}", path)

    def pin_program(self, name: str, path: str) -> None:
        self._pin(self._library.bpf_program__pin(self._program(name), path.encode()), f"program {name}", path)

    def map_fds(self) -> dict[str, int]:
        """Descriptors of the maps by name, without those of global data; valid between load() and close()."""
        library = self._library
        maps = [at for at in self._walk(library.bpf_object__next_map) if not library.bpf_map__is_internal(at)]
        return {library.bpf_map__name(at).decode(): int(library.bpf_map__fd(at)) for at in maps}

    def program_fds(self) -> dict[str, int]:
        library = self._library
        programs = self._walk(library.bpf_object__next_program)
        return {library.bpf_program__name(at).decode(): int(library.bpf_program__fd(at)) for at in programs}

    def _walk(self, following: Callable[..., Any]) -> list[int]:
        found = []
        at = following(self._handle, None)
        while at:
            found.append(at)
            at = following(self._handle, at)
        return found

    def _map(self, name: str) -> int:
        found = self._library.bpf_object__find_map_by_name(self._handle, name.encode())
        if not found:
            raise CniError(INTERNAL, f"{self._path} has no map {name}")
        return int(found)

    def _program(self, name: str) -> int:
        found = self._library.bpf_object__find_program_by_name(self._handle, name.encode())
        if not found:
            raise CniError(INTERNAL, f"{self._path} has no program {name}")
        return int(found)

    def _pin(self, outcome: int, what: str, path: str) -> None:
        if outcome < 0:
            raise _failure(self._library, -outcome, f"{what} cannot be pinned at {path}")

    def _reuse(self, name: str, pin: str) -> None:
        target = self._map(name)
        descriptor = self._library.bpf_obj_get(pin.encode())
        if descriptor == -errno.ENOENT:
            return
        if descriptor < 0:
            raise _failure(self._library, -descriptor, f"map {name}: the pin {pin} cannot be opened")
        try:
            self._refuse_mismatch(name, target, pin, descriptor)
            outcome = self._library.bpf_map__reuse_fd(target, descriptor)  # it keeps a duplicate
            if outcome < 0:
                raise _failure(self._library, -outcome, f"map {name}: the pin {pin} cannot be reused")
        finally:
            posix.close(descriptor)

    def _refuse_mismatch(self, name: str, target: int, pin: str, descriptor: int) -> None:
        info = _MapInfo()
        size = ctypes.c_uint32(ctypes.sizeof(info))
        outcome = self._library.bpf_obj_get_info_by_fd(descriptor, ctypes.byref(info), ctypes.byref(size))
        if outcome < 0:
            raise _failure(self._library, -outcome, f"map {name}: the pin {pin} is not a map")
        names = ("type", "key_size", "value_size", "max_entries", "map_flags")
        getters = [getattr(self._library, "bpf_map__" + field) for field in names]
        wanted = {field: int(getter(target)) for field, getter in zip(names, getters, strict=True)}
        found = {field: int(getattr(info, field)) for field in names}
        differences = [
            f"{field} {found[field]} instead of {wanted[field]}" for field in names if found[field] != wanted[field]
        ]
        if differences:
            raise CniError(
                CONFLICT,
                f"map {name}: the pin {pin} has {', '.join(differences)}: it belongs to another "
                "version of bypath; drain the node and remove the pin",
            )

    def _rodata_place(self, variable: str) -> tuple[int, int]:
        """(offset, size), from the object's BTF: struct btf_type, then one {type, offset, size} a variable."""
        btf = self._library.bpf_object__btf(self._handle)
        section = self._library.btf__find_by_name_kind(btf, b".rodata", _BTF_KIND_DATASEC)
        if section > 0:
            head = ctypes.cast(self._library.btf__type_by_id(btf, section), ctypes.POINTER(ctypes.c_uint32))
            for at in range(head[1] & 0xFFFF):
                kind, offset, size = head[3 + 3 * at], head[4 + 3 * at], head[5 + 3 * at]
                entry = ctypes.cast(self._library.btf__type_by_id(btf, kind), ctypes.POINTER(ctypes.c_uint32))
                if self._library.btf__name_by_offset(btf, entry[0]) == variable.encode():
                    return offset, size
        raise CniError(INTERNAL, f"{self._path} has no constant {variable}")


def _failure(library: _Library, number: int, what: str) -> CniError:
    """A missing helper, map type or program type is the kernel's lack; anything else is our defect."""
    said = library.last_lines()
    reason = posix.strerror(number)
    if number == errno.EPERM:
        return CniError(INTERNAL, f"{what}: {reason}; CAP_BPF and CAP_NET_ADMIN are needed", said)
    helper_missing = any(text in said for text in ("unknown func", "invalid func", "cannot use helper"))
    if helper_missing or number in (errno.EOPNOTSUPP, _ENOTSUPP, errno.ENOSYS):
        return CniError(
            KERNEL_LACKS, f"{what}: kernel {posix.uname().release} lacks a BPF feature it needs ({reason})", said
        )
    return CniError(INTERNAL, f"{what}: {reason}", said)
