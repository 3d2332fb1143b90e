# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.startup`: VERSION of every executable and ADD, DEL of host-gw, beside the reference plugin."""

from __future__ import annotations

import argparse

from bench.startup import cases, report
from tests.lab.executable import REPO


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    version = cases.version_costs(rounds)
    attachment = cases.attachment_costs(rounds)
    verb_of = {name: f"{cases.REFERENCE_PLUGIN} {name.rpartition(' ')[2]}" for name in attachment}
    tables = [
        report.table("VERSION", version, dict.fromkeys(version, cases.REFERENCE_PLUGIN)),
        report.table("ADD and DEL", attachment, verb_of),
    ]
    text = report.document(rounds, tables)
    target = REPO / "docs/benchmarks/startup.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
