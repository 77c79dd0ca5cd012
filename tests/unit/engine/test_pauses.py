"""A pause is one row with an exact count, and ends on time."""

from __future__ import annotations

import pytest

from cronally.domain.model import SkipReason, State
from cronally.engine.records import JournalFilter
from cronally.errors import FieldError
from cronally.instants import parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.memory_store import MemoryStore
from support.rig import FIFO_TOPIC, TOPIC, running_engine


def at(time):
    return parse_rfc3339(f"2026-11-23T{time}Z")


async def paused_rows(rig, name="job"):
    """The (first, last, count, is open) of the pauses of a schedule, oldest first, on the clock."""
    rows = await rig.service.history(JournalFilter(schedule=name, limit=1000))
    return [
        (clock_time(e.fire_time), clock_time(e.last_fire_time or e.fire_time), e.count, e.is_open)
        for e in (row.entry for row in reversed(rows))
        if e.reason is SkipReason.PAUSED
    ]


def clock_time(instant):
    seconds = instant // 1000 % 86_400
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def seconds_of(fire_ids):
    return [fire_id[-9:-1] for fire_id in fire_ids]


async def test_a_pause_is_one_row_with_the_exact_count():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        await rig.clock.advance(15)
        await rig.service.pause("job", by="t", note="night")
        await rig.clock.advance(100)
        assert await paused_rows(rig) == [("08:59:50", "09:01:20", 10, True)]
        await rig.service.resume("job", by="t")
        await rig.clock.advance(10)
        assert await paused_rows(rig) == [("08:59:50", "09:01:20", 10, False)]
        assert seconds_of(rig.sent) == ["08:59:40", "09:01:30"]


async def test_a_pause_in_which_no_slot_came_leaves_no_row():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        await rig.service.pause("job", by="t")
        await rig.clock.advance(5)
        assert await paused_rows(rig) == [("08:59:40", "08:59:40", 0, True)]
        await rig.service.resume("job", by="t")
        await rig.clock.advance(6)
        assert await rig.states() == {"job@2026-11-23T08:59:40Z": State.PUBLISHED}


async def test_a_pause_and_a_resume_at_the_instants_of_slots():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        await rig.clock.advance_to(at("08:59:40"))
        await rig.service.pause("job", by="t")
        await rig.clock.advance_to(at("09:00:00"))
        await rig.service.resume("job", by="t")
        await rig.clock.advance_to(at("09:00:11"))
        assert await paused_rows(rig) == [("08:59:50", "09:00:00", 2, False)]
        assert seconds_of(rig.sent) == ["08:59:40", "09:00:10"]


@pytest.mark.parametrize("until", ["09:00:00", "09:00:05", "08:59:31", "08:59:30.500"])
@pytest.mark.parametrize("when", ["@every 10s", "@at 2026-11-23T09:00:00Z", "0 9 * * *"])
@pytest.mark.parametrize("topic", [TOPIC, FIFO_TOPIC])
async def test_the_slot_at_the_end_of_a_pause_fires_exactly_on_time(when, until, topic):
    async with running_engine() as rig:
        await rig.add("job", when, topic=topic)
        await rig.service.pause("job", by="t", until=at(until))
        await rig.clock.advance_to(at("09:00:40"))
        all_slots = (
            [at("08:59:30") + 10_000 * n for n in range(1, 8)] if "every" in when else [at("09:00:00")]
        )
        assert [a.released_us // 1000 for a in rig.publisher.arrivals] == [
            s for s in all_slots if s >= at(until)
        ]
        skipped = [slot for slot in all_slots if slot < at(until)]
        rows = await paused_rows(rig)
        assert [row[2:] for row in rows] == ([(len(skipped), False)] if skipped else [])
        stored = (await rig.service.get("job")).stored
        assert (stored.pause, stored.effective_from) == (None, max(at(until) - 1, at("08:59:30")))


