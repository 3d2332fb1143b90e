# SPDX-License-Identifier: Apache-2.0
"""`bypath`: quantities as people write them, and what the built command says on a node without any limit."""

from __future__ import annotations

import subprocess

import click
import pytest

from cli.quantity import Bits, bits_text, time_text
from tests.lab.executable import DIST
from tests.lab.node import Node

WRITTEN = {"8000": 8000, "50M": 50_000_000, "1.5G": 1_500_000_000, "2Ki": 2048, "0.5k": 500, "1T": 10**12}
WRONG = ["", "0", "-1", "ten", "1.0001k", "50m", "1e6", "9223372036854775808", " 5", "5 M", "none"]
SHOWN = {
    8000: "8k",
    50_000_000: "50M",
    1_500_000_000: "1.5G",
    12_345_678: "12345.678k",
    999: "999",
    1_000_001: "1000.001k",
}
TIMES = {0: "0 ns", 65_536: "65.5 µs", 10_000_000: "10 ms", 1_073_741_824: "1.07 s", 200_000_000: "200 ms"}


@pytest.mark.parametrize("text, bits", WRITTEN.items())
def test_bits_are_read_as_annotations_are(text: str, bits: int) -> None:
    assert Bits().convert(text, None, None) == bits


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_number_of_bits_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a number of bits such as 8000, 50M or"):
        Bits().convert(text, None, None)


def test_none_is_a_number_only_where_a_limit_may_go() -> None:
    assert Bits(or_none=True).convert("none", None, None) == 0


@pytest.mark.parametrize("bits, text", SHOWN.items())
def test_bits_are_shown_exactly(bits: int, text: str) -> None:
    assert bits_text(bits) == text
    assert Bits().convert(text, None, None) == bits


@pytest.mark.parametrize("ns, text", TIMES.items())
def test_times_are_shown_in_three_digits(ns: int, text: str) -> None:
    assert time_text(ns) == text


def test_a_node_without_limits_has_none_to_show_or_change() -> None:
    def bypath(*words: str) -> subprocess.CompletedProcess[str]:
        return node.run([str(DIST / "bypath"), *words], check=False)

    with Node.create("cli") as node:
        assert bypath("bandwidth", "list").stdout.split() == ["POD", "INTERFACE", "ADDRESSES", "EGRESS", "INGRESS"]
        assert bypath("bandwidth", "list", "--json").stdout.strip() == "[]"
        unknown = bypath("bandwidth", "set", "pod1", "--egress", "50M")
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert unknown.stderr.startswith("bypath: no pod pod1 has limits; type: bypath bandwidth list")
        assert bypath("bandwidth", "release").stdout.startswith("Nothing of bypath-bandwidth-edt is on a NIC")
        assert bypath("bandwith").returncode == 2
        assert "Bandwidth limits of this node's pods." in bypath("--help").stdout
        told = bypath("bandwidth", "--help").stdout
        assert all(f"  {command}  " in told for command in ("list", "show", "set", "release")), told
        assert "in force from its next packet on" in bypath("bandwidth", "set", "--help").stdout


def test_who_is_not_root_is_told_so() -> None:
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", str(DIST / "bypath"), "bandwidth", "list"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "run it as root" in done.stderr, done
