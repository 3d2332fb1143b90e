# SPDX-License-Identifier: Apache-2.0
"""The plugin tests/features.py in a pytest of its own, and the table made from what it writes."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.kernels import table

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
# A kernel feature that is nowhere, and one that is everywhere, whatever kernel runs this.
PROBES = """
from tests.kernels import probes
probes.SCRIPTS.update({"everywhere": "true", "nowhere": "false"})
"""

Features = dict[str, dict[str, int]]


def run(
    directory: pathlib.Path, tests: str, *options: str, **more: str
) -> tuple[subprocess.CompletedProcess[str], Features]:
    """pytest over one file of tests, and the features that it recorded."""
    (directory / "conftest.py").write_text(PROBES)
    (directory / "pytest.ini").write_text("[pytest]\naddopts = -p tests.features --strict-markers\n")
    (directory / "test_it.py").write_text(
        f"import pytest\nfeature, needs = pytest.mark.feature, pytest.mark.needs\n{tests}"
    )
    argv = [sys.executable, "-m", "pytest", "--features-json", "out.json", "-p", "no:cacheprovider", *options]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("BYPATH_")}
    env = {**ours, "PYTHONPATH": str(CHECKOUT), **more}
    done = subprocess.run(argv, cwd=directory, env=env, capture_output=True, text=True, check=False)
    out = directory / "out.json"
    return done, json.loads(out.read_text())["features"] if out.exists() else {}


def counts(passed: int = 0, failed: int = 0, absent: int = 0) -> dict[str, int]:
    return {"passed": passed, "failed": failed, "absent": absent}


def test_a_test_whose_need_is_absent_is_deselected_and_counted(tmp_path: pathlib.Path) -> None:
    done, features = run(tmp_path, '@feature("a")\n@needs("everywhere", "nowhere")\ndef test_it(): raise SystemExit\n')
    assert "1 deselected" in done.stdout
    assert "skipped" not in done.stdout
    assert "this kernel lacks: nowhere (1 tests)" in done.stdout
    assert features == {"a": counts(absent=1)}


def test_a_test_whose_needs_are_met_runs_and_counts_for_each_of_its_features(tmp_path: pathlib.Path) -> None:
    done, features = run(tmp_path, '@feature("a", "b")\n@needs("everywhere")\ndef test_it(): pass\n')
    assert done.returncode == 0, done.stdout
    assert features == {"a": counts(passed=1), "b": counts(passed=1)}


@pytest.mark.parametrize(
    "body",
    [
        "def test_it(): assert False",
        "def test_it(): pytest.skip('no')",
        "def test_it(missing_fixture): pass",
        "@pytest.mark.xfail\ndef test_it(): assert False",
        "@pytest.fixture\ndef bad():\n    yield\n    raise OSError\n@feature('a')\ndef test_it(bad): pass",
    ],
    ids=["assertion", "skip", "setup", "xfail", "teardown"],
)
def test_whatever_is_not_a_pass_counts_as_a_failure(tmp_path: pathlib.Path, body: str) -> None:
    marked = body if "@feature" in body else f"@feature('a')\n{body}"
    assert run(tmp_path, marked + "\n")[1] == {"a": counts(failed=1)}


def test_only_features_leaves_the_other_tests_out(tmp_path: pathlib.Path) -> None:
    tests = '@feature("a")\ndef test_with(): pass\ndef test_without(): assert False\n'
    done, features = run(tmp_path, tests, "--only-features")
    assert done.returncode == 0, done.stdout
    assert features == {"a": counts(passed=1)}


def test_a_test_for_one_kernel_is_left_out_only_where_it_passed_on_another(tmp_path: pathlib.Path) -> None:
    tests = '@feature("a")\n@pytest.mark.once\ndef test_once(): pass\n@feature("a")\ndef test_always(): pass\n'
    (tmp_path / "results").mkdir()
    where = {"BYPATH_FEATURES_DIR": str(tmp_path / "results")}
    for seen, passed in ([], 2), (["test_it.py::test_other"], 2), (["test_it.py::test_once"], 1):
        (tmp_path / "results/other.json").write_text(json.dumps({"kernel": "1", "features": {}, "once": seen}))
        done, features = run(tmp_path, tests, **where, BYPATH_ONCE="1")
        assert done.returncode == 0, done.stdout
        assert features == {"a": counts(passed=passed)}
    _, features = run(tmp_path, tests, **where)
    assert features == {"a": counts(passed=2)}, "only a run of everything leaves anything out"


def test_a_need_without_a_probe_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    done, _ = run(tmp_path, '@needs("ipvaln")\ndef test_it(): pass\n')
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no probe for the kernel feature 'ipvaln'" in done.stdout + done.stderr


def test_the_table_has_a_row_a_feature_and_a_column_a_kernel() -> None:
    results: dict[str, Features] = {"6.1.0-1": {"a": counts(2), "b": counts(absent=1)}, "6.12.1": {"b": counts(3)}}
    text, problems = table.render(results)
    assert text.splitlines() == ["feature  6.1.0-1  6.12.1", "a              2       -", "b              -       3"]
    assert problems == []


def test_a_row_that_passed_nowhere_is_a_problem_that_names_it() -> None:
    _, problems = table.render({"6.1": {"a": counts(1), "lost": counts(absent=4)}, "7.3": {"a": counts(1)}})
    assert len(problems) == 1
    assert "'lost' passed on no kernel" in problems[0]


def test_one_failure_among_passes_is_a_fail_and_names_the_kernel() -> None:
    text, problems = table.render({"6.1": {"a": counts(5, failed=1)}, "7.3": {"a": counts(5)}})
    assert text.splitlines()[1].split() == ["a", "FAIL", "5"]
    assert problems == ["feature 'a' failed on 6.1"]


def test_no_feature_at_all_is_a_problem() -> None:
    assert table.render({})[1]


def test_kernels_stand_in_the_order_of_their_versions(tmp_path: pathlib.Path) -> None:
    for release in ("6.12.9-amd64", "7.3.4", "6.1.0-56-amd64"):
        (tmp_path / f"{release}.json").write_text(json.dumps({"kernel": release, "features": {}}))
    assert list(table.load(sorted(tmp_path.glob("*.json")))) == ["6.1.0-56-amd64", "6.12.9-amd64", "7.3.4"]


def test_what_two_machines_of_one_kernel_found_is_one_column(tmp_path: pathlib.Path) -> None:
    for machine, found in ("a", {"x": counts(2), "y": counts(1)}), ("b", {"x": counts(1, failed=1)}):
        (tmp_path / f"6.1.{machine}.json").write_text(json.dumps({"kernel": "6.1", "features": found}))
    loaded = table.load(sorted(tmp_path.glob("*.json")))
    assert loaded == {"6.1": {"x": counts(3, failed=1), "y": counts(1)}}
