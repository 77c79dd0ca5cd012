"""What becomes of slots that were due while nothing could fire."""

from __future__ import annotations

import itertools
import time

import pytest

from cronally.domain.model import Kind, Pause, SkipReason, State
from cronally.engine.engine import Engine
from cronally.engine.hooks import Hooks
from cronally.engine.records import ScheduleChange
from cronally.instants import format_utc, parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.lost_zone import lose_zone
from support.memory_store import MemoryStore
from support.recording_publisher import (
    LOST_ACKNOWLEDGEMENT,
    PUBLISHED,
    THROTTLED,
    TIMED_OUT,
    Answer,
    RecordingPublisher,
)
from support.rig import FIFO_TOPIC, TOPIC, running_engine

MINUTE = 60
HOUR = 3600
DAY = 24 * HOUR


def at(time_):
    return parse_rfc3339(f"2026-11-23T{time_}Z")


def times(fire_ids):
    return [fire_id[-9:-1] for fire_id in fire_ids]


class Down:
    """A store that was left, by a crash or in order, and the clock it was left at."""

    def __init__(self):
        self.clock, self.store = FakeClock(), MemoryStore()

    async def leave(self, *schedules, crash, until="09:00:05"):
        async with running_engine(clock=self.clock, store=self.store, crash=crash) as rig:
            for name, when, keys in schedules:
                await rig.add(name, when, **keys)
            await self.clock.advance_to(at(until))
            return rig.sent

    def again(self, **keys):
        return running_engine(clock=self.clock, store=self.store, **keys)


async def test_slots_up_to_pruned_through_are_settled_though_they_have_no_row():
    down = Down()
    await down.leave(("job", "* * * * *", {"catch_up": "all"}), ("spread", "* * * * *", {"catch_up": "all", "spread": "50s"}),
                     crash=True, until="09:03:30")  # fmt: skip
    await down.store.prune(at("09:03:00"))
    assert (await down.store.open()).pruned_through > at("09:02:00")
    down.store._watermark = at("09:00:00")  # as after a clock that was set back
    await down.clock.advance_to(at("09:04:30"))
    async with down.again() as rig:
        assert rig.engine.core.pruned_through == down.store._pruned_through
        due = [arrival.entry.fire.due_time for arrival in rig.publisher.arrivals]
        assert due
        assert min(due) > down.store._pruned_through


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize(
    ("policy", "fired"),
    [
        ("latest", ["09:05:00"]),
        ("all", ["09:01:00", "09:02:00", "09:03:00", "09:04:00", "09:05:00"]),
        ("skip", []),
    ],
)
async def test_missed_slots_by_policy(policy, fired, crash):
    down = Down()
    await down.leave(("job", "* * * * *", {"catch_up": policy}), crash=crash)
    await down.clock.advance_to(at("09:05:30"))
    async with down.again() as rig:
        await down.clock.advance(1)
        assert times(rig.sent) == fired
        journal = await rig.journal()
        skipped = [entry for entry in journal.values() if entry.state is State.SKIPPED]
        assert sum(entry.count for entry in journal.values()) == 6
        assert {entry.reason for entry in skipped} <= {SkipReason.CATCH_UP}
        assert len(skipped) == (0 if policy == "all" else 1)
        assert all(entry.maybe_published is crash for entry in skipped)
        assert not any(entry.maybe_published for entry in journal.values() if entry not in skipped)


async def test_a_crash_before_the_first_commit_loses_nothing():
    down = Down()
    assert await down.leave(("job", "0 9 * * *", {}), crash=True, until="08:59:50") == []
    await down.clock.advance_to(at("09:05:00"))
    async with down.again() as rig:
        await down.clock.advance(1)
        assert rig.sent == ["job@2026-11-23T09:00:00Z"]


