"""What is asked for one by one and done for all that wait, together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from cronally.errors import LeaseLost
from cronally.store.heartbeat import heard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cronally.store.heartbeat import Heartbeat

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")


class InBatches(Generic[_Asked, _Answer]):
    """Does *work*, one batch after the other, and returns to each who asked what came of it.

    If a batch fails the lease is lost: what this machine does, and what the table says that it has, are no longer one.
    Attributes: task: what does it.
    """

    def __init__(
        self,
        work: Callable[[Sequence[_Asked]], Awaitable[Sequence[_Answer]]],
        heartbeat: Heartbeat,
        *,
        failed: str,
    ) -> None:
        """work: returns an answer for each, in order. failed: what is said of the lease then, such as ``shards could not be given``."""
        self.task: asyncio.Task[None] | None = None
        self._work = work
        self._heartbeat = heartbeat
        self._failed = failed
        self._waiting: list[tuple[_Asked, asyncio.Future[_Answer]]] = []

    async def ask(self, asked: _Asked) -> _Answer:
        """Have *asked* done with those that wait. Errors: LeaseLost."""
        done: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        done.add_done_callback(heard)
        self._waiting.append((asked, done))
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._run())
        return await asyncio.shield(done)

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                answers = await self._work([asked for asked, _ in batch])
            except Exception as exc:  # noqa: BLE001 - whatever it is, a shard must not stay half taken or half given
                lost = self._heartbeat.lose(f"{self._failed}: {exc!r}")
                for _, done in batch:
                    if not done.done():
                        done.set_exception(exc if isinstance(exc, LeaseLost) else lost)
                return
            for (_, done), answer in zip(batch, answers, strict=True):
                if not done.done():
                    done.set_result(answer)
