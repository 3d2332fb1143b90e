# SPDX-License-Identifier: Apache-2.0
from bandwidth_edt.plugin import BandwidthEdt
from cni.plugin import run

run(BandwidthEdt())
