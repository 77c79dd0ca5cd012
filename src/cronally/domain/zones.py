"""Time zones as arrays of integers, the same on every machine.

Rules of this file:

1. Zones come from the ``tzdata`` package alone, never from the system's files: two machines with the same packages
   agree, and the version can be named.
2. A zone name is looked up in the package's list before anything is opened; it is never used as a path by itself.
3. Everything is whole seconds. UTC seconds count from 1970-01-01T00:00:00Z; local seconds count the same way on the
   wall clock (``local = utc + offset``), so that 1970-01-01T00:00 local is 0.

Sources: RFC 8536 (TZif), POSIX.1 TZ for the footer.
"""

from __future__ import annotations

import difflib
import re
import struct
from bisect import bisect_right
from datetime import date
from functools import cache
from importlib import import_module
from importlib.resources import files
from itertools import accumulate
from typing import Final, Literal

from cronally.errors import ZoneError

OnGap = Literal["run", "skip"]
OnRepeat = Literal["first", "both"]

LAST_YEAR: Final = 2200  # transitions are known to its end; later the last offset stays
FAR: Final = 1 << 60  # seconds; beyond every instant a datetime can hold
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_DAY: Final = 86_400
# What people say for a zone that has another name, or one that would be mistaken for a neighbour in the alphabet.
_SPOKEN: Final = {
    "pst": "America/Los_Angeles",
    "pdt": "America/Los_Angeles",
    "mdt": "America/Denver",
    "cst": "America/Chicago",
    "cdt": "America/Chicago",
    "edt": "America/New_York",
    "bst": "Europe/London",
    "cest": "Europe/Berlin",
    "eest": "Europe/Athens",
    "ist": "Asia/Kolkata",
    "jst": "Asia/Tokyo",
    "aest": "Australia/Sydney",
    "z": "UTC",
    "local": "UTC",
    "localtime": "UTC",
}


class Zone:
    """A zone as segments of constant offset.

    Segment *i* lasts from ``starts[i]`` (inclusive, UTC seconds; the first is ``-FAR``) to ``starts[i + 1]``, and
    ``offsets[i]`` (seconds) is added to UTC there. ``high[i]`` is the local time before which every local time has
    been passed, by the wall clock or by a gap, when segment *i* begins: it is what a fixed rule goes by. The sentinel
    ``starts[-1] == FAR`` has no offset.
    """

    __slots__ = ("_courses", "high", "name", "offsets", "starts")

    def __init__(self, name: str, starts: list[int], offsets: list[int]) -> None:
        """Take the segments in order; neighbours with one offset are joined by the caller."""
        self.name = name
        self.starts = [*starts, FAR]
        self.offsets = offsets
        ends = (end + offset for end, offset in zip(self.starts[1:-1], offsets[:-1], strict=True))
        self.high = list(accumulate(ends, max, initial=-FAR))
        self._courses: dict[tuple[bool, bool], Course] = {}

    def __repr__(self) -> str:
        return f"Zone({self.name!r})"

    def local_start(self, segment: int) -> int:
        """Return the wall clock's reading (local seconds) at the first instant of *segment*."""
        return self.starts[segment] + self.offsets[segment]

    def course(self, *, fills_gaps: bool, repeats: bool) -> Course:
        """Return the zone as rules with this DST choice go by it; one object for all of them.

        Args: fills_gaps: local times that never come count at the first instant after the gap. repeats: local times
            that come twice count twice.
        """
        found = self._courses.get((fills_gaps, repeats))
        if found is None:
            found = self._courses[fills_gaps, repeats] = Course(self, fills_gaps=fills_gaps, repeats=repeats)
        return found

    def segment_at(self, utc: int) -> int:
        """Return the segment that holds the UTC second *utc*."""
        return bisect_right(self.starts, utc) - 1

    def offset_at(self, utc: int) -> int:
        """Return the seconds to add to the UTC second *utc* for local time."""
        return self.offsets[self.segment_at(utc)]

    def resolve(self, local: int) -> tuple[int, Literal["once", "gap", "repeat"]]:
        """Return the UTC second of a local second, and how often the wall clock shows it.

        ``gap``: never; the instant is the first after the gap. ``repeat``: more than once; the instant is the first.
        """
        segment = bisect_right(self.high, local) - 1
        utc = local - self.offsets[segment]
        if utc < self.starts[segment]:
            return self.starts[segment], "gap"
        following = segment + 1
        if following < len(self.offsets) and self.local_start(following) <= local:
            return utc, "repeat"
        return utc, "once"


