"""A store in dicts: what the port promises, at its plainest.

No method ever suspends. Everything kept is frozen, so a state cannot leak out of it. An instance survives a "crash":
open it again without having closed it, and it says that the stop was not clean.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from cronally.domain.durations import DAY_MS
from cronally.domain.model import CatchUp, Fire, FireKey, Kind, SkipReason, State
from cronally.domain.shards import SHARDS
from cronally.domain.spec import canonical_document, from_canonical, rule_document
from cronally.engine.records import (
    MOST_TOLD,
    OWN_NAME,
    AuditPage,
    AuditRow,
    JournalRow,
    Label,
    Opened,
    Owned,
    PendingFire,
    Pruned,
    Revised,
    StagedChange,
    StoreCounts,
    StoredSchedule,
    TimetableRow,
    TopicUse,
    is_by,
)
from cronally.errors import Conflict, RevisionConflict, ScheduleNotFound
from cronally.instants import UtcMs
from cronally.store.base import (
    SingleSlot,
    as_stored,
    change_detail,
    owner_detail,
    single_slot,
    staged_slot,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from typing import Any

    from cronally.domain.model import JournalEntry
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.records import (
        AuditFilter,
        AuditPlace,
        JournalFilter,
        LinePlace,
        Newer,
        Order,
        Reopened,
        ScheduleChange,
        StagedRow,
        ZoneRecord,
    )

_SLICE_ROWS = 2_000
BYTES_PER_ROW = 100  # about what SQLite takes for one


@dataclass(frozen=True, slots=True)
class Revision:
    schedule_id: int
    number: int
    spec: ScheduleSpec
    document: str
    slot: SingleSlot | None


class MemoryStore:
    """The durable memory of a test."""

    commit_interval_s = 0.05

    def __init__(self) -> None:
        """Start empty."""
        self._schedules: dict[int, StoredSchedule] = {}
        self._names: dict[str, int] = {}
        self._former: set[tuple[str, int]] = set()
        self._revisions: dict[int, Revision] = {}
        self._journal: dict[FireKey, JournalEntry] = {}
        self._pending: dict[FireKey, JournalEntry] = {}  # those of the journal whose state is pending
        self._waiting: list[tuple[UtcMs, FireKey]] = []  # of standard topics, by next attempt, sorted
        self._of_group: dict[tuple[str, str], set[FireKey]] = {}  # of FIFO topics
        self._by_due: list[
            tuple[UtcMs, FireKey]
        ] = []  # scheduled rows by their last due time, sorted; old ones too
        self._by_slot: list[tuple[UtcMs, FireKey]] = []  # the same by their last slot
        self._times: dict[tuple[int, Kind], set[UtcMs]] = {}
        self._lines: dict[
            tuple[str, int], list[LinePlace]
        ] = {}  # by topic and priority: what is in line, sorted
        self._runs: dict[str, tuple[str, UtcMs]] = {}
        self._staged: dict[str, StagedRow] = {}
        self._zones: dict[str, ZoneRecord] = {}
        self._last_id = 0
        self._watermark: UtcMs | None = None
        self._pruned_through: UtcMs | None = None
        self._was_clean = True
        self._reached: UtcMs | None = None
        self._set_back_at: UtcMs | None = None
        self._audit: dict[AuditPlace, tuple[int, AuditRow]] = {}  # with each the schedule's id
        self._rested: dict[int, UtcMs] = {}  # when schedules took effect whose pause ended by itself

    async def open(self) -> Opened:
        failing = frozenset(id_ for id_ in self._names.values() if self._schedules[id_].error is not None)
        opened = Opened(
            watermark=self._watermark,
            was_clean=self._was_clean,
            pruned_through=self._pruned_through,
            reached=self._reached,
            set_back_at=self._set_back_at,
            failing=failing,
        )
        self._was_clean = False
        return opened

    async def close(self, *, watermark: UtcMs | None) -> None:
        if watermark is not None:
            self._advance(watermark)
            self._was_clean = True

    # schedules

    async def timetable(self) -> AsyncIterator[Sequence[TimetableRow]]:
        ids = sorted(self._names.values())
        for start in range(0, len(ids), _SLICE_ROWS):
            yield [self._row(id_) for id_ in ids[start : start + _SLICE_ROWS]]

    async def schedule(self, name: str) -> StoredSchedule | None:
        return self._seen(self._names[name]) if name in self._names else None

    async def schedules(self, *, after: str | None = None, limit: int = 1000) -> list[StoredSchedule]:
        names = sorted(name for name in self._names if after is None or name > after)
        return [self._seen(self._names[name]) for name in names[:limit]]

    async def topics(self, *, after: str = "", limit: int = 1000) -> list[TopicUse]:
        living = [self._schedules[id_] for id_ in self._names.values()]
        found: dict[str, list[tuple[int, int, int, str | None]]] = {}
        for schedule in living:
            topic = self._revisions[schedule.revision_id].spec.topic
            found.setdefault(topic, []).append((1, schedule.error is not None, 0, schedule.error))
        for entry in self._pending.values():
            found.setdefault(self._revisions[entry.revision_id].spec.topic, []).append((0, 0, 1, None))
        uses = []
        for topic in sorted(topic for topic in found if topic > after)[:limit]:
            schedules, failing, pending, errors = zip(*found[topic], strict=True)
            error = max((error for error in errors if error is not None), default=None)
            uses.append(TopicUse(topic, sum(schedules), sum(failing), sum(pending), error))
        return uses

    async def nearest_name(self, name: str) -> str | None:
        return next(iter(get_close_matches(name, sorted(self._names), n=1)), None)

    async def specs(self, revision_ids: Sequence[int]) -> dict[int, ScheduleSpec]:
        return {id_: self._revisions[id_].spec for id_ in revision_ids if id_ in self._revisions}

    async def labels(self, revision_ids: Sequence[int]) -> dict[int, Label]:
        specs = await self.specs(revision_ids)
        return {id_: Label(spec.name, spec.topic, spec.tz, spec.late_after) for id_, spec in specs.items()}

    async def change(self, change: ScheduleChange, *, gone: list[JournalEntry] | None = None) -> Revised:
        old = self._checked(change)
        if old is None:
            assert change.new_spec is not None
            id_, number = self._new_id(change.new_spec), 0
            created_at = effective_from = change.at
            owner = None
            error = None
        else:
            id_, number, created_at = old.id, old.revision, old.created_at
            effective_from, owner, error = old.effective_from, old.owner, old.error
        if change.new_spec is None or change.is_removal:
            assert old is not None
            spec, revision_id = old.spec, old.revision_id
        else:
            spec, number = change.new_spec, number + 1
            revision_id = self._revise(id_, number, spec, canonical_document(spec), single_slot(spec))
        if old is not None and (change.is_removal or old.spec.name != spec.name):
            del self._names[old.spec.name]
            self._former.add((old.spec.name, id_))
        if not change.is_removal:
            self._names[spec.name] = id_
        self._schedules[id_] = StoredSchedule(
            id=id_,
            spec=spec,
            revision=number,
            revision_id=revision_id,
            effective_from=effective_from if change.effective_from is None else change.effective_from,
            created_at=created_at,
            changed_at=change.at,
            pause=change.pause,
            error=error,
            owner=owner if change.owner is None else change.owner,
        )
        pause = None if old is None else old.pause
        is_new = change.new_spec is not None and not change.is_removal
        self._log(
            id_,
            at=change.at,
            by=change.by,
            action=change.action,
            before=old.spec if old is not None and (is_new or change.is_removal) else None,
            after=spec if is_new else None,
            detail=change_detail(change, pause, owner),
        )
        if change.by == OWN_NAME and change.action == "resume":
            self._rested[id_] = self._schedules[id_].effective_from
        rows = self._settle_change(change, id_, revision_id)
        if gone is not None:
            gone += rows[:MOST_TOLD]
        dropped = Counter(row.kind for row in rows)
        return Revised(id_, number, revision_id, self._seen(id_).pending, tuple(sorted(dropped.items())))

    async def change_many(
        self, changes: Sequence[ScheduleChange], *, gone: list[JournalEntry] | None = None
    ) -> list[Revised]:
        for change in changes:
            self._checked(change)
        return [await self.change(change, gone=gone) for change in changes]

    def _checked(self, change: ScheduleChange) -> StoredSchedule | None:
        """Return the schedule to be changed, None for a new one; refuse what cannot be."""
        old = None
        if change.id is not None:
            old = self._schedules.get(change.id)
            if old is None or self._names.get(old.spec.name) != old.id:
                raise ScheduleNotFound(change.name or (old.spec.name if old else str(change.id)))
            if change.expected_revision_id not in (None, old.revision_id):
                expected = self._revisions.get(change.expected_revision_id or 0)
                raise RevisionConflict(
                    old.spec.name, expected=expected.number if expected else 0, found=old.revision
                )
        if change.new_spec is not None and not change.is_removal:
            holder = self._names.get(change.new_spec.name)
            if holder is not None and holder != change.id:
                raise Conflict(f"there is a schedule named {change.new_spec.name!r} already")
        return old

    def _settle_change(self, change: ScheduleChange, id_: int, revision_id: int) -> list[JournalEntry]:
        """Return the rows that it drops."""
        dropped = []
        for entry in change.closed:
            self._amend(entry)
        for entry in change.unsettled:
            self._write(entry)
        for entry in change.opened:
            whose = entry.schedule_id or id_
            self._write(entry._replace(schedule_id=whose, revision_id=entry.revision_id or revision_id))
        if change.drop_pending:
            for entry in [*self._pending.values()]:
                if entry.schedule_id == id_ and (entry.fire_time, entry.kind) not in change.kept:
                    self._write(entry._replace(state=State.SKIPPED, reason=SkipReason.DROPPED))
                    dropped.append(self._journal[entry.key])
        return dropped

    async def audit(self, wanted: AuditFilter) -> AuditPage:
        ids = [] if wanted.schedule is None else await self.bearers(wanted.schedule)
        places = [
            place
            for place, (id_, row) in self._audit.items()
            if (wanted.schedule is None or id_ in ids)
            and (wanted.by is None or is_by(wanted.by, row.by))
            and (not wanted.actions or row.action in wanted.actions)
            and (wanted.since is None or row.at >= wanted.since)
            and (wanted.until is None or row.at < wanted.until)
            and (wanted.before is None or place < wanted.before)
        ]
        places = sorted(places, reverse=True)[: wanted.limit]
        following = places[-1] if len(places) == wanted.limit else None
        return AuditPage([self._audit[place][1] for place in places], following)

    def _log(
        self,
        id_: int,
        *,
        at: UtcMs,
        by: str,
        action: str,
        detail: dict[str, Any],
        before: ScheduleSpec | None = None,
        after: ScheduleSpec | None = None,
        revision_id: int | None = None,
    ) -> None:
        """Write a line of the audit log, about the schedule as it is now if no revision is named."""
        schedule = self._schedules[id_]
        revision = self._revisions[schedule.revision_id if revision_id is None else revision_id]
        detail.pop("removed", None)
        row = AuditRow(
            at=at,
            by=by,
            action=action,
            name=revision.spec.name,
            revision=revision.number,
            before=before,
            after=after,
            detail=detail,
        )
        self._audit[at, 0 if after else 1, len(self._audit)] = (id_, row)

    def _log_orders(self, action: str, orders: Sequence[Order], *, at: UtcMs, by: str) -> None:
        for order in orders:
            detail: dict[str, Any] = {"fires": order.fires, "first": order.first, "last": order.last}
            self._log(
                order.schedule_id, at=at, by=by, action=action, detail=detail, revision_id=order.revision_id
            )

    # single instants

    async def at_between(self, after: UtcMs, through: UtcMs, *, limit: int | None = None) -> list[Fire]:
        fires = [
            Fire(schedule.id, schedule.revision_id, slot.fire_time, slot.due_time)
            for schedule, slot in self._single_slots()
            if after < slot.due_time <= through
        ]
        return sorted(fires, key=lambda fire: (fire.due_time, fire.schedule_id))[:limit]

    async def next_at(self, after: UtcMs) -> UtcMs | None:
        return min((slot.due_time for _, slot in self._single_slots() if slot.due_time > after), default=None)

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
        for entry in entries:
            self._write(entry)
        spared = frozenset(kept)
        superseded = []
        due_before = {(each.schedule_id, each.fire_time): each.due_before for each in newer}
        for entry in [*self._pending.values()] if newer else ():
            needless = any(
                entry.schedule_id == id_ and entry.fire_time < fire_time and entry.due_time < before
                for (id_, fire_time), before in due_before.items()
            )
            policy = self._revisions[entry.revision_id].spec.catch_up
            is_scheduled = entry.kind is Kind.SCHEDULED
            if needless and is_scheduled and policy is CatchUp.LATEST and entry.key not in spared:
                self._write(entry._replace(state=State.SKIPPED, reason=SkipReason.SUPERSEDED))
                superseded.append(self._journal[entry.key])
        if gone is not None:
            gone += superseded[:MOST_TOLD]
        if watermark is not None:
            self._advance(watermark)
        for id_, error in errors:
            if id_ in self._schedules:
                self._schedules[id_] = replace(self._schedules[id_], error=error)
        return len(superseded)

    async def settled_between(self, after: UtcMs, through: UtcMs) -> dict[int, list[tuple[UtcMs, UtcMs]]]:
        return self._settled(self._by_due, lambda entry: entry.last_due_time, after, through)

    async def settled_slots(self, after: UtcMs, through: UtcMs) -> dict[int, list[tuple[UtcMs, UtcMs]]]:
        return self._settled(self._by_slot, lambda entry: entry.last_slot, after, through)

    def _settled(
        self,
        rows: list[tuple[UtcMs, FireKey]],
        place_of: Callable[[JournalEntry], UtcMs],
        after: UtcMs,
        through: UtcMs,
    ) -> dict[int, list[tuple[UtcMs, UtcMs]]]:
        settled: dict[int, list[tuple[UtcMs, UtcMs]]] = {}
        start = bisect_right(rows, after, key=lambda row: row[0])
        end = bisect_right(rows, through, key=lambda row: row[0])
        for key in sorted({key for _, key in rows[start:end]}):
            entry = self._journal.get(key)
            if entry is not None and not entry.is_open and after < place_of(entry) <= through:
                settled.setdefault(entry.schedule_id, []).append((entry.fire_time, entry.last_slot))
        return settled

    async def pending_due(
        self, through: UtcMs, *, after: tuple[UtcMs, int, UtcMs, str] | None = None, limit: int = 2000
    ) -> list[PendingFire]:
        end = bisect_right(self._waiting, through, key=lambda row: row[0])
        start = 0 if after is None else bisect_right(self._waiting, after, key=lambda row: (row[0], *row[1]))
        return [_pending_fire(self._pending[key]) for _, key in self._waiting[start:end][:limit]]

    async def next_pending(self, after: UtcMs) -> UtcMs | None:
        later = bisect_right(self._waiting, after, key=lambda row: row[0])
        return self._waiting[later][0] if later < len(self._waiting) else None

    async def lines(self) -> list[tuple[str, int]]:
        return sorted(
            line for line, places in self._lines.items() if places and not line[0].endswith(".fifo")
        )

    async def in_line(
        self, topic: str, priority: int, *, after: LinePlace | None = None, limit: int = 500
    ) -> list[PendingFire]:
        places = self._lines.get((topic, priority), [])
        start = 0 if after is None else bisect_right(places, after)
        return [_pending_fire(self._journal[_key_of(place)]) for place in places[start : start + limit]]

    async def pending_counts(self, topics: Sequence[str]) -> dict[str, int]:
        counts = dict.fromkeys(topics, 0)
        for entry in self._pending.values():
            spec = self._revisions[entry.revision_id].spec
            if spec.topic in counts and (spec.is_fifo or entry.is_in_line):
                counts[spec.topic] += 1
        return counts

    async def pending_groups(self, topic: str | None = None) -> list[tuple[str, str]]:
        return sorted(group for group, keys in self._of_group.items() if keys and topic in (None, group[0]))

    async def next_group(self, topic: str, after: str = "") -> str | None:
        groups = [group for _, group in await self.pending_groups(topic)]
        return min((group for group in groups if group > after), default=None)

    async def group_pending(self, topic: str, group: str, *, limit: int = 100) -> list[PendingFire]:
        members = [self._pending[key] for key in self._of_group.get((topic, group), ())]
        members.sort(
            key=lambda e: (e.due_time, e.fire_time, self._revisions[e.revision_id].spec.name, e.kind)
        )
        return [_pending_fire(entry) for entry in members[:limit]]

    async def mark_unclean(self, shard: int | None = None) -> None:
        for entry in [*self._pending.values()]:
            if shard is None or entry.schedule_id % SHARDS == shard:
                self._write(entry._replace(maybe_published=True))

    async def fire_times(self, schedule_id: int, kind: Kind, first: UtcMs, last: UtcMs) -> set[UtcMs]:
        times = self._times.get((schedule_id, kind), ())
        return {at for at in times if first <= at <= last and FireKey(schedule_id, at, kind) in self._journal}

    async def remembered_run(self, key: str) -> str | None:
        return self._runs[key][0] if key in self._runs else None

    async def remember_run(self, key: str, answer: str, *, at: UtcMs) -> None:
        self._runs = {key: run for key, run in self._runs.items() if run[1] > at - DAY_MS}
        self._runs[key] = (answer, at)

    async def add_manual(
        self,
        entry: JournalEntry,
        *,
        by: str,
        fire_id: str,
        idempotency_key: str | None,
    ) -> None:
        runs = {key: run for key, run in self._runs.items() if run[1] > entry.due_time - DAY_MS}
        if entry.key in self._journal or (idempotency_key is not None and idempotency_key in runs):
            raise Conflict(f"{fire_id} was run already")
        self._write(entry)
        self._log(
            entry.schedule_id,
            at=entry.due_time,
            by=by,
            action="run",
            detail={"fire_id": fire_id},
            revision_id=entry.revision_id,
        )
        self._runs = runs
        if idempotency_key is not None:
            self._runs[idempotency_key] = (fire_id, entry.due_time)

    async def add_backfill(
        self, entries: Sequence[JournalEntry], *, at: UtcMs, by: str, order: Order
    ) -> None:
        if any(entry.key in self._journal for entry in entries):
            raise Conflict(f"a fire from {order.first} to {order.last} is there already")
        for entry in entries:
            self._write(entry)
        for place, (id_, row) in self._audit.items():
            if (id_, row.at, row.by, row.action) == (order.schedule_id, at, by, "backfill"):
                fires = order.fires + int(str(row.detail["fires"]))
                detail = {**row.detail, "fires": fires, "last": order.last}
                self._audit[place] = (id_, replace(row, detail=detail))
                return
        self._log_orders("backfill", [order], at=at, by=by)

    async def retry(self, rows: Sequence[Reopened], *, at: UtcMs, by: str, orders: Sequence[Order]) -> None:
        for old, _ in rows:
            there = self._journal.get(old.key)
            if there is None or (there.state, there.count) != (old.state, old.count):
                raise Conflict("somebody else has just retried one of these fires; look at them again")
        for row in rows:
            del self._journal[row.old.key]
            for entry in row.new:
                self._write(entry)
        self._log_orders("retry", orders, at=at, by=by)

    async def bearers(self, name: str) -> list[int]:
        return sorted(
            {id_ for bore, id_ in self._former | set(self._names.items()) if bore == name}, reverse=True
        )

    async def rows(self, keys: Sequence[FireKey]) -> list[JournalRow]:
        entries = [self._journal[key] for key in keys if key in self._journal]
        return [JournalRow(self._revisions[entry.revision_id].spec.name, entry) for entry in entries]

    async def history(self, wanted: JournalFilter) -> list[JournalRow]:
        ids = [] if wanted.schedule is None else await self.bearers(wanted.schedule)
        entries = [
            entry
            for entry in self._journal.values()
            if (wanted.schedule is None or entry.schedule_id in ids)
            and (not wanted.states or entry.state in wanted.states)
            and (not wanted.reasons or entry.reason in wanted.reasons)
            and (wanted.since is None or entry.is_open or entry.last_slot >= wanted.since)
            and (wanted.until is None or entry.fire_time < wanted.until)
            and (wanted.before is None or _place(entry) < wanted.before)
        ]
        entries.sort(key=_place, reverse=True)
        return [
            JournalRow(self._revisions[entry.revision_id].spec.name, entry)
            for entry in entries[: wanted.limit]
        ]

    async def covering(self, schedule_id: int, fire_time: UtcMs) -> list[JournalRow]:
        earlier = [
            entry
            for entry in self._journal.values()
            if (entry.schedule_id, entry.kind) == (schedule_id, Kind.SCHEDULED)
            and entry.fire_time < fire_time
        ]
        nearest = max(earlier, key=lambda entry: entry.fire_time, default=None)
        rows = [
            entry
            for entry in self._journal.values()
            if entry.schedule_id == schedule_id and entry.fire_time == fire_time
        ]
        if nearest is not None and (nearest.is_open or (nearest.last_fire_time or 0) >= fire_time):
            rows.append(nearest)
        rows.sort(key=lambda entry: (entry.fire_time, str(entry.kind)))
        return [JournalRow(self._revisions[entry.revision_id].spec.name, entry) for entry in rows]

    # a clock that was set back

    async def newest_settled(self, after: UtcMs) -> UtcMs | None:
        early = (SkipReason.DROPPED, SkipReason.PAUSED)
        newest = after
        for due, key in reversed(self._by_due):
            if due <= newest:  # no slot is later than it is due
                break
            entry = self._journal.get(key)
            if entry is not None and not entry.is_open and entry.state is not State.PENDING:
                newest = max(newest, entry.last_slot if entry.reason in early else entry.last_due_time)
        return newest if newest > after else None

    async def decided_beyond(
        self, at: UtcMs, *, after: tuple[UtcMs, int, UtcMs] | None = None, limit: int = 500
    ) -> list[JournalEntry]:
        found = [
            ((entry.last_due_time, entry.schedule_id, entry.fire_time), entry)
            for entry in self._closed()
            if entry.attempts == 0
            and (entry.state is State.EXPIRED or entry.reason in (SkipReason.CATCH_UP, SkipReason.PAUSED))
            and entry.last_due_time > at
        ]
        found.sort(key=lambda each: each[0])
        return [entry for place, entry in found if after is None or place > after][:limit]

    async def entries_beyond(self, schedule_id: int, at: UtcMs) -> list[JournalEntry]:
        found = [
            entry for entry in self._closed() if entry.schedule_id == schedule_id and entry.last_slot > at
        ]
        return sorted(found, key=lambda entry: entry.fire_time)

    async def changed_beyond(
        self, at: UtcMs, *, after: str = "", limit: int = 500
    ) -> list[tuple[StoredSchedule, bool]]:
        found = [
            (stored, stored.pause is None and self._rested.get(stored.id) == stored.effective_from)
            for stored in await self.schedules(after=after, limit=1_000_000)
            if stored.effective_from > at or (stored.pause is not None and stored.pause.since > at)
        ]
        return found[:limit]

    async def amend(self, entries: Sequence[JournalEntry]) -> None:
        for entry in entries:
            self._amend(entry)

    def _amend(self, entry: JournalEntry) -> None:
        present = self._journal.get(entry.key)
        if present is not None:
            is_unsent = present.state in (State.SKIPPED, State.EXPIRED) and present.attempts == 0
            if present.is_open or is_unsent:
                del self._journal[entry.key]
        if entry.count:
            self._write(entry)

    async def set_back(self, *, at: UtcMs, watermark: UtcMs, reached: UtcMs) -> None:
        self._watermark = watermark
        self._reached = max(reached, self._reached or reached)
        self._set_back_at = at
        for entry in [*self._pending.values()]:
            due = entry.due_time if entry.kind is Kind.SCHEDULED else UtcMs(min(entry.due_time, at))
            again = UtcMs(min(entry.next_attempt_at or at, max(due, at)))
            self._write(entry._replace(due_time=due, next_attempt_at=again))

    async def end_set_back(self) -> None:
        self._set_back_at = None

    def _closed(self) -> list[JournalEntry]:
        return [e for e in self._journal.values() if e.kind is Kind.SCHEDULED and not e.is_open]

    async def counts(self, *, with_final: bool = True) -> StoreCounts:
        living = [self._schedules[id_] for id_ in self._names.values()]
        journal: dict[State, int] = {}
        for entry in self._journal.values():
            if with_final or entry.state is State.PENDING:
                journal[entry.state] = journal.get(entry.state, 0) + entry.count
        return StoreCounts(
            schedules=len(living),
            paused=sum(schedule.pause is not None for schedule in living),
            failing=sum(schedule.error is not None for schedule in living),
            journal=journal,
            oldest_pending_due=min((entry.due_time for entry in self._pending.values()), default=None),
        )

    async def prune(
        self, bound: UtcMs, *, after: tuple[UtcMs, int, str] | None = None, limit: int = 250
    ) -> Pruned:
        if self._watermark is None:
            return Pruned(0, self._pruned_through, after, is_end=True)
        bound = min(bound, self._watermark)
        found = sorted(
            (entry for entry in self._journal.values() if entry.fire_time <= bound and (after is None or _place(entry) > after)),
            key=_place,
        )[:limit]  # fmt: skip
        over = [
            entry
            for entry in found
            if entry.state is not State.PENDING
            and not entry.is_open
            and max(entry.last_due_time, entry.released_at or entry.fire_time) <= bound
        ]
        for entry in over:
            self._pruned_through = max(self._pruned_through or entry.last_due_time, entry.last_due_time)
            del self._journal[entry.key]
        last = _place(found[-1]) if found else after
        return Pruned(len(over), self._pruned_through, last, is_end=len(found) < limit)

    async def size_bytes(self) -> int:
        return BYTES_PER_ROW * len(self._journal)

    # next fires under a version of tzdata

    async def zone_records(self, names: Sequence[str]) -> dict[str, ZoneRecord]:
        return {name: self._zones[name] for name in names if name in self._zones}

    async def keep_zone_records(self, rows: Sequence[ZoneRecord]) -> None:
        self._zones |= {row.name: row for row in rows}

    async def forget_zone_records(self, *, but: str) -> None:
        self._zones = {name: row for name, row in self._zones.items() if row.tzdata == but}

    # apply

    async def stage_begin(self) -> None:
        self._staged = {}

    async def stage(self, rows: Sequence[StagedRow]) -> None:
        staged = {row.name: row for row in rows}
        if len(staged) < len(rows) or staged.keys() & self._staged.keys():
            raise Conflict("a name is staged twice")
        self._staged |= staged

    async def staged_changes(self) -> list[StagedChange]:
        changes = []
        for name, row in sorted(self._staged.items()):
            old = self._schedules[self._names[name]] if name in self._names else None
            if old is None:
                changes.append(StagedChange(name, None, None, row.document))
            elif self._revisions[old.revision_id].document != row.document:
                changes.append(StagedChange(name, old.id, old.revision_id, row.document))
        return changes

    async def unstage(self, names: Sequence[str]) -> None:
        for name in names:
            self._staged.pop(name, None)

    async def own(self, names: Sequence[str], *, owner: str, at: UtcMs, by: str) -> None:
        for id_ in [self._names[name] for name in names if name in self._names]:
            if self._schedules[id_].owner != owner:
                detail = owner_detail(owner, self._schedules[id_].owner, is_new=False)
                self._schedules[id_] = replace(self._schedules[id_], owner=owner)
                self._log(id_, at=at, by=by, action="apply", detail=detail)

    async def owned(self, owner: str) -> list[Owned]:
        living = ((name, self._schedules[id_]) for name, id_ in sorted(self._names.items()))
        return [Owned(name, one.id, one.revision_id) for name, one in living if one.owner == owner]

    async def flip(
        self,
        *,
        at: UtcMs,
        by: str,
        owner: str,
        unsettled: Sequence[JournalEntry],
        removed: Sequence[int] = (),
    ) -> list[TimetableRow]:
        for id_ in removed:
            stored = self._schedules[id_]
            del self._names[stored.spec.name]
            self._former.add((stored.spec.name, id_))
            self._schedules[id_] = replace(stored, effective_from=at, changed_at=at)
            self._log(id_, at=at, by=by, action="apply", before=stored.spec, detail={"owner": owner})
        changes = await self.staged_changes()
        unchanged = self._staged.keys() - {change.name for change in changes}
        await self.own(sorted(unchanged), owner=owner, at=at, by=by)
        rows = []
        for change in changes:
            spec = from_canonical(change.name, change.document)
            if change.id is None:
                id_, number, created_at, pause, error = self._new_id(spec), 1, at, None, None
                before, detail = None, owner_detail(owner, None, is_new=True)
            else:
                old = self._schedules[change.id]
                id_, number, created_at = old.id, old.revision + 1, old.created_at
                pause, error = old.pause, old.error
                before, detail = old.spec, owner_detail(owner, old.owner, is_new=False)
            slot = staged_slot(self._staged[change.name])
            self._names[change.name] = id_
            self._schedules[id_] = StoredSchedule(
                id=id_,
                spec=spec,
                revision=number,
                revision_id=self._revise(id_, number, spec, change.document, slot),
                effective_from=at,
                created_at=created_at,
                changed_at=at,
                pause=pause,
                error=error,
                owner=owner,
            )
            rows.append(self._row(id_))
            self._log(id_, at=at, by=by, action="apply", before=before, after=spec, detail=detail)
        for entry in unsettled:
            self._write(entry)
        self._staged = {}
        return rows

    # what the methods share

    def _new_id(self, _spec: ScheduleSpec) -> int:
        self._last_id += 1
        return self._last_id

    def _new_revision_id(self) -> int:
        return len(self._revisions) + 1

    def _revise(
        self, id_: int, number: int, spec: ScheduleSpec, document: str, slot: SingleSlot | None
    ) -> int:
        revision_id = self._new_revision_id()
        self._revisions[revision_id] = Revision(id_, number, spec, document, slot)
        return revision_id

    def _seen(self, id_: int) -> StoredSchedule:
        return replace(
            self._schedules[id_], pending=sum(entry.schedule_id == id_ for entry in self._pending.values())
        )

    def _row(self, id_: int) -> TimetableRow:
        schedule = self._schedules[id_]
        return TimetableRow(
            id=id_,
            revision_id=schedule.revision_id,
            name=schedule.spec.name,
            rule=rule_document(self._revisions[schedule.revision_id].document),
            effective_from=schedule.effective_from,
            paused_since=schedule.pause.since if schedule.pause else None,
            paused_until=schedule.pause.until if schedule.pause else None,
            slot_time=slot.fire_time if (slot := self._revisions[schedule.revision_id].slot) else None,
        )

    async def move_single_slots(self, moved: Sequence[tuple[int, UtcMs]]) -> None:
        for id_, fire_time in moved:
            revision = self._revisions[self._schedules[id_].revision_id]
            if revision.slot is not None:
                due_time = UtcMs(fire_time + revision.slot.due_time - revision.slot.fire_time)
                self._revisions[self._schedules[id_].revision_id] = replace(
                    revision, slot=SingleSlot(fire_time, due_time)
                )

    def _write(self, entry: JournalEntry) -> JournalEntry | None:
        """Return the entry as it is stored, None if there is a final one, which stays."""
        key = entry.key
        there = self._journal.get(key)
        if there is not None:
            if there.state is not State.PENDING:
                return None
            if entry.state is not State.PUBLISHED:
                entry = _with_last_attempt(entry, there)
            self._forget_pending(there)
        stored = self._journal[key] = as_stored(entry)
        if stored.state is State.PENDING:
            self._expect_pending(stored)
        self._times.setdefault((stored.schedule_id, stored.kind), set()).add(stored.fire_time)
        if stored.kind is Kind.SCHEDULED and not stored.is_open:
            insort(self._by_due, (stored.last_due_time, key))
            insort(self._by_slot, (stored.last_slot, key))
        return stored

    def _expect_pending(self, entry: JournalEntry) -> None:
        assert entry.next_attempt_at is not None
        self._pending[entry.key] = entry
        spec = self._revisions[entry.revision_id].spec
        group = spec.fifo_group
        if group is None or entry.is_in_line:
            insort(self._waiting, (entry.next_attempt_at, entry.key))
        if group is not None:
            self._of_group.setdefault(group, set()).add(entry.key)
        if entry.is_in_line:
            insort(self._lines.setdefault((spec.topic, spec.priority), []), _place_in_line(entry))

    def _forget_pending(self, entry: JournalEntry) -> None:
        assert entry.next_attempt_at is not None
        del self._pending[entry.key]
        spec = self._revisions[entry.revision_id].spec
        group = spec.fifo_group
        if group is None or entry.is_in_line:
            del self._waiting[bisect_left(self._waiting, (entry.next_attempt_at, entry.key))]
        if group is not None:
            self._of_group[group].discard(entry.key)
        if entry.is_in_line:
            places = self._lines[spec.topic, spec.priority]
            del places[bisect_left(places, _place_in_line(entry))]

    def _advance(self, watermark: UtcMs) -> None:
        self._watermark = watermark if self._watermark is None else max(self._watermark, watermark)

    def _single_slots(self) -> Iterator[tuple[StoredSchedule, SingleSlot]]:
        for id_ in self._names.values():
            schedule = self._schedules[id_]
            slot = self._revisions[schedule.revision_id].slot
            if slot and schedule.pause is None and slot.fire_time > schedule.effective_from:
                yield schedule, slot


def _place(entry: JournalEntry) -> tuple[UtcMs, int, str]:
    return entry.fire_time, entry.schedule_id, str(entry.kind)


def _with_last_attempt(entry: JournalEntry, there: JournalEntry) -> JournalEntry:
    """Return *entry* with what the row says of its last attempt, where it says nothing of one itself."""
    return entry._replace(
        released_at=there.released_at if entry.released_at is None else entry.released_at,
        lateness_us=there.lateness_us if entry.lateness_us is None else entry.lateness_us,
        last_error=there.last_error if entry.last_error is None else entry.last_error,
    )


def _pending_fire(entry: JournalEntry) -> PendingFire:
    assert entry.next_attempt_at is not None
    fire = Fire(
        schedule_id=entry.schedule_id,
        revision_id=entry.revision_id,
        fire_time=entry.fire_time,
        due_time=entry.due_time,
        kind=entry.kind,
        attempts=entry.attempts,
        maybe_published=entry.maybe_published,
        asked_at=entry.asked_at,
    )
    return PendingFire(fire, entry.next_attempt_at, entry.is_in_line)


def _place_in_line(entry: JournalEntry) -> LinePlace:
    return (entry.due_time, *entry.key)


def _key_of(place: LinePlace) -> FireKey:
    _, schedule_id, fire_time, kind = place
    return FireKey(schedule_id, fire_time, Kind(kind))
