"""Rules as slots on the UTC axis: next, latest, count and between, in integers.

Each kind of rule answers the same four questions. All instants are UTC milliseconds; ``next_ms`` is strictly later,
``latest_ms`` strictly earlier, and ranges are open at their start and closed at their end. No answer lies outside
the years 1 to 9999.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from cronally.domain.zones import FAR
from cronally.instants import MAX_UTC_MS, MIN_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cronally.domain.wall import WallTimes
    from cronally.domain.zones import Course, Zone

_TWO_DAYS = 172_800  # seconds; more than any two offsets differ by (26 h)


class Slots:
    """A rule as a strictly increasing sequence of instants. Immutable; equal to another one with the same ``key``.

    This is all that a timetable keeps of a rule, a million times if need be: no text, and what rules share is shared.

    Attributes: at_ms: the instant of an ``@at`` rule, else None. zone: by whose clock the rule goes, None if by none.
    """

    __slots__ = ()

    @property
    def key(self) -> tuple[object, ...]:
        """Hashable; equal keys have equal slots."""
        raise NotImplementedError

    @property
    def at_ms(self) -> UtcMs | None:
        return None

    @property
    def zone(self) -> Zone | None:
        return None

    def next_ms(self, after: UtcMs) -> UtcMs | None:
        """Return the first slot later than *after*, or None."""
        raise NotImplementedError

    def latest_ms(self, before: UtcMs) -> UtcMs | None:
        """Return the newest slot earlier than *before*, or None."""
        raise NotImplementedError

    def count_ms(self, start: UtcMs, end: UtcMs) -> int:
        """Return how many slots lie in start < slot <= end."""
        raise NotImplementedError

    def between_ms(self, start: UtcMs, end: UtcMs) -> Iterator[UtcMs]:
        """Yield the slots in start < slot <= end, in order, each computed when it is asked for."""
        slot = self.next_ms(start)
        while slot is not None and slot <= end:
            yield slot
            slot = self.next_ms(slot)

    def in_zone(self, zone: Zone) -> Slots:  # noqa: ARG002 - for those that have one
        """Return the same rule by the clock of another *zone*."""
        return self

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Slots) and self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)


class Once(Slots):
    """The slot of ``@at``: one instant."""

    __slots__ = ("_at",)

    def __init__(self, at: UtcMs) -> None:
        self._at = at

    @property
    def key(self) -> tuple[object, ...]:
        return "at", self._at

    @property
    def at_ms(self) -> UtcMs | None:
        return self._at

    def next_ms(self, after: UtcMs) -> UtcMs | None:
        return self._at if self._at > after else None

    def latest_ms(self, before: UtcMs) -> UtcMs | None:
        return self._at if self._at < before else None

    def count_ms(self, start: UtcMs, end: UtcMs) -> int:
        return int(start < self._at <= end)


class Every(Slots):
    """The slots of ``@every``: anchor + k * period, in closed form."""

    __slots__ = ("_anchor", "_period")

    def __init__(self, period_ms: int, anchor: UtcMs) -> None:
        self._period = period_ms
        self._anchor = anchor

    @property
    def key(self) -> tuple[object, ...]:
        return "every", self._period, self._anchor % self._period

    def next_ms(self, after: UtcMs) -> UtcMs | None:
        after = max(after, UtcMs(MIN_UTC_MS - 1))
        found = after + self._period - (after - self._anchor) % self._period
        return UtcMs(found) if found <= MAX_UTC_MS else None

    def latest_ms(self, before: UtcMs) -> UtcMs | None:
        newest = min(before - 1, MAX_UTC_MS)
        found = newest - (newest - self._anchor) % self._period
        return UtcMs(found) if found >= MIN_UTC_MS else None

    def count_ms(self, start: UtcMs, end: UtcMs) -> int:
        start, end = max(start, UtcMs(MIN_UTC_MS - 1)), min(end, MAX_UTC_MS)
        if end <= start:
            return 0
        return (end - self._anchor) // self._period - (start - self._anchor) // self._period


class Crontab(Slots):
    """The slots of crontab fields in a zone.

    Within a segment of constant offset, slots are wall-clock matches shifted by the offset. What happens where two
    segments meet is told by the segment's floor (``Course.floors``): a match from the floor up to the segment's start on
    the wall clock fell into the gap and counts at the segment's first instant; one below the floor does not count.
    """

    __slots__ = ("_course", "_times")

    def __init__(self, times: WallTimes, course: Course) -> None:
        self._times = times
        self._course = course

    @property
    def key(self) -> tuple[object, ...]:
        course = self._course
        return "crontab", self._times.key, course.zone.name, course.fills_gaps, course.repeats

    @property
    def zone(self) -> Zone | None:
        return self._course.zone

    def in_zone(self, zone: Zone) -> Slots:
        course = self._course
        return Crontab(self._times, zone.course(fills_gaps=course.fills_gaps, repeats=course.repeats))

    def next_ms(self, after: UtcMs) -> UtcMs | None:
        utc = after // 1000 + 1
        if not -FAR < utc < FAR:
            return None if utc > 0 else self.next_ms(MIN_UTC_MS)
        course = self._course
        starts, offsets = course.starts, course.offsets
        segment = bisect_right(starts, utc) - 1
        while True:
            start, offset, floor = starts[segment], offsets[segment], course.floors[segment]
            local = utc + offset
            if local < floor or utc == start:
                local = floor
            match = self._times.first_from(local)
            if match is None:
                return None
            found = match - offset
            if found < start:  # noqa: PLR1730 - in the gap that ends here; max() costs a tenth of a step
                found = start
            segment += 1
            if found < starts[segment]:
                return UtcMs(found * 1000)
            utc = starts[segment]
            # Nothing matches from `local` to `match`. If no later segment goes back before `local`, skip to the match.
            if found - utc > _TWO_DAYS and course.lowest_floors[segment] >= local:
                utc = found - _TWO_DAYS
                segment = bisect_right(starts, utc) - 1

    def latest_ms(self, before: UtcMs) -> UtcMs | None:
        utc = (before - 1) // 1000
        if not -FAR < utc < FAR:
            return None if utc < 0 else self.latest_ms(MAX_UTC_MS)
        course = self._course
        starts, offsets = course.starts, course.offsets
        segment = bisect_right(starts, utc) - 1
        while True:
            start, offset = starts[segment], offsets[segment]
            local = utc + offset + 1
            match = self._times.last_before(local)
            if match is None:
                return None
            if match >= course.floors[segment]:  # always so in the first segment
                return UtcMs(max(match - offset, start) * 1000)
            utc = start - 1
            # As in next_ms: if no earlier segment reached beyond `local`, nothing is missed by skipping to the match.
            if utc - (match - offset) > _TWO_DAYS and course.high[segment] <= local:
                utc = match - offset + _TWO_DAYS
                segment = bisect_right(starts, utc) - 1
            else:
                segment -= 1

    def count_ms(self, start: UtcMs, end: UtcMs) -> int:
        first, last = max(start // 1000 + 1, -FAR + 1), min(end // 1000, FAR - 1)
        course = self._course
        total = 0
        segment = bisect_right(course.starts, first) - 1
        while first <= last:
            begin, offset, floor = course.starts[segment], course.offsets[segment], course.floors[segment]
            stop = min(last + 1, course.starts[segment + 1])
            total += self._times.count(max(first + offset, floor), stop + offset)
            if first == begin and floor < begin + offset:
                total += self._has_late_slot(floor, begin + offset)
            first = stop
            segment += 1
        return total

    def _has_late_slot(self, floor: int, local_start: int) -> bool:
        """Tell whether a gap adds a slot at its end: something fell into it, and nothing matches there anyway."""
        match = self._times.first_from(floor)
        return (
            match is not None and match < local_start and self._times.first_from(local_start) != local_start
        )


class Since(Slots):
    """The slots of another rule that do not lie before an instant."""

    __slots__ = ("_slots", "_starts")

    def __init__(self, slots: Slots, starts: UtcMs) -> None:
        self._slots = slots
        self._starts = starts

    @property
    def key(self) -> tuple[object, ...]:
        return (*self._slots.key, self._starts)

    @property
    def at_ms(self) -> UtcMs | None:
        return self._slots.at_ms

    @property
    def zone(self) -> Zone | None:
        return self._slots.zone

    def in_zone(self, zone: Zone) -> Slots:
        return Since(self._slots.in_zone(zone), self._starts)

    def next_ms(self, after: UtcMs) -> UtcMs | None:
        return self._slots.next_ms(max(after, UtcMs(self._starts - 1)))

    def latest_ms(self, before: UtcMs) -> UtcMs | None:
        found = self._slots.latest_ms(before)
        return found if found is not None and found >= self._starts else None

    def count_ms(self, start: UtcMs, end: UtcMs) -> int:
        return self._slots.count_ms(max(start, UtcMs(self._starts - 1)), end)
