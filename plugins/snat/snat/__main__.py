# SPDX-License-Identifier: Apache-2.0
from cni.plugin import run
from snat.plugin import Snat

run(Snat())
