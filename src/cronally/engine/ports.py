"""What the engine asks of the world, and what each answer promises.

The engine decides; ``Store`` remembers and ``Publisher`` sends. Each port has one conformance suite that every
implementation passes (tests/conformance/). Instants are UTC milliseconds.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container, Iterable, Sequence

    from cronally.domain.batching import Batch
    from cronally.domain.model import Fire, FireKey, JournalEntry, Kind
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.records import (
        Asked,
        AuditFilter,
        AuditPage,
        GivenUp,
        JournalFilter,
        JournalRow,
        Label,
        LinePlace,
        Machine,
        Newer,
        Opened,
        Order,
        Owned,
        PendingFire,
        Pruned,
        Reopened,
        Revised,
        ScheduleChange,
        Shard,
        StagedChange,
        StagedRow,
        StoreCounts,
        StoredSchedule,
        TakenIn,
        TimetableRow,
        TopicUse,
        ZoneRecord,
    )
    from cronally.instants import UtcMs


# --- publisher --------------------------------------------------------------------------------------------------


class OutcomeClass(Enum):
    """What an attempt came to (design §6)."""

    PUBLISHED = "published"
    RETRY = "retry"
    """May succeed soon: throttling, 5xx, reset, time-out."""
    HOLD = "hold"
    """May succeed once somebody repairs it: topic gone, access denied, key disabled. Retried slowly."""
    REJECTED = "rejected"
    """This message can never go."""


class Outcome(NamedTuple):
    """What became of one entry's attempt.

    Fields: released_us: wall clock, microseconds, when its request began to be written. finished_at: when the answer
        (or its absence) was known. error: what SNS said, ``CODE: message``; None when published.
        is_unknown: SNS may have accepted it although no answer says so. is_throttled: SNS took too many messages of the
        region to take this one; that says nothing against its topic.
    """

    fire: Fire
    outcome: OutcomeClass
    released_us: int
    finished_at: UtcMs
    error: str | None = None
    is_unknown: bool = False
    is_throttled: bool = False


class Armed(Protocol):
    """A batch made ready to leave. Only the publisher that armed it can release it. size_bytes: what it keeps in memory."""

    @property
    def batch(self) -> Batch: ...

    @property
    def size_bytes(self) -> int: ...


class Publisher(Protocol):
    """Sends batches to SNS, in two steps.

    1. ``arm`` does all that can be done before the instant (encode, sign, connect). It sends nothing.
    2. ``release`` starts the attempts at once, in the order given, and returns; *settle* is called on the event loop with
       the outcomes as they come, never before ``release`` has returned. Each entry of each batch gets exactly one outcome, also when the attempt fails,
       times out, or the publisher is closed meanwhile. One attempt is made; retrying is the engine's.
    3. It takes what it is given, but knows its limits: connections, and the quota of each region. While ``has_room`` says no,
       what is released would only wait inside; outside it can still be withdrawn, and be overtaken by what is more urgent.

    Attributes: on_room: called on the event loop when it is worth asking again after ``has_room`` has said no; set it
        before the first release. May be called more often than that.
    """

    on_room: Callable[[], None]

    async def arm(self, batches: Sequence[Batch], at: UtcMs) -> list[Armed]:
        """Return one armed request per batch, in order. *at*: the instant they are meant for. Raises nothing."""
        ...

    def has_room(self, topic: str, messages: int) -> bool:
        """Whether a batch of so many *messages* to *topic* would leave at once if it was released now."""
        ...

    def wait_s(self, topic: str, messages: int) -> float:
        """Return how long, by the quota of the region of *topic*, so many *messages* take to leave from now on; 0 without one."""
        ...

    def release(self, armed: Sequence[Armed], settle: Callable[[Sequence[Outcome]], None]) -> None:
        """Begin to send *armed*; each may be released once."""
        ...

    def drop_connections(self) -> None:
        """The machine slept, or its clock jumped: connections that are idle may be dead; use new ones."""
        ...

    async def close(self) -> None:
        """Give up what is still in flight (outcome RETRY, unknown) and let go of the connections."""
        ...


class TopicMaker(Protocol):
    """Makes topics where that is nobody else's business: in the local stand-in."""

    async def make(self, arn: str) -> None:
        """Make the topic and its queue unless they are there. Raises nothing: the publisher sees what is missing."""
        ...


# --- store ------------------------------------------------------------------------------------------------------


