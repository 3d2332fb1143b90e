# SPDX-License-Identifier: Apache-2.0
"""bench/sockmap: what counts as measured, what as met, what the report shows; and its load, over plain TCP."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from bench.samples import Results
from bench.sockmap import loads, placing, plan, report, rounds, verdicts
from bench.sockmap.lab import SERVE, Lab
from bench.targets import Verdict

REPO = Path(__file__).resolve().parents[2]
WINDOW_BYTES = 4 * plan.MIB
FACTS = {
    "kernel": "Linux 6.18, 2 CPUs",
    "effort": list(plan.FULL),
    "sources": "abc",
    "proxies": "nginx 1, haproxy 2, Envoy 3.",
    "window_bytes": WINDOW_BYTES,
}
NOTHING_COUNTED = {"paired": 0, "redirected_bytes": 0, "passed_bytes": 0, "spills": 0}


def results(**of_requests: tuple[float, float]) -> Results:
    """For each figure of a request plain TCP's and bypath's, the same at every size and place."""
    made = Results(dict(FACTS))
    for place in plan.PLACES:
        for size in plan.REQUEST_SIZES:
            for figure, (plain, bypath) in of_requests.items():
                made.add(plan.PLAIN, plan.load(plan.REQUESTS, place), size, **{figure: plain})
                made.add(plan.BYPATH, plan.load(plan.REQUESTS, place), size, **{figure: bypath})
    return made


def verdict(found: list[Verdict], *what: str) -> Verdict:
    (one,) = [each for each in found if all(word in each.what for word in what)]
    return one


def test_the_worst_of_all_sizes_is_judged() -> None:
    made = results(p50_us=(20.0, 10.0))
    load = plan.load(plan.REQUESTS, plan.LOOPBACK)
    assert verdict(verdicts.all_of(made), "loopback: p50").measured == pytest.approx(-50)
    made.add(plan.PLAIN, load, plan.REQUEST_SIZES[-1], p50_us=20.0)
    made.add(plan.BYPATH, load, plan.REQUEST_SIZES[-1], p50_us=30.0)
    found = verdict(verdicts.all_of(made), "loopback: p50")
    assert found.measured == pytest.approx(0) and not found.met
    assert verdict(verdicts.all_of(made), "pod to pod: p50").met


def test_a_change_is_between_halves_that_were_measured_one_behind_the_other() -> None:
    """In the second round the machine took twice as long for everything; the medians of both halves say -60 %."""
    made = Results(dict(FACTS))
    load = plan.load(plan.REQUESTS, plan.LOOPBACK)
    for plain, bypath in ((20.0, 16.0), (40.0, 32.0), (40.0, 16.0)):
        made.add(plan.PLAIN, load, 64, p50_us=plain)
        made.add(plan.BYPATH, load, 64, p50_us=bypath)
    assert verdicts.change_percent(made, load, 64, "p50_us") == pytest.approx(-20)


def test_a_target_over_sizes_of_which_one_was_not_measured_is_not_met() -> None:
    made = Results(dict(FACTS))
    made.add(plan.PLAIN, plan.load(plan.REQUESTS, plan.LOOPBACK), 64, p50_us=20.0)
    made.add(plan.BYPATH, plan.load(plan.REQUESTS, plan.LOOPBACK), 64, p50_us=1.0)
    assert verdict(verdicts.all_of(made), "loopback: p50").word == "not measured"
    assert {each.word for each in verdicts.all_of(Results(dict(FACTS)))} == {"not measured"}


def test_one_spill_in_all_rounds_is_one_too_many() -> None:
    made = Results(dict(FACTS))
    load = plan.load(plan.BULK, plan.LOOPBACK)
    made.add(plan.BYPATH, load, 4 * plan.KIB, spills=0.0)
    assert verdict(verdicts.all_of(made), "one flow, loopback", "spills").met
    made.add(plan.BYPATH, load, 4 * plan.KIB, spills=1.0)
    assert not verdict(verdicts.all_of(made), "one flow, loopback", "spills").met
    assert verdict(verdicts.all_of(made), plan.BUSY, "loopback", "spills").word == "not measured"


def test_stopped_readers_may_hold_the_nodes_limit_and_a_window_each() -> None:
    made = Results(dict(FACTS))
    bound = plan.NODE_LIMIT_MIB * plan.MIB + 8 * WINDOW_BYTES
    made.add(plan.BYPATH, plan.STUCK, 8, held_bytes=float(bound))
    assert verdict(verdicts.all_of(made), "memory of 8").met
    made.add(plan.BYPATH, plan.STUCK, 8, held_bytes=bound + 1.0)
    assert not verdict(verdicts.all_of(made), "memory of 8").met, "the highest of all rounds is judged"


def test_a_connection_is_compared_with_the_one_right_beside_it() -> None:
    made = Results(dict(FACTS))
    load = plan.load(plan.CONNECT, plan.LOOPBACK)
    for without, with_it in ((50.0, 50.5), (100.0, 101.0), (90.0, 95.0)):
        made.add(plan.NOTHING, load, 0, p50_us=without)
        made.add(plan.PLAIN, load, 0, p50_us=with_it)
    assert verdict(verdicts.all_of(made), "connecting, loopback").measured == pytest.approx(1)


def a_lab(**counted: int) -> Lab:
    """Whose load takes no time, and by which the programs count so much."""
    states = iter([NOTHING_COUNTED, {**NOTHING_COUNTED, **counted}])
    pod = SimpleNamespace(name="app")
    pair = SimpleNamespace(
        at=lambda _: pod,
        address=lambda _: "127.0.0.1",
        pids={("app", SERVE): os.getpid()},
        load=lambda *_: {"p50_us": 1.0, "bytes": 1000.0},
    )
    lab = SimpleNamespace(counted=lambda: next(states), pairs=dict.fromkeys(plan.HALVES, pair), select=lambda **_: None)
    return cast(Lab, lab)


def ask(lab: Lab, half: str) -> dict[str, float]:
    return loads.requests(lab, half, plan.LOOPBACK, 100, 10)


def test_what_was_not_redirected_is_not_a_measure_of_redirection() -> None:
    assert ask(a_lab(paired=2, redirected_bytes=2000), plan.BYPATH)["redirected_percent"] == 100
    for counted in ({"redirected_bytes": 1999}, {"redirected_bytes": 2000, "passed_bytes": 3000}, {}):
        with pytest.raises(loads.NotWhatItClaims):
            ask(a_lab(**counted), plan.BYPATH)


def test_what_was_redirected_is_not_a_measure_of_plain_tcp() -> None:
    assert ask(a_lab(), plan.PLAIN) == {"p50_us": 1.0, "bytes": 1000.0}
    for counted in ({"paired": 1}, {"redirected_bytes": 1}):
        with pytest.raises(loads.NotWhatItClaims):
            ask(a_lab(**counted), plan.PLAIN)


def test_who_connects_is_measured_with_others_selected_as_its_name_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them as often, and afterwards the pods of the policy have it."""
    selected, seen = ["own cgroup"], []
    lab = SimpleNamespace(
        select=lambda by_root=False: selected.append("root" if by_root else "own cgroup"),
        deselect=lambda: selected.append("nobody"),
    )

    def connections(_lab: Lab, half: str, _place: str, _count: int) -> dict[str, float]:
        seen.append((half, selected[-1]))
        return {"p50_us": 1.0}

    monkeypatch.setattr(loads, "connections", connections)
    made = Results(dict(FACTS))
    rounds._connect(cast(Lab, lab), made, plan.QUICK._replace(batches=3))
    each = 3 * len(plan.PLACES)
    wanted = [(plan.PLAIN, "nobody"), (plan.PLAIN, "root"), (plan.PLAIN, "own cgroup"), (plan.BYPATH, "own cgroup")]
    assert [seen.count(one) for one in wanted] == [each] * 4 and len(seen) == 4 * each
    load = plan.load(plan.CONNECT, plan.LOOPBACK)
    names = (plan.NOTHING, plan.ROOTED, plan.PLAIN, plan.BYPATH)
    assert all(made.of(name, load, 0, "p50_us") == [1.0] * 3 for name in names)
    assert selected[-1] == "own cgroup"


