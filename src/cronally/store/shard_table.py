"""The shards in the table: their items are read, and each is replaced only by who knows what stands there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cronally.domain.shards import SHARDS
from cronally.engine.lease_counts import SHARD
from cronally.store.shared_items import SHARDS_KEY, ShardItem, shard_item_in, shard_key

if TYPE_CHECKING:
    from cronally.engine.lease_counts import LeaseCounts
    from cronally.store.dynamodb_table import DynamodbTable
    from cronally.store.heartbeat import Heartbeat


class ShardTable:
    """The items of shards in *table*. counts: of those that were refused."""

    def __init__(self, table: DynamodbTable, heartbeat: Heartbeat, counts: LeaseCounts) -> None:
        self._table = table
        self._heartbeat = heartbeat
        self._counts = counts
        self._seen: dict[int, ShardItem] = {}

    async def all(self) -> list[ShardItem]:
        """Return the item of each shard, as it is now. Errors: StoreError."""
        found = {item.number: item for item in map(shard_item_in, await self._table.all_of(SHARDS_KEY))}
        self._seen = {number: found.get(number, ShardItem(number=number)) for number in range(SHARDS)}
        return [*self._seen.values()]

    def seen(self, number: int) -> ShardItem | None:
        """Return a shard's item as ``all`` has read it last, or None."""
        return self._seen.get(number)

    async def read(self, number: int) -> ShardItem:
        """Return a shard's item as it is now. Errors: StoreError."""
        found = await self._table.get(shard_key(number))
        return ShardItem(number=number) if found is None else shard_item_in(found)

    async def put(self, was: ShardItem, item: ShardItem) -> bool:
        """Write a shard's item in the place of *was*; False if another stands there. Errors: LeaseLost."""

        async def attempt() -> bool:
            if await self._table.put(
                item.written(),
                condition="attribute_not_exists(pk)" if was.version == 0 else "#version = :was",
                values=None if was.version == 0 else {"was": was.version},
            ):
                return True
            return await self.read(item.number) == item  # an attempt whose answer was lost

        is_put = await self._heartbeat.until_done(attempt)
        if not is_put:
            self._counts.refused[SHARD] += 1
        return is_put
