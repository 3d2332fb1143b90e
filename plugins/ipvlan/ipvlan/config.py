# SPDX-License-Identifier: Apache-2.0
"""The keys of bypath-ipvlan."""

from __future__ import annotations

from cni import netconf
from cni.errors import INVALID_CONFIG, CniError
from cni.netconf import NetConf
from cni.request import fault_of_ifname
from ipvlan.port import FLAGS, MODES, Setting

KEYS = frozenset(("master", "mode", "flag", "mtu", "linkInContainer", "hostAccess"))
_MIN_MTU, _MAX_MTU = 68, 65535


class Config:
    """The configuration, checked without a look at the node.

    master         name of the NIC, empty: that of the default route
    in_container   the master is looked up in the pod's namespace
    setting        mode and flag
    mtu            None: the master's
    """

    __slots__ = ("in_container", "master", "mtu", "setting")

    def __init__(self, conf: NetConf) -> None:
        self.master = netconf.optional_text(conf.raw, "master")
        self.in_container = netconf.optional_bool(conf.raw, "linkInContainer")
        mode = netconf.optional_choice(conf.raw, "mode", MODES, "l2")
        flag = netconf.optional_choice(conf.raw, "flag", FLAGS, "bridge")
        self.setting = Setting(MODES.index(mode), FLAGS.index(flag))
        self.mtu = netconf.optional_int(conf.raw, "mtu", _MIN_MTU, _MAX_MTU)
        netconf.optional_choice(conf.raw, "hostAccess", ("none",), "none")
        fault = fault_of_ifname(self.master)
        if fault:
            raise CniError(INVALID_CONFIG, f"master: {self.master!a} {fault}")
        if not conf.ipam:
            raise CniError(INVALID_CONFIG, 'ipam: missing; add for example {"type": "host-local", "ranges": [...]}')
