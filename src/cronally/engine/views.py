"""What the socket is told of schedules and of the daemon."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from cronally.domain.model import Pause
from cronally.domain.policy import next_slot, slot_window
from cronally.engine.retention import Keep
from cronally.errors import UsageError
from cronally.instants import MIN_UTC_MS, UtcMs

if TYPE_CHECKING:
    from cronally.domain.model import State
    from cronally.domain.spec import PauseWish, ScheduleSpec
    from cronally.engine.membership import Sharing
    from cronally.engine.records import Label, StoredSchedule
    from cronally.engine.zone_watch import ZoneChange


class ScheduleView(NamedTuple):
    """A schedule with what follows from it. next_fires: the next slots, at most as many as asked for; empty if none or paused."""

    stored: StoredSchedule
    next_fires: tuple[UtcMs, ...]
    warnings: tuple[str, ...] = ()


class PutResult(NamedTuple):
    """The outcome of a change, and the schedule as it is now."""

    outcome: Literal["created", "changed", "unchanged"]
    view: ScheduleView


class Refusing(NamedTuple):
    """A topic for which SNS refuses everything. error: what it said last. pending: fires that wait for it."""

    topic: str
    since: UtcMs
    error: str | None
    pending: int
    next_probe: UtcMs


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the daemon is.

    Attributes: lateness_us: p50, p99 and max of recent scheduled fires; None before the first. lateness_histogram: (upper
        bound in microseconds or None, fires since the start) for each bucket. zone_change: what
        another version of tzdata moved when the daemon started, or None. pruned_through: entries of slots due at or before
        it may be gone; None if none were pruned. size_bytes: what the store uses. keep: how much of the journal is kept.
        store_warning: what is wrong with the place where the store lies, or None. refusing: the topics for which SNS refuses
        everything, the first 20 of refusing_count. sharing: the machines that share the store; None if there is only this one.
    """

    version: str
    tzdata: str
    started_at: UtcMs
    now: UtcMs
    is_ready: bool
    not_ready_because: str | None
    store: str
    schedules: int
    paused: int
    failing: int
    journal: dict[State, int] = field(default_factory=dict)
    watermark: UtcMs | None = None
    next_fire: UtcMs | None = None
    in_flight: int = 0
    lateness_us: dict[str, int] | None = None
    lateness_histogram: list[tuple[int | None, int]] = field(default_factory=list)
    stand_in: str | None = None
    zone_change: ZoneChange | None = None
    pruned_through: UtcMs | None = None
    size_bytes: int = 0
    keep: Keep = field(default_factory=Keep)
    store_warning: str | None = None
    refusing: tuple[Refusing, ...] = ()
    refusing_count: int = 0
    sharing: Sharing | None = None


class Coming(NamedTuple):
    """A slot to come, and whose it is."""

    label: Label
    fire_time: UtcMs
    due_time: UtcMs


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What a live view shows.

    Attributes: ended: slots by the final state that they came to since the start, without what was skipped by a command. coming:
        the next slot of each of the schedules that come first, by due time, without what is planned already, which is due
        within some seconds. The others: as in ``Status``.
    """

    version: str
    started_at: UtcMs
    now: UtcMs
    not_ready_because: str | None
    schedules: int
    paused: int
    failing: int
    pending: int
    oldest_pending_due: UtcMs | None
    in_flight: int
    watermark: UtcMs
    ended: dict[State, int]
    lateness_us: dict[str, int] | None
    refusing: tuple[Refusing, ...]
    refusing_count: int
    coming: tuple[Coming, ...]


def next_slots(spec: ScheduleSpec, after: UtcMs, count: int) -> list[UtcMs]:
    """Return the next *count* slots of a schedule later than *after*, within its bounds; none if its rule is parked."""
    try:
        recurrence = spec.recurrence().slots
    except UsageError:
        return []
    window = slot_window(MIN_UTC_MS, spec.starts, spec.ends)
    slots: list[UtcMs] = []
    slot = next_slot(recurrence, window, after)
    while slot is not None and len(slots) < count:
        slots.append(slot)
        slot = next_slot(recurrence, window, slot)
    return slots


def fires_to_come(spec: ScheduleSpec, pause: Pause | None, after: UtcMs, count: int) -> tuple[UtcMs, ...]:
    """Return the next *count* slots later than *after*, and not before a pause's end; none while it is paused for good."""
    if pause is not None:
        if pause.until is None:
            return ()
        after = UtcMs(max(after, pause.until - 1))
    return tuple(next_slots(spec, after, count))


def warnings_of(spec: ScheduleSpec) -> tuple[str, ...]:
    try:
        return spec.recurrence().warnings
    except UsageError as exc:
        return (str(exc),)


def wished_pause(wish: PauseWish, stored: StoredSchedule | None, now: UtcMs) -> Pause | None:
    """Return the pause a schedule shall have; its ``since`` is the change's to fill in. One that is over is none."""
    present = stored.pause if stored else None
    if wish.is_paused is None:
        return present
    if not wish.is_paused or (wish.until is not None and wish.until <= now):
        return None
    return Pause(since=present.since if present else UtcMs(0), until=wish.until, note=wish.note)