@pytest.mark.parametrize("crash", [False, True])
async def test_slots_less_than_ten_seconds_late_are_just_late(crash):
    for policy in ("latest", "all", "skip"):
        down = Down()
        await down.leave(("job", "@every 5s", {"catch_up": policy}), crash=crash, until="09:00:01")
        await down.clock.advance_to(at("09:00:15"))
        async with down.again() as rig:
            await down.clock.advance(0)
            assert times(rig.sent) == ["09:00:05", "09:00:10", "09:00:15"]


async def test_a_slot_ten_seconds_late_is_late_and_a_millisecond_later_it_is_missed():
    for late_ms, fired in ((10_000, ["09:01:00"]), (10_001, [])):
        down = Down()
        await down.leave(("job", "* * * * *", {"catch_up": "skip"}), crash=False)
        await down.clock.advance_to(at("09:01:00") + late_ms)
        async with down.again() as rig:
            await down.clock.advance(0)
            assert times(rig.sent) == fired


async def test_a_slot_past_its_deadline_is_expired_and_says_so():
    down = Down()
    await down.leave(("job", "0 9,10 * * *", {"deadline": "1m"}), crash=True, until="09:00:05")
    await down.clock.advance_to(at("10:01:00") + 1)
    async with down.again() as rig:
        await down.clock.advance(1)
        assert rig.sent == []
        entry = (await rig.journal())["job@2026-11-23T10:00:00Z"]
        assert (entry.state, entry.reason, entry.maybe_published) == (State.EXPIRED, None, True)


async def test_all_fires_the_newest_thousand_oldest_first():
    down = Down()
    await down.leave(("job", "@every 1s", {"catch_up": "all"}), crash=False, until="09:00:00")
    await down.clock.advance_to(at("10:00:00"))
    async with down.again() as rig:
        await down.clock.advance(0.5)
        assert len(rig.sent) == 1000 + 11  # and those no more than ten seconds late
        assert times(rig.sent) == sorted(times(rig.sent))
        assert times(rig.sent)[-1] == "10:00:00"
        skipped = [e for e in (await rig.journal()).values() if e.state is State.SKIPPED]
        assert [(format_utc(e.fire_time)[-9:-1], e.count) for e in skipped] == [("09:00:01", 3600 - 1011)]


