"""Every store there is, what can happen to it, and what is put into it."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from cronally.clock import SystemClock
from cronally.domain.model import JournalEntry, SkipReason, State
from cronally.domain.shards import shard_of
from cronally.domain.spec import from_document
from cronally.engine.records import JournalFilter, Opened, ScheduleChange
from cronally.errors import StoreError
from cronally.instants import UtcMs, parse_rfc3339
from cronally.store.dynamodb import DynamodbStore
from cronally.store.sqlite import SqliteStore
from support.memory_store import MemoryStore
from support.table_servers import TableClient, new_table_name

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.ports import Store
    from cronally.engine.records import Revised

T = parse_rfc3339("2026-11-23T09:00:00Z")
MINUTE = 60_000
LATER = UtcMs(T + 1_000)
TOPIC = "arn:aws:sns:us-east-1:123456789012:reports"
FIFO = "arn:aws:sns:us-east-1:123456789012:orders.fifo"


class MemoryHouse:
    """A store in memory, and what can happen to it."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    async def open(self) -> Opened:
        return await self.store.open()

    async def crash(self) -> Opened:
        """Return what a daemon finds that is started after the present one vanished."""
        return await self.store.open()

    async def close(self) -> None:
        pass


class SqliteHouse:
    """A store in a file, and what can happen to it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stores: list[SqliteStore] = []
        self._new(directory / "0" / "cronally.db")

    def _new(self, path: Path) -> None:
        self.path = path
        self.store = SqliteStore(path)
        self._stores.append(self.store)

    async def open(self) -> Opened:
        return await self.store.open()

    async def crash(self) -> Opened:
        path = self._directory / str(len(self._stores)) / "cronally.db"
        path.parent.mkdir()
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{self.path}{suffix}", f"{path}{suffix}")
        self._new(path)
        return await self.store.open()

    async def close(self) -> None:
        for store in self._stores:
            with suppress(StoreError):  # not open any more
                await store.close(watermark=None)


def spec(
    name: str = "nightly", when: str = "0 9 * * *", topic: str = TOPIC, **document: object
) -> ScheduleSpec:
    return from_document(name, {"when": when, "topic": topic, **document})


def near(name: str, topic: str = FIFO, *, after: str = "g0") -> str:
    """Return a group of a FIFO topic whose schedules are in the shard of a standard schedule of this name."""
    home = shard_of(spec(name))
    first = int(after[1:]) + 1
    groups = (f"g{number}" for number in range(first, first + 10_000))
    return next(group for group in groups if shard_of(spec("x", topic=topic, group=group)) == home)


def creation(of: ScheduleSpec, at: UtcMs = T, **fields: Any) -> ScheduleChange:
    return ScheduleChange(at=at, by="uid 1000", action="add", new_spec=of, effective_from=at, **fields)


def edit(revised: Revised, at: UtcMs = LATER, action: str = "set", **fields: Any) -> ScheduleChange:
    return ScheduleChange(
        at=at, by="uid 1000", action=action, id=revised.id, expected_revision_id=revised.revision_id, **fields
    )


def entry(
    revised: Revised, fire_time: UtcMs = T, state: State = State.PUBLISHED, **fields: Any
) -> JournalEntry:
    return JournalEntry(
        schedule_id=revised.id,
        revision_id=revised.revision_id,
        fire_time=fire_time,
        state=state,
        **{"due_time": fire_time, "attempts": 1} | fields,
    )


def pending(revised: Revised, fire_time: UtcMs = T, **fields: Any) -> JournalEntry:
    return entry(revised, fire_time, State.PENDING, **{"next_attempt_at": fire_time + 200} | fields)


async def entries(store: Store, **wanted: Any) -> list[JournalEntry]:
    return [row.entry for row in await store.history(JournalFilter(**wanted))]


def pause_row(
    revised: Revised, first: UtcMs, last: UtcMs, count: int, *, is_open: bool = False
) -> JournalEntry:
    return entry(
        revised,
        first,
        State.SKIPPED,
        reason=SkipReason.PAUSED,
        attempts=0,
        last_fire_time=last,
        count=count,
        is_open=is_open,
    )


class DynamodbHouse:
    """A store of several machines of which there is one, with all shards, and what can happen to it."""

    def __init__(self, directory: Path, url: str) -> None:
        self._directory = directory
        self._table = new_table_name()
        self._client = TableClient(url)
        self._stores: list[DynamodbStore] = []
        self._is_created = False
        self._new()

    def _new(self) -> None:
        directory = self._directory / str(len(self._stores))
        directory.mkdir()
        self.store = DynamodbStore(
            self._table, self._client, SystemClock(), directory=str(directory), host="m", lease_ms=60_000
        )
        self._stores.append(self.store)

    async def open(self) -> Opened:
        if not self._is_created:
            self._is_created = await self.store.table.create()
        await self.store.open()
        return await self._take_all()

    async def crash(self) -> Opened:
        self._new()
        return await self.open()

    async def _take_all(self) -> Opened:
        """Retire whoever was there, without waiting for the end of a lease, and take every shard."""
        store = self.store
        owners = {}
        for machine in await store.machines():
            if machine.id != store.machine:
                owners[machine.id] = machine if machine.is_retired else await store.retire(machine)
        await store.follow()
        shards = await store.shards()
        taken = await asyncio.gather(
            *(store.take(shard, None if shard.owner is None else owners[shard.owner]) for shard in shards)
        )
        for shard in shards:
            await store.recovered(shard.number)
        await store.read_history()
        found = [one for one in taken if one is not None]
        assert len(found) == len(shards)
        watermarks = [one.watermark for one in found if one.watermark is not None]
        return Opened(
            watermark=min(watermarks) if len(watermarks) == len(found) else None,
            was_clean=all(one.was_clean for one in found),
            pruned_through=max((one.pruned_through for one in found if one.pruned_through), default=None),
            reached=max((one.reached for one in found if one.reached), default=None),
            set_back_at=max((one.set_back_at for one in found if one.set_back_at), default=None),
            failing=frozenset(id_ for one in found for id_ in one.failing),
        )

    async def close(self) -> None:
        for store in self._stores:
            await store.close(watermark=None)
        await self._client.close()
