# SPDX-License-Identifier: Apache-2.0
"""cni.jsontext: what Python's json reads it reads alike, except where RFC 8259 or a plugin's safety forbid it."""

from __future__ import annotations

import json

import pytest

from cni import jsontext
from cni.errors import DECODING_FAILURE, CniError

SAME_AS_JSON = [
    "{}",
    " \t\r\n[1, 2.5, -3e2, true, false, null]\n",
    '{"a": {"b": [{"c": ""}]}}',
    '"\\u00e9\\ud83d\\ude00 \\" \\\\ \\/ \\b\\f\\n\\r\\t"',
    '{"a": 1, "a": 2}',
    "12345678901234567890123",
    '"' + "ä😀" * 1000 + '"',
    json.dumps({"text": "x" * (1 << 20)}),
    json.dumps([{} for _ in range(500)]),
    json.dumps("[{" * 500),
    "[" * jsontext.MAX_DEPTH + "]" * jsontext.MAX_DEPTH,
]

REFUSED = {
    "NaN": '{"mtu": NaN}',
    "Infinity": "Infinity",
    "-Infinity": '{"a": [-Infinity]}',
    "is empty": "",
    "is empty ": " \n\t",
    "nested deeper": "[" * (jsontext.MAX_DEPTH + 1) + "]" * (jsontext.MAX_DEPTH + 1),
    "nested deeper ": '{"a":' * 100_000,
    "has more after": '{"a": 1} {"b": 2}',
    "has more after ": '{"a": 1}]',
    "not valid JSON": '{"a": 1',
    "not valid JSON ": '{"a": "un',
    "not valid JSON: ": '{"a": 1,}',
    "Expecting": "{'a': 1}",
    "Invalid control character": '{"a": "line\nbreak"}',
    "Invalid \\\\escape": '{"a": "\\x41"}',
    "BOM": "\ufeff{}",
    "1e400": '{"rate": 1e400}',
    "-1e999": "[-1e999]",
    "digits": "9" * 5000,
}


@pytest.mark.parametrize("text", SAME_AS_JSON, ids=lambda text: text[:20])
def test_what_is_read_equals_what_python_reads(text: str) -> None:
    assert jsontext.loads(text.encode()) == json.loads(text)


@pytest.mark.parametrize(("words", "text"), REFUSED.items(), ids=lambda text: text[:20])
def test_a_bad_document_is_refused_with_its_name_and_fault(words: str, text: str) -> None:
    with pytest.raises(CniError, match=words.rstrip()) as failure:
        jsontext.loads(text.encode(), "the thing")
    assert failure.value.code == DECODING_FAILURE
    assert failure.value.msg.startswith("the thing ")


def test_bytes_that_are_not_utf8_are_refused_with_their_place() -> None:
    with pytest.raises(CniError, match=r"not UTF-8: .* at byte 6") as failure:
        jsontext.loads(b'{"a":"\xff"}')
    assert failure.value.code == DECODING_FAILURE


def test_every_proper_prefix_of_a_document_is_refused() -> None:
    document = '{"a": [1.5, {"b": "\\u00e9"}, true, null], "c": -2}'
    for length in range(len(document)):
        with pytest.raises(CniError):
            jsontext.loads(document[:length].encode())


def test_brackets_in_a_string_are_no_nesting_even_after_escapes() -> None:
    text = json.dumps(['a\\"' + "[" * 1000, "\\", "{" * 1000])
    assert jsontext.loads(text.encode()) == json.loads(text)


@pytest.mark.parametrize("text", SAME_AS_JSON, ids=lambda text: text[:20])
def test_what_is_written_reads_back_as_it_was(text: str) -> None:
    value = json.loads(text)
    written = jsontext.dumps(value)
    assert json.loads(written) == value
    assert written.isascii() and b"\n" not in written


def test_a_lone_surrogate_survives_reading_and_writing() -> None:
    assert jsontext.dumps(jsontext.loads(b'"\\ud800"')) == b'"\\ud800"'


def test_keys_keep_their_order() -> None:
    assert jsontext.dumps(jsontext.loads(b'{"z":1,"a":2,"m":3}')) == b'{"z":1,"a":2,"m":3}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes", object()])
def test_what_has_no_json_form_is_never_written(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        jsontext.dumps({"a": value})
