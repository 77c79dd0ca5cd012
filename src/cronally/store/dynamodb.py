"""The store of several machines: a DynamoDB table that they share, and what this one knows of it in SQLite (docs/adr, design §12)."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from cronally.domain.shards import SHARDS
from cronally.engine.lease_counts import LeaseCounts
from cronally.engine.records import GivenUp, LogPlace, Opened, TakenIn
from cronally.errors import LeaseLost, SchemaMismatch, StoreError
from cronally.instants import UtcMs
from cronally.store.background import Background
from cronally.store.committing import Committer
from cronally.store.dynamodb_table import DynamodbTable
from cronally.store.filling import refuse_filling
from cronally.store.following import Follower
from cronally.store.grown_shards import GrownShards
from cronally.store.heartbeat import Heartbeat, heard
from cronally.store.names import NameLocks
from cronally.store.older_rows import OlderRows
from cronally.store.own_writing import OwnWriting
from cronally.store.replica import Replica
from cronally.store.retired_machines import RetiredMachines
from cronally.store.shard_table import ShardTable
from cronally.store.shared_items import (
    FORMAT,
    FORMAT_KEY,
    MACHINES,
    ZONES,
    ShardItem,
    Stretch,
    machine_in,
    zone_in,
)
from cronally.store.shared_log import Doubted, Logged, Taken
from cronally.store.snapshots import Snapshots
from cronally.store.taken_shards import TakenShards

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from cronally.clock import Clock
    from cronally.domain.model import JournalEntry
    from cronally.engine.ports import Store
    from cronally.engine.records import Machine, Shard, TimetableRow
    from cronally.store.shared_items import Said
    from cronally.store.shared_log import Record

R = TypeVar("R")

LEASE_MS: Final = 8_000
_SEEN_S: Final = 0.4  # who has just read the machines follows them without reading them again
_BEFORE_MS: Final = 3_600_000  # of a taken shard's journal this much before the watermark is there at once
_TIDY_S: Final = 600.0


class _Copying(NamedTuple):
    item: ShardItem
    done: asyncio.Future[TakenIn]


class _Giving(NamedTuple):
    number: int
    given: GivenUp
    done: asyncio.Future[bool]


class DynamodbStore(OwnWriting):
    """The store in the table *table_name*, as ``engine.ports.SharedStore`` promises it.

    Attributes: machine, lease_ms, everything: as there. table. commit_interval_s. on_entries: told of what other machines have put on
        record, once it is in ``everything``.
    """

    def __init__(
        self,
        table_name: str,
        client: Callable[[], Awaitable[Any]],
        clock: Clock,
        *,
        directory: str,
        host: str,
        lease_ms: int = LEASE_MS,
        counts: LeaseCounts | None = None,
    ) -> None:
        """client: gives an aiobotocore client of DynamoDB. directory: for the replicas, which are made anew by ``open``. host: what people call this machine. counts: of what becomes of its leases."""
        self.table = DynamodbTable(table_name, client, clock)
        own = Replica(os.path.join(directory, "own.db"))
        everything = Replica(os.path.join(directory, "everything.db"), follows_others=True)
        super().__init__(own, everything, self.table)
        self.lease_ms = lease_ms
        self.machine = ""
        self.on_entries: Callable[[Sequence[JournalEntry]], None] = lambda _: None
        self._clock = clock
        self._host = host
        self._counts = counts or LeaseCounts()
        self._snapshots = Snapshots(self.table)
        self._seen: tuple[float, list[Machine]] | None = None
        self._copying: list[_Copying] = []
        self._copier: asyncio.Task[None] | None = None
        self._giving: list[_Giving] = []
        self._giver: asyncio.Task[None] | None = None
        self._background = Background()
        self._tidied_s = 0.0

    @property
    def commit_interval_s(self) -> float:
        return self.lease_ms / 3000

    @property
    def everything(self) -> Store:
        return self._everything

    @property
    def trusted_until(self) -> float:
        return self._heartbeat.trusted_until

    @property
    def following_age_s(self) -> float | None:
        """How long ago all that the other machines had committed was in ``everything``; None before ``open``."""
        return self._follower.age_s if hasattr(self, "_follower") else None

    @property
    def has_history(self) -> bool:
        """Whether all of the journal that the table has is in ``everything``, and of the shards taken in what the engine reads."""
        return self._older_rows.are_there

    async def read_history(self) -> None:
        """Return when ``has_history``, or when what reads it has given up."""
        await self._background.until(lambda: self.has_history)

    async def open(self) -> Opened:
        self._heartbeat = Heartbeat(
            self.table, self._clock, host=self._host, lease_ms=self.lease_ms, counts=self._counts
        )
        self.machine = self._heartbeat.machine
        await self.table.check()
        await self._agree_on_format()
        await refuse_filling(self.table)
        await self._own.open()
        try:
            await self._everything.open()
            self._follower = Follower(
                self.table,
                self._everything,
                self._snapshots,
                self._clock,
                machine=self.machine,
                on_entries=self.on_entries,
            )
            await self._follower.load()
            await self._own.keep_zone_records([zone_in(item) for item in await self.table.all_of(ZONES)])
            await self._heartbeat.join()
            try:
                await refuse_filling(self.table)
            except StoreError:
                await self._heartbeat.leave()
                raise
        except BaseException:
            await self._let_go()
            raise
        self._shard_table = ShardTable(self.table, self._heartbeat, self._counts)
        self._retired = RetiredMachines(self.table, self._clock)
        self._names = NameLocks(self.table, self._heartbeat, self._clock)
        self._committer = Committer(self.table, self._heartbeat, self._clock, on_committed=self._follow_up)
        self._older_rows = OlderRows(
            self._own,
            self._everything,
            self._turn,
            heartbeat=self._heartbeat,
            follower=self._follower,
            background=self._background,
        )
        self._mine = TakenShards()
        self._grown_shards = GrownShards(
            self._mine,
            self._own,
            self._turn,
            self._clock,
            snapshots=self._snapshots,
            shard_table=self._shard_table,
            heartbeat=self._heartbeat,
            committer=self._committer,
            background=self._background,
        )
        self._seen = None
        self._tidied_s = self._clock.mono()
        self._older_rows.begin()
        return Opened(watermark=None, was_clean=True)

    async def _agree_on_format(self) -> None:
        """Errors: SchemaMismatch if a newer version has written the table."""
        pk, sk = FORMAT_KEY
        item = {"pk": pk, "sk": sk, "version": FORMAT}
        if await self.table.put(item, condition="attribute_not_exists(pk)"):
            return
        found = await self.table.get(FORMAT_KEY)
        if found is not None and found["version"] > FORMAT:
            raise SchemaMismatch(
                f"the DynamoDB table {self.table.name!r}", found=found["version"], wanted=FORMAT
            )

    async def close(self, *, watermark: UtcMs | None) -> None:
        if not self.machine:
            return
        try:
            if watermark is not None:
                with suppress(StoreError):  # others then wait for the end of the lease
                    async with self._grown_shards.lock:
                        await self._give(dict.fromkeys(self._mine.items, GivenUp(watermark, was_clean=True)))
                    await self._heartbeat.leave()
        finally:
            self._heartbeat.lose("it was closed")
            await self._let_go()

    async def _let_go(self) -> None:
        tasks = [
            *self._background.tasks,
            *self._writing,
            *(task for task in (self._copier, self._giver) if task),
        ]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._background.tasks.clear()
        if hasattr(self, "_committer"):
            await self._committer.close()
        await self._own.let_go()
        await self._everything.let_go()

    async def _follow_up(self, logged: Sequence[Logged], record: Record) -> None:
        """Do in ``everything`` what was committed, and see how much log its shards have."""
        for shard, deed in logged:
            await self._everything.repeat(shard, deed)
        self._grown_shards.committed(record.size_of)

    # machines

    async def renew(self) -> None:
        await self._heartbeat.renew()
        await self._names.tidy()
        if self._clock.mono() >= self._tidied_s + _TIDY_S:
            self._tidied_s = self._clock.mono()
            self._background.start(self._tidy())

    async def machines(self) -> list[Machine]:
        machines = await self._read_machines()
        self._seen = (self._clock.mono(), machines)
        return machines

    async def _read_machines(self) -> list[Machine]:
        return [machine_in(item) for item in await self.table.all_of(MACHINES, is_consistent=False)]

    async def follow(self) -> None:
        self._heartbeat.check()
        seen, self._seen = self._seen, None
        is_fresh = seen is not None and self._clock.mono() < seen[0] + _SEEN_S
        await self._follower.follow(seen[1] if seen is not None and is_fresh else await self._read_machines())

    async def catch_up(self) -> None:
        """Read what is committed by now, into ``everything``: what another machine has just answered is there afterwards."""
        self._heartbeat.check()
        await self._follower.catch_up()

    async def retire(self, machine: Machine) -> Machine | None:
        self._heartbeat.check()
        return await self._retired.retire(machine)

    async def begin_leave(self) -> None:
        await self._heartbeat.say(lambda said: replace(said, is_leaving=True))

    async def leave(self) -> None:
        await self._committer.flush()
        await self._heartbeat.leave()

    # shards

    def epoch_of(self, number: int) -> int | None:
        """Return the epoch in which this machine has a shard, or None."""
        item = self._mine.items.get(number)
        return None if item is None else item.epoch

    async def shards(self) -> list[Shard]:
        return [item.shard for item in await self._shard_table.all()]

    async def take(self, shard: Shard, owner: Machine | None) -> TakenIn | None:
        return await self._to_its_end(self._take(shard, owner))

    async def _take(self, shard: Shard, owner: Machine | None) -> TakenIn | None:
        number = shard.number
        self._heartbeat.check()
        item = self._shard_table.seen(number)
        if item is None or item.shard[:3] != shard[:3]:
            item = await self._shard_table.read(number)
        frozen = None if owner is None else await self._retired.said_of(owner)
        if item.shard[:3] != shard[:3] or item.owner != (owner and owner.id):
            return None
        watermark = item.watermark if frozen is None else frozen.watermark_of(number)
        # First the watermark, then the shard: whoever takes it from this machine goes by what the heartbeat says.
        known = item if frozen is None else frozen
        await self._heartbeat.say(
            lambda said: replace(
                said,
                behind={**said.behind, number: watermark},
                pruned_through=_later(said.pruned_through, known.pruned_through),
                reached=_later(said.reached, known.reached),
                set_back_at=said.set_back_at if known.set_back_at is None else known.set_back_at,
            )
        )
        taken = await self._claim(item, watermark, owner, frozen)
        if taken is None:
            await self._heartbeat.say(lambda said: _without(said, (number,)))
            return None
        for stretch in taken.chain[:-1]:
            assert stretch.through is not None
            await self._heartbeat.until_done(partial(self._follower.reach, stretch.machine, stretch.through))
        done: asyncio.Future[TakenIn] = asyncio.get_running_loop().create_future()
        self._copying.append(_Copying(taken, done))
        if self._copier is None or self._copier.done():
            self._copier = asyncio.create_task(self._copy_all())
        return await asyncio.shield(done)

    async def _claim(
        self, item: ShardItem, watermark: UtcMs | None, owner: Machine | None, frozen: Said | None
    ) -> ShardItem | None:
        """Put this machine into a shard's item as its owner; return the item, None if the shard is another's now."""
        while True:
            taken = replace(
                item,
                version=item.version + 1,
                owner=self.machine,
                epoch=item.epoch + 1,
                watermark=watermark,
                was_clean=item.was_clean and frozen is None,
                chain=(
                    *item.closed(None if frozen is None else frozen.sequence),
                    Stretch(self.machine, self._heartbeat.said.sequence + 1, None),
                ),
            )
            if owner is not None and frozen is not None:
                since = owner.started_at if item.since is None else item.since
                taken = replace(
                    taken,
                    since=since,
                    pruned_through=frozen.pruned_through,
                    reached=frozen.reached,
                    set_back_at=frozen.set_back_at,
                )
            if await self._shard_table.put(item, taken):
                return taken
            now = await self._heartbeat.until_done(partial(self._shard_table.read, item.number))
            if (now.owner, now.epoch) != (item.owner, item.epoch):
                return None
            item = now  # its owner has written a snapshot since it was read

    async def _copy_all(self) -> None:
        """Bring the shards that were claimed into ``own``, all that wait together."""
        while self._copying:
            batch, self._copying = self._copying, []
            try:
                async with self._turn:
                    taken_in = await self._copy([one.item for one in batch])
            except Exception as exc:  # noqa: BLE001 - a shard that is claimed and not driven must not stay so
                lost = self._heartbeat.lose(f"shards could not be taken in: {exc!r}")
                for one in batch:
                    if not one.done.done():
                        one.done.set_exception(lost)
                return
            for one, its in zip(batch, taken_in, strict=True):
                if not one.done.done():
                    one.done.set_result(its)

    async def _copy(self, items: Sequence[ShardItem]) -> list[TakenIn]:
        numbers = [item.number for item in items]
        watermarks = [item.watermark for item in items if item.watermark is not None]
        after = UtcMs(min(watermarks) - _BEFORE_MS) if len(watermarks) == len(items) else None
        is_all = await self._own.copy(self._everything, numbers, after=after)
        doubted = [item.number for item in items if not item.was_clean]
        if doubted:
            await self._own.doubt(doubted)
            self._mine.doubted.update(doubted)
        last = await self._own.last_ids(numbers)
        rows: dict[int, list[TimetableRow]] = {number: [] for number in numbers}
        async for some in self._own.timetable_of(numbers):
            for row in some:
                rows[row.id % SHARDS].append(row)
        failing = await self._own.failing_of(numbers)
        logged: list[Logged] = []
        for item in items:
            number = item.number
            self._mine.items[number] = item
            self._mine.last_ids[number] = last.get(number, (number, number))
            places = [LogPlace(one.machine, one.through) for one in item.chain if one.through is not None]
            logged.append(Logged(number, Taken(places)))
            if not item.was_clean:
                logged.append(Logged(number, Doubted()))
            self._grown_shards.took(item)
        self._committer.add(logged, lambda said: replace(said, hand_overs=said.hand_overs + len(items)))
        self._older_rows.took(numbers, is_all=is_all)
        return [
            TakenIn(
                item.number,
                rows[item.number],
                item.watermark,
                item.was_clean,
                frozenset(id_ for id_ in failing if id_ % SHARDS == item.number),
                item.pruned_through,
                item.reached,
                item.set_back_at,
            )
            for item in items
        ]

    async def recovered(self, number: int) -> None:
        self._heartbeat.check()
        if number in self._mine.items:
            self._mine.recovering.add(number)

    async def begin_give(self, number: int) -> None:
        self._heartbeat.check()
        async with self._turn:
            self._mine.recovering.discard(number)
            await self._committer.flush()  # one of before may be about to say that it is recovered
            await self._heartbeat.say(
                lambda said: replace(said, behind={**said.behind, number: said.watermark_of(number)})
            )

    async def give(self, shard: Shard, given: GivenUp) -> bool:
        self._heartbeat.check()
        item = self._mine.items.get(shard.number)
        if item is None or item.epoch != shard.epoch:
            return False
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        done.add_done_callback(heard)
        self._giving.append(_Giving(item.number, given, done))
        if self._giver is None or self._giver.done():
            self._giver = asyncio.create_task(self._give_all())
        return await asyncio.shield(done)

    async def _give_all(self) -> None:
        """Let go of the shards that wait, all together: while one waits nobody fires what it has."""
        while self._giving:
            batch, self._giving = self._giving, []
            try:
                async with self._grown_shards.lock, self._turn:
                    were_mine = await self._give({one.number: one.given for one in batch})
                    await self._own.take_out(were_mine)
                await self._heartbeat.say(partial(_without, numbers=were_mine, hand_overs=len(were_mine)))
            except Exception as exc:  # noqa: BLE001 - what is given and what this machine does are no longer one
                lost = self._heartbeat.lose(f"shards could not be given: {exc!r}")
                for one in batch:
                    if not one.done.done():
                        one.done.set_exception(exc if isinstance(exc, LeaseLost) else lost)
                return
            for one in batch:
                if not one.done.done():
                    one.done.set_result(were_mine.get(one.number, False))

    async def _give(self, given_up: Mapping[int, GivenUp]) -> dict[int, bool]:
        """Write into the items of these shards that nobody drives them; return of each that this machine had whether the table agrees."""
        await self._committer.flush()
        said = self._heartbeat.said
        items = {number: self._mine.items[number] for number in given_up if number in self._mine.items}
        given = [
            replace(
                item,
                version=item.version + 1,
                owner=None,
                watermark=_later(given.watermark, said.watermark_of(number)),
                was_clean=given.was_clean,
                chain=item.closed(said.sequence),
                log_bytes=log_bytes,
                since=since,
                pruned_through=said.pruned_through,
                reached=said.reached,
                set_back_at=said.set_back_at,
            )
            for number, item in items.items()
            for given, (log_bytes, since) in ((given_up[number], self._grown_shards.log_of(number)),)
        ]
        put = await asyncio.gather(*map(self._shard_table.put, items.values(), given))
        for number in items:
            self._mine.gave(number)
            self._grown_shards.gave(number)
            self._older_rows.gave(number)
        return dict(zip(items, put, strict=True))

    # what is done once in a while

    async def _tidy(self) -> None:
        """Forget the heartbeats of machines that are retired for long and that no shard names; snapshots of old log."""
        with suppress(StoreError):
            self._grown_shards.look()
            await self._retired.forget(but={item.owner for item in await self._shard_table.all()})


def _later(one: UtcMs | None, other: UtcMs | None) -> UtcMs | None:
    return max((at for at in (one, other) if at is not None), default=None)


def _without(said: Said, numbers: Collection[int], hand_overs: int = 0) -> Said:
    """Return *said* without the watermarks of shards that are not this machine's, after so many hand-overs more."""
    behind = {shard: at for shard, at in said.behind.items() if shard not in numbers}
    return replace(said, behind=behind, hand_overs=said.hand_overs + hand_overs)
