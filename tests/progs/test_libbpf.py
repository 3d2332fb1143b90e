# SPDX-License-Identifier: Apache-2.0
"""libbpf by ctypes: open, reuse of pins, constants, errors that say what libbpf said."""

from __future__ import annotations

import pathlib
import re
import subprocess
from collections.abc import Iterator

import pytest
from bandwidth_edt.shaper import OBJECT

from bpf import command, libbpf
from bpf.libbpf import BpfObject
from cni.errors import CONFLICT, INTERNAL, KERNEL_LACKS, CniError
from tests.progs import run
from tests.progs.btf import section
from tests.progs.snat_bench import NODE, frame, tcp

BUILT = pathlib.Path(__file__).parents[2] / "build/bpf"
EDT, SNAT = str(BUILT / "edt.bpf.o"), str(BUILT / "snat.bpf.o")


@pytest.fixture
def bpffs(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A bpffs of the test's own."""
    subprocess.run(["mount", "-t", "bpf", "bpf", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def failure_of(path: str, pins: dict[str, str] | None = None) -> CniError:
    with pytest.raises(CniError) as caught:
        BpfObject.open(path, pins).close()
    return caught.value


def test_maps_and_programs_live_on_by_their_pins(bpffs: pathlib.Path) -> None:
    with BpfObject.open(EDT) as opened:
        opened.load()
        assert set(opened.map_fds()) == {"build", *OBJECT.maps}
        assert set(opened.program_fds()) == set(OBJECT.programs)
        opened.pin_map("build", str(bpffs / "build"))
        opened.pin_program("edt_pod_out", str(bpffs / "edt_pod_out"))
    assert command.map_sizes(command.obj_get(str(bpffs / "build"))) == (4, 32, 1)
    assert command.prog_name(command.obj_get(str(bpffs / "edt_pod_out"))) == "edt_pod_out"


def test_a_pinned_map_is_used_again_with_its_contents(bpffs: pathlib.Path) -> None:
    pins = {"build": str(bpffs / "build"), "ip2id": str(bpffs / "ip2id")}
    with BpfObject.open(EDT, pins) as first:
        first.load()
        command.update(first.map_fds()["build"], bytes(4), b"x" * 32)
        first.pin_map("build", pins["build"])
    with BpfObject.open(EDT, pins) as second:
        second.load()
        assert command.lookup(second.map_fds()["build"], bytes(4), 32) == b"x" * 32


def test_a_pin_of_another_layout_is_refused_by_map_and_path(bpffs: pathlib.Path) -> None:
    with BpfObject.open(EDT) as opened:
        opened.load()
        opened.pin_map("build", str(bpffs / "other"))
    error = failure_of(EDT, {"ip2id": str(bpffs / "other")})
    assert error.code == CONFLICT
    for part in (
        "map ip2id",
        str(bpffs / "other"),
        "type 2 instead of 1",
        "key_size 4 instead of 16",
        "value_size 32 instead of 4",
        "max_entries 1 instead of 16384",
        "map_flags 0 instead of 1",
    ):
        assert part in error.msg


def test_what_is_no_map_is_refused(bpffs: pathlib.Path) -> None:
    with BpfObject.open(EDT) as opened:
        opened.load()
        opened.pin_program("edt_pod_out", str(bpffs / "program"))
    assert failure_of(EDT, {"ip2id": str(bpffs / "program")}).code in (INTERNAL, CONFLICT)


def test_errors_carry_what_libbpf_said(tmp_path: pathlib.Path) -> None:
    missing = failure_of(str(tmp_path / "missing.bpf.o"))
    assert (missing.code, "missing.bpf.o" in missing.msg) == (INTERNAL, True)
    assert "libbpf: " in missing.details
    (tmp_path / "noise.bpf.o").write_bytes(b"no ELF" * 100)
    assert "libbpf: " in failure_of(str(tmp_path / "noise.bpf.o")).details
    assert failure_of(EDT, {"nonsense": "/nonexistent"}).msg.endswith("has no map nonsense")


@pytest.mark.parametrize(
    "instead, code, said",
    [
        ("8500000004000000", KERNEL_LACKS, r"unknown func|cannot use helper"),  # a helper that tc programs do not have
        ("ff00000000000000", INTERNAL, r"unknown opcode ff"),
    ],
)
def test_a_refused_program_is_the_kernels_lack_or_our_defect(
    tmp_path: pathlib.Path, instead: str, code: int, said: str
) -> None:
    raw = pathlib.Path(EDT).read_bytes()
    text = section(pathlib.Path(EDT), "tc")
    patched = text.replace(bytes.fromhex("8500000001000000"), bytes.fromhex(instead), 1)
    assert patched != text
    (tmp_path / "bad.bpf.o").write_bytes(raw.replace(text, patched))
    with BpfObject.open(str(tmp_path / "bad.bpf.o")) as opened, pytest.raises(CniError) as caught:
        opened.load()
    assert caught.value.code == code
    assert re.search(said, caught.value.details)


def test_unknown_names_are_refused() -> None:
    with BpfObject.open(EDT) as opened:
        with pytest.raises(CniError, match="has no map nonsense"):
            opened.pin_map("nonsense", "/x")
        with pytest.raises(CniError, match="has no program nonsense"):
            opened.pin_program("nonsense", "/x")
        with pytest.raises(CniError, match="has no constant nonsense"):
            opened.set_rodata("nonsense", bytes(4))


def test_a_constant_can_be_set_before_load() -> None:
    with BpfObject.open(SNAT) as opened:
        with pytest.raises(CniError, match="has 4 bytes, not 2"):
            opened.set_rodata("notrack_mark", bytes(2))
        opened.set_rodata("notrack_mark", (0x100).to_bytes(4, "little"))
        opened.load()
        packet = frame(tcp("10.9.9.9", NODE, 1, 2))
        assert run.test_run(opened.program_fds()["nic_out"], packet, mark=0x00200100).mark == 0x00200000


def test_the_library_is_found_where_pyinstaller_puts_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pylibbpf").mkdir()
    placed = tmp_path / "pylibbpf" / "pylibbpf.cpython-311-x86_64-linux-gnu.so"
    placed.touch()
    monkeypatch.setattr("sys._MEIPASS", str(tmp_path), raising=False)
    assert libbpf.library_path() == str(placed)
    monkeypatch.delattr("sys._MEIPASS")
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(CniError, match="install bypath again"):
        libbpf.library_path()
