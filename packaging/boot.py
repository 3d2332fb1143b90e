# SPDX-License-Identifier: Apache-2.0
"""The first Python that a built executable runs: name in, plugin's `__main__` imported.

The interpreter has started only its core, so it can import what is built in and what is frozen in (freeze.py). Three
things are put into its import system, in the order in which an import meets them:

load        our own modules, from the frozen code straight into sys.modules
Extensions  the two C extensions of the hot path, _json and _ctypes
Rest        for anything else the rest of the interpreter is started, after which all under _internal can be imported;
            the hot path never gets there
"""

from __future__ import annotations

import _frozen_importlib
import _imp
import posix
import sys

import _launcher  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_importlib_load = _frozen_importlib._find_and_load  # type: ignore[attr-defined]
_Module = type(sys)


def load(name: str, import_: object) -> ModuleType:
    """Stands in for importlib's own: its finders, specs and locks are 0.12 million instructions for each module."""
    if name.partition(".")[0] in sys.stdlib_module_names or not _imp.is_frozen(name):
        loaded: ModuleType = _importlib_load(name, import_)
        return loaded
    parent, _, child = name.rpartition(".")
    if parent and parent not in sys.modules:
        load(parent, import_)
    module = sys.modules[name] = _Module(name)
    module.__package__ = parent
    if _imp.is_frozen_package(name):
        module.__package__ = name
        module.__path__ = []
    try:
        exec(_imp.get_frozen_object(name), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    if parent:
        setattr(sys.modules[parent], child, module)
    return module


class Extensions:
    """Finds and loads top-level C extension modules."""

    prefix = f"{_launcher.internal}/python{sys.version_info.major}.{sys.version_info.minor}/lib-dynload/"
    suffix = _imp.extension_suffixes()[0]

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if path is not None:
            return None
        origin = cls.prefix + name + cls.suffix
        try:
            posix.stat(origin)
        except FileNotFoundError:
            return None
        return _frozen_importlib.ModuleSpec(name, cls, origin=origin)  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType:
        if spec.name == "_ctypes":
            _launcher.preload("libffi.so")
        return _imp.create_dynamic(spec)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        _imp.exec_dynamic(module)


class Rest:
    """Finds nothing, but has the path importer put behind itself, which Python then asks next."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        if _launcher.finish():
            # Frozen in for the sake of the codec registry, which cannot wait for the rest, it knows no directory.
            sys.modules["encodings"].__path__.append(_launcher.internal + "/encodings")


def package_of(executable: str) -> str:
    """'/opt/bypath/bypath-host-gw' runs the package host_gw, '/opt/bypath/bypath' the operator's cli."""
    name = executable.rpartition("/")[2]
    return "cli" if name == "bypath" else name.removeprefix("bypath-").replace("-", "_")


sys.executable = _launcher.executable
# As PyInstaller's boot loader leaves them.
sys.frozen = True  # type: ignore[attr-defined]
sys._MEIPASS = _launcher.internal  # type: ignore[attr-defined]
_frozen_importlib._find_and_load = load  # type: ignore[attr-defined]
sys.meta_path += [Extensions, Rest]
__import__(package_of(sys.executable) + ".__main__")
