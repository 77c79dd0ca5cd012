"""What the unix grammar takes and refuses, and that each refusal alone tells what to type instead."""

from __future__ import annotations

import contextlib
import hashlib

import pytest

from cronally.domain import crontab, wall
from cronally.domain.crontab import name_hash
from cronally.domain.recurrence import Recurrence
from cronally.errors import WhenError
from support.work import count_calls


def sets(when: str, **options) -> tuple[list[int], ...]:
    fields = Recurrence.parse(when, **options).fields
    return tuple(
        [value for value in range(64) if bits >> value & 1]
        for bits in (fields.minutes, fields.hours, fields.days, fields.months, fields.weekdays)
    )


def same(one: str, other: str) -> bool:
    return Recurrence.parse(one) == Recurrence.parse(other)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("*", list(range(60))),
        ("7", [7]),
        ("007", [7]),
        ("0007", [7]),
        ("1-5", [1, 2, 3, 4, 5]),
        ("*/20", [0, 20, 40]),
        ("5-59/15", [5, 20, 35, 50]),
        ("1,3,5", [1, 3, 5]),
        ("1,1-3,*/30", [0, 1, 2, 3, 30]),
        ("1-1", [1]),
        ("1-1/5", [1]),
        ("3-3/1", [3]),  # cronsim reads this as 3-59
        ("*/59", [0, 59]),
        ("*/100", [0]),
        ("0-59/60", [0]),
        ("*,5", list(range(60))),
        ("5,*", list(range(60))),
    ],
)
def test_minutes(field, values):
    assert sets(f"{field} * * * *")[0] == values


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("0", [0]),
        ("7", [0]),
        ("0-7", list(range(7))),
        ("5-7", [0, 5, 6]),
        ("1-0", list(range(7))),
        ("5-0", [0, 5, 6]),
        ("FRI-SUN", [0, 5, 6]),
        ("sat-Sun", [0, 6]),
        ("SUN-TUE", [0, 1, 2]),
        ("7-tue", [0, 1, 2]),
        ("7-2", [0, 1, 2]),
        ("sun-sun", [0]),
        ("0-0", [0]),
        ("7-7", [0]),
        ("7-0", [0]),
        ("mon,Wed,FRI", [1, 3, 5]),
        ("MON-FRI", [1, 2, 3, 4, 5]),
        ("*/2", [0, 2, 4, 6]),
        ("*/7", [0]),
        ("0-7/7", [0]),
        ("1-7/3", [0, 1, 4]),
        ("mon-sun/2", [0, 1, 3, 5]),
    ],
)
def test_weekdays_count_sunday_as_0_and_7(field, values):
    assert sets(f"0 0 * * {field}")[4] == values


def test_names_of_months_in_any_case():
    assert sets("0 0 1 jan,MAR-May,12 *")[3] == [1, 3, 4, 5, 12]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0 0 * * 0", "00 00 * * 7"),
        ("0\t0\t*\t*\t*", "  0   0 * * *  "),
        ("0 0 ? * *", "0 0 * * *"),
        ("0 0 * * ?", "0 0 * * *"),
        ("0 0 ? * ?", "0 0 * * *"),
        ("0 0 l * *", "0 0 L * *"),
        ("0 0 lw,15w * *", "0 0 15W,LW * *"),
        ("0 0 * * friL", "0 0 * * 5L"),
        ("0 0 * * FRI#L", "0 0 * * 5l"),
        ("0 0 * * fri#2", "0 0 * * 5#2"),
        ("0 0 * * 7#1", "0 0 * * SUN#1"),
        ("0 0 * * 7L", "0 0 * * 0L"),
        ("0 0 1,L * *", "0 0 L,01 * *"),
        ("0 0 * jan-dec *", "0 0 * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("  @daily ", "@daily"),
        ("@every 1h30m", "@every 90m"),
        ("@every 1d", "@every 86400s"),
        ("@every  2d", "@every 48h"),
        ("@every 1d1h1m1s", "@every 90061s"),
    ],
)
def test_spellings_of_one_rule_are_equal_and_share_a_key(one, other):
    assert same(one, other)
    assert hash(Recurrence.parse(one)) == hash(Recurrence.parse(other))
    assert Recurrence.parse(one).when == one


