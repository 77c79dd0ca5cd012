"""What a store is asked to keep, and what it gives back. Instants are UTC milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cronally.domain.model import Fire, JournalEntry, Kind, Pause, SkipReason, State
    from cronally.domain.spec import ScheduleSpec
    from cronally.instants import UtcMs


MOST_TOLD: Final = 20_000
"""Entries that are told one by one to whoever listens; if more become final at once, they are counted."""

OWN_NAME: Final = "cronally"
"""Who made a change that nobody asked for, in the audit log: the end of a pause, say."""

ACTIONS: Final = (
    "add",
    "set",
    "mv",
    "rm",
    "pause",
    "resume",
    "run",
    "retry",
    "backfill",
    "apply",
    "set-back",
)
"""What is done to schedules, in the audit log. ``set-back``: what followed from a wall clock that was set back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What the store knew when it was opened.

    watermark: every slot due at or before it is journalled; None in a new store. was_clean: the last daemon stopped
    in order (also True for a new store). pruned_through: slots due at or before it count as settled, although their
    rows may be gone; None if nothing was pruned yet. reached: the latest instant the wall clock had shown when it was set
    back; None if it never was. set_back_at: what it was set back to, if not all that follows is on record. failing: ids of the schedules that have an error.
    """

    watermark: UtcMs | None
    was_clean: bool
    pruned_through: UtcMs | None = None
    reached: UtcMs | None = None
    set_back_at: UtcMs | None = None
    failing: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSchedule:
    """A schedule as the store has it: its current revision and its state.

    Fields: id: never reused. revision: the revision's number, from 1. revision_id: unique among all revisions.
        effective_from: it has no slots at or before it. error: what SNS last said against it, None when all is well.
        pending: its pending fires. owner: of the apply that made it or took it over; None if a person made it.
    """

    id: int
    spec: ScheduleSpec
    revision: int
    revision_id: int
    effective_from: UtcMs
    created_at: UtcMs
    changed_at: UtcMs
    pause: Pause | None = None
    error: str | None = None
    owner: str | None = None
    pending: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleChange:
    """One change of one schedule, made whole or not at all, together with the journal rows it entails.

    Fields: id: None to create one. expected_revision_id: the revision it replaces, None to create; the store refuses
        with RevisionConflict if another is current. new_spec: None keeps the revision (pause, resume).
        effective_from: None keeps it. pause: the pause from now on, None for none. is_removal: the schedule goes,
        its name becomes free, and its journal stays. by: who asked, for the audit log. action: what they did.
        unsettled: pending rows for slots of the old revision at or before the change; a row that is there already
        (published meanwhile, say) stays as it is. closed: range rows of a pause, open or not, now with their ends (count 0
        removes the row). opened: the range row a pause opens; a schedule id or revision id of 0 in it stands for the
        one this change makes. drop_pending: skip all pending fires of it (reason ``dropped``) but those in *kept*,
        (fire time, kind). *unsettled* may hold skipped rows then.
    """

    at: UtcMs
    by: str
    action: str
    id: int | None = None
    expected_revision_id: int | None = None
    name: str | None = None
    new_spec: ScheduleSpec | None = None
    effective_from: UtcMs | None = None
    pause: Pause | None = None
    owner: str | None = None
    is_removal: bool = False
    unsettled: tuple[JournalEntry, ...] = ()
    closed: tuple[JournalEntry, ...] = ()
    opened: tuple[JournalEntry, ...] = ()
    drop_pending: bool = False
    kept: frozenset[tuple[UtcMs, Kind]] = frozenset()


class Revised(NamedTuple):
    """The ids a change gave or kept. pending: pending fires of the schedule after the change. dropped: those it has dropped, by kind."""

    id: int
    revision: int
    revision_id: int
    pending: int
    dropped: tuple[tuple[Kind, int], ...] = ()


class TimetableRow(NamedTuple):
    """What the timetable needs of one schedule at start.

    rule: canonical JSON of the spec, the message left out (``domain.spec.rule_document``): the same text for all
    schedules that differ in nothing else, so that it is read once. slot_time: the one slot of an ``@at`` rule as it was computed when it was written; None for other rules.
    """

    id: int
    revision_id: int
    name: str
    rule: str
    effective_from: UtcMs
    paused_since: UtcMs | None
    paused_until: UtcMs | None
    slot_time: UtcMs | None = None


class PendingFire(NamedTuple):
    """A pending row: the fire, and when it may next be tried. is_in_line: when its turn comes; that instant is its deadline."""

    fire: Fire
    next_attempt_at: UtcMs
    is_in_line: bool = False


LinePlace = tuple["UtcMs", int, "UtcMs", str]
"""A pending fire's place in the line of its topic and priority: (due time, schedule id, fire time, kind)."""


