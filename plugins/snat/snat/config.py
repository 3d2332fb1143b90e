# SPDX-License-Identifier: Apache-2.0
"""The keys of bypath-snat."""

from __future__ import annotations

from cni import netconf
from cni.errors import INVALID_CONFIG, CniError
from cni.net import ipaddr
from cni.netconf import NetConf
from cni.request import fault_of_ifname
from snat import ports

KEYS = frozenset(("uplinks", "nonMasqueradeCIDRs", "portRange"))
DEFAULT_NON_MASQUERADE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16")
"""Private, shared and link-local networks (RFC 1918, 6598, 3927): where pods, Services and nodes usually are."""


class Config:
    """uplinks: device names, None for those of the default routes. non_masquerade: (packed network, prefix length),
    IPv4 only: IPv6 pods are never translated. ports: (first, last), inclusive."""

    __slots__ = ("non_masquerade", "ports", "uplinks")

    def __init__(self, conf: NetConf) -> None:
        self.uplinks = netconf.optional_texts(conf.raw, "uplinks")
        for name in self.uplinks or []:
            fault = fault_of_ifname(name)
            if fault or not name:
                raise CniError(INVALID_CONFIG, f"uplinks: {name!a} {fault or 'is empty'}")
        if self.uplinks == []:
            raise CniError(INVALID_CONFIG, "uplinks: is empty; leave it out for the interfaces of the default routes")
        cidrs = netconf.optional_texts(conf.raw, "nonMasqueradeCIDRs")
        self.non_masquerade = sorted(
            {(ipaddr.network_of(*network), network[1]) for network in _networks(cidrs) if len(network[0]) == 4}
        )
        self.ports = ports.configured(netconf.optional_text(conf.raw, "portRange"))


def _networks(cidrs: list[str] | None) -> list[tuple[bytes, int]]:
    texts = DEFAULT_NON_MASQUERADE if cidrs is None else cidrs
    return [ipaddr.parse_cidr(text, "nonMasqueradeCIDRs") for text in texts]
