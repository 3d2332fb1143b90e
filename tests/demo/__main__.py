# SPDX-License-Identifier: Apache-2.0
"""Two nodes on this kernel; what this kernel lacks (fq, ipvlan), on one node in a virtual machine."""

from __future__ import annotations

import sys

from tests.demo import nodes, shaped
from tests.demo.show import Broken, fact, step
from tests.kernels import boot, fetch, probes

VM_SECONDS = 480
IN_VM = "--in-the-machine"


def here() -> None:
    nodes.tell()
    if probes.has("fq") and probes.has("ipvlan"):
        shaped.tell()
    else:
        in_a_machine()


def in_a_machine() -> None:
    step("This kernel has no fq or no ipvlan: the rest is shown under Debian's 6.1, in a virtual machine")
    kernel = fetch.kernel("6.1", fact)
    machine = boot.Machine(kernel, boot.CHECKOUT / "build/kernels/demo")
    fact(f"booting {kernel.release}; emulated, it is some ten times slower than this machine")
    argv = [str(boot.CHECKOUT / ".venv/bin/python"), "-m", "tests.demo", IN_VM]
    if boot.run_in_vm(machine, argv, {"PYTHONDONTWRITEBYTECODE": "1"}, VM_SECONDS):
        raise Broken(f"the demonstration in the machine failed; its console is {machine.console}")


def main() -> int:
    try:
        if sys.argv[1:] == [IN_VM]:
            shaped.tell()
            return 0
        here()
    except (Broken, boot.VmError, fetch.FetchError) as error:
        print(f"\nThe demonstration failed: {error}", file=sys.stderr)
        return 1
    step("That was all; nothing is left of it on this machine")
    return 0


if __name__ == "__main__":
    sys.exit(main())