async def test_a_pause_is_prolonged_within_the_horizon_of_its_end():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        await rig.service.pause("job", by="t", until=at("09:00:00"))
        await rig.clock.advance_to(at("08:59:59"))
        await rig.service.pause("job", by="t", until=at("09:00:20"), note="longer")
        await rig.clock.advance_to(at("09:00:35"))
        assert await paused_rows(rig) == [("08:59:40", "09:00:10", 4, False)]
        assert seconds_of(rig.sent) == ["09:00:20", "09:00:30"]


async def test_a_resume_within_the_horizon_of_the_end_of_a_pause():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        await rig.service.pause("job", by="t", until=at("09:00:00"))
        await rig.clock.advance_to(at("08:59:59"))
        await rig.service.resume("job", by="t")
        await rig.clock.advance_to(at("09:00:15"))
        assert await paused_rows(rig) == [("08:59:40", "08:59:50", 2, False)]
        assert seconds_of(rig.sent) == ["09:00:00", "09:00:10"]


async def test_a_change_that_fails_within_the_horizon_of_the_end_of_a_pause_leaves_the_end():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 10s")
        await rig.service.pause("job", by="t", until=at("09:00:00"))
        await rig.clock.advance_to(at("08:59:59"))
        store.fail("change")
        removal = rig.start(rig.service.remove("job", by="t"))
        await rig.clock.settle()
        assert removal.exception() is not None
        store.fail()
        await rig.clock.advance_to(at("09:00:15"))
        assert seconds_of(rig.sent) == ["09:00:00", "09:00:10"]
        assert await paused_rows(rig) == [("08:59:40", "08:59:50", 2, False)]


async def test_an_edit_of_a_paused_schedule_closes_its_row_and_opens_another():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        await rig.service.pause("job", by="t", note="n")
        await rig.clock.advance_to(at("09:00:00"))
        await rig.set("job", when="@every 5s")
        assert (await rig.service.get("job")).stored.pause.note == "n"
        await rig.clock.advance_to(at("09:00:12"))
        assert await paused_rows(rig) == [
            ("08:59:40", "09:00:00", 3, False),
            ("09:00:05", "09:00:10", 2, True),
        ]
        await rig.service.resume("job", by="t")
        await rig.clock.advance_to(at("09:00:20"))
        assert seconds_of(rig.sent) == ["09:00:15", "09:00:20"]


async def test_a_removal_closes_the_row_of_the_pause():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        await rig.service.pause("job", by="t", until=at("10:00:00"))
        await rig.clock.advance_to(at("09:00:00"))
        await rig.service.remove("job", by="t")
        await rig.clock.advance(3700)
        assert await paused_rows(rig) == [("08:59:40", "09:00:00", 3, False)]
        assert rig.sent == []


async def test_a_schedule_created_paused_and_until():
    async with running_engine() as rig:
        await rig.add("a", "@every 10s", paused=True)
        await rig.add("b", "@every 10s", paused={"until": "2026-11-23T08:59:50Z", "note": "soon"})
        await rig.clock.advance_to(at("09:00:05"))
        assert seconds_of(rig.sent) == ["08:59:50", "09:00:00"]
        assert await paused_rows(rig, "a") == [("08:59:40", "09:00:00", 3, True)]
        assert await paused_rows(rig, "b") == [("08:59:40", "08:59:40", 1, False)]
        await rig.set("a", when="@every 10s", paused=False)
        await rig.clock.advance(6)
        assert sorted(rig.sent[2:]) == ["a@2026-11-23T09:00:10Z", "b@2026-11-23T09:00:10Z"]


async def test_a_document_whose_pause_is_over_says_nothing_of_a_pause():
    async with running_engine() as rig:
        over = {"until": "2026-11-23T08:00:00Z"}
        await rig.add("job", "@every 10s", paused=over)
        await rig.clock.advance(15)
        assert seconds_of(rig.sent) == ["08:59:40"]
        document = {"when": "@every 10s", "topic": TOPIC, "paused": over}
        assert (await rig.service.put("job", document, by="t")).outcome == "unchanged"


async def test_a_pause_that_would_end_in_the_past_is_refused():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        with pytest.raises(FieldError, match="past"):
            await rig.service.pause("job", by="t", until=rig.clock.wall())