async def test_a_week_of_downtime_is_one_row_per_schedule_and_quick():
    down = Down()
    names = [f"job-{number}" for number in range(300)]
    schedules = [(name, "* * * * *" if number % 2 else "@every 1s", {}) for number, name in enumerate(names)]
    await down.leave(*schedules, crash=False, until="08:59:31")
    await down.clock.advance(7 * DAY)
    start = time.perf_counter()
    async with down.again() as rig:
        assert time.perf_counter() - start < 2
        await down.clock.advance(0)
        skipped = [e for e in (await rig.journal()).values() if e.state is State.SKIPPED]
        assert len(skipped) == 300
        assert {entry.count for entry in skipped} == {7 * DAY - 12, 7 * DAY // MINUTE - 1}


async def test_recovery_twice_decides_nothing_twice():
    for crash in (False, True):
        down = Down()
        await down.leave(("job", "* * * * *", {}), crash=crash)
        await down.clock.advance_to(at("09:05:30"))
        sent = []
        for _ in range(3):
            async with down.again(crash=crash) as rig:
                await down.clock.advance(0.5)
                sent += rig.sent
                journal = await rig.journal()
        assert times(sent) == ["09:05:00"]
        assert [entry.count for entry in journal.values()] == [1, 4, 1]


@pytest.mark.parametrize("policy", ["latest", "all", "skip"])
async def test_a_crash_between_publish_and_commit_repeats_with_the_same_id(policy):
    clock = FakeClock()
    inner = MemoryStore()
    store = FaultyStore(clock, inner)
    store.fail("commit")
    async with running_engine(clock=clock, store=store, crash=True) as rig:
        await rig.add("job", "0 9 * * *", catch_up=policy)
        await clock.advance_to(at("09:00:03"))
        assert rig.accepted == ["job@2026-11-23T09:00:00Z"]
    for restarted_at, fires in (("09:00:05", True), ("09:00:30", policy != "skip")):
        if fires != (restarted_at == "09:00:05"):
            continue
        await clock.advance_to(at(restarted_at))
    async with running_engine(clock=clock, store=inner) as rig:
        await clock.advance(1)
        entry = (await rig.journal())["job@2026-11-23T09:00:00Z"]
        if clock.wall() > at("09:00:10") and policy == "skip":
            assert (rig.sent, entry.state, entry.maybe_published) == ([], State.SKIPPED, True)
        else:
            assert rig.sent == ["job@2026-11-23T09:00:00Z"]
            assert entry.state is State.PUBLISHED


async def test_a_crash_right_after_a_change_is_committed_keeps_both_sides_of_it():
    clock, inner = FakeClock(), MemoryStore()
    store = FaultyStore(clock, inner)
    async with running_engine(clock=clock, store=store, crash=True) as rig:
        await rig.add("job", "@every 1s", message="old", catch_up="all")
        await clock.advance_to(at("08:59:40"))
        store.after_s["change"] = 60.0
        store.before_s["commit"] = 60.0
        rig.start(rig.service.put("job", {"when": "@every 2s", "topic": TOPIC, "catch_up": "all"}, by="t"))
        await clock.advance(1.5)
    await clock.advance_to(at("08:59:46"))
    async with running_engine(clock=clock, store=inner) as rig:
        await clock.advance(3)
        assert sorted(times(rig.sent)) == ["08:59:40", "08:59:42", "08:59:44", "08:59:46", "08:59:48"]
        states = await rig.states()
        assert set(states.values()) == {State.PUBLISHED}
        assert sorted(times(states)) == [f"08:59:{s}" for s in (*range(31, 41), 42, 44, 46, 48)]


async def test_what_a_downtime_left_pending_is_sent_after_it():
    clock, store = FakeClock(), MemoryStore()
    async with running_engine(clock=clock, store=store, script=lambda _e, _n: THROTTLED) as rig:
        await rig.add("job", "0 9 * * *")
        await clock.advance_to(at("09:00:10"))
    await clock.advance(HOUR)
    async with running_engine(clock=clock, store=store) as rig:
        await clock.advance(1)
        assert rig.sent == ["job@2026-11-23T09:00:00Z"]
        entry = (await rig.journal())["job@2026-11-23T09:00:00Z"]
        assert entry.state is State.PUBLISHED
        assert entry.attempts > 2


@pytest.mark.parametrize("crash", [False, True])
async def test_a_pending_fire_may_have_been_published_only_after_an_unclean_stop(crash):
    clock, store = FakeClock(), MemoryStore()
    async with running_engine(clock=clock, store=store, script=lambda _e, _n: THROTTLED, crash=crash) as rig:
        await rig.add("job", "0 9 * * *", deadline="1m")
        await clock.advance_to(at("09:00:10"))
    await clock.advance(HOUR)
    async with running_engine(clock=clock, store=store) as rig:
        await clock.advance(1)
        entry = (await rig.journal())["job@2026-11-23T09:00:00Z"]
        assert (entry.state, entry.maybe_published) == (State.EXPIRED, crash)


@pytest.mark.parametrize("crash", [False, True])
async def test_a_clean_stop_waits_for_what_is_in_flight_and_a_crash_repeats_it(crash):
    clock, store = FakeClock(), MemoryStore()
    slow = Answer(delay_s=5)
    async with running_engine(clock=clock, store=store, script=lambda _e, _n: slow, crash=crash) as rig:
        await rig.add("job", "0 9 * * *")
        await clock.advance_to(at("09:00:01"))
    async with running_engine(clock=clock, store=store) as rig:
        await clock.advance(1)
        assert rig.sent == (["job@2026-11-23T09:00:00Z"] if crash else [])
        assert await rig.states() == {"job@2026-11-23T09:00:00Z": State.PUBLISHED}


async def test_what_is_not_answered_when_the_drain_ends_is_pending_and_unknown():
    clock, store = FakeClock(), MemoryStore()
    never = Answer(delay_s=3600)
    async with running_engine(clock=clock, store=store, script=lambda _e, _n: never) as rig:
        await rig.add("job", "0 9 * * *")
        await clock.advance_to(at("09:00:01"))
    async with running_engine(clock=clock, store=store) as rig:
        await clock.advance(0)
        entry = (await rig.journal())["job@2026-11-23T09:00:00Z"]
        assert (entry.state, entry.maybe_published) == (State.PENDING, True)
        await clock.advance(1)
        assert rig.sent == ["job@2026-11-23T09:00:00Z"]


async def test_a_slot_is_not_missed_before_its_schedule_was_made_or_resumed():
    clock, store = FakeClock(), MemoryStore()
    async with running_engine(clock=clock, store=store, crash=True) as rig:
        await rig.add("old", "@every 10s", catch_up="all")
        await clock.advance_to(at("08:59:45"))
        await rig.add("new", "@every 10s", catch_up="all")
        await rig.service.pause("old", by="t")
        await clock.advance_to(at("09:00:05"))
        await rig.service.resume("old", by="t")
    await clock.advance_to(at("09:01:00"))
    async with running_engine(clock=clock, store=store) as rig:
        await clock.advance(1)
        seconds = ["08:59:50", *(f"09:00:{s}0" for s in range(6)), "09:01:00"]
        states = await rig.states("new")
        assert sorted(times(states)) == seconds
        assert sorted({i for i in times(rig.sent) if i > "09:00:05"}) == seconds[2:]
        old = await rig.journal("old")
        assert sum(e.count for e in old.values() if e.reason is SkipReason.PAUSED) == 2


async def test_bounds_and_spread_hold_for_missed_slots():
    down = Down()
    bounds = {"starts": "2026-11-23T09:02:00Z", "ends": "2026-11-23T09:04:00Z", "catch_up": "all"}
    await down.leave(
        ("bounded", "* * * * *", bounds),
        ("spread", "* * * * *", {"spread": "1h", "catch_up": "all"}),
        ("every", "@every 1m", {"starts": "2026-11-23T09:02:30Z", "catch_up": "all"}),
        crash=True,
    )
    await down.clock.advance_to(at("10:30:00"))
    async with down.again() as rig:
        await down.clock.advance(0.5)
        assert [i for i in rig.sent if i.startswith("bounded")] == [
            f"bounded@2026-11-23T09:0{minute}:00Z" for minute in (2, 3, 4)
        ]
        offset = (await rig.service.get("spread")).stored.spec.offset_ms()
        spread = await rig.journal("spread")
        slots = range(at("09:00:00"), at("10:30:00") - offset + 1, 60_000)
        assert sorted(entry.fire_time for entry in spread.values()) == list(slots)
        assert all(entry.due_time - entry.fire_time == offset for entry in spread.values())
        every = times(await rig.states("every"))
        assert (min(every), len(every)) == ("09:02:30", 88)


@pytest.mark.parametrize(
    ("policy", "state"),
    [("latest", State.PUBLISHED), ("all", State.PUBLISHED), ("skip", State.SKIPPED)],
)
async def test_a_missed_instant(policy, state):
    down = Down()
    await down.leave(("once", "@at 2026-11-23T09:01:00Z", {"catch_up": policy}), crash=True)
    await down.clock.advance_to(at("09:05:00"))
    for _ in range(2):
        async with down.again() as rig:
            await down.clock.advance(5)
            assert await rig.states() == {"once@2026-11-23T09:01:00Z": state}
    assert rig.sent == []


async def test_an_instant_to_come_fires_after_a_restart():
    down = Down()
    await down.leave(("once", "@at 2026-11-23T09:10:00Z", {}), crash=True)
    await down.clock.advance_to(at("09:05:00"))
    async with down.again() as rig:
        await down.clock.advance_to(at("09:10:00"))
        assert rig.sent == ["once@2026-11-23T09:10:00Z"]


async def test_missed_slots_of_a_fifo_group_go_in_order_one_at_a_time():
    down = Down()
    keys = {"topic": FIFO_TOPIC, "group": "g", "catch_up": "all"}
    await down.leave(("b", "@every 20s", keys), ("a", "@every 30s", keys), crash=False, until="09:00:01")
    await down.clock.advance_to(at("09:02:00"))
    async with down.again(script=lambda _e, _n: Answer(delay_s=0.3)) as rig:
        await down.clock.advance(30)
        expected = sorted(
            [(at("09:00:00") + 20_000 * n, "b") for n in range(1, 8)]
            + [(at("09:00:00") + 30_000 * n, "a") for n in range(1, 6)]
        )
        assert [(a.entry.fire.fire_time, a.entry.name) for a in rig.publisher.arrivals] == expected
        released = [a.released_us for a in rig.publisher.arrivals]
        assert all(later - earlier >= 300_000 for earlier, later in itertools.pairwise(released))


async def test_a_suspended_machine_catches_up_by_policy_and_sends_nothing_stale():
    async with running_engine() as rig:
        for policy in ("latest", "all", "skip"):
            await rig.add(policy, "* * * * *", catch_up=policy)
        await rig.clock.advance_to(at("08:59:59"))
        await rig.clock.suspend(5 * MINUTE + 30)
        await rig.clock.advance(1)
        late = [f"2026-11-23T09:0{minute}:00Z" for minute in range(6)]
        assert sorted(rig.sent) == sorted([f"latest@{late[-1]}", *(f"all@{time}" for time in late)])
        journal = await rig.journal()
        assert sum(entry.count for entry in journal.values()) == 18
        assert not any(entry.maybe_published for entry in journal.values())
        await rig.clock.advance_to(at("09:06:01"))
        assert {f"{policy}@2026-11-23T09:06:00Z" for policy in ("latest", "all", "skip")} <= set(rig.sent)


async def test_a_suspended_machine_sends_pending_fires_once_each():
    for topic in (TOPIC, FIFO_TOPIC):
        clock = FakeClock()
        store = FaultyStore(clock)
        async with running_engine(clock=clock, store=store, script=lambda _e, _n: THROTTLED) as rig:
            await rig.add("job", "@every 10s", catch_up="all", topic=topic)
            await clock.advance_to(at("09:00:05"))
            rig.publisher.script = lambda _e, _n: PUBLISHED
            store.before_s = {"commit": 0.03, "specs": 0.01, "pending_due": 0.02}
            store.after_s = {"pending_due": 0.02, "specs": 0.02, "settled_between": 0.05}
            await clock.suspend(30)
            await clock.advance(5)
            assert sorted(rig.accepted) == sorted(set(rig.accepted))
            assert set((await rig.states()).values()) == {State.PUBLISHED}
            assert len(rig.accepted) == 7


async def test_a_step_of_the_wall_clock_forward_is_caught_up():
    class Heard(Hooks):
        steps: list[int] = []  # noqa: RUF012 - one test

        def clock_jumped(self, jump):
            self.steps.append(jump.now - jump.expected)

    async with running_engine(hooks=Heard()) as rig:
        await rig.add("job", "* * * * *")
        await rig.clock.advance(1)
        rig.clock.step_wall(3 * 60_000)
        await rig.clock.advance(2)
        assert times(rig.sent) == ["09:02:00"]
        assert Heard.steps == [180_000]


async def test_a_step_of_the_wall_clock_back_fires_nothing_early_or_twice():
    async with running_engine() as rig:
        await rig.add("job", "* * * * *")
        await rig.clock.advance_to(at("09:00:30"))
        rig.clock.step_wall(-60_000)
        await rig.clock.advance(100)
        assert times(rig.sent) == ["09:00:00", "09:01:00"]
        assert all(a.released_us >= a.entry.fire.due_time * 1000 for a in rig.publisher.arrivals)


async def test_planning_that_stalls_leaves_what_is_missed_to_recovery():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        for policy in ("latest", "all", "skip"):
            await rig.add(policy, "@every 30s", catch_up=policy)
        await clock.advance_to(at("08:59:40"))
        store.fail("specs")
        await clock.advance_to(at("09:02:15"))
        store.fail()
        await clock.advance(2)
        slots = ["09:00:00", "09:00:30", "09:01:00", "09:01:30", "09:02:00"]
        assert sorted(rig.sent) == sorted(
            [f"latest@2026-11-23T{slots[-1]}Z", *(f"all@2026-11-23T{slot}Z" for slot in slots)]
        )
        assert sum(entry.count for entry in (await rig.journal()).values()) == 15


async def test_a_short_stall_makes_fires_late_and_skips_none():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 2s", catch_up="skip")
        await clock.advance_to(at("08:59:40"))
        store.before_s["specs"] = 3.0
        await clock.advance(20)
        store.before_s.clear()
        await clock.advance(5)
        expected = [format_utc(at("08:59:30") + 2000 * n) for n in range(1, 18)]
        assert sorted(rig.sent) == [f"job@{time}" for time in expected]


async def test_recovery_waits_for_a_store_that_fails_and_keeps_the_watermark():
    clock, inner = FakeClock(), MemoryStore()
    store = FaultyStore(clock, inner)
    async with running_engine(clock=clock, store=store, crash=True) as rig:
        await rig.add("job", "* * * * *", catch_up="all")
        await rig.add("tick", "@every 1s", catch_up="skip")
        await clock.advance_to(at("09:00:30"))
        store.fail("settled_between")
        await clock.suspend(3 * MINUTE)
        await clock.advance(5)
        assert "job@2026-11-23T09:01:00Z" not in rig.sent
    opened = await inner.open()
    assert opened.watermark < at("09:01:00")
    async with running_engine(clock=clock, store=inner) as rig:
        await clock.advance(1)
        assert [i for i in times(rig.sent) if i.endswith(":00")] == ["09:01:00", "09:02:00", "09:03:00"]


async def test_recovery_and_a_change_do_not_meet_halfway():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 10s", message="old", catch_up="all")
        await rig.add("kept", "@every 10s", catch_up="all")
        await clock.advance_to(at("09:00:05"))
        store.before_s["change"] = 1.5
        rig.start(rig.service.put("job", {"when": "@every 10s", "topic": TOPIC, "catch_up": "all"}, by="t"))
        await clock.advance(0.2)
        await clock.suspend(60)
        await clock.advance(5)
        assert len(rig.sent) == len(set(rig.sent))
        for name in ("job", "kept"):
            states = await rig.states(name)
            assert set(states.values()) == {State.PUBLISHED}
            assert len(states) == 10
        stored = (await rig.service.get("job")).stored
        messages = {
            a.entry.fire.fire_time: a.entry.message for a in rig.publisher.arrivals if a.entry.name == "job"
        }
        assert all((m == "old") is (slot <= stored.effective_from) for slot, m in messages.items())


async def test_an_outcome_committed_while_recovery_reads_is_not_decided_again():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store, script=lambda _e, _n: Answer(delay_s=3.5)) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.add("other", "* * * * *")
        await clock.advance_to(at("09:00:01"))
        store.after_s["settled_between"] = 5.0
        await clock.suspend(120)
        await clock.advance(10)
        assert rig.sent.count("job@2026-11-23T09:00:00Z") == 1


