"""An installation moved from a file into a shared table, and back. Neither is in use meanwhile, and the source stays as it is.

1. Into a table: ids are chosen anew, in a file of its own, so that each has its shard in it. What an engine needs of a shard becomes its
   snapshot; final rows of the journal become the log of a machine that is over, which is where they are of any that has been. The mark of
   ``filling`` goes last: until then no machine joins, and whoever copies anew begins by removing what is there.
2. Into a file: what a machine knows that has read the whole table becomes a store of a single machine. It gets its name last.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from contextlib import closing, contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.domain.crontab import name_hash
from cronally.domain.shards import SHARDS
from cronally.engine.records import ZoneRecord
from cronally.errors import Conflict, StoreBusy, StoreCorrupt, StoreError, UsageError
from cronally.instants import MIN_UTC_MS, UtcMs
from cronally.store import journal_sql, moving_sql
from cronally.store.committing import KEPT_DAYS, log_items, log_key
from cronally.store.copying import Damaged, is_store, name_new, read_only, seal, sync
from cronally.store.dynamodb_table import DynamodbTable
from cronally.store.faults import reason_of
from cronally.store.filling import Filling, refuse_filling
from cronally.store.following import Follower
from cronally.store.lock import locked
from cronally.store.replica import Replica
from cronally.store.restoring import finish_restore, give
from cronally.store.schema import CLEAN_STOP, PRUNED_THROUGH, REACHED, SET_BACK_AT, WATERMARK
from cronally.store.shared_items import (
    MACHINES,
    PAST,
    SHARDS_KEY,
    ZONES,
    ShardItem,
    expires_s,
    machine_key,
    past_item,
    said_in,
    shard_item_in,
    shard_key,
    zone_in,
    zone_item,
)
from cronally.store.shared_log import Committed, Logged, encode
from cronally.store.snapshots import Snapshots, snapshot_key
from cronally.store.sqlite import SqliteStore
from cronally.store.sqlite_journal import SET_META

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from cronally.clock import Clock
    from cronally.domain.model import JournalEntry
    from cronally.engine.records import Opened
    from cronally.store.attribute_values import Item, Key
    from cronally.store.shared_items import Said

_MOST_ROWS: Final = 5_000  # of the journal, in one record of the log
_MOST_HOMES: Final = 10_000
_PATIENCE_S: Final = 60.0
_PAUSE_S: Final = 0.2
_MOST_PAUSE_S: Final = 5.0
_SILENT_MARGIN_S: Final = 1.0
_EPOCH: Final = 1  # as if a machine had had each shard and given it


class Moved(NamedTuple):
    """What was copied. journal: rows. pending: of those, fires that are still to be sent."""

    schedules: int
    journal: int
    pending: int


class PatientTable(DynamodbTable):
    """A table for somebody whom no lease hurries: once it has answered, what may be done twice is tried for a minute."""

    _has_answered = False

    async def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        until_s = self._clock.mono() + _PATIENCE_S
        pause_s = _PAUSE_S
        while True:
            try:
                reply = await super()._call(operation, **parameters)
            except StoreBusy:
                is_hopeless = not self._has_answered or self._clock.mono() > until_s
                if is_hopeless or "ConditionExpression" in parameters:
                    raise
            else:
                self._has_answered = True
                return reply
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, _MOST_PAUSE_S)


class Move:
    """One move between the file at *path* and *table*.

    tell: takes a line for a person. progress: takes how much is done, and of how much, in rows and schedules; called often.
    """

    def __init__(
        self,
        path: str,
        table: PatientTable,
        clock: Clock,
        *,
        tell: Callable[[str], None],
        progress: Callable[[int, int], None],
    ) -> None:
        self._path = os.path.realpath(path)
        self._table = table
        self._clock = clock
        self._tell = tell
        self._progress = progress
        self._snapshots = Snapshots(table)
        self._done = self._total = 0

    # --- into the table ---------------------------------------------------------------------------------------------

    async def to_table(self) -> Moved:
        """Fill the table, which must have no schedules, from the file. Errors: UsageError, StoreLocked, Conflict, StoreError.

        If it fails, the table is empty again, or else marked, and the error says so.
        """
        path = self._path
        if not os.path.exists(path):  # noqa: ASYNC240 - nothing else is to be done meanwhile
            raise UsageError(f"there is no store at {path}")
        await self._table.check()
        with (
            locked(path, fix="stop it first; the store must not change while it is copied"),
            TemporaryDirectory(prefix=".cronally-copy-", dir=os.path.dirname(path)) as directory,
        ):
            finish_restore(path)
            opened, renumbered = await _renumbered(path, directory)
            try:
                return await self._fill(opened, renumbered)
            finally:
                await renumbered.let_go()

    async def _fill(self, opened: Opened, renumbered: Replica) -> Moved:
        filling = Filling(self._table, self._clock)
        await filling.begin(self._tell)
        try:
            if not filling.has_begun:
                await self._refuse_schedules()
                await filling.say_begun()
            await self._clear(filling)
            async with renumbered.still() as connection:
                [[schedules, journal, pending]] = await connection.rows(moving_sql.COUNTS)
                self._total = schedules + journal - pending
                sequence = await self._write_history(filling, connection)
                items = await self._write_snapshots(filling, connection, renumbered, opened, sequence)
                zones = await connection.json(moving_sql.ZONES)
            await self._table.write_all([zone_item(ZoneRecord(*zone)) for zone in zones])
            now = self._clock.wall()
            expires = expires_s(now, 2 * KEPT_DAYS)
            await self._table.put(past_item(filling.id, through=sequence, stamp=sequence, expires=expires))
            for item in items:
                await self._put_shard(item)
            await filling.end()
        except BaseException as exc:
            await self._give_up(filling, exc)
            raise
        return Moved(schedules, journal, pending)

    async def _give_up(self, filling: Filling, exc: BaseException) -> None:
        """Leave the table as if nothing had been. Errors: StoreError, which says what to do if that cannot be."""
        try:
            await filling.renew(is_due=True)
            if filling.has_begun:
                await self._clear(filling)
            await filling.end()
        except Conflict:
            return  # another copy has the table now, and sees to it
        except StoreError as more:
            fix = f"the table {self._table.name!r} stays marked, so that no machine uses it ({more}); run the same command again, it begins anew"
            if not isinstance(exc, Exception):
                self._tell(fix)
                return
            raise StoreError(f"the copy has failed: {exc}; {fix}") from exc

    async def _refuse_schedules(self) -> None:
        """Errors: Conflict if there are schedules in the table, or machines that use it."""
        await self._stopped_machines()
        with TemporaryDirectory(prefix=".cronally-copy-", dir=os.path.dirname(self._path)) as directory:
            found = Replica(os.path.join(directory, "everything.db"), follows_others=True)
            await found.open()
            try:
                follower = Follower(self._table, found, self._snapshots, self._clock, machine="")
                await follower.load()
                is_empty = not await found.schedule_ids(range(SHARDS))
            finally:
                await found.let_go()
        if not is_empty:
            raise Conflict(
                f"the DynamoDB table {self._table.name!r} has schedules, or had some; copy into a new table, which "
                "'cronally store create' makes"
            )

    async def _clear(self, filling: Filling) -> None:
        """Remove all that machines without schedules, and copies that failed, have left in the table."""
        machines = [
            item["sk"]
            for pk in (MACHINES, PAST)
            for item in await self._table.all_of(pk)
            if pk == PAST or item["retired"]
        ]
        logs = [log_key(id_) for id_ in dict.fromkeys([*machines, *filling.others, filling.id])]
        snapshots = [snapshot_key(number) for number in range(SHARDS)]
        for pk in (SHARDS_KEY, *snapshots, *logs, ZONES, MACHINES, PAST):
            keys: list[Key] = []
            async for page in self._table.query(pk):
                keys += [(pk, item["sk"]) for item in page]
            await filling.renew()
            await self._table.write_all([], deletes=keys)

    async def _write_history(self, filling: Filling, connection: Any) -> int:
        """Write the final rows of the journal as a log, oldest first; return the sequence of its last record."""
        place: tuple[int, int, str] = (MIN_UTC_MS, 0, "")
        sequence = done = 0
        while rows := await connection.json(moving_sql.FINAL_ROWS, (*place, _MOST_ROWS)):
            entries = [journal_sql.journal_row(row).entry for row in rows]
            by_shard: dict[int, list[JournalEntry]] = {}
            for entry in entries:
                by_shard.setdefault(entry.schedule_id % SHARDS, []).append(entry)
            logged = [Logged(shard, Committed(some)) for shard, some in by_shard.items()]
            record = await asyncio.to_thread(encode, logged)
            sequence += 1
            expires = expires_s(self._clock.wall(), KEPT_DAYS)
            for item in log_items(filling.id, sequence, record, stamp=sequence, expires=expires):
                await filling.renew()
                await self._table.put(item)
            place = (entries[-1].fire_time, entries[-1].schedule_id, str(entries[-1].kind))
            done += len(entries)
            self._progress(done, self._total)
        self._done = done
        return sequence

    async def _write_snapshots(
        self, filling: Filling, connection: Any, renumbered: Replica, opened: Opened, sequence: int
    ) -> list[ShardItem]:
        items: list[ShardItem] = []
        for number in range(SHARDS):
            await filling.renew()
            ref = await self._snapshots.write(
                renumbered, connection, number, epoch=_EPOCH, sequence=sequence, after=opened.watermark
            )
            items.append(
                ShardItem(
                    number=number,
                    version=1,
                    stamp=sequence,
                    epoch=_EPOCH,
                    watermark=opened.watermark,
                    was_clean=opened.was_clean,
                    snapshot=ref,
                    pruned_through=opened.pruned_through,
                    reached=opened.reached,
                    set_back_at=opened.set_back_at,
                )
            )
            self._progress(
                self._done + (self._total - self._done) * (number + 1) // SHARDS, max(1, self._total)
            )
        return items

    async def _put_shard(self, item: ShardItem) -> None:
        until_s = self._clock.mono() + _PATIENCE_S
        while True:
            try:
                if await self._table.put(item.written(), condition="attribute_not_exists(pk)"):
                    return
                found = await self._table.get(shard_key(item.number))
                if found is not None and shard_item_in(found) == item:
                    return  # an attempt whose answer was lost
            except StoreBusy:
                if self._clock.mono() > until_s:
                    raise
                await self._clock.sleep(_PAUSE_S)
            else:
                raise Conflict(f"somebody else writes into the table {self._table.name!r} while it is filled")

    # --- into the file ----------------------------------------------------------------------------------------------

    async def to_file(self) -> Moved:
        """Write the file, which must not be there, from the table. Errors: StoreLocked, Conflict, StoreError."""
        path = self._path
        with locked(path, fix="name a file that no daemon uses"):
            _refuse_file(path)
            await self._table.check()
            await refuse_filling(self._table)
            machines = await self._stopped_machines()
            directory = os.path.dirname(path)
            with TemporaryDirectory(prefix=".cronally-copy-", dir=directory) as place:
                part = os.path.join(place, "cronally.db")
                await self._write_file(part, machines)
                if await self._table.all_of(MACHINES) != machines:
                    raise Conflict(
                        f"a machine has begun to use the table {self._table.name!r}; stop it, and copy again"
                    )
                with _of_file(path):
                    is_clean = _is_marked_clean(part)
                    contents = await asyncio.to_thread(seal, part, is_clean=is_clean)
                    give(part, like=directory)
                    give(f"{path}.lock", like=directory)
                    name_new(part, path)
                    sync(directory)
        return Moved(contents.schedules, contents.journal, contents.pending)

    async def _write_file(self, part: str, machines: Sequence[Item]) -> None:
        """Make a store of a single machine at *part*, of what the table has."""
        replica = Replica(part, follows_others=True)
        await replica.open()
        try:
            follower = Follower(self._table, replica, self._snapshots, self._clock, machine="")
            await follower.load()
            self._progress(1, 2)
            await follower.read_history()
            self._progress(2, 2)
            zones = [zone_in(item) for item in await self._table.all_of(ZONES)]
            await replica.keep_zone_records(zones)
            shards = [shard_item_in(item) for item in await self._table.all_of(SHARDS_KEY)]
            said = {item["sk"]: said_in(item) for item in machines}
            async with replica.transaction() as writer:
                since = dict(await writer.json(moving_sql.LEAST_EFFECTIVE))
                for statement in moving_sql.MAKE_FILE:
                    await writer.rows(statement)
                meta = _meta(shards, said, since)
                for key, value in meta.items():
                    if value is not None:
                        await writer.rows(SET_META, (key, value))
                for number, settled in _pruned_beyond(shards, said, meta).items():
                    await writer.rows(moving_sql.PUT_OFF, {"shard": number, "settled": settled})
        finally:
            await replica.let_go()

    # --- machines ---------------------------------------------------------------------------------------------------

    async def _stopped_machines(self) -> list[Item]:
        """Return the heartbeats in the table, all retired. One that is silent for its whole lease is retired here. Errors: Conflict."""
        found = await self._table.all_of(MACHINES)
        seen = {item["sk"]: item for item in found if not item["retired"]}
        if not seen:
            return found
        names = ", ".join(sorted(item["host"] for item in seen.values()))
        lease_s = max(item["lease_ms"] for item in seen.values()) / 1000 + _SILENT_MARGIN_S
        self._tell(f"not stopped in order: {names}; watching for {lease_s:g} s whether it is alive")
        await self._clock.sleep(lease_s)
        for item in await self._table.all_of(MACHINES):
            if item["retired"]:
                continue
            if item["sk"] not in seen or item["version"] != seen[item["sk"]]["version"]:
                raise Conflict(
                    f"a daemon on {item['host']} uses the table {self._table.name!r}; stop it, and those of all other machines, and "
                    "copy again"
                )
            await self._table.update(
                machine_key(item["sk"]),
                {"retired": True, "retired_at": self._clock.wall()},
                condition="#version = :seen AND #retired = :no",
                values={"seen": item["version"], "no": False},
            )
        found = await self._table.all_of(MACHINES)
        alive = [item["host"] for item in found if not item["retired"]]
        if alive:
            raise Conflict(
                f"a daemon on {alive[0]} uses the table {self._table.name!r}; stop it, and copy again"
            )
        return found


async def _renumbered(path: str, directory: str) -> tuple[Opened, Replica]:
    """Return what the store at *path* knew, and all of it, with other ids, in a replica that is open. Errors: StoreError."""
    copied = os.path.join(directory, "copy.db")
    with _of_file(path):
        if not is_store(path):
            raise UsageError(f"{path} is no store of cronally's")
        await asyncio.to_thread(_copy_file, path, copied)
    source = SqliteStore(copied, is_durable=False)
    opened = await source.open()  # brings its schema up to date, and checks it if it was not stopped in order
    await source.close(watermark=None)
    renumbered = Replica(os.path.join(directory, "renumbered.db"))
    await renumbered.open()
    try:
        async with renumbered.transaction(beside=copied) as writer:
            for statement in moving_sql.BEGIN:
                await writer.rows(statement)
            last = 0
            while homes := await writer.json(moving_sql.HOMES, (last, _MOST_HOMES)):
                numbered = [(id_, name_hash(home) % SHARDS) for id_, home in homes]
                await writer.rows(moving_sql.PUT_HOMES, (json.dumps(numbered),))
                last = homes[-1][0]
            for statement in moving_sql.RENUMBER:
                await writer.rows(statement)
            _refuse_strays(await writer.json(moving_sql.STRAY_GROUPS))
    except BaseException:
        await renumbered.let_go()
        raise
    return opened, renumbered


def _refuse_file(path: str) -> None:
    """Errors: Conflict if there is a store at *path*, or a part of one."""
    for suffix in ("", "-wal", "-journal", ".restore"):
        if os.path.lexists(f"{path}{suffix}"):
            raise Conflict(f"there is {path}{suffix} already; move that store away, or name another file")


def _refuse_strays(groups: Sequence[tuple[str, int, str]]) -> None:
    """Errors: Conflict if fires of a FIFO group are pending in another shard than the group's, where nobody would keep their order."""
    for group, shard, name in groups:
        if name_hash(group) % SHARDS != shard:
            raise Conflict(
                f"{name!r} has pending fires of the FIFO group {group.partition(' ')[2]!r}, which it is not in any more; start the "
                "daemon until they are sent, and copy then"
            )


