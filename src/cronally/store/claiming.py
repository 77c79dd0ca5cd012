"""Claiming shards: from when one is seen without an owner that lives until this machine is its owner."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from cronally.store.shared_items import Stretch, later

if TYPE_CHECKING:
    from cronally.engine.records import Machine, Shard
    from cronally.instants import UtcMs
    from cronally.store.following import Follower
    from cronally.store.heartbeat import Heartbeat
    from cronally.store.retired_machines import RetiredMachines
    from cronally.store.shard_table import ShardTable
    from cronally.store.shared_items import Said, ShardItem


class Claiming:
    """Makes this machine the owner of shards."""

    def __init__(
        self, shard_table: ShardTable, retired: RetiredMachines, heartbeat: Heartbeat, follower: Follower
    ) -> None:
        self._shard_table = shard_table
        self._retired = retired
        self._heartbeat = heartbeat
        self._follower = follower

    async def claim(self, shard: Shard, owner: Machine | None) -> ShardItem | None:
        """Claim a shard that *owner*, a retired machine, had, or nobody; return its item, None if it is not as it was seen.

        When it returns, ``everything`` has what others have committed of it. Errors: LeaseLost; StoreError.
        """
        number = shard.number
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
                pruned_through=later(said.pruned_through, known.pruned_through),
                reached=later(said.reached, known.reached),
                set_back_at=said.set_back_at if known.set_back_at is None else known.set_back_at,
            )
        )
        taken = await self._put_owner(item, watermark, owner, frozen)
        if taken is None:
            await self._heartbeat.say(lambda said: said.without((number,)))
            return None
        for stretch in taken.chain[:-1]:
            assert stretch.through is not None
            await self._heartbeat.until_done(partial(self._follower.reach, stretch.machine, stretch.through))
        return taken

    async def _put_owner(
        self, item: ShardItem, watermark: UtcMs | None, owner: Machine | None, frozen: Said | None
    ) -> ShardItem | None:
        """Put this machine into a shard's item as its owner; return the item, None if the shard is another's now."""
        while True:
            taken = replace(
                item,
                version=item.version + 1,
                owner=self._heartbeat.machine,
                epoch=item.epoch + 1,
                watermark=watermark,
                was_clean=item.was_clean and frozen is None,
                chain=(
                    *item.closed(None if frozen is None else frozen.sequence),
                    Stretch(self._heartbeat.machine, self._heartbeat.said.sequence + 1, None),
                ),
            )
            if owner is not None and frozen is not None:
                since = owner.started_at if item.since is None else item.since
                taken = replace(
                    taken,
                    since=since,
                    stamp=max(item.stamp, frozen.stamp),
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