class Course:
    """A zone and a DST choice: what all rules that share both need of them.

    Attributes: starts, offsets, high: the zone's. floors: per segment, the first local second that counts there.
        lowest_floors: the lowest of it and all later ones.

    The whole DST rule is in ``floors``. A local time below the segment's start on the wall clock, but not below its floor,
    fell into a gap and counts at the segment's first instant; one at or above the start, but below the floor, was passed
    before and does not count again.
    """

    __slots__ = (
        "fills_gaps",
        "floors",
        "high",
        "lowest_floors",
        "offsets",
        "repeats",
        "starts",
        "zone",
    )

    def __init__(self, zone: Zone, *, fills_gaps: bool, repeats: bool) -> None:
        """Use ``Zone.course``."""
        self.zone, self.fills_gaps, self.repeats = zone, fills_gaps, repeats
        self.starts, self.offsets, self.high = zone.starts, zone.offsets, zone.high
        local = [start + offset for start, offset in zip(zone.starts[:-1], zone.offsets, strict=True)]
        local[0] = -FAR
        if not repeats:
            self.floors = zone.high if fills_gaps else list(map(max, local, zone.high))
        else:
            self.floors = list(map(min, local, zone.high)) if fills_gaps else local
        self.lowest_floors = list(accumulate(reversed(self.floors), min))[::-1]


@cache
def _names() -> frozenset[str]:
    return frozenset((files("tzdata") / "zones").read_text(encoding="ascii").split())


def zone_names() -> frozenset[str]:
    """Return every zone name of the tzdata package, links included."""
    return _names()


def tzdata_version() -> str:
    """Return the IANA version of the zone data in use, such as ``2026f``."""
    return str(import_module("tzdata").IANA_VERSION)


def load_zone(name: str) -> Zone:
    """Return the zone *name*, compiled once.

    Errors: ZoneError if the tzdata package has no such zone, with the nearest name.
    """
    if name not in _names():
        raise ZoneError(name, suggestion=_nearest(name))
    return _compiled(name)


@cache  # at most one entry per name in the package's list
def _compiled(name: str) -> Zone:
    path = files("tzdata") / "zoneinfo"
    for part in name.split("/"):
        path /= part
    return compile_tzif(name, path.read_bytes())


def _nearest(name: str) -> str | None:
    wanted = name.strip()[:60].replace(" ", "_").lower()
    if wanted in _SPOKEN:
        return _SPOKEN[wanted]
    if match := re.fullmatch(r"(?:utc|gmt)?([+-])0?(\d{1,2})(?::?00)?", wanted, re.ASCII):
        sign = "-" if match[1] == "+" else "+"  # the names under Etc/ count west of Greenwich
        fixed = f"Etc/GMT{sign}{match[2]}"
        return fixed if fixed in _names() else None
    by_lower = {known.lower(): known for known in sorted(_names())}
    if wanted in by_lower:
        return by_lower[wanted]
    # `London` and `new_york` are cities to people: look at the last part alone before comparing whole names.
    for lower, known in by_lower.items():
        if lower.rpartition("/")[2] == wanted.rpartition("/")[2]:
            return known
    close = difflib.get_close_matches(wanted, by_lower, n=1)
    return by_lower[close[0]] if close else None