# Text, field, column, and what the message must tell the user to write.
REFUSED = [
    # out of range
    ("60 * * * *", "minute", 1, "from 0 to 59"),
    ("* 24 * * *", "hour", 3, "midnight is 0"),
    ("* * 0 * *", "day-of-month", 5, "from 1 to 31"),
    ("* * 32 * *", "day-of-month", 5, "from 1 to 31"),
    ("* * * 0 *", "month", 7, "from 1 to 12"),
    ("* * * 13 *", "month", 7, "from 1 to 12"),
    ("0 0 * * 8", "day-of-week", 9, "Sunday is 0 or 7"),
    ("0 0 32W * *", "day-of-month", 5, "from 1 to 31"),
    ("0 0 * * 8L", "day-of-week", 9, "from 0 to 7"),
    ("0 0 1,2,99 * *", "day-of-month", 9, "from 1 to 31"),
    # ranges and steps
    ("0 22-2 * * *", "hour", 3, "write 22-23,0-2"),
    ("0 23-0 * * *", "hour", 3, "write 23,0"),
    ("50-10 * * * *", "minute", 1, "write 50-59,0-10"),
    ("50-10/7 * * * *", "minute", 1, "write 50,57,4"),
    ("0 0 25-5 * *", "day-of-month", 5, "write 25-31,1-5"),
    ("0 0 1 NOV-FEB *", "month", 7, "write NOV-DEC,JAN-FEB"),
    ("0 0 1 nov-feb *", "month", 7, "write nov-dec,jan-feb"),
    ("0 0 * * sat-mon", "day-of-week", 9, "write sat,sun,mon"),
    ("0 0 * * 6-1", "day-of-week", 9, "write 6,0,1"),
    ("0 0 * * wed-tue", "day-of-week", 9, "write wed-sat,sun-tue"),
    ("5/15 * * * *", "minute", 1, "write 5-59/15"),
    ("0 2/3 * * *", "hour", 3, "write 2-23/3"),
    ("59/15 * * * *", "minute", 1, "write 59:"),
    ("0 0 * * MON/2", "day-of-week", 9, "write MON-SAT/2"),
    ("*/0 * * * *", "minute", 1, "a step of 1 or more"),
    ("1-5/0 * * * *", "minute", 1, "'1-5/1'"),
    ("*/-1 * * * *", "minute", 1, "such as */2"),
    ("*/1.5 * * * *", "minute", 1, "write a whole number, such as */1"),
    ("*/ * * * *", "minute", 1, "write *, or a step such as */5"),
    ("/5 * * * *", "minute", 1, "write */5"),
    ("* /5 * * *", "hour", 3, "write */5"),
    ("** * * * *", "minute", 1, "write a single *"),
    ("*5 * * * *", "minute", 1, "write */5 for every 5, or 5 alone"),
    ("*-5 * * * *", "minute", 1, "write */5 for every 5, or 5 alone"),
    ("1- * * * *", "minute", 1, "write 1 alone"),
    ("-1 * * * *", "minute", 1, "write 1 alone"),
    ("1-2-3 * * * *", "minute", 1, "write 1-3 for the whole range, or 1,2,3"),
    ("1--3 * * * *", "minute", 1, "write 1-3"),
    # lists
    ("1,,2 * * * *", "minute", 3, "one comma between"),
    (",1 * * * *", "minute", 1, "one comma between"),
    ("1, * * * *", "minute", 3, "one comma between"),
    # numbers that are none
    ("00007 * * * *", "minute", 1, "at most 4 digits"),
    ("4294967297 * * * *", "minute", 1, "at most 4 digits"),
    ("+5 * * * *", "minute", 1, "write 5"),
    ("5.5 * * * *", "minute", 1, "write a whole number, such as 5"),
    ("0x5 * * * *", "minute", 1, "write values of 0-59"),
    ("1e1 * * * *", "minute", 1, "write values of 0-59"),
    ("1_0 * * * *", "minute", 1, "write 10"),
    ("٣ * * * *", "minute", 1, "write 3"),
    ("¹ * * * *", "minute", 1, "write 1"),
    ("0 ５ * * *", "hour", 3, "write 5"),
    # characters
    ("0\xa00 * * *", None, 2, "ordinary spaces"),
    ("0 0 * * *\u200b", "day-of-week", 10, "delete it"),
    ("0 0 * * *\n1 1 * * *", None, 10, "all on one line"),
    ("0 0 * *\0 *", "month", 8, "delete it"),
    ("0 0 * * * \u202e", None, 11, "delete it"),
    ("😀 * * * *", "minute", 1, "delete it"),
    ("0;0 * * * *", "minute", 1, "write values of 0-59"),
    ("$(id) * * * *", "minute", 1, "write values of 0-59"),
    ("%s * * * *", "minute", 1, "write values of 0-59"),
    # names
    ("0 0 * January *", "month", 7, "write jan"),
    ("0 0 * jan-Sept *", "month", 7, "write jan-sep"),
    ("0 0 * * Monday", "day-of-week", 9, "write mon"),
    ("0 0 * * thur", "day-of-week", 9, "write thu"),
    ("0 0 * foo *", "month", 7, "the names are jan feb"),
    ("0 0 * * mon-foo", "day-of-week", 9, "the names are sun mon"),
    ("0 0 * mon *", "month", 7, "the names are jan feb"),
    ("mon * * * *", "minute", 1, "write values of 0-59"),
    # day rules
    ("0 0 W15 * *", "day-of-month", 5, "write 15W"),
    ("0 0 L3 * *", "day-of-month", 5, "write L-3"),
    ("0 0 3L * *", "day-of-month", 5, "write L-3"),
    ("0 0 1-L * *", "day-of-month", 5, "write 1-31"),
    ("0 0 L-0 * *", "day-of-month", 5, "L-1 to L-30"),
    ("0 0 L-31 * *", "day-of-month", 5, "L-1 to L-30"),
    ("0 0 L-3W * *", "day-of-month", 5, "write LW"),
    ("0 0 W * *", "day-of-month", 5, "write LW"),
    ("0 0 1#2 * *", "day-of-month", 5, "write it in the day-of-week field"),
    ("0 0 * * L", "day-of-week", 9, "write friL"),
    ("0 0 * * L5", "day-of-week", 9, "write 5L"),
    ("0 0 * * L-fri", "day-of-week", 9, "write friL"),
    ("0 0 * * 15W", "day-of-week", 9, "in the day-of-month field"),
    ("0 0 * * mon-friL", "day-of-week", 9, "monL,tueL,wedL,thuL,friL"),
    ("0 0 * * mon-fri#1", "day-of-week", 9, "mon#1,tue#1,wed#1,thu#1,fri#1"),
    ("0 0 * * fri-monL", "day-of-week", 9, "each day by itself"),
    ("0 0 * * 1#0", "day-of-week", 9, "1 to 5 or L"),
    ("0 0 * * 1#6", "day-of-week", 9, "1 to 5 or L"),
    ("0 0 * * #2", "day-of-week", 9, "such as fri#2"),
    ("0 0 13 * +FRI", "day-of-week", 10, "write FRI; to need both"),
    ("? ? ? ? ?", "minute", 1, "write * here"),
    ("0 0 ?,1 * *", "day-of-month", 5, "write ? alone"),
    ("0 0 ?/2 * *", "day-of-month", 5, "write ? alone"),
    # choices by name or chance
    ("H H * * *", "minute", 1, "--name NAME"),
    ("0 H/15 * * *", "hour", 3, "--name NAME"),
    ("R * * * *", "minute", 1, "write H:"),
    ("R(0-10)/5 * * * *", "minute", 1, "write H(0-10)/5"),
    ("0~30 * * * *", "minute", 1, "write H(0-30)"),
    ("~ * * * *", "minute", 1, "write H(0-59)"),
    # the number of fields
    ("", None, None, "such as 0 9 * * 1-5"),
    ("   ", None, None, "such as 0 9 * * 1-5"),
    ("*", None, None, "write minute hour day-of-month month day-of-week"),
    ("0 0 * *", None, None, "write minute hour day-of-month month day-of-week"),
    ("0 0 * * * echo", None, 11, "such as 0 0 * * *"),
    ("0 0 * * 1 ; rm -rf /", None, 11, "such as 0 0 * * 1"),
    ("TZ=UTC 0 0 * * *", None, 1, "write 0 0 * * * and give the zone apart (--tz UTC"),
    ("CRON_TZ=Europe/Paris 0 0 * * *", None, 1, "--tz Europe/Paris"),
    ("# comment", None, 1, "write the rule alone"),
    # dates that never come
    ("0 0 30 2 *", "day-of-month", None, "a day up to 29"),
    ("0 0 31 4 *", "day-of-month", None, "a day up to 30"),
    ("0 0 31 2,4,6,9,11 *", "day-of-month", None, "a day up to 30"),
    ("0 0 31 4 */2", "day-of-month", None, "a day up to 30"),
    ("0 0 30W 2 *", "day-of-month", None, "widen"),
    ("0 0 */31 * mon#5", "day-of-month", None, "widen"),
    ("1 1 */100 * MON#4", "day-of-month", None, "widen"),
    ("0 0 L-30 2 *", "day-of-month", None, "widen"),
    # words
    ("@", None, 1, "write one of @yearly"),
    ("@DAILY", None, 1, "write @daily"),
    ("@Every 5m", None, 1, "write @every"),
    ("@dialy", None, 1, "write @daily"),
    ("@reboot", None, 1, "cronally run NAME"),
    ("@daily 5", None, 8, "write @daily alone"),
    ("@every_minute", None, 1, "write * * * * *"),
    ("@everyhour", None, 1, "@every 90s"),
    ("@every", None, 1, "90s, 5m, 1h30m or 2d"),
    ("@every 90", None, 8, "write the unit: 90s, 90m, 90h or 90d"),
    ("@every  5 m", None, 9, "write 5m"),
    ("@every 5M", None, 8, "write 5m"),
    ("@every 1.5h", None, 8, "write 1h30m"),
    ("@every 2w", None, 8, "write 14d"),
    ("@every 500ms", None, 8, "write 1s or more"),
    ("@every 0s", None, 8, "write 1s or more"),
    ("@every -5m", None, 8, "90s, 5m, 1h30m or 2d"),
    ("@at", None, 1, "2026-12-24T18:00"),
    ("@at tomorrow", None, 5, "2026-12-24T18:00"),
    ("@at 2026-12-24", None, 5, "write 2026-12-24T00:00"),
    ("@at 2026-12-24 18:00", None, 5, "write 2026-12-24T18:00"),
    ("@at 2026-02-30T18:00", None, 5, "a date and a time that exist"),
    ("@at 2026-12-24T25:00", None, 5, "a date and a time that exist"),
    ("@at 0001-01-01T00:00+14:00", None, 5, "years 1 to 9999"),
    # another dialect's words
    ("rate(5 minutes)", None, 1, "--dialect eventbridge"),
    ("at(2026-12-24T18:00:00)", None, 1, "--dialect eventbridge"),
    ("cron(0 9 ? * MON-FRI *)", None, 1, "--dialect eventbridge"),
    ("rate(5)", None, 1, "@every 5m"),
]


