"""The journal rows of a pause: one that is open while it goes on, closed with the exact count when it ends."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cronally.domain.model import JournalEntry, Pause, SkipReason, State
from cronally.domain.policy import clip, next_slot, range_in, ranges_between
from cronally.instants import MAX_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.engine.member import Member

Rows = tuple[JournalEntry, ...]


def _first_paused(member: Member, pause: Pause) -> UtcMs | None:
    """Return the first slot that *pause* keeps from firing, or None: its range row stands at that slot."""
    first = next_slot(member.recurrence, member.window, pause.since)
    return first if first is not None and (pause.until is None or first < pause.until) else None


def opened(member: Member, pause: Pause) -> tuple[JournalEntry, ...]:
    """Return the range row that *pause* opens: none if the schedule has no slot during it."""
    first = _first_paused(member, pause)
    return () if first is None else (_pause_row(member, first, first, 0, is_open=True),)


def begun(member: Member, pause: Pause, settled: Sequence[tuple[UtcMs, UtcMs]]) -> tuple[Pause, Rows]:
    """Return a pause that begins although later slots have rows (the clock was set back), and the rows it makes.

    Args: settled: (first, last) of the rows of slots later than ``pause.since``, sorted.
    Returns: the pause, since the last of those slots; closed rows for the slots between them, and the one it opens.
    """
    until = MAX_UTC_MS if pause.until is None else pause.until
    spans = [span for span in settled if span[0] < until]
    if not spans:
        return pause, opened(member, pause)
    through = UtcMs(min(max(last for _, last in spans), until - 1))
    window = clip(member.window, after=pause.since, through=through)
    ranges = ranges_between(member.recurrence, window, spans)
    rows = [_pause_row(member, part.first, part.last, part.slots, is_open=False) for part in ranges]
    pause = replace(pause, since=through)
    return pause, (*rows, *opened(member, pause))


def closed(member: Member, pause: Pause, through: UtcMs) -> tuple[JournalEntry, ...]:
    """Return the row that *pause* opened, closed after *through*; count 0 if no slot came to pass."""
    first = _first_paused(member, pause)
    if first is None:
        return ()
    if pause.until is not None:
        through = UtcMs(min(through, pause.until - 1))
    paused = range_in(member.recurrence, clip(member.window, after=pause.since, through=through))
    if paused is None:
        return (_pause_row(member, first, first, 0, is_open=False),)
    return (_pause_row(member, paused.first, paused.last, paused.slots, is_open=False),)


def unless_both(closing: Rows, opening: Rows) -> tuple[Rows, Rows]:
    """A pause that goes on with another end keeps its row: it needs one opened or closed only if it had or needs none."""
    return ((), ()) if closing and opening else (closing, opening)


def _pause_row(member: Member, first: UtcMs, last: UtcMs, count: int, *, is_open: bool) -> JournalEntry:
    return JournalEntry(
        schedule_id=member.id,
        fire_time=first,
        revision_id=member.revision_id,
        due_time=UtcMs(first + member.offset_ms),
        state=State.SKIPPED,
        reason=SkipReason.PAUSED,
        last_fire_time=last,
        count=count,
        is_open=is_open,
    )
