"""The public face of a recurrence: instants in and out, keys, starts, the ends of time."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from cronally.domain.recurrence import Recurrence
from cronally.errors import UsageError, WhenError, ZoneError
from cronally.instants import MAX_UTC_MS, MIN_UTC_MS
from support.work import count_calls

NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)
MINUTE = 60_000
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
ALL_KINDS = ["* * * * *", "0 9 * * 1-5", "0 0 29 2 *", "0 0 1 */2 *", "@every 90s", "@at 2027-01-01T12:00"]


def test_next_is_strictly_later_and_latest_strictly_earlier():
    rule = Recurrence.parse("0 * * * *")
    assert rule.next_after(NOON) == NOON + timedelta(hours=1)
    assert rule.next_after(NOON - timedelta(microseconds=1)) == NOON
    assert rule.latest_before(NOON) == NOON - timedelta(hours=1)
    assert rule.latest_before(NOON + timedelta(microseconds=1)) == NOON
    assert rule.next_ms(1_798_804_800_000 - 1) == rule.latest_ms(1_798_804_800_000 + 1) == 1_798_804_800_000


def test_ranges_exclude_their_start_and_include_their_end():
    for when in ("0 * * * *", "@every 1h"):
        rule = Recurrence.parse(when)
        two_hours = NOON + timedelta(hours=2)
        assert list(rule.between(NOON, two_hours)) == [NOON + timedelta(hours=1), two_hours]
        assert rule.count(NOON, two_hours) == 2
        assert rule.count(NOON - timedelta(microseconds=1), two_hours - timedelta(microseconds=1)) == 2
        assert list(rule.between(NOON - timedelta(microseconds=1), NOON)) == [NOON]
        assert rule.count(two_hours, NOON) == rule.count(NOON, NOON) == 0
        assert list(rule.between(two_hours, NOON)) == []


def test_answers_are_in_utc_whatever_the_zone_of_the_question():
    rule = Recurrence.parse("0 9 * * *", tz="Asia/Tokyo")
    asked = datetime(2027, 1, 1, 7, 0, tzinfo=timezone(timedelta(hours=9)))
    assert rule.next_after(asked) == datetime(2027, 1, 1, tzinfo=UTC)
    assert rule.next_after(asked).tzinfo is UTC
    repeated = datetime(2026, 11, 1, 1, 10, tzinfo=ZoneInfo("America/New_York"), fold=1)
    assert Recurrence.parse("20 * * * *").next_after(repeated) == datetime(2026, 11, 1, 6, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    "ask",
    [
        lambda rule, naive: rule.next_after(naive),
        lambda rule, naive: rule.latest_before(naive),
        lambda rule, naive: rule.between(naive, NOON),
        lambda rule, naive: rule.between(NOON, naive),
        lambda rule, naive: rule.count(naive, NOON),
        lambda rule, naive: Recurrence.parse("@daily", starts=naive),
    ],
)
def test_naive_datetimes_are_refused_at_once(ask):
    with pytest.raises(ValueError, match="2027-01-01T12:00:00 has no UTC offset"):
        ask(Recurrence.parse("@daily"), NOON.replace(tzinfo=None))


def test_errors_are_value_errors_and_usage_errors():
    for error in (WhenError, ZoneError):
        assert issubclass(error, ValueError)
        assert issubclass(error, UsageError)
    with pytest.raises(WhenError, match="write one of run, skip"):
        Recurrence.parse("@daily", on_gap="jump")
    with pytest.raises(WhenError, match="write one of first, both"):
        Recurrence.parse("@daily", on_repeat="last")


def test_it_remembers_what_was_written():
    rule = Recurrence.parse(" 0 9 * * MON-fri", tz="Europe/London", on_gap="skip", on_repeat="both")
    assert (rule.when, rule.tz, rule.dialect) == (" 0 9 * * MON-fri", "Europe/London", "unix")
    assert (rule.on_gap, rule.on_repeat) == ("skip", "both")
    assert rule.at_ms is None
    assert repr(rule) == "Recurrence(' 0 9 * * MON-fri', tz='Europe/London')"


def test_it_does_not_change():
    rule = Recurrence.parse("@daily")
    with pytest.raises(AttributeError, match="does not change"):
        rule.when = "@hourly"
    with pytest.raises(AttributeError, match="does not change"):
        del rule.when
    with pytest.raises(AttributeError):
        rule.other = 1


def test_a_copy_is_itself():
    rule = Recurrence.parse("@daily")
    assert copy.copy(rule) is rule
    assert copy.deepcopy({"rule": rule})["rule"] is rule


EQUAL = [
    (("0 9 * * 1-5", {}), ("0 9 * * mon-fri", {})),
    (("0 9 * * *", {}), ("0 9 1-31 * *", {})),
    (("0 9 1-31 * mon", {}), ("0 9 * * *", {})),  # either day field, and one takes all
    (("* * * * *", {"on_gap": "skip"}), ("* * * * *", {"on_repeat": "both"})),  # wild: nothing to choose
    (("@every 1m", {"tz": "Asia/Tokyo"}), ("@every 60s", {"tz": "UTC"})),
    (("@every 1m", {"starts": NOON}), ("@every 1m", {"starts": NOON})),
    (("@at 2027-01-01T12:00", {}), ("@at 2027-01-01T13:00+01:00", {"tz": "Asia/Tokyo"})),
    (("H 9 * * *", {"name": "a"}), ("H 9 * * *", {"name": "a"})),
]
DIFFERENT = [
    (("0 9 * * *", {}), ("1 9 * * *", {})),
    (("0 9 * * *", {}), ("0 9 * * *", {"tz": "Europe/London"})),
    (("0 9 * * *", {}), ("0 9 * * *", {"on_gap": "skip"})),
    (("0 9 * * *", {}), ("0 9 * * *", {"on_repeat": "both"})),
    (("0 9 * * *", {}), ("0 9 * * *", {"starts": NOON})),
    (("0-59 0-23 * * *", {}), ("* * * * *", {})),  # fixed and wild
    (("0 9 * * 1", {}), ("0 9 * * 1#1", {})),
    (("0 9 13 * 5", {}), ("0 9 */13 * 5", {})),
    (("@every 1m", {}), ("* * * * *", {})),
    (("@every 1m", {}), ("@every 2m", {})),
    (("@every 1m", {}), ("@every 1m", {"starts": NOON})),
    (("@every 1h", {"starts": NOON}), ("@every 1h", {"starts": NOON + timedelta(minutes=1)})),
    (("@every 1h", {"starts": NOON}), ("@every 1h", {"starts": NOON + timedelta(hours=1)})),
    (("H 9 * * *", {"name": "a"}), ("H 9 * * *", {"name": "b"})),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_rules_share_a_key(one, other):
    first, second = (Recurrence.parse(when, **options) for when, options in (one, other))
    assert first == second
    assert first.key == second.key
    assert len({first, second}) == 1
    assert first.next_after(NOON) == second.next_after(NOON)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_rules_have_different_keys(one, other):
    first, second = (Recurrence.parse(when, **options) for when, options in (one, other))
    assert first != second
    assert len({first.key, second.key}) == 2


def test_it_equals_nothing_else():
    assert Recurrence.parse("@daily") != "@daily"


def test_every_counts_from_the_epoch():
    rule = Recurrence.parse("@every 7m")
    assert rule.next_ms(0) == 7 * MINUTE
    assert rule.next_ms(-1) == 0
    assert rule.latest_ms(0) == -7 * MINUTE
    assert rule.next_ms(7 * MINUTE) == 14 * MINUTE
    assert rule.count_ms(0, 70 * MINUTE) == 10
    assert list(rule.between_ms(0, 15 * MINUTE)) == [7 * MINUTE, 14 * MINUTE]


def test_every_counts_from_starts_and_begins_with_it():
    rule = Recurrence.parse("@every 7m", starts=NOON + timedelta(seconds=3))
    assert rule.next_after(FIRST) == NOON + timedelta(seconds=3)
    assert rule.next_after(NOON + timedelta(seconds=3)) == NOON + timedelta(minutes=7, seconds=3)
    assert rule.latest_before(NOON + timedelta(seconds=3)) is None
    assert rule.latest_before(NOON + timedelta(seconds=4)) == NOON + timedelta(seconds=3)
    assert rule.count(FIRST, NOON + timedelta(hours=1)) == 9


@pytest.mark.parametrize("when", ["0 * * * *", "@at 2027-01-01T12:00", "@every 1h"])
def test_no_slot_lies_before_starts_and_one_may_lie_on_it(when):
    on_it = Recurrence.parse(when, starts=NOON)
    assert on_it.next_after(FIRST) == NOON
    assert on_it.count(FIRST, NOON) == 1
    assert on_it.latest_before(NOON) is None
    assert on_it.latest_before(NOON + timedelta(minutes=1)) == NOON


def test_starts_between_two_slots():
    rule = Recurrence.parse("0 * * * *", starts=NOON + timedelta(microseconds=1))
    assert rule.next_after(FIRST) == NOON + timedelta(hours=1)
    assert rule.latest_before(NOON + timedelta(minutes=30)) is None
    assert rule.count(FIRST, NOON + timedelta(hours=2)) == 2
    over = Recurrence.parse("@at 2027-01-01T12:00", starts=NOON + timedelta(days=1))
    assert over.next_after(FIRST) is None
    assert over.latest_before(LAST) is None


@pytest.mark.parametrize("when", ALL_KINDS)
@pytest.mark.parametrize("tz", ["UTC", "America/New_York", "Pacific/Kiritimati", "Etc/GMT+12"])
def test_the_ends_of_time(when, tz):
    rule = Recurrence.parse(when, tz=tz)
    for far in (MIN_UTC_MS, MIN_UTC_MS - 1, -(10**18), -(10**30)):
        assert rule.next_ms(far) is not None
        assert rule.latest_ms(far) is None
        assert rule.next_ms(far) >= MIN_UTC_MS
    for far in (MAX_UTC_MS + 1, 10**18, 10**30):
        assert rule.next_ms(far) is None
        assert rule.latest_ms(far) <= MAX_UTC_MS
    assert rule.next_after(FIRST) is not None
    assert rule.next_after(LAST) is None
    assert rule.latest_before(FIRST) is None
    assert rule.latest_before(LAST) is not None
    for year in (1, 2, 1000, 1900, 1969, 2200, 2201, 9998, 9999):
        at = datetime(year, 6, 1, 3, tzinfo=UTC)
        later = at + timedelta(hours=50)
        assert rule.count(at, later) == len(list(rule.between(at, later)))
        assert rule.latest_before(later) is None or rule.latest_before(later) < later


def test_the_whole_range_can_be_counted():
    assert (
        Recurrence.parse("@daily").count_ms(-(10**30), 10**30) == 3_652_057
    )  # the years 1 to 9999 but two days
    assert Recurrence.parse("0 0 1 * *").count_ms(-(10**30), 10**30) == 12 * 9999 - 1
    assert Recurrence.parse("@every 1d").count_ms(-(10**30), 10**30) == 3_652_059


@pytest.mark.parametrize(
    ("when", "after", "expected"),
    [
        ("0 0 * 2 mon#5", "2026-01-01", ["2044-02-29", "2072-02-29", "2112-02-29"]),
        ("0 0 29 2 */7", "2030-01-01", ["2032-02-29", "2060-02-29", "2088-02-29", "2128-02-29"]),
        ("0 0 29 2 *", "2096-03-01", ["2104-02-29", "2108-02-29"]),
        ("0 0 1 1 *", "2026-01-01", ["2027-01-01", "2028-01-01"]),
    ],
)
def test_rare_dates(when, after, expected):
    rule = Recurrence.parse(when)
    start = datetime.fromisoformat(after).replace(tzinfo=UTC)
    slots = list(rule.between(start, datetime.fromisoformat(expected[-1]).replace(tzinfo=UTC)))
    assert [f"{slot:%Y-%m-%d}" for slot in slots] == expected
    assert rule.count(start, slots[-1]) == len(expected)
    assert rule.latest_before(slots[-1]) == slots[-2]


def test_counting_is_closed_form():
    now, week, year = 1_798_804_800_000, 7 * 86_400_000, 366 * 86_400_000
    every_second = Recurrence.parse("@every 1s")
    assert every_second.count_ms(now, now + week) == 604_800
    assert count_calls(lambda: every_second.count_ms(now, now + week)) < 20
    for when in ("* * * * *", "0 9 * * 1-5", "30 2 1,15 * *", "0 0 LW * fri#2"):
        rule = Recurrence.parse(when, tz="America/New_York")
        assert count_calls(lambda: rule.count_ms(now, now + year)) < 400, when  # noqa: B023 - called at once


@pytest.mark.parametrize(
    "when", ["0 0 29 2 mon#5", "0 0 29 2 */7", "0 0 * 2 mon#5", "0 0 31 12 *", "0 0 */29 2 */6"]
)
def test_the_rarest_step_is_a_short_search(when):
    rule = Recurrence.parse(when, tz="America/New_York")
    for year in (1970, 2026, 2096, 2150):
        at = int(datetime(year, 3, 1, tzinfo=UTC).timestamp() * 1000)
        assert count_calls(lambda: rule.next_ms(at)) < 400  # noqa: B023 - called at once
        assert count_calls(lambda: rule.latest_ms(at)) < 400  # noqa: B023
