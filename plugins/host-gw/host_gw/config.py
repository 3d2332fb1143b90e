# SPDX-License-Identifier: Apache-2.0
"""The keys of bypath-host-gw."""

from __future__ import annotations

from cni import netconf
from cni.errors import INVALID_CONFIG, CniError
from cni.net import link, route
from cni.net.netlink import Socket
from cni.netconf import NetConf
from cni.request import fault_of_ifname

KEYS = frozenset(("mtu", "hostVethPrefix", "source"))
DEFAULT_PREFIX = "bp"
_DEFAULT_MTU = 1500
_MIN_MTU, _MAX_MTU = 68, 65535
_MAX_PREFIX = 6


def _is_prefix(text: str) -> bool:
    return 0 < len(text) <= _MAX_PREFIX and text.isascii() and not fault_of_ifname(text)


def prefix_for_delete(conf: NetConf) -> str:
    """Only for an attachment without a record. No ADD can have used a prefix that is not one."""
    prefix = conf.raw.get("hostVethPrefix")
    return prefix if isinstance(prefix, str) and _is_prefix(prefix) else DEFAULT_PREFIX


class Config:
    """mtu: None means that of the default route's interface. prefix: of the host's veth names."""

    __slots__ = ("mtu", "prefix")

    def __init__(self, conf: NetConf) -> None:
        self.mtu = netconf.optional_int(conf.raw, "mtu", _MIN_MTU, _MAX_MTU)
        self.prefix = netconf.optional_text(conf.raw, "hostVethPrefix", DEFAULT_PREFIX)
        netconf.optional_choice(conf.raw, "source", ("none",), "none")
        if not _is_prefix(self.prefix):
            raise CniError(
                INVALID_CONFIG,
                f"hostVethPrefix: {self.prefix!a} must be 1 to {_MAX_PREFIX} characters of a device name",
            )
        if not conf.ipam:
            raise CniError(INVALID_CONFIG, 'ipam: missing; add for example {"type": "host-local", "ranges": [...]}')

    def mtu_on(self, host: Socket) -> int:
        """The pod's MTU: as configured, else what the node's way out can carry."""
        if self.mtu is not None:
            return self.mtu
        for family in (2, 10):
            for default in route.default_routes(host, family):
                return link.get_by_index(host, default.index).mtu
        return _DEFAULT_MTU
