# SPDX-License-Identifier: Apache-2.0
"""pytest plugin: which feature a test proves, which kernel features it needs, and where it ran.

    @pytest.mark.feature("ipvlan l2")      a row of the table feature x kernel
    @pytest.mark.needs("ipvlan", "fq")     kernel features, probed by behaviour

    @pytest.mark.once                      what it shows does not depend on the kernel: one that can run it is enough

A test whose needs the running kernel lacks is deselected and counted as absent. The counts go to a JSON file,
{"kernel": release, "features": {name: {"passed": n, "failed": n, "absent": n}}, "once": [ids that passed]}, which
`python -m tests.kernels table` merges over all kernels; there a row in which no kernel passed is an error.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib

import pytest

from tests.kernels import probes

FEATURES = pytest.StashKey["Recorder"]()


def names(item: pytest.Item, mark: str) -> list[str]:
    """All arguments of every `mark` on the item, its class and its module, in order and without repeats."""
    return list(dict.fromkeys(str(name) for found in item.iter_markers(mark) for name in found.args))


class Recorder:
    """Counts, per feature, how the tests that carry it ended."""

    def __init__(self) -> None:
        self.counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.lacking: collections.Counter[str] = collections.Counter()
        self.features_of: dict[str, list[str]] = {}
        self.passed: dict[str, bool] = {}
        self.once: set[str] = set()

    def select(self, items: list[pytest.Item], only_features: bool, done: set[str]) -> list[pytest.Item]:
        """The items that can run here; the others are recorded as absent. `done`: those of `once` that are."""
        kept = []
        for item in items:
            features = names(item, "feature")
            if (only_features and not features) or item.nodeid in done:
                continue
            if item.get_closest_marker("once"):
                self.once.add(item.nodeid)
            missing = [need for need in names(item, "needs") if not probes.has(need)]
            self.lacking.update(missing)
            for feature in features:
                self.counts[feature]["absent"] += bool(missing)
            if not missing:
                self.features_of[item.nodeid] = features
                kept.append(item)
        return kept

    def report(self, report: pytest.TestReport) -> None:
        """Anything but a call that passes between a setup and a teardown that pass is a failure, a skip too."""
        node = report.nodeid
        if not report.passed:
            self.passed[node] = False
        elif report.when == "call":
            self.passed.setdefault(node, True)

    def result(self, kernel: str) -> dict[str, object]:
        """The document described at the top of this file."""
        counts = {feature: collections.Counter(counter) for feature, counter in self.counts.items()}
        for node, passed in self.passed.items():
            for feature in self.features_of.get(node, []):
                counts[feature]["passed" if passed else "failed"] += 1
        keys = ("passed", "failed", "absent")
        features = {f: {k: counts[f][k] for k in keys} for f in sorted(counts)}
        return {"kernel": kernel, "features": features, "once": sorted(n for n in self.once if self.passed.get(n))}


def done_elsewhere() -> set[str]:
    """Tests marked `once` that passed on another kernel in this same run of everything, see tests/kernels."""
    if "BYPATH_ONCE" not in os.environ:
        return set()
    results = pathlib.Path(os.environ["BYPATH_FEATURES_DIR"]).glob("*.json")
    return {name for result in results for name in json.loads(result.read_text()).get("once", [])}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bypath", "features and kernels")
    group.addoption(
        "--features-json",
        metavar="PATH",
        help="write the result per feature here; default: "
        "$BYPATH_FEATURES_DIR/<kernel release>.json when that variable is set",
    )
    group.addoption("--only-features", action="store_true", help="run only tests that carry a feature mark")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "feature(name, ...): rows of the table feature x kernel that the test proves")
    config.addinivalue_line("markers", "once: shows nothing of the kernel, so that one kernel is enough")
    config.addinivalue_line("markers", "needs(feature, ...): kernel features without which the test is deselected")
    config.stash[FEATURES] = Recorder()


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """Files without any feature are not even imported, which an emulated machine would need most of a minute for."""
    if not config.getoption("--only-features") or not collection_path.match("test_*.py"):
        return None
    return "mark.feature" not in collection_path.read_text() or None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    try:
        kept = config.stash[FEATURES].select(items, config.getoption("--only-features"), done_elsewhere())
    except probes.UnknownFeature as error:
        raise pytest.UsageError(str(error)) from error
    chosen = set(map(id, kept))
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in chosen])
    items[:] = kept


class _Reports:
    """pytest_runtest_logreport is not given the config, so it lives in an object that holds the recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.recorder.report(report)


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.pluginmanager.register(_Reports(session.config.stash[FEATURES]))


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    kernel = os.uname().release
    path = config.getoption("--features-json")
    if not path and "BYPATH_FEATURES_DIR" in os.environ:
        path = os.path.join(os.environ["BYPATH_FEATURES_DIR"], f"{kernel}.json")
    if not path or config.option.collectonly:
        return
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(config.stash[FEATURES].result(kernel), indent=1) + "\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lacking = config.stash[FEATURES].lacking
    if lacking:
        what = ", ".join(f"{need} ({count} tests)" for need, count in sorted(lacking.items()))
        terminalreporter.write_line(f"deselected, because this kernel lacks: {what}")
