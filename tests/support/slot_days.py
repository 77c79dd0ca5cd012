"""The slots of a schedule's document, hour by hour and by brute force; shares nothing with the code it judges.

``slots_oracle`` asks of every local time at which instants a clock shows it. This asks of every minute what the clocks of a
zone show, and so does the work of a zone once for all rules. It reads the forms that tests write: crontabs in the three
dialects, ``H``, nicknames, ``@every``, ``@at``.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.durations import parse_duration
from cronally.instants import UtcMs, parse_rfc3339
from support.slots_oracle import NaiveCrontab, numbers, zone_info

if TYPE_CHECKING:
    from collections.abc import Mapping

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_ONE = date(1970, 1, 1).toordinal()
_HOUR_MS = 3_600_000
_LOOK_BACK = 4  # hours; no clock goes back further at once
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# Per unix field: lowest and highest value, and how far the hash of the name is shifted for H.
_FIELDS = ((0, 59, 0), (0, 23, 8), (1, 31, 16), (1, 12, 24), (0, 6, 32))


class Clockwork(NamedTuple):
    """A crontab as it is compared with a clock. minutes: of the day."""

    crontab: NaiveCrontab
    minutes: frozenset[int]
    seconds: tuple[int, ...]
    years: frozenset[int] | None
    is_wild: bool


class ShownMinute(NamedTuple):
    """What the clocks of a zone show in one minute. day: a date's ordinal. is_repeat: they have shown it before."""

    minute: int
    day: int
    minute_of_day: int
    is_repeat: bool


class Gap(NamedTuple):
    """The clocks jump to the local minute *last* + 1; *first* to *last* are never shown. Minutes since 1970, local."""

    minute: int
    first: int
    last: int


