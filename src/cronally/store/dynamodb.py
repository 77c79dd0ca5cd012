"""The store of several machines: a DynamoDB table that they share, and what this one knows of it in SQLite (docs/adr, design §12)."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from cronally.engine.lease_counts import LeaseCounts
from cronally.engine.records import GivenUp, Opened, TakenIn
from cronally.errors import SchemaMismatch, StoreError
from cronally.store.background import Background
from cronally.store.claiming import Claiming
from cronally.store.committing import Committer
from cronally.store.dynamodb_table import DynamodbTable
from cronally.store.filling import refuse_filling
from cronally.store.following import Follower
from cronally.store.giving import Giving
from cronally.store.grown_shards import GrownShards
from cronally.store.heartbeat import Heartbeat
from cronally.store.names import NameLocks
from cronally.store.older_rows import OlderRows
from cronally.store.own_applying import OwnApplying
from cronally.store.replica import Replica
from cronally.store.retired_machines import RetiredMachines
from cronally.store.shard_table import ShardTable
from cronally.store.shared_items import (
    FORMAT,
    FORMAT_KEY,
    MACHINES,
    ZONES,
    machine_in,
    zone_in,
)
from cronally.store.shared_log import together
from cronally.store.snapshots import Snapshots
from cronally.store.taken_shards import TakenShards
from cronally.store.taking_in import TakingIn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cronally.clock import Clock
    from cronally.domain.model import JournalEntry
    from cronally.engine.ports import Store
    from cronally.engine.records import Machine, Shard
    from cronally.instants import UtcMs
    from cronally.store.shared_log import Logged, Record

LEASE_MS: Final = 8_000
_SEEN_S: Final = 0.4  # who has just read the machines follows them without reading them again
_TIDY_S: Final = 600.0


class DynamodbStore(OwnApplying):
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
        self._build()
        self._seen = None
        self._tidied_s = self._clock.mono()
        self._older_rows.begin()
        return Opened(watermark=None, was_clean=True)

    def _build(self) -> None:
        """Make what works on shards, for as long as this machine is joined."""
        self._mine = TakenShards()
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
        self._claiming = Claiming(self._shard_table, self._retired, self._heartbeat, self._follower)
        self._taking_in = TakingIn(
            self._mine,
            self._own,
            self._everything,
            self._turn,
            heartbeat=self._heartbeat,
            committer=self._committer,
            grown_shards=self._grown_shards,
            older_rows=self._older_rows,
        )
        self._giving = Giving(
            self._mine,
            self._own,
            self._turn,
            shard_table=self._shard_table,
            heartbeat=self._heartbeat,
            committer=self._committer,
            grown_shards=self._grown_shards,
            older_rows=self._older_rows,
        )

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
                    await self._giving.give_rest(watermark)
                    await self._heartbeat.leave()
        finally:
            self._heartbeat.lose("it was closed")
            await self._let_go()

    async def _let_go(self) -> None:
        tasks = [*self._background.tasks, *self._writing]
        if hasattr(self, "_committer"):
            tasks += [
                task for task in (self._taking_in.batches.task, self._giving.batches.task) if task is not None
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
        for shard, deed in together(logged):
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
        self._heartbeat.check()
        item = await self._claiming.claim(shard, owner)
        return None if item is None else await self._taking_in.take_in(item)

    async def recovered(self, number: int) -> None:
        self._heartbeat.check()
        if number in self._mine.items:
            self._mine.recovering.add(number)

    async def begin_give(self, number: int) -> None:
        self._heartbeat.check()
        await self._giving.begin(number)

    async def give(self, shard: Shard, given: GivenUp) -> bool:
        self._heartbeat.check()
        return await self._giving.give(shard, given)

    # what is done once in a while

    async def _tidy(self) -> None:
        """Forget the heartbeats of machines that are retired for long and that no shard names; snapshots of old log."""
        with suppress(StoreError):
            self._grown_shards.look()
            await self._retired.forget(but={item.owner for item in await self._shard_table.all()})
