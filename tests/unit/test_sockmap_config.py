# SPDX-License-Identifier: Apache-2.0
"""What a conflist, a pod's annotations and its runtime say to bypath-sockmap, and what comes of it together."""

from __future__ import annotations

from typing import Any

import pytest
from sockmap import layout
from sockmap.config import ANNOTATIONS, Config
from sockmap.layout import POD, SIDECAR

from cni.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from cni.netconf import NetConf

BOTH = SIDECAR | POD
MIB = 1 << 20


def config(annotated: dict[str, Any] | None = None, passed: dict[str, Any] | None = None, **keys: Any) -> Config:
    """annotated: the pod's annotations; passed: the whole runtimeConfig besides them."""
    runtime = {**(passed or {}), **({} if annotated is None else {ANNOTATIONS: annotated})}
    return Config(
        NetConf({"cniVersion": "1.0.0", "name": "n", "type": "bypath-sockmap", "runtimeConfig": runtime, **keys})
    )


def refusal(annotated: dict[str, Any] | None = None, passed: dict[str, Any] | None = None, **keys: Any) -> CniError:
    with pytest.raises(CniError) as caught:
        config(annotated, passed, **{"mode": "annotated", **keys})
    return caught.value


def scopes_note(text: str) -> dict[str, str]:
    return {"bypath.dev/sockmap": text}


def test_without_any_key_no_pod_is_accelerated() -> None:
    made = config()
    assert (made.scopes, made.is_off, made.is_required) == (0, True, False)
    assert (made.limit_bytes, made.node_limit_bytes, made.ports, made.uids) == (64 * MIB, 0, [], [])


@pytest.mark.parametrize(
    ("mode", "note", "scopes"),
    [
        ("off", None, 0),
        ("off", "on", 0),
        ("annotated", None, 0),
        ("annotated", "on", BOTH),
        ("annotated", "off", 0),
        ("annotated", "sidecar", SIDECAR),
        ("annotated", "sidecar, pod", BOTH),
        ("all", None, BOTH),
        ("all", "off", 0),
        ("all", "pod", POD),
    ],
)
def test_the_mode_says_whether_a_pod_has_to_ask(mode: str, note: str | None, scopes: int) -> None:
    assert config(None if note is None else scopes_note(note), mode=mode).scopes == scopes


@pytest.mark.parametrize("mode", ["annotated", "all"])
def test_a_pod_gets_no_scope_that_the_network_does_not_allow_and_is_told_so(mode: str) -> None:
    made = config(scopes_note("sidecar,pod"), mode=mode, scopes=["sidecar"])
    assert made.scopes == SIDECAR
    (warning,) = made.warnings
    assert "bypath.dev/sockmap: pod is not among the network's scopes" in warning
    assert config(scopes_note("on"), mode=mode, scopes=["sidecar"]).warnings == []


def test_what_the_runtime_passes_wins_over_the_annotations_key_by_key() -> None:
    notes = {**scopes_note("sidecar"), "bypath.dev/sockmap-exclude-ports": "1", "bypath.dev/sockmap-exclude-uids": "7"}
    made = config(notes, {"sockmap": {"scopes": ["pod"], "excludePorts": [2]}}, mode="annotated")
    assert (made.scopes, made.ports, made.uids) == (POD, [2], [7])
    assert config(notes, {"sockmap": {"scopes": []}}, mode="all").scopes == 0
    assert config(None, {"sockmap": {}}, mode="all").scopes == BOTH


def test_a_pod_adds_to_what_the_network_excludes() -> None:
    notes = {"bypath.dev/sockmap-exclude-ports": "15090, 15021", "bypath.dev/sockmap-exclude-uids": "1337"}
    made = config(notes, mode="all", excludePorts=[15090, 9090], excludeUIDs=[0])
    assert (made.ports, made.uids) == ([9090, 15021, 15090], [0, 1337])


@pytest.mark.parametrize("key", ["egressRate", "EgressRate", "ingressRate"])
def test_a_pod_with_a_bandwidth_limit_stays_visible_to_what_keeps_it(key: str) -> None:
    made = config(None, {"bandwidth": {key: 8_000_000}}, mode="all")
    assert made.scopes == SIDECAR
    (warning,) = made.warnings
    assert "scope pod is off" in warning and "bandwidth limit" in warning
    assert config(None, {"bandwidth": {key: 0}}, mode="all").scopes == BOTH
    assert config(None, {"bandwidth": {key: 8_000_000}}, mode="all", scopes=["sidecar"]).warnings == []


def test_limits_are_mebibytes() -> None:
    made = config(mode="all", limitMiB=1, nodeLimitMiB=512)
    assert (made.limit_bytes, made.node_limit_bytes) == (MIB, 512 * MIB)


