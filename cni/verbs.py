# SPDX-License-Identifier: Apache-2.0
"""The verb table: since which spec version, what it needs from the environment, what it prints."""

from __future__ import annotations

SUPPORTED_VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


class Verb:
    """One row.

    since           the first spec version that has it, a version of SUPPORTED_VERSIONS
    required        CNI_* variables without which it is refused
    needs_prev      the configuration must carry a prevResult
    prints_result   its method returns a Result, which goes to stdout
    """

    __slots__ = ("method", "needs_prev", "prints_result", "required", "since")

    def __init__(
        self,
        method: str,
        since: str,
        required: tuple[str, ...],
        *,
        needs_prev: bool = False,
        prints_result: bool = False,
    ) -> None:
        self.method = method
        self.since = since
        self.required = required
        self.needs_prev = needs_prev
        self.prints_result = prints_result


_ATTACHMENT = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")

VERBS = {
    "ADD": Verb("add", "0.3.0", _ATTACHMENT, prints_result=True),
    "DEL": Verb("delete", "0.3.0", ("CNI_CONTAINERID", "CNI_IFNAME")),
    "CHECK": Verb("check", "0.4.0", _ATTACHMENT, needs_prev=True),
    "STATUS": Verb("status", "1.1.0", ()),
    "GC": Verb("gc", "1.1.0", ()),
}
"""VERSION is not here: it is answered before a configuration is read for its meaning, see plugin.run()."""


def is_at_least(version: str, since: str) -> bool:
    """Both from SUPPORTED_VERSIONS, which is in order."""
    return SUPPORTED_VERSIONS.index(version) >= SUPPORTED_VERSIONS.index(since)
