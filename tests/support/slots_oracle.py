"""An independent answer to "when does this rule fire?": slow, naive, and sharing nothing with the code it judges.

It walks through every wall-clock minute of a window, asks ``datetime`` which dates match and ``zoneinfo`` which real
instants show that minute. It reads no more of the grammar than it needs: what it is given is known to be valid.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib.resources import as_file, files
from zoneinfo import ZoneInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOCAL_EPOCH = _EPOCH.replace(tzinfo=None)
_SECOND = timedelta(seconds=1)
_NAMES_DAYS = re.compile("[LW#]", re.IGNORECASE)
_MONTH_NAMES = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAY_NAMES = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


@cache
def zone_info(name: str) -> ZoneInfo:
    """Return the tzdata package's zone, not the system's."""
    with as_file(files("tzdata") / "zoneinfo" / name) as path, path.open("rb") as source:
        return ZoneInfo.from_file(source, key=name)


def _number(text: str) -> int:
    text = text.lower()
    if text in _MONTH_NAMES:
        return _MONTH_NAMES.index(text) + 1
    if text in _DAY_NAMES:
        return _DAY_NAMES.index(text)
    return int(text)


@cache
def numbers(text: str, low: int, high: int, *, is_weekday: bool = False) -> frozenset[int]:
    values: set[int] = set()
    for item in text.split(","):
        span, _, step_text = item.partition("/")
        step = int(step_text or 1)
        if span in {"*", "?"}:
            values |= {value for value in range(low, high + 1) if (value - low) % step == 0}
            continue
        first_text, dash, last_text = span.partition("-")
        if not first_text.isalnum() or not (
            first_text.isdigit() or first_text.lower() in _MONTH_NAMES + _DAY_NAMES
        ):
            continue  # a rule such as 15W: see _is_special_day
        first = _number(first_text)
        last = _number(last_text) if dash else first
        if is_weekday and dash:
            if last == 0 and first > 0:
                last = 7
            if first == 7 and last < 7:
                first = 0
        values |= {value for value in range(first, last + 1) if (value - first) % step == 0}
    return frozenset(value % 7 for value in values) if is_weekday else frozenset(values)


def _month_days(day: date) -> list[date]:
    return [day.replace(day=number) for number in range(1, calendar.monthrange(day.year, day.month)[1] + 1)]


def _is_special_day(text: str, day: date) -> bool:
    """Whether *day* is named by an item such as L, L-3, LW, 15W, friL or fri#2."""
    if not _NAMES_DAYS.search(text):
        return False
    month = _month_days(day)
    for item in text.upper().split(","):
        if item == "L" and day == month[-1]:
            return True
        if item.startswith("L-") and int(item[2:]) < len(month) and day == month[-1 - int(item[2:])]:
            return True
        if item == "LW" and day == [each for each in month if each.weekday() < 5][-1]:
            return True
        if item[-1] == "W" and item[:-1].isdigit() and int(item[:-1]) <= len(month):
            wanted = int(item[:-1])
            # the nearest working day; of a Saturday the day before is nearer, of a Sunday the day after
            if day == min(
                (each for each in month if each.weekday() < 5), key=lambda each: abs(each.day - wanted)
            ):
                return True
        is_last_week = day.day + 7 > len(month)
        if (
            item[-1] == "L"
            and item[:-1].isalnum()
            and _number(item[:-1]) % 7 == (day.weekday() + 1) % 7
            and is_last_week
        ):
            return True
        name, hash_sign, nth = item.partition("#")
        if hash_sign and _number(name) % 7 == (day.weekday() + 1) % 7:
            earlier = [each for each in month if each.weekday() == day.weekday() and each <= day]
            if (nth == "L" and is_last_week) or (nth != "L" and len(earlier) == int(nth)):
                return True
    return False