def test_processors_are_awake_as_long_as_the_file_that_says_so_is_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    driver, asked = tmp_path / "current_driver", tmp_path / "cpu_dma_latency"
    monkeypatch.setattr(placing, "_IDLE_DRIVER", driver)
    monkeypatch.setattr(placing, "_WAKE_UP_USEC", asked)
    driver.write_text("intel_idle\n")
    asked.touch()

    def holders() -> list[Path]:
        return [each for each in Path("/proc/self/fd").iterdir() if each.resolve() == asked]

    with placing.awake():
        assert asked.read_bytes() == bytes(4) and len(holders()) == 1
    assert not holders()
    driver.write_text("none\n")
    with pytest.raises(placing.CannotStayAwake), placing.awake():
        pass


def test_bulk_that_does_not_spill_is_not_a_measure_of_spills() -> None:
    spilled = a_lab(redirected_bytes=10, passed_bytes=990, spills=1)
    assert loads.bulk_that_spills(spilled, plan.BYPATH, plan.LOOPBACK, 100, 10)["redirected_percent"] == 1
    with pytest.raises(loads.NotWhatItClaims):
        loads.bulk_that_spills(a_lab(redirected_bytes=1000), plan.BYPATH, plan.LOOPBACK, 100, 10)


def test_the_report_shows_what_loses_beside_what_wins() -> None:
    made = results(p50_us=(20.0, 10.0), p99_us=(40.0, 50.0), cpu_us=(20.0, 10.0))
    for place in plan.PLACES:
        for size in (*plan.STREAM_WRITES, *plan.BULK_WRITES):
            load = plan.load(plan.BULK, place)
            made.add(plan.PLAIN, load, size, bytes_per_sec=1e9, cpu_ns_per_byte=1.0)
            made.add(plan.BYPATH, load, size, bytes_per_sec=size * 1e5, cpu_ns_per_byte=0.5, spills=0)
        for size in plan.BUSY_WRITES:
            for half, rate in ((plan.PLAIN, 1e9), (plan.BYPATH, 3e9)):
                made.add(half, plan.load(plan.BUSY, place), size, bytes_per_sec=rate, cpu_ns_per_byte=1.0, spills=0)
    for proxy in plan.PROXIES:
        for half in plan.HALVES:
            made.add(half, plan.load(plan.THROUGH, proxy), plan.CHAIN_SIZES[0], mean_us=100.0)
    files = report.files(made)
    text = files.pop("sockmap.md")
    assert "| request, loopback: p50, change in % | -50.00 | ≤ -35 | met |" in text
    assert "| request, loopback: p99, change in % | +25.00 | ≤ -36 | not met |" in text
    assert "| loopback, 64 B | 8.00 | 0.05 | -99 % | 1.00 | 0.50 | -50 % | 0 | — |" in text
    assert "| bulk of a busy node, 16 KiB or more, loopback: rate, change in % | +200.00 | ≥ 54 | met |" in text
    assert "| bulk of one flow, 16 KiB or more, loopback: rate, change in % | +63.84 | ≥ 54 | met |" in text
    assert "redirection loses" in text
    assert len(files) == 4
    for name, svg in files.items():
        assert name in text
        assert ElementTree.fromstring(svg).tag.endswith("svg"), name


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> str:
    built = str(tmp_path_factory.mktemp("load") / "load")
    sources = [str(path) for path in (REPO / "bench/sockmap/load").glob("*.c")]
    subprocess.run(["cc", "-O2", "-std=gnu11", "-pthread", "-o", built, *sources], check=True)
    return built