class Store(Protocol):
    """The durable memory. One writer; every method is atomic, and durable when it returns.

    Any method may raise StoreError (StoreBusy and StoreFull are retryable); then nothing of it has happened.

    Attributes: commit_interval_s: for so long outcomes of fires that were published wait for others, to be committed together.
    """

    @property
    def commit_interval_s(self) -> float: ...

    async def open(self) -> Opened:
        """Open or create the store, migrate it, take its lock, and forget the mark of a clean stop.

        Errors: StoreLocked, StoreCorrupt, SchemaMismatch, StoreError (cannot be created or written).
        """
        ...

    async def close(self, *, watermark: UtcMs | None) -> None:
        """Record a clean stop with *watermark* (None: leave the mark unset) and let go of the file."""
        ...

    # schedules

    def timetable(self) -> AsyncIterator[Sequence[TimetableRow]]:
        """Yield every schedule that is not removed, in slices, in the order of ids."""
        ...

    async def schedule(self, name: str) -> StoredSchedule | None: ...

    async def schedules(self, *, after: str | None = None, limit: int = 1000) -> list[StoredSchedule]:
        """Return up to *limit* schedules whose name is greater than *after*, by name (code point order)."""
        ...

    async def topics(self, *, after: str = "", limit: int = 1000) -> list[TopicUse]:
        """Return the topics in use, by ARN (code point order), up to *limit* of those greater than *after*."""
        ...

    async def nearest_name(self, name: str) -> str | None:
        """Return an existing name a user may have meant, or None."""
        ...

    async def specs(self, revision_ids: Sequence[int]) -> dict[int, ScheduleSpec]:
        """Return the specs of revisions, of removed schedules too; unknown ids are left out."""
        ...

    async def labels(self, revision_ids: Sequence[int]) -> dict[int, Label]:
        """Return name, topic, zone and ``late_after`` of revisions (up to 1,000), of removed schedules too; unknown ids are left out."""
        ...

    async def change(self, change: ScheduleChange, *, gone: list[JournalEntry] | None = None) -> Revised:
        """Make *change*. gone: the pending rows that it drops are added to it as they are then, the first 20,000 (``MOST_TOLD``).

        Errors: RevisionConflict if ``expected_revision_id`` is not current; Conflict if the name is taken.
        """
        ...

    async def change_many(
        self, changes: Sequence[ScheduleChange], *, gone: list[JournalEntry] | None = None
    ) -> list[Revised]:
        """Make *changes* of different schedules that keep their revisions (pauses, removals), up to 200, all of them or none.

        The caller's event loop is not held meanwhile. gone, Errors: as those of ``change``.
        """
        ...

    async def audit(self, wanted: AuditFilter) -> AuditPage:
        """Return what was done to schedules, removed ones too, newest first. Nothing of it is ever pruned."""
        ...

    # single instants (@at): a column read per horizon, not heap entries

    async def at_between(self, after: UtcMs, through: UtcMs, *, limit: int | None = None) -> list[Fire]:
        """Return the slots of unpaused @at schedules with after < due <= through, by due time, beyond their effective from.

        limit: the first so many of them.
        """
        ...

    async def next_at(self, after: UtcMs) -> UtcMs | None:
        """Return the earliest due time later than *after* of an unpaused @at schedule, or None."""
        ...

    async def move_single_slots(self, moved: Sequence[tuple[int, UtcMs]]) -> None:
        """Give ``@at`` schedules, by id, another slot: a new tzdata puts their local time at another instant."""
        ...

    # journal

    async def commit(
        self,
        entries: Sequence[JournalEntry],
        *,
        watermark: UtcMs | None,
        errors: Iterable[tuple[int, str | None]] = (),
        newer: Sequence[Newer] = (),
        kept: Iterable[FireKey] = (),
        gone: list[JournalEntry] | None = None,
    ) -> int:
        """Write *entries* in order, the watermark, and what SNS says against schedules, in one transaction.

        An entry replaces a pending row of its key; any other row stays as it is, so journalling twice is a no-op. What the
        pending row says of its last attempt (error, when, how late) stays where the entry says nothing of one, unless it was published.
        The watermark never goes back. errors: (schedule id, error or None). newer: after all that, the pending scheduled
        rows of ``latest`` revisions that they make needless become ``skipped``, ``superseded``; not those in *kept*. gone: they are added to it as they are then, the first 20,000
        (``MOST_TOLD``). Returns: how many those are.
        """
        ...

    async def settled_between(self, after: UtcMs, through: UtcMs) -> dict[int, list[tuple[UtcMs, UtcMs]]]:
        """Return per schedule the (first, last) scheduled slots of rows whose last slot has *after* < due <= *through*.

        Pending rows count: their slots have an entry. Open rows do not (the pause itself covers them). Sorted.
        """
        ...

    async def settled_slots(self, after: UtcMs, through: UtcMs) -> dict[int, list[tuple[UtcMs, UtcMs]]]:
        """Return the same of rows with *after* < last slot <= *through*, whenever it is due."""
        ...

    async def pending_due(
        self, through: UtcMs, *, after: tuple[UtcMs, int, UtcMs, str] | None = None, limit: int = 2000
    ) -> list[PendingFire]:
        """Return pending fires with next attempt <= *through*, ordered by (next attempt, schedule id, fire time, kind).

        after: the last row of the slice before. Rows of FIFO topics are left out, ``group_pending`` gives them; but not
        those in line: their deadline has come.
        """
        ...

    async def next_pending(self, after: UtcMs) -> UtcMs | None:
        """Return the earliest next attempt later than *after* of the fires that ``pending_due`` gives, or None."""
        ...

    async def lines(self) -> list[tuple[str, int]]:
        """Return the (standard topic, priority) pairs that have pending fires in line."""
        ...

    async def in_line(
        self, topic: str, priority: int, *, after: LinePlace | None = None, limit: int = 500
    ) -> list[PendingFire]:
        """Return the first pending fires (up to 500) in the line of a standard topic and a priority, after a place, in order."""
        ...

    async def pending_counts(self, topics: Sequence[str]) -> dict[str, int]:
        """Return how many pending fires of each topic wait: those in line, of FIFO topics all."""
        ...

    async def pending_groups(self, topic: str | None = None) -> list[tuple[str, str]]:
        """Return the (FIFO topic, group) pairs that have pending fires, those of *topic* or all."""
        ...

    async def next_group(self, topic: str, after: str = "") -> str | None:
        """Return the first group of a FIFO topic, by name, greater than *after* that has pending fires, or None."""
        ...

    async def group_pending(self, topic: str, group: str, *, limit: int = 100) -> list[PendingFire]:
        """Return the first pending fires of a FIFO group by (due time, fire time, name)."""
        ...

    async def mark_unclean(self, shard: int | None = None) -> None:
        """After a crash: every pending fire (of a shard) may have been published by the attempt that was open."""
        ...

    async def fire_times(self, schedule_id: int, kind: Kind, first: UtcMs, last: UtcMs) -> set[UtcMs]:
        """Return the fire times of a schedule's fires of a *kind* with *first* <= t <= *last*."""
        ...

    async def remembered_run(self, key: str) -> str | None:
        """Return what an earlier command with this idempotency key answered (``run``: the fire id), or None.

        Kept for 24 hours.
        """
        ...

    async def remember_run(self, key: str, answer: str, *, at: UtcMs) -> None:
        """Keep what a command with this idempotency key answered."""
        ...

    async def add_manual(
        self, entry: JournalEntry, *, by: str, fire_id: str, idempotency_key: str | None
    ) -> None:
        """Write a manual fire as a pending row, with its idempotency key, if any."""
        ...

    async def add_backfill(
        self, entries: Sequence[JournalEntry], *, at: UtcMs, by: str, order: Order
    ) -> None:
        """Write up to 1,000 fires of one schedule as pending rows. Errors: Conflict if one of them is there already."""
        ...

    async def retry(self, rows: Sequence[Reopened], *, at: UtcMs, by: str, orders: Sequence[Order]) -> None:
        """Put in the place of up to 1,000 rows what *rows* says.

        Errors: Conflict if one of them is not there any more as it was (state and count).
        """
        ...

    async def bearers(self, name: str) -> list[int]:
        """Return the ids of the schedules that bear *name* or bore it, the newest first."""
        ...

    async def rows(self, keys: Sequence[FireKey]) -> list[JournalRow]:
        """Return the rows that stand at *keys* (up to 5,000), in any order; what is not there is left out."""
        ...

    async def history(self, wanted: JournalFilter) -> list[JournalRow]:
        """Return journal entries, newest fire time first. ``schedule`` also matches names it had, or had before it was removed."""
        ...

    async def covering(self, schedule_id: int, fire_time: UtcMs) -> list[JournalRow]:
        """Return the rows of a schedule that cover *fire_time*, of every kind, by (fire time, kind).

        Those are the rows of that very fire time, and the range row with first < *fire_time* <= last; an open row has
        no last slot yet and covers all that comes after its first, up to the schedule's next row.
        """
        ...

    async def counts(self, *, with_final: bool = True) -> StoreCounts:
        """Return how much there is. with_final: also the final entries, which takes 8 ms a million of them."""
        ...

    # a clock that was set back

    async def newest_settled(self, after: UtcMs) -> UtcMs | None:
        """Return when the latest scheduled slot is due that has a final entry, if that is later than *after*; else None.

        Of what was dropped or paused, which is on record before it is due, the slot itself counts.
        """
        ...

    async def decided_beyond(
        self, at: UtcMs, *, after: tuple[UtcMs, int, UtcMs] | None = None, limit: int = 500
    ) -> list[JournalEntry]:
        """Return scheduled entries that were written without an attempt and that reach beyond the due time *at*.

        Those are skipped (``catch_up``) and expired ones, and the rows of pauses that are over. By (when the last slot is due, schedule id, fire time); after:
        those of the last row of the slice before.
        """
        ...

    async def entries_beyond(self, schedule_id: int, at: UtcMs) -> list[JournalEntry]:
        """Return the scheduled entries of a schedule with a slot later than *at*, by fire time; open ones are left out."""
        ...

    async def changed_beyond(
        self, at: UtcMs, *, after: str = "", limit: int = 500
    ) -> list[tuple[StoredSchedule, bool]]:
        """Return living schedules that are effective, or paused, from an instant later than *at* on, by name.

        Only names greater than *after*. With each: whether it is awake because its pause ended by itself.
        """
        ...

    async def amend(self, entries: Sequence[JournalEntry]) -> None:
        """Write *entries* in the place of unattempted skipped or expired ones of their keys; a count of 0 removes one."""
        ...

    async def set_back(self, *, at: UtcMs, watermark: UtcMs, reached: UtcMs) -> None:
        """The wall clock was set back to *at* from *reached*: take the watermark back, too; *at* is kept until ``end_set_back``.

        What is pending until later than *at* may be tried at once, but not before it is due. Manual fires and backfills are
        due by *at*: somebody has asked for them.
        """
        ...

    async def end_set_back(self) -> None:
        """All that follows from ``set_back`` is on record."""
        ...

    # retention

    async def prune(
        self, bound: UtcMs, *, after: tuple[UtcMs, int, str] | None = None, limit: int = 250
    ) -> Pruned:
        """Look at the next *limit* rows with a fire time up to *bound*, and delete those that are over and done with.

        In the order of (fire time, schedule id, kind), from *after* on. A row goes if its last slot was due, and its last
        attempt left, if there was one, at or before *bound* and the watermark, and if it is neither pending nor open. In
        the same transaction ``pruned through`` is raised to the latest due time among them; it never goes back.
        """
        ...

    async def size_bytes(self) -> int:
        """Return how much of its file the store uses; space that pruning has freed, and that is used again, not counted."""
        ...

    # zones under a version of tzdata

    async def zone_records(self, names: Sequence[str]) -> dict[str, ZoneRecord]:
        """Return what is kept of the zones *names* (up to 100), by name; unknown ones are left out."""
        ...

    async def keep_zone_records(self, rows: Sequence[ZoneRecord]) -> None:
        """Keep *rows* (up to 100) in the place of what is kept of their zones."""
        ...

    async def forget_zone_records(self, *, but: str) -> None:
        """Forget the zones of any other version of tzdata than *but*."""
        ...

    # apply: lines are staged, compared, and flipped in one short transaction

    async def stage_begin(self) -> None:
        """Empty the staging area."""
        ...

    async def stage(self, rows: Sequence[StagedRow]) -> None:
        """Add rows (up to 2,000 a call). Names must be distinct within one staging."""
        ...

    async def staged_changes(self) -> list[StagedChange]:
        """Return the staged rows that are new or whose document differs, by name."""
        ...

    async def unstage(self, names: Sequence[str]) -> None:
        """Take rows out of the staging area."""
        ...

    async def own(self, names: Sequence[str], *, owner: str, at: UtcMs, by: str) -> None:
        """Record *owner* for the living schedules of these names; those that had another one are in the audit log."""
        ...

    async def owned(self, owner: str) -> list[Owned]:
        """Return the schedules of *owner* by name."""
        ...

    async def flip(
        self,
        *,
        at: UtcMs,
        by: str,
        owner: str,
        unsettled: Sequence[JournalEntry],
        removed: Sequence[int] = (),
    ) -> list[TimetableRow]:
        """Make every staged change effective from *at*, in one transaction; return the new state of each changed schedule.

        removed: ids of schedules that end at *at*, none of them at rest. *unsettled* as in ScheduleChange. Staged lines of paused schedules are not among them: the service changes those
        one by one with ``change``, because their open range rows close with an exact count.
        """
        ...


