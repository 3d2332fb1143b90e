# SPDX-License-Identifier: Apache-2.0
"""What each kernel of the matrix must have at all; the first thing to look at when a row of the table is empty."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.kernels import probes


def in_scratch_netns(script: str) -> str:
    """Standard output of a shell script run in a network namespace of its own."""
    return subprocess.run(["unshare", "--net", "sh", "-ec", script], capture_output=True, text=True, check=True).stdout


@pytest.mark.feature("kernel: ipvlan with fq on its master")
@pytest.mark.needs("ipvlan", "fq")
def test_an_ipvlan_slave_sits_on_a_master_with_fq() -> None:
    shown = in_scratch_netns(
        f"{probes.VETH}; tc qdisc add dev va root fq; ip link add link va name i type ipvlan mode l2; "
        "tc qdisc show dev va; ip -d link show i"
    )
    assert "qdisc fq" in shown
    assert "ipvlan" in shown


@pytest.mark.feature("kernel: what every supported kernel has")
@pytest.mark.parametrize("name", ["veth", "bridge", "ifb", "tbf", "clsact", "nf_tables", "conntrack", "nat", "overlay"])
def test_every_supported_kernel_has(name: str) -> None:
    assert probes.has(name)


@pytest.mark.feature("kernel: tcx is found from 6.6 on")
def test_tcx_is_found_from_6_6_on() -> None:
    numbers = [int(number) for number in re.findall(r"\d+", os.uname().release)[:2]]
    assert probes.has("tcx") == (numbers >= [6, 6])
