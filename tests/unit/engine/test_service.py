"""What can be asked of a running engine."""

from __future__ import annotations

import pytest

from cronally.domain.model import SkipReason, State
from cronally.engine.measures import Measures
from cronally.engine.records import JournalFilter
from cronally.errors import ScheduleNotFound
from cronally.instants import parse_rfc3339
from support.recording_publisher import TOPIC_GONE, Answer
from support.rig import running_engine


def at(time):
    return parse_rfc3339(f"2026-11-23T{time}Z")


async def test_lists_are_paged_by_name():
    async with running_engine() as rig:
        for name in ("d", "b", "a", "c", "e"):
            await rig.add(name, "0 9 * * *")
        names, after = [], None
        pages = 0
        while True:
            views, after = await rig.service.list(after=after, limit=2)
            names += [view.stored.spec.name for view in views]
            pages += 1
            if after is None:
                break
        assert (names, pages) == (list("abcde"), 3)
        assert [view.next_fires for view in views] == [(at("09:00:00"),)]


async def test_next_names_the_slots_of_the_rule_pause_or_not():
    async with running_engine() as rig:
        await rig.add("job", "* * * * *", ends="2026-11-23T09:02:00Z", paused=True)
        expected = [at("09:00:00"), at("09:01:00"), at("09:02:00")]
        assert list(await rig.service.next("job")) == expected
        assert list(await rig.service.next("job", after=at("09:00:00"), count=1)) == expected[1:2]
        assert list(await rig.service.next("job", after=at("09:02:00"))) == []


async def test_a_view_shows_the_next_three_fires_and_the_warnings_of_the_rule():
    async with running_engine() as rig:
        await rig.add("job", "0 9 */2 * mon")
        view = await rig.service.get("job")
        assert len(view.next_fires) == 3
        assert view.warnings
        await rig.add("plain", "0 9 * * *")
        assert (await rig.service.get("plain", fires=1)).warnings == ()


async def test_history_is_filtered_and_answers_for_an_open_pause_as_of_now():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        await rig.add("idle", "0 12 * * *")
        await rig.clock.advance_to(at("09:00:05"))
        await rig.service.pause("job", by="t")
        await rig.clock.advance_to(at("09:00:35"))
        published = await rig.service.history(JournalFilter(states=frozenset({State.PUBLISHED})))
        assert len(published) == 3
        [paused] = await rig.service.history(JournalFilter(reasons=frozenset({SkipReason.PAUSED})))
        assert (paused.entry.count, paused.entry.last_fire_time) == (3, at("09:00:30"))
        assert await rig.service.history(JournalFilter(schedule="idle")) == []
        reaching = await rig.service.history(JournalFilter(schedule="job", since=at("09:00:35")))
        assert reaching == [paused]
        assert await rig.service.history(JournalFilter(schedule="job", until=at("08:00:00"))) == []
        await rig.service.remove("job", by="t")
        assert len(await rig.service.history(JournalFilter(schedule="job"))) == 4
        with pytest.raises(ScheduleNotFound):
            await rig.service.history(JournalFilter(schedule="never"))


async def test_status_counts_what_there_is():
    async with running_engine(
        script=lambda e, _n: TOPIC_GONE if e.name == "bad" else Answer(delay_s=0.5)
    ) as rig:
        for name in ("good", "bad", "resting"):
            await rig.add(name, "0 9 * * *")
        await rig.service.pause("resting", by="t")
        status = await rig.reporting.status()
        assert (status.schedules, status.paused, status.failing) == (3, 1, 0)
        assert (status.lateness_us, status.next_fire) == (None, at("09:00:00"))
        await rig.clock.advance_to(at("09:00:00"))
        await rig.clock.advance(0.2)
        assert (await rig.reporting.status()).in_flight == 1
        await rig.clock.advance(2)
        status = await rig.reporting.status()
        assert (status.failing, status.in_flight, status.is_ready) == (1, 0, True)
        assert status.journal[State.PUBLISHED] == status.journal[State.PENDING] == 1
        assert status.lateness_us == {"p50": 0, "p99": 0, "max": 0, "count": 1}
        assert status.now == rig.clock.wall()
        assert status.watermark <= status.now
        rig.reporting.set_ready("stopping")
        assert (await rig.reporting.status()).not_ready_because == "stopping"


def test_lateness_is_summed_up_over_first_attempts_of_scheduled_fires():
    from cronally.domain.model import JournalEntry, Kind

    def entry(late_us, **keys):
        known = {
            "schedule_id": 1,
            "fire_time": 0,
            "revision_id": 1,
            "due_time": 0,
            "state": State.PUBLISHED,
            "attempts": 1,
        }
        return JournalEntry(**known | {"lateness_us": late_us} | keys)

    lateness = Measures()
    lateness.committed(
        [entry(9999, attempts=2), entry(9999, kind=Kind.MANUAL), entry(9999, state=State.EXPIRED, count=7)]
    )
    lateness.committed([entry(9999, state=State.PENDING)])
    assert lateness.ended == {State.PUBLISHED: 2, State.EXPIRED: 7}
    assert lateness.lateness_us() is None
    assert sum(count for _, count in lateness.lateness_histogram()) == 0
    lateness.committed([entry(late_us) for late_us in range(1, 101)])
    assert lateness.lateness_us() == {"p50": 50, "p99": 100, "max": 100, "count": 100}
    lateness.committed([entry(101), entry(250), entry(251), entry(10_000_000), entry(10_000_001)])
    histogram = dict(lateness.lateness_histogram())
    assert {bound: count for bound, count in histogram.items() if count} == {
        100: 100,
        250: 2,
        500: 1,
        10_000_000: 1,
        None: 1,
    }
