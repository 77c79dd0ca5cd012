"""The store of a single machine: one SQLite file.

1. Each method that writes is one transaction; it returns when that is on the disk.
2. What can be long is done in slices of at most 2,000 rows and 4 MiB, one statement each (docs/adr/0004-store.md).
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from cronally.domain.durations import DAY_MS
from cronally.domain.model import Fire, State
from cronally.domain.spec import canonical_document, from_canonical
from cronally.engine.ports import Opened, Revised, StagedChange, StoreCounts, TimetableRow, ZoneRecord
from cronally.errors import Conflict, RevisionConflict, ScheduleNotFound, StoreError
from cronally.instants import MIN_UTC_MS, UtcMs
from cronally.store import journal_sql, schedule_sql
from cronally.store.base import single_slot
from cronally.store.database import Database
from cronally.store.schema import CLEAN_STOP, PRUNED_THROUGH, WATERMARK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from cronally.domain.model import JournalEntry
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.ports import (
        JournalFilter,
        JournalRow,
        PendingFire,
        ScheduleChange,
        StagedRow,
        StoredSchedule,
    )
    from cronally.store.database import Connection

_MOST_ROWS = schedule_sql.MOST_ROWS
_MOST_SPECS = 500  # one takes 2 µs to build

_SET_META = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
_ADVANCE = """
    INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)
