# SPDX-License-Identifier: Apache-2.0
"""What comes back from a machine that works, dies, hangs or never starts; a shell script stands in for qemu."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

from tests.kernels import boot, fetch, initramfs
from tests.kernels.__main__ import LANES, REST, selection
from tests.kernels.boot import CHECKOUT

UP = "echo 'boot noise'; echo 'bypath-vm: kernel 1.2.3 is up'; echo > $run_dir/ready"


@pytest.fixture
def machine(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> boot.Machine:
    """A machine whose qemu is what `script` writes; only emulation is tried."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(initramfs, "build", lambda _kernel, _arguments: b"")
    monkeypatch.setattr(boot, "accelerators", lambda: iter(["tcg"]))
    return boot.Machine(fetch.Kernel(tmp_path / "1.2.3"), tmp_path / "run")


def qemu(machine: boot.Machine, script: str) -> None:
    """Make `script` the qemu that the machine starts; $run_dir is the machine's."""
    program = machine.run_dir.parent / next(word for word in machine.qemu("tcg") if word.startswith("qemu-"))
    program.write_text(f"#!/bin/sh\nrun_dir={machine.run_dir}\n{script}\n")
    program.chmod(0o755)


def test_the_exit_status_comes_back_and_the_output_from_the_moment_it_is_up(
    machine: boot.Machine,
) -> None:
    qemu(machine, f"{UP}; printf 'tests\\r\\n'; echo 3 > $run_dir/status")
    shown: list[str] = []
    assert boot.run_in_vm(machine, ["true"], {}, 10, shown.append) == 3
    assert shown == ["bypath-vm: kernel 1.2.3 is up", "tests"]
    assert b"boot noise" in machine.console.read_bytes()


def test_a_machine_that_dies_is_an_error_that_shows_the_end_of_its_console(machine: boot.Machine) -> None:
    qemu(machine, f"{UP}; echo 'Kernel panic'")
    with pytest.raises(boot.VmError, match=r"ended before its command did(.|\n)*console\.log(.|\n)*Kernel panic"):
        boot.run_in_vm(machine, ["true"], {}, timeout_s=10)


def test_the_status_of_an_earlier_run_does_not_count(machine: boot.Machine) -> None:
    machine.run_dir.mkdir()
    (machine.run_dir / "status").write_text("0")
    qemu(machine, UP)
    with pytest.raises(boot.VmError):
        boot.run_in_vm(machine, ["true"], {}, timeout_s=10)


def test_a_machine_that_hangs_is_stopped_and_an_error(machine: boot.Machine) -> None:
    qemu(machine, f"{UP}; echo $$ > $run_dir/pid; exec sleep 60")
    with pytest.raises(boot.VmError, match="not done after 2 s"):
        boot.run_in_vm(machine, ["true"], {}, timeout_s=2)
    pid = int((machine.run_dir / "pid").read_text())
    assert not pathlib.Path(f"/proc/{pid}").exists()


def test_a_kvm_that_does_not_start_gives_way_to_emulation(
    machine: boot.Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "accelerators", lambda: iter(["kvm", "tcg"]))
    qemu(machine, f"case $* in *'-accel kvm'*) exit 1;; esac; {UP}; echo 0 > $run_dir/status")
    assert boot.run_in_vm(machine, ["true"], {}, timeout_s=10) == 0


def test_command_and_environment_reach_the_guest_as_they_are(machine: boot.Machine, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    machine.prepare(["sh", "-c", f'printf "%s|%s" "$A" "$0" > {out}', "x 'y\""], {"A": "b  $c"})
    subprocess.run(["sh", str(machine.run_dir / "command")], check=True)
    assert out.read_text() == "b  $c|x 'y\""


def test_modules_are_loaded_after_what_they_need_and_built_in_ones_not_at_all(tmp_path: pathlib.Path) -> None:
    (tmp_path / "modules.dep").write_text(
        "kernel/9p.ko.xz: kernel/9pnet.ko.xz kernel/netfs.ko.xz\nkernel/netfs.ko.xz:\nkernel/9pnet.ko.xz:\n"
        "kernel/9pnet_virtio.ko: kernel/virtio.ko kernel/9pnet.ko.xz\nkernel/virtio.ko:\n"
    )
    names = [path.name for path in initramfs.wanted(tmp_path)]
    assert names == ["9pnet.ko.xz", "virtio.ko", "9pnet_virtio.ko", "netfs.ko.xz", "9p.ko.xz"]


def test_the_archive_is_one_that_cpio_unpacks(tmp_path: pathlib.Path) -> None:
    archive = initramfs.Cpio()
    archive.add("bin", 0o40755)
    archive.add("bin/tool", 0o100755, b"#!odd")
    packed = archive.finish()
    busybox = str(initramfs.busybox())
    subprocess.run([busybox, "cpio", "-i"], cwd=tmp_path, input=packed, check=True, capture_output=True)
    assert (tmp_path / "bin/tool").read_bytes() == b"#!odd"
    assert (tmp_path / "bin/tool").stat().st_mode & 0o777 == 0o755


def test_each_test_of_features_is_one_machines_and_no_more() -> None:
    files = {str(file) for file in (CHECKOUT / "tests").rglob("test_*.py")}
    chosen = [name for lane in LANES if lane != REST for name in selection(lane)]
    assert len(chosen) == len(set(chosen)) and set(chosen) < files
    assert selection(REST) == [f"--ignore={name}" for name in chosen]
    assert all(selection(lane) for lane in LANES), "a pattern fits nothing any more"
