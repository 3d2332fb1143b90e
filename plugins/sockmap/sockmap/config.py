# SPDX-License-Identifier: Apache-2.0
"""The keys of bypath-sockmap, and what a pod says for itself: by annotation, or by what its runtime passes on.

The conflist is the operator's: `mode` says whether pods are accelerated at all, `scopes` what any of them may have. A
pod can choose among that, and exclude more ports and users.
"""

from __future__ import annotations

from cni import netconf
from cni.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from cni.netconf import NetConf
from sockmap import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KEYS = frozenset(("mode", "scopes", "limitMiB", "nodeLimitMiB", "excludePorts", "excludeUIDs", "onUnsupported"))

SCOPES = {"sidecar": layout.SIDECAR, "pod": layout.POD}
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
"""The capability, and the key of runtimeConfig, by which containerd and CRI-O hand on a pod's annotations."""
SCOPES_ANNOTATION = "bypath.dev/sockmap"
PORTS_ANNOTATION = "bypath.dev/sockmap-exclude-ports"
UIDS_ANNOTATION = "bypath.dev/sockmap-exclude-uids"

_POD_KEYS = frozenset(("scopes", "excludePorts", "excludeUIDs"))
_DEFAULT_LIMIT_MIB, _HIGHEST_LIMIT_MIB = 64, 1024
_HIGHEST_NODE_LIMIT_MIB = 1 << 20
_HIGHEST_UID = 0xFFFFFFFE
"""(uid_t)-1 is nobody's: chown(2) takes it for "unchanged"."""


class Config:
    """What one pod is to have. Every error names the key or annotation.

    scopes            bits of layout.SIDECAR and layout.POD; 0: the pod is not accelerated
    limit_bytes       how much one direction of a connection may have waiting before it goes by TCP
    node_limit_bytes  TCP memory of the node above which no direction has more than a window waiting; 0: tcp_mem[0]
    ports             connections from or to one of them stay plain, in order
    uids              sockets of these users stay plain, in order
    cgroup_path       the pod's cgroup as the runtime names it; empty without the capability cgroupPath
    is_off            no pod of the network is ever accelerated
    is_required       an unsuitable kernel is an error, not a warning
    warnings          sentences for ADD: what was asked for and is not granted
    """

    __slots__ = (
        "cgroup_path", "is_off", "is_required", "limit_bytes", "node_limit_bytes", "ports", "scopes", "uids",
        "warnings",
    )  # fmt: skip

    def __init__(self, conf: NetConf) -> None:
        raw = conf.raw
        mode = netconf.optional_choice(raw, "mode", ("off", "annotated", "all"), "off")
        self.is_off = mode == "off"
        allowed = _scopes(netconf.optional_texts(raw, "scopes"), layout.SIDECAR | layout.POD)
        if not allowed:
            raise CniError(INVALID_CONFIG, 'scopes: is empty; leave it out for both, or set mode to "off"')
        limit_mib = netconf.optional_int(raw, "limitMiB", 1, _HIGHEST_LIMIT_MIB) or _DEFAULT_LIMIT_MIB
        self.limit_bytes = limit_mib << 20
        self.node_limit_bytes = (netconf.optional_int(raw, "nodeLimitMiB", 1, _HIGHEST_NODE_LIMIT_MIB) or 0) << 20
        self.is_required = netconf.optional_choice(raw, "onUnsupported", ("skip", "fail"), "skip") == "fail"
        pod = _Wish({} if self.is_off else conf.runtime_config)
        self.ports = _limited("excludePorts", [*_ports(raw, "excludePorts"), *pod.ports], layout.EXCLUDE_PORTS)
        self.uids = _limited("excludeUIDs", [*_uids(raw, "excludeUIDs"), *pod.uids], layout.EXCLUDE_UIDS)
        self.cgroup_path: str = _in_place("runtimeConfig.", netconf.optional_text, conf.runtime_config, "cgroupPath")
        self.warnings: list[str] = []
        self.scopes = 0 if self.is_off else self._granted(pod, allowed, allowed if mode == "all" else 0)
        if _has_bandwidth_limit(conf.runtime_config):
            self.refuse_scope_pod()

    def refuse_scope_pod(self) -> None:
        """Of a pod that has a bandwidth limit."""
        if self.scopes & layout.POD:
            self.scopes &= ~layout.POD
            self.warnings.append(
                "scope pod is off for this pod: it has a bandwidth limit, which would not see the bytes"
            )

    def _granted(self, pod: _Wish, allowed: int, default: int) -> int:
        wanted = pod.wanted(allowed, default)
        if wanted & ~allowed:
            names = ", ".join(name for name, bit in SCOPES.items() if wanted & ~allowed & bit)
            self.warnings.append(f"{pod.place}: {names} is not among the network's scopes, and so is not granted")
        return wanted & allowed