async def test_a_fifo_head_about_to_leave_when_recovery_begins_is_not_forgotten():
    async with running_engine() as rig:
        for number in range(3):
            await rig.add(f"job-{number}", "* * * * *", topic=FIFO_TOPIC, catch_up="all")
        await rig.add("shared", "* * * * *", topic=FIFO_TOPIC, catch_up="all", group="job-0")
        await rig.clock.advance_to(at("08:59:59"))
        arm = rig.publisher.arm

        async def slow_arm(batches, at):
            await rig.clock.sleep(0.5)
            return await arm(batches, at)

        rig.publisher.arm = slow_arm
        await rig.clock.advance(1.1)
        await rig.clock.suspend(62)
        rig.publisher.arm = arm
        await rig.clock.advance(5)
        names = ("job-0", "job-1", "job-2", "shared")
        assert sorted(rig.sent) == sorted(
            f"{name}@2026-11-23T09:0{minute}:00Z" for name in names for minute in range(2)
        )


async def test_a_lost_acknowledgement_may_have_been_published_and_is_repeated_with_the_same_id():
    answers = {1: LOST_ACKNOWLEDGEMENT}
    async with running_engine(script=lambda _e, n: answers.get(n, PUBLISHED)) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance_to(at("09:00:00"))
        await rig.clock.advance(0.06)
        assert (await rig.journal())["job@2026-11-23T09:00:00Z"].maybe_published
        await rig.clock.advance(5)
        assert rig.accepted == ["job@2026-11-23T09:00:00Z"] * 2
        entry = (await rig.journal())["job@2026-11-23T09:00:00Z"]
        assert (entry.state, entry.maybe_published) == (State.PUBLISHED, False)


