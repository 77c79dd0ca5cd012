"""What fires, when, and what the journal says of it."""

from __future__ import annotations

import json

import pytest

from cronally.domain.model import State
from support.fake_clock import FakeClock
from support.recording_publisher import PUBLISHED, REJECTED, THROTTLED, TOPIC_GONE
from support.rig import running_engine


async def test_a_crontab_fires_at_its_instant_and_is_journalled():
    async with running_engine() as rig:
        await rig.add("nightly", "0 9 * * *")
        await rig.clock.advance_to("2026-11-23T08:59:59.999Z")
        assert rig.sent == []
        await rig.clock.advance(0.001)
        assert rig.sent == ["nightly@2026-11-23T09:00:00Z"]
        await rig.clock.advance(1)
        entry = (await rig.journal())["nightly@2026-11-23T09:00:00Z"]
        assert (entry.state, entry.attempts, entry.lateness_us) == (State.PUBLISHED, 1, 0)


async def test_the_message_names_the_fire():
    async with running_engine() as rig:
        await rig.add("nightly", "0 9 * * *")
        await rig.clock.advance(31)
        entry = rig.publisher.accepted[0].entry
        assert json.loads(entry.message) == {
            "schedule": "nightly",
            "fire_time": "2026-11-23T09:00:00Z",
            "fire_id": "nightly@2026-11-23T09:00:00Z",
        }


async def test_every_second_fires_each_second_once():
    async with running_engine() as rig:
        await rig.add("tick", "@every 1s")
        await rig.clock.advance(10.5)
        assert rig.sent == [f"tick@2026-11-23T08:59:{s}Z" for s in range(31, 41)]


async def test_an_instant_fires_once():
    async with running_engine() as rig:
        await rig.add("once", "@at 2026-11-23T09:00:05Z")
        await rig.clock.advance(3600)
        assert rig.sent == ["once@2026-11-23T09:00:05Z"]
        assert await rig.states() == {"once@2026-11-23T09:00:05Z": State.PUBLISHED}


async def test_an_instant_within_the_horizon_fires_on_time():
    async with running_engine() as rig:
        await rig.add("once", "@at 2026-11-23T08:59:31Z")
        await rig.clock.advance_to("2026-11-23T08:59:31Z")
        assert rig.sent == ["once@2026-11-23T08:59:31Z"]


async def test_a_schedule_added_within_the_horizon_of_a_planned_neighbour_fires():
    async with running_engine() as rig:
        await rig.add("first", "0 9 * * *")
        await rig.clock.advance_to("2026-11-23T08:59:59Z")
        await rig.add("second", "0 9 * * *")
        await rig.clock.advance(1)
        assert sorted(rig.sent) == ["first@2026-11-23T09:00:00Z", "second@2026-11-23T09:00:00Z"]


async def test_a_thousand_due_together_all_leave_in_full_batches():
    async with running_engine() as rig:
        for number in range(1000):
            await rig.service.put(
                f"job-{number}",
                {"when": "0 9 * * *", "topic": "arn:aws:sns:us-east-1:123456789012:t"},
                by="t",
            )
        await rig.clock.advance_to("2026-11-23T09:00:01Z")
        assert len(set(rig.sent)) == len(rig.sent) == 1000
        assert {arrival.released_us for arrival in rig.publisher.arrivals} == {1795424400_000_000}
        assert len({arrival.batch for arrival in rig.publisher.arrivals}) == 100


@pytest.mark.parametrize(("answer", "state"), [(REJECTED, State.REJECTED), (PUBLISHED, State.PUBLISHED)])
async def test_a_final_answer_is_journalled(answer, state):
    async with running_engine(script=lambda _e, _a: answer) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance(60)
        assert await rig.states() == {"job@2026-11-23T09:00:00Z": state}


async def test_a_throttled_fire_is_tried_again_with_the_same_id():
    async with running_engine(script=lambda _e, n: THROTTLED if n < 4 else PUBLISHED) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance_to("2026-11-23T09:00:20Z")
        assert rig.sent == ["job@2026-11-23T09:00:00Z"] * 4
        entry = (await rig.journal())["job@2026-11-23T09:00:00Z"]
        assert (entry.state, entry.attempts) == (State.PUBLISHED, 4)


async def test_a_refusing_topic_flags_the_schedule_until_it_accepts():
    answers = {1: TOPIC_GONE}
    async with running_engine(script=lambda _e, n: answers.get(n, PUBLISHED)) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance_to("2026-11-23T09:00:01Z")
        assert "NotFound" in (await rig.service.get("job")).stored.error
        assert await rig.states() == {"job@2026-11-23T09:00:00Z": State.PENDING}
        await rig.clock.advance(298)
        assert len(rig.sent) == 1
        await rig.clock.advance(5)
        assert len(rig.sent) == 2
        assert (await rig.service.get("job")).stored.error is None


async def test_a_fire_expires_at_its_deadline():
    async with running_engine(script=lambda _e, _n: THROTTLED) as rig:
        await rig.add("job", "0 9 * * *", deadline="30s")
        await rig.clock.advance_to("2026-11-23T09:05:00Z")
        entry = (await rig.journal())["job@2026-11-23T09:00:00Z"]
        assert entry.state is State.EXPIRED
        assert max(a.released_us for a in rig.publisher.arrivals) <= 1795424430_000_000


async def test_spread_moves_the_due_time_and_not_the_name():
    async with running_engine() as rig:
        await rig.add("job", "0 9 * * *", spread="10m")
        await rig.clock.advance(700)
        assert rig.sent == ["job@2026-11-23T09:00:00Z"]
        entry = (await rig.journal())["job@2026-11-23T09:00:00Z"]
        assert 0 < entry.due_time - entry.fire_time < 600_000
        assert entry.lateness_us == 0


async def test_starts_and_ends_are_inclusive():
    async with running_engine(clock=FakeClock("2026-11-23T08:58:30Z")) as rig:
        await rig.add("job", "* * * * *", starts="2026-11-23T09:00:00Z", ends="2026-11-23T09:02:00Z")
        await rig.clock.advance(600)
        assert rig.sent == [f"job@2026-11-23T09:0{m}:00Z" for m in range(3)]
