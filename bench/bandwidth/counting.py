# SPDX-License-Identifier: Apache-2.0
"""Instructions of one packet in the program: what it costs where no neighbour on the processor can blur it.

A virtual machine whose clock counts executed instructions runs cost.py, so that the nanoseconds it sees are these.
"""

from __future__ import annotations

import dataclasses
import json

from tests.kernels import boot, fetch
from tests.lab.executable import REPO

_REPEATS = 20_000
_TIMEOUT_SEC = 300


@dataclasses.dataclass(frozen=True)
class CountingMachine(boot.Machine):
    """Emulated in any case: only then does somebody count."""

    def qemu(self, accelerator: str) -> list[str]:
        return [*super().qemu(accelerator), "-icount", "shift=0"]


def measure(kernel: fetch.Kernel) -> dict[str, dict[str, float]]:
    """As cost.measure(), in instructions. Raises boot.VmError, also when the program in the machine fails."""
    machine = CountingMachine(kernel, REPO / "build/kernels/bench-counting")
    argv = [str(REPO / ".venv/bin/python"), "-m", "bench.bandwidth.cost", str(_REPEATS)]
    printed: list[str] = []
    status = boot.run_in_vm(machine, argv, {"PYTHONDONTWRITEBYTECODE": "1"}, _TIMEOUT_SEC, printed.append)
    found = [line for line in printed if line.startswith("{")]
    if status or not found:
        raise boot.VmError(boot.describe(machine, f"did not count: status {status}"))
    counted: dict[str, dict[str, float]] = json.loads(found[-1])
    return counted
