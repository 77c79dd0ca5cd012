"""Commits of this machine: what was done here becomes log items, and counts once the heartbeat names them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.errors import LeaseLost
from cronally.store.heartbeat import heard
from cronally.store.shared_items import expires_s
from cronally.store.shared_log import encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cronally.clock import Clock
    from cronally.store.attribute_values import Item
    from cronally.store.dynamodb_table import DynamodbTable
    from cronally.store.heartbeat import Heartbeat
    from cronally.store.shared_items import Said
    from cronally.store.shared_log import Logged, Record

LOG: Final = "log"
KEPT_DAYS: Final = 30  # what was published: as long as the journal is kept
_KEPT_STATE_DAYS: Final = (
    400  # all else, until a snapshot has it; a table whose machines all stand still keeps it that long
)
_MOST_TOGETHER: Final = 64  # writes of one commit
_THREAD_DEEDS: Final = 8  # with fewer the way to a thread takes longer


def log_key(machine: str) -> str:
    return f"{LOG}/{machine}"


def place_text(sequence: int, part: int = 0) -> str:
    """Return the sort key of a part of a record; in the order of these."""
    return f"{sequence:012d}.{part:04d}"


def sequence_in(text: str) -> int:
    return int(text.partition(".")[0])


def log_items(machine: str, sequence: int, record: Record, *, stamp: int, expires: int) -> list[Item]:
    """Return the items that a record is in the log of a machine. stamp: as in ``Said``."""
    return [
        {
            "pk": log_key(machine),
            "sk": place_text(sequence, part),
            "parts": len(record.parts),
            "stamp": stamp,
            "held": held,
            "expires": expires,
        }
        for part, held in enumerate(record.parts)
    ]


class _Waiting(NamedTuple):
    logged: Sequence[Logged]
    change: Callable[[Said], Said]
    done: asyncio.Future[None]


class Committer:
    """Writes what is given to it, in order, several together if they wait."""

    def __init__(
        self,
        table: DynamodbTable,
        heartbeat: Heartbeat,
        clock: Clock,
        *,
        on_committed: Callable[[Sequence[Logged], Record], Awaitable[None]],
    ) -> None:
        """on_committed: called with each commit and its record before those who wait for it go on."""
        self._table = table
        self._heartbeat = heartbeat
        self._clock = clock
        self._on_committed = on_committed
        self._queue: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None
        self._before = 0

    def come_after(self, stamp: int) -> None:
        """Give what is added from now on greater stamps than *stamp*."""
        self._before = max(self._before, stamp)

    def add(self, logged: Sequence[Logged], change: Callable[[Said], Said]) -> asyncio.Future[None]:
        """Have *logged* committed, and what *change* makes of what the heartbeat says; the future is done when that is durable.

        Its errors: LeaseLost.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(heard)
        self._queue.append(_Waiting(logged, change, done))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return done

    async def flush(self) -> None:
        """Return when all that was added is committed. Errors: LeaseLost."""
        while self._task is not None and not self._task.done():
            await asyncio.wait((self._task,))
        self._heartbeat.check()

    async def close(self) -> None:
        """Give up what waits."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        for waiting in self._queue:
            waiting.done.cancel()

    async def _run(self) -> None:
        while self._queue:
            together = self._queue[:_MOST_TOGETHER]
            del self._queue[:_MOST_TOGETHER]
            try:
                await self._commit(together)
            except asyncio.CancelledError:
                for waiting in together:
                    waiting.done.cancel()
                raise
            except Exception as exc:  # noqa: BLE001 - whatever it is, what was done here and what is on record are no longer one
                lost = (
                    exc
                    if isinstance(exc, LeaseLost)
                    else self._heartbeat.lose(f"its commit could not be followed up: {exc!r}")
                )
                for waiting in together:
                    if not waiting.done.done():
                        waiting.done.set_exception(lost)
            else:
                for waiting in together:
                    if not waiting.done.done():
                        waiting.done.set_result(None)

    async def _commit(self, together: Sequence[_Waiting]) -> None:
        self._heartbeat.check()
        logged = [one for waiting in together for one in waiting.logged]
        sequence, stamp = self._heartbeat.said.sequence, self._heartbeat.said.stamp
        if logged:
            sequence += 1
            stamp = max(stamp + 1, self._before + 1, self._clock.wall())
            record = (
                encode(logged) if len(logged) <= _THREAD_DEEDS else await asyncio.to_thread(encode, logged)
            )
            days = KEPT_DAYS if record.is_plain else _KEPT_STATE_DAYS
            expires = expires_s(self._clock.wall(), days)
            for item in log_items(self._heartbeat.machine, sequence, record, stamp=stamp, expires=expires):
                # Nobody else has this key, and it is the same each time.
                await self._heartbeat.until_done(partial(self._table.put, item))

        def say(said: Said) -> Said:
            for waiting in together:
                said = waiting.change(said)
            return replace(said, sequence=sequence, stamp=stamp)

        await self._heartbeat.say(say)
        if logged:
            await self._on_committed(logged, record)
