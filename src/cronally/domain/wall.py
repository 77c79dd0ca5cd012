"""The wall-clock times that a crontab matches: arithmetic on local seconds, without zones.

Local seconds count from 1970-01-01T00:00 on the wall clock; days count from that date. All answers lie in the years
1 to 9999, less one day at either end so that every zone can express them in UTC.
"""

from __future__ import annotations

from bisect import bisect_left
from calendar import isleap
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cronally.domain.crontab import CrontabFields, DayRule

_EPOCH: Final = date(1970, 1, 1).toordinal()
FIRST_DAY: Final = date(1, 1, 2).toordinal() - _EPOCH
LAST_DAY: Final = date(9999, 12, 30).toordinal() - _EPOCH
_DAY: Final = 86_400
_MONTH_LENGTHS: Final = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_EVERY_MONTH: Final = 0b1_1111_1111_1110
_SECONDS: Final = tuple(range(3600))  # of an hour: one object for each, whoever counts them
_WEEKS: Final = sum(1 << 7 * week for week in range(6))  # copies seven bits into every week of a month


class WallTimes:
    """The local seconds at which the fields of a crontab match. Immutable."""

    __slots__ = ("_ahead", "_back", "_before", "_hours", "_marks", "_months", "_per_day", "_shapes", "_years")

    def __init__(self, fields: CrontabFields) -> None:
        """Compile *fields*; parts that other crontabs share are shared."""
        self._hours, self._before = _hours(fields.hours)
        self._marks = _marks(fields.minutes, fields.seconds)
        self._per_day = len(self._hours) * len(self._marks)
        self._months = fields.months
        self._years = fields.years
        self._shapes = _shapes_of(fields)
        weekdays = self._shapes[0] & 0x7F  # the shape of a 28-day month that begins on a Sunday
        is_weekly = (
            self._months == _EVERY_MONTH and self._years is None and self._shapes == _weekly_shapes(weekdays)
        )
        self._ahead: tuple[int, ...] | None = None
        self._back: tuple[int, ...] | None = None
        if is_weekly:  # then no month needs to be looked at
            self._ahead, self._back = _week_distances(weekdays)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for two crontabs only if they match the same local times."""
        return self._hours, self._marks, self._months, self._shapes, self._years

    def first_from(self, local: int) -> int | None:
        """Return the first match at or after *local*, or None."""
        day, second = divmod(local, _DAY)
        found = self._day_from(day)
        if found == day:
            hour, rest = divmod(second, 3600)
            hours, marks = self._hours, self._marks
            index = self._before[hour]
            if index < len(hours):
                if hours[index] == hour:
                    place = bisect_left(marks, rest)
                    if place < len(marks):
                        return day * _DAY + hour * 3600 + marks[place]
                    index += 1
                if index < len(hours):
                    return day * _DAY + hours[index] * 3600 + marks[0]
            found = self._day_from(day + 1)
        if found is None:
            return None
        return found * _DAY + self._hours[0] * 3600 + self._marks[0]

    def last_before(self, local: int) -> int | None:
        """Return the last match earlier than *local*, or None."""
        day, second = divmod(local, _DAY)
        found = self._day_to(day)
        if found == day:
            hour, rest = divmod(second, 3600)
            hours, marks = self._hours, self._marks
            index = self._before[hour]
            if index < len(hours) and hours[index] == hour:
                place = bisect_left(marks, rest)
                if place:
                    return day * _DAY + hour * 3600 + marks[place - 1]
            if index:
                return day * _DAY + hours[index - 1] * 3600 + marks[-1]
            found = self._day_to(day - 1)
        if found is None:
            return None
        return found * _DAY + self._hours[-1] * 3600 + self._marks[-1]

    def count(self, start: int, end: int) -> int:
        """Return how many matches lie in *start* <= match < *end*."""
        if end <= start:
            return 0
        first_day, second = divmod(start, _DAY)
        last_day, end_second = divmod(end, _DAY)
        total = self._days_between(first_day, last_day) * self._per_day
        if self._day_from(last_day) == last_day:
            total += self._count_to(end_second)
        if self._day_from(first_day) == first_day:
            total -= self._count_to(second)
        return total

    def _count_to(self, second: int) -> int:
        hour, rest = divmod(second, 3600)
        index = self._before[hour]
        total = index * len(self._marks)
        if index < len(self._hours) and self._hours[index] == hour:
            total += bisect_left(self._marks, rest)
        return total

    def _day_from(self, day: int) -> int | None:
        """Return the first matching day at or after *day*."""
        if not FIRST_DAY <= day <= LAST_DAY:
            if day > LAST_DAY:
                return None
            day = FIRST_DAY
        if self._ahead is not None:
            found = day + self._ahead[day % 7]
            return found if found <= LAST_DAY else None
        at = date.fromordinal(day + _EPOCH)
        year, month = at.year, at.month
        first = day - at.day + 1
        mask = self._mask(year, month, first) >> (day - first)
        if mask:
            found = day + (mask & -mask).bit_length() - 1
            return found if found <= LAST_DAY else None
        months = self._months >> month + 1
        while True:
            if months:
                step = (months & -months).bit_length()
                month += step
                months >>= step
            else:
                year, month, months = year + 1, 0, self._months >> 1
                if self._years is not None:
                    later = self._years >> year
                    if not later:
                        return None
                    year += (later & -later).bit_length() - 1
                if year > 9999:
                    return None
                continue
            first = date(year, month, 1).toordinal() - _EPOCH
            mask = self._mask(year, month, first)
            if mask:
                found = first + (mask & -mask).bit_length() - 1
                return found if found <= LAST_DAY else None

    def _day_to(self, day: int) -> int | None:
        """Return the last matching day at or before *day*."""
        if not FIRST_DAY <= day <= LAST_DAY:
            if day < FIRST_DAY:
                return None
            day = LAST_DAY
        if self._back is not None:
            found = day - self._back[day % 7]
            return found if found >= FIRST_DAY else None
        at = date.fromordinal(day + _EPOCH)
        year, month = at.year, at.month
        first = day - at.day + 1
        mask = self._mask(year, month, first) & ((2 << day - first) - 1)
        while not mask:
            months = self._months & ((1 << month) - 1)
            if months:
                month = months.bit_length() - 1
            else:
                year, month = year - 1, 13
                if self._years is not None:
                    earlier = self._years & ((2 << year) - 1)
                    if not earlier:
                        return None
                    year = earlier.bit_length() - 1
                if year < 1:
                    return None
                continue
            first = date(year, month, 1).toordinal() - _EPOCH
            mask = self._mask(year, month, first)
        found = first + mask.bit_length() - 1
        return found if found >= FIRST_DAY else None

    def _mask(self, year: int, month: int, first: int) -> int:
        """Return the matching days of a month, bit 0 for its first day; *first* is that day's number."""
        if not self._months >> month & 1 or (self._years is not None and not self._years >> year & 1):
            return 0
        length = _MONTH_LENGTHS[month]
        if month == 2 and isleap(year):
            length = 29
        return self._shapes[(length - 28) * 7 + (first + 4) % 7]

    def _days_between(self, start: int, end: int) -> int:
        """Return how many matching days lie in *start* <= day < *end*."""
        start, end = max(start, FIRST_DAY), min(end, LAST_DAY + 1)
        if end <= start:
            return 0
        if self._ahead is not None:
            weeks, rest = divmod(end - start, 7)
            return weeks * self._ahead.count(0) + sum(
                self._ahead[day % 7] == 0 for day in range(start, start + rest)
            )
        at = date.fromordinal(start + _EPOCH)
        year, month, first = at.year, at.month, start - at.day + 1
        total = -(self._mask(year, month, first) & ((1 << start - first) - 1)).bit_count()
        while True:
            mask = self._mask(year, month, first)
            length = 29 if month == 2 and isleap(year) else _MONTH_LENGTHS[month]
            if first + length >= end:
                return total + (mask & ((1 << end - first) - 1)).bit_count()
            total += mask.bit_count()
            first += length
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)


