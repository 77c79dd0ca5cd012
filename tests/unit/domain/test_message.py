"""What is published for a fire."""

from __future__ import annotations

import json

import pytest

from cronally.domain.message import MAX_MESSAGE_BYTES, compose
from cronally.domain.model import Fire, Kind
from cronally.domain.spec import from_document
from cronally.errors import FieldError

TOPIC = "arn:aws:sns:us-east-1:123456789012:reports"
AT = 1_795_424_400_000  # 2026-11-23T09:00:00Z


def entry(kind=Kind.SCHEDULED, at=AT, **keys):
    spec = from_document("nightly", {"when": "0 9 * * *", "topic": TOPIC, **keys})
    return compose(spec, Fire(1, 1, at, at, kind))


def test_without_a_message_the_fire_itself_is_one():
    assert json.loads(entry().message) == {
        "schedule": "nightly",
        "fire_time": "2026-11-23T09:00:00Z",
        "fire_id": "nightly@2026-11-23T09:00:00Z",
    }


def test_placeholders_are_filled_in_the_message_and_the_attribute_values():
    text = (
        "<cronally.schedule>|<cronally.fire-time>|<cronally.fire-id>|<cronally.fire-time-utc>|"
        "<aws.scheduler.scheduled-time>|<cronally.other>"
    )
    filled = (
        "nightly|2026-11-23T09:00:00Z|nightly@2026-11-23T09:00:00Z|2026-11-23 09:00:00 UTC|"
        "2026-11-23T09:00:00Z|<cronally.other>"
    )
    made = entry(message=text, attributes={"x": text})
    assert made.message == filled
    assert made.attributes[-1].value == filled


@pytest.mark.parametrize(
    ("kind", "id_"),
    [
        (Kind.SCHEDULED, "nightly@2026-11-23T09:00:00Z"),
        (Kind.MANUAL, "nightly@2026-11-23T09:00:00Z+manual"),
        (Kind.BACKFILL, "nightly@2026-11-23T09:00:00Z+backfill"),
    ],
)
def test_the_kind_is_in_the_fire_id_and_an_attribute_when_it_is_not_scheduled(kind, id_):
    made = entry(kind)
    assert made.fire_id == id_
    kinds = [a.value for a in made.attributes if a.name == "cronally.kind"]
    assert kinds == ([] if kind is Kind.SCHEDULED else [str(kind)])


def test_milliseconds_are_written_only_if_there_are_any():
    assert entry(Kind.MANUAL, AT + 7).fire_id == "nightly@2026-11-23T09:00:00.007Z+manual"


def test_there_are_never_more_than_ten_attributes():
    made = entry(Kind.MANUAL, attributes={f"a{n}": "x" for n in range(6)})
    assert len(made.attributes) == 10
    assert [a.name for a in made.attributes[:4]] == [
        "cronally.schedule",
        "cronally.fire_time",
        "cronally.fire_id",
        "cronally.kind",
    ]


def test_a_fifo_entry_carries_group_and_deduplication_and_a_standard_one_neither():
    spec = from_document("nightly", {"when": "0 9 * * *", "topic": f"{TOPIC}.fifo"})
    made = compose(spec, Fire(1, 1, AT, AT))
    assert (made.group, made.deduplication) == ("nightly", "nightly@2026-11-23T09:00:00Z")
    assert (entry().group, entry().deduplication) == (None, None)


def test_the_size_is_what_sns_counts():
    made = entry(message="é", attributes={"n": {"type": "Number", "value": "5"}})
    ours = sum(len(a.name) + len("String") + len(a.value) for a in made.attributes[:3])
    assert made.size_bytes == 2 + ours + len("n") + len("Number") + len("5")


@pytest.mark.parametrize("filler", ["x", "é", "<cronally.fire-id>", "<cronally.schedule>"])
def test_a_message_is_accepted_up_to_the_last_byte_at_its_longest(filler):
    spec = from_document("nightly", {"when": "0 9 * * *", "topic": TOPIC, "message": filler})
    longest = Fire(1, 1, AT + 1, AT + 1, Kind.BACKFILL)
    base = compose(spec, longest).size_bytes
    filled = compose(
        from_document("nightly", {"when": "@daily", "topic": TOPIC, "message": filler * 2}), longest
    )
    each = filled.size_bytes - base
    most = (MAX_MESSAGE_BYTES - base) // each + 1
    assert from_document("nightly", {"when": "0 9 * * *", "topic": TOPIC, "message": filler * most})
    with pytest.raises(FieldError, match="262,144"):
        from_document("nightly", {"when": "0 9 * * *", "topic": TOPIC, "message": filler * (most + 1)})


def test_the_deadline_counts_from_the_due_time_or_from_when_it_was_asked_for_again():
    spec = from_document("nightly", {"when": "0 9 * * *", "topic": TOPIC, "deadline": "1h"})
    fire = Fire(1, 1, AT, AT + 5)
    hour = 3_600_000
    assert compose(spec, fire).fire.deadline_at == AT + 5 + hour
    asked = compose(spec, fire._replace(asked_at=AT + 90 * hour)).fire
    assert (asked.deadline_at, asked.asked_at) == (AT + 91 * hour, AT + 90 * hour)
    assert compose(spec, fire._replace(asked_at=AT)).fire.deadline_at == AT + 5 + hour
