# SPDX-License-Identifier: Apache-2.0
"""Delegation to an IPAM plugin (CNI spec 1.1.0, section 4): same environment, the whole configuration, one process."""

from __future__ import annotations

import errno
import posix
import time

from . import files, jsontext, result
from .errors import INVALID_CONFIG, INVALID_ENV, IO_FAILURE, NOT_READY, CniError
from .netconf import NetConf
from .request import Request
from .undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .result import Result

_TEXT_BUSY_TRIES = 5
_OURS_TO_IGNORE = (13,)
"""SIGPIPE, which Python ignores: the child must not inherit that."""
_TEXT_BUSY_PAUSE_SECONDS = 0.02


def add(request: Request, conf: NetConf) -> Result:
    """Have addresses reserved. The caller registers `release` for its own rollback afterwards.

    A delegate that failed, or whose answer cannot be used, may have reserved something all the same, so its DEL is run
    (CNI spec 1.1.0, section 4).
    """
    find_executable(_plugin_name(conf), request.cni_path)
    with Undo() as undo:
        undo.callback(release, request, conf)
        allotted = _allotted(conf, _delegate("ADD", request, conf))
        undo.pop_all()
    return allotted


def _allotted(conf: NetConf, output: bytes) -> Result:
    name = _plugin_name(conf)
    document = jsontext.loads(output, f"the result of IPAM plugin {name}")
    if not isinstance(document, dict):
        raise CniError(IO_FAILURE, f"ipam: {name} printed something that is not a result")
    allotted = result.parse(document, f"result of {name}")
    if not allotted.ips:
        raise CniError(INVALID_CONFIG, f"ipam: {name} gave no address; check its ranges in network {conf.name}")
    return allotted


def release(request: Request, conf: NetConf) -> None:
    """Undo `add`, or serve DEL. The delegate's error is ours, code and words unchanged."""
    _delegate("DEL", request, conf)


def check(request: Request, conf: NetConf) -> None:
    _delegate("CHECK", request, conf)


def status(request: Request, conf: NetConf) -> None:
    try:
        _delegate_if_known("STATUS", request, conf)
    except CniError:
        if not _speaks_version(request, conf):
            raise CniError(
                NOT_READY,
                f"ipam: {_plugin_name(conf)} does not speak cniVersion {conf.cni_version}, so every ADD will fail; "
                "install a newer one, or lower the network's cniVersion",
            ) from None
        raise


def gc(request: Request, conf: NetConf) -> None:
    try:
        _delegate_if_known("GC", request, conf)
    except CniError:
        if _speaks_version(request, conf):
            raise


def release_other(request: Request, conf: NetConf, container_id: str, ifname: str) -> None:
    """For GC: release what an attachment holds whose DEL never came; host-local has no GC of its own."""
    environ = {"CNI_CONTAINERID": container_id, "CNI_IFNAME": ifname, "CNI_PATH": ":".join(request.cni_path)}
    _delegate("DEL", Request("DEL", environ), conf)


def _delegate_if_known(verb: str, request: Request, conf: NetConf) -> None:
    """A delegate that has neither STATUS nor GC answers code 4, "unknown CNI_COMMAND"."""
    try:
        _delegate(verb, request, conf)
    except CniError as error:
        if not (error.code == INVALID_ENV and "CNI_COMMAND" in error.msg):
            raise


def _speaks_version(request: Request, conf: NetConf) -> bool:
    """False only for certain. A delegate of before 1.1.0 refuses its verbs in words that mean something else: Debian
    12's host-local says "missing containerID"."""
    path = find_executable(_plugin_name(conf), request.cni_path)
    output, _ = _run(path, _environment("VERSION", request), jsontext.dumps({"cniVersion": conf.cni_version}))
    try:
        answer = jsontext.loads(output, path)
    except CniError:
        return True
    versions = answer.get("supportedVersions") if isinstance(answer, dict) else None
    return not isinstance(versions, list) or conf.cni_version in versions


