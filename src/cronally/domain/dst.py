"""What the changes of a zone's clock do to a rule, in words and in facts.

Nothing here decides when a slot is; ``slots`` does that through ``Zone.floors``. Here the same windows are counted, so
that a person can see why.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from cronally.domain.describe import listed
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cronally.domain.recurrence import Recurrence
    from cronally.domain.wall import WallTimes

Effect = Literal["none", "moved", "merged", "skipped", "repeated", "once"]
_WALL_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - local time is naive by nature


@dataclass(frozen=True, slots=True, kw_only=True)
class DstChange:
    """One change of a zone's offset, and what it does to a rule.

    Attributes: at_ms: the first instant of the new offset. before_s, after_s: the offsets, seconds east of UTC.
        kind: ``gap`` (local times left out) or ``repeat`` (local times that come twice).
        wall_from, wall_to: those local times, naive, from inclusive to exclusive.
        count: the rule's local times among them. effect: ``none`` (count is 0); in a gap ``moved`` (to the first instant
        after it), ``merged`` (several, or one and a regular slot, are one slot there) or ``skipped``; in a repeat
        ``repeated`` (each fires twice) or ``once`` (each fires at the first of two).
        text: the same, a sentence.
    """

    at_ms: UtcMs
    before_s: int
    after_s: int
    kind: Literal["gap", "repeat"]
    wall_from: datetime
    wall_to: datetime
    count: int
    effect: Effect
    text: str


@dataclass(frozen=True, slots=True)
class DstNote:
    """Why a slot is where it is. Attributes: effect: ``moved``, ``merged``, ``repeated`` or ``once``. text: a phrase."""

    effect: Effect
    text: str


def dst_changes(recurrence: Recurrence, after_ms: UtcMs, count: int) -> tuple[DstChange, ...]:
    """Return the next *count* changes of the rule's zone later than *after_ms*: fewer if the zone stops changing.

    A rule without wall-clock times (``@every``, ``@at``) is affected by none: their ``effect`` is ``none``.
    """
    changes: list[DstChange] = []
    for segment in _later_segments(recurrence, after_ms):
        if len(changes) == count:
            break
        change = _change(recurrence, segment)
        if change is not None:
            changes.append(change)
    return tuple(changes)


def dst_note(recurrence: Recurrence, slot_ms: UtcMs) -> DstNote | None:
    """Return what a change of the clock did to the slot *slot_ms*, or None if it did nothing.

    Args: slot_ms: a slot of this recurrence.
    """
    zone, times = recurrence.zone, recurrence.times
    if times is None:
        return None
    utc = slot_ms // 1000
    segment = zone.segment_at(utc)
    local = utc + zone.offsets[segment]
    if utc == zone.starts[segment]:
        change = _change(recurrence, segment)
        if change is not None and change.effect in {"moved", "merged"}:
            return DstNote(change.effect, change.text)
    if local < zone.high[segment]:
        return DstNote("repeated", f"the second {_clock(local)} of that day")
    following = segment + 1
    if following < len(zone.offsets) and zone.local_start(following) <= local:
        if recurrence.repeats:
            return DstNote("repeated", f"the first {_clock(local)} of two")
        return DstNote("once", f"{_clock(local)} comes twice; this is the first, and the only slot")
    return None


def _later_segments(recurrence: Recurrence, after_ms: UtcMs) -> Iterator[int]:
    zone = recurrence.zone
    return iter(range(zone.segment_at(after_ms // 1000) + 1, len(zone.offsets)))


def _change(recurrence: Recurrence, segment: int) -> DstChange | None:
    """Return the change at the start of *segment* (> 0); None if no local time is left out or repeated there."""
    zone = recurrence.zone
    begin, passed = zone.local_start(segment), zone.high[segment]
    if begin == passed:
        return None
    low, high = min(begin, passed), max(begin, passed)
    kind: Literal["gap", "repeat"] = "gap" if passed < begin else "repeat"
    times = recurrence.times
    count = times.count(low, high) if times is not None else 0
    effect, text = _effect(recurrence, kind, low, high, count)
    return DstChange(
        at_ms=UtcMs(zone.starts[segment] * 1000),
        before_s=zone.offsets[segment - 1],
        after_s=zone.offsets[segment],
        kind=kind,
        wall_from=_wall(low),
        wall_to=_wall(high),
        count=count,
        effect=effect,
        text=text,
    )


def _effect(
    recurrence: Recurrence, kind: Literal["gap", "repeat"], low: int, high: int, count: int
) -> tuple[Effect, str]:
    times = recurrence.times
    day, zone = _wall(low).date().isoformat(), recurrence.tz
    span = f"{_clock(low)} to {_clock(high)}" if high - low < 86_400 else f"{_wall(low)} to {_wall(high)}"
    if count == 0 or times is None:
        happens = "does not exist" if kind == "gap" else "comes twice"
        return "none", f"{span} {happens} on {day} in {zone}; the rule has no time there"
    named = _named(times, low, high, count)
    is_one = count == 1
    if kind == "gap":
        lost = f"{named} {'does' if is_one else 'do'} not exist on {day} in {zone}"
        if not recurrence.fills_gaps:
            return "skipped", f"{lost}: no slot"
        if times.first_from(high) == high:
            return "merged", f"{lost}: merged with the slot at {_clock(high)}"
        if is_one:
            return "moved", f"{lost}: the slot is at {_clock(high)}"
        return "merged", f"{lost}: one slot at {_clock(high)} for all of them"
    twice = f"{named} {'comes' if is_one else 'come'} twice on {day} in {zone}"
    if recurrence.repeats:
        return "repeated", f"{twice}: a slot each time"
    return "once", f"{twice}: a slot the first time only"


def _named(times: WallTimes, low: int, high: int, count: int) -> str:
    """Name the matches in a window: all of up to three, else the first and the last."""
    found: list[str] = []
    match = times.first_from(low)
    while match is not None and len(found) < min(count, 3):
        found.append(_clock(match))
        match = times.first_from(match + 1)
    if count > 3:
        last = times.last_before(high)
        return f"{found[0]} to {_clock(last) if last is not None else found[-1]} ({count} times)"
    return listed(found)


def _wall(local: int) -> datetime:
    return _WALL_EPOCH + timedelta(seconds=local)


def _clock(local: int) -> str:
    shown = _wall(local)
    return f"{shown:%H:%M:%S}" if shown.second else f"{shown:%H:%M}"
