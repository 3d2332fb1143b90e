# SPDX-License-Identifier: Apache-2.0
"""Programs loaded once a session; a network namespace with an uplink, in which the tests of a module run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from cni.net import syscall
from tests.lab.node import tied
from tests.progs.edt_bench import EdtBench
from tests.progs.run import Loaded
from tests.progs.snat_bench import Devices, SnatBench

CLONE_NEWNET = 0x40000000

# up0: the uplink; pod0: a pod's host-side veth. The peers only have to exist.
SCRIPT = """
set -e
echo 1 > /proc/sys/net/ipv4/ip_forward
ip link set lo up
ip link add up0 type veth peer name up1
ip link add pod0 type veth peer name pod1
for device in up0 up1 pod0 pod1; do ip link set $device up; done
ip address add 192.0.2.11/24 dev up0
ip route add default via 192.0.2.1
ip route add 10.244.1.0/24 dev pod0
ip route add 203.0.113.0/24 dev pod0
cat /sys/class/net/lo/ifindex >/dev/null
ip -o link show dev up0 | cut -d: -f1
ip -o link show dev pod0 | cut -d: -f1
exec sleep infinity
"""


@pytest.fixture(scope="module")
def devices() -> Iterator[Devices]:
    """Indices of the uplink and of a host-side veth; the calling thread is in their namespace meanwhile."""
    argv = [*tied(), "unshare", "--net", "sh", "-c", SCRIPT]
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            found = Devices(uplink=int(holder.stdout.readline()), veth=int(holder.stdout.readline()))
            away = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY)
            syscall.setns(away, CLONE_NEWNET)
            os.close(away)
            yield found
        finally:
            syscall.setns(home, CLONE_NEWNET)
            os.close(home)
            holder.kill()


@pytest.fixture(scope="session")
def snat_object() -> Iterator[Loaded]:
    loaded = Loaded("snat.bpf.o")
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def edt_object() -> Iterator[Loaded]:
    loaded = Loaded("edt.bpf.o")
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def sockmap_object() -> Iterator[Loaded]:
    loaded = Loaded("sockmap.bpf.o")
    yield loaded
    loaded.close()


@pytest.fixture
def snat(snat_object: Loaded, devices: Devices) -> SnatBench:
    return SnatBench(snat_object, devices)


@pytest.fixture
def edt(edt_object: Loaded) -> EdtBench:
    return EdtBench(edt_object)
