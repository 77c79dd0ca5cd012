"""One engine: its parts put together, started, run and stopped in order."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from cronally.domain.allowed import AllowedTopics
from cronally.domain.shards import SHARDS
from cronally.engine.arming import DEFAULT_BUDGET_BYTES
from cronally.engine.clock_watch import ClockWatch
from cronally.engine.core import Core
from cronally.engine.edits import Edits
from cronally.engine.gate import Gate
from cronally.engine.handover import HandOver
from cronally.engine.hooks import Hooks
from cronally.engine.loop import Loop
from cronally.engine.orders import Orders
from cronally.engine.recovery import Recovery
from cronally.engine.set_back import SetBack
from cronally.engine.settle import MAX_UNCOMMITTED_S, Settler
from cronally.instants import MIN_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronally.clock import Clock
    from cronally.domain.model import Fire
    from cronally.engine.ports import Publisher, Store
    from cronally.engine.records import Opened


class Engine:
    """Fires what the store holds, through the publisher, by the clock.

    Attributes: allowed: the topics it may publish to. hand_over: for one of several machines.
    """

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        clock: Clock,
        hooks: Hooks | None = None,
        *,
        watch: ClockWatch | None = None,
        jitter: Callable[[], float] = random.random,
        armed_budget_bytes: int = DEFAULT_BUDGET_BYTES,
        topics: Sequence[str] | None = None,
        is_one_of_several: bool = False,
    ) -> None:
        """watch: says whether the clock can be believed; by default it can. topics: patterns of those allowed; None: all.

        is_one_of_several: it has no shard at first, and takes in one by one.
        """
        hooks = hooks or Hooks()
        self._store = store
        self.allowed = AllowedTopics(topics)
        self._publisher = publisher = Gate(publisher, self.allowed, clock)
        self._clock = clock
        self.core = Core()
        self.settler = Settler(self.core, store, clock, hooks, on_committed=self._note_committed)
        self.recovery = Recovery(self.core, store, self.settler, clock, hooks)
        self.set_back = SetBack(self.core, store, clock)
        self.watch = watch or ClockWatch(clock)
        self.loop = Loop(
            self.core,
            store,
            publisher,
            self.settler,
            self.recovery,
            self.set_back,
            self.watch,
            clock,
            hooks,
            jitter=jitter,
            armed_budget_bytes=armed_budget_bytes,
        )
        self.edits = Edits(self.core, store, self.loop, self.set_back, clock, hooks)
        self.orders = Orders(store, self.loop, clock, self.allowed)
        self.hand_over = HandOver(self.core, store, self.loop, self.edits, self.settler, self.recovery, clock)
        if is_one_of_several:
            self.core.here.absent.update(range(SHARDS))

    async def recover(self, opened: Opened) -> Sequence[Fire]:
        """Load the timetable of an opened store and decide what was due meanwhile; return the fires to ``run`` with."""
        self.watch.look()
        self.watch.believe()
        if not opened.was_clean:
            await self._store.mark_unclean()
        self.core.failing.update(opened.failing)
        if opened.pruned_through is not None:
            self.core.pruned_through = opened.pruned_through
        await self.recovery.load()
        # If nothing was ever committed, each schedule's effective from says where its slots begin.
        watermark = MIN_UTC_MS if opened.watermark is None else opened.watermark
        now = self._clock.wall()
        reached = await self._reached(opened, now)
        self.core.relived.begin(reached)
        doubted_through = MIN_UTC_MS if opened.was_clean else UtcMs(max(now, reached))
        if reached > now or opened.set_back_at is not None:
            at = UtcMs(now if opened.set_back_at is None else min(now, opened.set_back_at))
            watermark, taken_back = await self.set_back.run(at, watermark=watermark, reached=reached)
            doubted_through = UtcMs(max(doubted_through, taken_back))
        fires = await self.recovery.run("start", watermark, doubted_through=doubted_through)
        self.set_back.done()
        return fires

    async def _reached(self, opened: Opened, now: UtcMs) -> UtcMs:
        """Return the latest instant that the clock may have shown: if it is later than *now*, the clock was set back meanwhile."""
        known = opened.reached or MIN_UTC_MS
        latest = MIN_UTC_MS if opened.watermark is None else opened.watermark
        if latest <= now:
            latest = await self._store.newest_settled(now) or MIN_UTC_MS
        if latest > max(now, known) and not opened.was_clean:
            latest = UtcMs(
                latest + round(MAX_UNCOMMITTED_S * 1000)
            )  # for so long it may have sent what is not on record
        return UtcMs(max(known, latest))

    async def run(self, first: Sequence[Fire]) -> None:
        """Fire everything on time until cancelled. The first part that fails stops all."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.settler.run(), name="settle")
            tasks.create_task(self.edits.pauses.run(), name="pauses")
            tasks.create_task(self.loop.run(first), name="loop")

    async def drain(self, timeout_s: float) -> bool:
        """Release nothing more and wait for what is in flight; return whether all of it was answered in time.

        Call it while ``run`` is still running; cancel ``run`` afterwards, then call ``finish``.
        """
        return await self.loop.drain(timeout_s)

    async def finish(self) -> UtcMs | None:
        """After ``run``: give up what is in flight, put every outcome on record; return the last watermark.

        None if slots are still to come, after a clock was set back, that a daemon which crashed may have sent: the next
        one has to know. Errors: StoreError; then the stop is not a clean one.
        """
        await self._publisher.close()
        await self.settler.flush()
        now = self._clock.wall()
        return self.core.watermark(now) if self.core.most_doubted() <= now else None

    def allow(self, topics: Sequence[str] | None) -> None:
        """From now on publish to *topics*, patterns, alone (None: to all); what waited and may go now is tried at once."""
        before = set(self.loop.circuits.open)
        self.allowed.replace(topics)
        self.loop.retrying.expect_asked(topic for topic in before if self.allowed.allows(topic))

    def _note_committed(self) -> None:
        self.loop.note_committed()