class Newer(NamedTuple):
    """A slot of a ``latest`` schedule came due: older ones that are pending and were due before *due_before* go no more."""

    schedule_id: int
    fire_time: UtcMs
    due_before: UtcMs


class JournalRow(NamedTuple):
    """A journal entry with its name (the revision's) for listings."""

    name: str
    entry: JournalEntry


class Reopened(NamedTuple):
    """A journal row that is final, and what takes its place: pending rows, and what is left of a range.

    The first of *new* stands at the key of *old*.
    """

    old: JournalEntry
    new: tuple[JournalEntry, ...]


class Order(NamedTuple):
    """Fires of one schedule that somebody asked for, for the audit log: how many, the ids of the first and the last."""

    schedule_id: int
    revision_id: int
    fires: int
    first: str
    last: str


class StagedRow(NamedTuple):
    """A line of ``apply``, checked. at_due: due time of an ``@at`` rule, None for every other."""

    name: str
    document: str
    at_due: UtcMs | None = None


class StagedChange(NamedTuple):
    """A staged line that differs from what is stored. id and revision_id are None for a new schedule."""

    name: str
    id: int | None
    revision_id: int | None
    document: str


class Owned(NamedTuple):
    """A schedule that an apply of some owner made or took over."""

    name: str
    id: int
    revision_id: int


class ZoneRecord(NamedTuple):
    """A time zone as it was under one version of tzdata.

    Fields: starts, offsets: of its segments, as in ``domain.zones.Zone``: UTC seconds at which each begins, and seconds to
        add to UTC there.
    """

    name: str
    tzdata: str
    starts: tuple[int, ...]
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalFilter:
    """Which journal entries a listing wants, newest first. Bounds are fire times, *since* <= t < *until*.

    A row of several slots is wanted if it reaches into that time: its first slot before *until*, its last at or after
    *since*; an open row has no last slot yet and reaches as far as you like. before: keyset of the last row of the page before: (fire time, schedule id, kind).
    """

    schedule: str | None = None
    states: frozenset[State] = frozenset()
    reasons: frozenset[SkipReason] = frozenset()
    since: UtcMs | None = None
    until: UtcMs | None = None
    before: tuple[UtcMs, int, str] | None = None
    limit: int = 100


