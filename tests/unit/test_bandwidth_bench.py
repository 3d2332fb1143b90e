# SPDX-License-Identifier: Apache-2.0
"""The sums of bench/bandwidth: percentiles, fairness, errors, what counts as the processor's, verdicts, charts."""

from __future__ import annotations

import argparse
from xml.etree import ElementTree

import pytest

from bench import chart
from bench.bandwidth import loads, plan, report, verdicts
from bench.bandwidth.figures import error_percent, frame_bytes, jain
from bench.samples import Results, percentile
from bench.targets import Verdict

RATE = 10_000_000
RATES = {load: [RATE, 20_000_000] for load in plan.RATE_LOADS}
FACTS = {"kernel": "Linux 6.1", "rates": RATES, "seconds": 5, "sources": "abc"}
SVG = "{http://www.w3.org/2000/svg}"


def results(**added_p50_ms: float) -> Results:
    """Requests that take 1 ms idle, and beside bulk so much longer."""
    made = Results(dict(FACTS))
    names = {"ours": plan.BYPATH, "tbf": plan.TBF, "plain": plan.PLAIN, "cilium": plan.CILIUM}
    for name, added_ms in added_p50_ms.items():
        made.add(names[name], plan.RR_IDLE, RATE, p50_ms=1.0, p99_ms=2.0)
        made.add(names[name], plan.RR_BESIDE_BULK, RATE, p50_ms=1.0 + added_ms, p99_ms=2.0 + 2 * added_ms)
    return made


def verdict(found: list[Verdict], what: str) -> Verdict:
    (one,) = [each for each in found if what in each.what]
    return one


def test_a_percentile_lies_between_its_neighbours() -> None:
    samples = [4.0, 1.0, 3.0, 2.0, 5.0]
    assert [percentile(samples, p) for p in (0, 25, 50, 90, 100)] == pytest.approx([1, 2, 3, 4.6, 5])
    assert percentile([7.0], 99) == 7
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


def test_the_fairness_index_is_1_for_equals_and_1_over_n_for_one_that_takes_all() -> None:
    assert jain([3, 3, 3, 3]) == pytest.approx(1)
    assert jain([8, 0, 0, 0]) == pytest.approx(1 / 4)
    assert jain([1, 2, 3]) == pytest.approx(36 / 42)
    with pytest.raises(ValueError, match="nobody"):
        jain([0, 0])


def test_an_error_is_signed_and_relative_to_what_was_promised() -> None:
    assert error_percent(101, 100) == pytest.approx(1)
    assert error_percent(98, 100) == pytest.approx(-2)


def test_a_frame_has_its_headers() -> None:
    assert (frame_bytes("tcp", 1448), frame_bytes("udp", 1448), frame_bytes("udp", 64)) == (1514, 1490, 106)
    assert plan.wire_bits(plan.RATE_LOADS["UDP, 64 B"], 6400) == pytest.approx(100 * 106 * 8)


