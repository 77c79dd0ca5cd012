"""Instants and durations: the types, and their one way to be written.

Two kinds of instant, two scales, so that a mix-up is visible: ``UtcMs`` says *what*, ``MonoS`` says *how long*.
Nothing here reads a clock.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NewType

UtcMs = NewType("UtcMs", int)
"""Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted (POSIX time)."""

MonoS = NewType("MonoS", float)
"""Seconds of a monotonic clock with an arbitrary origin."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}(?::\d{2})?)(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)

MIN_UTC_MS = UtcMs(-62_135_596_800_000)  # 0001-01-01T00:00:00Z, the first instant datetime can hold
MAX_UTC_MS = UtcMs(253_402_300_799_999)  # 9999-12-31T23:59:59.999Z, the last


def to_datetime(instant: UtcMs) -> datetime:
    """Return *instant* as an aware UTC datetime. Range: MIN_UTC_MS to MAX_UTC_MS, else OverflowError."""
    return _EPOCH + timedelta(milliseconds=instant)


def from_datetime(value: datetime) -> UtcMs:
    """Return an aware datetime as milliseconds, rounded down. A naive one raises ValueError."""
    if value.tzinfo is None:
        raise ValueError(f"{value.isoformat()} has no UTC offset")
    return UtcMs((value - _EPOCH) // _MS)


@lru_cache(maxsize=4_096)  # a burst, and a page of a listing, has the same instants over and over
def format_utc(instant: UtcMs) -> str:
    """Write *instant* as RFC 3339 UTC, milliseconds only if not 0: ``2026-11-23T09:00:00Z``."""
    text = to_datetime(instant).isoformat(timespec="milliseconds")
    return f"{text[:19]}Z" if text[20:23] == "000" else f"{text[:23]}Z"


def parse_rfc3339(text: str) -> UtcMs:
    """Read an RFC 3339 instant (seconds may be left out; finer than a millisecond is cut).

    Errors: ValueError if *text* has no date, no time or no offset, is not a real date, or lies outside the years 1 to
    9999 in UTC.
    """
    match = _RFC3339.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:50]!r} is not an instant such as 2026-12-24T18:00:00Z")
    day, clock, fraction, offset = match.groups()
    base = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if offset in 'Zz' else offset}")
    instant = UtcMs(from_datetime(base) + (int(fraction[1:4].ljust(3, "0")) if fraction else 0))
    if not MIN_UTC_MS <= instant <= MAX_UTC_MS:
        raise ValueError(f"{text[:50]} lies outside the years 1 to 9999 in UTC")
    return instant