async def test_a_paused_schedule_shows_its_first_slot_after_the_pause_or_none():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        view, remaining = await rig.service.pause("job", by="t", until=at("09:00:00"))
        assert (view.next_fires[0], remaining) == (at("09:00:00"), 0)
        view, _ = await rig.service.pause("job", by="t")
        assert view.next_fires == ()
        assert (await rig.service.resume("job", by="t")).next_fires[0] == at("08:59:40")
        assert (await rig.service.resume("job", by="t")).stored.pause is None


async def test_a_paused_instant_is_skipped_and_one_resumed_before_it_fires():
    async with running_engine() as rig:
        await rig.add("skipped", "@at 2026-11-23T08:59:40Z")
        await rig.add("resumed", "@at 2026-11-23T08:59:40Z")
        await rig.service.pause("skipped", by="t")
        await rig.service.pause("resumed", by="t")
        await rig.clock.advance_to(at("08:59:39"))
        await rig.service.resume("resumed", by="t")
        await rig.clock.advance(30)
        await rig.service.resume("skipped", by="t")
        await rig.clock.advance(30)
        assert rig.sent == ["resumed@2026-11-23T08:59:40Z"]
        assert await paused_rows(rig, "skipped") == [("08:59:40", "08:59:40", 1, False)]
        assert await paused_rows(rig, "resumed") == []


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("when", ["@every 10s", "@at 2026-11-23T09:00:00Z"])
async def test_a_pause_that_ended_while_nothing_ran_is_closed_and_its_slots_catch_up(when, crash):
    clock, store = FakeClock(), MemoryStore()
    async with running_engine(clock=clock, store=store, crash=crash) as rig:
        await rig.add("job", when)
        await rig.service.pause("job", by="t", until=at("09:00:00"))
    await clock.advance_to(at("09:01:05"))
    async with running_engine(clock=clock, store=store) as rig:
        await rig.clock.advance(2)
        if "every" in when:
            assert await paused_rows(rig) == [("08:59:40", "08:59:50", 2, False)]
            assert seconds_of(rig.sent) == ["09:00:50", "09:01:00"]
        else:
            assert await paused_rows(rig) == []
            assert seconds_of(rig.sent) == ["09:00:00"]
        await rig.clock.advance(2)
        assert (await rig.service.get("job")).stored.pause is None
        entries = await rig.journal()
        assert all(e.maybe_published is crash for e in entries.values() if e.reason is SkipReason.CATCH_UP)


async def test_a_missed_instant_whose_pause_ended_meanwhile_goes_by_its_catch_up_policy():
    clock, store = FakeClock(), MemoryStore()
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@at 2026-11-23T09:00:05Z", catch_up="skip")
        await rig.service.pause("job", by="t", until=at("09:00:00"))
    await clock.advance_to(at("09:01:05"))
    async with running_engine(clock=clock, store=store) as rig:
        await rig.clock.advance(2)
        assert rig.sent == []
        entry = (await rig.journal())["job@2026-11-23T09:00:05Z"]
        assert (entry.state, entry.reason) == (State.SKIPPED, SkipReason.CATCH_UP)


