"""What Cronally knows: schedules, their fires, and what became of each.

Everything here is frozen. Instants are ``UtcMs``, durations milliseconds. The states of a slot and the moves between
them are drawn in docs/states.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from cronally.errors import UsageError
from cronally.instants import MAX_UTC_MS, UtcMs, format_utc, parse_rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

MISSED_AFTER_MS = 10_000  # design §4: later than this by the time it can fire, a slot counts as missed


class Kind(StrEnum):
    """Why a fire exists."""

    SCHEDULED = "scheduled"
    MANUAL = "manual"
    BACKFILL = "backfill"

    __hash__ = (
        str.__hash__
    )  # an Enum's own is written in Python, and every held fire is found by its kind, too


class State(StrEnum):
    """What became of a slot, as journalled."""

    PUBLISHED = "published"
    PENDING = "pending"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    REJECTED = "rejected"


class SkipReason(StrEnum):
    """Why a slot was not published on purpose."""

    CATCH_UP = "catch_up"
    SUPERSEDED = "superseded"
    PAUSED = "paused"
    DROPPED = "dropped"


class CatchUp(StrEnum):
    """Which missed slots still fire: the newest, all (up to 1,000), or none."""

    LATEST = "latest"
    ALL = "all"
    SKIP = "skip"


class FireKey(NamedTuple):
    """The identity of a fire, and the primary key of the journal."""

    schedule_id: int
    fire_time: UtcMs
    kind: Kind


class Fire(NamedTuple):
    """One occurrence of a schedule, as the engine carries it.

    A tuple, not a dataclass: a burst makes a hundred thousand of them.

    Fields: due_time: fire time + the schedule's spread (manual, backfill: when the command was given).
        attempts: attempts already made. maybe_published: an earlier attempt ended without an answer.
        deadline_at: the last instant at which an attempt may begin; set when its revision is known.
        asked_at: when it was last asked for again (``retry``), None if never; its deadline counts from there.
    """

    schedule_id: int
    revision_id: int
    fire_time: UtcMs
    due_time: UtcMs
    kind: Kind = Kind.SCHEDULED
    attempts: int = 0
    maybe_published: bool = False
    deadline_at: UtcMs = MAX_UTC_MS
    asked_at: UtcMs | None = None

    @property
    def counted_from(self) -> UtcMs:
        """From when its deadline counts: when it is due, or was asked for again."""
        return self.due_time if self.asked_at is None else UtcMs(max(self.due_time, self.asked_at))

    @property
    def key(self) -> FireKey:
        return FireKey(self.schedule_id, self.fire_time, self.kind)


def fire_id(name: str, fire_time: UtcMs, kind: Kind = Kind.SCHEDULED) -> str:
    """Return the fire's id: ``NAME@2026-11-23T09:00:00Z``, ``+manual`` or ``+backfill`` appended for those kinds."""
    return f"{name}@{format_utc(fire_time)}{'' if kind is Kind.SCHEDULED else f'+{kind}'}"


class FireName(NamedTuple):
    """A fire id, taken apart; written, it is one again. name: the schedule's at the time."""

    name: str
    fire_time: UtcMs
    kind: Kind

    def __str__(self) -> str:
        return fire_id(self.name, self.fire_time, self.kind)

    def keys(self, schedule_ids: Iterable[int]) -> list[FireKey]:
        """Return the keys the fire may have if one of *schedule_ids* is its schedule."""
        return [FireKey(id_, self.fire_time, self.kind) for id_ in schedule_ids]


def parse_fire_id(text: str) -> FireName:
    """Take a fire id apart. Errors: UsageError."""
    name, at, rest = text.strip().partition("@")
    kind = next((kind for kind in (Kind.MANUAL, Kind.BACKFILL) if rest.endswith(f"+{kind}")), Kind.SCHEDULED)
    time = rest if kind is Kind.SCHEDULED else rest.removesuffix(f"+{kind}")
    try:
        if name and at:
            return FireName(name, parse_rfc3339(time), kind)
    except ValueError:
        pass
    raise UsageError(
        f"{text[:150]!r} is no fire id; one looks like nightly-report@2026-11-23T09:00:00Z, and 'cronally history' lists them"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A schedule at rest. since: its slots after this do not fire. until: the slot at this instant fires again."""

    since: UtcMs
    until: UtcMs | None = None
    note: str | None = None
    by: str | None = None


def is_same_pause(present: Pause | None, wished: Pause | None) -> bool:
    """Whether two pauses say the same, whenever they began."""
    if present is None or wished is None:
        return present is wished
    return (present.until, present.note) == (wished.until, wished.note)


class JournalEntry(NamedTuple):
    """What became of one slot, or of ``count`` consecutive slots that share one fate.

    A tuple, as a fire is. Name the fields you give.

    Fields: fire_time .. last_fire_time: the first and last slot (equal when count is 1). ``is_open``: a pause that
        goes on; its last slot and count are not known yet and stand at the first slot and 0.
        due_time: of the first slot. released_at: its last attempt was written. published_at: SNS accepted it.
        lateness_us: released - due, microseconds, never negative. next_attempt_at: pending only, when to try next.
        maybe_published: an attempt ended without an answer, so that a receiver may have it although we say otherwise.
        is_in_line: pending only: it goes when its turn comes, by priority and due time; its next attempt is its deadline.
        asked_at: see Fire.
    """

    schedule_id: int
    fire_time: UtcMs
    revision_id: int
    due_time: UtcMs
    state: State
    kind: Kind = Kind.SCHEDULED
    reason: SkipReason | None = None
    attempts: int = 0
    released_at: UtcMs | None = None
    published_at: UtcMs | None = None
    lateness_us: int | None = None
    maybe_published: bool = False
    last_error: str | None = None
    next_attempt_at: UtcMs | None = None
    last_fire_time: UtcMs | None = None
    count: int = 1  # type: ignore[assignment]  # the field hides tuple.count, which nobody wants of an entry
    is_open: bool = False
    is_in_line: bool = False
    asked_at: UtcMs | None = None

    @property
    def key(self) -> FireKey:
        return FireKey(self.schedule_id, self.fire_time, self.kind)

    @property
    def last_slot(self) -> UtcMs:
        """The fire time of the last slot; of an open row the first one's, as long as no other is known."""
        return self.fire_time if self.last_fire_time is None else self.last_fire_time

    @property
    def last_due_time(self) -> UtcMs:
        """When the last slot is due."""
        return UtcMs(self.last_slot + self.due_time - self.fire_time)
