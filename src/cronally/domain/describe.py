"""A recurrence in plain English."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from cronally.domain import fields as f
from cronally.instants import format_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cronally.domain.crontab import CrontabFields, DayRule
    from cronally.domain.recurrence import Recurrence

MONTH_NAMES: Final = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
WEEKDAY_NAMES: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_EVERY_MINUTE: Final = f.MINUTE.full
_EVERY_HOUR: Final = f.HOUR.full
_MAX_TIMES: Final = 6  # clock times that are listed one by one
_WALL_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - local time is naive by nature


def describe(recurrence: Recurrence) -> str:
    """Return the rule in one sentence, without a full stop: ``At 09:00, Monday to Friday, Europe/London time``."""
    if recurrence.fields is not None:
        zone = "UTC" if recurrence.tz == "UTC" else f"{recurrence.tz} time"
        times = _times(recurrence.fields)
        dates = _dates(recurrence.fields)
        if not dates and times.startswith("At ") and recurrence.fields.hours != _EVERY_HOUR:
            dates = ["every day"]
        parts = [times, *dates, zone]
    elif recurrence.period_ms is not None:
        parts = [f"Every {duration(recurrence.period_ms)}"]
    else:
        assert recurrence.at_ms is not None
        parts = [f"Once, at {local_text(recurrence, recurrence.at_ms)}"]
    if recurrence.starts_ms is not None and recurrence.at_ms is None:
        parts.append(f"from {format_utc(recurrence.starts_ms)} on")
    return ", ".join(parts)


def local_text(recurrence: Recurrence, instant_ms: int) -> str:
    """Return an instant on the rule's wall clock: ``2026-12-24 18:00, Europe/London time``."""
    second, rest = divmod(instant_ms, 1000)
    local = _WALL_EPOCH + timedelta(seconds=second + recurrence.zone.offset_at(second))
    clock = (
        f"{local:%H:%M:%S}.{rest:03d}" if rest else f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"
    )
    zone = "UTC" if recurrence.tz == "UTC" else f"{recurrence.tz} time"
    return f"{local.date().isoformat()} {clock}, {zone}"


def duration(period_ms: int) -> str:
    """Return whole seconds in words: ``1 hour 30 minutes``; one of a unit is the bare unit, ``hour``."""
    rest = period_ms // 1000
    parts = []
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}{'s' * (count > 1)}")
    return parts[0].removeprefix("1 ") if len(parts) == 1 else " ".join(parts)


def members(values: int) -> list[int]:
    """Return the numbers in a bit set, in order."""
    return [value for value in range(values.bit_length()) if values >> value & 1]


