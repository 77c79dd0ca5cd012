"""Pauses that end by themselves: put on record once they have."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cronally.engine import pause_rows
from cronally.engine.hooks import tell_skipped
from cronally.engine.records import OWN_NAME, ScheduleChange
from cronally.engine.unbroken import to_its_end
from cronally.errors import StoreError
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from cronally.clock import Clock
    from cronally.engine.core import Core
    from cronally.engine.hooks import Hooks
    from cronally.engine.loop import Loop
    from cronally.engine.ports import Store

_RETRY_S = 1.0


class PauseEnds:
    """Puts ended pauses on record. lock: that of ``Edits``."""

    def __init__(
        self, core: Core, store: Store, loop: Loop, lock: asyncio.Lock, clock: Clock, hooks: Hooks
    ) -> None:
        self._core = core
        self._store = store
        self._loop = loop
        self._lock = lock
        self._clock = clock
        self._hooks = hooks

    async def run(self) -> None:
        """Put ended pauses on record, for ever. The core has planned past them already."""
        wake = asyncio.Event()
        while True:
            ending = self._core.next_ended_pause()
            if ending is None or ending[0] > self._clock.wall():
                await self._clock.wait(None if ending is None else ending[0], wake)
                continue
            try:
                async with self._lock:
                    await self.finish()
            except StoreError as exc:
                self._hooks.store_failed(exc)
                await self._clock.sleep(_RETRY_S)

    async def finish(self) -> None:
        """Put on record every pause that has ended by now. The caller holds *lock*. Errors: StoreError."""
        async with self._loop.recovering:
            await to_its_end(self.end_all())

    async def end_all(self) -> UtcMs:
        """Put on record every pause that has ended; return the instant by which all of them are.

        The caller holds *lock*, and recovery waits. Errors: StoreError.
        """
        while True:
            now = self._clock.wall()
            self._loop.replan(self._core.end_pauses(now))
            ending = self._core.next_ended_pause()
            if ending is None or ending[0] > now:
                return now
            until, member = ending
            spec = (await self._store.specs([member.revision_id]))[member.revision_id]
            stored = await self._store.schedule(spec.name)
            if stored is not None and stored.id == member.id and stored.pause is not None:
                await self._store.change(
                    ScheduleChange(
                        at=UtcMs(until - 1),
                        by=OWN_NAME,
                        action="resume",
                        id=stored.id,
                        expected_revision_id=stored.revision_id,
                        effective_from=UtcMs(max(until - 1, stored.effective_from)),
                        closed=(rows := pause_rows.closed(member, stored.pause, UtcMs(until - 1))),
                    )
                )
                tell_skipped(self._hooks, rows)
            self._core.confirm_pause_end(member.id)
