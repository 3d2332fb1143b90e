# SPDX-License-Identifier: Apache-2.0
"""How the tests of rates judge what iperf3 measured."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab import iperf
from tests.lab.iperf import Speed

LIMIT = 20_000_000


def seconds(*megabits: float) -> list[Any]:
    return [{"sum": {"seconds": 1.0, "bytes": each * 1e6 / 8}} for each in megabits]


def test_the_first_seconds_and_the_rest_behind_the_last_one_do_not_count() -> None:
    rest = {"sum": {"seconds": 0.01, "bytes": 1e9}}
    sender = [{"sum": {"retransmits": count}} for count in (100, 50, 0, 1, 2, 4)]
    found = iperf.speed_of(sender, [*seconds(900, 900, 10, 20, 30, 40), rest])
    assert found == Speed(25e6, 30e6, 7)


def test_a_frame_has_more_bits_than_its_payload() -> None:
    assert Speed(1448, 2896, 1).of_frames() == Speed(1514, 3028, 1)


def test_three_seconds_at_the_limit_in_one_of_three_runs_are_enough() -> None:
    runs = iter([Speed(9e6, 12e6, 0), Speed(15e6, 19.1e6, 0)])
    assert len(iperf.kept(LIMIT, lambda: next(runs))) == 2


@pytest.mark.parametrize(
    "run", [Speed(18e6, 18.9e6, 0), Speed(21.1e6, 21.1e6, 0)], ids=["never up to it", "above it on the whole"]
)
def test_a_limiter_that_is_too_slow_or_too_fast_is_found(run: Speed) -> None:
    with pytest.raises(AssertionError):
        iperf.kept(LIMIT, lambda: run)