async def test_an_unknown_outcome_at_the_deadline_expires_and_says_so():
    async with running_engine(script=lambda _e, _n: TIMED_OUT._replace(delay_s=12)) as rig:
        await rig.add("job", "0 9 * * *", deadline="10s")
        await rig.clock.advance_to(at("09:00:30"))
        entry = (await rig.journal())["job@2026-11-23T09:00:00Z"]
        assert (entry.state, entry.attempts, entry.maybe_published) == (State.EXPIRED, 1, True)


async def test_a_schedule_whose_zone_has_left_tzdata_is_parked_and_the_others_go_on(monkeypatch):
    clock, store = FakeClock(), MemoryStore()
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("lost", "* * * * *", tz="Europe/London")
        await rig.add("kept", "* * * * *")
        await rig.add("late", "* * * * *", tz="Europe/London", paused=True)
        await rig.add("too", "* * * * *", tz="Europe/London")
    lose_zone(monkeypatch, "Europe/London")
    async with running_engine(clock=clock, store=store) as rig:
        await clock.advance(MINUTE)
        assert rig.sent == ["kept@2026-11-23T09:00:00Z"]
        parked = rig.engine.recovery.parked
        assert set(parked) == {"lost", "late", "too"}
        assert all("Europe/London" in error for error in parked.values())
        assert (await rig.service.get("lost")).next_fires == ()
        await rig.service.remove("late", by="t")
        await rig.set("lost", when="* * * * *", tz="UTC")
        await clock.advance(MINUTE)
        assert sorted(rig.sent[1:]) == ["kept@2026-11-23T09:01:00Z", "lost@2026-11-23T09:01:00Z"]