def compile_tzif(name: str, data: bytes) -> Zone:
    """Compile the bytes of a TZif file (version 2 or later) into a Zone.

    Errors: ValueError if the bytes are not such a file.
    """
    if data[:4] != b"TZif" or data[4:5] < b"2":
        raise ValueError(f"the data of zone {name} is not TZif version 2 or later")
    isutc, isstd, leap, timecnt, typecnt, charcnt = struct.unpack_from(">6l", data, 20)
    # The first block holds 32-bit times for old readers; the second, after a header of its own, is the whole truth.
    at = 44 + timecnt * 5 + typecnt * 6 + charcnt + leap * 8 + isstd + isutc
    isutc, isstd, leap, timecnt, typecnt, charcnt = struct.unpack_from(">6l", data, at + 20)
    at += 44
    times = struct.unpack_from(f">{timecnt}q", data, at)
    kinds = data[at + timecnt * 8 : at + timecnt * 9]
    at += timecnt * 9
    types = [struct.unpack_from(">lBB", data, at + 6 * kind)[0] for kind in range(typecnt)]
    footer = data[at + typecnt * 6 + charcnt + leap * 12 + isstd + isutc :].strip(b"\n").decode("ascii")

    starts, offsets = [-FAR], [types[0]]
    steps = [(when, types[kind]) for when, kind in zip(times, kinds, strict=True)]
    last = times[-1] if times else -FAR
    if footer:
        first_year = date.fromordinal(last // _DAY + _EPOCH_ORDINAL).year if times else 1900
        steps += [step for step in footer_steps(footer, first_year) if step[0] > last]
    for when, offset in steps:
        if offset != offsets[-1]:
            starts.append(when)
            offsets.append(offset)
    return Zone(name, starts, offsets)


_NAME = r"(?:[A-Za-z]{3,}|<[A-Za-z0-9+-]+>)"
_CLOCK = r"[+-]?\d{1,3}(?::\d{2}){0,2}"
_FOOTER = re.compile(
    rf"{_NAME}(?P<std>{_CLOCK})"
    rf"(?:{_NAME}(?P<dst>{_CLOCK})?,(?P<on>[^,/]+)(?:/(?P<on_at>{_CLOCK}))?,(?P<off>[^,/]+)(?:/(?P<off_at>{_CLOCK}))?)?",
    re.ASCII,
)


def footer_steps(footer: str, first_year: int) -> list[tuple[int, int]]:
    """Return the (UTC second, new offset) changes that a POSIX TZ text names, *first_year* to LAST_YEAR, in order.

    Errors: ValueError if *footer* is not such a text.
    """
    match = _FOOTER.fullmatch(footer)
    if match is None:
        raise ValueError(f"the footer {footer!r} is not a POSIX TZ text")
    standard = -_clock_s(match["std"])  # POSIX counts west of Greenwich as positive
    if match["on"] is None:
        return [(-FAR + 1, standard)]
    summer = -_clock_s(match["dst"]) if match["dst"] else standard + 3600
    on_at, off_at = _clock_s(match["on_at"] or "2"), _clock_s(match["off_at"] or "2")
    steps = []
    for year in range(first_year, LAST_YEAR + 1):
        steps.append((_rule_day(match["on"], year) * _DAY + on_at - standard, summer))
        steps.append((_rule_day(match["off"], year) * _DAY + off_at - summer, standard))
    return sorted(steps)


def _clock_s(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    hours, minutes, seconds, *_ = [*map(int, text.lstrip("+-").split(":")), 0, 0]
    return sign * (hours * 3600 + minutes * 60 + seconds)


def _rule_day(rule: str, year: int) -> int:
    """Return the day a footer rule names in *year*, counted from 1970-01-01: ``M3.5.0``, ``J60`` or ``59``."""
    first = date(year, 1, 1).toordinal() - _EPOCH_ORDINAL
    if rule.startswith("M"):
        month, week, weekday = map(int, rule[1:].split("."))
        start = date(year, month, 1).toordinal() - _EPOCH_ORDINAL
        day = start + (weekday - (start + 4)) % 7 + 7 * (week - 1)  # 1970-01-01 was a Thursday (4)
        following = date(year + month // 12, month % 12 + 1, 1).toordinal() - _EPOCH_ORDINAL
        return day if day < following else day - 7
    if rule.startswith("J"):  # 1 to 365, 29 February never counted
        number = int(rule[1:])
        is_after_leap_day = number >= 60 and date(year, 3, 1).toordinal() - _EPOCH_ORDINAL - first == 60
        return first + number - 1 + is_after_leap_day
    return first + int(rule)