@pytest.mark.parametrize(
    ("when", "field", "column", "fix"), REFUSED, ids=[row[0] or "empty" for row in REFUSED]
)
def test_refused_with_the_place_and_the_right_spelling(when, field, column, fix):
    with pytest.raises(WhenError) as caught:
        Recurrence.parse(when)
    error = caught.value
    assert fix in str(error)
    assert (error.field, error.column) == (field, column)
    assert error.hint
    assert error.hint in str(error)
    assert "\n" not in str(error)
    assert str(error).isascii()


SPELLINGS = [
    ("0 22-2 * * *", "0 22-23,0-2 * * *"),
    ("50-10/7 * * * *", "50,57,4 * * * *"),
    ("0 0 1 NOV-FEB *", "0 0 1 NOV-DEC,JAN-FEB *"),
    ("0 0 * * sat-mon", "0 0 * * sat,sun,mon"),
    ("5/15 * * * *", "5-59/15 * * * *"),
    ("0 0 * * mon-friL", "0 0 * * monL,tueL,wedL,thuL,friL"),
    ("0 0 * * mon-fri#1", "0 0 * * mon#1,tue#1,wed#1,thu#1,fri#1"),
    ("0 0 W15 * *", "0 0 15W * *"),
    ("0 0 * * Monday", "0 0 * * mon"),
    ("@every 1.5h", "@every 1h30m"),
]