"""


class SqliteStore:
    """The durable memory in the file at *path*, as ``engine.ports.Store`` promises it.

    One daemon at a time: ``PATH.lock`` is held while the store is open. Removed schedules keep their journal.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Name the file; ``open`` creates it."""
        self._path = os.fspath(path)
        self._opened: Database | None = None

    async def open(self) -> Opened:
        database = await Database.open(self._path)
        try:
            async with database.transaction() as writer:
                meta = dict(await writer.rows("SELECT key, value FROM meta"))
                failing = await writer.json(schedule_sql.FAILING)
                await writer.rows(_SET_META, (CLEAN_STOP, 0))
        except BaseException:
            await database.close()
            raise
        self._opened = database
        return Opened(
            watermark=meta.get(WATERMARK),
            was_clean=database.was_clean,
            pruned_through=meta.get(PRUNED_THROUGH),
            failing=frozenset(failing),
        )

    async def close(self, *, watermark: UtcMs | None) -> None:
        database = self._database
        try:
            if watermark is not None:
                async with database.transaction() as writer:
                    await writer.rows(_ADVANCE, (WATERMARK, watermark))
                    await writer.rows(_SET_META, (CLEAN_STOP, 1))
        finally:
            self._opened = None
            await database.close()

    @property
    def _database(self) -> Database:
        if self._opened is None:
            raise StoreError(f"the store {self._path} is not open")
        return self._opened

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

    async def nearest_name(self, name: str) -> str | None:
        names = await self._database.lister.json(schedule_sql.ALIKE, (name,))
        return next(iter(get_close_matches(name, names, n=1)), None)

    async def specs(self, revision_ids: Sequence[int]) -> dict[int, ScheduleSpec]:
        reader = self._database.reader
        found: dict[int, ScheduleSpec] = {}
        wanted = sorted(set(revision_ids))
        for start in range(0, len(wanted), _MOST_SPECS):
            some = wanted[start : start + _MOST_SPECS]
            marked = json.dumps(some)
            [[text, size]] = await reader.rows(schedule_sql.SPECS_TEXT, (marked,))
            if text is None:
                if size:
                    await self._add_large_specs(found, marked, some[-1])
                continue
            for line in text.split("\n"):
                revision_id, name, document = line.split("\t")
                found[int(revision_id)] = from_canonical(name, document)
        return found

    async def _add_large_specs(self, found: dict[int, ScheduleSpec], marked: str, last: int) -> None:
        """Read *marked* revisions up to the id *last* a few megabytes at a time."""
        after = 0
        while after < last:
            rows = await self._database.reader.json(schedule_sql.SPECS, (marked, after, _MOST_SPECS))
            if not rows:
                break
            for revision_id, name, document in rows:
                found[revision_id] = from_canonical(name, document)
            after = rows[-1][0]

    async def change(self, change: ScheduleChange) -> Revised:
        async with self._database.transaction() as writer:
            if change.id is None:
                assert change.new_spec is not None
                await _refuse_taken(writer, change.new_spec.name, None)
                [[id_]] = await writer.rows(schedule_sql.INSERT_SCHEDULE, (change.new_spec.name, change.at))
                name, number, revision_id = change.new_spec.name, 0, 0
            else:
                id_ = change.id
                name, number, revision_id = await _current(writer, change)
            if change.is_removal:
                await writer.rows(schedule_sql.REMOVE, (change.at, id_))
                await writer.rows(schedule_sql.REMEMBER_NAME, (name, id_))
            elif change.new_spec is not None:
                number += 1
                revision_id = await _revise(writer, change, id_, number, old_name=name)
            if change.is_removal or change.new_spec is None:
                detail = schedule_sql.pause_detail(change.pause)
                await writer.rows(
                    schedule_sql.INSERT_ACTION,
                    (id_, revision_id, change.at, change.by, change.action, detail),
                )
            await _update(writer, change, id_)
            await _settle_change(writer, change, id_, revision_id)
            [[pending]] = await writer.rows(schedule_sql.COUNT_PENDING, (id_,))
        return Revised(id_, number, revision_id, pending)

    # single instants (@at)

    async def at_between(self, after: UtcMs, through: UtcMs) -> list[Fire]:
        rows = await self._database.reader.json(schedule_sql.SINGLE_BETWEEN, (after, through))
        return [Fire(*row) for row in rows]

    async def next_at(self, after: UtcMs) -> UtcMs | None:
        rows = await self._database.reader.rows(schedule_sql.NEXT_SINGLE, (after,))
        return UtcMs(rows[0][0]) if rows else None

    # journal

    async def commit(
        self,
        entries: Sequence[JournalEntry],
        *,
        watermark: UtcMs | None,
        errors: Iterable[tuple[int, str | None]] = (),
    ) -> None:
        said = [(id_, error and journal_sql.storable(error)) for id_, error in dict(errors).items()]
        statements: list[tuple[str, Sequence[object]]] = [*journal_sql.upserts(entries)]
        if said:
            statements.append((schedule_sql.SET_ERRORS, (json.dumps(said),)))
        if watermark is not None:
            statements.append((_ADVANCE, (WATERMARK, watermark)))
        await self._database.write(statements)

    async def settled_after(self, watermark: UtcMs) -> dict[int, list[tuple[UtcMs, UtcMs]]]:
        reader = self._database.reader
        settled: dict[int, list[tuple[UtcMs, UtcMs]]] = {}
        mixed: set[int] = set()
        for is_ordinary, statement in zip((True, False), journal_sql.SETTLED, strict=True):
            last: tuple[int, int, int] = (watermark + 1, 0, MIN_UTC_MS)
            while rows := await reader.json(statement, (*last, _MOST_ROWS)):
                for _, schedule_id, first, end in rows:
                    settled.setdefault(schedule_id, []).append((first, end))
                if not is_ordinary:  # these come by due time, the ordinary ones by fire time
                    mixed.update(row[1] for row in rows)
                last = (rows[-1][0], rows[-1][1], rows[-1][2])
        for schedule_id in mixed:
            settled[schedule_id].sort()
        return settled

    async def pending_due(
        self, through: UtcMs, *, after: tuple[UtcMs, int, UtcMs, str] | None = None, limit: int = 2000
    ) -> list[PendingFire]:
        reader = self._database.reader
        found: list[PendingFire] = []
        last: tuple[int, int, int, str] = after or (MIN_UTC_MS, 0, MIN_UTC_MS, "")
        while len(found) < limit:
            most = min(limit - len(found), _MOST_ROWS)
            rows = await reader.json(journal_sql.PENDING_DUE, (through, *last, most))
            found += map(journal_sql.pending_fire, rows)
            if len(rows) < most:
                break
            last = (found[-1].next_attempt_at, *found[-1].fire.key)
        return found

    async def next_pending(self, after: UtcMs) -> UtcMs | None:
        [[earliest]] = await self._database.reader.rows(journal_sql.NEXT_PENDING, (after,))
        return None if earliest is None else UtcMs(earliest)

    async def pending_groups(self) -> list[tuple[str, str]]:
        texts = await self._database.reader.json(journal_sql.PENDING_GROUPS)
        return [(topic, group) for topic, _, group in (text.partition(" ") for text in texts)]

    async def group_pending(self, topic: str, group: str, *, limit: int = 100) -> list[PendingFire]:
        rows = await self._database.reader.json(journal_sql.GROUP_PENDING, (f"{topic} {group}", limit))
        return [journal_sql.pending_fire(row) for row in rows]

    async def mark_unclean(self) -> None:
        async with self._database.transaction() as writer:
            await writer.rows(journal_sql.MARK_UNCLEAN)

    async def manual_times(self, schedule_id: int, since: UtcMs) -> set[UtcMs]:
        return set(await self._database.reader.json(journal_sql.MANUAL_TIMES, (schedule_id, since)))

    async def remembered_run(self, key: str) -> str | None:
        rows = await self._database.reader.rows("SELECT fire_id FROM run WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    async def add_manual(
        self, entry: JournalEntry, *, by: str, fire_id: str, idempotency_key: str | None
    ) -> None:
        asked_at = entry.due_time
        async with self._database.transaction() as writer:
            await writer.rows("DELETE FROM run WHERE asked_at <= ?", (asked_at - DAY_MS,))
            taken = await writer.rows(
                "SELECT 1 FROM run WHERE key = ? UNION ALL "
                "SELECT 1 FROM journal WHERE schedule_id = ? AND fire_time = ? AND kind = ?",
                (idempotency_key, entry.schedule_id, entry.fire_time, str(entry.kind)),
            )
            if taken:
                raise Conflict(f"{fire_id} was run already")
            await _write(writer, [entry])
            if idempotency_key is not None:
                await writer.rows("INSERT INTO run VALUES (?, ?, ?)", (idempotency_key, fire_id, asked_at))
            await writer.rows(
                schedule_sql.INSERT_ACTION,
                (entry.schedule_id, entry.revision_id, asked_at, by, "run", json.dumps({"fire_id": fire_id})),
            )

    async def history(self, wanted: JournalFilter) -> list[JournalRow]:
        lister = self._database.lister
        ids = None
        if wanted.schedule is not None:
            named = await lister.rows(journal_sql.SCHEDULES_NAMED, (wanted.schedule, wanted.schedule))
            ids = [id_ for (id_,) in named]
        found: list[JournalRow] = []
        while len(found) < wanted.limit:
            most = min(wanted.limit - len(found), _MOST_ROWS)
            rows = await lister.json(*journal_sql.history(replace(wanted, limit=most), ids))
            found += map(journal_sql.journal_row, rows)
            if len(rows) < most:
                break
            last = found[-1].entry
            wanted = replace(wanted, before=(last.fire_time, last.schedule_id, str(last.kind)))
        return found

    async def covering(self, schedule_id: int, fire_time: UtcMs) -> list[JournalRow]:
        rows = await self._database.lister.json(journal_sql.COVERING, (schedule_id, fire_time))
        return [journal_sql.journal_row(row) for row in rows]

    async def counts(self) -> StoreCounts:
        # One trip to the connection: in a burst each waits for a turn of a busy event loop.
        [schedules, paused, failing], journal, oldest = await self._database.lister.json(
            f"SELECT json_array(json(({schedule_sql.COUNT_SCHEDULES})), json(({journal_sql.COUNTS})), ({journal_sql.OLDEST_PENDING}))"
        )
        return StoreCounts(
            schedules=schedules,
            paused=paused,
            failing=failing,
            journal={State(state): count for state, count in journal},
            oldest_pending_due=None if oldest is None else UtcMs(oldest),
        )

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
            for count, marked in schedule_sql.staged_slices(rows):
                await writer.rows(schedule_sql.STAGE, (marked,))
                if await writer.rows("SELECT changes()") != [(count,)]:
                    raise Conflict("a name is staged twice")

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

    async def flip(
        self, *, at: UtcMs, by: str, owner: str, unsettled: Sequence[JournalEntry]
    ) -> list[TimetableRow]:
        async with self._database.transaction() as writer:
            [[last]] = await writer.rows(schedule_sql.LAST_REVISION)
            values = {"at": at, "by": by, "owner": owner, "last_revision": last}
            for statement in schedule_sql.FLIP:
                await writer.rows(statement, values)
            await _write(writer, unsettled)
            found: list[TimetableRow] = []
            while rows := await writer.json(schedule_sql.FLIPPED, (last, _MOST_ROWS)):
                found += [TimetableRow(*row) for row in rows]
                last = found[-1].revision_id
        return found


# --- parts of a transaction -------------------------------------------------------------------------------------


async def _write(writer: Connection, entries: Sequence[JournalEntry]) -> None:
    for statement, values in journal_sql.upserts(entries):
        await writer.rows(statement, values)


async def _refuse_taken(writer: Connection, name: str, own_id: int | None) -> None:
    holder = await writer.rows(schedule_sql.HOLDER, (name,))
    if holder and holder != [(own_id,)]:
        raise Conflict(f"there is a schedule named {name!r} already")


async def _current(writer: Connection, change: ScheduleChange) -> tuple[str, int, int]:
    """Return the name, revision number and revision id of the schedule that *change* is about."""
    found = await writer.rows(schedule_sql.CURRENT, (change.id,))
    if not found or found[0][3]:
        raise ScheduleNotFound(change.name or (found[0][0] if found else str(change.id)))
    [(name, number, revision_id, _)] = found
    if change.expected_revision_id not in (None, revision_id):
        expected = await writer.rows(schedule_sql.NUMBER, (change.expected_revision_id,))
        raise RevisionConflict(name, expected=expected[0][0] if expected else 0, found=number)
    return name, number, revision_id


async def _revise(writer: Connection, change: ScheduleChange, id_: int, number: int, *, old_name: str) -> int:
    """Give the schedule a new revision; return its id."""
    spec = change.new_spec
    assert spec is not None
    if spec.name != old_name:
        await _refuse_taken(writer, spec.name, id_)
        await writer.rows(schedule_sql.REMEMBER_NAME, (old_name, id_))
    document = canonical_document(spec)
    group = schedule_sql.group_text(spec)
    made = (change.at, change.by, change.action)
    [[revision_id]] = await writer.rows(
        schedule_sql.INSERT_REVISION,
        (id_, number, spec.name, group, *made, len(document.encode()), document),
    )
    slot = single_slot(spec) or (None, None)
    await writer.rows(schedule_sql.REVISE, (spec.name, revision_id, *slot, id_))
    return int(revision_id)


async def _update(writer: Connection, change: ScheduleChange, id_: int) -> None:
    pause = change.pause
    paused = (pause.since, pause.until, pause.note, pause.by) if pause else (None,) * 4
    await writer.rows(schedule_sql.UPDATE, (change.effective_from, change.at, change.owner, *paused, id_))


async def _settle_change(writer: Connection, change: ScheduleChange, id_: int, revision_id: int) -> None:
    for entry in change.closed:
        await writer.rows(journal_sql.FORGET_OPEN, (id_, entry.fire_time, str(entry.kind)))
    opened = [
        entry._replace(schedule_id=entry.schedule_id or id_, revision_id=entry.revision_id or revision_id)
        for entry in change.opened
    ]
    closed = [entry for entry in change.closed if entry.count]
    await _write(writer, [*closed, *change.unsettled, *opened])
    if change.drop_pending:
        kept = json.dumps([(fire_time, str(kind)) for fire_time, kind in change.kept])
        await writer.rows(journal_sql.DROP_PENDING, (id_, kept))