async def test_an_apply_mends_a_parked_schedule(monkeypatch):
    clock, store = FakeClock(), MemoryStore()
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("lost", "* * * * *", tz="Europe/London")
    lose_zone(monkeypatch, "Europe/London")
    async with running_engine(clock=clock, store=store) as rig:
        result = await rig.apply({"name": "lost", "when": "* * * * *", "topic": TOPIC})
        assert (result.changed, result.problems) == (1, ())
        await clock.advance(MINUTE)
        assert rig.sent == ["lost@2026-11-23T09:00:00Z"]


async def test_a_pause_taken_over_from_the_store_ends():
    store, clock = MemoryStore(), FakeClock()
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 10s")
        stored = (await rig.service.get("job")).stored
    now = clock.wall()
    await store.change(
        ScheduleChange(
            at=now,
            by="t",
            action="pause",
            id=stored.id,
            expected_revision_id=stored.revision_id,
            pause=Pause(since=now, until=at("09:00:00")),
        )
    )
    async with running_engine(clock=clock, store=store) as rig:
        await clock.advance_to(at("09:00:05"))
        assert rig.sent == ["job@2026-11-23T09:00:00Z"]
        assert (await rig.service.get("job")).stored.pause is None
        assert next(iter((await rig.journal()).values())).kind is Kind.SCHEDULED