def _copy_file(path: str, target: str) -> None:
    with closing(read_only(path)) as reading, closing(sqlite3.connect(target)) as writing:
        writing.execute("PRAGMA journal_mode = OFF").fetchall()
        writing.execute("PRAGMA synchronous = OFF")
        reading.backup(writing)


@contextmanager
def _of_file(path: str) -> Iterator[None]:
    """Raise what the system and SQLite say about a file as StoreErrors."""
    try:
        yield
    except Damaged as exc:
        raise StoreCorrupt(path, str(exc)) from exc
    except (OSError, sqlite3.Error) as exc:
        raise StoreError(f"{path} cannot be copied: {reason_of(exc)}") from exc


def _is_marked_clean(path: str) -> bool:
    with closing(read_only(path)) as connection:
        found = connection.execute("SELECT value FROM meta WHERE key = ?", (CLEAN_STOP,)).fetchone()
        return bool(found == (1,))


def _meta(
    shards: Sequence[ShardItem], said: dict[str, Said], since: dict[int, UtcMs]
) -> dict[str, int | None]:
    """Return what a single machine is to know. since: of shards with living schedules, from when the first is in effect.

    The watermark is the least of the shards': what others have settled beyond it has its rows.
    """
    watermarks: list[UtcMs] = []
    for shard in shards:
        watermark = _watermark_of(shard, said)
        if shard.number in since:
            watermarks.append(since[shard.number] if watermark is None else watermark)
    least = min(watermarks, default=None)
    pruned_through = _pruned_through(shards, said)
    of_all: list[ShardItem | Said] = [*shards, *_frozen(shards, said)]
    return {
        WATERMARK: least,
        CLEAN_STOP: int(all(shard.was_clean and shard.owner is None for shard in shards)),
        PRUNED_THROUGH: pruned_through
        if least is None or pruned_through is None
        else min(pruned_through, least),
        REACHED: max((one.reached for one in of_all if one.reached is not None), default=None),
        SET_BACK_AT: min((one.set_back_at for one in of_all if one.set_back_at is not None), default=None),
    }


def _pruned_beyond(
    shards: Sequence[ShardItem], said: dict[str, Said], meta: dict[str, int | None]
) -> dict[int, int]:
    """Return of shards up to when their slots are settled although the rows are gone, if that is later than the file's watermark."""
    least, through = meta[WATERMARK], _pruned_through(shards, said)
    if least is None or through is None or through <= least:
        return {}
    watermarks = {shard.number: _watermark_of(shard, said) for shard in shards}
    return {number: min(through, at) for number, at in watermarks.items() if at is not None and at > least}


def _frozen(shards: Sequence[ShardItem], said: dict[str, Said]) -> list[Said]:
    return [said[shard.owner] for shard in shards if shard.owner is not None]


def _watermark_of(shard: ShardItem, said: dict[str, Said]) -> UtcMs | None:
    return shard.watermark if shard.owner is None else said[shard.owner].watermark_of(shard.number)


def _pruned_through(shards: Sequence[ShardItem], said: dict[str, Said]) -> UtcMs | None:
    of_all: list[ShardItem | Said] = [*shards, *said.values()]
    return max((one.pruned_through for one in of_all if one.pruned_through is not None), default=None)
