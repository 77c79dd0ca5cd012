"""What no fire may notice: a wall clock that is slewed, and a leap second."""

from __future__ import annotations

from collections import Counter

import pytest

from cronally.domain.model import State
from cronally.engine.hooks import Hooks
from support.fake_clock import FakeClock
from support.rig import running_engine


class Heard(Hooks):
    def __init__(self):
        self.said = []

    def clock_jumped(self, jump):
        self.said.append(jump.reason)

    def recovered(self, reason, after, through, fires, skipped):
        self.said.append(reason)


def assert_each_slot_fired_once_and_none_early(rig, slots):
    assert Counter(rig.sent) == dict.fromkeys(slots, 1)
    assert all(a.released_us >= a.entry.fire.due_time * 1000 for a in rig.publisher.arrivals)


@pytest.mark.parametrize("ppm", [500, -500])
async def test_a_clock_that_is_slewed_for_long_is_no_step(ppm):
    heard = Heard()
    async with running_engine(hooks=heard) as rig:
        heard.said.clear()
        await rig.add("job", "* * * * *")
        for _ in range(45 * 15):
            await rig.clock.advance(4)
            rig.clock.step_wall(4 * ppm // 1000)
        minutes = [f"job@2026-11-23T09:{minute:02}:00Z" for minute in range(45)]
        assert_each_slot_fired_once_and_none_early(rig, minutes)
        assert heard.said == []


# Linux repeats the second before midnight: 23:59:59, 23:59:59 (the leap second, 23:59:60), 00:00:00.
@pytest.mark.parametrize("repeated_at", ["00:00:00", "00:00:00.001", "00:00:00.900"])
async def test_a_leap_second_runs_no_slot_twice_and_none_early(repeated_at):
    clock = FakeClock("2016-12-31T23:59:56Z")
    async with running_engine(clock=clock) as rig:
        await rig.add("second", "@every 1s", catch_up="all")
        await rig.add("minute", "* * * * *")
        await rig.add("year", "0 0 1 1 *")
        await clock.advance_to(f"2017-01-01T{repeated_at}Z")
        clock.step_wall(-1000)
        await clock.advance_to("2017-01-01T00:00:03.5Z")
        seconds = [f"second@2016-12-31T23:59:{second}Z" for second in (57, 58, 59)]
        seconds += [f"second@2017-01-01T00:00:0{second}Z" for second in range(4)]
        midnight = [f"{name}@2017-01-01T00:00:00Z" for name in ("minute", "year")]
        assert_each_slot_fired_once_and_none_early(rig, seconds + midnight)
        assert set((await rig.states()).values()) == {State.PUBLISHED}
