from __future__ import annotations

import pytest

from cronally.engine.clock_watch import ClockWatch
from cronally.instants import parse_rfc3339
from support.fake_clock import FakeClock

DAY_MS = 86_400_000
RELEASED = parse_rfc3339("2026-06-01T00:00:00Z")


class Unsynchronised(FakeClock):
    def is_synchronised(self):
        return False


@pytest.mark.parametrize("step_ms", [-1_000, -1, 0, 1, 1_000])
async def test_up_to_a_second_is_no_jump(step_ms):
    clock = FakeClock()
    watch = ClockWatch(clock)
    await clock.advance(5000)
    clock.step_wall(step_ms)
    assert watch.look() is None


async def test_many_small_steps_are_none_either_while_each_is_looked_at():
    clock = FakeClock()
    watch = ClockWatch(clock)
    for _ in range(50):
        clock.step_wall(-900)
        await clock.advance(1)
        assert watch.look() is None
        watch.believe()


@pytest.mark.parametrize(
    ("step_ms", "is_back", "reason"),
    [(-1_001, True, "clock set back"), (1_001, False, "clock step"), (-2 * DAY_MS, True, "clock set back")],
)
async def test_a_step_says_both_times_until_it_is_believed(step_ms, is_back, reason):
    clock = FakeClock("2026-11-23T09:00:00Z")
    watch = ClockWatch(clock)
    await clock.advance(10)
    expected = clock.wall()
    clock.step_wall(step_ms)
    for _ in range(2):
        jump = watch.look()
        assert (jump.expected, jump.now, jump.slept_ms) == (expected, expected + step_ms, 0)
        assert (jump.is_back, jump.is_resume, jump.reason) == (is_back, False, reason)
    watch.believe()
    assert watch.jump() is None


async def test_a_step_between_the_look_and_the_belief_is_not_lost():
    clock = FakeClock()
    watch = ClockWatch(clock)
    watch.look()
    clock.step_wall(-5_000)
    watch.believe()
    assert watch.jump().is_back


async def test_a_machine_that_slept_is_resumed_whatever_its_clock_was_set_to_meanwhile():
    clock = FakeClock()
    watch = ClockWatch(clock)
    await clock.suspend(3600)
    assert watch.look().reason == "resume from suspend"
    watch.believe()
    await clock.suspend(3600)
    clock.step_wall(-7_200_000)
    jump = watch.look()
    assert (jump.is_back, jump.is_resume) == (True, False)
    watch.believe()
    await clock.suspend(3600)
    clock.step_wall(-3_600_000)  # as if no time had passed
    assert watch.look() is not None


@pytest.mark.parametrize(
    ("clock", "now", "watermark", "is_doubted"),
    [
        (FakeClock, "2026-05-31T23:59:59Z", None, True),
        (FakeClock, "1970-01-01T00:10:00Z", "2026-11-23T09:00:00Z", True),
        (FakeClock, "2026-06-01T00:00:00Z", None, False),
        (
            FakeClock,
            "2036-11-23T09:00:00Z",
            "2026-11-23T09:00:00Z",
            False,
        ),  # off for years: it is synchronised
        (Unsynchronised, "2026-11-24T09:00:00Z", "2026-11-23T09:00:00Z", False),
        (Unsynchronised, "2026-11-24T09:00:01Z", "2026-11-23T09:00:00Z", True),
        (Unsynchronised, "2036-11-24T09:00:01Z", None, False),  # a new store knows no better
    ],
)
def test_what_is_not_believed(clock, now, watermark, is_doubted):
    clock = clock(now)
    known = None if watermark is None else parse_rfc3339(watermark)
    assert (ClockWatch(clock, released_at=RELEASED).doubt(known) is not None) is is_doubted
    assert ClockWatch(clock, released_at=RELEASED, is_trusted=True).doubt(known) is None