@pytest.fixture(params=["serve", "accept"])
def server(load: str, request: pytest.FixtureRequest) -> Iterator[tuple[str, str, str]]:
    """Its command, port and pid."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with subprocess.Popen([load, request.param, "127.0.0.1", port], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        yield request.param, port, str(process.pid)
        process.kill()


def run(load: str, *words: str | int) -> Any:
    argv = [load, *map(str, words)]
    return json.loads(subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout)


def connections_to(port: str) -> int:
    """The client ends first, and so keeps a trace of each in TIME_WAIT."""
    return len(subprocess.run(["ss", "-Htan", f"dport = :{port}"], capture_output=True, text=True).stdout.splitlines())


def states(port: str) -> list[str]:
    shown = subprocess.run(["ss", "-Htan", f"sport = :{port} or dport = :{port}"], capture_output=True, text=True)
    return [line.split()[0] for line in shown.stdout.splitlines()]


@pytest.mark.parametrize("server", ["serve"], indirect=True)
def test_the_load_counts_what_it_was_told_to(load: str, server: tuple[str, str, str]) -> None:
    _, port, pid = server
    for command, size, *behind in (("requests", 1000, 0), ("requests", 100_000, 16), ("http", 1000), ("http", 0)):
        seen = run(load, command, "127.0.0.1", port, size, 50, *behind, pid)
        assert seen["count"] == 50
        assert 0 < seen["p50_us"] <= seen["p99_us"] and seen["cpu_us"] > 0
    for flows in (1, 4):
        before = connections_to(port)
        flow = run(load, "bulk", "127.0.0.1", port, 65536, 50, 0, flows, pid)
        assert flow["bytes"] % 65536 == 0 and flow["bytes_per_sec"] > 0 and flow["cpu_ns_per_byte"] > 0
        assert connections_to(port) == before + flows
    assert run(load, "hold", "127.0.0.1", port, 2)["bytes"] > 0


@pytest.mark.parametrize("server", ["accept"], indirect=True)
def test_the_load_leaves_no_connection_behind(load: str, server: tuple[str, str, str]) -> None:
    _, port, pid = server
    assert run(load, "connect", "127.0.0.1", port, 50, pid)["count"] == 50
    # The last one may still be on its way out; one in TIME_WAIT would be there for a minute.
    deadline = time.monotonic() + 10
    while (left := states(port)) != ["LISTEN"]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_the_load_fails_rather_than_to_measure_something_else(load: str) -> None:
    for command, *numbers in (["requests", "64", "10", "0"], ["requests", "64", "10", "4096"], ["bulk"], ["nonsense"]):
        assert subprocess.run([load, command, "127.0.0.1", "1", *numbers], capture_output=True).returncode == 1
