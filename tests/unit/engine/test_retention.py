"""How long the journal is kept, and that nothing else has to wait for its pruning."""

from __future__ import annotations

import asyncio

import pytest

from cronally.domain.durations import DAY_MS, HOUR_MS
from cronally.domain.model import JournalEntry, State
from cronally.engine import retention as module
from cronally.engine.hooks import Hooks
from cronally.engine.records import JournalFilter
from cronally.engine.retention import AFTER_STEP_S, INTERVAL_S, Keep, Retention
from cronally.errors import StoreBusy
from cronally.instants import parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.memory_store import BYTES_PER_ROW
from support.rig import running_engine

NOW = parse_rfc3339("2026-11-23T08:59:30Z")
STEP_ROWS = module._STEP_ROWS


class Listener(Hooks):
    def __init__(self):
        self.pruned_rows = []
        self.errors = []

    def pruned(self, rows, through, *, for_size):
        self.pruned_rows.append((rows, through, for_size))

    def store_failed(self, error):
        self.errors.append(error)


class House:
    """A running engine whose journal is kept for a day."""

    def __init__(self, rig, **keep):
        self.rig, self.clock, self.store = rig, rig.clock, rig.store
        self.hooks = Listener()
        self.is_quiet = True
        self.retention = Retention(
            rig.engine.core,
            rig.store,
            rig.clock,
            self.hooks,
            is_quiet=lambda _ms: self.is_quiet,
            keep=Keep(**{"keep_ms": DAY_MS, "max_bytes": 1 << 40} | keep),
        )

    async def journalled(self, *fire_times, state=State.PUBLISHED, watermark=NOW):
        await self.rig.add("a", "0 0 1 1 *")
        rows = [
            JournalEntry(schedule_id=1, revision_id=1, fire_time=at, due_time=at, state=state)
            for at in fire_times
        ]
        await self.store.commit(rows, watermark=watermark)

    async def prune(self):
        """Make a pass; return how long it took, seconds."""
        began = self.clock.mono()
        task = asyncio.create_task(self.retention.prune())
        await self.clock.settle()
        while not task.done():
            await self.clock.advance(0.01)
        await task
        return self.clock.mono() - began

    async def left(self):
        rows = await self.store.history(JournalFilter(limit=1_000_000))
        return [row.entry.fire_time - NOW for row in reversed(rows)]


async def test_what_is_older_than_it_is_kept_goes_and_the_core_knows():
    async with running_engine() as rig:
        house = House(rig)
        await house.journalled(NOW - 3 * DAY_MS, NOW - DAY_MS - 2000, NOW - DAY_MS + 5000, NOW - 1)
        await house.prune()
        assert await house.left() == [-DAY_MS + 5000, -1]
        assert rig.engine.core.pruned_through == NOW - DAY_MS - 2000
        assert house.hooks.pruned_rows == [(2, NOW - DAY_MS - 2000, False)]
        await house.prune()
        assert len(house.hooks.pruned_rows) == 1


async def test_the_core_learns_what_is_pruned_only_once_it_is_durable():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        house = House(rig)
        await house.journalled(NOW - 3 * DAY_MS)
        before = rig.engine.core.pruned_through
        store.fail("prune")
        with pytest.raises(StoreBusy):
            await house.prune()
        assert rig.engine.core.pruned_through == before
        store.fail()
        await house.prune()
        assert rig.engine.core.pruned_through == NOW - 3 * DAY_MS


async def test_over_the_size_the_oldest_go_up_to_the_watermark():
    async with running_engine() as rig:
        house = House(rig, max_bytes=(STEP_ROWS + 5) * BYTES_PER_ROW)
        times = [NOW - HOUR_MS + n for n in range(3 * STEP_ROWS)]
        await house.journalled(*times)
        await house.prune()
        assert await house.left() == [at - NOW for at in times[2 * STEP_ROWS :]]
        assert house.hooks.pruned_rows == [(2 * STEP_ROWS, times[2 * STEP_ROWS - 1], True)]


