"""The fires of other systems, against instants worked out by hand."""

from datetime import datetime
from itertools import islice

import pytest

from cronally.cli.importing.comparing import MAX_DIFFERENCES, compare
from cronally.cli.importing.old_rules import OldCrontab, OldInstant, OldInterval
from cronally.domain.recurrence import Recurrence
from cronally.instants import UtcMs, format_utc, parse_rfc3339

# New York: 2026-03-08 02:00 EST -> 03:00 EDT (07:00Z); 2026-11-01 02:00 EDT -> 01:00 EST (06:00Z).
NEW_YORK = "America/New_York"


def fires(old, after, count=3):
    return [format_utc(at)[:16] for at in islice(old.after(parse_rfc3339(after)), count)]


@pytest.mark.parametrize(
    ("clock", "text", "after", "expected"),
    [
        # a local time that does not exist: 02:30 on 8 March
        ("fixed", "30 2 * * *", "2026-03-08T00:00:00Z", ["2026-03-08T07:00", "2026-03-09T06:30"]),
        ("instants", "30 2 * * *", "2026-03-08T00:00:00Z", ["2026-03-09T06:30", "2026-03-10T06:30"]),
        ("once", "30 2 * * *", "2026-03-08T00:00:00Z", ["2026-03-09T06:30", "2026-03-10T06:30"]),
        # the gap's end and a regular slot there are one instant
        ("fixed", "0 2,3 * * *", "2026-03-08T00:00:00Z", ["2026-03-08T07:00", "2026-03-09T06:00"]),
        # one that comes twice: 01:30 on 1 November
        ("fixed", "30 1 * * *", "2026-11-01T00:00:00Z", ["2026-11-01T05:30", "2026-11-02T06:30"]),
        ("instants", "30 1 * * *", "2026-11-01T00:00:00Z", ["2026-11-01T05:30", "2026-11-01T06:30"]),
        ("once", "30 1 * * *", "2026-11-01T00:00:00Z", ["2026-11-01T05:30", "2026-11-02T06:30"]),
        ("instants", "*/30 * * * *", "2026-11-01T04:59:00Z",
         ["2026-11-01T05:00", "2026-11-01T05:30", "2026-11-01T06:00", "2026-11-01T06:30", "2026-11-01T07:00"]),
        # strictly later, also in the middle of the repeated hour
        ("instants", "30 1 * * *", "2026-11-01T05:30:00Z", ["2026-11-01T06:30", "2026-11-02T06:30"]),
        ("once", "30 * * * *", "2026-11-01T05:30:00Z", ["2026-11-01T07:30", "2026-11-01T08:30"]),
    ],
)  # fmt: skip
def test_what_a_change_of_the_clock_does(clock, text, after, expected):
    assert fires(OldCrontab(text=text, tz=NEW_YORK, clock=clock), after, len(expected)) == expected


@pytest.mark.parametrize(("needs_both", "first"), [(True, "2026-11-27"), (False, "2026-11-25")])
def test_a_star_with_a_step_beside_another_day_field(needs_both, first):
    old = OldCrontab(text="0 0 */2 * fri", tz="UTC", clock="fixed", star_needs_both=needs_both)
    assert fires(old, "2026-11-24T00:00:00Z", 1) == [f"{first}T00:00"]


def test_years_bound_a_rule():
    old = OldCrontab(text="0 0 1 1 *", tz="UTC", clock="once", years=frozenset((2030, 2032)))
    assert fires(old, "2026-01-01T00:00:00Z") == ["2030-01-01T00:00", "2032-01-01T00:00"]
    assert fires(old, "2032-01-01T00:00:00Z") == []


def test_a_rule_that_never_fires_ends():
    assert fires(OldCrontab(text="0 0 30 2 *", tz="UTC", clock="fixed"), "2026-01-01T00:00:00Z") == []


def test_what_croniter_cannot_read_is_said():
    assert OldCrontab(text="0 0 * * 5L", tz="UTC", clock="once").check() is not None
    assert OldCrontab(text="0 0 * * 5", tz="UTC", clock="once").check() is None