class SharedStore(Store, Protocol):
    """A store that several machines work on at once; each reads and writes the shards that it has taken (design §12).

    1. What ``Store`` promises, it promises for the shards that were taken in: the engine sees their schedules and entries, and no
       others. ``everything`` is for those who read about all of them.
    2. Each write is a *commit*: it is durable, numbered, and refused once this machine was retired. A commit also renews the
       lease. Any method may then raise LeaseLost: this incarnation is over, nothing of it may be sent or written any more.
    3. Any method may raise StoreError while the table does not answer; unlike ``Store``, a write is then tried again by the
       store itself until the lease ends.

    Attributes: machine: the id of this incarnation, from ``open`` on. lease_ms. everything: schedules and entries of all
        shards, as far as the other machines' commits have been followed; only its methods that read, or stage, may be called.
    """

    machine: str
    lease_ms: int

    @property
    def everything(self) -> Store: ...

    @property
    def has_history(self) -> bool:
        """Whether ``everything`` has all of the journal; what was on record before ``open`` is read in the background."""
        ...

    @property
    def trusted_until(self) -> float:
        """Until when on ``Clock.boot`` this machine may send, by ``leases.trusted_until`` of the last renewal or commit that succeeded; once retired: not any more."""
        ...

    async def renew(self) -> None:
        """Renew the lease, if no commit has since *lease / 3*. Errors: LeaseLost; StoreError if the table does not answer."""
        ...

    async def machines(self) -> list[Machine]:
        """Return the heartbeats there are, of this machine and of retired ones that shards still name, too."""
        ...

    async def shards(self) -> list[Shard]:
        """Return all shards, in the order of their numbers, as they are now (a strongly consistent read)."""
        ...

    async def retire(self, machine: Machine) -> Machine | None:
        """Retire *machine* if its heartbeat is still of that version; return it frozen, or None if it is not."""
        ...

    async def take(self, shard: Shard, owner: Machine | None) -> TakenIn | None:
        """Take *shard*, with the next epoch, from *owner*, which is retired, or from nobody; None if it is not as *shard* says any more.

        What the machines before have committed of it is read, and becomes what the engine reads. Until ``recovered`` its
        watermark is kept apart from that of this machine. *owner* may also be this machine itself: the shard is its already, and a
        ``take`` before has failed on the way; then the epoch stays, and all is read again.
        """
        ...

    async def recovered(self, number: int) -> None:
        """The slots of a taken shard are brought in line: a later commit makes its watermark that of this machine.

        Not one that is on its way already, whose watermark was told without the shard; nor one whose watermark is behind what this
        machine's was before. Until then the shard's watermark stays what it was at the hand-over.
        """
        ...

    async def begin_give(self, number: int) -> None:
        """Keep the watermark of a shard of this machine's apart from now on, as after ``take``: the engine is about to let go of it.

        From then on this machine's watermark passes slots of the shard that nobody has decided, and whoever takes the shard
        must not go by it. No commit that was asked for before is still on its way when this returns.
        """
        ...

    async def give(self, shard: Shard, given: GivenUp) -> bool:
        """Give up a shard of this machine's, as the engine has let go of it; False if it is not its any more."""
        ...

    async def begin_leave(self) -> None:
        """Say in the heartbeat that this machine gives its shards from now on and takes no more; others need not count on it."""
        ...

    async def leave(self) -> None:
        """Retire this machine in order, after it has given its shards; from then on it may send nothing, ``trusted_until`` says so.

        What it has not given is taken from it as from any retired machine, but at once.
        """
        ...

    async def follow(self) -> None:
        """Read what the other machines have committed since, into ``everything``."""
        ...


class Inbox(Protocol):
    """Takes what one machine asks of another by way of what they share. Errors: StoreError."""

    async def ask(self, machine: str, request: bytes, *, timeout_s: float) -> bytes:
        """Return what *machine* answers to *request*. Errors: NotReady if it does not answer; whether it did it is not known then."""
        ...

    async def asked(self, but: Container[str] = ()) -> list[Asked]:
        """Return what this machine is asked and has not answered, the oldest first; not those with the ids *but*."""
        ...

    async def answer(self, asked: Asked, reply: bytes) -> None:
        """Answer what was asked; it is asked no more."""
        ...
