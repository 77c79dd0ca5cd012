"""Rules in words: sentences, remarks, and what the next changes of the clock do."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cronally.domain.describe import describe, duration, local_text, ordinal
from cronally.domain.dst import dst_changes, dst_note
from cronally.domain.lint import lint
from cronally.domain.recurrence import Recurrence
from cronally.domain.zones import FAR, Zone


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


NOW = ms("2026-01-01T00:00Z")

UNIX = [
    ("0 9 * * mon-fri", "At 09:00, Monday to Friday, UTC"),
    ("* * * * *", "Every minute, UTC"),
    ("*/5 * * * *", "Every 5 minutes, UTC"),
    ("0-59/15 * * * *", "Every 15 minutes, UTC"),
    ("*/7 * * * *", "At 0, 7, 14, 21, 28, 35, 42, 49 and 56 minutes past every hour, UTC"),
    ("*/15 9-17 * * 1-5", "Every 15 minutes from 09:00 to 17:45, Monday to Friday, UTC"),
    ("* 9-10,13 * * *", "Every minute from 09:00 to 10:59 and from 13:00 to 13:59, UTC"),
    ("0 * * * *", "Every hour, on the hour, UTC"),
    ("0 */2 * * *", "Every 2 hours, on the hour, UTC"),
    ("0 8-18 * * *", "Every hour, on the hour, from 08:00 to 18:00, UTC"),
    ("15 * * * *", "At 15 minutes past every hour, UTC"),
    ("1 * * * *", "At 1 minute past every hour, UTC"),
    ("15 */2 * * *", "At 15 minutes past every 2nd hour from 0, every day, UTC"),
    ("0 6,12,18 * * *", "At 06:00, 12:00 and 18:00, every day, UTC"),
    ("10 1,3,5,7,9,11,13 * * *", "At 10 minutes past the hours 1, 3, 5, 7, 9, 11 and 13, every day, UTC"),
    ("1-9 3-7 * 1,4 0", "At 1 to 9 minutes past the hours 3 to 7, on Sunday, in January and April, UTC"),
    ("1-9 3 * * *", "At 1 to 9 minutes past hour 3, every day, UTC"),
    ("@daily", "At 00:00, every day, UTC"),
    ("@yearly", "At 00:00, on the 1st of January, UTC"),
    ("0 0 1 */3 *", "At 00:00, on the 1st of January, April, July and October, UTC"),
    ("0 0 1 3-8 *", "At 00:00, on the 1st of the month, in March to August, UTC"),
    ("0 0 * 12 *", "At 00:00, in December, UTC"),
    ("0 0 1,15 * *", "At 00:00, on the 1st and the 15th of the month, UTC"),
    ("0 0 1-7 * *", "At 00:00, on the 1st to 7th of the month, UTC"),
    ("0 0 */2 * *", "At 00:00, on every 2nd day from the 1st to the 31st of the month, UTC"),
    ("0 0 L * *", "At 00:00, on the last day of the month, UTC"),
    ("0 0 L-1 * *", "At 00:00, on the day 1 day before the last of the month, UTC"),
    ("0 0 L-3 * *", "At 00:00, on the day 3 days before the last of the month, UTC"),
    ("0 0 15W,LW * *", "At 00:00, on the working day nearest to the 15th and the last working day of the month, UTC"),
    ("0 0 1,L * *", "At 00:00, on the 1st of the month and the last day of the month, UTC"),
    ("0 9 * * fri#2,friL", "At 09:00, on the 2nd Friday of the month and the last Friday of the month, UTC"),
    ("0 9 * * sat,sun", "At 09:00, on Saturday and Sunday, UTC"),
    ("0 9 * * fri-sun", "At 09:00, Friday to Sunday, UTC"),
    ("0 9 * * 1,3,5", "At 09:00, on Monday, Wednesday and Friday, UTC"),
    ("0 0 13 * fri", "At 00:00, on the 13th of the month or on Friday, UTC"),
    ("0 0 13 1 fri", "At 00:00, on the 13th of the month or on Friday, in January, UTC"),
    ("0 0 */13 * fri", "At 00:00, on days that are both every 13th day from the 1st to the 27th of the month and Friday, UTC"),
    ("0 0 1-31 * fri", "At 00:00, every day, UTC"),
    ("@every 90s", "Every 1 minute 30 seconds"),
    ("@every 1h", "Every hour"),
    ("@every 49h", "Every 2 days 1 hour"),
    ("@at 2026-12-24T18:00", "Once, at 2026-12-24 18:00, UTC"),
    ("@at 2026-12-24T18:00:05", "Once, at 2026-12-24 18:00:05, UTC"),
    ("@at 2026-12-24T18:00:05.250", "Once, at 2026-12-24 18:00:05.250, UTC"),
]  # fmt: skip

QUARTZ = [
    ("* * * ? * *", "Every second, UTC"),
    ("*/10 * * ? * *", "Every 10 seconds, UTC"),
    ("5/20 * * ? * *", "At seconds 5, 25 and 45 of every minute, UTC"),
    ("7 * * ? * *", "At second 7 of every minute, UTC"),
    ("0 0 9 ? * MON-FRI", "At 09:00, Monday to Friday, UTC"),
    ("15 30 9 ? * 2#1 2027-2030", "At 09:30:15, on the 1st Monday of the month, in 2027 to 2030, UTC"),
    ("* 0 9 ? * 7", "Every second of each minute that begins at 09:00, on Saturday, UTC"),
    ("*/5 */15 * ? * *", "Every 5 seconds of each minute that begins every 15 minutes, UTC"),
]


@pytest.mark.parametrize(("when", "sentence"), UNIX)
def test_unix_rules_in_words(when, sentence):
    assert Recurrence.parse(when).describe() == sentence


@pytest.mark.parametrize(("when", "sentence"), QUARTZ)
def test_quartz_rules_in_words(when, sentence):
    assert describe(Recurrence.parse(when, dialect="quartz")) == sentence


def test_the_zone_and_the_start_are_named():
    starts = datetime(2026, 6, 1, 12, tzinfo=UTC)
    assert (
        Recurrence.parse("0 9 * * *", tz="Europe/London").describe()
        == "At 09:00, every day, Europe/London time"
    )
    assert (
        Recurrence.parse("@at 2026-06-24T18:00", tz="Europe/London").describe()
        == "Once, at 2026-06-24 18:00, Europe/London time"
    )
    assert (
        Recurrence.parse("@every 1h", tz="Europe/London", starts=starts).describe()
        == "Every hour, from 2026-06-01T12:00:00Z on"
    )
    assert (
        local_text(Recurrence.parse("@daily", tz="Asia/Kolkata"), NOW)
        == "2026-01-01 05:30, Asia/Kolkata time"
    )


def test_equal_rules_have_one_description():
    assert Recurrence.parse("0 9 * * 1-5").describe() == Recurrence.parse("00 9 ? * MON-fri").describe()


def test_numbers_in_words():
    shown = [ordinal(number) for number in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 31)]
    assert shown == ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "31st"]
    assert duration(86_400_000) == "day"
    assert duration(90_061_000) == "1 day 1 hour 1 minute 1 second"


@pytest.mark.parametrize(
    ("when", "dialect", "expected"),
    [
        (
            "0 0 31 * *",
            "unix",
            [("missing-months", "never runs in February, April, June, September or November")],
        ),
        ("0 0 30 * *", "unix", [("missing-months", "never runs in February,")]),
        ("0 0 29 * *", "unix", [("missing-months", "in February in leap years only")]),
        ("0 0 31 2-4 *", "unix", [("missing-months", "never runs in February or April,")]),
        ("0 0 29 2 *", "unix", [("leap-day-only", "29 February alone")]),
        ("0 0 28 * *", "unix", []),
        ("0 0 L * *", "unix", []),
        ("0 0 1-31 * *", "unix", []),
        ("0 0 13 * fri", "unix", [("both-day-fields", "either of them")]),
        ("0 0 */2 * fri", "unix", [("uneven-step", "not always 2 days apart; @every 2d")]),
        ("0 0 * * */2", "unix", [("uneven-step", "from 6 to the next 0 it is 1, not 2; @every 2d")]),
        ("0 0 9 ? * 1/3", "quartz", [("uneven-step", "from 7 to the next 1 it is 1, not 3; @every 3d")]),
        ("*/1 */1 */1 */1 */1", "unix", []),
        ("0 0 */31 * */7", "unix", []),
        ("*/7 * * * *", "unix", [("uneven-step", "from 56 to the next 0 it is 4, not 7; @every 7m")]),
        ("0 */5 * * *", "unix", [("uneven-step", "from 20 to the next 0 it is 4, not 5; @every 5h")]),
        ("0 0 1 */5 *", "unix", [("uneven-step", "from 11 to the next 1 it is 2, not 5")]),
        ("*/15 */6 1 */4 *", "unix", []),
        ("*/100 * * * *", "unix", []),
        ("5-59/7 * * * *", "unix", []),
        ("*/45 0/7 * * * ?", "quartz", [("uneven-step", "@every 45s"), ("uneven-step", "@every 7m")]),
        ("cron(0/25 8 ? * MON *)", "eventbridge", [("uneven-step", "@every 25m")]),
        ("@daily", "unix", []),
        ("@every 7m", "unix", []),
        ("@at 2026-12-24T18:00", "unix", []),
    ],
)
def test_lint(when, dialect, expected):
    remarks = lint(Recurrence.parse(when, dialect=dialect), now_ms=NOW)
    assert [remark.code for remark in remarks] == [code for code, _ in expected]
    for remark, (_, part) in zip(remarks, expected, strict=True):
        assert part in remark.message


# New York: 2026-03-08 02:00 -> 03:00, 2026-11-01 02:00 -> 01:00
@pytest.mark.parametrize(
    ("when", "options", "messages"),
    [
        ("30 2 * * *", {}, ["02:30 does not exist on 2026-03-08 in America/New_York: the slot is at 03:00"]),
        ("30 2 * * *", {"on_gap": "skip"}, ["02:30 does not exist on 2026-03-08 in America/New_York: no slot"]),
        ("0 2,3 * * *", {}, ["02:00 does not exist on 2026-03-08 in America/New_York: merged with the slot at 03:00"]),
        ("0,30 2 * * *", {}, ["02:00 and 02:30 do not exist on 2026-03-08 in America/New_York: one slot at 03:00 for all of them"]),
        ("*/15 2 * * *", {}, ["02:00 to 02:45 (4 times) do not exist on 2026-03-08 in America/New_York: no slot"]),
        ("30 1 * * *", {}, ["01:30 comes twice on 2026-11-01 in America/New_York: a slot the first time only"]),
        ("30 1 * * *", {"on_repeat": "both"}, ["01:30 comes twice on 2026-11-01 in America/New_York: a slot each time"]),
        ("0,20,40 1 * * *", {}, ["01:00, 01:20 and 01:40 come twice on 2026-11-01 in America/New_York: a slot the first time only"]),
        ("0 9 * * *", {}, []),
        ("* * * * *", {}, []),
        ("30 2 * * mon", {}, []),
    ],
)  # fmt: skip
def test_lint_tells_what_a_dst_change_does(when, options, messages):
    remarks = lint(Recurrence.parse(when, tz="America/New_York", **options), now_ms=NOW, years=1)
    assert [(remark.code, remark.message) for remark in remarks] == [("dst", message) for message in messages]


def test_lint_looks_only_as_far_as_asked():
    rule = Recurrence.parse("30 2 * * *", tz="America/New_York")
    assert lint(rule, now_ms=NOW, years=0) == ()
    assert len(lint(rule, now_ms=ms("2020-01-01T00:00Z"), years=2)) == 2
    assert len(lint(rule, now_ms=ms("2010-01-01T00:00Z"), years=15)) == 6


def test_dst_changes_are_those_of_the_zone():
    rule = Recurrence.parse("30 2 * * *", tz="America/New_York")
    spring, autumn, _ = dst_changes(rule, NOW, 3)
    assert (spring.at_ms, autumn.at_ms) == (ms("2026-03-08T07:00Z"), ms("2026-11-01T06:00Z"))
    assert (spring.kind, spring.before_s, spring.after_s) == ("gap", -18_000, -14_400)
    assert (f"{spring.wall_from}", f"{spring.wall_to}") == ("2026-03-08 02:00:00", "2026-03-08 03:00:00")
    assert (spring.count, spring.effect) == (1, "moved")
    assert (autumn.kind, autumn.before_s, autumn.after_s) == ("repeat", -14_400, -18_000)
    assert (f"{autumn.wall_from}", f"{autumn.wall_to}") == ("2026-11-01 01:00:00", "2026-11-01 02:00:00")
    assert (autumn.count, autumn.effect) == (0, "none")
    assert (
        autumn.text
        == "01:00 to 02:00 comes twice on 2026-11-01 in America/New_York; the rule has no time there"
    )
    assert dst_changes(rule, spring.at_ms, 1) == (autumn,)


def test_changes_that_leave_the_wall_clock_as_it_is_are_not_told():
    # Back an hour and, before the clock has caught up, forward again by less: no local time is left out.
    rule = Recurrence.parse("0 9 * * *")
    zone = Zone("test", [-FAR, 10_000, 10_600, 20_000], [3600, 0, 600, 0])
    object.__setattr__(rule, "zone", zone)
    kinds = [(change.at_ms, change.kind) for change in dst_changes(rule, 0, 5)]
    assert kinds == [(10_000_000, "repeat"), (10_600_000, "repeat"), (20_000_000, "repeat")]
    exact = Zone("test", [-FAR, 10_000, 13_600], [3600, 0, 0])
    object.__setattr__(rule, "zone", exact)
    assert [change.at_ms for change in dst_changes(rule, 0, 5)] == [10_000_000]
    assert dst_note(rule, -5_000_000) is None


def test_a_zone_without_changes_has_none():
    assert dst_changes(Recurrence.parse("@daily"), NOW, 5) == ()
    assert dst_changes(Recurrence.parse("@daily", tz="Asia/Kolkata"), NOW, 5) == ()


def test_the_day_apia_lost():
    (change,) = dst_changes(Recurrence.parse("0 12 * * *", tz="Pacific/Apia"), ms("2011-12-01T00:00Z"), 1)
    assert (change.kind, change.effect, change.count) == ("gap", "moved", 1)
    (other,) = dst_changes(Recurrence.parse("@every 1h", tz="Pacific/Apia"), ms("2011-12-01T00:00Z"), 1)
    assert (other.effect, other.count) == ("none", 0)
    assert other.text.startswith("2011-12-30 00:00:00 to 2011-12-31 00:00:00 does not exist")


@pytest.mark.parametrize(
    ("when", "options", "slot", "effect", "text"),
    [
        ("30 2 * * *", {}, "2026-03-08T03:00-04:00", "moved", "02:30 does not exist"),
        ("0 2,3 * * *", {}, "2026-03-08T03:00-04:00", "merged", "merged with the slot at 03:00"),
        ("0,30 2 * * *", {}, "2026-03-08T03:00-04:00", "merged", "one slot at 03:00"),
        ("0 3 * * *", {}, "2026-03-08T03:00-04:00", None, None),
        ("* * * * *", {}, "2026-03-08T03:00-04:00", None, None),
        ("30 2 * * *", {}, "2026-03-09T02:30-04:00", None, None),
        ("30 1 * * *", {}, "2026-11-01T01:30-04:00", "once", "01:30 comes twice; this is the first"),
        ("30 1 * * *", {"on_repeat": "both"}, "2026-11-01T01:30-04:00", "repeated", "the first 01:30 of two"),
        ("30 1 * * *", {"on_repeat": "both"}, "2026-11-01T01:30-05:00", "repeated", "the second 01:30"),
        ("15 * * * *", {}, "2026-11-01T01:15-05:00", "repeated", "the second 01:15"),
        ("15 * * * *", {}, "2026-11-01T02:15-05:00", None, None),
        ("@every 1h", {}, "2026-11-01T01:00-05:00", None, None),
    ],
)
def test_a_slot_tells_what_moved_it(when, options, slot, effect, text):
    rule = Recurrence.parse(when, tz="America/New_York", **options)
    at = ms(slot)
    assert rule.next_ms(at - 1) == at
    note = dst_note(rule, at)
    if effect is None:
        assert note is None
    else:
        assert note is not None
        assert note.effect == effect
        assert text in note.text