async def test_an_instant_after_a_pause_that_ended_while_nothing_ran_fires_on_time():
    clock, store = FakeClock(), MemoryStore()
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@at 2026-11-23T09:05:00Z")
        await rig.service.pause("job", by="t", until=at("09:00:00"))
    await clock.advance_to(at("09:01:00"))
    async with running_engine(clock=clock, store=store) as rig:
        await rig.clock.advance_to(at("09:06:00"))
        assert [a.released_us // 1000 for a in rig.publisher.arrivals] == [at("09:05:00")]


async def test_the_end_of_a_pause_that_the_store_refuses_to_record_is_recorded_later():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 10s")
        await rig.service.pause("job", by="t", until=at("09:00:00"))
        store.fail("change")
        await rig.clock.advance_to(at("09:00:15"))
        assert seconds_of(rig.sent) == ["09:00:00", "09:00:10"]
        assert await paused_rows(rig) == [("08:59:40", "08:59:50", 2, True)]
        store.fail()
        await rig.clock.advance_to(at("09:00:18"))
        assert await paused_rows(rig) == [("08:59:40", "08:59:50", 2, False)]
        assert (await rig.service.get("job")).stored.pause is None


async def test_an_instant_at_the_end_of_a_pause_fires_once_though_the_end_is_recorded_late():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@at 2026-11-23T09:00:00Z")
        await rig.add("other", "@at 2026-11-23T09:00:10Z")
        await rig.service.pause("job", by="t", until=at("09:00:00"))
        store.fail("change")
        await rig.clock.advance_to(at("09:00:05"))
        store.fail()
        await rig.clock.advance_to(at("09:00:40"))
        assert seconds_of(rig.sent) == ["09:00:00", "09:00:10"]


async def test_a_schedule_removed_while_its_pause_ends_is_not_resumed():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 10s")
        await rig.service.pause("job", by="t", until=at("08:59:50"))
        await rig.clock.advance_to(at("08:59:49"))
        await rig.service.remove("job", by="t")
        await rig.clock.advance_to(at("09:00:15"))
        assert rig.sent == []


async def test_a_pause_that_ends_while_planning_stalls_is_recoverys():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        await rig.service.pause("job", by="t", until=at("08:59:50"))
        await rig.clock.settle()
        await rig.clock.suspend(70.5)
        await rig.clock.advance(2)
        assert seconds_of(rig.sent) == ["09:00:30", "09:00:40"]
        states = await rig.journal()
        assert states["job@2026-11-23T08:59:50Z"].count == 4


async def test_a_pause_without_a_slot_leaves_the_row_to_the_slot_after_it():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.service.pause("job", by="t", until=at("09:00:00"))
        store.fail("change")
        await rig.clock.advance_to(at("09:00:05"))
        store.fail()
        await rig.clock.advance(5)
        assert await rig.states() == {"job@2026-11-23T09:00:00Z": State.PUBLISHED}


async def test_a_pause_made_shorter_or_longer_has_the_row_it_needs():
    async with running_engine() as rig:
        for name in ("shorter", "longer"):
            await rig.add(name, "0 9 * * *")
        await rig.service.pause("shorter", by="t", until=at("09:30:00"))
        await rig.service.pause("shorter", by="t", until=at("08:59:50"))
        await rig.service.pause("longer", by="t", until=at("08:59:50"))
        await rig.service.pause("longer", by="t", until=at("09:30:00"))
        await rig.clock.advance_to(at("09:31:00"))
        assert rig.sent == ["shorter@2026-11-23T09:00:00Z"]
        assert await paused_rows(rig, "shorter") == []
        assert await paused_rows(rig, "longer") == [("09:00:00", "09:00:00", 1, False)]


async def test_pausing_again_with_the_same_end_keeps_the_row():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        await rig.service.pause("job", by="t")
        since = (await rig.service.get("job")).stored.pause.since
        await rig.clock.advance(20)
        await rig.service.pause("job", by="t", note="again")
        stored = (await rig.service.get("job")).stored
        assert (stored.pause.since, stored.pause.note, stored.revision) == (since, "again", 1)
        await rig.clock.advance(10)
        await rig.service.resume("job", by="t")
        assert await paused_rows(rig) == [("08:59:40", "09:00:00", 3, False)]


async def test_bounds_limit_what_a_pause_counts():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s", ends="2026-11-23T09:00:00Z")
        await rig.add("over", "@every 10s", ends="2026-11-23T08:00:00Z")
        await rig.service.pause("job", by="t")
        await rig.service.pause("over", by="t")
        await rig.clock.advance(600)
        await rig.service.resume("job", by="t")
        await rig.service.resume("over", by="t")
        assert await paused_rows(rig) == [("08:59:40", "09:00:00", 3, False)]
        assert await paused_rows(rig, "over") == []
        assert rig.sent == []
