"""The identity of a fire."""

from __future__ import annotations

import pytest

from cronally.domain.model import Fire, FireKey, JournalEntry, Kind, State, fire_id, parse_fire_id
from cronally.instants import parse_rfc3339

NINE = parse_rfc3339("2026-11-23T09:00:00Z")


@pytest.mark.parametrize(
    ("ms", "kind", "id_"),
    [
        (0, Kind.SCHEDULED, "job@2026-11-23T09:00:00Z"),
        (5, Kind.SCHEDULED, "job@2026-11-23T09:00:00.005Z"),
        (0, Kind.MANUAL, "job@2026-11-23T09:00:00Z+manual"),
        (120, Kind.BACKFILL, "job@2026-11-23T09:00:00.120Z+backfill"),
    ],
)
def test_the_fire_id_names_schedule_time_and_kind(ms, kind, id_):
    assert fire_id("job", NINE + ms, kind) == id_
    assert parse_fire_id(id_) == ("job", NINE + ms, kind)
    assert str(parse_fire_id(id_)) == id_


def test_a_fire_id_with_another_offset_is_the_same_fire():
    assert str(parse_fire_id(" job@2026-11-23T10:00+01:00+manual ")) == "job@2026-11-23T09:00:00Z+manual"


def test_a_fire_and_its_journal_entry_share_a_key():
    fire = Fire(7, 1, NINE, NINE + 5000, Kind.MANUAL, attempts=3)
    entry = JournalEntry(
        schedule_id=7, fire_time=NINE, kind=Kind.MANUAL, revision_id=1, due_time=NINE, state=State.PENDING
    )
    assert fire.key == entry.key == FireKey(7, NINE, Kind.MANUAL)
    assert fire.key != fire._replace(kind=Kind.SCHEDULED).key