@pytest.mark.parametrize(
    "keys",
    [{"mode": "on"}, {"mode": True}, {"scopes": []}, {"scopes": "pod"}, {"scopes": ["sidecar", "node"]},
     {"scopes": ["on"]}, {"limitMiB": 0}, {"limitMiB": 1025}, {"limitMiB": "64"}, {"nodeLimitMiB": 0},
     {"nodeLimitMiB": 1 << 21}, {"excludePorts": 80}, {"excludePorts": [0]}, {"excludePorts": [65536]},
     {"excludePorts": ["80"]}, {"excludePorts": [True]}, {"excludePorts": list(range(1, 34))}, {"excludeUIDs": [-1]},
     {"excludeUIDs": [0xFFFFFFFF]}, {"excludeUIDs": list(range(17))}, {"onUnsupported": "warn"}],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_its_key(keys: dict[str, Any]) -> None:
    error = refusal(**keys)
    (key,) = keys
    assert (error.code, error.msg.partition(":")[0]) == (INVALID_CONFIG, key)


@pytest.mark.parametrize(
    ("name", "text"),
    [("bypath.dev/sockmap", "sidcar"), ("bypath.dev/sockmap", ""), ("bypath.dev/sockmap", "pod,"),
     ("bypath.dev/sockmap", "on,pod"), ("bypath.dev/sockmap", 5), ("bypath.dev/sockmap-exclude-ports", "http"),
     ("bypath.dev/sockmap-exclude-ports", "99999999999"), ("bypath.dev/sockmap-exclude-ports", "80,,81"),
     ("bypath.dev/sockmap-exclude-uids", "\u0661")],
)  # fmt: skip
def test_an_annotation_that_cannot_be_meant_is_refused_by_its_name(name: str, text: Any) -> None:
    error = refusal({name: text})
    assert (error.code, error.msg.partition(":")[0]) == (INVALID_CONFIG, f"annotation {name}")


@pytest.mark.parametrize(
    ("passed", "code", "place"),
    [
        ({"sockmap": []}, INVALID_CONFIG, "sockmap"),
        ({"sockmap": {"mode": "all"}}, UNSUPPORTED_FIELD, "runtimeConfig.sockmap"),
        ({"sockmap": {"scopes": "pod"}}, INVALID_CONFIG, "runtimeConfig.sockmap.scopes"),
        ({"sockmap": {"scopes": ["x"]}}, INVALID_CONFIG, "runtimeConfig.sockmap.scopes"),
        ({"sockmap": {"excludePorts": [0]}}, INVALID_CONFIG, "runtimeConfig.sockmap.excludePorts"),
        ({"sockmap": {"excludeUIDs": "0"}}, INVALID_CONFIG, "runtimeConfig.sockmap.excludeUIDs"),
        ({ANNOTATIONS: ["x"]}, INVALID_CONFIG, ANNOTATIONS),
    ],
)
def test_what_the_runtime_passes_is_refused_by_its_place(passed: dict[str, Any], code: int, place: str) -> None:
    error = refusal(None, passed)
    assert (error.code, error.msg.partition(":")[0]) == (code, place)


def test_what_a_pod_says_is_not_even_read_where_nothing_is_accelerated() -> None:
    assert config(scopes_note("sidcar"), mode="off").scopes == 0


def test_a_bandwidth_limit_that_is_none_is_refused() -> None:
    assert refusal(None, {"bandwidth": 5}, mode="all").msg.startswith("bandwidth:")


def test_a_policy_is_packed_with_its_ports_users_and_attachment() -> None:
    policy = layout.POLICY.named(layout.pack_policy(BOTH, 64 * MIB, [80, 443], [0], 0xABCDEF))
    assert (policy["flags"], policy["limit_bytes"], policy["attachment"]) == (3, 64 * MIB, 0xABCDEF)
    assert policy["exclude_ports"][:6] == (80).to_bytes(2, "little") + (443).to_bytes(2, "little") + bytes(2)
    assert (policy["uid_count"], policy["exclude_uids"]) == (1, bytes(64))


def test_counters_of_all_cpus_are_added_up() -> None:
    one = layout.COUNTERS.pack(*range(9))
    assert layout.sum_counters(one + one, len(one)) == {
        name: 2 * place for place, (name, _) in enumerate(layout.COUNTERS.fields)
    }


def test_addresses_of_both_families_have_keys_of_one_length() -> None:
    assert layout.pack_addr(bytes([10, 0, 0, 1])) == bytes(10) + b"\xff\xff\x0a\0\0\x01"
    assert layout.pack_addr(b"\x20" * 16) == b"\x20" * 16