class _Wish:
    """What the pod says. runtimeConfig.sockmap wins over the annotations, key by key.

    place  where its scopes stand, for errors and warnings
    """

    __slots__ = ("_scopes", "place", "ports", "uids")

    def __init__(self, runtime_config: dict[str, Any]) -> None:
        notes = netconf.optional_object(runtime_config, ANNOTATIONS)
        own = netconf.optional_object(runtime_config, "sockmap")
        unknown = [key for key in own if key not in _POD_KEYS]
        if unknown:
            raise CniError(
                UNSUPPORTED_FIELD, f"runtimeConfig.sockmap: {', '.join(unknown)} unknown; its keys are "
                f"{', '.join(sorted(_POD_KEYS))}"
            )  # fmt: skip
        self.place = f"annotation {SCOPES_ANNOTATION}"
        self._scopes = _annotated(notes, SCOPES_ANNOTATION)
        if "scopes" in own:
            self.place = "runtimeConfig.sockmap.scopes"
            self._scopes = _in_place("runtimeConfig.sockmap.", netconf.optional_texts, own, "scopes")
        self.ports: list[int] = _in_place("runtimeConfig.sockmap.", _ports, own, "excludePorts")
        if "excludePorts" not in own:
            self.ports = _ports(_annotated_numbers(notes, PORTS_ANNOTATION), f"annotation {PORTS_ANNOTATION}")
        self.uids: list[int] = _in_place("runtimeConfig.sockmap.", _uids, own, "excludeUIDs")
        if "excludeUIDs" not in own:
            self.uids = _uids(_annotated_numbers(notes, UIDS_ANNOTATION), f"annotation {UIDS_ANNOTATION}")

    def wanted(self, allowed: int, default: int) -> int:
        """Bits of the scopes that the pod asks for; `default` when it says nothing."""
        if self._scopes in (["on"], ["off"]):
            return allowed if self._scopes == ["on"] else 0
        return _scopes(self._scopes, default, self.place)


def _in_place(prefix: str, read: Any, where: dict[str, Any], key: str) -> Any:
    try:
        return read(where, key)
    except CniError as error:
        raise CniError(error.code, prefix + error.msg) from None


def _scopes(names: list[str] | None, default: int, place: str = "scopes") -> int:
    if names is None:
        return default
    bits = 0
    for name in names:
        if name not in SCOPES:
            known = ", ".join(SCOPES) + ("" if place == "scopes" else '; or "on", or "off"')
            raise CniError(INVALID_CONFIG, f"{place}: {name[:40]!a} is not a scope; those are {known}")
        bits |= SCOPES[name]
    return bits


def _annotated(notes: dict[str, Any], key: str) -> list[str] | None:
    """The words between the commas of an annotation, None when the pod has none of that name."""
    try:
        text = netconf.optional_text(notes, key)
    except CniError as error:
        raise CniError(error.code, f"annotation {error.msg}") from None
    if key not in notes:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise CniError(
            INVALID_CONFIG, f"annotation {key}: {text[:80]!a} has nothing between two commas, or nothing at all"
        )
    return words


def _annotated_numbers(notes: dict[str, Any], key: str) -> dict[str, Any]:
    """In the form of a configuration: a list of numbers, where a word is one."""
    words = _annotated(notes, key)
    return {f"annotation {key}": None if words is None else [int(w) if _is_decimal(w) else w for w in words]}


def _is_decimal(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 10


def _ports(where: dict[str, Any], key: str) -> list[int]:
    return _numbers(where, key, 1, 0xFFFF, "a port, from 1 to 65535")


def _uids(where: dict[str, Any], key: str) -> list[int]:
    return _numbers(where, key, 0, _HIGHEST_UID, f"a user id, from 0 to {_HIGHEST_UID}")


def _numbers(where: dict[str, Any], key: str, lowest: int, highest: int, what: str) -> list[int]:
    values = where.get(key)
    if values is None:
        return []
    if not isinstance(values, list):
        raise CniError(INVALID_CONFIG, f"{key}: must be a list of numbers, is {ascii(values)[:80]}")
    for value in values:
        if type(value) is not int or not lowest <= value <= highest:
            raise CniError(INVALID_CONFIG, f"{key}: {ascii(value)[:40]} is not {what}")
    return values


def _limited(key: str, values: list[int], most: int) -> list[int]:
    found = sorted(set(values))
    if len(found) > most:
        raise CniError(INVALID_CONFIG, f"{key}: {len(found)} with those of the pod, at most {most} are possible")
    return found


def _has_bandwidth_limit(runtime_config: dict[str, Any]) -> bool:
    """Needs the capability "bandwidth". containerd writes EgressRate where the convention says egressRate."""
    limits = netconf.optional_object(runtime_config, "bandwidth")
    return any(key.lower() in ("egressrate", "ingressrate") and rate for key, rate in limits.items())
