# SPDX-License-Identifier: Apache-2.0
"""The figures as the table that is printed and kept in docs/benchmarks/startup.md."""

from __future__ import annotations

import os
import platform
import subprocess

from bench.startup.measure import Cost

_HEAD = """# Start-up: what an executable costs a pod

{what} Medians of {rounds} interleaved rounds, CPU time of the process and its children.

Reproduce: `make build && .venv/bin/python -m bench.startup --rounds {rounds}` (as root).

Machine: Linux {kernel}, {cpus} CPUs, Python {python}, {reference}.

"""

_WHAT = "bypath's executables beside the reference plugin that host-gw replaces, both with the reference host-local."


def _row(name: str, cost: Cost, reference: Cost) -> str:
    cpu, wall = cost.cpu_sec / reference.cpu_sec, cost.wall_sec / reference.wall_sec
    return f"| {name} | {cost.cpu_sec * 1e3:.2f} | {cpu:.2f} | {cost.wall_sec * 1e3:.2f} | {wall:.2f} |"


def table(title: str, costs: dict[str, Cost], reference_of: dict[str, str]) -> str:
    """Markdown; `reference_of` names for each row the row by which it is divided."""
    rows = [_row(name, cost, costs[reference_of[name]]) for name, cost in costs.items()]
    head = [f"## {title}", "", "| command | CPU ms | ratio | wall ms | ratio |", "|---|---:|---:|---:|---:|"]
    return "\n".join([*head, *rows, ""])


def _reference_package() -> str:
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version}", "containernetworking-plugins"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout


def document(rounds: int, tables: list[str]) -> str:
    facts = {"kernel": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version()}
    head = _HEAD.format(what=_WHAT, rounds=rounds, reference=_reference_package(), **facts)
    return head + "\n".join(tables)