class Listening(Hooks):
    def __init__(self):
        self.moved = []

    def instants_moved(self, names):
        self.moved += names


async def test_an_instant_that_new_zone_data_moves_fires_at_the_new_one():
    clock, store, hooks = FakeClock(), MemoryStore(), Listening()
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("once", "@at 2026-11-23T09:30:00", tz="Europe/London")
        await rig.add("tick", "0 * * * *")
    [once, _] = [row async for rows in store.timetable() for row in rows]
    await store.move_single_slots([(once.id, once.slot_time + 3_600_000)])  # what an older tzdata said
    await Engine(store, RecordingPublisher(clock), clock, hooks).recover(await store.open())
    assert hooks.moved == ["once"]
    async with running_engine(clock=clock, store=store) as rig:
        await rig.clock.advance_to("2026-11-23T09:30:01Z")
        assert rig.sent == ["tick@2026-11-23T09:00:00Z", "once@2026-11-23T09:30:00Z"]
        await rig.clock.advance(3700)
        assert rig.sent.count("once@2026-11-23T09:30:00Z") == 1


async def test_an_instant_that_was_over_before_the_new_zone_data_came_does_not_come_again():
    clock, store, hooks = FakeClock(), MemoryStore(), Listening()
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("once", "@at 2026-11-23T09:30:00", tz="Europe/London")
    [once] = [row async for rows in store.timetable() for row in rows]
    await store.move_single_slots([(once.id, clock.wall() - 1)])
    await Engine(store, RecordingPublisher(clock), clock, hooks).recover(await store.open())
    assert hooks.moved == []


