"""The fires of a schedule under its old system's rule and under ours, side by side."""

from __future__ import annotations

from functools import lru_cache
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.domain.dst import dst_changes
from cronally.instants import MAX_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cronally.cli.importing.old_rules import OldRule
    from cronally.domain.recurrence import Recurrence

NEXT: Final = 3  # fires of each side that are shown
MAX_DIFFERENCES: Final = 6  # later ones that are shown
_MOST_SHOWN: Final = 8  # of both sides together
_YEAR_MS: Final = 366 * 86_400_000
_AROUND_MS: Final = (
    4 * 3_600_000
)  # a change of the clock: its gap, its repeated hours and what is next to them
_MOST_WHOLE: Final = (
    400  # slots in a year that are compared one by one; croniter takes 30 µs and more for each
)
_MOST_CHANGES: Final = 4  # of a zone's clock in a year
_MOST_IN_WINDOW: Final = 1_000


class Fire(NamedTuple):
    """An instant, and which of the two fires at it."""

    at: UtcMs
    is_old: bool
    is_ours: bool


class Comparison(NamedTuple):
    """What was found.

    next_fires: from now on, until each side has had three. later: instants of the year to come at which only one of the
    two fires; not all if there are many. is_whole: every slot of the year was compared, not only those around the changes
    of the clock. failure: why the old side could not be computed, or None.
    """

    next_fires: tuple[Fire, ...]
    later: tuple[Fire, ...] = ()
    is_whole: bool = False
    failure: str | None = None


@lru_cache(maxsize=1_024)
def compare(rule: Recurrence, old: OldRule | None, start: UtcMs, until: UtcMs | None) -> Comparison:
    """Compare both from *start* (exclusive) to *until* (inclusive; None: without end)."""
    end = MAX_UTC_MS if until is None else until
    ours_alone = tuple(
        Fire(at, is_old=False, is_ours=True) for at in islice(rule.between_ms(start, end), NEXT)
    )
    if old is None:
        return Comparison(ours_alone)
    try:
        nearest = _nearest(rule, old, start, end)
        shown_to = nearest[-1].at if nearest else start
        year_end = UtcMs(min(end, start + _YEAR_MS))
        is_whole = rule.count_ms(start, year_end) <= _MOST_WHOLE
        windows = [(shown_to, year_end)] if is_whole else _windows(rule, shown_to, year_end)
        later: list[Fire] = []
        for begin, stop in windows:
            later += islice(_alone(rule, old, begin, stop), MAX_DIFFERENCES + 1 - len(later))
    except (ArithmeticError, LookupError, TypeError, ValueError) as exc:
        return Comparison(ours_alone, failure=" ".join(str(exc).split())[:200] or type(exc).__name__)
    return Comparison(nearest, tuple(later), is_whole)


def _nearest(rule: Recurrence, old: OldRule, start: UtcMs, end: UtcMs) -> tuple[Fire, ...]:
    found: list[Fire] = []
    ours = theirs = 0
    for fire in _both(rule, old, start, end):
        found.append(fire)
        ours += fire.is_ours
        theirs += fire.is_old
        if min(ours, theirs) >= NEXT or len(found) == _MOST_SHOWN:
            break
    return tuple(found)


def _windows(rule: Recurrence, start: UtcMs, end: UtcMs) -> list[tuple[UtcMs, UtcMs]]:
    changes = [change.at_ms for change in dst_changes(rule, start, _MOST_CHANGES) if change.at_ms <= end]
    return [
        (UtcMs(max(start, at - _AROUND_MS)), UtcMs(min(end, at + _AROUND_MS)))
        for at in changes
        if at + _AROUND_MS > start
    ]


def _alone(rule: Recurrence, old: OldRule, start: UtcMs, end: UtcMs) -> Iterator[Fire]:
    fires = islice(_both(rule, old, start, end), _MOST_IN_WINDOW)
    return (fire for fire in fires if not (fire.is_old and fire.is_ours))


def _both(rule: Recurrence, old: OldRule, start: UtcMs, end: UtcMs) -> Iterator[Fire]:
    """Yield the instants of either side in start < instant <= end, in order."""
    sides = merge(
        ((at, True) for at in rule.between_ms(start, end)), ((at, False) for at in old.after(start))
    )
    at: UtcMs | None = None
    is_ours = is_old = False
    for instant, is_side_ours in sides:
        if instant != at:
            if at is not None:
                yield Fire(at, is_old, is_ours)
            at, is_ours, is_old = instant, False, False
        if instant > end:
            return
        is_ours, is_old = is_ours or is_side_ours, is_old or not is_side_ours
    if at is not None:
        yield Fire(at, is_old, is_ours)
