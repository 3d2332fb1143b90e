# SPDX-License-Identifier: Apache-2.0
"""The conflists that the tests give to containerd."""

from __future__ import annotations

from typing import Any

POD_CIDR, POD_CIDR6 = "10.244.1.0/24", "fd00:10:244:1::/64"
ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
ROUTED = {
    "type": "host-local",
    "dataDir": "/var/lib/cni/networks",
    "ranges": [[{"subnet": POD_CIDR}], [{"subnet": POD_CIDR6}]],
    "routes": ROUTES,
}
"""Pods in subnets of their own, which the router has to send to the node."""

ON_THE_SWITCH = {
    "type": "host-local",
    "dataDir": "/var/lib/cni/networks",
    "ranges": [
        [{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.150", "gateway": "192.0.2.1"}],
        [
            {
                "subnet": "2001:db8:0:1::/64",
                "rangeStart": "2001:db8:0:1::100",
                "rangeEnd": "2001:db8:0:1::150",
                "gateway": "2001:db8:0:1::1",
            }
        ],
    ],
    "routes": ROUTES,
}
"""Pods beside the node on the switch, as ipvlan l2 wants them."""

SNAT = {"type": "bypath-snat", "nonMasqueradeCIDRs": ["10.244.0.0/16", "192.0.2.0/24", "fd00:10:244::/48"]}
BANDWIDTH = {"type": "bypath-bandwidth-edt", "capabilities": {"bandwidth": True}}

SOCKMAP = {
    "type": "bypath-sockmap",
    "mode": "annotated",
    "capabilities": {"io.kubernetes.cri.pod-annotations": True, "bandwidth": True},
}


def conflist(*plugins: dict[str, Any]) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": list(plugins)}


def ipvlan(mode: str) -> dict[str, Any]:
    ipam = ON_THE_SWITCH if mode == "l2" else ROUTED
    return conflist({"type": "bypath-ipvlan", "mode": mode, "hostAccess": "none", "ipam": ipam}, SNAT, BANDWIDTH)


HOST_GW = {"type": "bypath-host-gw", "source": "none", "ipam": ROUTED}

REFERENCE = conflist(
    {"type": "ptp", "ipMasq": False, "ipam": ROUTED},
    {"type": "bandwidth", "capabilities": {"bandwidth": True}},
)
HOST_GW_SNAT = conflist(HOST_GW, SNAT)
HOST_GW_SNAT_BANDWIDTH = conflist(HOST_GW, SNAT, BANDWIDTH)
HOST_GW_SOCKMAP = conflist(HOST_GW, SOCKMAP)
