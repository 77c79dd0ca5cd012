"""Shards whose log has grown: a snapshot is written of each, so that whoever reads it next need not read so much."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from cronally.domain.durations import DAY_MS
from cronally.errors import StoreError
from cronally.instants import MAX_UTC_MS
from cronally.store.committing import KEPT_DAYS
from cronally.store.shared_items import Stretch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cronally.clock import Clock
    from cronally.instants import UtcMs
    from cronally.store.background import Background
    from cronally.store.committing import Committer
    from cronally.store.heartbeat import Heartbeat
    from cronally.store.replica import Replica
    from cronally.store.shard_table import ShardTable
    from cronally.store.shared_items import ShardItem
    from cronally.store.snapshots import Snapshots
    from cronally.store.taken_shards import TakenShards

_GROWN_BYTES: Final = 64 << 10  # so much log of a shard is read in some milliseconds
_MOST_STRETCHES: Final = 6
_OLDEST_LOG_MS: Final = KEPT_DAYS * DAY_MS


class GrownShards:
    """Sees how much log the shards in *mine* have, and writes snapshots of those in *own*. turn: of ``OwnWriting``.

    Attributes: lock: held while a snapshot is written, and by whoever gives shards.
    """

    def __init__(
        self,
        mine: TakenShards,
        own: Replica,
        turn: asyncio.Lock,
        clock: Clock,
        *,
        snapshots: Snapshots,
        shard_table: ShardTable,
        heartbeat: Heartbeat,
        committer: Committer,
        background: Background,
    ) -> None:
        self.lock = asyncio.Lock()
        self._mine = mine
        self._own = own
        self._turn = turn
        self._clock = clock
        self._snapshots = snapshots
        self._shard_table = shard_table
        self._heartbeat = heartbeat
        self._committer = committer
        self._background = background
        self._bytes: dict[int, int] = {}
        self._since: dict[int, UtcMs] = {}
        self._grown: set[int] = set()
        self._writer: asyncio.Task[None] | None = None

    def took(self, item: ShardItem) -> None:
        """A shard was taken, and is among *mine*."""
        self._bytes[item.number] = item.log_bytes
        if item.since is not None:
            self._since[item.number] = item.since
        self._look(item.number)

    def gave(self, number: int) -> None:
        """A shard was given."""
        self._bytes.pop(number, None)
        self._since.pop(number, None)
        self._grown.discard(number)

    def log_of(self, number: int) -> tuple[int, UtcMs | None]:
        """Return how much log a shard has, in bytes, and since when; as in ``ShardItem``."""
        return self._bytes.get(number, 0), self._since.get(number)

    def committed(self, size_of: Mapping[int, int]) -> None:
        """So many bytes were committed of each of these shards."""
        for number, size_bytes in size_of.items():
            if number in self._mine.items:
                self._bytes[number] = self._bytes.get(number, 0) + size_bytes
                self._since.setdefault(number, self._clock.wall())
                self._look(number)

    def look(self) -> None:
        """Have snapshots written of those that are to have one by now: a log grows old, too."""
        for number in [*self._mine.items]:
            self._look(number)

    async def written(self) -> None:
        """Return when all are written that are to be by now, or when who writes them has given up."""
        await self._background.until(lambda: not self._grown)

    def _look(self, number: int) -> None:
        """Have a snapshot written of a shard that has as much log as it has itself, or old log, or that of many machines."""
        item = self._mine.items[number]
        size_bytes = 0 if item.snapshot is None else item.snapshot.size_bytes
        is_old = self._since.get(number, MAX_UTC_MS) < self._clock.wall() - _OLDEST_LOG_MS
        is_grown = self._bytes.get(number, 0) > max(_GROWN_BYTES, size_bytes)
        if (is_grown or is_old or len(item.chain) > _MOST_STRETCHES) and number not in self._grown:
            self._grown.add(number)
            if self._writer is None or self._writer.done():
                self._writer = self._background.start(self._write_grown())

    async def _write_grown(self) -> None:
        while self._grown:
            number = next(iter(self._grown))
            await self._heartbeat.until_done(partial(self.write, number))
            self._grown.discard(number)

    async def write(self, number: int) -> None:
        """Write a snapshot of a shard and name it in its item. Errors: StoreError."""
        async with self.lock:
            item = self._mine.items.get(number)
            if item is None:
                return
            async with AsyncExitStack() as stack:
                async with self._turn:
                    await self._committer.flush()
                    sequence = self._heartbeat.said.sequence
                    after = self._heartbeat.said.watermark_of(number)
                    connection = await stack.enter_async_context(self._own.still())
                    growth, since = self._bytes.pop(number, 0), self._since.pop(number, None)
                try:
                    ref = await self._snapshots.write(
                        self._own, connection, number, epoch=item.epoch, sequence=sequence, after=after
                    )
                except BaseException:
                    self._bytes[number] = self._bytes.get(number, 0) + growth
                    if since is not None:
                        self._since[number] = since
                    raise
            snapped = replace(
                item,
                version=item.version + 1,
                snapshot=ref,
                chain=(Stretch(self._heartbeat.machine, sequence + 1, None),),
                log_bytes=0,
                since=None,
            )
            if not await self._shard_table.put(item, snapped):
                raise self._heartbeat.lose(f"another machine has taken shard {number}")
            self._mine.items[number] = snapped
            if item.snapshot is not None:
                # The one before this may be being read by a machine that starts just now.
                with suppress(StoreError):
                    await self._snapshots.forget_before(number, item.snapshot)
