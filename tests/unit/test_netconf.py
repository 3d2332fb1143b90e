# SPDX-License-Identifier: Apache-2.0
"""cni.netconf: every complaint names the key, the value and what is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cni import netconf
from cni.errors import INCOMPATIBLE_VERSION, INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from cni.netconf import NetConf
from cni.verbs import SUPPORTED_VERSIONS

BASE: dict[str, Any] = {"cniVersion": "1.1.0", "name": "pods", "type": "bypath-host-gw"}


def refusal(action: Callable[[], object]) -> CniError:
    with pytest.raises(CniError) as failure:
        action()
    return failure.value


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_every_supported_version_is_read(version: str) -> None:
    assert NetConf({**BASE, "cniVersion": version}).cni_version == version


@pytest.mark.parametrize("version", ["", "0.2.0", "1.2.0", "2", "1.1.0 ", "1.1", None, 1.1, ["1.1.0"], {}])
def test_another_version_is_refused_with_the_list_of_ours(version: object) -> None:
    error = refusal(lambda: NetConf({**BASE, "cniVersion": version}))
    assert error.code == INCOMPATIBLE_VERSION and "cniVersion" in error.msg
    assert all(known in error.msg for known in SUPPORTED_VERSIONS)


@pytest.mark.parametrize("key", ["name", "type"])
@pytest.mark.parametrize("value", [None, "", 5, [], {}, True])
def test_a_required_text_that_is_none_is_refused_by_its_key(key: str, value: object) -> None:
    error = refusal(lambda: NetConf({**BASE, key: value}))
    assert error.code == INVALID_CONFIG and error.msg.startswith(f"{key}:")


@pytest.mark.parametrize("name", ["a/b", "a\n", ".hidden", "é", "a b", "..", "x" * 10 + "\0"])
def test_a_network_name_outside_the_specs_alphabet_is_refused(name: str) -> None:
    error = refusal(lambda: NetConf({**BASE, "name": name}))
    assert error.code == INVALID_CONFIG and error.msg.startswith("name:") and error.msg.isascii()


@pytest.mark.parametrize("key", ["ipam", "runtimeConfig", "prevResult"])
def test_an_object_may_be_null_or_missing_and_nothing_else(key: str) -> None:
    NetConf(BASE)
    NetConf({**BASE, key: None})
    values: list[object] = [5, "x", [], True]
    for value in values:
        error = refusal(lambda value=value: NetConf({**BASE, key: value}))  # type: ignore[misc]
        assert error.code == INVALID_CONFIG and error.msg.startswith(f"{key}: must be an object")


def test_a_long_value_is_shown_shortened() -> None:
    assert len(refusal(lambda: NetConf({**BASE, "ipam": "x" * 100_000})).msg) < 200


def test_an_unknown_key_is_refused_by_name_and_the_known_ones_are_told() -> None:
    conf = NetConf({**BASE, "mtuu": 1500, "colour": "red", "mtu": 1400})
    error = refusal(lambda: conf.refuse_unknown_keys(frozenset(("mtu", "source"))))
    assert error.code == UNSUPPORTED_FIELD
    assert "mtuu, colour" in error.msg and "mtu, source" in error.msg


def test_keys_of_the_spec_and_of_conventions_are_everybodys() -> None:
    standard = {"cniVersions": [], "disableCheck": True, "disableGC": True, "ipam": {}, "dns": {}, "args": {"cni": {}},
                "capabilities": {}, "runtimeConfig": {}, "prevResult": {}, "cni.dev/valid-attachments": [],
                "cni.dev/attachments": [], "example.com/anything": 1}  # fmt: skip
    NetConf({**BASE, **standard}).refuse_unknown_keys(frozenset())


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_attachments_are_read_under_both_spellings(key: str) -> None:
    conf = NetConf({**BASE, key: [{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c2", "ifname": "net1"}]})
    assert conf.valid_attachments() == [("c1", "eth0"), ("c2", "net1")]


def test_the_new_spelling_wins_and_an_empty_list_is_a_list() -> None:
    both = {"cni.dev/valid-attachments": [], "cni.dev/attachments": [{"containerID": "c1", "ifname": "eth0"}]}
    assert NetConf({**BASE, **both}).valid_attachments() == []


@pytest.mark.parametrize("conf", [{}, {"cni.dev/valid-attachments": None}])
def test_without_a_list_the_valid_attachments_are_unknown(conf: dict[str, Any]) -> None:
    assert NetConf({**BASE, **conf}).valid_attachments() is None


@pytest.mark.parametrize(
    "entries", [{}, "c1", 5, ["c1"], [{}], [{"containerID": "c1"}], [{"containerID": 5, "ifname": "eth0"}], [None]]
)
def test_a_malformed_list_of_attachments_is_an_error_and_never_a_shorter_list(entries: object) -> None:
    conf = NetConf({**BASE, "cni.dev/valid-attachments": entries})
    error = refusal(conf.valid_attachments)
    assert error.code == INVALID_CONFIG and "cni.dev/valid-attachments" in error.msg


def test_an_integer_is_read_between_its_bounds() -> None:
    def read(value: object) -> int | None:
        return netconf.optional_int({"mtu": value}, "mtu", 68, 65535)

    assert [read(value) for value in (None, 68, 65535, 1.5e3)] == [None, 68, 65535, 1500]
    values: list[object] = [67, 65536, -1, 0, 1500.5, "1500", True, False, [], {}, 1e300]
    for value in values:
        error = refusal(lambda value=value: read(value))  # type: ignore[misc]
        assert error.code == INVALID_CONFIG and error.msg.startswith("mtu:") and "68 to 65535" in error.msg


def test_other_readers_take_their_type_their_default_and_nothing_else() -> None:
    assert netconf.optional_text({}, "k", "d") == "d" and netconf.optional_text({"k": ""}, "k", "d") == ""
    assert netconf.optional_bool({}, "k", True) is True and netconf.optional_bool({"k": False}, "k", True) is False
    assert netconf.optional_choice({"k": "l2"}, "k", ("l2", "l3"), "l3") == "l2"
    assert netconf.optional_texts({}, "k") is None and netconf.optional_texts({"k": ["a"]}, "k") == ["a"]
    for action in (
        lambda: netconf.optional_text({"k": 1}, "k"),
        lambda: netconf.optional_bool({"k": 1}, "k"),
        lambda: netconf.optional_bool({"k": "true"}, "k"),
        lambda: netconf.optional_choice({"k": "L2"}, "k", ("l2", "l3"), "l3"),
        lambda: netconf.optional_texts({"k": "a"}, "k"),
        lambda: netconf.optional_texts({"k": ["a", 1]}, "k"),
    ):
        error = refusal(action)
        assert error.code == INVALID_CONFIG and error.msg.startswith("k:")
