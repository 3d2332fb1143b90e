# SPDX-License-Identifier: Apache-2.0
"""The environment of an invocation, validated before anything has an effect (CNI spec 1.1.0, section 2)."""

from __future__ import annotations

import posix

from .errors import INVALID_ENV, IO_FAILURE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_ALNUM = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_NAME = _ALNUM | frozenset("_.-")
_IFNAME_MAX_BYTES = 15
_CONTAINER_ID_MAX_BYTES = 127

MAX_STDIN_BYTES = 16 << 20
"""A configuration is some kilobytes; a prevResult with thousands of routes is still far below this."""


class Request:
    """One invocation.

    command       ADD, DEL, CHECK, STATUS, GC or VERSION
    container_id  empty when the verb has none
    netns         CNI_NETNS verbatim, empty when unset
    ifname        empty when the verb has none
    args          CNI_ARGS verbatim, empty when unset
    cni_path      the directories of CNI_PATH, for delegation
    netns_override  CNI_NETNS_OVERRIDE is set: the host's own network namespace is allowed as CNI_NETNS
    """

    __slots__ = ("args", "cni_path", "command", "container_id", "ifname", "netns", "netns_override")

    def __init__(self, command: str, environ: Mapping[str, str]) -> None:
        self.command = command
        self.container_id = environ.get("CNI_CONTAINERID", "")
        self.netns = environ.get("CNI_NETNS", "")
        self.ifname = environ.get("CNI_IFNAME", "")
        self.args = environ.get("CNI_ARGS", "")
        self.cni_path = [directory for directory in environ.get("CNI_PATH", "").split(":") if directory]
        self.netns_override = environ.get("CNI_NETNS_OVERRIDE", "").lower() in ("1", "t", "true")


def environ_text() -> dict[str, str]:
    """The environment as text; bytes that are not UTF-8 become lone surrogates, which no check lets through."""
    return {
        key.decode("utf-8", "surrogateescape"): value.decode("utf-8", "surrogateescape")
        for key, value in posix.environ.items()
        if key.startswith(b"CNI_")
    }


def is_valid_name(name: str) -> bool:
    """Container ids and network names: [A-Za-z0-9][A-Za-z0-9_.-]*, ASCII, whole string."""
    return bool(name) and name[0] in _ALNUM and _NAME.issuperset(name)


def fault_of_ifname(ifname: str) -> str:
    """Why the kernel would not take this name (dev_valid_name() in net/core/dev.c), or an empty string."""
    if len(ifname.encode("utf-8", "surrogateescape")) > _IFNAME_MAX_BYTES:
        return f"is longer than {_IFNAME_MAX_BYTES} bytes"
    if ifname in (".", ".."):
        return "is a directory's name"
    for char in ifname:
        # The kernel would take '%' for a pattern such as eth%d and choose the name itself (__dev_alloc_name()).
        if char in "/:%" or char.isspace() or not char.isprintable():
            return "holds '/', ':', '%', white space or a control character"
    return ""


def _fault_of(variable: str, value: str, command: str) -> str:
    if not value:
        return "is missing"
    if variable == "CNI_CONTAINERID" and not is_valid_name(value):
        return f"{value!a} must start with a letter or digit and hold only letters, digits, '_', '.' and '-'"
    if variable == "CNI_CONTAINERID" and command == "ADD" and len(value) > _CONTAINER_ID_MAX_BYTES:
        # GC gives addresses back by the id in the attachment's record, which has no room for more.
        return f"is longer than {_CONTAINER_ID_MAX_BYTES} bytes"
    if variable == "CNI_IFNAME":
        fault = fault_of_ifname(value)
        return f"{value!a} {fault}" if fault else ""
    if variable == "CNI_NETNS" and not value.startswith("/"):
        return f"{value!a} must be an absolute path"
    if variable == "CNI_NETNS" and not _is_utf8(value):
        return f"{value!a} must be UTF-8, since it goes into the result as `sandbox`"
    return ""


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def validate(request: Request, environ: Mapping[str, str], required: tuple[str, ...]) -> None:
    """Raises CniError(INVALID_ENV) that names every bad variable at once."""
    faults = []
    for variable in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"):
        value = environ.get(variable, "")
        # A DEL must get through whatever the runtime still knows: a netns that is not required is judged later.
        if variable not in required and (not value or variable == "CNI_NETNS"):
            continue
        fault = _fault_of(variable, value, request.command)
        if fault:
            faults.append(f"{variable} {fault}")
    if faults:
        raise CniError(INVALID_ENV, f"CNI_COMMAND={request.command}: " + "; ".join(faults))


def read_stdin() -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        try:
            chunk = posix.read(0, 1 << 16)
        except OSError as error:
            raise CniError(IO_FAILURE, f"the configuration cannot be read from stdin: {error.strerror}") from None
        if not chunk:
            return b"".join(chunks)
        size += len(chunk)
        if size > MAX_STDIN_BYTES:
            raise CniError(IO_FAILURE, f"the configuration on stdin is larger than {MAX_STDIN_BYTES >> 20} MiB")
        chunks.append(chunk)
