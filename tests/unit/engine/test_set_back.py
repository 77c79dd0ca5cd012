"""A wall clock that is set back: nothing twice, nothing early, nothing silent (design §9)."""

from __future__ import annotations

import pytest

from cronally.domain.model import SkipReason, State
from cronally.engine.clock_watch import ClockWatch
from cronally.engine.hooks import Hooks
from cronally.errors import NotReady
from cronally.instants import UtcMs, format_utc, parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.memory_store import MemoryStore
from support.recording_publisher import LOST_ACKNOWLEDGEMENT, PUBLISHED, THROTTLED, Answer
from support.rig import FIFO_TOPIC, running_engine

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def at(time):
    return parse_rfc3339(f"2026-11-23T{time}Z")


def times(ids):
    return [id_.partition("T")[2].partition("Z")[0] for id_ in ids]


def slots(first, last, every_s=10):
    return [format_utc(UtcMs(t))[11:19] for t in range(at(first), at(last) + 1, every_s * 1000)]


def assert_none_early(rig):
    early = [a.entry.fire_id for a in rig.publisher.arrivals if a.released_us < a.entry.fire.due_time * 1000]
    assert early == []


async def settled_slots(rig, name):
    """Every slot of the day that the journal has an entry for, each once."""
    found = []
    for entry in (await rig.journal(name)).values():
        last = entry.last_fire_time or entry.fire_time
        found += [
            text[11:19]
            for t in range(entry.fire_time, last + 1, 10_000)
            if "11-23" in (text := format_utc(UtcMs(t)))
        ]
    return sorted(found)


async def test_what_has_fired_does_not_fire_again_and_what_has_not_fires_on_time():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        await rig.clock.advance_to(at("09:00:05"))
        rig.clock.step_wall(-20_000)
        await rig.clock.advance_to(at("09:00:35"))
        assert times(rig.sent) == slots("08:59:40", "09:00:30")
        assert {a.released_us - a.entry.fire.due_time * 1000 for a in rig.publisher.arrivals} == {0}


async def test_a_clock_two_days_ahead_for_ten_seconds_and_back_leaves_no_job_silent():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        await rig.clock.advance_to(at("09:00:05"))
        rig.clock.step_wall(2 * DAY_MS)
        await rig.clock.advance(10)
        ahead = [id_ for id_ in rig.sent if "11-25" in id_]
        assert times(ahead) == ["08:59:50", "09:00:00", "09:00:10"]
        rig.clock.step_wall(-2 * DAY_MS)
        await rig.clock.advance_to(at("09:01:05"))
        today = [id_ for id_ in rig.sent if "11-23" in id_]
        assert times(today) == slots("08:59:40", "09:01:00")
        assert_none_early(rig)
        rows = await rig.journal("job")
        assert not [entry for entry in rows.values() if entry.state is State.SKIPPED]


async def test_slots_that_were_sent_ahead_are_not_sent_when_their_time_comes():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s", catch_up="all")
        await rig.clock.advance_to(at("09:00:05"))
        rig.clock.step_wall(60_000)
        await rig.clock.advance(10)
        assert times(rig.sent)[-6:] == slots("09:00:20", "09:01:10")
        rig.clock.step_wall(-60_000)
        await rig.clock.advance_to(at("09:01:35"))
        assert sorted(times(rig.sent)) == slots("08:59:40", "09:01:30")


async def test_a_fire_in_flight_across_the_step_is_sent_once():
    async with running_engine(script=lambda _e, _n: Answer(delay_s=5)) as rig:
        await rig.add("job", "@every 10s")
        await rig.clock.advance_to(at("09:00:01"))
        rig.clock.step_wall(-4_000)
        await rig.clock.advance_to(at("09:00:15"))
        assert sorted(times(rig.sent)) == slots("08:59:40", "09:00:10")


@pytest.mark.parametrize("topic_key", [{}, {"topic": FIFO_TOPIC}])
async def test_a_fire_that_failed_before_the_step_is_tried_again_when_it_is_due_and_not_before(topic_key):
    answers = {"now": THROTTLED}
    async with running_engine(script=lambda _e, _n: answers["now"]) as rig:
        await rig.add("job", "@every 10s", catch_up="all", **topic_key)
        await rig.clock.advance_to(at("09:00:05"))
        answers["now"] = PUBLISHED
        rig.clock.step_wall(-20_000)
        await rig.clock.advance_to(at("08:59:49.999"))
        assert times(rig.accepted) == ["08:59:40"]
        await rig.clock.advance_to(at("09:00:25"))
        assert sorted(times(rig.accepted)) == slots("08:59:40", "09:00:20")
        again = [a for a in rig.publisher.arrivals if a.answer is PUBLISHED]
        assert all(a.released_us >= a.entry.fire.due_time * 1000 for a in again)


