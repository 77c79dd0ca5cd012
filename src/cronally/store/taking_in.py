"""Taking in shards: from when this machine has claimed one until all that the engine reads of it is in ``own``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cronally.domain.shards import SHARDS
from cronally.engine.records import LogPlace, TakenIn
from cronally.instants import UtcMs
from cronally.store.in_batches import InBatches
from cronally.store.shared_log import Doubted, Logged, Taken

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from cronally.engine.records import TimetableRow
    from cronally.store.committing import Committer
    from cronally.store.grown_shards import GrownShards
    from cronally.store.heartbeat import Heartbeat
    from cronally.store.older_rows import OlderRows
    from cronally.store.replica import Replica
    from cronally.store.shared_items import ShardItem
    from cronally.store.taken_shards import TakenShards

_BEFORE_MS: Final = 3_600_000  # of a taken shard's journal this much before the watermark is there at once


class TakingIn:
    """Copies shards from *everything* into *own*, and has that committed. turn: of ``OwnWriting``.

    Attributes: batches: what takes in those that wait.
    """

    def __init__(
        self,
        mine: TakenShards,
        own: Replica,
        everything: Replica,
        turn: asyncio.Lock,
        *,
        heartbeat: Heartbeat,
        committer: Committer,
        grown_shards: GrownShards,
        older_rows: OlderRows,
    ) -> None:
        self.batches = InBatches(self._take_in_all, heartbeat, failed="shards could not be taken in")
        self._mine = mine
        self._own = own
        self._everything = everything
        self._turn = turn
        self._committer = committer
        self._grown_shards = grown_shards
        self._older_rows = older_rows

    async def take_in(self, item: ShardItem) -> TakenIn:
        """Take in a shard that this machine has claimed. Errors: LeaseLost, for it cannot be left as it is."""
        return await self.batches.ask(item)

    async def _take_in_all(self, items: Sequence[ShardItem]) -> list[TakenIn]:
        """Bring the shards that were claimed into ``own``, all that wait together."""
        async with self._turn:
            return await self._take_in(items)

    async def _take_in(self, items: Sequence[ShardItem]) -> list[TakenIn]:
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
            self._committer.come_after(item.stamp)
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
