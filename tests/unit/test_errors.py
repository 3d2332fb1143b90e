# SPDX-License-Identifier: Apache-2.0
"""Errors on their way out: one JSON object whatever was raised, with a code of the spec and words to act on."""

from __future__ import annotations

import errno

import pytest

from cni import errors, plugin
from cni.errors import INTERNAL, IO_FAILURE, CniError, from_os_error


def shown(failure: BaseException, command: str = "ADD") -> dict[str, object]:
    return plugin._as_error(failure, "1.0.0", command)


def test_an_error_of_ours_goes_out_as_it_is() -> None:
    assert shown(CniError(7, "mtu: too small", "67")) == {
        "cniVersion": "1.0.0",
        "code": 7,
        "msg": "mtu: too small",
        "details": "67",
    }


def test_what_else_went_wrong_is_told_in_the_details() -> None:
    failure = CniError(7, "mtu: too small", "67")
    failure.add_note("while undoing: device busy")
    assert shown(failure)["details"] == "67; while undoing: device busy"


def test_a_system_calls_error_names_its_file_and_errno() -> None:
    error = from_os_error(FileNotFoundError(errno.ENOENT, "No such file or directory", "/sys/fs/bpf/x"))
    assert (error.code, error.msg) == (IO_FAILURE, "/sys/fs/bpf/x: No such file or directory")
    assert error.details == "errno 2 (ENOENT)"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_a_missing_permission_is_answered_with_what_to_do(number: int) -> None:
    assert "run it as root" in from_os_error(OSError(number, "no")).msg


def test_an_error_without_errno_is_still_a_sentence() -> None:
    assert from_os_error(OSError("odd")).msg == "odd"


def test_a_defect_says_so_and_carries_its_trace() -> None:
    try:
        raise KeyError("lost")
    except KeyError as failure:
        document = shown(failure)
    assert document["code"] == INTERNAL and "KeyError" in str(document["msg"])
    assert "test_errors.py" in str(document["details"])


@pytest.mark.parametrize("said", ["plugin not found", "open /x: no such file or directory", "a not found; b not found"])
def test_no_error_of_del_can_be_taken_for_success_by_containerd(said: str) -> None:
    failure = CniError(5, said, said)
    document = str(shown(failure, "DEL"))
    assert "not found" not in document and "no such file or directory" not in document
    assert said in str(shown(failure, "ADD")), "every other verb passes a delegate's words on unchanged"


def test_the_codes_of_the_spec_are_the_specs_and_ours_begin_at_100() -> None:
    codes = {name: value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    assert {value for value in codes.values() if value < 100} == {1, 2, 3, 4, 5, 6, 7, 11, 50, 51}
    assert len(set(codes.values())) == len(codes)
