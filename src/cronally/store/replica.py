"""What one machine knows of a shared store, in an SQLite file that is made anew at each start.

A machine has two: ``own`` holds the shards that it has taken, ``everything`` those of all. Losing them loses nothing: what counts is in
the shared log.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from cronally.domain.model import State
from cronally.engine.records import TimetableRow
from cronally.instants import MIN_UTC_MS, UtcMs
from cronally.store import journal_sql, orders_sql, replica_sql, schedule_sql
from cronally.store.shared_log import (
    Amended,
    Asked,
    Backfilled,
    BroughtForward,
    Changed,
    Committed,
    Doubted,
    Flipped,
    Remembered,
    Retried,
    SlotsMoved,
    Taken,
    TakenOver,
)
from cronally.store.sqlite import SqliteStore, flip_staged, stage_rows
from cronally.store.sqlite_journal import note_orders, write_entries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from cronally.domain.model import FireKey, JournalEntry
    from cronally.engine.records import Opened, Order
    from cronally.store.database import Connection
    from cronally.store.shared_log import Deed

_MOST_ROWS: Final = 1_000
_MOST_COPIED: Final = 5_000  # rows of one transaction: 10 ms in the writer's thread
_LARGE_ROWS: Final = 50_000  # of a journal that is not copied whole at once


class Replica(SqliteStore):
    """A store in the file at *path*, which is replaced; nothing waits for the disk."""

    def __init__(self, path: str, *, follows_others: bool = False) -> None:
        """follows_others: it repeats the commits of several machines, in no order but that of each."""
        super().__init__(path, is_durable=False)
        self._follows_others = follows_others

    async def open(self) -> Opened:
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(f"{self._path}{suffix}")
        opened = await super().open()
        async with self._database.transaction() as writer:
            await writer.rows(replica_sql.SCHEMA)
            for statement in replica_sql.ALLOW_TWINS if self._follows_others else ():
                await writer.rows(statement)
        return opened

    async def _refuse_taken(self, writer: Connection, name: str, own_id: int | None) -> None:
        if not self._follows_others:
            await super()._refuse_taken(writer, name, own_id)

    # deeds

    async def repeat(self, shard: int, deed: Deed) -> None:
        """Do what a machine that had *shard* has committed. Errors: StoreError."""
        match deed:
            case Committed():
                await self.commit(deed.entries, watermark=None, errors=deed.errors)
            case Changed():
                await self.change(replace(deed.change, expected_revision_id=None), ids=deed.ids)
            case Flipped():
                await self._repeat_flip(shard, deed)
            case TakenOver():
                await self.own(deed.names, owner=deed.owner, at=deed.at, by=deed.by, shard=shard)
            case SlotsMoved():
                await self.move_single_slots(deed.moved)
            case Doubted():
                await self.doubt([shard])
            case Asked():
                await self._repeat_asked(shard, deed)
            case Backfilled():
                await self._reopen(deed.entries, deed.entries)
                await self._note("backfill", (deed.order,), at=deed.at, by=deed.by)
            case Retried():
                new = [entry for row in deed.rows for entry in row.new]
                await self._reopen([row.old for row in deed.rows], new)
                await self._note("retry", deed.orders, at=deed.at, by=deed.by)
            case Amended():
                await self.amend(deed.entries)
            case BroughtForward():
                await self.bring_forward([shard], at=deed.at)
            case Remembered():
                await self.remember(deed.key, deed.answer, at=deed.at, shard=shard)
            case Taken():
                pass

    async def _repeat_flip(self, shard: int, deed: Flipped) -> None:
        names = [row.name for row in deed.staged]
        async with self._database.transaction() as writer:
            for statement in replica_sql.BEGIN_STAGING_ASIDE:
                await writer.rows(statement)
            await stage_rows(writer, deed.staged)
            await flip_staged(
                writer,
                at=deed.at,
                by=deed.by,
                owner=deed.owner,
                unsettled=deed.unsettled,
                removed=deed.removed,
                ids=dict(zip(names, deed.ids, strict=True)),
                shard=shard,
            )
            await writer.rows(replica_sql.END_STAGING_ASIDE)

    async def _repeat_asked(self, shard: int, deed: Asked) -> None:
        await self._reopen([deed.entry], [deed.entry])
        entry, at = deed.entry, deed.entry.due_time
        if deed.key is not None:
            await self.remember(deed.key, deed.fire_id, at=at, shard=shard)
        detail = json.dumps({"fire_id": deed.fire_id})
        values = (entry.schedule_id, entry.revision_id, at, deed.by, "run", detail)
        await self._database.write([(schedule_sql.INSERT_ACTION, values)])

    async def _reopen(self, old: Sequence[JournalEntry], new: Sequence[JournalEntry]) -> None:
        """Put *new* in the place of *old*, as far as that is there: it may have been pruned here, or not have been read yet."""
        keys = orders_sql.keys_json(entry.key for entry in old)
        async with self._database.transaction() as writer:
            await writer.rows(orders_sql.REOPEN, (keys,))
            await write_entries(writer, new)

    async def _note(self, action: str, orders: Sequence[Order], *, at: UtcMs, by: str) -> None:
        async with self._database.transaction() as writer:
            await note_orders(writer, action, orders, at=at, by=by)

    async def doubt(self, shards: Iterable[int]) -> None:
        """Every pending fire of *shards* may have been published."""
        await self._database.write([(replica_sql.MARK_UNCLEAN, _marked(shards))])

    async def bring_forward(self, shards: Iterable[int], *, at: UtcMs) -> None:
        """The clock was set back to *at*: what is pending of *shards* may be tried."""
        values = {**_marked(shards), "at": at}
        await self._database.write([(statement, values) for statement in replica_sql.BRING_FORWARD])

    async def remember(self, key: str, answer: str, *, at: UtcMs, shard: int) -> None:
        """Keep what a command with this idempotency key answered, with *shard*."""
        await self.remember_run(key, answer, at=at)
        await self.note_run(key, shard)

    async def note_run(self, key: str, shard: int) -> None:
        """A remembered run goes with *shard*."""
        await self._database.write([(replica_sql.NOTE_RUN, (key, shard)), (replica_sql.FORGET_RUNS, ())])

    # reading

    async def timetable_of(self, shards: Iterable[int]) -> AsyncIterator[list[TimetableRow]]:
        """Yield the schedules of *shards* in slices, in the order of ids."""
        marked = json.dumps(list(shards))
        after = 0
        while rows := await self._database.reader.json(
            schedule_sql.TIMETABLE_OF, (after, marked, _MOST_ROWS)
        ):
            yield list(map(TimetableRow._make, rows))
            after = rows[-1][0]

    async def failing_of(self, shards: Iterable[int]) -> list[int]:
        """Return the ids of the schedules of *shards* that have an error."""
        found: list[int] = await self._database.reader.json(replica_sql.FAILING, _marked(shards))
        return found

    async def last_ids(self, shards: Iterable[int]) -> dict[int, tuple[int, int]]:
        """Return the greatest ids of a schedule and of a revision of those of *shards* that have any."""
        rows = await self._database.reader.json(replica_sql.LAST_IDS, _marked(shards))
        return {shard: (last, last_revision) for shard, last, last_revision in rows}

    async def names_of(self, ids: Sequence[int]) -> dict[int, str]:
        """Return the names of schedules, also of removed ones."""
        return dict(await self._database.reader.json(replica_sql.NAMES, (json.dumps(list(ids)),)))

    async def bearers_of(self, names: Sequence[str]) -> list[tuple[str, int]]:
        """Return name and id of each living schedule with one of these names."""
        rows = await self._database.lister.json(replica_sql.BEARERS, (json.dumps(list(names)),))
        return [(name, id_) for name, id_ in rows]

    async def taken_over(self, owner: str) -> list[tuple[str, int]]:
        """Return name and id of each schedule that a flip for *owner* changes in nothing but its owner."""
        rows = await self._database.reader.json(schedule_sql.TAKEN_OVER, {"owner": owner, "shard": None})
        return [(name, id_) for name, id_ in rows]

    async def was_run_since(self, key: str, after: UtcMs) -> bool:
        """Whether a run with this idempotency key is remembered from later than *after*."""
        return bool(
            await self._database.reader.rows("SELECT 1 FROM run WHERE key = ? AND asked_at > ?", (key, after))
        )

    # whole shards

    @property
    def path(self) -> str:
        """Where the file is, while the replica is open."""
        return self._database.path

    async def copy(self, other: Replica, shards: Iterable[int], *, after: UtcMs | None) -> bool:
        """Copy *shards* from *other*; of a large journal only what is pending or open, or later than *after*. Return whether it is all."""
        values = {**_marked(shards), "after": MIN_UTC_MS if after is None else after}
        async with self._database.transaction(beside=other.path) as writer:
            for statement in replica_sql.COPY:
                await writer.rows(statement, values)
            [[rows]] = await writer.rows(replica_sql.IS_LARGE, (_LARGE_ROWS,))
            is_all = after is None or rows < _LARGE_ROWS
            if is_all:
                await writer.rows(replica_sql.COPY_JOURNAL, values)
        return is_all

    async def copy_rows(self, other: Replica, keys: Iterable[FireKey]) -> None:
        """Copy the final rows at *keys* from *other*, as far as nothing stands there."""
        async with self._database.transaction(beside=other.path) as writer:
            await writer.rows(replica_sql.COPY_ROWS, (orders_sql.keys_json(keys),))

    async def copy_old(self, other: Replica, schedule_id: int, before: UtcMs) -> UtcMs | None:
        """Copy the last some thousand final rows of a schedule before an instant; return from when on, None if there are no earlier ones."""
        async with self._database.transaction(beside=other.path) as writer:
            found = await writer.rows(replica_sql.NEXT_OLD, (schedule_id, before, _MOST_COPIED))
            first = UtcMs(found[0][0]) if found else MIN_UTC_MS
            await writer.rows(replica_sql.COPY_OLD, (schedule_id, before, first))
        return first if found else None

    async def schedule_ids(self, shards: Iterable[int]) -> list[int]:
        """Return the ids of the schedules of *shards*, removed ones too."""
        ids: list[int] = await self._database.lister.json(replica_sql.SCHEDULE_IDS, _marked(shards))
        return ids

    async def take_out(self, shards: Iterable[int]) -> None:
        """Forget all of *shards*."""
        await self._database.write([(statement, _marked(shards)) for statement in replica_sql.REMOVE])

    async def read_out(
        self, connection: Connection, shard: int, *, after: UtcMs | None
    ) -> AsyncIterator[tuple[str, list[Any]]]:
        """Yield all of *shard* but the final rows of its journal up to *after*, a table's rows at a time, as ``put_in`` takes them.

        connection: of ``still``.
        """
        for table, (statement, places) in replica_sql.READ.items():
            place: Sequence[object] = replica_sql.FIRST_PLACE
            while rows := await connection.json(
                statement,
                {
                    **_marked([shard]),
                    **{f"p{number}": value for number, value in enumerate(place[: len(places)])},
                    **({"after": MIN_UTC_MS if after is None else after} if table == "journal" else {}),
                    "most": _MOST_ROWS,
                },
            ):
                yield table, rows
                place = [rows[-1][at] for at in places]

    async def put_in(self, shard: int, table: str, rows: Sequence[list[Any]]) -> None:
        """Write rows of *shard* that ``read_out`` gave."""
        written: list[tuple[str, Sequence[object]]] = [(replica_sql.WRITE[table], (json.dumps(rows),))]
        if table == "run":
            written += [(replica_sql.NOTE_RUN, (row[0], shard)) for row in rows]
        await self._database.write(written)

    async def add_old(self, entries: Sequence[JournalEntry]) -> None:
        """Write final rows as far as nothing stands at their keys; and there, what pending ones say of the last attempt. *entries* are newest first."""
        for start in range(0, len(entries), _MOST_ROWS):
            some = groupby(entries[start : start + _MOST_ROWS], lambda entry: entry.state is State.PENDING)
            await self._database.write(
                [
                    (
                        replica_sql.FILL_OLD if are_pending else replica_sql.ADD_OLD,
                        (json.dumps([journal_sql.row_values(entry) for entry in alike]),),
                    )
                    for are_pending, alike in some
                ]
            )

    def transaction(self, *, beside: str | None = None) -> AbstractAsyncContextManager[Connection]:
        """Give the writer for a block, as ``Database.transaction`` does."""
        return self._database.transaction(beside=beside)

    def still(self) -> Any:
        """Give a connection for which the replica stays as it is now."""
        return self._database.still()

    async def let_go(self) -> None:
        """Close the file, if it is open."""
        with suppress(Exception):
            await self.close(watermark=None)


def _marked(shards: Iterable[int]) -> dict[str, object]:
    return {"shards": json.dumps(list(shards))}