def name_number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def slots_of(document: Mapping[str, object], after: UtcMs, through: UtcMs, *, name: str = "") -> list[UtcMs]:
    """Return the slots in after < slot <= through that the rule and the bounds of *document* name."""
    starts = parse_rfc3339(str(document["starts"])) if "starts" in document else None
    ends = parse_rfc3339(str(document["ends"])) if "ends" in document else None
    first = after + 1 if starts is None else max(after + 1, starts)
    last = through if ends is None else min(through, ends)
    if first > last:
        return []
    when, tz = str(document["when"]), str(document.get("tz", "UTC"))
    called = re.fullmatch(r"(rate|at)\((.*)\)", when)
    if called:
        when = {"rate": "@every ", "at": "@at "}[called[1]] + called[2]
    if when.startswith("@every "):
        period, anchor = _period_ms(when.removeprefix("@every ")), starts or 0
        return [UtcMs(slot) for slot in range(first + (anchor - first) % period, last + 1, period)]
    if when.startswith("@at "):
        instant = _at_instant(when.removeprefix("@at "), tz)
        return [instant] if first <= instant <= last else []
    dialect = str(document.get("dialect", "unix"))
    work = clockwork(when, dialect, name if "H" in when else "")
    on_gap, on_repeat = str(document.get("on_gap", "run")), str(document.get("on_repeat", "first"))
    found: list[UtcMs] = []
    for hour in range(first // _HOUR_MS, last // _HOUR_MS + 1):
        slots = hour_slots(work, tz, hour, on_gap, on_repeat)
        if slots and (slots[0] < first or slots[-1] > last):
            slots = [slot for slot in slots if first <= slot <= last]
        found += slots
    return found


def _period_ms(text: str) -> int:
    words = re.fullmatch(r"(\d+) (minute|hour|day)s?", text)  # as rate(…) has it
    return parse_duration(f"{words[1]}{words[2][0]}" if words else text)


def _at_instant(text: str, tz: str) -> UtcMs:
    if text.endswith("Z"):
        return parse_rfc3339(text)
    local = datetime.fromisoformat(text).replace(tzinfo=zone_info(tz))
    return UtcMs((local.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1))


# --- rules ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=20_000)
def clockwork(when: str, dialect: str, name: str) -> Clockwork:
    """Read a crontab in any dialect. name: of the schedule, if the rule has an ``H``."""
    fields = _NICKNAMES.get(when, when).removeprefix("cron(").removesuffix(")").split()
    seconds: tuple[int, ...] = (0,)
    years = None
    if dialect == "quartz" and not when.startswith("@"):
        seconds = tuple(sorted(numbers(_open_steps(fields.pop(0), 59), 0, 59)))
    if dialect != "unix" and not when.startswith("@"):
        if len(fields) == 6 and fields[5] != "*":
            years = frozenset(numbers(fields[5], 1970, 2199))
        fields = [_open_steps(text, high) for text, (_, high, _) in zip(fields, _FIELDS, strict=False)]
        fields[4] = ",".join(_from_sunday_0(item) for item in fields[4].split(","))
    fields = [
        ",".join(_unhashed(item, *bounds, name) for item in text.split(","))
        for text, bounds in zip(fields, _FIELDS, strict=True)
    ]
    crontab = NaiveCrontab(" ".join(fields))
    hours = numbers(fields[1], 0, 23)
    minutes = frozenset(hour * 60 + minute for hour in hours for minute in numbers(fields[0], 0, 59))
    return Clockwork(crontab, minutes, seconds, years, crontab.is_wild())


def _open_steps(text: str, high: int) -> str:
    """In quartz and eventbridge ``5/15`` means ``5-59/15``."""
    return ",".join(re.sub(r"^(\d+)/", rf"\1-{high}/", item) for item in text.split(","))


def _from_sunday_0(item: str) -> str:
    """Days of the week that count from 1, Sunday, as ones that count from 0."""
    days, mark, rest = re.fullmatch(r"([^#/L]*)([#/L]?)(.*)", item).groups()  # type: ignore[union-attr]  # it matches all
    if mark == "/" and days.endswith("-6"):  # that was 5/15: up to Saturday
        days = f"{days[:-2]}-7"
    return re.sub(r"\d+", lambda digits: str(int(digits[0]) - 1), days) + mark + rest


def _unhashed(item: str, low: int, high: int, shift: int, name: str) -> str:
    match = re.fullmatch(r"H(?:\((\d+)-(\d+)\))?(?:/(\d+))?", item)
    if match is None:
        return item
    share, step = name_number(name) >> shift, int(match[3] or 0)
    if match[1]:
        low, high = int(match[1]), int(match[2])
    elif high == 31 and not step:
        high = 28
    size = high - low + 1
    if not step:
        return str(low + share % size)
    return f"{low + share % min(step, size)}-{high}/{step}"


@lru_cache(maxsize=20_000)
def _matches_day(work: Clockwork, ordinal: int) -> bool:
    day = date.fromordinal(ordinal)
    return (work.years is None or day.year in work.years) and work.crontab.matches_day(day)


# --- clocks ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=20_000)
def _offsets(tz: str, hour: int) -> tuple[int, ...]:
    """Return, for each minute of an hour since 1970, how many minutes the clocks of a zone are ahead of UTC."""
    zone = zone_info(tz)
    start = _EPOCH + timedelta(hours=hour)
    found = []
    for minute in range(60):
        offset = (start + timedelta(minutes=minute)).astimezone(zone).utcoffset()
        assert offset is not None
        found.append(offset // timedelta(minutes=1))
    return tuple(found)


@lru_cache(maxsize=20_000)
def shown(tz: str, hour: int) -> tuple[tuple[ShownMinute, ...], tuple[Gap, ...]]:
    """Return what the clocks of a zone show in each minute of an hour since 1970, and where they jump ahead."""
    start = hour * 60
    earlier = [offset for before in range(hour - _LOOK_BACK, hour) for offset in _offsets(tz, before)]
    offsets = _offsets(tz, hour)
    seen: set[int] = set()
    if len({*earlier, *offsets}) > 1:
        first = start - len(earlier)
        seen = {first + number + offset for number, offset in enumerate(earlier)}
    minutes, gaps = [], []
    before = earlier[-1]
    for number, offset in enumerate(offsets):
        local = start + number + offset
        if offset > before:
            gaps.append(Gap(start + number, start + number + before, local - 1))
        day, minute_of_day = divmod(local, 1440)
        minutes.append(ShownMinute(start + number, day + _DAY_ONE, minute_of_day, local in seen))
        seen.add(local)
        before = offset
    return tuple(minutes), tuple(gaps)


@lru_cache(maxsize=100_000)
def hour_slots(work: Clockwork, tz: str, hour: int, on_gap: str, on_repeat: str) -> list[UtcMs]:
    """Return the slots of one hour since 1970, in order."""
    minutes, gaps = shown(tz, hour)
    found: set[int] = set()
    days = {minute.day for minute in minutes}
    days = {day for day in days if _matches_day(work, day)}
    if days:
        takes_repeats = work.is_wild or on_repeat == "both"
        for minute, day, minute_of_day, is_repeat in minutes:
            if minute_of_day in work.minutes and day in days and (takes_repeats or not is_repeat):
                found.update(minute * 60 + second for second in work.seconds)
    if not work.is_wild and on_gap == "run":
        for gap in gaps:
            for local in range(gap.first, gap.last + 1):
                day, minute_of_day = divmod(local, 1440)
                if minute_of_day in work.minutes and _matches_day(work, day + _DAY_ONE):
                    found.add(gap.minute * 60)
                    break
    return [UtcMs(second * 1000) for second in sorted(found)]
