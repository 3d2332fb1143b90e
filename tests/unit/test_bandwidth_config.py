# SPDX-License-Identifier: Apache-2.0
"""The limits of bypath-bandwidth-edt, as conflists and runtimes write them."""

from __future__ import annotations

from typing import Any

import pytest
from bandwidth_edt.config import DEFAULT_BURST_NS, Config
from bandwidth_edt.shaper import gso_max_bytes

from cni.errors import INVALID_CONFIG, UNSUPPORTED_FIELD, CniError
from cni.netconf import NetConf

ABSENT = [None, 0, 4294967295, 2147483647, 18446744073709551615, 9223372036854775807]


def config(annotated: dict[str, Any] | None = None, **keys: Any) -> Config:
    runtime = {} if annotated is None else {"runtimeConfig": {"bandwidth": annotated}}
    return Config(NetConf({"cniVersion": "1.0.0", "name": "n", "type": "bypath-bandwidth-edt", **runtime, **keys}))


def refusal(annotated: dict[str, Any] | None = None, **keys: Any) -> CniError:
    with pytest.raises(CniError) as caught:
        config(annotated, **keys)
    return caught.value


def test_without_any_rate_there_is_no_limit() -> None:
    assert config().egress is config().ingress is None


@pytest.mark.parametrize("keys", [{"egressRate": 8_000_000}, {"egressRate": 8e6}], ids=["whole", "as a float"])
def test_rates_are_bits_per_second_and_become_bytes(keys: dict[str, Any]) -> None:
    limit = config(**keys).egress
    assert limit and limit.rate_bytes_per_sec == 1_000_000
    assert config(**keys).ingress is None


@pytest.mark.parametrize("spell", [str, lambda key: key[0].upper() + key[1:]], ids=["egressRate", "EgressRate"])
def test_the_pods_annotation_wins_however_the_runtime_spells_it(spell: Any) -> None:
    annotated = {spell("egressRate"): 50_000_000, spell("egressBurst"): 4294967295, spell("ingressRate"): 0}
    made = config(annotated, egressRate=8_000_000, ingressRate=16_000_000)
    assert made.egress and made.egress.rate_bytes_per_sec == 6_250_000
    assert made.ingress and made.ingress.rate_bytes_per_sec == 2_000_000


@pytest.mark.parametrize("burst", ABSENT, ids=str)
def test_a_burst_that_runtimes_send_for_absent_is_ten_milliseconds(burst: int | None) -> None:
    limit = config({"egressRate": 8_000_000, "egressBurst": burst}).egress
    assert limit and limit.burst_ns == DEFAULT_BURST_NS == 10_000_000


def test_a_burst_is_kept_as_time_and_one_of_more_than_a_second_is_not_meant() -> None:
    kept = config(egressRate=8_000_000, egressBurst=400_000).egress
    assert kept and kept.burst_ns == 50_000_000
    capped = config(egressRate=8_000_000, egressBurst=8_000_001).egress
    assert capped and capped.burst_ns == DEFAULT_BURST_NS


@pytest.mark.parametrize(
    "keys",
    [{"egressRate": -1}, {"egressRate": 7999}, {"ingressRate": 1 << 63}, {"egressRate": "50M"}, {"egressRate": True},
     {"egressBurst": 1000}, {"ingressRate": 0, "ingressBurst": 1000}, {"enforce": "everywhere"}],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_its_key(keys: dict[str, Any]) -> None:
    error = refusal(**keys)
    assert error.code == INVALID_CONFIG
    assert any(error.msg.startswith(f"{key}:") for key in keys)
    if "enforce" not in keys:
        assert refusal(keys).msg.startswith("runtimeConfig.bandwidth.")


def test_enforcement_on_the_nic_is_said_to_be_unsupported() -> None:
    assert refusal(enforce="nic").code == UNSUPPORTED_FIELD


def test_a_gso_packet_is_four_milliseconds_of_the_rate_within_two_frames_and_64_kib() -> None:
    slow, fifty, fast = (config(egressRate=rate).egress for rate in (1_000_000, 50_000_000, 10_000_000_000))
    assert slow and fifty and fast
    assert [gso_max_bytes(limit.rate_bytes_per_sec, 1500) for limit in (slow, fifty, fast)] == [3000, 25_000, 65536]