def can_match(fields: CrontabFields) -> bool:
    """Tell whether any date at all matches *fields*: exact, for the calendar repeats every 400 years.

    In 400 years every month begins on each weekday, February in both its lengths, so that a look at the 28 shapes of a
    month decides. Years that are listed are looked at one by one.
    """
    if fields.years is not None:
        return WallTimes(fields).first_from(FIRST_DAY * _DAY) is not None
    return any(month_can_match(fields, month) for month in range(1, 13) if fields.months >> month & 1)


def month_can_match(fields: CrontabFields, month: int, *, is_leap: bool = True) -> bool:
    """Tell whether a day of *month* can match, in a year that begins on any weekday; the month field is not asked.

    Args: month: 1 to 12. is_leap: let February have 29 days too.
    """
    shapes = _shapes_of(fields)
    lengths = [_MONTH_LENGTHS[month]] + [29] * (month == 2 and is_leap)
    return any(any(shapes[(length - 28) * 7 : (length - 27) * 7]) for length in lengths)


@lru_cache(maxsize=1024)
def _hours(values: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the hours in *values*, and for each hour of the day how many of them come before it."""
    hours = tuple(hour for hour in range(24) if values >> hour & 1)
    return hours, tuple((values & ((1 << hour) - 1)).bit_count() for hour in range(24))


@lru_cache(maxsize=4096)
def _marks(minutes: int, seconds: int) -> tuple[int, ...]:
    """Return the matching seconds of an hour."""
    in_minute = [second for second in range(60) if seconds >> second & 1]
    return tuple(
        _SECONDS[minute * 60 + second]
        for minute in range(60)
        if minutes >> minute & 1
        for second in in_minute
    )


@lru_cache(maxsize=128)
def _week_distances(weekdays: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the days from each day to the next match and back to the last, by day number mod 7 (0 = Thursday)."""
    matches = [bool(weekdays >> (day + 4) % 7 & 1) for day in range(7)]
    ahead = tuple(next(step for step in range(7) if matches[(day + step) % 7]) for day in range(7))
    back = tuple(next(step for step in range(7) if matches[(day - step) % 7]) for day in range(7))
    return ahead, back


@lru_cache(maxsize=256)
def _weekly_shapes(weekdays: int) -> tuple[int, ...]:
    """Return the days that a set of weekdays matches in each of the 28 shapes of a month.

    Shape (length - 28) * 7 + weekday of the first; bit 0 is the first day.
    """
    days = weekdays * _WEEKS
    return tuple(days >> first & ((1 << length) - 1) for length in range(28, 32) for first in range(7))


def _shapes_of(fields: CrontabFields) -> tuple[int, ...]:
    """Return the matching days in each of the 28 shapes of a month (see _weekly_shapes)."""
    needs_both = fields.days_starred or fields.weekdays_starred
    return _month_shapes(fields.days, fields.day_rules, fields.weekdays, fields.weekday_rules, needs_both)


@lru_cache(maxsize=4096)
def _month_shapes(
    days: int,
    day_rules: tuple[DayRule, ...],
    weekdays: int,
    weekday_rules: tuple[DayRule, ...],
    needs_both: bool,  # noqa: FBT001 - a cache key
) -> tuple[int, ...]:
    by_weekday = _weekly_shapes(weekdays)
    result = []
    for shape, weekly in enumerate(by_weekday):
        length, first = shape // 7 + 28, shape % 7
        monthly = days >> 1 & ((1 << length) - 1)
        for rule in day_rules:
            monthly |= _ruled_day(rule, length, first)
        for rule in weekday_rules:
            weekly |= _ruled_day(rule, length, first)  # noqa: PLW2901 - the set grows
        result.append(monthly & weekly if needs_both else monthly | weekly)
    return tuple(result)


def day_matches(fields: CrontabFields, day: date) -> tuple[bool, bool]:
    """Return whether the day-of-month field matches *day*, and whether the day-of-week field does."""
    first = (day.isoweekday() - (day.day - 1)) % 7
    length = _MONTH_LENGTHS[day.month] + (day.month == 2 and isleap(day.year))
    bit = 1 << day.day - 1

    def matches(values: int, place: int, rules: tuple[DayRule, ...]) -> bool:
        return bool(values >> place & 1) or any(_ruled_day(rule, length, first) == bit for rule in rules)

    return (
        matches(fields.days, day.day, fields.day_rules),
        matches(fields.weekdays, day.isoweekday() % 7, fields.weekday_rules),
    )


def _ruled_day(rule: DayRule, length: int, first: int) -> int:
    """Return the day *rule* means in a month of *length* days that begins on weekday *first*, as a bit, or 0."""
    match rule.kind:
        case "last":
            return 1 << length - 1 - rule.a if rule.a < length else 0
        case "last-workday":
            weekday = (first + length - 1) % 7
            return 1 << length - 1 - {0: 2, 6: 1}.get(weekday, 0)
        case "near":
            if rule.a > length:
                return 0
            day, weekday = rule.a, (first + rule.a - 1) % 7
            if weekday == 6:  # Saturday: the Friday before, but never in the month before
                day += 2 if day == 1 else -1
            elif weekday == 0:  # Sunday: the Monday after, but never in the next month
                day += -2 if day == length else 1
            return 1 << day - 1
        case "last-weekday":
            last = (first + length - 1) % 7
            return 1 << length - 1 - (last - rule.a) % 7
        case _:
            day = (rule.a - first) % 7 + 7 * (rule.b - 1)
            return 1 << day if day < length else 0