async def test_a_manual_fire_that_failed_before_the_step_is_tried_again_at_once():
    answers = {"now": THROTTLED}
    async with running_engine(script=lambda _e, _n: answers["now"]) as rig:
        await rig.add("job", "0 0 1 1 *")
        rig.clock.step_wall(DAY_MS)
        await rig.clock.advance(2)
        await rig.service.run("job", by="t")
        await rig.clock.advance(1)
        answers["now"] = PUBLISHED
        rig.clock.step_wall(-DAY_MS)
        await rig.clock.advance(2)
        assert len(rig.accepted) == 1


async def test_a_schedule_made_while_the_clock_was_ahead_fires_from_now_on():
    async with running_engine() as rig:
        rig.clock.step_wall(DAY_MS)
        await rig.clock.advance(2)
        await rig.add("job", "@every 10s")
        rig.clock.step_wall(-DAY_MS)
        await rig.clock.advance_to(at("09:00:05"))
        assert times(rig.sent) == slots("08:59:40", "09:00:00")


async def test_a_schedule_changed_while_the_clock_was_ahead_has_its_new_rule_from_now_on():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        rig.clock.step_wall(DAY_MS)
        await rig.clock.advance(2)
        await rig.set("job", when="@every 15s")
        rig.clock.step_wall(-DAY_MS)
        await rig.clock.advance_to(at("09:00:05"))
        assert times(id_ for id_ in rig.sent if "11-23" in id_) == ["08:59:45", "09:00:00"]


async def test_a_schedule_paused_while_the_clock_was_ahead_stays_paused_from_now_on():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s", catch_up="all")
        await rig.clock.advance_to(at("08:59:45"))
        rig.clock.step_wall(60_000)
        await rig.clock.advance_to(at("09:00:55"))
        await rig.service.pause("job", by="t")
        rig.clock.step_wall(-60_000)
        await rig.clock.advance_to(at("09:01:45"))
        await rig.service.resume("job", by="t")
        await rig.clock.advance_to(at("09:02:05"))
        assert sorted(times(rig.sent)) == [*slots("08:59:40", "09:00:50"), "09:01:50", "09:02:00"]
        assert await settled_slots(rig, "job") == slots("08:59:40", "09:02:00")


async def test_a_pause_in_time_that_comes_again_has_an_entry_for_every_slot_that_has_none():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        await rig.clock.advance_to(at("08:59:45"))
        rig.clock.step_wall(60_000)
        await rig.clock.advance_to(
            at("09:00:55")
        )  # 09:00:30 and :40 are sent late, :50 on time, the others skipped
        rig.clock.step_wall(-60_000)
        await rig.clock.advance_to(at("09:00:05"))
        await rig.service.pause("job", by="t")
        await rig.clock.advance_to(at("09:01:15"))
        await rig.service.resume("job", by="t")
        await rig.clock.advance_to(at("09:01:25"))
        assert await settled_slots(rig, "job") == slots("08:59:40", "09:01:20")
        paused = [e for e in (await rig.journal("job")).values() if e.reason is SkipReason.PAUSED]
        assert sum(entry.count for entry in paused) == 4  # 09:00:10, :20, 09:01:00, :10


async def test_a_schedule_resumed_in_time_that_comes_again_is_not_silent():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        rig.clock.step_wall(DAY_MS)
        await rig.clock.advance(12)
        rig.clock.step_wall(-DAY_MS)
        await rig.clock.advance(2)
        await rig.service.pause("job", by="t")
        await rig.clock.advance_to(at("09:00:05"))
        await rig.service.resume("job", by="t")
        await rig.clock.advance_to(at("09:00:25"))
        assert times(id_ for id_ in rig.sent if "11-23" in id_)[-2:] == ["09:00:10", "09:00:20"]


async def test_a_daemon_that_starts_with_an_earlier_clock_than_it_stopped_with_fires_nothing_twice():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 10s")
        await clock.advance_to(at("09:00:05"))
        before = times(rig.sent)
    clock.step_wall(-30_000)
    async with running_engine(clock=clock, store=store) as rig:
        await clock.advance_to(at("08:59:50"))
    async with running_engine(clock=clock, store=store) as rig:  # started again in time that comes again
        await clock.advance_to(at("09:00:25"))
        assert before == slots("08:59:40", "09:00:00")
        assert times(rig.sent) == ["09:00:10", "09:00:20"]


