import io
import sys

import pytest

from cronally.admin.wire import MAX_BODY_BYTES, Schedule
from cronally.cli.documents import UNSETTABLE, document_from_options, merged, parse_attributes, read_message
from cronally.domain.spec import DOCUMENT_KEYS
from cronally.errors import FieldError, UsageError

PRESENT = Schedule(
    name="a",
    when="0 9 * * *",
    tz="Europe/London",
    topic="arn:t",
    message="hello",
    subject="news",
    attributes={"team": "x", "n": {"type": "Number", "value": "5"}},
    tags=["one"],
    deadline="1h",
    paused={"since": "2026-01-01T00:00:00Z", "until": None, "note": None, "by": None},
    revision=4,
    next_fire="x",
    warnings=["w"],
)


class Stdin:
    def __init__(self, data):
        self.buffer = io.BytesIO(data)


def test_only_what_is_given_is_stated():
    options = {"when": "@daily", "tz": None, "paused": False, "priority": 0, "tags": ["b"], "note": ""}
    assert document_from_options(options) == {"when": "@daily", "priority": 0, "tags": ["b"], "note": ""}
    assert document_from_options({"paused": True}) == {"paused": True}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a=b"], {"a": "b"}),
        (["a=b=c"], {"a": "b=c"}),
        (["a="], {"a": ""}),
        (["n:Number=5"], {"n": {"type": "Number", "value": "5"}}),
        (["s:String=x:y"], {"s": "x:y"}),
        (["l:String.Array=[1]", "a=b"], {"l": {"type": "String.Array", "value": "[1]"}, "a": "b"}),
        (["n:Number="], {"n": ""}),
    ],
)
def test_attributes(given, expected):
    assert parse_attributes(given) == expected


@pytest.mark.parametrize("text", ["a", "=b", ":Number=5", "a:=5", ""])
def test_a_malformed_attribute_shows_the_right_form(text):
    with pytest.raises(UsageError, match="NAME=VALUE"):
        parse_attributes([text])


def test_an_attribute_is_given_once():
    with pytest.raises(UsageError, match="twice"):
        parse_attributes(["a=1", "a:Number=1"])


def test_a_merge_keeps_what_is_not_mentioned():
    document = merged(PRESENT, {"when": "@daily"}, [])
    assert document["when"] == "@daily"
    assert document["tz"] == "Europe/London"
    assert document["message"] == "hello"
    assert document["deadline"] == "1h"
    assert set(document) <= set(DOCUMENT_KEYS)
    assert "paused" not in document


def test_a_merge_unsets_by_key_and_by_empty_text():
    document = merged(PRESENT, {"subject": "", "tags": [""]}, ["deadline", "--message", "tz"])
    assert not {"subject", "deadline", "message", "tz"} & set(document)
    assert document["tags"] == []


def test_attributes_are_merged_by_name_and_tags_replaced():
    document = merged(PRESENT, {"attributes": {"team": "", "new": "1"}, "tags": ["two"]}, [])
    assert document["attributes"] == {"n": {"type": "Number", "value": "5"}, "new": "1"}
    assert document["tags"] == ["two"]
    assert merged(PRESENT, {}, ["attribute"]).get("attributes") is None


def test_a_pause_can_be_wanted():
    assert merged(PRESENT, {"paused": True}, [])["paused"] is True


def test_an_empty_message_is_refused_with_the_way_out():
    with pytest.raises(FieldError, match="--unset message"):
        merged(PRESENT, {"message": ""}, [])


@pytest.mark.parametrize(
    ("key", "fix"), [("when", "those are"), ("dedline", "'deadline'"), ("", "those are")]
)
def test_only_a_key_with_a_default_can_be_unset(key, fix):
    with pytest.raises(UsageError, match=fix):
        merged(PRESENT, {}, [key])


def test_every_optional_key_can_be_unset():
    assert set(UNSETTABLE) == set(DOCUMENT_KEYS) - {"when", "topic", "paused"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plain", "plain"),
        ("@@home", "@home"),
        ("@@", "@"),
        ("@@@x", "@@x"),
        ("a@b", "a@b"),
        ("", ""),
        ("--", "--"),
    ],
)
def test_a_message_is_taken_as_it_is(text, message):
    assert read_message(text) == message


def test_a_message_file_is_taken_exactly(tmp_path):
    file = tmp_path / "m"
    file.write_bytes(b"\xef\xbb\xbfa\r\n\xc3\xa9\n")
    assert read_message(f"@{file}") == "\ufeffa\r\né\n"


def test_a_message_from_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(b"from a pipe\n"))
    assert read_message("-") == "from a pipe\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"ab\xff", r"not UTF-8 \(byte 3\)"), (b"x" * (MAX_BODY_BYTES + 1), "over 1,048,576 bytes")],
)
def test_a_message_file_that_cannot_be_sent(tmp_path, data, reason):
    file = tmp_path / "m"
    file.write_bytes(data)
    with pytest.raises(UsageError, match=reason):
        read_message(f"@{file}")


@pytest.mark.parametrize("name", ["missing", "", "."])
def test_a_message_file_that_cannot_be_read(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="@@"):
        read_message(f"@{name}")
