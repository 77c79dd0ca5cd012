"""What a shared store writes of the shards that this machine has taken: done in ``own``, committed to the log, then done in ``everything``."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from cronally.domain.durations import DAY_MS
from cronally.domain.shards import SHARDS, shard_of
from cronally.engine.records import MOST_TOLD
from cronally.errors import Conflict, ShardElsewhere
from cronally.instants import UtcMs
from cronally.store.heartbeat import heard
from cronally.store.own_reading import OwnReading
from cronally.store.shared_items import ZONES, zone_item
from cronally.store.shared_log import (
    Amended,
    Asked,
    Backfilled,
    BroughtForward,
    Changed,
    Committed,
    Doubted,
    Logged,
    Remembered,
    Retried,
    SlotsMoved,
)
from cronally.store.sqlite import ChosenIds
from cronally.store.sqlite_journal import ALL
from cronally.store.taken_shards import TakenShards

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence

    from cronally.domain.model import FireKey, JournalEntry
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.records import (
        Newer,
        Order,
        Pruned,
        Reopened,
        Revised,
        ScheduleChange,
        ZoneRecord,
    )
    from cronally.store.committing import Committer
    from cronally.store.dynamodb_table import DynamodbTable
    from cronally.store.following import Follower
    from cronally.store.heartbeat import Heartbeat
    from cronally.store.names import NameLocks
    from cronally.store.replica import Replica
    from cronally.store.shared_items import Said

R = TypeVar("R")
T = TypeVar("T")


def unchanged(said: Said) -> Said:
    return said


class OwnWriting(OwnReading):
    """Writes what the engine of this machine decides.

    1. What is done in ``own`` and what is committed is in one order: ``_turn`` is held while a deed is done there and put in line.
    2. Once begun, a write goes on although nobody waits for it any more.
    """

    _heartbeat: Heartbeat
    _committer: Committer
    _follower: Follower
    _names: NameLocks

    def __init__(self, own: Replica, everything: Replica, table: DynamodbTable) -> None:
        super().__init__(own, everything)
        self._table = table
        self._turn = asyncio.Lock()
        self._mine = TakenShards()
        self._everything_pruned: tuple[UtcMs, int, str] | None = None
        self._writing: set[asyncio.Task[Any]] = set()

    async def _write(
        self,
        do: Callable[[], Awaitable[R]],
        logged: Callable[[R], Sequence[Logged]],
        change: Callable[[Said], Said] = unchanged,
    ) -> R:
        """Do it, and return when what is *logged* of it is committed. Errors: those of *do*; LeaseLost."""

        async def write() -> R:
            async with self._turn:
                self._heartbeat.check()
                result = await do()
                done = self._committer.add(logged(result), change)
            await done
            return result

        return await self._to_its_end(write())

    async def _to_its_end(self, what: Coroutine[Any, Any, R]) -> R:
        """Return what *what* gives; if nobody waits for it any more, it goes on all the same."""
        task = asyncio.create_task(what)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        task.add_done_callback(heard)
        return await asyncio.shield(task)

    def _shard_of_id(self, id_: int) -> int:
        """Return the shard of a schedule. Errors: ShardElsewhere if this machine has not taken it."""
        return self._taken(id_ % SHARDS)

    def _taken(self, shard: int) -> int:
        if shard not in self._mine.last_ids:
            raise ShardElsewhere(shard)
        return shard

    def _by_shard(self, items: Iterable[T], id_of: Callable[[T], int]) -> dict[int, list[T]]:
        found: dict[int, list[T]] = {}
        for item in items:
            found.setdefault(self._shard_of_id(id_of(item)), []).append(item)
        return found

    def _entries_by_shard(self, entries: Iterable[JournalEntry]) -> dict[int, list[JournalEntry]]:
        return self._by_shard(entries, lambda entry: entry.schedule_id)

    def _next_ids(self, shard: int, *, for_schedule: bool) -> ChosenIds:
        last, last_revision = self._mine.last_ids[self._taken(shard)]
        last += SHARDS if for_schedule else 0
        last_revision += SHARDS
        self._mine.last_ids[shard] = (last, last_revision)
        return ChosenIds(last if for_schedule else None, last_revision)

    # schedules

    async def change(self, change: ScheduleChange, *, gone: list[JournalEntry] | None = None) -> Revised:
        spec = None if change.is_removal else change.new_spec
        if spec is None:
            return await self._change(change, gone)
        if change.id is not None:
            refuse_move(spec, change.id)
            names = await self._own.names_of([change.id])
            if names.get(change.id, spec.name) == spec.name:
                return await self._change(change, gone)
        async with self._names.held([spec.name]):
            await self._refuse_taken({spec.name: change.id})
            return await self._change(change, gone)

    async def _refuse_taken(self, wanted: Mapping[str, int | None]) -> None:
        """Errors: Conflict if another schedule than the given one has a name already, wherever that is."""
        await self._follower.catch_up()
        for name, id_ in await self._everything.bearers_of([*wanted]):
            if id_ != wanted[name]:
                raise Conflict(f"there is a schedule named {name!r} already")

    async def _change(self, change: ScheduleChange, gone: list[JournalEntry] | None) -> Revised:
        ids = ChosenIds()
        shard = -1
        dropped: list[JournalEntry] = []

        async def do() -> Revised:
            nonlocal ids, shard
            if change.id is None:
                assert change.new_spec is not None
                shard = shard_of(change.new_spec)
            else:
                shard = change.id % SHARDS
            self._taken(shard)
            if change.new_spec is not None and not change.is_removal:
                ids = self._next_ids(shard, for_schedule=change.id is None)
            return await self._own.change(change, gone=dropped, ids=ids, most_told=ALL)

        revised = await self._write(do, lambda _: [Logged(shard, Changed(change, ids, dropped))])
        _tell(gone, dropped)
        return revised

    async def change_many(
        self, changes: Sequence[ScheduleChange], *, gone: list[JournalEntry] | None = None
    ) -> list[Revised]:
        dropped: list[JournalEntry] = []

        async def do() -> list[Revised]:
            for change in changes:
                assert change.id is not None
                self._taken(change.id % SHARDS)
            return await self._own.change_many(changes, gone=dropped, most_told=ALL)

        def logged(made: list[Revised]) -> list[Logged]:
            dropped_of: dict[int, list[JournalEntry]] = {}
            for entry in dropped:
                dropped_of.setdefault(entry.schedule_id, []).append(entry)
            return [
                Logged(revised.id % SHARDS, Changed(change, ChosenIds(), dropped_of.pop(revised.id, ())))
                for change, revised in zip(changes, made, strict=True)
            ]

        made = await self._write(do, logged)
        _tell(gone, dropped)
        return made

    async def move_single_slots(self, moved: Sequence[tuple[int, UtcMs]]) -> None:
        by_shard = self._by_shard(moved, lambda one: one[0])
        await self._write(
            lambda: self._own.move_single_slots(moved),
            lambda _: [Logged(shard, SlotsMoved(some)) for shard, some in by_shard.items()],
        )

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
        told = [*errors]
        errors_of = self._by_shard(told, lambda one: one[0])
        entries_of = self._entries_by_shard(entries)
        self._by_shard(newer, lambda one: one.schedule_id)  # or ShardElsewhere, before anything is done
        needless: list[JournalEntry] = []
        recovered: frozenset[int] = frozenset()

        async def do() -> int:
            nonlocal recovered
            recovered = frozenset() if watermark is None else frozenset(self._mine.recovering)
            superseded = await self._own.commit(
                entries,
                watermark=watermark,
                errors=told,
                newer=newer,
                kept=kept,
                gone=needless,
                most_told=ALL,
            )
            for shard, some in self._entries_by_shard(needless).items():
                entries_of.setdefault(shard, []).extend(some)
            self._mine.recovering.difference_update(recovered)
            return superseded

        def say(said: Said) -> Said:
            if watermark is None:
                return said
            behind = {shard: at for shard, at in said.behind.items() if shard not in recovered}
            reached = watermark if said.watermark is None else max(watermark, said.watermark)
            return replace(said, watermark=reached, behind=behind)

        def logged(_: int) -> list[Logged]:
            return [
                Logged(shard, Committed(entries_of.get(shard, ()), errors_of.get(shard, ())))
                for shard in sorted(entries_of.keys() | errors_of.keys())
            ]

        superseded = await self._write(do, logged, say)
        _tell(gone, needless)
        return superseded

    async def mark_unclean(self, shard: int | None = None) -> None:
        if shard in self._mine.doubted:  # taking it has done so, in the same commit
            self._mine.doubted.discard(shard)
            return
        shards = sorted(self._mine.last_ids) if shard is None else [shard]
        await self._write(
            lambda: self._own.mark_unclean(shard), lambda _: [Logged(each, Doubted()) for each in shards]
        )

    async def remember_run(self, key: str, answer: str, *, at: UtcMs) -> None:
        self._heartbeat.check()
        if not self._mine.last_ids:
            raise ShardElsewhere(0)
        shard = min(self._mine.last_ids)
        await self._write(
            lambda: self._own.remember(key, answer, at=at, shard=shard),
            lambda _: [Logged(shard, Remembered(key, answer, at))],
        )

    async def add_manual(
        self, entry: JournalEntry, *, by: str, fire_id: str, idempotency_key: str | None
    ) -> None:
        shard = self._shard_of_id(entry.schedule_id)

        async def do() -> None:
            since = UtcMs(entry.due_time - DAY_MS)
            if idempotency_key is not None and await self._everything.was_run_since(idempotency_key, since):
                raise Conflict(f"{fire_id} was run already")
            await self._own.add_manual(entry, by=by, fire_id=fire_id, idempotency_key=idempotency_key)
            if idempotency_key is not None:
                await self._own.note_run(idempotency_key, shard)

        await self._write(do, lambda _: [Logged(shard, Asked(entry, by, fire_id, idempotency_key))])

    async def add_backfill(
        self, entries: Sequence[JournalEntry], *, at: UtcMs, by: str, order: Order
    ) -> None:
        shard = self._shard_of_id(order.schedule_id)

        async def do() -> None:
            await self._own.copy_rows(self._everything, [entry.key for entry in entries])
            await self._own.add_backfill(entries, at=at, by=by, order=order)

        await self._write(do, lambda _: [Logged(shard, Backfilled(entries, at, by, order))])

    async def retry(self, rows: Sequence[Reopened], *, at: UtcMs, by: str, orders: Sequence[Order]) -> None:
        by_shard = self._by_shard(rows, lambda row: row.old.schedule_id)
        orders_of = self._by_shard(orders, lambda order: order.schedule_id)

        async def do() -> None:
            await self._own.copy_rows(self._everything, [row.old.key for row in rows])
            await self._own.retry(rows, at=at, by=by, orders=orders)

        def logged(_: None) -> list[Logged]:
            return [
                Logged(shard, Retried(some, at, by, orders_of.get(shard, ())))
                for shard, some in by_shard.items()
            ]

        await self._write(do, logged)

    async def amend(self, entries: Sequence[JournalEntry]) -> None:
        by_shard = self._entries_by_shard(entries)
        await self._write(
            lambda: self._own.amend(entries),
            lambda _: [Logged(shard, Amended(some)) for shard, some in by_shard.items()],
        )

    async def set_back(self, *, at: UtcMs, watermark: UtcMs, reached: UtcMs) -> None:
        def say(said: Said) -> Said:
            behind = {
                shard: None if was is None else min(was, watermark) for shard, was in said.behind.items()
            }
            furthest = reached if said.reached is None else max(reached, said.reached)
            return replace(said, watermark=watermark, behind=behind, reached=furthest, set_back_at=at)

        await self._write(
            lambda: self._own.set_back(at=at, watermark=watermark, reached=reached),
            lambda _: [Logged(shard, BroughtForward(at)) for shard in sorted(self._mine.last_ids)],
            say,
        )

    async def end_set_back(self) -> None:
        await self._write(self._own.end_set_back, lambda _: (), lambda said: replace(said, set_back_at=None))

    async def prune(
        self, bound: UtcMs, *, after: tuple[UtcMs, int, str] | None = None, limit: int = 250
    ) -> Pruned:
        self._heartbeat.check()
        pruned = await self._own.prune(bound, after=after, limit=limit)
        watermark = self._heartbeat.said.watermark
        if watermark is not None:
            # Of what others have, nothing is pruned that would not be if it was this machine's.
            await self._everything.commit([], watermark=watermark)
            step = await self._everything.prune(bound, after=self._everything_pruned, limit=2 * limit)
            self._everything_pruned = None if step.is_end else step.after
        if pruned.through != self._heartbeat.said.pruned_through:
            await self._heartbeat.say(lambda said: replace(said, pruned_through=pruned.through))
        return pruned

    # zones under a version of tzdata: nothing of a shard, and the same on every machine of one version

    async def keep_zone_records(self, rows: Sequence[ZoneRecord]) -> None:
        self._heartbeat.check()
        await self._table.write_all([zone_item(row) for row in rows])
        await self._own.keep_zone_records(rows)

    async def forget_zone_records(self, *, but: str) -> None:
        self._heartbeat.check()
        old = [(item["pk"], item["sk"]) for item in await self._table.all_of(ZONES) if item["tzdata"] != but]
        await self._table.write_all([], deletes=old)
        await self._own.forget_zone_records(but=but)


def _tell(gone: list[JournalEntry] | None, rows: Sequence[JournalEntry]) -> None:
    """Tell who asked of the first of *rows*."""
    if gone is not None:
        gone += rows[:MOST_TOLD]


def refuse_move(spec: ScheduleSpec, id_: int) -> None:
    """Errors: Conflict if the order of the FIFO group that *spec* names is kept elsewhere than where the schedule is."""
    if spec.fifo_group is not None and shard_of(spec) != id_ % SHARDS:
        topic, group = spec.fifo_group
        raise Conflict(
            f"{spec.name!r} cannot go to the group {group!r} of {topic}: where several machines share a store, a schedule stays "
            "in the part of it that it was made in; remove it and add it anew"
        )
