"""Instants as people write them: RFC 3339, a time from now, or local time in numbers or words (``tomorrow 9:00``).

Few forms, each with one meaning: what else a library for natural language would take is refused rather than guessed.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from cronally.domain.durations import DAY_MS, parse_duration
from cronally.errors import UsageError
from cronally.instants import MAX_UTC_MS, MIN_UTC_MS, UtcMs, parse_rfc3339

if TYPE_CHECKING:
    from cronally.domain.zones import Zone

Direction = Literal[-1, 1]
"""Where an instant lies that could be either: -1 before now (``2h`` is two hours ago), 1 after it."""

_WALL_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - local time has no zone here
_DAYS: Final = {"yesterday": -1, "today": 0, "tomorrow": 1}
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_TIMES: Final = {"midnight": time(0), "noon": time(12)}
_TIME: Final = re.compile(r"(\d{1,2})(?::(\d\d)(?::(\d\d))?)?(am|pm)?", re.ASCII)


class Asked(NamedTuple):
    """The instant that a text names. local: as it was read, if it has no offset. kind: see ``Zone.resolve``."""

    at: UtcMs
    local: datetime | None = None
    kind: Literal["once", "gap", "repeat"] = "once"


def read_instant(text: str, zone: Zone, *, now: UtcMs, direction: Direction) -> Asked:
    """Read what ``read_absolute`` reads, or a local time of *zone*: the first of two, or the first instant after a gap.

    Local are a date (its midnight), a time, and both: ``2026-12-24T18:00``, ``tomorrow 9:00``, ``fri 6pm``, ``noon``. A time
    alone, and a weekday, are the nearest in the *direction*. Errors: UsageError.
    """
    refusal = UsageError(
        f"{text[:50]!r} is no instant; write 2026-12-24T18:00:00Z, 2h for two hours {'ago' if direction < 0 else 'from now'}, "
        f"or 2026-12-24T18:00, 'tomorrow 9:00' or 'fri 9:00' for the local time in {zone.name}"
    )
    at = read_absolute(text, now=now, direction=direction)
    if at is not None:
        asked = Asked(at)
    else:
        second = now // 1000
        try:
            here = _WALL_EPOCH + timedelta(seconds=second + zone.offset_at(second))
            local = _local(text, here, direction)
        except OverflowError:
            local = None
        if local is None:
            raise refusal
        second, kind = zone.resolve(round((local - _WALL_EPOCH).total_seconds()))
        asked = Asked(UtcMs(second * 1000), local, kind)
    # The first and the last day have no date in every zone.
    if not MIN_UTC_MS + DAY_MS <= asked.at <= MAX_UTC_MS - DAY_MS:
        raise refusal
    return asked


def read_absolute(text: str, *, now: UtcMs, direction: Direction) -> UtcMs | None:
    """Read an instant that is the same in every zone: RFC 3339, ``now``, ``90s``, ``in 2h``, ``2h ago``; None for others."""
    words = text.lower().split()
    try:
        match words:
            case ["now"]:
                return now
            case ["in", duration]:
                at = now + parse_duration(duration)
            case [duration, "ago"]:
                at = now - parse_duration(duration)
            case [duration] if duration[-1] in "smhd":
                at = now + direction * parse_duration(duration)
            case _:
                return parse_rfc3339(text)
    except ValueError:
        return None
    return UtcMs(at) if MIN_UTC_MS <= at <= MAX_UTC_MS else None


def _local(text: str, here: datetime, direction: Direction) -> datetime | None:
    """Read a local time; *here* is the one now. Errors: OverflowError."""
    words = text.lower().split()
    if len(words) == 1 and "t" in words[0] and words[0][0].isdigit():
        words = words[0].split("t", 1)
    if len(words) == 3 and words[1] == "at":
        del words[1]
    if not words or len(words) > 2:
        return None
    clock = _time(words[-1])
    if len(words) == 2:
        return None if clock is None else _on_day(words[0], clock, here, direction)
    if clock is None:
        return _on_day(words[0], _TIMES["midnight"], here, direction)
    return _nearest(datetime.combine(here.date(), clock), 1, here, direction)


def _on_day(word: str, clock: time, here: datetime, direction: Direction) -> datetime | None:
    if word in _DAYS:
        return datetime.combine(here.date() + timedelta(days=_DAYS[word]), clock)
    for number, name in enumerate(_WEEKDAYS):
        if word in (name, name[:3]):
            day = here.date() + timedelta(days=number - here.weekday())
            return _nearest(datetime.combine(day, clock), 7, here, direction)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", word, re.ASCII) is None:
        return None
    try:
        return datetime.combine(date.fromisoformat(word), clock)
    except ValueError:
        return None


def _nearest(local: datetime, every_days: int, here: datetime, direction: Direction) -> datetime:
    """Return the one of those times, so many days apart, that is the first after *here*, or the last up to it."""
    step = timedelta(days=every_days)
    while local > here:
        local -= step
    while local <= here:
        local += step
    return local if direction > 0 else local - step


def _time(word: str) -> time | None:
    if word in _TIMES:
        return _TIMES[word]
    match = _TIME.fullmatch(word)
    if match is None or (match[2] is None and match[4] is None):  # a number alone could be anything
        return None
    hour, half = int(match[1]), match[4]
    if half is not None:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "pm" else 0)
    try:
        return time(hour, int(match[2] or 0), int(match[3] or 0))
    except ValueError:
        return None
