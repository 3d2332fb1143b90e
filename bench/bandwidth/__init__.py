# SPDX-License-Identifier: Apache-2.0
"""What a limit costs a pod: bypath-bandwidth-edt beside the reference plugin `bandwidth`, in one run on one kernel."""

from __future__ import annotations

import sys

from tests.lab.executable import REPO

ROOMS = [str(REPO), *map(str, sorted((REPO / "plugins").iterdir()))]
"""Where the packages of the plugins are found, also by programs that run inside a node."""
sys.path += [room for room in ROOMS if room not in sys.path]
