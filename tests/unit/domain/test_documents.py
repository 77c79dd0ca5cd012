"""JSON from outside, read strictly."""

from __future__ import annotations

import pytest

from cronally.domain.documents import DuplicateKey, load_json


@pytest.mark.parametrize("text", ['{"a": [1, 2.5, null, true, "é"]}', "[]", '"x"', " 1 "])
def test_json_is_read(text):
    import json

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
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": 1%s}' % (b"0" * 100_000), "a number has 100,001 digits"),
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