def test_an_interval_and_an_instant():
    old = OldInterval(period_ms=5_400_000, anchor_ms=parse_rfc3339("2026-01-01T00:30:00Z"))
    assert fires(old, "2025-12-31T00:00:00Z", 2) == ["2026-01-01T00:30", "2026-01-01T02:00"]
    assert fires(old, "2026-01-01T02:00:00Z", 1) == ["2026-01-01T03:30"]
    once = OldInstant(local=datetime.fromisoformat("2026-11-01T01:30"), tz=NEW_YORK)
    assert fires(once, "2026-01-01T00:00:00Z") == ["2026-11-01T05:30"]
    assert fires(once, "2026-11-01T05:30:00Z") == []
    with pytest.raises(ValueError, match="does not exist"):
        fires(
            OldInstant(local=datetime.fromisoformat("2026-03-08T02:30"), tz=NEW_YORK), "2026-01-01T00:00:00Z"
        )


# --- side by side -----------------------------------------------------------------------------------------------


def shown(found):
    return [
        (
            format_utc(fire.at)[:16],
            "both" if fire.is_old and fire.is_ours else "ours" if fire.is_ours else "old",
        )
        for fire in found
    ]


def test_equal_rules_are_equal():
    old = OldCrontab(text="0 9 * * 1-5", tz=NEW_YORK, clock="fixed")
    rule = Recurrence.parse("0 9 * * mon-fri", tz=NEW_YORK)
    found = compare(rule, old, parse_rfc3339("2026-11-24T00:00:00Z"), None)
    assert shown(found.next_fires) == [
        ("2026-11-24T14:00", "both"), ("2026-11-25T14:00", "both"), ("2026-11-26T14:00", "both"),
    ]  # fmt: skip
    assert (found.later, found.is_whole, found.failure) == ((), True, None)


def test_a_difference_at_the_next_change_of_the_clock_is_found_for_rare_and_frequent_rules():
    start = parse_rfc3339("2026-06-01T00:00:00Z")
    old = OldCrontab(text="30 1 * * *", tz=NEW_YORK, clock="instants")
    rare = compare(Recurrence.parse("30 1 * * *", tz=NEW_YORK), old, start, None)
    assert shown(rare.later) == [("2026-11-01T06:30", "old")]
    old = OldCrontab(text="15 * * * *", tz=NEW_YORK, clock="once")
    frequent = compare(Recurrence.parse("15 * * * *", tz=NEW_YORK), old, start, None)
    assert (shown(frequent.later), frequent.is_whole) == ([("2026-11-01T06:15", "ours")], False)


def test_what_differs_now_shows_until_both_have_had_three():
    old = OldCrontab(text="0 0 * * mon", tz="UTC", clock="fixed")
    rule = Recurrence.parse("0 0 * * mon#2")
    found = compare(rule, old, parse_rfc3339("2026-11-24T00:00:00Z"), None)
    assert shown(found.next_fires)[:3] == [
        ("2026-11-30T00:00", "old"), ("2026-12-07T00:00", "old"), ("2026-12-14T00:00", "both"),
    ]  # fmt: skip
    assert len(found.later) == MAX_DIFFERENCES + 1


def test_nothing_is_compared_beyond_the_end():
    old = OldCrontab(text="0 0 * * *", tz="UTC", clock="fixed")
    start, end = parse_rfc3339("2026-11-24T00:00:00Z"), parse_rfc3339("2026-11-26T00:00:00Z")
    found = compare(Recurrence.parse("0 0 * * *"), old, start, end)
    assert shown(found.next_fires) == [("2026-11-25T00:00", "both"), ("2026-11-26T00:00", "both")]


def test_without_an_old_side_ours_is_shown_and_a_failure_is_said():
    rule = Recurrence.parse("@every 90s")
    assert shown(compare(rule, None, UtcMs(0), None).next_fires)[0] == ("1970-01-01T00:01", "ours")
    broken = OldInstant(local=datetime.fromisoformat("2026-03-08T02:30"), tz=NEW_YORK)
    found = compare(rule, broken, UtcMs(0), None)
    assert "does not exist" in found.failure
    assert len(found.next_fires) == 3