async def test_what_a_daemon_that_crashed_may_have_sent_is_in_doubt_when_its_time_comes_again():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store, crash=True) as rig:
        await rig.add("job", "@every 10s", deadline="15s")
        await clock.advance_to(at("08:59:55"))
        store.fail("commit")
        await clock.advance_to(at("09:00:25"))
        sent = times(rig.accepted)
    assert sent == slots("08:59:40", "09:00:20")
    store.fail()
    clock.step_wall(-40_000)
    async with running_engine(clock=clock, store=store, script=lambda _entry, _attempt: THROTTLED) as rig:
        await clock.advance_to(at("09:00:05"))
    assert not (await store.inner.open()).was_clean  # the next one has to know, too
    async with running_engine(clock=clock, store=store, script=lambda _entry, _attempt: THROTTLED) as rig:
        await clock.advance_to(at("09:02:15"))
        unsent = [e for e in (await rig.journal("job")).values() if e.state in (State.SKIPPED, State.EXPIRED)]
        doubted = [format_utc(e.fire_time)[11:19] for e in unsent if e.maybe_published]
        assert doubted == slots(
            "09:00:00", "09:00:50"
        )  # up to a minute a daemon sends what it cannot put on record
        assert len(unsent) > len(doubted)


async def test_a_store_that_fails_meanwhile_is_tried_until_the_step_is_seen_to():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 10s")
        await clock.advance_to(at("08:59:45"))
        clock.step_wall(DAY_MS)
        await clock.advance(12)
        for name in ("decided_beyond", "amend", "changed_beyond", "set_back", "settled_between"):
            store.fail(name)
            clock.step_wall(-HOUR_MS)
            await clock.advance(3)
            store.fail()
            await clock.advance(1)
        clock.step_wall(5 * HOUR_MS - DAY_MS)
        await clock.advance_to(at("09:00:45"))
        assert times(id_ for id_ in rig.accepted if "11-23" in id_)[-2:] == ["09:00:30", "09:00:40"]
        assert await settled_slots(rig, "job") == slots("08:59:40", "09:00:40")
        assert len(set(rig.accepted)) == len(rig.accepted)


@pytest.mark.parametrize("crash", [False, True])
async def test_a_rule_of_the_false_future_follows_on_the_old_one_however_long_the_store_fails(crash):
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store, crash=crash) as rig:
        await rig.add("job", "@every 10s", catch_up="skip")
        await clock.advance_to(at("08:59:55"))
        clock.step_wall(HOUR_MS)
        await clock.advance(2)  # an entry for each slot of an hour, all of the old rule
        await rig.set("job", when="@every 20s")
        store.fail("changed_beyond")
        clock.step_wall(-HOUR_MS)
        await clock.advance_to(at("09:00:30"))
        if not crash:
            store.fail()
            await clock.advance_to(at("09:01:30"))
    store.fail()
    async with running_engine(clock=clock, store=store) as rig:
        await clock.advance_to(at("09:02:30"))
        later = [text for text in await settled_slots(rig, "job") if "09:00:00" <= text < "09:50:00"]
        assert later == slots("09:00:00", "09:02:20", every_s=20)


async def test_a_slot_that_was_to_leave_later_by_a_rule_of_the_false_future_is_settled_once():
    async with running_engine() as rig:
        await rig.add("job-1", "@every 10s", catch_up="all", spread="40s")
        await rig.clock.advance_to(at("09:01:05"))
        sent = set(rig.accepted)
        await rig.set("job-1", when="@every 10s", catch_up="all")
        rig.clock.step_wall(-60_000)
        await rig.clock.advance_to(at("09:02:05"))
        assert len(set(rig.accepted)) == len(rig.accepted)
        assert sent < set(rig.accepted)
        assert await settled_slots(rig, "job-1") == slots("08:59:40", "09:02:00")


@pytest.mark.parametrize("interrupted", ["not", "suspended", "crashed"])
async def test_a_slot_of_a_time_that_came_twice_is_settled_also_if_it_is_due_after_that_time(interrupted):
    clock, store = FakeClock(), MemoryStore()
    async with running_engine(clock=clock, store=store, crash=interrupted == "crashed") as rig:
        await rig.add("job-1", "@every 10s", catch_up="all")
        await clock.advance_to(at("09:00:05"))
        clock.step_wall(-20_000)
        await clock.advance_to(at("08:59:46"))
        await rig.set("job-1", when="@every 10s", catch_up="all", spread="60s")
        assert (await rig.service.get("job-1")).stored.spec.offset_ms() == 58_000
        # 08:59:50 and 09:00:00 were sent at once in the time before; by the new rule they are due after what was reached.
        await clock.advance_to(at("09:00:08"))
        if interrupted == "suspended":
            await clock.suspend(2)
        await clock.advance_to(at("09:00:12"))
        assert times(rig.accepted) == slots("08:59:40", "09:00:00")
    async with running_engine(clock=clock, store=store) as rig:
        await clock.advance_to(at("09:01:50"))
        assert times(rig.accepted) == slots("09:00:10", "09:00:50")
        assert await settled_slots(rig, "job-1") == slots("08:59:40", "09:00:50")


