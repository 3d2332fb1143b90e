# SPDX-License-Identifier: Apache-2.0
"""One invocation from environment and stdin to stdout and exit status. Nothing else in bypath touches these."""

from __future__ import annotations

import posix

from . import jsontext
from .errors import INCOMPATIBLE_VERSION, INTERNAL, INVALID_CONFIG, INVALID_ENV, CniError, from_os_error
from .netconf import NetConf, version_of
from .request import Request, environ_text, read_stdin, validate
from .verbs import SUPPORTED_VERSIONS, VERBS, Verb, is_at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, Protocol

    from .net.netns import NetNs
    from .result import Result

    class Plugin(Protocol):
        """What a plugin supplies: its keys and five verbs. Every effect is inside a verb.

        config_keys     its own configuration keys; any other non-standard key is refused by name
        configure(conf) reads and checks its keys, without effect; run before every verb that is not DEL or GC
        """

        config_keys: frozenset[str]

        def configure(self, conf: NetConf) -> None: ...
        def add(self, request: Request, conf: NetConf, pod: NetNs) -> Result: ...
        def delete(self, request: Request, conf: NetConf, pod: NetNs | None) -> None: ...
        def check(self, request: Request, conf: NetConf, pod: NetNs) -> None: ...
        def status(self, request: Request, conf: NetConf) -> None: ...
        def gc(self, request: Request, conf: NetConf) -> None: ...


def run(make: Callable[[], Plugin]) -> NoReturn:
    """Serve one invocation and leave without finalising the interpreter, which would cost 2 ms for nothing.

    `make` imports the plugin: what VERSION does not need is half of what it would cost.
    """
    version = SUPPORTED_VERSIONS[-1]
    status, command = 0, ""
    try:
        environ = environ_text()
        command = environ.get("CNI_COMMAND", "")
        answer: dict[str, Any] | None
        if command == "VERSION":
            # Without a look at stdin: it may never be closed, and there is nothing in it that we need.
            answer = {"cniVersion": version, "supportedVersions": list(SUPPORTED_VERSIONS)}
        else:
            verb = _verb_of(command)
            request = Request(command, environ)
            validate(request, environ, verb.required)
            raw = _configuration()
            version = version_of(raw)
            answer = _dispatch(make, verb, request, raw)
        document = b"" if answer is None else jsontext.dumps(answer) + b"\n"
    except BaseException as failure:
        status = 1
        document = jsontext.dumps(_as_error(failure, version, command)) + b"\n"
    _write(1, document)
    posix._exit(status)


def _verb_of(command: str) -> Verb:
    verb = VERBS.get(command)
    if verb is None:
        what = f"{command!a} is not a verb" if command else "is missing"
        raise CniError(INVALID_ENV, f"CNI_COMMAND {what}; it must be one of VERSION, {', '.join(VERBS)}")
    return verb


def _configuration() -> dict[str, Any]:
    raw = jsontext.loads(read_stdin())
    if not isinstance(raw, dict):
        raise CniError(INVALID_CONFIG, "the network configuration on stdin must be a JSON object")
    return raw


def _dispatch(make: Callable[[], Plugin], verb: Verb, request: Request, raw: dict[str, Any]) -> dict[str, Any] | None:
    conf = NetConf(raw)
    if not is_at_least(conf.cni_version, verb.since):
        raise CniError(
            INCOMPATIBLE_VERSION, f"cniVersion: {conf.cni_version} has no {request.command}; use {verb.since} or later"
        )
    if verb.needs_prev and conf.prev_result is None:
        raise CniError(INVALID_CONFIG, f"prevResult: missing, {request.command} needs the result of the chain's ADD")
    plugin = make()
    if request.command == "GC":
        # A malformed list is refused before anything is reaped by it, here or by a delegate.
        conf.valid_attachments()
    if request.command not in ("DEL", "GC"):
        from . import result

        # A configuration that has become invalid since ADD must not keep a pod from being torn down.
        conf.refuse_unknown_keys(plugin.config_keys)
        plugin.configure(conf)
        # Judged before anything has an effect, wherever the plugin will read it.
        result.of_prev(conf)
    method = getattr(plugin, verb.method)
    if not verb.prints_result and not verb.required:
        method(request, conf)
        return None
    from .net import netns

    if request.command == "DEL":
        method(request, conf, netns.open_if_pod(request))
        return None
    outcome = method(request, conf, netns.open_pod(request))
    return outcome.render(conf.cni_version) if verb.prints_result else None


def _as_error(failure: BaseException, version: str, command: str) -> dict[str, Any]:
    notes = getattr(failure, "__notes__", [])
    if isinstance(failure, OSError):
        notes, failure = list(notes), from_os_error(failure)
    if not isinstance(failure, CniError):
        failure = _defect(failure)
    details = "; ".join([failure.details, *notes] if failure.details else notes)
    said = {"msg": failure.msg, "details": details}
    if command == "DEL":
        said = {key: _unlike_success(text) for key, text in said.items()}
    return {"cniVersion": version, "code": failure.code, **said}


def _unlike_success(text: str) -> str:
    """containerd takes an error of DEL with these words (the second without a netns only) for success, whoever said
    them, and never calls DEL of the chain's earlier plugins: an address would leak (Remove() in its go-cni)."""
    return text.replace("not found", "missing").replace("no such file or directory", "no such file")


def _defect(failure: BaseException) -> CniError:
    import traceback

    trace = "".join(traceback.format_exception(failure))
    return CniError(INTERNAL, f"bypath has a defect ({type(failure).__name__}: {failure}); please report it", trace)


def _write(descriptor: int, document: bytes) -> None:
    while document:
        document = document[posix.write(descriptor, document) :]
