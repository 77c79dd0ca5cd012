"""A schedule's document: what is accepted, what is refused and in which words, and how it is written back."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from cronally.domain.crontab import name_hash
from cronally.domain.spec import (
    Attribute,
    PauseWish,
    canonical_document,
    from_canonical,
    from_document,
    parse_name,
    parse_paused,
    spread_offset_ms,
    to_document,
)
from cronally.errors import FieldError, UsageError, WhenError, ZoneError

TOPIC = "arn:aws:sns:us-east-1:123456789012:reports"
MINIMAL = {"when": "0 9 * * *", "topic": TOPIC}
FULL = {
    "when": "@every 90s",
    "tz": "Europe/London",
    "topic": f"{TOPIC}.fifo",
    "message": "hello <cronally.fire-id>",
    "subject": "Nightly",
    "attributes": {"n": {"type": "Number", "value": "5"}, "team": "ops"},
    "group": "g",
    "catch_up": "all",
    "deadline": "2h",
    "late_after": "1m",
    "on_gap": "skip",
    "on_repeat": "both",
    "spread": "10m",
    "priority": 9,
    "starts": "2026-11-23T09:00:00Z",
    "ends": "2026-12-23T09:00:00Z",
    "tags": ["a", "b"],
    "note": "why",
}


@pytest.mark.parametrize("document", [MINIMAL, FULL])
def test_a_document_is_written_back_as_it_was(document):
    spec = from_document("job", document)
    assert to_document(spec) == document
    assert from_canonical("job", canonical_document(spec)) == spec


def test_defaults_are_left_out_and_null_means_the_default():
    spec = from_document("job", {**MINIMAL, "tz": "UTC", "deadline": "24h", "priority": None, "tags": []})
    assert to_document(spec) == MINIMAL


def test_yaml_instants_and_numbers_are_understood():
    spec = from_document(
        "job", {**MINIMAL, "starts": datetime(2026, 11, 23, 9, tzinfo=UTC), "attributes": {"n": 2.5, "k": 7}}
    )
    assert to_document(spec)["starts"] == "2026-11-23T09:00:00Z"
    assert spec.attributes == (Attribute("k", "7", "Number"), Attribute("n", "2.5", "Number"))


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"when": None}, "when", "missing"),
        ({"topic": None}, "topic", "missing"),
        ({"topic": "reports"}, "topic", "arn:aws:sns:REGION:ACCOUNT:NAME"),
        ({"topic": "arn:aws:sqs:us-east-1:123456789012:reports"}, "topic", "not the ARN of an SNS topic"),
        ({"topic": f"{TOPIC}{'x' * 256}"}, "topic", "not the ARN"),
        ({"topic": 7}, "topic", "must be text, not a number"),
        ({"mesage": "x"}, "mesage", "did you mean 'message'?"),
        ({"zzz": "x"}, "zzz", "the keys are when, tz"),
        ({"message": ""}, "message", "SNS refuses an empty message"),
        ({"message": {"a": 1}}, "message", "must be text, not a mapping"),
        ({"message": "\ud800"}, "message", "surrogate"),
        ({"message": "a\0b"}, "message", "character 2 is U+0000"),
        ({"message": "\x1b[31m"}, "message", "escape it, as JSON and base64 do"),
        ({"message": "\t\r\n\uffff"}, "message", "character 4 is U+FFFF"),
        ({"attributes": {"a": "\x0b"}}, "attributes", "a: character 1 is U+000B"),
        ({"message": "x" * 262_145}, "message", "262,144"),
        ({"message": "é" * 131_100}, "message", "262,144"),
        ({"message": "<cronally.fire-id>" * 8_000}, "message", "262,144"),
        ({"dialect": "solaris"}, "dialect", "unix, quartz, eventbridge"),
        ({"catch_up": "sometimes"}, "catch_up", "latest, all, skip"),
        ({"deadline": "soon"}, "deadline", "90s, 5m, 1h30m or 2d"),
        ({"deadline": "0s"}, "deadline", "must be 1s to"),
        ({"deadline": 90}, "deadline", "must be text, not a number"),
        ({"spread": "25h"}, "spread", "must be 0s to 1d"),
        ({"priority": 10}, "priority", "0 to 9"),
        ({"priority": True}, "priority", "0 to 9"),
        ({"starts": "tomorrow"}, "starts", "2026-12-24T18:00:00Z"),
        ({"starts": "2026-11-24T00:00:00Z", "ends": "2026-11-23T00:00:00Z"}, "ends", "before starts"),
        ({"subject": "two\nlines"}, "subject", "without line breaks"),
        ({"subject": ""}, "subject", "1 to 100"),
        ({"group": "a b"}, "group", "without blanks"),
        ({"tags": "a"}, "tags", "must be a list"),
        ({"tags": ["a b"]}, "tags", "must be a list of words"),
        ({"tags": [f"t{n}" for n in range(51)]}, "tags", "at most 50"),
        ({"note": ""}, "note", "1 to 500"),
        ({"attributes": ["a"]}, "attributes", "must be a mapping"),
        ({"attributes": {f"a{n}": "x" for n in range(7)}}, "attributes", "at most 6"),
        ({"attributes": {"AWS.x": "x"}}, "attributes", "not beginning with AWS."),
        ({"attributes": {"a..b": "x"}}, "attributes", "single dots"),
        ({"attributes": {"cronally.kind": "x"}}, "attributes", "choose another name"),
        ({"attributes": {"a": ""}}, "attributes", "SNS refuses an empty value"),
        ({"attributes": {"a": {"type": "Number"}}}, "attributes", 'type: Number, value: "5"'),
        ({"attributes": {"a": {"type": "Date", "value": "x"}}}, "attributes", "String, Number"),
        ({"attributes": {"a": {"type": "Number", "value": "five"}}}, "attributes", "not a number"),
        ({"attributes": {"a": {"type": "String.Array", "value": "[1"}}}, "attributes", "JSON list"),
        ({"attributes": {"a": {"type": "Binary", "value": "?"}}}, "attributes", "base64"),
        ({"message_structure": "xml"}, "message_structure", "one of json"),
        ({"message_structure": "json", "message": "hello"}, "message", '"default" text'),
        ({"message_structure": "json", "message": '{"default": "x"}'}, "message", "<cronally.fire-id>"),
    ],
)
def test_what_is_refused_says_where_and_what_to_write(change, field, words):
    document = {key: value for key, value in {**MINIMAL, **change}.items() if value is not None}
    with pytest.raises(FieldError) as caught:
        from_document("job", document)
    assert caught.value.field == field
    assert words in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "name",
    [
        *("", "-a", ".a", "a b", "ä", "a" * 81, "../etc/passwd", "a\n", 7, None),
        *("😀", "a\0b", "\u202egod", "שלום", "a\x1b[2J", "a\u200b", "\udcff", "a" * 10_000),
    ],
    ids=ascii,
)
def test_a_name_that_cannot_be_one_is_refused_and_shown_so_that_nothing_obeys_it(name):
    with pytest.raises(UsageError, match="name") as caught:
        parse_name(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("name", ["a", "A", "0", "nightly-report", "a.b_c-d", "a" * 80])
def test_a_name_is_accepted_as_it_is(name):
    assert parse_name(name) == name


def test_a_rule_and_a_zone_are_refused_by_their_own_errors():
    with pytest.raises(WhenError):
        from_document("job", {**MINIMAL, "when": "61 * * * *"})
    with pytest.raises(ZoneError, match=r"Europe/London"):
        from_document("job", {**MINIMAL, "tz": "Europe/Londn"})


def test_schedules_with_the_same_text_share_one_recurrence_whatever_their_bounds():
    first = from_document("a", {**MINIMAL, "starts": "2026-11-23T09:00:00Z"})
    second = from_document("b", MINIMAL)
    assert first.recurrence() is second.recurrence()


def test_the_start_of_an_interval_is_its_anchor():
    spec = from_document("a", {**MINIMAL, "when": "@every 7s", "starts": "2026-11-23T09:00:01Z"})
    assert spec.recurrence().next_ms(0) == spec.starts


def test_hashed_rules_and_spread_come_from_the_name():
    by_name = {name: from_document(name, {**MINIMAL, "when": "H H * * *"}).recurrence().key for name in "abc"}
    assert len(set(by_name.values())) == 3
    offsets = {spread_offset_ms(name, 600_000) for name in ("a", "b", "c", "d")}
    assert len(offsets) > 1
    assert all(0 <= offset < 600_000 and offset % 1000 == 0 for offset in offsets)
    assert spread_offset_ms("a", 0) == 0


def test_a_fifo_topic_has_a_group_by_default():
    assert from_document("job", {**MINIMAL, "topic": f"{TOPIC}.fifo"}).group_id == "job"
    assert from_document("job", MINIMAL).group_id is None
    assert from_document("job", {**MINIMAL, "group": "g"}).group_id == "g"


@pytest.mark.parametrize(
    ("value", "wish"),
    [
        (None, PauseWish(None)),
        (True, PauseWish(is_paused=True)),
        (False, PauseWish(is_paused=False)),
        ({"note": "n"}, PauseWish(is_paused=True, note="n")),
        (
            {"until": "2026-11-23T09:00:00Z"},
            PauseWish(is_paused=True, until=1_795_424_400_000),
        ),
    ],
)
def test_the_ways_to_say_paused(value, wish):
    assert parse_paused(value) == wish


@pytest.mark.parametrize("value", ["yes", 1, {}, {"til": "x"}, {"until": "soon"}])
def test_other_ways_to_say_paused_are_refused(value):
    with pytest.raises(FieldError, match="paused"):
        parse_paused(value)


def test_equal_specs_have_one_canonical_text():
    one = from_document("job", {**FULL, "tags": ["b", "a", "a"]})
    other = from_document("job", dict(reversed(FULL.items())))
    assert canonical_document(one) == canonical_document(other)
    assert json.loads(canonical_document(one)) == to_document(one)


@pytest.mark.parametrize(
    ("when", "keys", "shares"),
    [
        ("0 9 * * *", {}, ()),
        ("0 9 * * thu", {}, ()),
        ("0 9 * * *", {"spread": "5m"}, ((0, 300),)),
        ("H 9 * * *", {"spread": "5m"}, ((0, 300), (0, 60))),
        ("H(0-9),H/15 h H * H", {}, ((0, 10), (0, 15), (8, 24), (16, 28), (32, 7))),
        ("H/90 9 * * *", {}, ((0, 60),)),
        ("cron(0 H * * ? *)", {"dialect": "eventbridge"}, ((8, 24),)),
        ("0 H 9 * * ?", {"dialect": "quartz"}, ((0, 60),)),
    ],
)
def test_what_a_name_decides(when, keys, shares):
    spec = from_document("job", {"when": when, "topic": TOPIC, **keys})
    assert spec.name_shares() == shares
    by_share = {}
    for number in range(3_000):
        other = spec._replace(name=f"job-{number}")
        share = tuple((name_hash(other.name) >> shift) % divisor for shift, divisor in shares)
        same = by_share.setdefault(share, other)
        assert (same.recurrence(), same.offset_ms()) == (other.recurrence(), other.offset_ms())
