# SPDX-License-Identifier: Apache-2.0
"""A plugin's network configuration: the standard keys, and typed readers for the plugin's own.

Every reader names the key, the value and what is wanted in its error, so that a node's operator can mend the conflist.
"""

from __future__ import annotations

from .errors import INCOMPATIBLE_VERSION, INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from .request import is_valid_name
from .verbs import SUPPORTED_VERSIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STANDARD_KEYS = frozenset(
    (
        "cniVersion", "cniVersions", "name", "type", "disableCheck", "disableGC", "loadOnlyInlinedPlugins",
        "ipam", "dns", "args", "capabilities", "runtimeConfig", "prevResult", "cni.dev/valid-attachments",
        "cni.dev/attachments",
    )
)  # fmt: skip


class NetConf:
    """The configuration of one plugin of one network.

    raw           the JSON object as it came, for delegation
    ipam          the `ipam` object, or an empty dict
    prev_result   the `prevResult` object as JSON, or None
    runtime_config  the `runtimeConfig` object, or an empty dict
    """

    __slots__ = ("cni_version", "ipam", "name", "prev_result", "raw", "runtime_config", "type")

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.cni_version = version_of(raw)
        self.name = _required_text(raw, "name")
        self.type = _required_text(raw, "type")
        if not is_valid_name(self.name):
            raise CniError(
                INVALID_CONFIG,
                f"name: {self.name!a} must be letters, digits, '_', '.' and '-', beginning with a letter or digit",
            )
        self.ipam = optional_object(raw, "ipam")
        self.runtime_config = optional_object(raw, "runtimeConfig")
        self.prev_result = optional_object(raw, "prevResult") or None

    def valid_attachments(self) -> list[tuple[str, str]] | None:
        """(container id, ifname) pairs that GC keeps; None when the runtime sent no list, which means "unknown".

        libcni up to 1.2 sends the same list under `cni.dev/attachments`.
        """
        for key in ("cni.dev/valid-attachments", "cni.dev/attachments"):
            entries = self.raw.get(key)
            if entries is not None:
                return [_attachment_entry(key, entry) for entry in _list(key, entries)]
        return None

    def refuse_unknown_keys(self, own_keys: frozenset[str]) -> None:
        """Keys of libcni and of the CNI conventions are everybody's; any other must be one of the plugin's."""
        unknown = [key for key in self.raw if key not in own_keys and key not in _STANDARD_KEYS and "/" not in key]
        if unknown:
            raise CniError(
                UNSUPPORTED_FIELD,
                f"{', '.join(unknown)}: unknown to {self.type}; its keys are {', '.join(sorted(own_keys)) or 'none'}",
            )


def version_of(raw: dict[str, Any]) -> str:
    version = raw.get("cniVersion", "")
    if not isinstance(version, str) or version not in SUPPORTED_VERSIONS:
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"cniVersion: {version!a} is not supported; use one of {', '.join(SUPPORTED_VERSIONS)}",
        )
    return version


def _required_text(raw: dict[str, Any], key: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not value:
        raise CniError(INVALID_CONFIG, f"{key}: must be a non-empty string, is {_shown(value)}")
    return value


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    shown = ascii(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _list(key: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise CniError(INVALID_CONFIG, f"{key}: must be a list, is {_shown(value)}")
    return value


def _attachment_entry(key: str, entry: object) -> tuple[str, str]:
    if isinstance(entry, dict):
        container_id, ifname = entry.get("containerID"), entry.get("ifname")
        if isinstance(container_id, str) and isinstance(ifname, str):
            return container_id, ifname
    raise CniError(INVALID_CONFIG, f"{key}: each entry needs containerID and ifname, found {_shown(entry)}")


def optional_object(raw: dict[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CniError(INVALID_CONFIG, f"{key}: must be an object, is {_shown(value)}")
    return value


def optional_text(raw: dict[str, Any], key: str, default: str = "") -> str:
    value = raw.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise CniError(INVALID_CONFIG, f"{key}: must be a string, is {_shown(value)}")
    return value


def optional_bool(raw: dict[str, Any], key: str, default: bool = False) -> bool:
    value = raw.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise CniError(INVALID_CONFIG, f"{key}: must be true or false, is {_shown(value)}")
    return value


def optional_int(raw: dict[str, Any], key: str, lowest: int, highest: int) -> int | None:
    """An integer in [lowest, highest]; a float such as 1e6 that is whole is taken too, since JSON knows one number."""
    value = raw.get(key)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise CniError(
            INVALID_CONFIG, f"{key}: must be a whole number from {lowest} to {highest}, is {_shown(raw.get(key))}"
        )
    return value


def optional_choice(raw: dict[str, Any], key: str, choices: tuple[str, ...], default: str) -> str:
    value = optional_text(raw, key, default)
    if value not in choices:
        raise CniError(INVALID_CONFIG, f"{key}: must be one of {', '.join(choices)}, is {_shown(value)}")
    return value


def optional_texts(raw: dict[str, Any], key: str) -> list[str] | None:
    value = raw.get(key)
    if value is None:
        return None
    texts = _list(key, value)
    for text in texts:
        if not isinstance(text, str):
            raise CniError(INVALID_CONFIG, f"{key}: must be a list of strings, holds {_shown(text)}")
    return texts
