# SPDX-License-Identifier: Apache-2.0
from cni.plugin import run
from ipvlan.plugin import Ipvlan

run(Ipvlan())
