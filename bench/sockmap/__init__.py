# SPDX-License-Identifier: Apache-2.0
"""TCP between neighbours with bypath-sockmap and without it, in one run on one kernel."""

from __future__ import annotations

import sys

from tests.lab.executable import REPO

sys.path += [str(room) for room in sorted((REPO / "plugins").iterdir()) if str(room) not in sys.path]