def _plugin_name(conf: NetConf) -> str:
    name = conf.ipam.get("type")
    if not isinstance(name, str) or not name:
        raise CniError(INVALID_CONFIG, 'ipam.type: missing; name an IPAM plugin, for example "host-local"')
    if "/" in name or name in (".", "..") or not (name.isascii() and name.isprintable()):
        raise CniError(INVALID_CONFIG, f"ipam.type: {name!a} must be the bare name of an executable in CNI_PATH")
    return name


def find_executable(name: str, directories: list[str]) -> str:
    for directory in directories:
        path = f"{directory}/{name}"
        if posix.access(path, posix.X_OK) and not _is_directory(path):
            return path
    raise CniError(
        INVALID_CONFIG,
        f"ipam.type: no executable {name} in CNI_PATH={':'.join(directories)}; install it there, then retry",
    )


def _is_directory(path: str) -> bool:
    return posix.stat(path).st_mode & 0o170000 == 0o040000


def _delegate(verb: str, request: Request, conf: NetConf) -> bytes:
    path = find_executable(_plugin_name(conf), request.cni_path)
    output, status = _run(path, _environment(verb, request), jsontext.dumps(conf.raw))
    if status != 0:
        raise _error_of(path, output, status)
    return output


def _environment(verb: str, request: Request) -> dict[bytes, bytes]:
    """Ours, with the verb and the attachment that is meant: GC asks for others than its own."""
    environment = {**posix.environ, b"CNI_COMMAND": verb.encode()}
    if request.container_id:
        environment[b"CNI_CONTAINERID"] = request.container_id.encode()
        environment[b"CNI_IFNAME"] = request.ifname.encode()
        environment[b"CNI_NETNS"] = request.netns.encode("utf-8", "surrogateescape")
    return environment


def _run(path: str, environment: dict[bytes, bytes], document: bytes) -> tuple[bytes, int]:
    """Output and wait status. The child reads from a memfd: no pipe to fill up, whatever the document's size."""
    stdin = posix.memfd_create("netconf", posix.MFD_CLOEXEC)
    try:
        posix.write(stdin, document)
        posix.lseek(stdin, 0, 0)
        reader, writer = posix.pipe2(posix.O_CLOEXEC)
        try:
            pid = _spawn(path, environment, stdin, writer)
        finally:
            posix.close(writer)
        try:
            output = files.read_all(reader)
        finally:
            posix.close(reader)
    finally:
        posix.close(stdin)
    return output, posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])


def _spawn(path: str, environment: dict[bytes, bytes], stdin: int, stdout: int) -> int:
    actions = [(posix.POSIX_SPAWN_DUP2, stdin, 0), (posix.POSIX_SPAWN_DUP2, stdout, 1)]
    for attempt in range(_TEXT_BUSY_TRIES):
        try:
            return posix.posix_spawn(path, [path], environment, file_actions=actions, setsigdef=_OURS_TO_IGNORE)
        except OSError as error:
            # Another process holds the file open for writing: an installation that does not rename into place.
            if error.errno != errno.ETXTBSY or attempt == _TEXT_BUSY_TRIES - 1:
                raise CniError(IO_FAILURE, f"ipam: {path} cannot be started: {error.strerror}") from None
            time.sleep(_TEXT_BUSY_PAUSE_SECONDS)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _error_of(path: str, output: bytes, status: int) -> CniError:
    """The delegate's own error, or what is known when it died without one."""
    try:
        document: Any = jsontext.loads(output, path)
    except CniError:
        document = None
    if isinstance(document, dict) and type(document.get("code")) is int and document["code"] > 0:
        return CniError(document["code"], str(document.get("msg", "")), str(document.get("details", "")))
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return CniError(IO_FAILURE, f"ipam: {path} {how} without a CNI error", output[:400].decode("utf-8", "replace"))