@dataclass(frozen=True)
class NaiveCrontab:
    """A five-field unix rule as sets of numbers and the text of the day fields. ``seconds`` serves Quartz tests."""

    text: str
    seconds: tuple[int, ...] = (0,)

    def is_wild(self) -> bool:
        minute, hour, *_ = self.text.split()
        return minute.startswith("*") or hour.startswith("*")

    def per_day(self) -> int:
        """How many times a matching day has."""
        minute, hour, *_ = self.text.split()
        return len(numbers(minute, 0, 59)) * len(numbers(hour, 0, 23)) * len(self.seconds)

    def matches_day(self, day: date) -> bool:
        _, _, days, months, weekdays = self.text.split()
        if day.month not in numbers(months, 1, 12):
            return False
        by_date = day.day in numbers(days, 1, 31) or _is_special_day(days, day)
        by_weekday = (day.weekday() + 1) % 7 in numbers(weekdays, 0, 6, is_weekday=True)
        by_weekday = by_weekday or _is_special_day(weekdays, day)
        if days.startswith(("*", "?")) or weekdays.startswith(("*", "?")):
            return by_date and by_weekday
        return by_date or by_weekday

    def local_times(self, first: date, last: date) -> list[datetime]:
        """Return every matching wall-clock time from the first day to the last, both included, naive."""
        minute, hour, *_ = self.text.split()
        minutes, hours = numbers(minute, 0, 59), numbers(hour, 0, 23)
        clock = [
            timedelta(hours=h, minutes=m, seconds=s)
            for h in range(24)
            for m in range(60)
            for s in self.seconds
            if h in hours and m in minutes
        ]
        days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
        return [
            datetime(day.year, day.month, day.day) + offset  # noqa: DTZ001 - a wall-clock time
            for day in days
            if self.matches_day(day)
            for offset in clock
        ]


def _second(instant: datetime) -> int:
    return (instant - _EPOCH) // _SECOND


def _instants(local: datetime, zone: ZoneInfo) -> list[int]:
    """Return the UTC seconds at which the wall clock shows *local*, earliest first; none in a gap."""
    offset = local.replace(tzinfo=zone).utcoffset()
    if offset == local.replace(tzinfo=zone, fold=1).utcoffset():  # neither twice nor in a gap: PEP 495
        assert offset is not None
        return [(local - _LOCAL_EPOCH - offset) // _SECOND]
    found = []
    for fold in (0, 1):
        utc = local.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if utc.astimezone(zone).replace(tzinfo=None) == local and _second(utc) not in found:
            found.append(_second(utc))
    return sorted(found)


def first_instant_after_gap(local: datetime, zone: ZoneInfo) -> int:
    """Return the UTC second at which the wall clock, going forward, jumps over *local*."""

    def shown(second: int) -> datetime:
        return (_EPOCH + timedelta(seconds=second)).astimezone(zone).replace(tzinfo=None)

    second = _second(local.replace(tzinfo=UTC)) - 15 * 3600
    while shown(second) < local:
        second += 60
    while shown(second - 1) >= local:
        second -= 1
    return second


def slots(
    rule: NaiveCrontab, tz: str, start: int, end: int, *, on_gap: str = "run", on_repeat: str = "first"
) -> list[int]:
    """Return the slots in start < slot <= end, all in UTC seconds."""
    zone = zone_info(tz)
    margin = timedelta(days=1)  # more than any offset, also in the day that Apia lost
    is_wild = rule.is_wild()
    first, last = _EPOCH + timedelta(seconds=start) - margin, _EPOCH + timedelta(seconds=end) + margin
    found: set[int] = set()
    for local in rule.local_times(first.date(), last.date()):
        if not start - 86_400 < (local - _LOCAL_EPOCH) // _SECOND <= end + 86_400:
            continue
        real = _instants(local, zone)
        if is_wild:
            found.update(real)
        elif real:
            found.update(real if on_repeat == "both" else real[:1])
        elif on_gap == "run":
            found.add(first_instant_after_gap(local, zone))
    return sorted(second for second in found if start < second <= end)