async def test_what_is_armed_does_not_leave_stale_when_the_machine_resumes_before_anybody_looked():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "0 9 * * *", catch_up="skip")
        await rig.add("other", "* * * * *", spread="1h", catch_up="skip")
        await clock.advance_to(at("08:59:59"))
        store.before_s["specs"] = 4.0  # the planner is busy with a neighbour
        await rig.add("neighbour", "@at 2026-11-23T09:00:00Z", catch_up="skip")
        await clock.advance(0.2)
        await clock.suspend(60)
        store.before_s.clear()
        await clock.advance(10)
        assert rig.sent == []
        entries = await rig.journal("job")
        assert [entry.reason for entry in entries.values()] == [SkipReason.CATCH_UP]


async def test_a_pause_that_ended_while_the_planner_was_busy_is_recoverys():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 1s", catch_up="skip")
        await rig.add("other", "@at 2026-11-23T09:00:00Z")
        await rig.service.pause("job", by="t", until=at("09:00:05"))
        await clock.advance_to(at("08:59:57"))
        store.before_s["at_between"] = 30.0
        await clock.advance_to(at("09:00:20"))
        store.before_s.clear()
        await clock.advance_to(at("09:00:40"))
        skipped = [e for e in (await rig.journal("job")).values() if e.reason is SkipReason.CATCH_UP]
        assert sum(entry.count for entry in skipped) > 5
        assert all(
            a.released_us < (a.entry.fire.due_time + 10_001) * 1000
            for a in rig.publisher.arrivals[1:]
            if a.entry.name == "job"
        )


async def test_what_is_in_doubt_after_a_crash_stays_so_when_recovery_decides_anew():
    clock, store = FakeClock(), MemoryStore()
    async with running_engine(clock=clock, store=store, crash=True) as rig:
        await rig.add("job", "* * * * *", catch_up="skip")
        await clock.advance_to("2026-11-23T09:00:00Z")
        assert rig.accepted == ["job@2026-11-23T09:00:00Z"]  # and not committed yet
    async with running_engine(clock=clock, store=store, room=0) as rig:
        await clock.suspend(130)  # before it has left again
        journal = await rig.journal()
        first = journal["job@2026-11-23T09:00:00Z"]
        assert (first.state, first.reason, first.maybe_published) == (
            State.SKIPPED,
            SkipReason.CATCH_UP,
            True,
        )
