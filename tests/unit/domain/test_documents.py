"""JSON from outside, read strictly."""

from __future__ import annotations

import json

import pytest

from cronally.domain.documents import DuplicateKey, load_json


@pytest.mark.parametrize("text", ['{"a": [1, 2.5, null, true, "é"]}', "[]", '"x"', " 1 "])
def test_json_is_read(text):
    assert load_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "column 1"),
        (b"{", "column 2"),
        (b'{"a": 1} x', "column 10"),
        (b"\xff{}", "byte 1 is not UTF-8"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b"[-Infinity]", "-Infinity is no JSON number"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"[" * 30_000, "nested too deeply"),
        (b"[" * 100_000, "more than 32,768 characters outside"),
        (b'{"a": 1%s}' % (b"0" * 10_000), "a number has 10,001 digits"),
        (b'{"a": [' + b"0, " * 100_000 + b"0]}", "more than 32,768 characters outside"),
        (b'["' + b'","' * 5_000 + b"x" * 40_000 + b'"]', "more than 4,000 texts"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "'b' is there twice"),
    ],
)
def test_anything_else_is_refused_and_says_where(data, words):
    with pytest.raises(ValueError, match=words):
        load_json(data)


def test_a_repeated_key_is_named_and_cut():
    with pytest.raises(DuplicateKey) as caught:
        load_json(b'{"%s": 1, "%s": 2}' % (b"k" * 300, b"k" * 300))
    assert caught.value.key == "k" * 100


def test_a_long_text_may_hold_anything():
    text = json.dumps({"message": '[{"a": 1}, \\"b"],\n' * 20_000, "note": "é" * 20_000})
    assert load_json(text.encode()) == json.loads(text)
