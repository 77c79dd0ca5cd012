"""The store of a single machine: one SQLite file.

1. Each method that writes is one transaction; it returns when that is on the disk.
2. What can be long is done in slices of at most 2,000 rows and 4 MiB, one statement each (docs/adr/0004-store.md).
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cronally.domain.durations import parse_duration
from cronally.domain.model import Fire, Kind, Pause, SkipReason
from cronally.domain.spec import canonical_document, from_canonical
from cronally.engine.records import (
    MOST_TOLD,
    AuditPage,
    AuditRow,
    Label,
    Opened,
    Owned,
    Revised,
    StagedChange,
    TimetableRow,
    TopicUse,
    ZoneRecord,
)
from cronally.errors import Conflict, RevisionConflict, ScheduleNotFound
from cronally.instants import UtcMs
from cronally.store import audit_sql, journal_sql, schedule_sql
from cronally.store.base import change_detail, single_slot
from cronally.store.copying import write_copy
from cronally.store.database import Database
from cronally.store.schema import CLEAN_STOP, PRUNED_THROUGH, REACHED, SET_BACK_AT, WATERMARK
from cronally.store.sqlite_journal import ADVANCE, ALL, SET_META, SqliteJournal, amend_entries, write_entries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from cronally.domain.model import JournalEntry
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.copies import Contents
    from cronally.engine.records import (
        AuditFilter,
        AuditPlace,
        ScheduleChange,
        StagedRow,
        StoredSchedule,
    )
    from cronally.store.database import Connection

GROUP_COMMIT_S: Final = 0.05  # what outcomes wait for others: a commit takes the disk some milliseconds

_MOST_ROWS = schedule_sql.MOST_ROWS
_MOST_SPECS = 500  # one takes 2 µs to build
_MOST_AUDIT_SCANS: Final = 10  # statements that one page of the audit log takes


class ChosenIds(NamedTuple):
    """The ids that a change gives. None: SQLite counts."""

    schedule_id: int | None = None
    revision_id: int | None = None


CHOSEN_BY_SQLITE: Final = ChosenIds()


class SqliteStore(SqliteJournal):
    """The durable memory in the file at *path*, as ``engine.ports.Store`` promises it.

    One daemon at a time: ``PATH.lock`` is held while the store is open. Removed schedules keep their journal.
    """

    commit_interval_s = GROUP_COMMIT_S

    def __init__(self, path: str | os.PathLike[str], *, is_durable: bool = True) -> None:
        """Name the file; ``open`` creates it. is_durable: a commit returns when it is on the disk."""
        super().__init__(os.fspath(path))
        self._is_durable = is_durable
        self._is_backing_up = False
        self._backup_stop = threading.Event()

    async def open(self) -> Opened:
        database = await Database.open(self._path, is_durable=self._is_durable)
        try:
            async with database.transaction() as writer:
                meta = dict(await writer.rows("SELECT key, value FROM meta"))
                failing = await writer.json(schedule_sql.FAILING)
                await writer.rows(SET_META, (CLEAN_STOP, 0))
            # Or a store that loses its log later would look as if it had been stopped in order.
            await database.fold_log()
        except BaseException:
            await database.close()
            raise
        self._opened = database
        return Opened(
            watermark=meta.get(WATERMARK),
            was_clean=database.was_clean,
            pruned_through=meta.get(PRUNED_THROUGH),
            reached=meta.get(REACHED),
            set_back_at=meta.get(SET_BACK_AT),
            failing=frozenset(failing),
        )

    async def close(self, *, watermark: UtcMs | None) -> None:
        database = self._database
        try:
            if watermark is not None:
                async with database.transaction() as writer:
                    await writer.rows(ADVANCE, (WATERMARK, watermark))
                    await writer.rows(SET_META, (CLEAN_STOP, 1))
        finally:
            self._opened = None
            await database.close()

    @property
    def kept_by_restore(self) -> str | None:
        """Where the file is that a restore, finished when this store was opened, has replaced; None if there was none."""
        return self._database.kept

    async def backup(self, path: str, *, replace: bool) -> Contents:
        """Write a checked copy, as ``engine.copies.BackupMaker`` promises it."""
        if self._is_backing_up:
            raise Conflict("another backup is being written; wait until it is done")
        self._is_backing_up = True
        self._backup_stop.clear()
        try:
            return await asyncio.to_thread(
                write_copy, self._database.path, path, replace=replace, stop=self._backup_stop
            )
        finally:
            self._backup_stop.set()  # if this was cancelled, the thread goes on
            self._is_backing_up = False

    def abandon_backup(self) -> None:
        """Have a backup that is being written fail now."""
        self._backup_stop.set()

    # schedules

    async def timetable(self) -> AsyncIterator[Sequence[TimetableRow]]:
        def read(after: int) -> asyncio.Task[list[list[Any]]]:
            return asyncio.ensure_future(reader.json(schedule_sql.TIMETABLE, (after, _MOST_ROWS)))

        reader = self._database.reader
        reading = read(0)
        try:
            while rows := await reading:
                reading = read(rows[-1][0])  # while the caller works, SQLite works on
                yield list(map(TimetableRow._make, rows))
        finally:
            reading.cancel()

    async def schedule(self, name: str) -> StoredSchedule | None:
        rows = await self._database.reader.json(schedule_sql.SCHEDULE, (name, 1))
        return schedule_sql.stored_schedule(rows[0]) if rows else None

    async def schedules(self, *, after: str | None = None, limit: int = 1000) -> list[StoredSchedule]:
        lister = self._database.lister
        found: list[StoredSchedule] = []
        last = after or ""
        while len(found) < limit:
            most = min(limit - len(found), _MOST_SPECS)
            rows = await lister.json(schedule_sql.SCHEDULES, (last, most))
            if not rows:
                break
            found += map(schedule_sql.stored_schedule, rows)
            last = found[-1].spec.name
        return found

    async def changed_beyond(
        self, at: UtcMs, *, after: str = "", limit: int = 500
    ) -> list[tuple[StoredSchedule, bool]]:
        rows = await self._database.lister.json(schedule_sql.CHANGED_BEYOND, (at, after, limit))
        return [(schedule_sql.stored_schedule(row[:-1]), bool(row[-1])) for row in rows]

    async def topics(self, *, after: str = "", limit: int = 1000) -> list[TopicUse]:
        rows = await self._database.lister.json(schedule_sql.TOPICS, (after, limit))
        return [TopicUse(*row) for row in rows]

    async def nearest_name(self, name: str) -> str | None:
        names = await self._database.lister.json(schedule_sql.ALIKE, (name,))
        return next(iter(get_close_matches(name, names, n=1)), None)

    async def specs(self, revision_ids: Sequence[int]) -> dict[int, ScheduleSpec]:
        return await self._specs(self._database.reader, revision_ids)

    async def _specs(self, reader: Connection, revision_ids: Sequence[int]) -> dict[int, ScheduleSpec]:
        found: dict[int, ScheduleSpec] = {}
        wanted = sorted(set(revision_ids))
        for start in range(0, len(wanted), _MOST_SPECS):
            some = wanted[start : start + _MOST_SPECS]
            marked = json.dumps(some)
            [[text, size]] = await reader.rows(schedule_sql.SPECS_TEXT, (marked,))
            if text is None:
                if size:
                    await self._add_large_specs(reader, found, marked, some[-1])
                continue
            for line in text.split("\n"):
                revision_id, name, document = line.split("\t")
                found[int(revision_id)] = from_canonical(name, document)
        return found

    async def labels(self, revision_ids: Sequence[int]) -> dict[int, Label]:
        marked = json.dumps(sorted(set(revision_ids)))
        rows = await self._database.lister.json(schedule_sql.LABELS, (marked,))
        return {
            id_: Label(name, topic, tz, None if late_after is None else parse_duration(late_after))
            for id_, name, topic, tz, late_after in rows
        }

    async def _add_large_specs(
        self, reader: Connection, found: dict[int, ScheduleSpec], marked: str, last: int
    ) -> None:
        """Read *marked* revisions up to the id *last* a few megabytes at a time."""
        after = 0
        while after < last:
            rows = await reader.json(schedule_sql.SPECS, (marked, after, _MOST_SPECS))
            if not rows:
                break
            for revision_id, name, document in rows:
                found[revision_id] = from_canonical(name, document)
            after = rows[-1][0]

    async def change(
        self,
        change: ScheduleChange,
        *,
        gone: list[JournalEntry] | None = None,
        ids: ChosenIds = CHOSEN_BY_SQLITE,
        most_told: int = MOST_TOLD,
    ) -> Revised:
        """Make *change*, as ``engine.ports.Store`` promises it.

        ids: those that a new schedule and a new revision get. most_told: how many rows *gone* gets, or ``ALL``.
        """

        async def make(writer: Connection) -> tuple[Revised, list[JournalEntry]]:
            return await self._make(writer, change, ids, most_told=0 if gone is None else most_told)

        revised, rows = await self._database.in_one_trip(make)
        if gone is not None:
            gone += rows
        return revised

    async def change_many(
        self,
        changes: Sequence[ScheduleChange],
        *,
        gone: list[JournalEntry] | None = None,
        most_told: int = MOST_TOLD,
    ) -> list[Revised]:
        """Make *changes*, as ``engine.ports.Store`` promises it. most_told: as of ``change``."""

        async def make(writer: Connection) -> tuple[list[Revised], list[JournalEntry]]:
            made: list[Revised] = []
            told: list[JournalEntry] = []
            for change in changes:
                most = 0 if gone is None else ALL if most_told == ALL else most_told - len(told)
                revised, rows = await self._make(writer, change, CHOSEN_BY_SQLITE, most_told=most)
                made.append(revised)
                told += rows
            return made, told

        made, told = await self._database.in_one_trip(make)
        if gone is not None:
            gone += told
        return made

    async def _make(
        self, writer: Connection, change: ScheduleChange, ids: ChosenIds, *, most_told: int
    ) -> tuple[Revised, list[JournalEntry]]:
        """Make *change* in the transaction of *writer*; return the first *most_told* rows that it drops, too."""
        if change.id is None:
            assert change.new_spec is not None
            name = change.new_spec.name
            await self._refuse_taken(writer, name, None)
            [[id_]] = await writer.rows(schedule_sql.INSERT_SCHEDULE, (ids.schedule_id, name, change.at))
            old = _Current(change.new_spec.name, 0, 0, None, None)
        else:
            id_ = change.id
            old = await _current(writer, change)
        number, revision_id = old.number, old.revision_id
        detail = schedule_sql.detail_text(change_detail(change, old.pause, old.owner))
        spec = change.new_spec
        if spec is not None and spec.name != old.name and not change.is_removal:
            await self._refuse_taken(writer, spec.name, id_)
            await writer.rows(schedule_sql.REMEMBER_NAME, (old.name, id_))
        if change.is_removal:
            await writer.rows(schedule_sql.REMOVE, (change.at, id_))
            await writer.rows(schedule_sql.REMEMBER_NAME, (old.name, id_))
        elif change.new_spec is not None:
            number += 1
            revision_id = await _revise(writer, change, id_, number, ids.revision_id, detail=detail)
        if change.is_removal or change.new_spec is None:
            await writer.rows(
                schedule_sql.INSERT_ACTION,
                (id_, revision_id, change.at, change.by, change.action, detail),
            )
        await _update(writer, change, id_)
        dropped, rows = await _settle_change(writer, change, id_, revision_id, most_told=most_told)
        [[pending]] = await writer.rows(schedule_sql.COUNT_PENDING, (id_,))
        return Revised(id_, number, revision_id, pending, dropped), rows

    async def _refuse_taken(self, writer: Connection, name: str, own_id: int | None) -> None:
        holder = await writer.rows(schedule_sql.HOLDER, (name,))
        if holder and holder != [(own_id,)]:
            raise Conflict(f"there is a schedule named {name!r} already")

    async def audit(self, wanted: AuditFilter) -> AuditPage:
        lister = self._database.lister
        ids = None
        if wanted.schedule is not None:
            named = await lister.rows(journal_sql.SCHEDULES_NAMED, (wanted.schedule, wanted.schedule))
            ids = [id_ for (id_,) in named]
        found: list[AuditPlace] = []
        limit = min(wanted.limit, _MOST_SPECS)
        is_picking = wanted.by is not None or wanted.actions
        scanned = audit_sql.MOST_SCANNED if is_picking else limit
        following = wanted.before
        for _ in range(_MOST_AUDIT_SCANS):
            some = replace(wanted, before=following, limit=limit - len(found))
            count, last, places = await lister.json(*audit_sql.places(some, ids, scanned=scanned))
            found += [(at, source, id_) for at, source, id_ in places]
            if len(found) == limit:
                following = found[-1]
                break
            if count < scanned:
                following = None
                break
            following = (last[0], last[1], last[2])
        return await self._audit_page(found, following)

    async def _audit_page(self, places: Sequence[AuditPlace], following: AuditPlace | None) -> AuditPage:
        """Read the changes at *places*, as far as their revisions are not too many bytes for one page."""
        asked = json.dumps(places)
        taken: list[list[Any]] = []
        size_bytes = 0
        for row in await self._database.lister.json(audit_sql.ROWS, (asked, asked)):
            size_bytes += row.pop()
            if taken and size_bytes > schedule_sql.MOST_BYTES:
                following = (taken[-1][0], taken[-1][1], taken[-1][2])
                break
            taken.append(row)
        revisions = [id_ for row in taken for id_ in row[8:10] if id_ is not None]
        specs = await self._specs(self._database.lister, revisions)
        return AuditPage([_audit_row(row, specs) for row in taken], following)

    # single instants (@at)

    async def at_between(self, after: UtcMs, through: UtcMs, *, limit: int | None = None) -> list[Fire]:
        most = -1 if limit is None else limit
        rows = await self._database.reader.json(schedule_sql.SINGLE_BETWEEN, (after, through, most))
        return [Fire(*row) for row in rows]

    async def next_at(self, after: UtcMs) -> UtcMs | None:
        rows = await self._database.reader.rows(schedule_sql.NEXT_SINGLE, (after,))
        return UtcMs(rows[0][0]) if rows else None

    async def move_single_slots(self, moved: Sequence[tuple[int, UtcMs]]) -> None:
        async with self._database.transaction() as writer:
            await writer.rows(schedule_sql.MOVE_SINGLE_SLOTS, (json.dumps(list(moved)),))

    # zones under a version of tzdata

    async def zone_records(self, names: Sequence[str]) -> dict[str, ZoneRecord]:
        rows = await self._database.reader.json(schedule_sql.ZONE_RECORDS, (json.dumps(list(names)),))
        return {
            name: ZoneRecord(name, tzdata, tuple(starts), tuple(offsets))
            for name, tzdata, starts, offsets in rows
        }

    async def keep_zone_records(self, rows: Sequence[ZoneRecord]) -> None:
        async with self._database.transaction() as writer:
            await writer.rows(schedule_sql.KEEP_ZONE_RECORDS, (json.dumps(rows),))

    async def forget_zone_records(self, *, but: str) -> None:
        async with self._database.transaction() as writer:
            await writer.rows(schedule_sql.FORGET_ZONE_RECORDS, (but,))

    # apply

    async def stage_begin(self) -> None:
        async with self._database.transaction() as writer:
            await writer.rows(schedule_sql.CLEAR_STAGING)

    async def stage(self, rows: Sequence[StagedRow]) -> None:
        async with self._database.transaction() as writer:
            await stage_rows(writer, rows)

    async def staged_changes(self) -> list[StagedChange]:
        reader = self._database.reader
        found: list[StagedChange] = []
        last = ""
        while rows := await reader.json(schedule_sql.STAGED_CHANGES, (last, _MOST_ROWS)):
            found += [StagedChange(*row) for row in rows]
            last = found[-1].name
        return found

    async def unstage(self, names: Sequence[str]) -> None:
        async with self._database.transaction() as writer:
            await writer.rows(schedule_sql.UNSTAGE, (json.dumps(list(names)),))

    async def own(
        self, names: Sequence[str], *, owner: str, at: UtcMs, by: str, shard: int | None = None
    ) -> None:
        """Note whose they are, as ``engine.ports.Store`` promises it. shard: which they are of; None if names are unique here."""
        async with self._database.transaction() as writer:
            for start in range(0, len(names), _MOST_ROWS):
                some = json.dumps(names[start : start + _MOST_ROWS])
                for statement in schedule_sql.OWN:
                    await writer.rows(
                        statement, {"owner": owner, "names": some, "at": at, "by": by, "shard": shard}
                    )

    async def owned(self, owner: str) -> list[Owned]:
        found: list[Owned] = []
        while rows := await self._database.lister.json(
            schedule_sql.OWNED, (owner, found[-1].name if found else "", _MOST_ROWS)
        ):
            found += map(Owned._make, rows)
        return found

    async def flip(
        self,
        *,
        at: UtcMs,
        by: str,
        owner: str,
        unsettled: Sequence[JournalEntry],
        removed: Sequence[int] = (),
        ids: Mapping[str, ChosenIds] | None = None,
    ) -> list[TimetableRow]:
        """Make the staged changes, as ``engine.ports.Store`` promises it. ids: those that new schedules and new revisions get, by name."""
        async with self._database.transaction() as writer:
            await flip_staged(
                writer, at=at, by=by, owner=owner, unsettled=unsettled, removed=removed, ids=ids
            )
            found: list[TimetableRow] = []
            while rows := await writer.json(
                schedule_sql.FLIPPED, (found[-1].name if found else "", _MOST_ROWS)
            ):
                found += [TimetableRow(*row) for row in rows]
            await writer.rows(schedule_sql.CLEAR_STAGING)
        return found


# --- parts of a transaction -------------------------------------------------------------------------------------


async def stage_rows(writer: Connection, rows: Sequence[StagedRow]) -> None:
    """Put *rows* into the staging area. Errors: Conflict."""
    for count, marked in schedule_sql.staged_slices(rows):
        await writer.rows(schedule_sql.STAGE, (marked,))
        if await writer.rows("SELECT changes()") != [(count,)]:
            raise Conflict("a name is staged twice")


async def flip_staged(
    writer: Connection,
    *,
    at: UtcMs,
    by: str,
    owner: str,
    unsettled: Sequence[JournalEntry],
    removed: Sequence[int],
    ids: Mapping[str, ChosenIds] | None,
    shard: int | None = None,
) -> None:
    """Make the staged changes; what is left in the staging area has changed. shard: which all staged ones are of; None if names are unique here."""
    if ids is not None:
        chosen = json.dumps([(name, *of_name) for name, of_name in ids.items()])
        await writer.rows(schedule_sql.CHOOSE_IDS, (chosen,))
    values = {"at": at, "by": by, "owner": owner, "shard": shard}
    for statement in schedule_sql.FLIP:
        await writer.rows(statement, values)
    for statement in schedule_sql.REMOVE_MANY if removed else ():
        await writer.rows(statement, {"at": at, "by": by, "owner": owner, "ids": json.dumps(list(removed))})
    await write_entries(writer, unsettled)


class _Current(NamedTuple):
    """A schedule before a change."""

    name: str
    number: int
    revision_id: int
    pause: Pause | None
    owner: str | None


async def _current(writer: Connection, change: ScheduleChange) -> _Current:
    """Return the schedule that *change* is about as it is."""
    found = await writer.rows(schedule_sql.CURRENT, (change.id,))
    if not found or found[0][3]:
        raise ScheduleNotFound(change.name or (found[0][0] if found else str(change.id)))
    [(name, number, revision_id, _, since, until, note, owner)] = found
    if change.expected_revision_id not in (None, revision_id):
        expected = await writer.rows(schedule_sql.NUMBER, (change.expected_revision_id,))
        raise RevisionConflict(name, expected=expected[0][0] if expected else 0, found=number)
    pause = None if since is None else Pause(since=since, until=until, note=note)
    return _Current(name, number, revision_id, pause, owner or None)


async def _revise(
    writer: Connection,
    change: ScheduleChange,
    id_: int,
    number: int,
    revision_id: int | None,
    *,
    detail: str | None,
) -> int:
    """Give the schedule a new revision, with *revision_id* if it is chosen; return its id."""
    spec = change.new_spec
    assert spec is not None
    document = canonical_document(spec)
    group = schedule_sql.group_text(spec)
    made = (change.at, change.by, change.action)
    [[revision_id]] = await writer.rows(
        schedule_sql.INSERT_REVISION,
        (revision_id, id_, number, spec.name, group, *made, len(document.encode()), document, detail),
    )
    slot = single_slot(spec) or (None, None)
    await writer.rows(schedule_sql.REVISE, (spec.name, revision_id, *slot, id_))
    return int(revision_id)


async def _update(writer: Connection, change: ScheduleChange, id_: int) -> None:
    pause = change.pause
    paused = (pause.since, pause.until, pause.note, pause.by) if pause else (None,) * 4
    await writer.rows(schedule_sql.UPDATE, (change.effective_from, change.at, change.owner, *paused, id_))


async def _settle_change(
    writer: Connection, change: ScheduleChange, id_: int, revision_id: int, *, most_told: int
) -> tuple[tuple[tuple[Kind, int], ...], list[JournalEntry]]:
    """Write the rows of *change*; return how many pending ones of each kind it has dropped, and the first *most_told* of them."""
    await amend_entries(writer, change.closed)
    opened = [
        entry._replace(schedule_id=entry.schedule_id or id_, revision_id=entry.revision_id or revision_id)
        for entry in change.opened
    ]
    await write_entries(writer, [*change.unsettled, *opened])
    if not change.drop_pending:
        return (), []
    kept = json.dumps([(fire_time, str(kind)) for fire_time, kind in change.kept])
    dropped = await writer.rows(journal_sql.COUNT_TO_DROP, (id_, kept))
    rows = await writer.json(journal_sql.TO_DROP, (id_, kept, most_told)) if most_told else []
    await writer.rows(journal_sql.DROP_PENDING, (id_, kept))
    counts = tuple((Kind(kind), count) for kind, count in dropped)
    return counts, [*journal_sql.skipped(rows, SkipReason.DROPPED)]


def _audit_row(row: list[Any], specs: Mapping[int, ScheduleSpec]) -> AuditRow:
    at, _, _, by, action, name, number, detail, before, after = row
    told = {} if detail is None else json.loads(detail)
    told.pop("removed", None)  # which is what having no revision after it says
    return AuditRow(
        at=at,
        by=by,
        action=action,
        name=name,
        revision=number,
        before=None if before is None else specs[before],
        after=None if after is None else specs[after],
        detail=told,
    )