async def test_over_the_size_what_is_after_the_watermark_or_pending_stays():
    async with running_engine() as rig:
        house = House(rig, max_bytes=0)
        await house.journalled(NOW - 30, NOW - 20, watermark=NOW - 20)
        await house.journalled(NOW - 25, state=State.PENDING, watermark=None)
        await house.journalled(NOW - 10, watermark=None)
        await house.prune()
        assert await house.left() == [-25, -10]
        assert rig.engine.core.pruned_through == NOW - 20


async def test_a_step_waits_until_nothing_leaves_but_not_for_ever():
    async with running_engine() as rig:
        house = House(rig)
        await house.journalled(*(NOW - 2 * DAY_MS + n for n in range(10 * STEP_ROWS)))
        house.is_quiet = False
        task = asyncio.create_task(house.retention.prune())
        await house.clock.advance(0.9)
        assert len(await house.left()) == 10 * STEP_ROWS
        house.is_quiet = True
        await house.clock.advance(0.1)
        assert len(await house.left()) < 10 * STEP_ROWS
        house.is_quiet = False
        await house.clock.advance(5)  # waits of 1, 0.5, 0.25 … s: what comes in for ever must go out
        assert task.done()
        assert await house.left() == []


async def test_between_two_steps_the_writer_is_free():
    async with running_engine() as rig:
        house = House(rig)
        await house.journalled(*(NOW - 2 * DAY_MS + n for n in range(10 * STEP_ROWS)))
        assert await house.prune() >= 10 * module._PAUSE_S


async def test_a_clock_that_is_set_forward_and_back_costs_nothing():
    async with running_engine() as rig:
        house = House(rig)
        await house.journalled(NOW - HOUR_MS)
        await house.prune()
        house.clock.step_wall(2 * DAY_MS)
        await rig.store.commit([], watermark=NOW + 2 * DAY_MS)
        await house.prune()
        house.clock.step_wall(-2 * DAY_MS)
        await house.prune()
        assert await house.left() == [-HOUR_MS]


async def test_a_clock_that_keeps_its_new_time_is_believed_after_an_hour():
    async with running_engine() as rig:
        house = House(rig)
        await house.journalled(NOW - HOUR_MS)
        house.clock.step_wall(2 * DAY_MS)
        await house.prune()
        await house.clock.advance(AFTER_STEP_S - 60)
        await house.prune()
        assert -HOUR_MS in await house.left()
        await house.clock.advance(60)
        await house.prune()
        assert -HOUR_MS not in await house.left()


async def test_what_had_to_stay_is_looked_at_again_within_the_hour_and_not_with_each_pass():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        house = House(rig)
        await house.journalled(*(NOW - 2 * DAY_MS + n for n in range(4 * STEP_ROWS)), state=State.PENDING)
        await house.prune()
        assert len(await house.left()) == 4 * STEP_ROWS
        store.calls.clear()
        await house.prune()
        assert store.calls["prune"] == 1
        await house.journalled(NOW - 2 * DAY_MS)  # it is published at last
        await house.clock.advance(3600)
        await house.prune()
        assert len(await house.left()) == 4 * STEP_ROWS - 1


async def test_it_goes_on_by_itself_and_survives_a_store_that_refuses():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        house = House(rig)
        await house.journalled(NOW - 2 * DAY_MS)
        running = asyncio.create_task(house.retention.run())
        store.fail("prune")
        await clock.advance(INTERVAL_S + 1)
        assert [type(error) for error in house.hooks.errors] == [StoreBusy]
        assert await house.left() == [-2 * DAY_MS]
        store.fail()
        await clock.advance(INTERVAL_S + 1)
        assert await house.left() == []
        running.cancel()


async def test_no_slot_fires_again_after_all_was_pruned():
    async with running_engine() as rig:
        house = House(rig, max_bytes=0)
        await rig.add("b", "* * * * *", catch_up="all")
        await rig.clock.advance(180)
        sent = list(rig.sent)
        await house.prune()
        assert await rig.states("b") == {}
        await rig.clock.suspend(15)  # recovery looks for slots without a row
        await rig.clock.advance(5)
        assert rig.sent == sent
        await rig.clock.advance(60)
        assert len(rig.sent) == len(sent) + 1
