"""Where a tool built on croniter would fire a rule at other instants than Cronally does.

croniter reads many crontabs of this world. It repeats fixed times when the clock goes back, takes ``22-2`` and reads
day fields with a ``*`` its own way; whoever moves a rule from such a tool, or to one, wants to know before it matters.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from croniter import CroniterBadDateError, croniter

from cronally.cli.render import zone
from cronally.domain.dst import dst_changes
from cronally.instants import MAX_UTC_MS, UtcMs, from_datetime, to_datetime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cronally.domain.recurrence import Recurrence

    Step = Callable[[UtcMs], UtcMs | None]

MAX_DIFFERENCES: Final = 3
_DAY_MS: Final = 86_400_000
_YEAR_MS: Final = 365 * _DAY_MS
_MAX_WHOLE: Final = 1_500  # slots in a year that are compared one by one: croniter takes 20-300 µs for each
_MAX_CHANGES: Final = 6  # of a zone's offset in a year; Casablanca has two
# What croniter raises for a text or an instant it cannot handle: its own errors are ValueErrors.
_REFUSALS: Final = (ValueError, ArithmeticError, LookupError, TypeError, AttributeError)


class Difference(NamedTuple):
    """An instant at which one of the two fires and the other does not."""

    at: UtcMs
    is_ours: bool


class Opinion(NamedTuple):
    """What a comparison found. refusal: why there is none, or None. is_whole: every slot of the year was looked at."""

    differences: tuple[Difference, ...] = ()
    refusal: str | None = None
    is_whole: bool = True


def second_opinion(rule: Recurrence, after: UtcMs) -> Opinion:
    """Compare the slots of *rule* with croniter's, in its zone, for a year from *after*.

    A rule with many slots is compared by the first slot of each day and around the changes of the clock.
    """
    if rule.fields is None:
        return Opinion(refusal="croniter has no such rules")
    if rule.dialect != "unix":
        return Opinion(refusal=f"croniter does not read the {rule.dialect} dialect")
    if after + _YEAR_MS > MAX_UTC_MS - _YEAR_MS or after < 0:
        return Opinion(refusal="croniter is not asked about years so far away")
    try:
        theirs = _stepper(rule)
        theirs(after)
    except _REFUSALS as exc:
        return Opinion(refusal=f"croniter cannot read it ({' '.join(str(exc).split())[:200]})")
    end = UtcMs(after + _YEAR_MS)
    is_whole = rule.count_ms(after, end) <= _MAX_WHOLE
    found: set[Difference] = set()
    windows = [(after, end)] if is_whole else _windows(rule, after, end)
    try:
        for start, stop in windows:
            for difference in _differences(rule.next_ms, theirs, start, stop):
                found.add(difference)
                if is_whole and len(found) == MAX_DIFFERENCES:
                    break
        if not is_whole:
            for day in range(after, end, _DAY_MS):
                ours, other = rule.next_ms(UtcMs(day)), theirs(UtcMs(day))
                if ours != other:
                    first = min(slot for slot in (ours, other) if slot is not None)
                    found.add(Difference(first, is_ours=first == ours))
    except _REFUSALS as exc:
        return Opinion(
            refusal=f"croniter fails at it ({type(exc).__name__}: {' '.join(str(exc).split())[:200]})"
        )
    return Opinion(tuple(sorted(found)[:MAX_DIFFERENCES]), is_whole=is_whole)


def _stepper(rule: Recurrence) -> Step:
    local_zone = zone(rule.tz)
    iterator = croniter(" ".join(rule.when.split()), to_datetime(UtcMs(0)).astimezone(local_zone))

    def step(after: UtcMs) -> UtcMs | None:
        try:
            start = to_datetime(after).astimezone(local_zone)
            return from_datetime(iterator.get_next(datetime, start_time=start))
        except CroniterBadDateError:
            return None

    return step


def _windows(rule: Recurrence, after: UtcMs, end: UtcMs) -> list[tuple[UtcMs, UtcMs]]:
    """Return the day after *after* and the days around each change of the clock."""
    windows = [(after, UtcMs(after + _DAY_MS))]
    changes = [change.at_ms for change in dst_changes(rule, after, _MAX_CHANGES) if change.at_ms < end]
    return windows + [(UtcMs(at - _DAY_MS // 2), UtcMs(at + _DAY_MS // 2)) for at in changes]


def _differences(ours: Step, theirs: Step, after: UtcMs, end: UtcMs) -> Iterator[Difference]:
    """Yield the instants in (after, end] that only one of the two names, in order."""
    a, b = ours(after), theirs(after)
    while True:
        slots = [slot for slot in (a, b) if slot is not None and slot <= end]
        if not slots:
            return
        now = min(slots)
        if a != b:
            yield Difference(now, is_ours=a == now)
        if a == now:
            a = ours(now)
        if b == now:
            b = theirs(now)
            if b is not None and b <= now:
                raise ValueError("it does not move on")
