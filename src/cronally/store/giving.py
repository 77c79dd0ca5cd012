"""Giving shards: from when this machine lets go of one in order until its item says that nobody drives it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from cronally.engine.records import GivenUp
from cronally.store.in_batches import InBatches
from cronally.store.shared_items import Said, later

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cronally.engine.records import Shard
    from cronally.instants import UtcMs
    from cronally.store.committing import Committer
    from cronally.store.grown_shards import GrownShards
    from cronally.store.heartbeat import Heartbeat
    from cronally.store.older_rows import OlderRows
    from cronally.store.replica import Replica
    from cronally.store.shard_table import ShardTable
    from cronally.store.taken_shards import TakenShards


class Giving:
    """Gives shards that are among *mine*, and takes them out of *own*. turn: of ``OwnWriting``.

    Attributes: batches: what gives those that wait.
    """

    def __init__(
        self,
        mine: TakenShards,
        own: Replica,
        turn: asyncio.Lock,
        *,
        shard_table: ShardTable,
        heartbeat: Heartbeat,
        committer: Committer,
        grown_shards: GrownShards,
        older_rows: OlderRows,
    ) -> None:
        self.batches = InBatches(self._give_all, heartbeat, failed="shards could not be given")
        self._mine = mine
        self._own = own
        self._turn = turn
        self._shard_table = shard_table
        self._heartbeat = heartbeat
        self._committer = committer
        self._grown_shards = grown_shards
        self._older_rows = older_rows

    async def begin(self, number: int) -> None:
        """Tell how far a shard is settled, which does not move with the others any more. Errors: LeaseLost."""
        async with self._turn:
            self._mine.recovering.discard(number)
            await self._committer.flush()  # one of before may be about to say that it is recovered
            await self._heartbeat.say(
                lambda said: replace(said, behind={**said.behind, number: said.watermark_of(number)})
            )

    async def give(self, shard: Shard, given: GivenUp) -> bool:
        """Give a shard; return whether the table agrees that this machine had it. Errors: LeaseLost."""
        item = self._mine.items.get(shard.number)
        if item is None or item.epoch != shard.epoch:
            return False
        return await self.batches.ask((item.number, given))

    async def give_rest(self, watermark: UtcMs) -> None:
        """Give all shards that this machine still has, settled up to *watermark*. Errors: LeaseLost."""
        async with self._grown_shards.lock:
            await self._put_given(dict.fromkeys(self._mine.items, GivenUp(watermark, was_clean=True)))

    async def _give_all(self, batch: Sequence[tuple[int, GivenUp]]) -> list[bool]:
        """Let go of the shards that wait, all together: while one waits nobody fires what it has."""
        async with self._grown_shards.lock, self._turn:
            were_mine = await self._put_given(dict(batch))
            await self._own.take_out(were_mine)
        await self._heartbeat.say(partial(Said.without, numbers=were_mine, hand_overs=len(were_mine)))
        return [were_mine.get(number, False) for number, _ in batch]

    async def _put_given(self, given_up: Mapping[int, GivenUp]) -> dict[int, bool]:
        """Write into the items of these shards that nobody drives them; return of each that this machine had whether the table agrees."""
        await self._committer.flush()
        said = self._heartbeat.said
        items = {number: self._mine.items[number] for number in given_up if number in self._mine.items}
        given = [
            replace(
                item,
                version=item.version + 1,
                owner=None,
                watermark=later(given.watermark, said.watermark_of(number)),
                was_clean=given.was_clean,
                chain=item.closed(said.sequence),
                stamp=said.stamp,
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