def listed(items: Sequence[str], word: str = "and") -> str:
    """Join for reading: ``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {word} {items[-1]}"


def ordinal(number: int) -> str:
    """Return ``1st``, ``2nd``, ``11th``."""
    suffix = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def _runs(values: Iterable[int]) -> list[tuple[int, int]]:
    """Return the stretches of consecutive numbers; two neighbours stay two."""
    runs: list[tuple[int, int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], value)
        else:
            runs.append((value, value))
    return [
        part
        for low, high in runs
        for part in ([(low, high)] if high != low + 1 else [(low, low), (high, high)])
    ]


def _spans(values: Iterable[int], names: Sequence[str] | None = None) -> list[str]:
    def shown(value: int) -> str:
        return names[value] if names else str(value)

    return [shown(low) if low == high else f"{shown(low)} to {shown(high)}" for low, high in _runs(values)]


def _step(values: list[int], size: int) -> int | None:
    """Return n if *values* are 0, n, 2n … and divide *size* evenly, n > 1."""
    if len(values) < 2 or values[0] != 0:
        return None
    step = values[1]
    return step if size % step == 0 and values == list(range(0, size, step)) and step > 1 else None


def _times(fields: CrontabFields) -> str:
    minutes, hours, seconds = members(fields.minutes), members(fields.hours), members(fields.seconds)
    if seconds == [0]:
        return _minutes_of_day(fields, minutes, hours)
    if len(seconds) * len(minutes) * len(hours) <= _MAX_TIMES:
        times = [
            f"{hour:02d}:{minute:02d}:{second:02d}"
            for hour in hours
            for minute in minutes
            for second in seconds
        ]
        return f"At {listed(times)}"
    every = _step(seconds, 60)
    what = (
        "Every second"
        if len(seconds) == 60
        else f"Every {every} seconds"
        if every
        else f"At second{'s' * (len(seconds) > 1)} {listed(_spans(seconds))}"
    )
    if fields.minutes == _EVERY_MINUTE and fields.hours == _EVERY_HOUR:
        return what if len(seconds) == 60 or every else f"{what} of every minute"
    rest = _minutes_of_day(fields, minutes, hours)
    return f"{what} of each minute that begins {rest[0].lower()}{rest[1:]}"


def _minutes_of_day(fields: CrontabFields, minutes: list[int], hours: list[int]) -> str:
    is_every_hour = fields.hours == _EVERY_HOUR
    if len(minutes) * len(hours) <= _MAX_TIMES:
        return f"At {listed([f'{hour:02d}:{minute:02d}' for hour in hours for minute in minutes])}"
    step = _step(minutes, 60)
    if fields.minutes == _EVERY_MINUTE:
        what = "Every minute"
    elif step:
        what = f"Every {step} minutes"
    elif minutes == [0]:
        every = _step(hours, 24)
        if is_every_hour or every:
            return "Every hour, on the hour" if is_every_hour else f"Every {every} hours, on the hour"
        what = "Every hour, on the hour,"
    else:
        unit = "minute" if minutes == [1] else "minutes"
        what = f"At {listed(_spans(minutes))} {unit} past"
        if is_every_hour:
            return f"{what} every hour"
        every = _step(hours, 24)
        if every:
            return f"{what} every {ordinal(every)} hour from 0"
        return f"{what} the hours {listed(_spans(hours))}" if len(hours) > 1 else f"{what} hour {hours[0]}"
    if is_every_hour:
        return what
    stretches = [
        f"from {low:02d}:{minutes[0]:02d} to {high:02d}:{minutes[-1]:02d}" for low, high in _stretches(hours)
    ]
    return f"{what} {listed(stretches)}"


def _stretches(hours: list[int]) -> list[tuple[int, int]]:
    result: list[tuple[int, int]] = []
    for hour in hours:
        if result and hour == result[-1][1] + 1:
            result[-1] = (result[-1][0], hour)
        else:
            result.append((hour, hour))
    return result


def _dates(fields: CrontabFields) -> list[str]:
    parts = [days] if (days := _days(fields)) else []
    if fields.months != f.MONTH.full:
        months = listed(_spans([month - 1 for month in members(fields.months)], MONTH_NAMES))
        if parts and fields.weekdays == f.WEEKDAY.full and " to " not in months:
            parts = [parts[0].replace("of the month", f"of {months}")]
        if not parts or months not in parts[0]:
            parts.append(f"in {months}")
    if fields.years is not None:
        parts.append(f"in {listed(_spans(members(fields.years)))}")
    return parts


def _days(fields: CrontabFields) -> str:
    by_date = None if fields.days == f.DAY.full else _month_days(fields)
    by_weekday = None if fields.weekdays == f.WEEKDAY.full else _weekdays(fields)
    needs_both = fields.days_starred or fields.weekdays_starred
    if by_date and by_weekday:
        return (
            f"on days that are both {by_date} and {by_weekday}"
            if needs_both
            else f"on {by_date} or on {by_weekday}"
        )
    if not needs_both or not (by_date or by_weekday):
        return ""  # either field alone takes every day
    if by_date:
        return f"on {by_date}"
    return by_weekday if by_weekday and " to " in by_weekday and "," not in by_weekday else f"on {by_weekday}"


def _month_days(fields: CrontabFields) -> str:
    days = members(fields.days)
    if len(days) > 2 and len({high - low for low, high in pairwise(days)}) == 1 and days[1] - days[0] > 1:
        parts = [
            f"every {ordinal(days[1] - days[0])} day from the {ordinal(days[0])} to the {ordinal(days[-1])}"
        ]
    else:
        names = ["", *map(ordinal, range(1, 32))]
        parts = [f"the {span}" for span in _spans(days, names)]
    rules = [_rule(rule) for rule in fields.day_rules]
    return listed([*([f"{listed(parts)} of the month"] if parts else []), *rules])


def _weekdays(fields: CrontabFields) -> str:
    # Monday first, as weeks are read: saturday and sunday stay neighbours
    days = [(day - 1) % 7 for day in members(fields.weekdays)]
    names = [*WEEKDAY_NAMES[1:], WEEKDAY_NAMES[0]]
    return listed([*_spans(sorted(days), names), *(_rule(rule) for rule in fields.weekday_rules)])


def _rule(rule: DayRule) -> str:
    match rule.kind:
        case "last" if rule.a == 0:
            return "the last day of the month"
        case "last":
            return f"the day {rule.a} day{'s' * (rule.a > 1)} before the last of the month"
        case "last-workday":
            return "the last working day of the month"
        case "near":
            return f"the working day nearest to the {ordinal(rule.a)}"
        case "last-weekday":
            return f"the last {WEEKDAY_NAMES[rule.a]} of the month"
        case _:
            return f"the {ordinal(rule.b)} {WEEKDAY_NAMES[rule.a]} of the month"