AuditPlace = tuple["UtcMs", int, int]
"""A change's place in the audit log, which is in the order of these: when; 0 for a new revision, 1 for any other; which of those."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which changes a listing wants, newest first. Bounds: *since* <= when < *until*.

    schedule: a name that it bears or bore. by: who, as ``is_by`` takes it. actions: any if empty. before: the place that the page
    before gave as ``next``.
    """

    schedule: str | None = None
    by: str | None = None
    actions: frozenset[str] = frozenset()
    since: UtcMs | None = None
    until: UtcMs | None = None
    before: AuditPlace | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One change of one schedule: who did what, and when.

    Fields: name, revision: of the schedule after it. before, after: its revisions, where the change made a new one (before is None for
        the first) or removed it (after is None); else both None. detail: what else is known, by these keys where they apply.
        ``since``, ``until``, ``note``: of the pause after it. ``was``: the pause before it (the same three, or None), where it
        is another one. ``owner``: of the apply. ``owner_was``: the one before it, where it is another one. ``drop_pending``: pending
        fires were skipped. ``fire_id``: of a manual fire. ``fires``, ``first``, ``last``: how many were asked for, and ids.
    """

    at: UtcMs
    by: str
    action: str
    name: str
    revision: int
    before: ScheduleSpec | None = None
    after: ScheduleSpec | None = None
    detail: Mapping[str, object] = field(default_factory=dict)


class AuditPage(NamedTuple):
    """Changes, newest first. next: where the next page begins, None if there is none.

    A page may have fewer rows than were asked for, even none, although there is a next one: so much was looked through.
    """

    rows: list[AuditRow]
    next: AuditPlace | None


def is_by(who: str, by: str) -> bool:
    """Whether *by*, as it was recorded, is *who*: the same text, or the id or name of a user: ``1000`` and ``anna`` are ``uid 1000 (anna)``."""
    by, _, _ = by.partition(" on ")  # the machine that was asked
    who = who.removeprefix("uid ")
    user = f"uid {who}"
    is_named = by.startswith("uid ") and by.endswith(f" ({who})")
    return by in (who, user) or by.startswith(f"{user} (") or is_named


class Pruned(NamedTuple):
    """What one step of pruning did.

    Fields: rows: deleted. through: pruned through, as it is now; None if nothing was ever pruned. after: the key of the
        last row looked at, where the next step goes on; None before the first. is_end: no more rows are that old.
    """

    rows: int
    through: UtcMs | None
    after: tuple[UtcMs, int, str] | None
    is_end: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCounts:
    """How much there is. journal: entries per state, counting each slot of a range row; without the final ones if they were not asked for."""

    schedules: int
    paused: int
    failing: int
    journal: dict[State, int] = field(default_factory=dict)
    oldest_pending_due: UtcMs | None = None


class Label(NamedTuple):
    """What is told of a revision beside its rule and message. late_after: milliseconds, None if it is not reported as late."""

    name: str
    topic: str
    tz: str
    late_after: int | None = None


class TopicUse(NamedTuple):
    """A topic that schedules name, or that has pending fires.

    Fields: schedules: how many name it; failing: of them those SNS refused last. error: what it said of one of those.
        pending: fires that are still to be published to it, also of removed schedules.
    """

    topic: str
    schedules: int
    failing: int
    pending: int
    error: str | None


# --- several machines over one store ------------------------------------------------------------------------------


class LogPlace(NamedTuple):
    """A place in what the machines have committed: *sequence* is the last commit of *machine* up to there."""

    machine: str
    sequence: int


class Machine(NamedTuple):
    """A machine's heartbeat, as the shared store has it.

    Fields: id: of one incarnation, a start of a daemon; never used again. host: what people call the machine. version: another
        one with each renewal. sequence: of its last commit. watermark: of its shards but those in *behind*, None before the
        first commit that says one. behind: the watermarks of shards that it has taken and not brought in line yet.
        lease_ms: how long it may be silent. hand_overs: how many shards it has given or taken; a reader that sees another
        number reads the shards again. is_retired: it will never commit again; sequence and watermark are frozen.
        has_left: it is retired because it stopped in order. is_leaving: it is about to, gives its shards and takes no more.
    """

    id: str
    host: str
    version: int
    sequence: int
    watermark: UtcMs | None
    behind: Mapping[int, UtcMs | None]
    lease_ms: int
    hand_overs: int
    started_at: UtcMs
    is_retired: bool = False
    has_left: bool = False
    is_leaving: bool = False

    def watermark_of(self, shard: int) -> UtcMs | None:
        """Return the watermark of one of its shards."""
        return self.behind.get(shard, self.watermark)


class Shard(NamedTuple):
    """Who drives a shard, as the shared store has it; it changes only at a hand-over.

    Fields: owner: a machine's id, None if nobody drives it. epoch: 0 for one that was never driven, then + 1 with each
        take-over. watermark: as it was when it was handed over last; None in a new store. was_clean: it was given in order,
        and all that was sent of it is on record: also no slot is still to come, after a clock was set back, that a machine
        which crashed may have sent.
    """

    number: int
    owner: str | None
    epoch: int
    watermark: UtcMs | None
    was_clean: bool = True


class GivenUp(NamedTuple):
    """What a machine says of a shard that it has let go of: as in ``Shard``."""

    watermark: UtcMs
    was_clean: bool


class Told(NamedTuple):
    """What people have been told of a shard. Fields: troubled: ids of its schedules that they know to be in trouble. at: when the last message of them left."""

    troubled: frozenset[int] = frozenset()
    at: UtcMs | None = None


class TakenIn(NamedTuple):
    """A shard whose records are now among those that this machine's engine reads.

    Fields: rows: its schedules. watermark: every slot of theirs due at or before it has an entry; None: none was ever committed.
        was_clean: see ``Shard``. failing: ids of its schedules that have an error. pruned_through, reached, set_back_at: as in ``Opened``,
        of the machine that had it.
    """

    number: int
    rows: Sequence[TimetableRow]
    watermark: UtcMs | None
    was_clean: bool
    failing: frozenset[int] = frozenset()
    pruned_through: UtcMs | None = None
    reached: UtcMs | None = None
    set_back_at: UtcMs | None = None


class Asked(NamedTuple):
    """What another machine asks. id: of the request, for its answer. parts: of how many its record consists; the inbox knows."""

    id: str
    request: bytes
    parts: int = 0
