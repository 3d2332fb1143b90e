# SPDX-License-Identifier: Apache-2.0
"""The limits of bypath-bandwidth-edt, as conflists and runtimes write them."""

from __future__ import annotations

from typing import Any

import pytest
from bandwidth_edt import layout
from bandwidth_edt.bucket import Setting
from bandwidth_edt.config import DEFAULT_BURST_NS, Config
from bandwidth_edt.layout import AT_NIC, AT_POD
from bandwidth_edt.shaper import gso_max_bytes

from cni.errors import INVALID_CONFIG, CniError
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


@pytest.mark.parametrize("enforce, places", [("pod", AT_POD), ("nic", AT_NIC), ("both", AT_POD | AT_NIC)])
def test_a_limit_out_of_the_pod_is_kept_where_enforce_says(enforce: str, places: int) -> None:
    assert config(egressRate=8_000_000, enforce=enforce).egress_places == places


def test_without_enforce_a_limit_is_kept_at_the_pod() -> None:
    assert config(egressRate=8_000_000).egress_places == AT_POD


def test_a_guard_is_somewhat_wider_than_the_limit_and_delays_nothing() -> None:
    limit = Setting(1_000_000, 400_000_000, AT_POD | AT_NIC)
    guard = limit.guard()
    assert guard and guard.guard() is None
    found = layout.CFG.named(guard.pack())
    assert (found["rate_bytes_per_sec"], found["burst_ns"]) == (1_050_000, 450_000_000)
    assert (found["horizon_ns"], found["ecn_ns"], found["flags"]) == (0, 0, AT_NIC)
    assert Setting.unpack(guard.pack()).pack() == guard.pack() and Setting.unpack(limit.pack()).pack() == limit.pack()
    assert Setting(1_000_000, 0, AT_POD).guard() is Setting(1_000_000, 0, AT_NIC).guard() is None


def test_a_gso_packet_is_four_milliseconds_of_the_rate_within_two_frames_and_64_kib() -> None:
    slow, fifty, fast = (config(egressRate=rate).egress for rate in (1_000_000, 50_000_000, 10_000_000_000))
    assert slow and fifty and fast
    assert [gso_max_bytes(limit.rate_bytes_per_sec, 1500) for limit in (slow, fifty, fast)] == [3000, 25_000, 65536]


def test_the_horizon_is_100_ms_and_longer_for_rates_at_which_four_frames_take_longer() -> None:
    for rate, mtu, horizon_ns in (
        (50_000_000, 1500, 100_000_000),
        (1_211_200, 1500, 100_000_000),
        (121_120, 1500, 400_000_000),
        (8_000, 1500, 2_000_000_000),
    ):
        limit = config(egressRate=rate).egress
        assert limit and limit.horizon_ns(mtu) == horizon_ns, rate


def test_a_rate_below_a_frame_in_two_seconds_is_refused_and_told_the_least() -> None:
    limit = config({"egressRate": 8_000}).egress
    assert limit
    with pytest.raises(CniError) as caught:
        limit.horizon_ns(9000)
    assert caught.value.code == INVALID_CONFIG
    assert caught.value.msg.startswith("runtimeConfig.bandwidth.egressRate: ")
    assert caught.value.msg.endswith("at least 36056 bit/s")
    less = config(egressRate=36_055).egress
    assert less
    with pytest.raises(CniError, match="takes longer than 2 s"):
        less.horizon_ns(9000)
    least = config(egressRate=36_056).egress
    assert least and least.horizon_ns(9000) == 2_000_000_000


def test_a_burst_of_less_than_a_frame_is_refused() -> None:
    limit = config(ingressRate=8_000_000, ingressBurst=12_111).ingress
    assert limit
    with pytest.raises(CniError, match=r"ingressBurst: 12111 bits are less than one frame .*12112 bits"):
        limit.horizon_ns(1500)
    enough = config(ingressRate=8_000_000, ingressBurst=12_112).ingress
    assert enough and enough.horizon_ns(1500) == 100_000_000
