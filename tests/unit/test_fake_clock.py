"""The clock under a test's hand behaves as the clocks of a machine do."""

from __future__ import annotations

import asyncio

import pytest

from cronally.clock import MAX_WAIT_S, WaitResult
from cronally.instants import parse_rfc3339
from support.fake_clock import FakeClock

START = parse_rfc3339("2026-11-23T08:59:30Z")


async def test_time_stands_still_until_it_is_advanced():
    clock = FakeClock()
    assert (clock.wall(), clock.wall_us(), clock.is_synchronised()) == (START, START * 1000, True)
    mono, boot = clock.mono(), clock.boot()
    await clock.advance(1.5)
    assert (clock.wall() - START, clock.mono() - mono, clock.boot() - boot) == (1500, 1.5, 1.5)
    await clock.advance_to("2026-11-23T08:59:40.001Z")
    assert clock.wall() == START + 10_001


async def test_sleepers_wake_in_order_each_at_its_instant():
    clock = FakeClock()
    woken = []

    async def sleeper(name, seconds):
        await clock.sleep(seconds)
        woken.append((name, clock.wall() - START))
        if name == "a":
            await sleeper("again", 0.25)

    async with asyncio.TaskGroup() as tasks:
        for name, seconds in (("c", 3), ("a", 1), ("b", 1), ("now", 0)):
            tasks.create_task(sleeper(name, seconds))
        await clock.advance(5)
    assert woken == [("now", 0), ("a", 1000), ("b", 1000), ("again", 1250), ("c", 3000)]


async def test_a_wait_ends_at_its_instant_and_not_before():
    clock = FakeClock()
    waiting = asyncio.create_task(clock.wait(START + 500, asyncio.Event()))
    await clock.advance(0.499)
    assert not waiting.done()
    await clock.advance(0.001)
    assert waiting.result() is WaitResult.DUE
    assert await clock.wait(START, asyncio.Event(), precise=True) is WaitResult.DUE


async def test_a_wait_is_cut_short_by_its_event_and_clears_it():
    clock = FakeClock()
    wake = asyncio.Event()
    waiting = asyncio.create_task(clock.wait(None, wake))
    await clock.settle()
    wake.set()
    await clock.settle()
    assert waiting.result() is WaitResult.WOKEN
    assert not wake.is_set()
    wake.set()
    assert await clock.wait(None, wake) is WaitResult.WOKEN


async def test_a_long_wait_looks_at_the_clocks_every_second():
    clock = FakeClock()
    waiting = asyncio.create_task(clock.wait(START + 60_000, asyncio.Event()))
    await clock.advance(MAX_WAIT_S)
    assert waiting.result() is WaitResult.RECHECK


async def test_a_step_back_makes_a_wait_end_too_soon_and_say_so():
    clock = FakeClock()
    waiting = asyncio.create_task(clock.wait(START + 500, asyncio.Event()))
    await clock.settle()
    clock.step_wall(-10_000)
    await clock.advance(0.5)
    assert waiting.result() is WaitResult.RECHECK


async def test_a_suspended_machine_has_no_monotonic_time():
    clock = FakeClock()
    mono, boot = clock.mono(), clock.boot()
    await clock.suspend(3600)
    assert clock.wall() - START == 3_601_000
    assert (clock.mono() - mono, clock.boot() - boot) == (1.0, 3601.0)


async def test_a_cancelled_wait_leaves_nothing_behind():
    clock = FakeClock()
    wake = asyncio.Event()
    waiting = asyncio.create_task(clock.wait(None, wake))
    await clock.settle()
    waiting.cancel()
    await clock.advance(2)
    assert waiting.cancelled()
    wake.set()
    await clock.settle()
    assert wake.is_set()


async def test_settle_ends_when_nothing_is_ready_and_tells_a_task_that_spins(monkeypatch):
    from support import fake_clock

    monkeypatch.setattr(fake_clock, "_MOST_TURNS", 200)
    clock = FakeClock()
    turns = 0

    async def busy(most):
        nonlocal turns
        while turns < most:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(busy(150))
    await clock.settle()
    assert (task.done(), turns) == (True, 150)
    spinning = asyncio.create_task(busy(10**9))
    with pytest.raises(AssertionError, match="a task spins"):
        await clock.settle()
    spinning.cancel()
