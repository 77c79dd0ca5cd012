"""What is to come of all schedules, for a machine that drives only some of them.

A core of its own, which plans nothing, is loaded when somebody asks, and again when it is older than ``FRESH_S``: a change made
elsewhere shows within that time. It costs nothing while nobody asks.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from cronally.engine.core import Core
from cronally.engine.hooks import Hooks
from cronally.engine.recovery import Recovery
from cronally.engine.settle import Settler

if TYPE_CHECKING:
    from cronally.clock import Clock
    from cronally.engine.ports import Store

FRESH_S: Final = 30.0


class Outlook:
    """The core of *store*, everything that all machines drive."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._core: Core | None = None
        self._loaded_at_s = 0.0
        self._loading = asyncio.Lock()

    async def core(self) -> Core:
        """Return a core whose timetable begins now. Errors: StoreError."""
        async with self._loading:
            now_s = self._clock.mono()
            if self._core is None or now_s - self._loaded_at_s >= FRESH_S:
                self._core, self._loaded_at_s = await self._load(), now_s
            now = self._clock.wall()
            for _ in self._core.timetable.take(now):
                pass  # it has gone by
            self._core.planned_through = self._core.at_through = now
            return self._core

    async def _load(self) -> Core:
        core, hooks = Core(), Hooks()
        settler = Settler(core, self._store, self._clock, hooks, on_committed=lambda: None)
        await Recovery(core, self._store, settler, self._clock, hooks).load()
        now = self._clock.wall()
        for _ in core.restart(now, now):
            await self._clock.sleep(0)
        return core