@pytest.mark.parametrize(("wrong", "right"), SPELLINGS)
def test_the_spelling_in_the_message_is_accepted(wrong, right):
    with pytest.raises(WhenError) as caught:
        Recurrence.parse(wrong)
    changed = next(new for old, new in zip(wrong.split(), right.split(), strict=True) if old != new)
    assert changed in caught.value.hint
    assert Recurrence.parse(right)


def test_a_rule_has_at_most_1000_characters():
    longest = "0 0 1 1 " + ",".join(["*"] * 496)
    assert len(longest) == 999
    assert same(longest + " ", "0 0 1 1 *")
    with pytest.raises(WhenError, match="at most 1,000") as caught:
        Recurrence.parse(longest + "  ")
    assert caught.value.column == 1001


@pytest.mark.parametrize(
    "minutes", [",".join(["1"] * 50_000), "1" * 100_000, "*" * 100_000, "\u0663" * 100_000]
)
def test_a_longer_text_is_refused_without_being_read(minutes):
    def parse() -> None:
        with pytest.raises(WhenError, match="at most 1,000"):
            Recurrence.parse(f"{minutes} * * * *")

    assert count_calls(parse) < 1_000


def test_a_long_item_is_cut_in_the_message():
    with pytest.raises(WhenError) as caught:
        Recurrence.parse("z" * 900 + " * * * *")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("when", "warning"),
    [
        ("*/100 * * * *", "*/100 is wider than the minute field: it means 0 alone"),
        ("0 5-9/30 * * *", "5-9/30 is wider than the hour field: it means 5 alone"),
        ("0 0 */2 * mon", "match both day fields"),
        ("0 0 1 * */2", "match both day fields"),
        ("0 0 */2 * */2", "match both day fields"),
    ],
)
def test_warnings(when, warning):
    (only,) = Recurrence.parse(when).warnings
    assert warning in only


