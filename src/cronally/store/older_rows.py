"""The older rows of the journal, which are read after a machine has joined, and after it has taken a shard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cronally.instants import MAX_UTC_MS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from cronally.instants import UtcMs
    from cronally.store.background import Background
    from cronally.store.following import Follower
    from cronally.store.heartbeat import Heartbeat
    from cronally.store.replica import Replica


class OlderRows:
    """Reads history into *everything*, and from there into *own* what shards lack that were taken. turn: of ``OwnWriting``."""

    def __init__(
        self,
        own: Replica,
        everything: Replica,
        turn: asyncio.Lock,
        *,
        heartbeat: Heartbeat,
        follower: Follower,
        background: Background,
    ) -> None:
        self._own = own
        self._everything = everything
        self._turn = turn
        self._heartbeat = heartbeat
        self._follower = follower
        self._background = background
        self._lacking: set[int] = set()

    @property
    def are_there(self) -> bool:
        """Whether all of the journal that the table has is in ``everything``, and of the shards taken in ``own``."""
        return self._follower.has_history and not self._lacking

    def begin(self) -> None:
        """Read them, in the background."""
        self._background.start(self._read())

    def took(self, numbers: Iterable[int], *, is_all: bool) -> None:
        """Shards were taken, with all the rows that ``everything`` has of them or without the older ones."""
        if not is_all or not self._follower.has_history:
            self._lacking |= set(numbers)
            if self._follower.has_history:
                self._background.start(self._fill())

    def gave(self, number: int) -> None:
        """A shard was given."""
        self._lacking.discard(number)

    async def _read(self) -> None:
        await self._heartbeat.until_done(self._follower.read_history)
        await self._fill()

    async def _fill(self) -> None:
        """Bring the older rows of the shards that were taken into ``own``."""
        while self._lacking:
            number = min(self._lacking)
            for id_ in await self._own.schedule_ids([number]):
                before: UtcMs | None = MAX_UTC_MS
                while before is not None:
                    async with self._turn:
                        if number not in self._lacking:
                            break
                        before = await self._own.copy_old(self._everything, id_, before)
            self._lacking.discard(number)
