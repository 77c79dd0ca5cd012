"""Time that jumps is seen by those who wait as time that passes."""

from __future__ import annotations

import asyncio

import pytest

from cronally.clock import WaitResult
from cronally.instants import UtcMs
from support.virtual_time import JumpingClock, run_virtually

START = UtcMs(1_800_000_000_000)


def run(story):
    clock = JumpingClock(START)
    errors = []
    result = run_virtually(clock, story(clock), errors.append)
    assert not errors
    return result


def test_a_wait_ends_at_its_very_instant_however_far_it_is():
    async def story(clock):
        result = await clock.wait(UtcMs(START + 86_400_000), asyncio.Event())
        return result, clock.wall()

    assert run(story) == (WaitResult.DUE, START + 86_400_000)


def test_an_event_ends_a_wait_and_is_cleared():
    async def story(clock):
        wake = asyncio.Event()
        waiting = asyncio.create_task(clock.wait(UtcMs(START + 86_400_000), wake))
        await clock.advance(5)
        wake.set()
        return await waiting, wake.is_set(), clock.wall()

    assert run(story) == (WaitResult.WOKEN, False, START + 5_000)


@pytest.mark.parametrize("until", [START + 86_400_000, None])
def test_a_step_is_noticed_when_a_wait_of_a_second_would_have_ended(until):
    async def story(clock):
        waiting = asyncio.create_task(clock.wait(until, asyncio.Event()))
        await clock.advance(5.3)
        clock.step_wall(2 * 86_400_000)
        before = clock.mono()
        return await waiting, round(clock.mono() - before, 6)

    assert run(story) == (WaitResult.RECHECK if until is None else WaitResult.DUE, 0.7)


def test_a_wait_without_an_instant_ends_every_second_only_while_the_clock_is_watchful():
    async def story(clock):
        waiting = asyncio.create_task(clock.wait(None, asyncio.Event()))
        await clock.advance(5.3)
        assert not waiting.done()
        clock.is_watchful = True
        await waiting
        first = clock.wall()
        await clock.wait(None, asyncio.Event())
        return first, clock.wall()

    assert run(story) == (START + 6_000, START + 7_000)


def test_a_stall_lets_time_pass_at_once_and_a_sleep_through_leaves_monotonic_time():
    async def story(clock):
        before = clock.mono(), clock.boot()
        clock.stall(30)
        clock.sleep_through(100)
        return clock.wall(), clock.mono() - before[0], clock.boot() - before[1]

    assert run(story) == (START + 130_000, 30, 130)


def test_an_error_in_a_callback_is_told():
    async def story(clock):
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await clock.advance(1)

    errors = []
    clock = JumpingClock(START)
    run_virtually(clock, story(clock), errors.append)
    assert [type(error) for error in errors] == [ZeroDivisionError]


def test_who_waits_for_nothing_is_found_out():
    async def story(_clock):
        await asyncio.get_running_loop().create_future()

    with pytest.raises(AssertionError, match="none for the clock"):
        run(story)