async def test_a_clock_set_back_while_recovery_waits_for_the_store_is_seen_to():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 10s", topic=FIFO_TOPIC, catch_up="latest")
        await clock.advance_to(at("09:00:05"))
        store.fail("at_between")  # when what was skipped is on record
        await clock.suspend(120)
        await clock.advance(3)
        clock.step_wall(-40_000)
        await clock.advance(15)  # past the end of the row of what was skipped
        store.fail()
        await clock.advance_to(at("09:02:55"))
        assert await settled_slots(rig, "job") == slots("08:59:40", "09:02:50")
        assert len(rig.accepted) == len(set(rig.accepted))
        assert_none_early(rig)


async def test_an_edit_just_after_the_step_waits_until_it_is_seen_to():
    clock = FakeClock()
    async with running_engine(clock=clock) as rig:
        await rig.add("job", "@every 1s")
        await clock.advance(2)
        clock.step_wall(-2 * DAY_MS)
        change = rig.start(rig.service.put("job", {"when": "@every 2s", "topic": FIFO_TOPIC}, by="t"))
        await clock.advance(3)
        assert change.done()
        assert len(rig.publisher.armed) < 20


async def test_both_times_are_told_and_idle_connections_dropped():
    class Heard(Hooks):
        def __init__(self):
            self.jumps = []

        def clock_jumped(self, jump):
            self.jumps.append(jump)

    heard = Heard()
    async with running_engine(hooks=heard) as rig:
        await rig.add("job", "* * * * *")
        await rig.clock.advance_to(at("08:59:45"))
        rig.clock.step_wall(-3_600_000)
        await rig.clock.advance(1)
        await rig.clock.suspend(7200)
        back, resumed = heard.jumps
        assert (back.is_back, format_utc(back.now)[11:16]) == (True, "07:59")
        assert abs(back.expected - back.now - 3_600_000) <= 1
        assert (resumed.is_resume, resumed.is_back) == (True, False)
        assert resumed.slept_ms == 7_200_000
        assert rig.publisher.dropped_connections == 2


class Unsynchronised(FakeClock):
    def is_synchronised(self):
        return False


async def test_a_clock_that_jumps_days_ahead_unsynchronised_is_not_believed_until_it_is_back():
    clock = Unsynchronised()
    watch = ClockWatch(clock, released_at=parse_rfc3339("2026-01-01T00:00:00Z"))
    async with running_engine(clock=clock, watch=watch) as rig:
        await rig.add("job", "@every 10s")
        await clock.advance_to(at("09:00:05"))
        for step_ms in (30 * DAY_MS, -3650 * DAY_MS):
            clock.step_wall(step_ms)
            await clock.advance(20)
            assert "not believed" in rig.reporting.not_ready_because
            with pytest.raises(NotReady):
                await rig.service.pause("job", by="t")
            clock.step_wall(-step_ms)
            await clock.advance(3)
            assert rig.reporting.not_ready_because is None
        assert {id_[:14] for id_ in rig.sent} == {"job@2026-11-23"}
        await clock.advance_to(at("09:01:25"))
        assert times(rig.sent)[-3:] == ["09:01:00", "09:01:10", "09:01:20"]
        assert await settled_slots(rig, "job") == slots("08:59:40", "09:01:20")


async def test_a_machine_that_slept_for_days_is_believed_unsynchronised_as_it_may_be():
    clock = Unsynchronised()
    async with running_engine(clock=clock, watch=ClockWatch(clock)) as rig:
        await rig.add("job", "0 9 * * *")
        await clock.suspend(3 * 86_400)
        await clock.advance(2)
        assert rig.reporting.not_ready_because is None
        assert rig.sent == ["job@2026-11-25T09:00:00Z"]


async def test_an_unanswered_attempt_before_the_step_leads_to_one_more_with_the_same_id():
    answers = {"now": LOST_ACKNOWLEDGEMENT}
    async with running_engine(script=lambda _e, _n: answers["now"]) as rig:
        await rig.add("job", "@every 1h")
        await rig.clock.advance_to(at("09:00:00.050"))
        answers["now"] = PUBLISHED
        rig.clock.step_wall(-60_000)
        await rig.clock.advance_to(at("09:00:30"))
        assert rig.sent == ["job@2026-11-23T09:00:00Z"] * 2
        assert_none_early(rig)
