# SPDX-License-Identifier: Apache-2.0
"""The structs that C and Python share are the same in both: every field's name, offset and size."""

from __future__ import annotations

import hashlib
import pathlib

import bandwidth_edt.layout
import pytest
import snat.layout
import sockmap.layout

from bpf.layout import BUILD, Layout
from tests.progs.btf import Btf
from tests.progs.run import Loaded

BUILT = pathlib.Path(__file__).parents[2] / "build/bpf"
PREFIX = {"snat": "snat_", "edt": "edt_", "sockmap": "sm_"}
# Structs that only the programs look at, on their stack or in a map.
PRIVATE = {"snat": {"snat_search"}, "edt": {"edt_departure"}, "sockmap": {"sm_sock", "sm_hint", "sm_seen"}}
STRUCTS = {"snat": snat.layout.STRUCTS, "edt": bandwidth_edt.layout.STRUCTS, "sockmap": sockmap.layout.STRUCTS}


@pytest.mark.parametrize("name", PREFIX)
def test_each_shared_struct_has_a_mirror_with_the_same_fields(name: str) -> None:
    compiled = Btf(BUILT / f"{name}.bpf.o").structs(PREFIX[name])
    mirrors: dict[str, Layout] = {layout.name: layout for layout in STRUCTS[name]}
    assert set(compiled) - PRIVATE[name] == set(mirrors)
    for struct_name, mirror in mirrors.items():
        assert (mirror.size, mirror.places()) == compiled[struct_name], struct_name


@pytest.mark.parametrize("name", PREFIX)
def test_the_build_struct_has_a_mirror_with_the_same_fields(name: str) -> None:
    assert Btf(BUILT / f"{name}.bpf.o").structs("build_id") == {"build_id": (BUILD.size, BUILD.places())}


def test_a_policy_has_room_for_as_many_ports_and_users_as_the_configuration_allows() -> None:
    places = {field: size for field, _, size in sockmap.layout.POLICY.places()}
    assert places["exclude_ports"] == 2 * sockmap.layout.EXCLUDE_PORTS
    assert places["exclude_uids"] == 4 * sockmap.layout.EXCLUDE_UIDS


def test_the_counters_names_are_in_the_enums_order() -> None:
    counters = Btf(BUILT / "snat.bpf.o").enum("snat_stat")
    assert counters == [(f"SNAT_{name.upper()}", number) for number, name in enumerate((*snat.layout.STATS, "stats"))]


@pytest.mark.parametrize("fixture", ["snat_object", "edt_object", "sockmap_object"])
def test_map_names_fit_the_kernel_and_maps_have_the_declared_sizes(
    request: pytest.FixtureRequest, fixture: str
) -> None:
    loaded: Loaded = request.getfixturevalue(fixture)
    btf = Btf(BUILT / f"{fixture.removesuffix('_object')}.bpf.o")
    assert "build" in loaded.tables
    for name, table in loaded.tables.items():
        assert len(name) <= 15
        assert (table.key_bytes, table.value_bytes) == btf.map_types(name), name


@pytest.mark.parametrize("name", PREFIX)
def test_the_hash_beside_an_object_is_its_sha256(name: str) -> None:
    wanted = hashlib.sha256((BUILT / f"{name}.bpf.o").read_bytes()).hexdigest()
    assert (BUILT / f"{name}.sha256").read_text() == wanted + "\n"


def test_values_go_in_and_come_out_in_the_order_of_the_fields() -> None:
    raw = snat.layout.SESSION.pack(bytes([192, 0, 2, 11]), b"\x0f\xa0", 7)
    assert len(raw) == snat.layout.SESSION.size == 12
    assert snat.layout.SESSION.unpack(raw) == (bytes([192, 0, 2, 11]), b"\x0f\xa0", 7)
    assert snat.layout.SESSION.named(raw)["network_id"] == 7
    assert bandwidth_edt.layout.pack_addr(bytes([10, 0, 0, 1])) == bytes(10) + b"\xff\xff\x0a\0\0\x01"
    assert bandwidth_edt.layout.pack_addr(b"\x20" * 16) == b"\x20" * 16
