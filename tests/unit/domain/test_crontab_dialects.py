"""Quartz and EventBridge, and the six or seven fields that could be either."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cronally.domain.recurrence import Recurrence
from cronally.errors import WhenError

START = datetime(2027, 1, 1, tzinfo=UTC)  # a Friday


def first(when: str, count: int = 3, **options) -> list[str]:
    rule, at, found = Recurrence.parse(when, **options), START, []
    while len(found) < count and (at := rule.next_after(at)) is not None:
        found.append(f"{at:%Y-%m-%d %H:%M:%S}")
    return found


@pytest.mark.parametrize(
    ("when", "slots"),
    [
        # Sunday is 1, so MON is 2
        ("0 0 9 ? * 2", ["2027-01-04 09:00:00", "2027-01-11 09:00:00"]),
        ("0 0 9 ? * MON", ["2027-01-04 09:00:00", "2027-01-11 09:00:00"]),
        ("0 0 9 ? * 1", ["2027-01-03 09:00:00", "2027-01-10 09:00:00"]),
        ("0 0 9 ? * 7", ["2027-01-02 09:00:00", "2027-01-09 09:00:00"]),
        ("0 0 9 ? * L", ["2027-01-02 09:00:00", "2027-01-09 09:00:00"]),
        ("0 0 9 ? * MON-FRI", ["2027-01-01 09:00:00", "2027-01-04 09:00:00"]),
        ("0 0 9 ? * SUN-TUE", ["2027-01-03 09:00:00", "2027-01-04 09:00:00"]),
        ("0 0 9 ? * 6L", ["2027-01-29 09:00:00", "2027-02-26 09:00:00"]),
        ("0 0 9 ? * FRI#3", ["2027-01-15 09:00:00", "2027-02-19 09:00:00"]),
        ("0 0 9 ? * 6#3", ["2027-01-15 09:00:00", "2027-02-19 09:00:00"]),
        ("0 0 9 L * ?", ["2027-01-31 09:00:00", "2027-02-28 09:00:00"]),
        ("0 0 9 LW * ?", ["2027-01-29 09:00:00", "2027-02-26 09:00:00"]),
        # seconds first
        ("30 15 9 * * ?", ["2027-01-01 09:15:30", "2027-01-02 09:15:30"]),
        (
            "*/20 0 9 * * ?",
            ["2027-01-01 09:00:00", "2027-01-01 09:00:20", "2027-01-01 09:00:40", "2027-01-02 09:00:00"],
        ),
        ("* * * * * ?", ["2027-01-01 00:00:01", "2027-01-01 00:00:02"]),
        # a/n is a-max/n
        (
            "0 5/20 9 * * ?",
            ["2027-01-01 09:05:00", "2027-01-01 09:25:00", "2027-01-01 09:45:00", "2027-01-02 09:05:00"],
        ),
        ("0 0 20/2 * * ?", ["2027-01-01 20:00:00", "2027-01-01 22:00:00", "2027-01-02 20:00:00"]),
        (
            "0 0 9 29/1 * ?",
            ["2027-01-29 09:00:00", "2027-01-30 09:00:00", "2027-01-31 09:00:00", "2027-03-29 09:00:00"],
        ),
        ("0 0 9 ? * 2/2", ["2027-01-01 09:00:00", "2027-01-04 09:00:00", "2027-01-06 09:00:00"]),
        # years, last
        ("0 0 0 1 1 ? 2029,2031", ["2029-01-01 00:00:00", "2031-01-01 00:00:00"]),
        ("0 0 0 1 1 ? 2028/50", ["2028-01-01 00:00:00", "2078-01-01 00:00:00", "2128-01-01 00:00:00"]),
        ("0 0 0 29 2 ? 2027-2030", ["2028-02-29 00:00:00"]),
        ("0 0 0 1 1 ? 2020", []),
    ],
)
def test_quartz(when, slots):
    assert first(when, max(len(slots), 1), dialect="quartz") == slots


@pytest.mark.parametrize(
    ("when", "slots"),
    [
        ("0 9 ? * MON-FRI *", ["2027-01-01 09:00:00", "2027-01-04 09:00:00"]),
        ("cron(0 9 ? * MON-FRI *)", ["2027-01-01 09:00:00", "2027-01-04 09:00:00"]),
        (" cron( 0 9 ? * 2-6 * ) ", ["2027-01-01 09:00:00", "2027-01-04 09:00:00"]),
        ("0/30 9 1 * ? 2028", ["2028-01-01 09:00:00", "2028-01-01 09:30:00", "2028-02-01 09:00:00"]),
        ("15 12 ? 2/6 SUN#2 *", ["2027-02-14 12:15:00", "2027-08-08 12:15:00"]),
        ("0 10 3W * ? *", ["2027-01-04 10:00:00", "2027-02-03 10:00:00"]),
        ("0 10 L * ? 2199", ["2199-01-31 10:00:00", "2199-02-28 10:00:00"]),
        ("rate(5 minutes)", ["2027-01-01 00:05:00", "2027-01-01 00:10:00"]),
        ("rate(1 hour)", ["2027-01-01 01:00:00", "2027-01-01 02:00:00"]),
        ("rate(2 days)", ["2027-01-02 00:00:00", "2027-01-04 00:00:00"]),  # even days since 1970
        ("at(2027-11-20T13:00:00)", ["2027-11-20 13:00:00"]),
        ("@every 90s", ["2027-01-01 00:01:30", "2027-01-01 00:03:00"]),
        ("@daily", ["2027-01-02 00:00:00", "2027-01-03 00:00:00"]),
    ],
)
def test_eventbridge(when, slots):
    assert first(when, len(slots), dialect="eventbridge") == slots


@pytest.mark.parametrize(
    ("when", "before", "newest"),
    [
        ("0 0 0 1 1 ? 2029,2031", "2040-01-01", "2031-01-01"),
        ("0 0 0 1 1 ? 2029,2031", "2031-01-01", "2029-01-01"),
        ("0 0 0 1 1 ? 2029,2031", "2029-01-01", None),
        ("0 0 0 29 2 ? 2027-2030", "2199-01-01", "2028-02-29"),
        ("0 0 0 31 12 ? 1970/2", "2027-06-01", "2026-12-31"),
    ],
)
def test_the_way_back_over_years(when, before, newest):
    rule = Recurrence.parse(when, dialect="quartz")
    found = rule.latest_before(datetime.fromisoformat(before).replace(tzinfo=UTC))
    assert (found and f"{found:%Y-%m-%d}") == newest


def test_rate_is_every_and_at_is_at():
    def parse(when: str, dialect: str) -> Recurrence:
        return Recurrence.parse(when, dialect=dialect, tz="Europe/Paris")

    assert parse("rate(5 minutes)", "eventbridge") == parse("@every 5m", "unix")
    assert parse("at(2027-11-20T13:00:00)", "eventbridge") == parse("@at 2027-11-20T13:00", "unix")
    assert parse("0 0 9 ? * 2-6", "quartz") == parse("0 9 * * 1-5", "unix")
    assert parse("0 9 ? * MON-FRI *", "eventbridge") == parse("0 9 * * 1-5", "unix")
    assert parse("0 9 ? * MON-FRI 1970-2199", "eventbridge") == parse("0 9 * * 1-5", "unix")


@pytest.mark.parametrize(
    ("dialect", "when", "is_wild"),
    [
        ("quartz", "* 30 2 * * ?", False),
        ("quartz", "0 * 2 * * ?", True),
        ("quartz", "0 0/15 2 * * ?", False),
        ("quartz", "0 30 * * * ?", True),
        ("eventbridge", "30 2 * * ? *", False),
        ("eventbridge", "*/5 2 * * ? *", True),
    ],
)
def test_wild_and_fixed_are_judged_by_minute_and_hour(dialect, when, is_wild):
    assert Recurrence.parse(when, dialect=dialect).is_wild is is_wild


@pytest.mark.parametrize(
    ("dialect", "when", "field", "column", "fix"),
    [
        ("quartz", "0 0 9 * * MON-FRI", "day-of-month", 7, "write 0 0 9 ? * MON-FRI"),
        ("quartz", "0 0 9 1 * *", "day-of-week", 11, "write 0 0 9 1 * ?"),
        ("quartz", "0 0 9 * * *", "day-of-week", 11, "write 0 0 9 * * ?"),
        ("quartz", "0 0 9 ? * ?", "day-of-week", 11, "write 0 0 9 * * ?"),
        ("quartz", "0 0 9 1 * MON", "day-of-week", 11, "write 0 0 9 1 * ?"),
        ("eventbridge", "cron(0 9 * * 2-6 *)", "day-of-month", 10, "write 0 9 ? * 2-6 *"),
        ("quartz", "0 0 9 ? * 0", "day-of-week", 11, "counts from Sunday = 1"),
        ("quartz", "0 0 9 ? * FRI-SUN", "day-of-week", 11, "write FRI,SAT,SUN"),
        ("quartz", "0 0 22-2 * * ?", "hour", 5, "write 22-23,0-2"),
        ("quartz", "60 0 0 * * ?", "second", 1, "from 0 to 59"),
        ("quartz", "0 0 0 1 1 ? 2300", "year", 13, "from 1970 to 2199"),
        ("quartz", "0 0 0 1 1 ? 1969", "year", 13, "from 1970 to 2199"),
        ("quartz", "0 0 9 29 2 ? 2027", "day-of-month", None, "or year"),
        ("quartz", "0 9 * * 1-5", None, None, "second minute hour day-of-month month day-of-week [year]"),
        ("quartz", "0 0 9 ? * 2 2027 x", None, 18, "[year]"),
        ("quartz", "rate(5 minutes)", None, 1, "--dialect eventbridge"),
        ("eventbridge", "0 9 * * ?", None, None, "day-of-week year, such as 0 9 ? * MON-FRI *"),
        ("eventbridge", "rate(5 seconds)", None, 6, "@every 90s"),
        ("eventbridge", "rate( 0 minutes)", None, 7, "write 1s or more"),
        ("eventbridge", "at(2027-11-20)", None, 4, "write 2027-11-20T00:00"),
        ("eventbridge", "cron(0 9 ? * 2-9 *)", "day-of-week", 14, "from 1 to 7"),
        ("eventbridge", "cron()", None, None, "such as 0 9 ? * MON-FRI *"),
        ("bogus", "0 9 * * *", None, None, "write one of unix, quartz, eventbridge"),
    ],
)
def test_refused(dialect, when, field, column, fix):
    with pytest.raises(WhenError) as caught:
        Recurrence.parse(when, dialect=dialect)
    assert fix in str(caught.value)
    assert (caught.value.field, caught.value.column) == (field, column)


def test_six_fields_print_both_readings_and_name_the_dialects():
    with pytest.raises(WhenError) as caught:
        Recurrence.parse("0 30 9 * * MON-FRI")
    text = str(caught.value)
    quartz = "second=0 minute=30 hour=9 day-of-month=* month=* day-of-week=MON-FRI (--dialect quartz)"
    eventbridge = "minute=0 hour=30 day-of-month=9 month=* day-of-week=* year=MON-FRI (--dialect eventbridge)"
    assert quartz in text
    assert eventbridge in text
    assert "30 9 * * MON-FRI if the first is the second" in text
    assert "0 30 9 * * if the last is the year" in text
    assert caught.value.column == 12


def test_seven_fields_are_quartz():
    with pytest.raises(WhenError) as caught:
        Recurrence.parse("0 30 9 1 1 ? 2030")
    text = str(caught.value)
    assert (
        "second=0 minute=30 hour=9 day-of-month=1 month=1 day-of-week=? year=2030 (--dialect quartz)" in text
    )
    assert "--dialect eventbridge" in text
    assert "write five fields: 30 9 1 1 ?" in text


def test_warnings_in_other_dialects():
    (only,) = Recurrence.parse("0 0/90 9 * * ?", dialect="quartz").warnings
    assert "0/90 is wider than the minute field: it means 0 alone" in only
    assert Recurrence.parse("0 0 9 ? * 2-6", dialect="quartz").warnings == ()
