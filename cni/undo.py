# SPDX-License-Identifier: Apache-2.0
"""Rollback shaped like contextlib.ExitStack, without its 4 ms of imports (abc, collections, functools, types)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Undo:
    """Do, `undo.callback(...)`, and as the last line `undo.pop_all()`.

    Leaving the block runs what is still registered, last first. An error of one step does not keep the others from
    running; it is noted on the error that caused the rollback, which is the one that the operator must see.
    """

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def callback(self, step: Callable[..., object], *args: object) -> None:
        self._steps.append((step, args))

    def pop_all(self) -> None:
        self._steps.clear()

    def __enter__(self) -> Undo:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        first: Exception | None = None
        while self._steps:
            step, args = self._steps.pop()
            try:
                step(*args)
            except Exception as failure:
                # The cause of the failure may keep a step from being undone too, in the same words.
                if error is not None and str(failure) != str(error):
                    error.add_note(f"while undoing: {failure}")
                first = first or failure
        if error is None and first is not None:
            raise first


class Attempts:
    """DEL and GC try every step and raise the first error at the end, with the others in its notes."""

    __slots__ = ("_first",)

    def __init__(self) -> None:
        self._first: Exception | None = None

    def run(self, step: Callable[..., object], *args: object) -> None:
        try:
            step(*args)
        except Exception as failure:
            if self._first is None:
                self._first = failure
            else:
                self._first.add_note(str(failure))

    def finish(self) -> None:
        if self._first is not None:
            raise self._first
