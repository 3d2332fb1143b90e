# SPDX-License-Identifier: Apache-2.0
"""The verbs of bypath-sockmap.

Most pods are not accelerated, and still each of them passes here: what works on policies is imported for those that
are.
"""

from __future__ import annotations

from bpf import records
from cni import log, result
from cni.errors import CHECK_FAILED, CniError
from cni.identity import Attachment, fnv1a_64
from cni.undo import Attempts
from sockmap import config, layout
from sockmap.config import Config
from sockmap.layout import PLUGIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.net.netns import NetNs
    from cni.netconf import NetConf
    from cni.request import Request
    from cni.result import Result

_BANDWIDTH = "bandwidth-edt"
"""Whose record of an attachment says that its packets are limited."""


class Sockmap:
    """Sockets of a pod whose peer is on the node are joined, when both ends' policies say so."""

    config_keys = config.KEYS
    _config: Config

    def configure(self, conf: NetConf) -> None:
        self._config = Config(conf)

    def add(self, request: Request, conf: NetConf, pod: NetNs) -> Result:
        """A second ADD of a pod changes its policy; without any scope it takes it away."""
        previous = result.required_prev(conf)
        attachment = Attachment.of(request, conf.name)
        self._mind_limits(attachment)
        for warning in self._config.warnings:
            log.warn(f"{attachment.alias}: {warning}")
        if not self._config.scopes:
            _take_away(attachment)
            return previous
        from sockmap import policy

        fault = policy.fault_of_kernel()
        if fault:
            _take_away(attachment)
            policy.refuse_or_warn(attachment, self._config, fault)
            return previous
        policy.put_in_force(request, attachment, pod, previous, self._config)
        return previous

    def delete(self, request: Request, conf: NetConf, pod: NetNs | None) -> None:
        _take_away(Attachment.of(request, conf.name))

    def check(self, request: Request, conf: NetConf, pod: NetNs) -> None:
        previous = result.required_prev(conf)
        attachment = Attachment.of(request, conf.name)
        self._mind_limits(attachment)
        if not self._config.scopes:
            return
        from sockmap import policy

        if policy.is_refused_by_kernel():
            return
        faults = policy.faults(request, attachment, pod, previous, self._config)
        if faults:
            raise CniError(CHECK_FAILED, f"{request.ifname}: " + ", ".join(faults))

    def status(self, request: Request, conf: NetConf) -> None:
        """With onUnsupported "skip" pods start on every kernel, so there is nothing to report."""
        if self._config.is_required and not self._config.is_off:
            from sockmap import policy

            policy.require_suitable_kernel()

    def _mind_limits(self, attachment: Attachment) -> None:
        """Also of a limit that the conflist has for all pods: its plugin comes first in the chain."""
        if self._config.scopes & layout.POD and records.find(_BANDWIDTH, attachment)[1]:
            self._config.refuse_scope_pod()

    def gc(self, request: Request, conf: NetConf) -> None:
        owned = records.open_if_any(PLUGIN)
        if owned is None:
            return
        from sockmap import policy

        attempts = Attempts()
        for key, record in records.unlisted(owned, conf):
            attempts.run(policy.take_away, owned, key, fnv1a_64(conf.name), record)
        attempts.run(policy.sweep, owned)
        attempts.finish()


def _take_away(attachment: Attachment) -> None:
    """What an earlier ADD put in force, if any; the pod's namespace is not needed for it."""
    owned, record = records.find(PLUGIN, attachment)
    if owned and record:
        from sockmap import policy

        policy.take_away(owned, attachment.key, attachment.network_key, record)
