from datetime import date

import pytest

from cronally.domain.instant_text import read_instant
from cronally.domain.matching import match_at
from cronally.domain.recurrence import Recurrence
from cronally.domain.wall import WallTimes, day_matches
from cronally.instants import format_utc, parse_rfc3339, to_datetime


def match(when, at, tz="UTC", **choices):
    rule = Recurrence.parse(when, tz=tz, **choices)
    return match_at(rule, read_instant(at, rule.zone, now=0, direction=1).at)


def verdicts(found):
    return {field.name: (field.written, field.value, field.is_match) for field in found.fields}


def test_a_slot_matches_in_every_field():
    found = match("0 9 * * mon-fri", "2026-11-23T09:00", "America/New_York")
    assert (found.is_slot, found.reason, found.dst, found.needs_both) == (
        True,
        "every field matches",
        None,
        None,
    )
    assert (found.local.isoformat(), found.offset_s) == ("2026-11-23T09:00:00", -18_000)
    assert (format_utc(found.previous), format_utc(found.following)) == (
        "2026-11-20T14:00:00Z",
        "2026-11-24T14:00:00Z",
    )
    assert verdicts(found) == {
        "minute": ("0", "00", True),
        "hour": ("9", "09", True),
        "day-of-month": ("*", "23", True),
        "month": ("*", "11 (November)", True),
        "day-of-week": ("mon-fri", "Monday", True),
    }


@pytest.mark.parametrize(
    ("when", "at", "reason"),
    [
        ("0 9 * * mon-fri", "2026-11-22T09:00Z", "day-of-week does not match"),
        ("0 9 * * *", "2026-11-22T10:01Z", "minute and hour do not match"),
        ("0 9 * jan *", "2026-11-22T10:01Z", "minute, hour and month do not match"),
        ("0 9 * * *", "2026-11-22T09:00:05Z", "second does not match"),
        ("0 9 * * *", "2026-11-22T09:00:00.5Z", "it lies between two seconds, and a slot is at a whole one"),
        ("0 0 13 * fri", "2026-11-19T00:00Z", "day-of-month and day-of-week do not match"),
        ("0 0 */2 * fri", "2026-11-20T00:00Z", "day-of-month does not match"),
        ("0 0 13 * fri", "2026-11-20T01:00Z", "hour does not match"),
        ("@hourly", "2026-11-20T01:30Z", "minute does not match"),
        ("@every 1h", "2026-11-20T01:30Z", "it is no multiple of the period, counted from the start of the rule or else from 1970"),
        ("@at 2026-11-20T01:00", "2026-11-20T01:30Z", "the rule names another instant"),
    ],
)  # fmt: skip
def test_why_there_is_no_slot(when, at, reason):
    found = match(when, at)
    assert (found.is_slot, found.reason) == (False, reason)


@pytest.mark.parametrize(
    ("when", "at", "reason"),
    [
        ("0 0 13 * fri", "2026-11-20T00:00Z", "the time matches, and one of the two day fields does"),
        ("0 0 13 * fri", "2026-11-13T00:00Z", "every field matches"),
        ("@every 1h", "2026-11-20T01:00Z", "it is a multiple of the period"),
        ("@at 2026-11-20T01:00", "2026-11-20T01:00Z", "it is the one instant of the rule"),
    ],
)
def test_why_there_is_a_slot(when, at, reason):
    found = match(when, at)
    assert (found.is_slot, found.reason) == (True, reason)


def test_what_a_change_of_the_clock_did():
    moved = match("30 2 * * *", "2026-03-08T02:30", "America/New_York")
    assert (moved.is_slot, moved.reason) == (True, "a change of the clock moved it here")
    assert moved.dst.startswith("02:30 does not exist on 2026-03-08")
    skipped = match("30 2 * * *", "2026-03-08T02:30", "America/New_York", on_gap="skip")
    assert (skipped.is_slot, skipped.reason) == (False, "minute and hour do not match")
    assert skipped.dst.startswith("the clock went forward over a local time of the rule")
    first = match("30 1 * * *", "2026-10-25T01:30", "Europe/London")
    assert (first.is_slot, first.dst) == (True, "01:30 comes twice; this is the first, and the only slot")
    second = match("30 1 * * *", "2026-10-25T01:30:00Z", "Europe/London")
    assert not second.is_slot
    assert second.reason.startswith("every field matches, but this local time has passed before")
    assert "went back" in second.dst
    assert match("0 12 * * *", "2026-03-08T03:00", "America/New_York").dst is None


def test_a_rule_with_seconds_and_a_year():
    found = match("30 0 9 LW * ? 2027", "2026-11-30T09:00:00Z", dialect="quartz")
    assert verdicts(found) == {
        "second": ("30", "00", False),
        "minute": ("0", "00", True),
        "hour": ("9", "09", True),
        "day-of-month": ("LW", "30", True),
        "month": ("*", "11 (November)", True),
        "day-of-week": ("?", "Monday", True),
        "year": ("2027", "2026", False),
    }
    assert (found.previous, found.needs_both) == (None, None)


def test_nothing_comes_before_the_start():
    starts = to_datetime(parse_rfc3339("2027-01-01T00:00:00Z"))
    assert (
        match("@daily", "2026-11-20T00:00Z", starts=starts).reason == "the rule has no slots before its start"
    )


@pytest.mark.parametrize(
    "days",
    [
        "L * *",
        "LW * *",
        "15W * *",
        "L-3 * *",
        "1,30 * *",
        "* * friL",
        "* * fri#2",
        "13 * fri",
        "*/2 * 1-5",
        "? * 0",
    ],
)
def test_the_fields_of_a_day_agree_with_the_slots(days):
    fields = Recurrence.parse(f"0 0 {days}").fields
    times = WallTimes(fields)
    needs_both = fields.days_starred or fields.weekdays_starred
    for ordinal in range(date(2027, 12, 1).toordinal(), date(2028, 4, 1).toordinal()):
        matches = day_matches(fields, date.fromordinal(ordinal))
        local = (ordinal - date(1970, 1, 1).toordinal()) * 86_400
        assert (times.first_from(local) == local) == (all(matches) if needs_both else any(matches))
