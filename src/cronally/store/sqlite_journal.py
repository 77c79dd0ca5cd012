"""The journal of a SQLite store: what became of each slot, and how far."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cronally.domain.durations import DAY_MS
from cronally.domain.model import Kind, SkipReason, State
from cronally.domain.topic import is_fifo_topic
from cronally.engine.records import MOST_TOLD, Pruned, StoreCounts
from cronally.errors import Conflict, StoreError
from cronally.instants import MIN_UTC_MS, UtcMs
from cronally.store import history_sql, journal_sql, orders_sql, schedule_sql
from cronally.store.schema import PRUNED_THROUGH, REACHED, SET_BACK_AT, WATERMARK

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cronally.domain.model import FireKey, JournalEntry
    from cronally.engine.records import (
        JournalFilter,
        JournalRow,
        LinePlace,
        Newer,
        Order,
        PendingFire,
        Reopened,
    )
    from cronally.store.database import Connection, Database

_MOST_ROWS: Final = schedule_sql.MOST_ROWS
ALL: Final = -1
"""Instead of a number of rows."""

SET_META: Final = (
    "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
)
_FORGET_RUNS: Final = "DELETE FROM run WHERE asked_at <= ?"
ADVANCE: Final = """
    INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)
"""


class SqliteJournal:
    """The part of a store that its journal is; *path* names the file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._opened: Database | None = None

    @property
    def _database(self) -> Database:
        if self._opened is None:
            raise StoreError(f"the store {self._path} is not open")
        return self._opened

    async def commit(
        self,
        entries: Sequence[JournalEntry],
        *,
        watermark: UtcMs | None,
        errors: Iterable[tuple[int, str | None]] = (),
        newer: Sequence[Newer] = (),
        kept: Iterable[FireKey] = (),
        gone: list[JournalEntry] | None = None,
        most_told: int = MOST_TOLD,
    ) -> int:
        """Commit, as ``engine.ports.Store`` promises it. most_told: how many rows *gone* gets, or ``ALL``."""
        said = [(id_, error and journal_sql.storable(error)) for id_, error in dict(errors).items()]
        statements: list[tuple[str, Sequence[object]]] = [*journal_sql.upserts(entries)]
        superseding = len(statements)
        if newer:
            marked = [key[:2] for key in kept if key.kind is Kind.SCHEDULED]
            needless = (json.dumps(newer), json.dumps(marked))
            statements.append((journal_sql.SUPERSEDE, needless))
        if said:
            statements.append((schedule_sql.SET_ERRORS, (json.dumps(said),)))
        if watermark is not None:
            statements.append((ADVANCE, (WATERMARK, watermark)))
        if not newer:
            await self._database.write(statements)
            return 0
        if gone is None:
            return (await self._database.write(statements))[superseding]

        async def supersede(writer: Connection) -> tuple[int, list[JournalEntry]]:
            for statement, values in statements[:superseding]:
                await writer.rows(statement, values)
            rows = await writer.json(journal_sql.NEEDLESS, (*needless, most_told))
            await writer.rows(*statements[superseding])
            [[superseded]] = await writer.rows("SELECT changes()")
            for statement, values in statements[superseding + 1 :]:
                await writer.rows(statement, values)
            return superseded, [*journal_sql.skipped(rows, SkipReason.SUPERSEDED)]

        superseded, told = await self._database.in_one_trip(supersede)
        gone += told
        return superseded

    async def settled_between(self, after: UtcMs, through: UtcMs) -> dict[int, list[tuple[UtcMs, UtcMs]]]:
        return await self._settled(journal_sql.SETTLED, after, through)

    async def settled_slots(self, after: UtcMs, through: UtcMs) -> dict[int, list[tuple[UtcMs, UtcMs]]]:
        return await self._settled(journal_sql.SETTLED_SLOTS, after, through)

    async def _settled(
        self, statements: tuple[str, str], after: UtcMs, through: UtcMs
    ) -> dict[int, list[tuple[UtcMs, UtcMs]]]:
        reader = self._database.reader
        settled: dict[int, list[tuple[UtcMs, UtcMs]]] = {}
        mixed: set[int] = set()
        for is_ordinary, statement in zip((True, False), statements, strict=True):
            last: tuple[int, int, int] = (after + 1, 0, MIN_UTC_MS)
            while rows := await reader.json(statement, (*last, through, _MOST_ROWS)):
                for _, schedule_id, first, end in rows:
                    settled.setdefault(schedule_id, []).append((first, end))
                if not is_ordinary:  # these come by their last slot, the ordinary ones by fire time
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

    async def lines(self) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        last: tuple[str, int] = ("", 0)
        while rows := await self._database.reader.rows(journal_sql.NEXT_LINE, last):
            topic, place = last = rows[0][0], rows[0][1]
            if not is_fifo_topic(topic):
                found.append((topic, journal_sql.priority_of(place)))
        return found

    async def in_line(
        self, topic: str, priority: int, *, after: LinePlace | None = None, limit: int = 500
    ) -> list[PendingFire]:
        place = journal_sql.place_of(priority)
        values = (topic, place, *(after or (MIN_UTC_MS, 0, MIN_UTC_MS, "")), limit)
        rows = await self._database.reader.json(journal_sql.IN_LINE, values)
        return [journal_sql.pending_fire(row) for row in rows]

    async def pending_counts(self, topics: Sequence[str]) -> dict[str, int]:
        lister = self._database.lister
        counts: dict[str, int] = {}
        for topic in topics:
            if is_fifo_topic(topic):
                rows = await lister.rows(journal_sql.COUNT_GROUPS, journal_sql.groups_of(topic))
            else:
                rows = await lister.rows(journal_sql.COUNT_LINE, (topic,))
            [[counts[topic]]] = rows
        return counts

    async def pending_groups(self, topic: str | None = None) -> list[tuple[str, str]]:
        bounds = ("", journal_sql.AFTER_ALL_GROUPS) if topic is None else journal_sql.groups_of(topic)
        texts = await self._database.reader.json(journal_sql.PENDING_GROUPS, bounds)
        return [(arn, group) for arn, _, group in (text.partition(" ") for text in texts)]

    async def next_group(self, topic: str, after: str = "") -> str | None:
        bounds = journal_sql.groups_of(topic, after)
        [[text]] = await self._database.reader.rows(journal_sql.NEXT_GROUP, bounds)
        return None if text is None else text.partition(" ")[2]

    async def group_pending(self, topic: str, group: str, *, limit: int = 100) -> list[PendingFire]:
        rows = await self._database.reader.json(journal_sql.GROUP_PENDING, (f"{topic} {group}", limit))
        return [journal_sql.pending_fire(row) for row in rows]

    async def mark_unclean(self, shard: int | None = None) -> None:
        async with self._database.transaction() as writer:
            if shard is None:
                await writer.rows(journal_sql.MARK_UNCLEAN)
            else:
                await writer.rows(journal_sql.MARK_SHARD_UNCLEAN, (shard,))

    async def fire_times(self, schedule_id: int, kind: Kind, first: UtcMs, last: UtcMs) -> set[UtcMs]:
        asked = (schedule_id, str(kind), first, last)
        return set(await self._database.reader.json(journal_sql.FIRE_TIMES, asked))

    async def remembered_run(self, key: str) -> str | None:
        rows = await self._database.reader.rows("SELECT fire_id FROM run WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    async def remember_run(self, key: str, answer: str, *, at: UtcMs) -> None:
        async with self._database.transaction() as writer:
            await writer.rows(_FORGET_RUNS, (at - DAY_MS,))
            await writer.rows("INSERT OR REPLACE INTO run VALUES (?, ?, ?)", (key, answer, at))

    async def add_manual(
        self, entry: JournalEntry, *, by: str, fire_id: str, idempotency_key: str | None
    ) -> None:
        asked_at = entry.due_time
        async with self._database.transaction() as writer:
            await writer.rows(_FORGET_RUNS, (asked_at - DAY_MS,))
            taken = await writer.rows(
                "SELECT 1 FROM run WHERE key = ? UNION ALL "
                "SELECT 1 FROM journal WHERE schedule_id = ? AND fire_time = ? AND kind = ?",
                (idempotency_key, entry.schedule_id, entry.fire_time, str(entry.kind)),
            )
            if taken:
                raise Conflict(f"{fire_id} was run already")
            await write_entries(writer, [entry])
            if idempotency_key is not None:
                await writer.rows("INSERT INTO run VALUES (?, ?, ?)", (idempotency_key, fire_id, asked_at))
            await writer.rows(
                schedule_sql.INSERT_ACTION,
                (entry.schedule_id, entry.revision_id, asked_at, by, "run", json.dumps({"fire_id": fire_id})),
            )

    async def add_backfill(
        self, entries: Sequence[JournalEntry], *, at: UtcMs, by: str, order: Order
    ) -> None:
        keys = orders_sql.keys_json(entry.key for entry in entries)
        async with self._database.transaction() as writer:
            if await writer.rows(orders_sql.COUNT_THERE, (keys,)) != [(0,)]:
                raise Conflict(f"a fire from {order.first} to {order.last} is there already")
            await write_entries(writer, entries)
            same = (order.fires, order.last, order.schedule_id, at, by)
            if not await writer.rows(schedule_sql.EXTEND_BACKFILL, same):
                await note_orders(writer, "backfill", (order,), at=at, by=by)

    async def retry(self, rows: Sequence[Reopened], *, at: UtcMs, by: str, orders: Sequence[Order]) -> None:
        keys = orders_sql.keys_json((*row.old.key, str(row.old.state), row.old.count) for row in rows)
        async with self._database.transaction() as writer:
            if await writer.rows(orders_sql.COUNT_AS_ASKED, (keys,)) != [(len(rows),)]:
                raise Conflict("somebody else has just retried one of these fires; look at them again")
            await writer.rows(orders_sql.REOPEN, (keys,))
            await write_entries(writer, [entry for row in rows for entry in row.new])
            await note_orders(writer, "retry", orders, at=at, by=by)

    async def bearers(self, name: str) -> list[int]:
        rows = await self._database.reader.rows(journal_sql.BEARERS, (name, name))
        return [id_ for (id_,) in rows]

    async def rows(self, keys: Sequence[FireKey]) -> list[JournalRow]:
        found: list[JournalRow] = []
        for start in range(0, len(keys), _MOST_ROWS):
            asked = orders_sql.keys_json(keys[start : start + _MOST_ROWS])
            found += map(journal_sql.journal_row, await self._database.reader.json(orders_sql.ROWS, (asked,)))
        return found

    async def history(self, wanted: JournalFilter) -> list[JournalRow]:
        lister = self._database.lister
        ids = None
        if wanted.schedule is not None:
            named = await lister.rows(journal_sql.SCHEDULES_NAMED, (wanted.schedule, wanted.schedule))
            ids = [id_ for (id_,) in named]
            if not ids:
                return []
        found: list[JournalRow] = []
        for reaching in (False, True) if wanted.since is not None else (False,):
            while (most := min(wanted.limit - len(found), _MOST_ROWS)) > 0:
                statement = history_sql.history(replace(wanted, limit=most), ids, reaching=reaching)
                rows = await lister.json(*statement)
                found += map(journal_sql.journal_row, rows)
                if len(rows) < most:
                    break
                last = found[-1].entry
                wanted = replace(wanted, before=(last.fire_time, last.schedule_id, str(last.kind)))
        return found

    async def covering(self, schedule_id: int, fire_time: UtcMs) -> list[JournalRow]:
        rows = await self._database.lister.json(journal_sql.COVERING, (schedule_id, fire_time))
        return [journal_sql.journal_row(row) for row in rows]

    # a clock that was set back

    async def newest_settled(self, after: UtcMs) -> UtcMs | None:
        [[newest]] = await self._database.lister.rows(journal_sql.NEWEST_SETTLED, (after,))
        return None if newest is None else UtcMs(newest)

    async def decided_beyond(
        self, at: UtcMs, *, after: tuple[UtcMs, int, UtcMs] | None = None, limit: int = 500
    ) -> list[JournalEntry]:
        found: list[JournalEntry] = []
        for statement in journal_sql.DECIDED_BEYOND:
            rows = await self._database.lister.json(statement, (*(after or (at + 1, 0, MIN_UTC_MS)), limit))
            found += [journal_sql.journal_row(row).entry for row in rows]
        found.sort(key=lambda entry: (entry.last_due_time, entry.schedule_id, entry.fire_time))
        return found[:limit]

    async def entries_beyond(self, schedule_id: int, at: UtcMs) -> list[JournalEntry]:
        rows = await self._database.lister.json(journal_sql.ENTRIES_BEYOND, (schedule_id, at, at))
        return [journal_sql.journal_row(row).entry for row in rows]

    async def amend(self, entries: Sequence[JournalEntry]) -> None:
        async with self._database.transaction() as writer:
            await amend_entries(writer, entries)

    async def set_back(self, *, at: UtcMs, watermark: UtcMs, reached: UtcMs) -> None:
        async with self._database.transaction() as writer:
            await writer.rows(SET_META, (WATERMARK, watermark))
            await writer.rows(ADVANCE, (REACHED, reached))
            await writer.rows(SET_META, (SET_BACK_AT, at))
            for statement in journal_sql.BRING_FORWARD:
                await writer.rows(statement, {"at": at})

    async def end_set_back(self) -> None:
        async with self._database.transaction() as writer:
            await writer.rows("DELETE FROM meta WHERE key = ?", (SET_BACK_AT,))

    async def counts(self, *, with_final: bool = True) -> StoreCounts:
        # One trip to the connection: in a burst each waits for a turn of a busy event loop.
        slots = journal_sql.COUNTS if with_final else journal_sql.COUNT_PENDING
        [schedules, paused, failing], journal, oldest = await self._database.lister.json(
            f"SELECT json_array(json(({schedule_sql.COUNT_SCHEDULES})), json(({slots})), ({journal_sql.OLDEST_PENDING}))"
        )
        return StoreCounts(
            schedules=schedules,
            paused=paused,
            failing=failing,
            journal={State(state): count for state, count in journal},
            oldest_pending_due=None if oldest is None else UtcMs(oldest),
        )

    async def prune(
        self, bound: UtcMs, *, after: tuple[UtcMs, int, str] | None = None, limit: int = 250
    ) -> Pruned:
        database = self._database
        first = (bound, *(after or (MIN_UTC_MS, 0, "")))
        # What this reads from the disk need not be read in the transaction, for which others wait.
        found = await database.lister.json(journal_sql.PRUNABLE, (*first, limit))
        due = [due for *_, due, is_over in found if is_over]
        if found:
            fire_time, schedule_id, kind, *_ = found[-1]
            after = (fire_time, schedule_id, kind)
        if due and after is not None:
            through = max(due)
            await database.write(
                [(journal_sql.RAISE_PRUNED, (through,)), (journal_sql.PRUNE, (*first, *after, through))]
            )
        raised = await database.lister.rows("SELECT value FROM meta WHERE key = ?", (PRUNED_THROUGH,))
        return Pruned(len(due), raised[0][0] if raised else None, after, is_end=len(found) < limit)

    async def size_bytes(self) -> int:
        [[size]] = await self._database.lister.rows(journal_sql.SIZE)
        return int(size)


async def amend_entries(writer: Connection, entries: Sequence[JournalEntry]) -> None:
    """Write *entries* in the place of what there is of their slots, if that was never attempted; without slots: nothing."""
    for entry in entries:
        await writer.rows(journal_sql.FORGET_UNSENT, (entry.schedule_id, entry.fire_time, str(entry.kind)))
    await write_entries(writer, [entry for entry in entries if entry.count])


async def note_orders(
    writer: Connection, action: str, orders: Sequence[Order], *, at: UtcMs, by: str
) -> None:
    """Write *orders* into the audit log."""
    rows = [
        (
            order.schedule_id,
            order.revision_id,
            json.dumps({"fires": order.fires, "first": order.first, "last": order.last}),
        )
        for order in orders
    ]
    await writer.rows(schedule_sql.INSERT_ORDERS, (at, by, action, json.dumps(rows)))


async def write_entries(writer: Connection, entries: Sequence[JournalEntry]) -> None:
    for statement, values in journal_sql.upserts(entries):
        await writer.rows(statement, values)
