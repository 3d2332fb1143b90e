# SPDX-License-Identifier: Apache-2.0
"""What nobody owns in a node once its containers are gone: all that was not there when the node was made ready."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.lab.node import Node

REPO = Path(__file__).resolve().parents[2]


def observe(node: Node) -> frozenset[str]:
    """Every fact of the node that a plugin could have caused, one sentence each; see observe.py."""
    told = node.run([sys.executable, "-m", "tests.lab.observe"], env={"PYTHONPATH": str(REPO)}).stdout
    return frozenset(json.loads(told))


def remember(node: Node) -> None:
    """Makes the node's present state its baseline: for tests that change it themselves, before their first ADD."""
    node.baseline = observe(node)


def residue(node: Node) -> list[str]:
    """What is in the node beyond its baseline; call it when no container is left, and compare with []."""
    return sorted(observe(node) - node.baseline)


def missing(node: Node) -> list[str]:
    """The contrary: what the baseline had and the node has lost (a NIC's own qdisc, a foreign filter)."""
    return sorted(node.baseline - observe(node))


def difference(node: Node) -> list[str]:
    """`residue` and `missing` by one look, each fact after "new: " or "lost: "."""
    seen = observe(node)
    return sorted(
        [f"new: {fact}" for fact in seen - node.baseline] + [f"lost: {fact}" for fact in node.baseline - seen]
    )
