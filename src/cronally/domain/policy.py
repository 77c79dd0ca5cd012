"""What becomes of slots that could not fire on time, and when to try again (design §4).

Pure arithmetic: instants, policies and random numbers are arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.durations import MINUTE_MS
from cronally.domain.model import MISSED_AFTER_MS, CatchUp
from cronally.instants import MAX_UTC_MS, MIN_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cronally.domain.slots import Slots

CATCH_UP_ALL_MOST = 1_000  # design §4: `all` fires the newest 1,000
BACKOFF_FIRST_MS = 200
BACKOFF_CAP_MS = MINUTE_MS
HOLD_MS = 5 * MINUTE_MS


class SlotRange(NamedTuple):
    """*slots* consecutive slots of one rule, from *first* to *last*, both included."""

    first: UtcMs
    last: UtcMs
    slots: int


class CaughtUp(NamedTuple):
    """The fate of unsettled slots: those that fire, oldest first; those past their deadline; those skipped."""

    fires: list[UtcMs]
    expired: list[UtcMs]
    skipped: list[SlotRange]


class Window(NamedTuple):
    """The fire times a schedule may have: *after* < slot <= *through*."""

    after: UtcMs
    through: UtcMs


def slot_window(effective_from: UtcMs, starts: UtcMs | None, ends: UtcMs | None) -> Window:
    """Return the window that a schedule's effective from and its inclusive bounds leave open."""
    after = effective_from if starts is None else UtcMs(max(effective_from, starts - 1))
    return Window(after, MAX_UTC_MS if ends is None else ends)


def clip(window: Window, *, after: UtcMs = MIN_UTC_MS, through: UtcMs = MAX_UTC_MS) -> Window:
    return Window(UtcMs(max(window.after, after)), UtcMs(min(window.through, through)))


def next_slot(recurrence: Slots, window: Window, after: UtcMs) -> UtcMs | None:
    """Return the first slot in *window* later than *after*, or None."""
    slot = recurrence.next_ms(UtcMs(max(after, window.after)))
    return slot if slot is not None and slot <= window.through else None


def range_in(recurrence: Slots, window: Window) -> SlotRange | None:
    """Return the slots of *recurrence* in *window* as one range, or None if there are none."""
    if window.after >= window.through:
        return None
    first = recurrence.next_ms(window.after)
    if first is None or first > window.through:
        return None
    last = recurrence.latest_ms(UtcMs(window.through + 1))
    assert last is not None
    return SlotRange(first, last, recurrence.count_ms(window.after, window.through))


def without(recurrence: Slots, whole: SlotRange, slots: Sequence[UtcMs]) -> Iterator[SlotRange]:
    """Return what is left of *whole* when some of its slots, sorted, are taken out, oldest first."""
    return ranges_between(
        recurrence, Window(UtcMs(whole.first - 1), whole.last), [(slot, slot) for slot in slots]
    )


def ranges_between(
    recurrence: Slots, window: Window, settled: Sequence[tuple[UtcMs, UtcMs]]
) -> Iterator[SlotRange]:
    """Yield the slots of *window* between the settled (first, last), which are sorted, as ranges, oldest first."""
    for gap in _gaps(window, settled):
        found = range_in(recurrence, gap)
        if found is not None:
            yield found


def catch_up(
    recurrence: Slots,
    window: Window,
    settled: Sequence[tuple[UtcMs, UtcMs]],
    *,
    now: UtcMs,
    offset_ms: int,
    policy: CatchUp,
    deadline_ms: int,
) -> CaughtUp:
    """Decide the slots of *window* that no journal row covers.

    Args: window: fire times; its end is at most now − offset. settled: (first, last) of the rows there are, sorted by
        first. offset_ms: due − fire time. deadline_ms: how late after its due time a slot may still begin.
    Returns: slots less than 10 s late all fire, whatever the policy. Of the older ones ``latest`` fires the newest,
        ``all`` the newest 1,000, ``skip`` none; the others are skipped, in ranges that touch no settled slot.
        What would fire but is past its deadline is expired.
    """
    last_missed = UtcMs(now - offset_ms - MISSED_AFTER_MS - 1)  # late by more than 10 s
    parts = list(_gaps(window, settled))
    late = [
        slot
        for gap in parts
        for slot in recurrence.between_ms(UtcMs(max(gap.after, last_missed)), gap.through)
    ]
    most = {CatchUp.LATEST: 1, CatchUp.ALL: CATCH_UP_ALL_MOST, CatchUp.SKIP: 0}[policy]
    chosen: list[UtcMs] = []
    skipped: list[SlotRange] = []
    for gap in reversed(parts):
        rest = clip(gap, through=last_missed)
        while len(chosen) < most and rest.after < rest.through:
            slot = recurrence.latest_ms(UtcMs(rest.through + 1))
            if slot is None or slot <= rest.after:
                rest = rest._replace(through=rest.after)
                break
            chosen.append(slot)
            rest = rest._replace(through=UtcMs(slot - 1))
        older = range_in(recurrence, rest)
        if older is not None:
            skipped.append(older)
    fires = [*reversed(chosen), *late]
    oldest = now - offset_ms - deadline_ms
    return CaughtUp(
        fires=[slot for slot in fires if slot >= oldest],
        expired=[slot for slot in fires if slot < oldest],
        skipped=skipped[::-1],
    )


def _gaps(window: Window, settled: Sequence[tuple[UtcMs, UtcMs]]) -> Iterator[Window]:
    """Yield the parts of *window* between the settled ranges, oldest first."""
    after = window.after
    for first, last in settled:
        if first > window.through:
            break
        if first - 1 > after:
            yield Window(after, UtcMs(first - 1))
        after = UtcMs(max(after, last))
    if after < window.through:
        yield Window(after, window.through)


def backoff_ms(attempts: int, jitter: float) -> int:
    """Return how long to wait after the *attempts*-th attempt (from 1): 0.2 s doubling, cap 60 s, full jitter.

    jitter: uniform in [0, 1). Never 0, so that time passes between two attempts.
    """
    ceiling = min(BACKOFF_CAP_MS, BACKOFF_FIRST_MS << min(attempts - 1, 20))
    return max(1, int(ceiling * jitter))
