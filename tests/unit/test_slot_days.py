"""The slots by which others are judged agree with those of the older oracle, and with what people would say."""

from __future__ import annotations

import pytest

from cronally.instants import UtcMs, format_utc, parse_rfc3339
from support.slot_days import slots_of
from support.slots_oracle import NaiveCrontab, slots

DAY = 86_400
CHANGES = (
    ("Europe/London", "2027-03-28T01:00:00Z"),
    ("Europe/London", "2027-10-31T01:00:00Z"),
    ("Australia/Lord_Howe", "2027-04-03T15:00:00Z"),
    ("Antarctica/Troll", "2027-03-28T01:00:00Z"),
    ("America/Havana", "2027-03-14T05:00:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),
    ("UTC", "2028-02-29T12:00:00Z"),
)
RULES = (
    *("*/7 * * * *", "30 1 * * *", "30 2 * * *", "0 0 * * *", "15 */2 * * *", "5-59/20 0-3,23 * * *"),
    *("0 12 L * *", "0 12 LW * *", "0 3 15W * *", "0 3 28-31 * *", "0 3 * * sun#5", "0 3 */2 * 7-tue"),
    *("0 3 * * sunL", "30 1 1,14 3 0"),
)


@pytest.mark.parametrize(("tz", "change"), CHANGES)
@pytest.mark.parametrize(
    ("on_gap", "on_repeat"), [("run", "first"), ("skip", "first"), ("run", "both"), ("skip", "both")]
)
def test_crontabs_have_the_slots_that_the_other_oracle_names(tz, change, on_gap, on_repeat):
    middle = parse_rfc3339(change) // 1000
    start, end = middle - DAY, middle + DAY
    for rule in RULES:
        document = {"when": rule, "tz": tz, "on_gap": on_gap, "on_repeat": on_repeat}
        found = slots_of(document, UtcMs(start * 1000), UtcMs(end * 1000))
        expected = slots(NaiveCrontab(rule), tz, start, end, on_gap=on_gap, on_repeat=on_repeat)
        assert found == [second * 1000 for second in expected], rule


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"when": "@hourly"}, ["10:00:00", "11:00:00"]),
        ({"when": "@every 45m"}, ["09:45:00", "10:30:00", "11:15:00"]),
        ({"when": "@every 45m", "starts": "2027-03-01T10:00:00Z"}, ["10:00:00", "10:45:00", "11:30:00"]),
        ({"when": "@at 2027-03-01T10:00", "tz": "Europe/London"}, ["10:00:00"]),
        (
            {"when": "*/40 0/30 10 ? * 2", "dialect": "quartz"},
            ["10:00:00", "10:00:40", "10:30:00", "10:30:40"],
        ),
        ({"when": "0 15 10 ? * 2#1 2027", "dialect": "quartz"}, ["10:15:00"]),
        ({"when": "0 15 10 ? * 2#1 2028", "dialect": "quartz"}, []),
        ({"when": "15 10 1 * ? *", "dialect": "eventbridge"}, ["10:15:00"]),
        ({"when": "rate(1 hour)", "dialect": "eventbridge"}, ["10:00:00", "11:00:00"]),
        ({"when": "at(2027-03-01T11:00:00)", "dialect": "eventbridge"}, ["11:00:00"]),
        ({"when": "10,50 * * * mon", "ends": "2027-03-01T11:00:00Z"}, ["09:50:00", "10:10:00", "10:50:00"]),
    ],
)
def test_other_forms_have_the_slots_that_people_expect(document, expected):
    found = slots_of(document, parse_rfc3339("2027-03-01T09:30:00Z"), parse_rfc3339("2027-03-01T11:40:00Z"))
    assert [format_utc(slot)[11:19] for slot in found] == expected


def test_a_hashed_rule_depends_on_the_name():
    day = parse_rfc3339("2027-03-01T00:00:00Z")
    first, second = (
        slots_of({"when": "H H * * *"}, day, UtcMs(day + 86_400_000), name=name) for name in ("a", "b")
    )
    assert len(first) == len(second) == 1
    assert first != second
