# SPDX-License-Identifier: Apache-2.0
"""cni.undo: rollback runs backwards and whole; DEL tries everything and reports the first failure."""

from __future__ import annotations

import pytest

from cni.undo import Attempts, Undo


def fail(words: str) -> None:
    raise OSError(words)


def test_a_failure_undoes_last_first() -> None:
    done: list[str] = []
    with pytest.raises(KeyError), Undo() as undo:
        undo.callback(done.append, "device")
        undo.callback(done.append, "address")
        raise KeyError
    assert done == ["address", "device"]


def test_success_undoes_nothing() -> None:
    done: list[str] = []
    with Undo() as undo:
        undo.callback(done.append, "device")
        undo.pop_all()
    assert done == []


def test_a_block_that_forgets_pop_all_is_undone() -> None:
    done: list[str] = []
    with Undo() as undo:
        undo.callback(done.append, "device")
    assert done == ["device"]


def test_a_step_that_fails_keeps_no_other_from_running_and_is_noted_on_the_cause() -> None:
    done: list[str] = []
    with pytest.raises(KeyError) as failure, Undo() as undo:
        undo.callback(done.append, "first")
        undo.callback(fail, "busy")
        undo.callback(done.append, "last")
        raise KeyError("cause")
    assert done == ["last", "first"]
    assert failure.value.__notes__ == ["while undoing: busy"]


def test_a_step_that_fails_in_the_causes_own_words_is_not_repeated() -> None:
    with pytest.raises(OSError) as failure, Undo() as undo:
        undo.callback(fail, "no executable host-local")
        fail("no executable host-local")
    assert not hasattr(failure.value, "__notes__")


def test_without_a_cause_the_first_failing_step_is_raised() -> None:
    done: list[str] = []
    with pytest.raises(OSError, match="second"), Undo() as undo:
        undo.callback(done.append, "ran")
        undo.callback(fail, "first")
        undo.callback(fail, "second")
    assert done == ["ran"]


def test_an_interrupt_undoes_too() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), Undo() as undo:
        undo.callback(done.append, "device")
        raise KeyboardInterrupt
    assert done == ["device"]


def test_attempts_go_on_after_a_failure_and_raise_it_at_the_end() -> None:
    done: list[str] = []
    attempts = Attempts()
    attempts.run(fail, "first")
    attempts.run(done.append, "ran")
    attempts.run(fail, "second")
    assert done == ["ran"]
    with pytest.raises(OSError, match="first") as failure:
        attempts.finish()
    assert failure.value.__notes__ == ["second"]


def test_attempts_that_all_succeed_raise_nothing() -> None:
    attempts = Attempts()
    attempts.run(len, "x")
    attempts.finish()
