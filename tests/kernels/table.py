# SPDX-License-Identifier: Apache-2.0
"""The table feature x kernel, merged from the files that tests/features.py writes."""

from __future__ import annotations

import json
import pathlib
import re

Counts = dict[str, int]


def load(files: list[pathlib.Path]) -> dict[str, dict[str, Counts]]:
    """{kernel release: {feature: {"passed", "failed", "absent"}}}, kernels in the order of their versions.

    A kernel's tests may have been shared by several machines, each with its own file: their counts are added.
    """
    read = [json.loads(file.read_text()) for file in files]
    read.sort(key=lambda result: [int(number) for number in re.findall(r"\d+", result["kernel"])[:3]])
    merged: dict[str, dict[str, Counts]] = {}
    for result in read:
        of_kernel = merged.setdefault(result["kernel"], {})
        for feature, counts in result["features"].items():
            total = of_kernel.setdefault(feature, dict.fromkeys(counts, 0))
            for key, count in counts.items():
                total[key] += count
    return merged


def cell(counts: Counts | None) -> str:
    """How many passed; FAIL when any failed; - when the kernel lacks what the tests need, or none was collected."""
    if counts and counts["failed"]:
        return "FAIL"
    return str(counts["passed"]) if counts and counts["passed"] else "-"


def render(results: dict[str, dict[str, Counts]]) -> tuple[str, list[str]]:
    """The table as text, and the sentences about what is wrong with it, none when every row is good."""
    features = sorted({feature for of_kernel in results.values() for feature in of_kernel})
    if not features:
        return "", ["no test with a feature mark was collected on any kernel"]
    rows = [["feature", *results]]
    problems = []
    for feature in features:
        cells = [cell(of_kernel.get(feature)) for of_kernel in results.values()]
        rows.append([feature, *cells])
        if "FAIL" in cells:
            failed = [kernel for kernel, shown in zip(results, cells, strict=True) if shown == "FAIL"]
            problems.append(f"feature {feature!r} failed on {', '.join(failed)}")
        elif set(cells) == {"-"}:
            problems.append(f"feature {feature!r} passed on no kernel: no kernel of this run has what its tests need")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(line(row, widths) for row in rows), problems


def line(row: list[str], widths: list[int]) -> str:
    """One row: the feature's name on the left, the cells under the right end of their kernel's name."""
    first, *cells = row
    return "  ".join([first.ljust(widths[0]), *(c.rjust(width) for c, width in zip(cells, widths[1:], strict=True))])
