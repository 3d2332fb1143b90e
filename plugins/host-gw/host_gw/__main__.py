# SPDX-License-Identifier: Apache-2.0
from cni.plugin import run
from host_gw.plugin import HostGw

run(HostGw())
