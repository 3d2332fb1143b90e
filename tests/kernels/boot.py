# SPDX-License-Identifier: Apache-2.0
"""Runs a command under another kernel, in a virtual machine whose root is this machine's, read-only.

The guest sees the checkout at the same path and can write to its build/ and, in memory only, everywhere else. The
command's exit status comes back through a file, so a guest that dies or hangs is never taken for one that succeeded.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import platform
import select
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator

from tests.kernels import initramfs
from tests.kernels.fetch import Kernel

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
READY = b"bypath-vm: kernel"

# Emulated, each switch into a kernel with its mitigations flushes what was translated; none of it matters to a test.
# A busy machine may be too slow for the kernel's test of its timer, which then panics: no_timer_check.
# oops=panic with panic=-1 and qemu's -no-reboot turns a kernel bug into a machine that ends at once.
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=4 oops=panic panic=-1 mitigations=off nokaslr no5lvl audit=0 nmi_watchdog=0"
    " no_timer_check"
)
# A machine with KVM that works is up within 5 s.
KVM_PATIENCE_S = 30


class VmError(Exception):
    """The virtual machine did not get as far as the command's exit status."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """What to boot."""

    kernel: Kernel
    run_dir: pathlib.Path
    """Below the checkout's build/: the command, its exit status, the console's log and the kernel's."""
    memory_mib: int = 4096
    cpus: int = 1
    """More are slower when emulated: each flush of translations and each patched jump label of the kernel waits for
    all of them, and a test's commands took three times as long on two."""

    @property
    def console(self) -> pathlib.Path:
        """Everything that the guest printed."""
        return self.run_dir / "console.log"

    def prepare(self, argv: list[str], env: dict[str, str]) -> None:
        """Write what the guest reads, and remove what an earlier run left."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        for name in ("ready", "status", "dmesg", "console.log"):
            (self.run_dir / name).unlink(missing_ok=True)
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())
        (self.run_dir / "command").write_text(f"{exports}exec {shlex.join(argv)}\n")
        script = [str(CHECKOUT / "tests/kernels/guest.sh"), str(CHECKOUT), str(self.run_dir), str(self.kernel.modules)]
        (self.run_dir / "initramfs").write_bytes(initramfs.build(self.kernel, script))

    def qemu(self, accelerator: str) -> list[str]:
        """The command line for one of the accelerators "kvm" and "tcg"."""
        shares = ("path=/,mount_tag=root,readonly=on", f"path={CHECKOUT}/build,mount_tag=build")
        # However we end, qemu ends too.
        argv = ["setpriv", "--pdeathsig", "KILL"]
        argv += [f"qemu-system-{platform.machine()}", "-machine", "q35", "-accel", accelerator, "-cpu", "max"]
        argv += [
            "-smp",
            str(self.cpus),
            "-m",
            str(self.memory_mib),
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-reboot",
        ]
        argv += ["-nic", "none", "-serial", "stdio", "-kernel", str(self.kernel.image), "-append", KERNEL_ARGUMENTS]
        argv += ["-initrd", str(self.run_dir / "initramfs")]
        for share in shares:
            argv += ["-virtfs", f"local,{share},security_model=none,multidevs=remap"]
        return argv


def accelerators() -> Iterator[str]:
    """What to try, best first: a /dev/kvm that can be opened may still not start a kernel, and an emulated one may
    be too slow once to come up. What has come up is never tried again."""
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        yield "kvm"
    yield from ("tcg", "tcg")


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)


def run_in_vm(
    machine: Machine,
    argv: list[str],
    env: dict[str, str],
    timeout_s: float,
    show: Callable[[str], None] = say,
) -> int:
    """The exit status of `argv`, run as root in the checkout.

    `show` is given the guest's output line by line from the moment it is up.
    Raises VmError when the guest ends without a status or is not done after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    for accelerator in accelerators():
        machine.prepare(argv, env)
        patience = min(deadline, time.monotonic() + KVM_PATIENCE_S) if accelerator == "kvm" else deadline
        ended = watch(machine, accelerator, patience, deadline, Screen(show))
        if (machine.run_dir / "ready").exists():
            break
    status = machine.run_dir / "status"
    if not status.exists():
        what = "ended before its command did" if ended else f"was not done after {timeout_s:.0f} s"
        raise VmError(describe(machine, what))
    return int(status.read_text())


def interact(machine: Machine, argv: list[str], env: dict[str, str]) -> int:
    """qemu's exit status after `argv` ran with our terminal as its own. Ctrl-A X ends the machine at once."""
    status = 1
    for accelerator in accelerators():
        machine.prepare(argv, env)
        command = machine.qemu(accelerator)
        command[command.index("stdio")] = "mon:stdio"
        status = subprocess.run(command, check=False).returncode
        if (machine.run_dir / "ready").exists():
            break
    return status


def watch(machine: Machine, accelerator: str, patience: float, deadline: float, screen: Screen) -> bool:
    """Run qemu until it ends (True) or its time is over (False): at `deadline`, or `patience` while not ready."""
    with (
        machine.console.open("wb") as log,
        subprocess.Popen(
            machine.qemu(accelerator), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as qemu,
    ):
        assert qemu.stdout is not None
        try:
            while True:
                limit = deadline if screen.up else patience
                if time.monotonic() > limit:
                    return False
                if not select.select([qemu.stdout], [], [], 1)[0]:
                    continue
                data = os.read(qemu.stdout.fileno(), 65536)
                if not data:
                    return True
                log.write(data)
                log.flush()
                screen.feed(data)
        finally:
            qemu.kill()


class Screen:
    """Hands the guest's console on, whole lines only, from the line on that says it is up."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self.up = False
        self._show = show
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take one more piece of the console's output."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            start = line.find(READY)
            if not self.up and start < 0:
                continue
            self._show((line if self.up else line[start:]).rstrip(b"\r").decode(errors="replace"))
            self.up = True


def describe(machine: Machine, what: str) -> str:
    """A sentence about a failed guest, with the end of its console."""
    lines = machine.console.read_text(errors="replace").splitlines()
    tail = "\n".join(f"    {line}" for line in lines[-40:])
    return f"the machine with kernel {machine.kernel.release} {what}; its console ({machine.console}) ends with\n{tail}"
