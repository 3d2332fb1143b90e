# SPDX-License-Identifier: Apache-2.0
"""The verbs of bypath-bandwidth-edt.

Most pods have no limit, and still each of them passes here: what works on limits is imported for pods that have one.
"""

from __future__ import annotations

import posix

from bandwidth_edt import config, saved
from bandwidth_edt.config import Config
from bandwidth_edt.layout import PLUGIN
from bpf import bpffs, records
from cni import files, result
from cni.errors import CHECK_FAILED, NOT_READY, CniError
from cni.identity import Attachment, fnv1a_64
from cni.undo import Attempts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.net.netns import NetNs
    from cni.netconf import NetConf
    from cni.request import Request
    from cni.result import Result


class BandwidthEdt:
    """Egress on the pod's own interface, ingress on the host's end of its veth, or on the node's ifb."""

    config_keys = config.KEYS
    _config: Config

    def configure(self, conf: NetConf) -> None:
        self._config = Config(conf)

    def add(self, request: Request, conf: NetConf, pod: NetNs) -> Result:
        """A second ADD of a pod changes its limits; without any limit it takes them away."""
        previous = result.required_prev(conf)
        attachment = Attachment.of(request, conf.name)
        if self._config.is_unlimited:
            _take_away(attachment, pod)
            _settle_nics(at_once=False)
            return previous
        from bandwidth_edt import limits

        limits.put_in_force(request, attachment, pod, previous, self._config)
        return previous

    def delete(self, request: Request, conf: NetConf, pod: NetNs | None) -> None:
        attempts = Attempts()
        attempts.run(_take_away, Attachment.of(request, conf.name), pod)
        attempts.run(_settle_nics, False)
        attempts.finish()

    def check(self, request: Request, conf: NetConf, pod: NetNs) -> None:
        previous = result.required_prev(conf)
        if self._config.is_unlimited:
            return
        from bandwidth_edt import limits

        faults = limits.faults(request, Attachment.of(request, conf.name), pod, previous, self._config)
        if faults:
            raise CniError(CHECK_FAILED, f"{request.ifname}: " + ", ".join(faults))

    def status(self, request: Request, conf: NetConf) -> None:
        if _kernel_has_fq() is False:
            release = posix.uname().release
            raise CniError(NOT_READY, f"kernel {release} has no fq packet scheduler: neither built in nor a module")
        bpffs.ensure_directory(PLUGIN)

    def gc(self, request: Request, conf: NetConf) -> None:
        from bandwidth_edt import limits
        from cni.net import netns

        attempts = Attempts()
        for owned, key, record in records.stale(PLUGIN, conf):
            pod = netns.reopen(record.netns_path, record.netns_inode)
            attempts.run(limits.take_away, owned, key, fnv1a_64(conf.name), record, pod)
        attempts.run(limits.sweep)
        attempts.run(_settle_nics, True)
        attempts.finish()


def _take_away(attachment: Attachment, pod: NetNs | None) -> None:
    """What an earlier ADD put in force, if any."""
    owned, record = records.find(PLUGIN, attachment)
    if owned and record:
        from bandwidth_edt import limits

        same_pod = pod if pod and pod.inode == record.netns_inode else None
        limits.take_away(owned, attachment.key, attachment.network_key, record, same_pod)


def _settle_nics(at_once: bool) -> None:
    """Give the node back what only limits that are gone needed."""
    if saved.indexes():
        from bandwidth_edt import limits

        limits.settle_nics(at_once)


def _kernel_has_fq() -> bool | None:
    """Without loading it: STATUS has no effects. None when this file system does not tell, as in a container."""
    if bpffs.exists("/sys/module/sch_fq"):
        return True
    modules = f"/lib/modules/{posix.uname().release}"
    known = [
        text for name in ("modules.builtin", "modules.dep") if (text := files.read(f"{modules}/{name}")) is not None
    ]
    return any(b"/sch_fq.ko" in text for text in known) if known else None