@pytest.mark.parametrize(
    "when", ["*/15 * * * *", "0 0 * * mon", "0 0 13 * fri", "0 0 */2 * *", "0 0 *,5 * mon", "@daily"]
)
def test_no_warnings(when):
    assert Recurrence.parse(when).warnings == ()


# Vixie's rule: with a star at the beginning of either day field both must match, else one of them.
@pytest.mark.parametrize(
    ("when", "days_of_january_2027"),  # 2027-01-01 is a Friday
    [
        ("0 0 13 * fri", [1, 8, 13, 15, 22, 29]),
        ("0 0 */7 * fri", [1, 8, 15, 22, 29]),
        ("0 0 1-31/7 * sat", [1, 2, 8, 9, 15, 16, 22, 23, 29, 30]),
        ("0 0 13 * */5", []),  # a Wednesday; */5 is Sunday and Friday
        ("0 0 *,13 * fri", [1, 8, 15, 22, 29]),
        ("0 0 L * mon", [4, 11, 18, 25, 31]),
        ("0 0 ? * mon", [4, 11, 18, 25]),
        ("0 0 LW,L-30 * ?", [1, 29]),
        ("0 0 2W,3W,31W * *", [1, 4, 29]),  # Saturday 2, Sundays 3 and 31
        ("0 0 * * fri#5,sat#1", [2, 29]),
        ("0 0 * * sunL,fri#L", [29, 31]),
        ("0 0 29-31 * mon#1", [4, 29, 30, 31]),
    ],
)
def test_days(when, days_of_january_2027):
    january = 1_798_761_600_000
    slots = Recurrence.parse(when).between_ms(january - 1, january + 31 * 86_400_000 - 1)
    assert [(slot - january) // 86_400_000 + 1 for slot in slots] == days_of_january_2027


def test_the_nearest_working_day_stays_in_its_month():
    # 2027-05-01 is a Saturday, so the 3rd; 2027-02-28 is a Sunday, so the 26th.
    may = Recurrence.parse("0 0 1W 5 *").next_ms(1_798_761_600_000)
    february = Recurrence.parse("0 0 28W 2 *").next_ms(1_798_761_600_000)
    assert (may, february) == (1_809_302_400_000, 1_803_600_000_000)


def test_the_nearest_working_day_does_not_exist_in_a_month_without_that_day():
    year = Recurrence.parse("0 0 31W * *").count_ms(
        1_798_761_600_000 - 1, 1_798_761_600_000 + 365 * 86_400_000 - 1
    )
    assert year == 7


def test_a_fifth_friday_comes_in_some_months_only():
    # 2027: 29 January, 30 April, 30 July, 29 October, 31 December
    year = Recurrence.parse("0 0 * * fri#5").count_ms(
        1_798_761_600_000 - 1, 1_798_761_600_000 + 365 * 86_400_000 - 1
    )
    assert year == 5


def test_the_name_hash_is_the_first_8_bytes_of_sha_256():
    # printf nightly-report | sha256sum | cut -c 1-16
    assert name_hash("nightly-report") == 0x6743BA10A2B2C487
    assert name_hash("é") == int(hashlib.sha256("é".encode()).hexdigest()[:16], 16)


@pytest.mark.parametrize("name", ["nightly-report", "a", "Z.9_-", "b" * 80])
def test_h_chooses_by_the_name_within_the_field(name):
    number = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16)
    assert sets("H H H H H", name=name) == (
        [number % 60],
        [(number >> 8) % 24],
        [1 + (number >> 16) % 28],
        [1 + (number >> 24) % 12],
        [(number >> 32) % 7],
    )
    assert sets("H(10-19) H(0-2) * * *", name=name)[:2] == ([10 + number % 10], [(number >> 8) % 3])
    assert sets("H/15 * * * *", name=name)[0] == list(range(number % 15, 60, 15))
    assert sets("H(30-59)/10 * * * *", name=name)[0] == list(range(30 + number % 10, 60, 10))
    assert sets("H/100 * * * *", name=name)[0] == [number % 60]
    assert sets("h,30 * * * *", name=name)[0] == sorted({number % 60, 30})


