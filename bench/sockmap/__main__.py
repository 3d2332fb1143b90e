# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.sockmap`: requests, bulk, proxies and connections, with bypath-sockmap and without."""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from pathlib import Path

from bench import priority
from bench.samples import Results
from bench.sockmap import plan, report, rounds
from bench.sockmap.lab import LOAD
from tests.lab.executable import DIST, REPO

RESULTS = REPO / "build/bench/sockmap.json"
DOCUMENTS = REPO / "docs/benchmarks"
NOT_MEASURED = ("__main__", "report", "verdicts")
"""Modules that may change between rounds that are added up."""


def sources() -> str:
    """A digest of what was measured: rounds of other programs are not to be added."""
    digest = hashlib.sha256(Path(LOAD).read_bytes() + (REPO / "build/bpf/sockmap.sha256").read_bytes())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in NOT_MEASURED:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def keep(results: Results) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(results.to_json())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.sockmap", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="%(default)s, each of about a minute")
    parser.add_argument("--quick", action="store_true", help="every load is shorter")
    parser.add_argument("--more", action="store_true", help="add these rounds to those of the last run")
    parser.add_argument("--report", action="store_true", help="measure nothing; report the last run anew")
    return parser.parse_args()


def measure(args: argparse.Namespace) -> Results:
    """Of this run, and with --more of the last one, too. Raises ValueError when that measured other programs."""
    if args.report:
        return Results.from_json(RESULTS.read_text())
    earlier = Results.from_json(RESULTS.read_text()) if args.more else None
    effort = plan.QUICK if args.quick else plan.FULL
    with tempfile.TemporaryDirectory() as room, priority.highest():
        results = rounds.run(effort, args.rounds, sources(), Path(room), keep)
    if earlier:
        results.include(earlier)
    keep(results)
    return results


def main() -> None:
    args = parse()
    missing = [path for path in (DIST / "bypath-sockmap", Path(LOAD)) if not path.exists()]
    if missing:
        raise SystemExit(f"{missing[0]} is not there; type: make build build/bench/load")
    results = measure(args)
    DOCUMENTS.mkdir(parents=True, exist_ok=True)
    for name, text in report.files(results).items():
        (DOCUMENTS / name).write_text(text)
    print((DOCUMENTS / "sockmap.md").read_text())


if __name__ == "__main__":
    main()
