# SPDX-License-Identifier: Apache-2.0
"""cni.request: the environment is judged whole, before anything has an effect."""

from __future__ import annotations

import os
import posix

import pytest

from cni import request
from cni.errors import INVALID_ENV, IO_FAILURE, CniError
from cni.request import Request
from cni.verbs import VERBS

GOOD = {"CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/p", "CNI_IFNAME": "eth0"}

BAD_NAMES = [
    "",
    "a\n",
    "\na",
    "a b",
    "a/b",
    "../x",
    ".a",
    "-a",
    "_a",
    "é",
    "aé",
    "a\u0661",
    "\u0661a",
    "a\0",
    "a\udcff",
]
GOOD_NAMES = ["a", "A0", "0", "a_b.c-d", "a..b", "9" * 64, "k8s.io_pod-1"]

BAD_IFNAMES = [
    "e" * 16,
    "é" * 8,
    ".",
    "..",
    "a/b",
    "a:1",
    "a b",
    "a\t",
    "eth0\n",
    "a\u00a0b",
    "a\u2028",
    "a\x7f",
    "\x01",
    "eth%d",
    "a\udcff",
]
GOOD_IFNAMES = ["e", "e" * 15, "eth0", "é" * 7, "...", "a.b-c_d@e", "0"]


def judge(command: str, **environ: str) -> str:
    """The error's sentence, empty when there is none."""
    try:
        request.validate(Request(command, environ), environ, VERBS[command].required)
    except CniError as error:
        assert error.code == INVALID_ENV
        return error.msg
    return ""


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_name_of_the_specs_alphabet_is_valid(name: str) -> None:
    assert request.is_valid_name(name)
    assert not judge("ADD", **{**GOOD, "CNI_CONTAINERID": name})


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_outside_the_specs_alphabet_is_not(name: str) -> None:
    assert not request.is_valid_name(name)
    for command in "ADD", "DEL", "CHECK":
        assert "CNI_CONTAINERID" in judge(command, **{**GOOD, "CNI_CONTAINERID": name})


@pytest.mark.parametrize("ifname", GOOD_IFNAMES)
def test_an_ifname_that_the_kernel_takes_is_taken(ifname: str) -> None:
    assert not judge("ADD", **{**GOOD, "CNI_IFNAME": ifname})


@pytest.mark.parametrize("ifname", BAD_IFNAMES)
def test_an_ifname_that_the_kernel_refuses_is_refused(ifname: str) -> None:
    for command in "ADD", "DEL", "CHECK":
        assert "CNI_IFNAME" in judge(command, **{**GOOD, "CNI_IFNAME": ifname})


@pytest.mark.parametrize("netns", ["", "run/netns/p", "p", "/run/netns/\udcff"])
def test_a_netns_that_cannot_be_a_path_is_refused_by_add_and_left_to_del(netns: str) -> None:
    for command in "ADD", "CHECK":
        assert "CNI_NETNS" in judge(command, **{**GOOD, "CNI_NETNS": netns})
    assert not judge("DEL", **{**GOOD, "CNI_NETNS": netns})


def test_all_bad_variables_are_named_at_once() -> None:
    for environ in {}, {"CNI_CONTAINERID": "a b", "CNI_NETNS": "x", "CNI_IFNAME": "a/b"}:
        said = judge("ADD", **environ)
        assert all(variable in said for variable in GOOD), said
    said = judge("DEL")
    assert "CNI_CONTAINERID" in said and "CNI_IFNAME" in said and "CNI_NETNS" not in said


def test_a_fault_is_shown_in_ascii_on_one_line() -> None:
    said = judge("ADD", **{**GOOD, "CNI_CONTAINERID": "é\n"})
    assert said.isascii() and "\n" not in said


def test_status_and_gc_need_nothing_of_an_attachment() -> None:
    assert not judge("STATUS") and not judge("GC")


def test_an_id_too_long_for_the_record_is_refused_by_add_and_taken_by_del() -> None:
    assert not judge("ADD", **{**GOOD, "CNI_CONTAINERID": "a" * 127})
    assert "longer than 127" in judge("ADD", **{**GOOD, "CNI_CONTAINERID": "a" * 128})
    assert not judge("DEL", **{**GOOD, "CNI_CONTAINERID": "a" * 128})


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("1", True),
        ("true", True),
        ("TRUE", True),
        ("t", True),
        ("0", False),
        ("", False),
        ("no", False),
        ("false", False),
    ],
)
def test_netns_override_is_read_like_gos_parse_bool(value: str, allowed: bool) -> None:
    assert Request("ADD", {"CNI_NETNS_OVERRIDE": value}).netns_override is allowed


def test_empty_directories_in_cni_path_do_not_mean_the_current_one() -> None:
    assert Request("ADD", {"CNI_PATH": ":/opt/cni/bin::/usr/lib/cni:"}).cni_path == ["/opt/cni/bin", "/usr/lib/cni"]
    assert Request("ADD", {}).cni_path == []


def test_the_environment_is_read_as_text_whatever_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(posix.environ, b"CNI_CONTAINERID", b"\xff")
    monkeypatch.setitem(posix.environ, b"HOME", b"/root")
    environ = request.environ_text()
    assert environ["CNI_CONTAINERID"] == "\udcff" and "HOME" not in environ


def read_from(document: bytes) -> bytes:
    """read_stdin() with `document` as standard input."""
    saved = os.dup(0)
    stdin = os.memfd_create("stdin")
    try:
        os.truncate(stdin, len(document))
        os.pwrite(stdin, document, 0)
        os.dup2(stdin, 0)
        return request.read_stdin()
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(stdin)


def test_stdin_is_read_to_its_end_in_pieces() -> None:
    document = bytes(range(256)) * 4000
    assert read_from(document) == document


def test_a_stdin_beyond_any_configuration_is_refused_and_not_read_on_for_ever() -> None:
    with pytest.raises(CniError, match="larger than 16 MiB") as failure:
        read_from(bytes(request.MAX_STDIN_BYTES + 1))
    assert failure.value.code == IO_FAILURE
