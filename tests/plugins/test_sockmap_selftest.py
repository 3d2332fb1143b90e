# SPDX-License-Identifier: Apache-2.0
"""The self-test of bypath-sockmap sees what it is there to see: each behaviour is spoiled, and named."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator

import pytest
from sockmap import layout, node, scratch, selftest

from bpf import command
from bpf.libbpf import BpfObject
from cni.errors import KERNEL_LACKS, CniError

pytestmark = [pytest.mark.needs("sockmap"), pytest.mark.feature("sockmap: trust in the kernel")]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What fails is waited for; and whatever is spoiled, nothing of the test outlives it."""
    monkeypatch.setattr(selftest, "_PATIENCE_SEC", 0.3)
    before = os.stat("/proc/thread-self/ns/net").st_ino, sockets()
    yield
    assert (os.stat("/proc/thread-self/ns/net").st_ino, sockets()) == before


def sockets() -> int:
    """Open ones of this process."""
    return sum(os.readlink(f"/proc/self/fd/{name}").startswith("socket:") for name in existing())


def existing() -> list[str]:
    return [name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")]


def fault() -> str:
    return selftest.run(node.OBJECT).partition("self-test of redirected TCP: ")[2]


def test_a_good_kernel_has_no_fault() -> None:
    assert selftest.run(node.OBJECT) == ""


def test_a_kernel_that_does_not_count_redirected_bytes_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "_waiting", lambda receiver: 0)
    assert fault() == "FIONREAD: 0 instead of 1000 bytes"


def test_bytes_that_came_by_tcp_and_are_not_counted_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is on Linux 6.18 without sm_skb: FIONREAD of a socket in a map tells of the map's queue only."""
    waiting = selftest._waiting

    def only_redirected(receiver: socket.socket) -> int:
        found = waiting(receiver)
        return found if found <= selftest._MESSAGE_BYTES else 0

    monkeypatch.setattr(selftest, "_waiting", only_redirected)
    assert re.fullmatch("FIONREAD: 0 although [0-9]+ bytes wait that came by TCP", fault())


def test_without_redirection_the_bytes_were_not_redirected(monkeypatch: pytest.MonkeyPatch) -> None:
    attach = command.map_attach
    monkeypatch.setattr(
        command, "map_attach", lambda *call: None if call[2] == command.SK_MSG_VERDICT else attach(*call)
    )
    assert fault() == "pairing: 0 of 2000 bytes were redirected"


def test_sockets_that_do_not_find_each_other_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SIDECAR", layout.POD)
    assert fault() == "pairing: 0 of 2 sockets found each other"


def test_a_queue_without_a_bound_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "LIMIT_BYTES", 1 << 30)
    assert fault().startswith("stuck reader: its sender went on beyond ")


def test_a_limit_that_is_never_reached_is_no_test_of_the_change_to_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "LIMIT_BYTES", 1 << 30)
    monkeypatch.setattr(selftest, "LIMIT_BYTES", 1 << 30)
    monkeypatch.setattr(selftest, "_until_stopped", lambda sender, most: bytes(1000))
    assert fault() == "spill: 1000 bytes waited without a change to TCP"


def test_a_kernel_that_does_not_load_the_object_is_unsuitable(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def load(_: BpfObject) -> None:
        raise CniError(KERNEL_LACKS, "sockmap.bpf.o cannot be loaded into this kernel", "what the verifier said")

    monkeypatch.setattr(BpfObject, "load", load)
    assert selftest.run(node.OBJECT) == "sockmap.bpf.o cannot be loaded into this kernel"
    assert "what the verifier said" in capfd.readouterr().err


def test_a_kernel_that_attaches_nothing_is_unsuitable_and_another_failure_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(number: int) -> object:
        def link_create_cgroup(*_: int) -> int:
            raise OSError(number, os.strerror(number))

        return link_create_cgroup

    monkeypatch.setattr(command, "link_create_cgroup", failing(errno.EINVAL))
    assert fault() == "attaching: Invalid argument"
    monkeypatch.setattr(command, "link_create_cgroup", failing(errno.EPERM))
    with pytest.raises(PermissionError):
        selftest.run(node.OBJECT)