def test_h_spreads_over_the_whole_day():
    times = {str(sets("H H * * *", name=f"job-{number}")[:2]) for number in range(3000)}
    assert len(times) > 1200  # of 1,440; a hash used twice unshifted would reach 120


def test_h_resolved_shares_the_key_of_the_numbers():
    minute = name_hash("nightly") % 60
    assert Recurrence.parse("H 3 * * *", name="nightly") == Recurrence.parse(f"{minute} 3 * * *")


@pytest.mark.parametrize(
    "when", ["H(9-3) * * * *", "H(0-60) * * * *", "H/0 * * * *", "H(a-b) * * * *", "H(3) * * * *"]
)
def test_h_refused(when):
    with pytest.raises(WhenError) as caught:
        Recurrence.parse(when, name="x")
    assert caught.value.field == "minute"


@pytest.mark.parametrize(
    ("when", "is_wild"),
    [
        ("* * * * *", True),
        ("*/5 9 * * *", True),
        ("0 * * * *", True),
        ("0 */2 * * *", True),
        ("*,5 3 * * *", True),
        ("@hourly", True),
        ("5,* 3 * * *", False),
        ("0-59 0-23 * * *", False),
        ("30 2 * * *", False),
        ("@daily", False),
        ("@every 1h", False),
        ("@at 2027-01-01T00:00", False),
    ],
)
def test_wild_is_a_star_at_the_beginning_of_minute_or_hour(when, is_wild):
    assert Recurrence.parse(when).is_wild is is_wild


@pytest.mark.parametrize(
    "text",
    [
        ",".join(["1-1/1"] * 165) + " * * * *",
        "*" * 1000,
        "1," * 498 + "1 * * * *",
        "-" * 992 + " * * * *",
        "1-" * 490 + " * * * *",
        "H(" * 490 + " * * * *",
        " " * 1000,
        "@every " + "1" * 990,
        "@every " + "1d" * 490,
        "@" + "d" * 990,
        "((" * 490,
        "cron(" * 190,
        "l" * 990 + " * * * *",
        "0 0 " + "L-" * 480 + " * *",
        "0 0 * * " + "fri#" * 240,
        "0 0 * * " + "mon-" * 240 + "friL",
        "\t" * 999 + "\u0663",
        "0~" * 490 + " * * * *",
        ",".join(f"{number % 50}-59/{number}" for number in range(1, 110)) + " * * * *",
        "0 0 " + ",".join(["15W"] * 240) + " * *",
        "0 0 "
        + ",".join(f"{day}W,L-{day}" for day in range(1, 31))
        + " * mon#1,tue#2,wed#3,thu#4,fri#5,satL",
        "0 0 * * " + ",".join(["Fri#2"] * 160),
        "0 0 29 2 " + "*/7," * 240 + "*/7",
    ],
    ids=lambda text: text[:12],
)
def test_a_thousand_hostile_characters_are_little_work(text):
    caches = (
        crontab._steps,
        wall._hours,
        wall._marks,
        wall._week_distances,
        wall._weekly_shapes,
        wall._month_shapes,
    )
    for cache in caches:
        cache.cache_clear()

    def parse() -> None:
        with contextlib.suppress(WhenError):
            Recurrence.parse(text)

    assert count_calls(parse) < 10 * len(text)
