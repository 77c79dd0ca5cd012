"""What a live view is told."""

from __future__ import annotations

import pytest

from cronally.domain.model import State
from cronally.instants import format_utc, parse_rfc3339
from support.recording_publisher import PUBLISHED, THROTTLED
from support.rig import TOPIC, running_engine


async def coming(rig, most=20):
    overview = await rig.reporting.overview(most)
    return [(one.label.name, format_utc(one.due_time)[5:-1]) for one in overview.coming]


async def test_the_next_slot_of_each_schedule_comes_by_when_it_is_due():
    async with running_engine() as rig:  # it is 2026-11-23T08:59:30Z
        await rig.add("daily", "0 9 * * *")
        await rig.add("often", "@every 20s")
        await rig.add("spread", "0 9 * * *", spread="1h")
        await rig.add("once", "@at 2026-11-23T09:30:00")
        await rig.add("later", "@every 20s", starts="2026-11-23T09:10:00Z")
        await rig.add("over", "@every 20s", ends="2026-11-23T08:59:35Z")
        await rig.add("paused", "* * * * *", paused=True)
        await rig.add("west", "0 9 * * *", tz="Europe/Paris")
        spread = rig.engine.core.timetable.longest_offset_ms()
        expected = [
            ("often", "11-23T08:59:40"),
            ("daily", "11-23T09:00:00"),
            ("later", "11-23T09:10:00"),
            ("once", "11-23T09:30:00"),
            ("spread", format_utc(parse_rfc3339("2026-11-23T09:00:00Z") + spread)[5:-1]),
            ("west", "11-24T08:00:00"),
        ]
        expected.sort(key=lambda row: row[1])
        assert await coming(rig) == expected
        for most in range(6):
            assert await coming(rig, most) == expected[:most]
        [first, *_] = (await rig.reporting.overview(20)).coming
        assert (first.label.topic, first.label.tz) == (TOPIC, "UTC")


async def test_of_a_crowd_as_many_come_as_are_asked_for():
    async with running_engine() as rig:
        await rig.apply(
            *({"name": f"s{n:03}", "when": "0 9 * * *", "topic": TOPIC} for n in range(300)),
            {"name": "sooner", "when": "@at 2026-11-23T08:59:50", "topic": TOPIC},
        )
        found = await coming(rig, 5)
        assert found == [
            ("sooner", "11-23T08:59:50"),
            *((f"s{n:03}", "11-23T09:00:00") for n in range(4)),
        ]


async def test_what_is_planned_is_not_to_come_any_more():
    async with running_engine() as rig:
        await rig.add("daily", "0 9 * * *")
        await rig.clock.advance_to(parse_rfc3339("2026-11-23T08:59:59Z"))
        assert await coming(rig) == [("daily", "11-24T09:00:00")]


async def test_it_counts_what_waits_and_what_has_ended():
    async with running_engine(
        script=lambda entry, _: THROTTLED if "bad" in entry.fire_id else PUBLISHED
    ) as rig:
        before = await rig.reporting.overview(0)
        assert (before.schedules, before.pending, before.oldest_pending_due) == (0, 0, None)
        assert (before.ended, before.lateness_us) == ({}, None)
        await rig.add("bad", "0 9 * * *")
        await rig.add("good", "0 9 * * *")
        await rig.add("resting", "0 9 * * *", paused=True)
        nine = parse_rfc3339("2026-11-23T09:00:00Z")
        await rig.clock.advance_to(nine)
        await rig.clock.advance(0.2)
        overview = await rig.reporting.overview(0)
        assert overview.ended == {State.PUBLISHED: 1}
        assert (overview.schedules, overview.paused, overview.failing) == (3, 1, 1)
        assert (overview.pending, overview.oldest_pending_due) == (1, nine)
        assert overview.now == rig.clock.wall()
        assert overview.watermark <= overview.now
        assert overview.lateness_us["count"] == 1


@pytest.mark.parametrize("because", [None, "it is stopping"])
async def test_it_says_whether_the_daemon_is_ready(because):
    async with running_engine() as rig:
        rig.reporting.set_ready(because)
        assert (await rig.reporting.overview(0)).not_ready_because == because