def test_of_what_was_received_the_first_and_the_last_whole_interval_do_not_count() -> None:
    intervals = [
        {"sum": {"bytes": size, "seconds": seconds}, "streams": [{"bytes": size // 4}, {"bytes": size - size // 4}]}
        for size, seconds in ((9000, 1.0), (14480, 1.0), (14480, 1.0), (500, 1.0), (100, 0.01))
    ]
    seen = loads.received(intervals, plan.RATE_LOADS[plan.ONE_FLOW], 3)
    assert seen.bits_per_sec == pytest.approx(15140 * 8)
    assert (seen.first_sec_bytes, seen.shares, seen.retransmits) == (9000, [7240, 21720], 3)
    assert loads.rate_figures(seen, 15140 * 8)["error_percent"] == pytest.approx(0)
    assert loads.rate_figures(seen, 15140 * 8)["jain"] == pytest.approx(0.8)


def test_what_was_measured_for_too_short_a_time_is_no_sample() -> None:
    interval = {"sum": {"bytes": 1, "seconds": 1.0}, "streams": [{"bytes": 1}]}
    with pytest.raises(loads.Disturbed, match="only 2 whole seconds"):
        loads.received([interval] * 2, plan.RATE_LOADS[plan.ONE_FLOW], 0)


def test_a_cell_is_the_processors_when_the_path_carries_hardly_more_than_its_rate() -> None:
    made = Results(dict(FACTS))
    assert not plan.is_cpu_bound(made, plan.ONE_FLOW, RATE), "nothing is known of the path"
    made.add(plan.NO_LIMIT, plan.ONE_FLOW, 0, bits_per_sec=1.9 * RATE)
    assert not plan.is_cpu_bound(made, plan.ONE_FLOW, RATE)
    assert plan.is_cpu_bound(made, plan.ONE_FLOW, 2 * RATE)
    made.add(plan.NO_LIMIT, plan.ONE_FLOW, RATE, bits_per_sec=1.1 * RATE)
    assert plan.is_cpu_bound(made, plan.ONE_FLOW, RATE), "what was seen at the rate itself decides"


def test_results_survive_json_and_rounds_of_the_same_programs_are_added() -> None:
    earlier, later = results(ours=1), results(ours=3)
    later.include(Results.from_json(earlier.to_json()))
    assert later.of(plan.BYPATH, plan.RR_BESIDE_BULK, RATE, "p50_ms") == [2, 4]
    assert later.median(plan.BYPATH, plan.RR_BESIDE_BULK, RATE, "p50_ms") == 3
    assert later.median(plan.TBF, plan.RR_IDLE, RATE, "p50_ms") is None


def test_rounds_of_another_kernel_or_other_programs_are_refused() -> None:
    for fact in "kernel", "sources":
        other = Results({**FACTS, fact: "different"})
        with pytest.raises(ValueError, match=fact):
            results(ours=1).include(other)


@pytest.mark.parametrize("added_ms, met", [(2.9, True), (3.1, False)])
def test_what_bulk_adds_to_a_request_is_judged_above_the_idle_path(added_ms: float, met: bool) -> None:
    found = verdict(verdicts.all_of(results(ours=added_ms), {}), "request at 10M, p50")
    assert (found.met, found.word) == (met, "met" if met else "not met")
    assert found.measured == pytest.approx(added_ms)


@pytest.mark.parametrize("theirs, met", [(3.1, True), (2.9, False)])
def test_better_than_tbf_means_a_third_of_what_it_adds(theirs: float, met: bool) -> None:
    found = verdict(verdicts.all_of(results(ours=1, tbf=theirs), {}), "times better than bandwidth (TBF)")
    assert found.measured == pytest.approx(theirs)
    assert found.met is met


def test_nothing_added_is_not_infinitely_better() -> None:
    found = verdict(verdicts.all_of(results(ours=-0.2, tbf=1), {}), "times better than bandwidth (TBF)")
    assert found.measured == pytest.approx(1 / verdicts.LEAST_ADDED_MS)


def test_the_largest_error_of_a_load_decides_and_what_the_processor_bounds_does_not() -> None:
    made = Results(dict(FACTS))
    for load in plan.RATE_LOADS:
        made.add(plan.NO_LIMIT, load, 0, bits_per_sec=2.3 * RATE)
        made.add(plan.BYPATH, load, RATE, error_percent=-1.2 if load == plan.EIGHT_FLOWS else 0.4)
        made.add(plan.BYPATH, load, 20_000_000, error_percent=-30.0)
    found = {each.what: each for each in verdicts.errors(made)}
    assert [each.met for each in found.values()] == [True, False, True, True]
    assert found[f"largest rate error, {plan.EIGHT_FLOWS}, %"].measured == pytest.approx(1.2)


def test_what_was_not_measured_is_not_met() -> None:
    found = verdicts.all_of(Results(dict(FACTS)), {})
    assert found
    assert {each.word for each in found} == {"not measured"}
    assert not any(each.met for each in found)


@pytest.mark.parametrize("hit_ns, met", [(96, True), (98, False)])
def test_the_programs_cost_is_judged_over_a_no_op(hit_ns: float, met: bool) -> None:
    found = verdicts.all_of(Results(dict(FACTS)), {plan.NOP: 17, plan.MISS: 30, plan.HIT: hit_ns})
    assert verdict(found, plan.HIT).met is met
    assert verdict(found, plan.MISS).met
    slower = verdicts.all_of(Results(dict(FACTS)), {plan.NOP: 34, plan.MISS: 60, plan.HIT: 2 * hit_ns})
    in_no_ops = [each.met for each in slower if "in no-ops" in each.what]
    assert in_no_ops == [True, met], "on a machine half as fast"


def drawn(text: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(text).iter(SVG + tag))


def test_a_bar_stands_on_the_zero_line_and_a_missing_value_has_none() -> None:
    text = chart.bars("Title <&>", "%", ["a\nb", "c"], {"one": [2.0, -1.0], "two": [None, 1.0]}, band=1)
    coloured = [each for each in drawn(text, "rect") if each.get("fill") in chart.COLOURS and each.get("y") != "30"]
    assert len(coloured) == 3
    up, down, other = coloured
    zero = float(up.attrib["y"]) + float(up.attrib["height"])
    assert float(down.attrib["y"]) == pytest.approx(zero, abs=0.2)
    assert float(up.attrib["height"]) == pytest.approx(2 * float(down.attrib["height"]), abs=0.3)
    assert float(other.attrib["height"]) == pytest.approx(float(down.attrib["height"]), abs=0.2)
    assert "Title <&>" in [each.text for each in drawn(text, "text")]


def test_a_line_goes_up_by_the_same_for_each_power_of_ten() -> None:
    (line,) = drawn(chart.lines("t", "ms", ["p1", "p2", "p3"], {"one": [0.1, 1.0, 10.0]}), "polyline")
    heights = [float(point.partition(",")[2]) for point in line.attrib["points"].split()]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)
    assert heights[0] > heights[2]


def test_steps_of_an_axis_are_1_2_or_5() -> None:
    assert [chart.nice_step(at_least) for at_least in (0.9, 1.1, 3, 7, 0.02)] == pytest.approx([1, 2, 5, 10, 0.02])


def test_the_name_of_a_place_is_wrapped_to_its_share_of_the_page() -> None:
    assert chart.wrapped("TCP, 8 flows\n10M", 10) == ["TCP, 8", "flows", "10M"]
    assert chart.wrapped("TCP, 8 flows\n10M", 3) == ["TCP, 8 flows", "10M"]


def test_a_chart_without_any_value_is_refused() -> None:
    with pytest.raises(ValueError, match="without any value"):
        chart.bars("t", "%", ["a"], {"one": [None]})


def test_the_report_says_what_was_met_and_what_was_not() -> None:
    made = results(ours=4.0, tbf=30, plain=50, cilium=500)
    made.add(plan.NO_LIMIT, plan.ONE_FLOW, 0, bits_per_sec=2 * RATE)
    made.add(plan.BYPATH, plan.ONE_FLOW, RATE, error_percent=0.1)
    spent = {plan.NOP: 17.0, plan.MISS: 30.0, plan.HIT: 200.0}
    costs = {case: {"alone": ns, "among many": ns} for case, ns in spent.items()}
    files = report.files(made, costs, costs, argparse.Namespace(kernel="6.1", quick=False))
    text = files.pop("bandwidth.md")
    assert "| largest rate error, TCP, 1 flow, % | 0.10 | ≤ 1 | met |" in text
    assert "p50, ms | 4.00 | ≤ 3 | not met |" in text
    assert "| TCP, 1 flow | 20M | CPU-bound | CPU-bound | 0 | 20.0 |" in text
    assert len(files) == 3
    for name, svg in files.items():
        assert name in text
        assert drawn(svg, "text"), name
