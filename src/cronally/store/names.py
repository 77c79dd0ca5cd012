"""Names are unique among the schedules of all machines: who gives one holds the lock of its home meanwhile.

A lock is an item that names its holder. That of a machine that is retired counts for nothing: no commit of it can follow any more.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from cronally.domain.crontab import name_hash
from cronally.domain.shards import SHARDS
from cronally.errors import StoreBusy, StoreError
from cronally.store.shared_items import machine_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from cronally.clock import Clock
    from cronally.store.attribute_values import Key
    from cronally.store.dynamodb_table import DynamodbTable
    from cronally.store.heartbeat import Heartbeat

_PATIENCE_S: Final = 5.0  # a lock is held for a commit
_PAUSE_S: Final = 0.03


class NameLocks:
    """The locks of *table*, for one machine, which gives names one after another."""

    def __init__(self, table: DynamodbTable, heartbeat: Heartbeat, clock: Clock) -> None:
        self._table = table
        self._heartbeat = heartbeat
        self._clock = clock
        self._turn = asyncio.Lock()
        self._doubtful: set[int] = set()

    @asynccontextmanager
    async def held(self, names: Iterable[str]) -> AsyncIterator[None]:
        """Hold the locks of *names* for the block. Errors: StoreBusy if another machine does; StoreError."""
        homes = sorted({name_hash(name) % SHARDS for name in names})
        async with self._turn:
            taken: list[int] = []
            try:
                for home in homes:
                    await self._take(home)
                    taken.append(home)
                yield
            finally:
                await asyncio.shield(asyncio.gather(*map(self._release, taken)))

    async def tidy(self) -> None:
        """Release what may have stayed behind of writes whose answers were lost."""
        if self._doubtful and not self._turn.locked():
            async with self._turn:
                doubtful, self._doubtful = self._doubtful, set()
                for home in doubtful:
                    await self._release(home)

    async def _take(self, home: int) -> None:
        until_s = self._clock.mono() + _PATIENCE_S
        while True:
            self._heartbeat.check()
            holder = "somebody"
            try:
                if await self._table.put(
                    {"pk": _key(home)[0], "sk": _key(home)[1], "holder": self._heartbeat.machine},
                    condition="attribute_not_exists(pk) OR #holder = :me",
                    values={"me": self._heartbeat.machine},
                ):
                    return
                item = await self._table.get(_key(home))
                if item is None:
                    continue
                holder = item["holder"]
                if await self._is_gone(holder):
                    await self._table.delete(
                        _key(home), condition="#holder = :holder", values={"holder": holder}
                    )
                    continue
            except StoreBusy:
                self._doubtful.add(home)
                if self._clock.mono() > until_s:
                    raise
            if self._clock.mono() > until_s:
                raise StoreBusy(f"machine {holder} is giving a name like this one; try again")
            await self._clock.sleep(_PAUSE_S)

    async def _is_gone(self, machine: str) -> bool:
        item = await self._table.get(machine_key(machine))
        return item is None or bool(item["retired"])

    async def _release(self, home: int) -> None:
        try:
            await self._table.delete(
                _key(home), condition="#holder = :me", values={"me": self._heartbeat.machine}
            )
        except StoreError:
            self._doubtful.add(home)


def _key(home: int) -> Key:
    return "name", f"{home:02d}"
