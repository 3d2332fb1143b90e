# SPDX-License-Identifier: Apache-2.0
"""JSON through the C accelerator alone.

The `json` package imports `re` and `enum`, about 6 ms of every ADD; the scanner and the encoder in `_json` are the ones
it uses itself. The scanner wants `json.decoder` only to raise its own error, which is the cold path here.
Beyond RFC 8259 this refuses what Python's parser lets through: NaN, Infinity and numbers that would become it, and
nesting that would end in RecursionError.
"""

from __future__ import annotations

import _json

from .errors import DECODING_FAILURE, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

MAX_DEPTH = 128
"""Deeper than any CNI document, and far from the interpreter's recursion limit."""
_INFINITY = float("inf")


class _Refused(Exception):
    """What is wrong with the document, as the end of a sentence."""


def _refuse_constant(name: str) -> NoReturn:
    raise _Refused(f"holds {name}, which RFC 8259 does not allow; remove it")


def _finite(text: str) -> float:
    """An infinity could be read, but never be written again, to a delegate or to stdout."""
    number = float(text)
    if number in (_INFINITY, -_INFINITY):
        raise _Refused(f"holds the number {text[:40]}, which is too large; remove it")
    return number


class _ScannerSettings:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = staticmethod(_finite)
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)
    memo: dict[str, str] = {}


_scan = _json.make_scanner(_ScannerSettings)  # type: ignore[arg-type]
_WHITE = " \t\r\n"


def _refuse_depth(text: str) -> None:
    """Walks through the text only when the number of its brackets, a cheap upper bound, is over the limit."""
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    depth, in_string, escaped = 0, False, False
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "{[":
            depth += 1
            if depth > MAX_DEPTH:
                raise _Refused(f"is nested deeper than {MAX_DEPTH} levels")
        elif char in "}]":
            depth -= 1


def _explain(text: str, what: str) -> CniError:
    import json

    try:
        json.loads(text)
    except ValueError as error:
        return CniError(DECODING_FAILURE, f"{what} is not valid JSON: {error}")
    return CniError(DECODING_FAILURE, f"{what} is not valid JSON")


def loads(document: bytes, what: str = "the network configuration on stdin") -> Any:
    """Parse one JSON document. Raises CniError(DECODING_FAILURE) with the place of the fault."""
    try:
        text = document.decode("utf-8").strip(_WHITE)
    except UnicodeDecodeError as error:
        raise CniError(DECODING_FAILURE, f"{what} is not UTF-8: {error.reason} at byte {error.start}") from None
    if not text:
        raise CniError(DECODING_FAILURE, f"{what} is empty; it must be a JSON document")
    try:
        _refuse_depth(text)
        value, end = _scan(text, 0)
    except _Refused as refusal:
        raise CniError(DECODING_FAILURE, f"{what} {refusal}") from None
    except (StopIteration, SystemError, ValueError, RecursionError, KeyError):
        raise _explain(text, what) from None
    if end != len(text):
        raise CniError(DECODING_FAILURE, f"{what} has more after the JSON document, from character {end} on")
    return value


def _refuse_value(value: object) -> NoReturn:
    raise TypeError(f"no JSON form for {type(value).__name__}")


_encode = _json.make_encoder(None, _refuse_value, _json.encode_basestring_ascii, None, ":", ",", False, False, False)


def dumps(value: object) -> bytes:
    """One line of JSON without a newline, keys in the order in which they were set."""
    return "".join(_encode(value, 0)).encode()
