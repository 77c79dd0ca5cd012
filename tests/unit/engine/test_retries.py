"""When a fire is tried again, and when no more."""

from __future__ import annotations

import pytest

from cronally.domain.model import Kind, SkipReason, State
from cronally.engine.ports import OutcomeClass
from cronally.errors import Conflict, NotReady, ScheduleNotFound, StoreBusy
from cronally.instants import parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.memory_store import MemoryStore
from support.recording_publisher import PUBLISHED, REJECTED, THROTTLED, TOPIC_GONE, Answer
from support.rig import TOPIC, running_engine

NINE = "job@2026-11-23T09:00:00Z"


def at(time):
    return parse_rfc3339(f"2026-11-23T{time}Z")


def released_ms(rig):
    return [arrival.released_us // 1000 - at("09:00:00") for arrival in rig.publisher.arrivals]


async def test_backoff_doubles_from_a_fifth_of_a_second_to_a_minute():
    # with a jitter of 0.5, half of each ceiling: 0.2, 0.4, 0.8, … 60 s
    async with running_engine(script=lambda _e, _n: THROTTLED) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance_to(at("09:03:00"))
        gaps = [b - a for a, b in zip(released_ms(rig), released_ms(rig)[1:], strict=False)]
        ideal = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000]
        assert all(want <= gap <= want + 100 for gap, want in zip(gaps, ideal, strict=False)), gaps
        assert len(gaps) >= 10


async def test_hold_is_tried_every_five_minutes():
    async with running_engine(script=lambda _e, _n: TOPIC_GONE) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance_to(at("09:16:00"))
        assert released_ms(rig) == [0, 300_000, 600_000, 900_000]


async def test_an_attempt_may_begin_at_the_deadline_and_none_after_it():
    async with running_engine(script=lambda _e, _n: THROTTLED) as rig:
        await rig.add("job", "0 9 * * *", deadline="6m")
        await rig.clock.advance_to(at("09:20:00"))
        assert released_ms(rig)[-1] == 360_000
        entry = (await rig.journal())[NINE]
        assert (entry.state, entry.maybe_published) == (State.EXPIRED, False)
        assert entry.attempts == len(rig.sent)
        assert "Throttling" in entry.last_error


async def test_what_waits_for_a_topic_that_refuses_everything_expires_at_its_deadline():
    async with running_engine(script=lambda _e, _n: TOPIC_GONE) as rig:
        await rig.add("job", "0 9 * * *", deadline="6m")
        await rig.clock.advance_to(at("09:05:59.900"))
        assert await rig.states() == {NINE: State.PENDING}
        await rig.clock.advance(0.2)
        assert released_ms(rig) == [0, 300_000]
        entry = (await rig.journal())[NINE]
        assert (entry.state, entry.attempts, entry.maybe_published) == (State.EXPIRED, 2, False)
        assert entry.released_at == at("09:05:00")
        assert "NotFound" in entry.last_error


async def test_a_first_attempt_after_the_deadline_does_not_begin():
    async with running_engine() as rig:
        await rig.add("job", "0 9 * * *", deadline="2s")
        await rig.clock.advance_to(at("08:59:59"))
        rig.clock.step_wall(900)
        rig.clock.step_wall(5_000)
        await rig.clock.advance(2)
        entry = (await rig.journal())[NINE]
        assert (rig.sent, entry.state) == ([], State.EXPIRED)


async def test_the_deadline_of_a_spread_slot_counts_from_its_due_time():
    async with running_engine(script=lambda _e, _n: THROTTLED) as rig:
        await rig.add("job", "0 9 * * *", spread="10m", deadline="1m")
        await rig.clock.advance_to(at("09:15:00"))
        due = (await rig.journal())[NINE].due_time - at("09:00:00")
        assert released_ms(rig)[-1] == due + 60_000


async def test_under_latest_an_older_slot_goes_no_more_once_a_newer_one_is_due():
    async with running_engine(script=lambda _e, _n: THROTTLED) as rig:
        await rig.add("job", "* * * * *")
        await rig.clock.advance_to(at("09:03:30"))
        rig.publisher.script = lambda _e, _n: PUBLISHED
        await rig.clock.advance(40)
        entries = await rig.journal()
        fates = [(entry.state, entry.reason) for entry in entries.values()]
        superseded = (State.SKIPPED, SkipReason.SUPERSEDED)
        assert fates == [superseded] * 3 + [(State.PUBLISHED, None)] * 2
        assert entries[NINE].attempts > 5


async def test_under_latest_an_older_slot_within_ten_seconds_still_goes():
    async with running_engine(script=lambda _e, n: THROTTLED if n < 3 else PUBLISHED) as rig:
        await rig.add("job", "@every 1s")
        await rig.clock.advance(20.7)
        assert set((await rig.states()).values()) == {State.PUBLISHED}
        assert len(set(rig.accepted)) == 20


@pytest.mark.parametrize("policy", ["all", "skip"])
async def test_under_other_policies_every_pending_fire_goes(policy):
    async with running_engine(script=lambda _e, _n: THROTTLED) as rig:
        await rig.add("job", "* * * * *", catch_up=policy)
        await rig.clock.advance_to(at("09:03:30"))
        rig.publisher.script = lambda _e, _n: PUBLISHED
        await rig.clock.advance(40)
        assert set((await rig.states()).values()) == {State.PUBLISHED}


async def test_a_pending_fire_of_an_older_rule_is_superseded_by_the_newer_rules_slot():
    async with running_engine(script=lambda _e, _n: TOPIC_GONE) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance_to(at("09:00:05"))
        await rig.set("job", when="2 9 * * *")
        rig.publisher.script = lambda _e, _n: PUBLISHED
        await rig.clock.advance(400)
        entry = (await rig.journal())[NINE]
        assert (entry.state, entry.reason) == (State.SKIPPED, SkipReason.SUPERSEDED)


async def test_one_bad_entry_of_a_batch_is_alone_in_its_fate():
    answers = {"job-1": REJECTED, "job-2": THROTTLED, "job-3": TOPIC_GONE}
    async with running_engine(script=lambda e, n: answers.get(e.name, PUBLISHED)) as rig:
        for number in range(10):
            await rig.add(f"job-{number}", "0 9 * * *")
        await rig.clock.advance_to(at("09:00:00"))
        await rig.clock.advance(0.06)
        states = {id_.split("@")[0]: state for id_, state in (await rig.states()).items()}
        assert {name: state for name, state in states.items() if state is not State.PUBLISHED} == {
            "job-1": State.REJECTED,
            "job-2": State.PENDING,
            "job-3": State.PENDING,
        }
        failing = {name for name in states if (await rig.service.get(name)).stored.error is not None}
        assert failing == set(answers)


async def test_many_pending_fires_are_sent_a_few_at_a_time():
    async with running_engine(script=lambda _e, _n: Answer(OutcomeClass.HOLD)) as rig:
        for number in range(2600):
            await rig.service.put(f"job-{number}", {"when": "0 9 * * *", "topic": TOPIC}, by="t")
        await rig.clock.advance_to(at("09:00:01"))
        rig.publisher.script = lambda _e, _n: Answer(delay_s=5)
        before = len(rig.sent)
        await rig.clock.advance_to(at("09:05:02"))
        assert len(rig.sent) - before == 1  # the probe
        await rig.clock.advance_to(at("09:05:06"))
        assert len(rig.sent) - before == 1 + 2000
        await rig.clock.advance(20)
        assert set((await rig.states()).values()) == {State.PUBLISHED}
        assert len(rig.sent) - before == 2600


# --- run --------------------------------------------------------------------------------------------------------


async def test_a_manual_run_is_durable_before_it_returns_and_goes_at_once():
    clock, inner = FakeClock(), MemoryStore()
    async with running_engine(clock=clock, store=inner, crash=True, room=0) as rig:
        await rig.add("job", "0 12 * * *", message="<cronally.fire-id>")
        fire_id = await rig.service.run("job", by="t")
        assert fire_id == "job@2026-11-23T08:59:30Z+manual"
        assert await rig.states() == {fire_id: State.PENDING}
        assert rig.sent == []
    async with running_engine(clock=clock, store=inner) as rig:
        await clock.settle()
        assert rig.sent == [fire_id]
        [arrival] = rig.publisher.arrivals
        assert arrival.entry.message == fire_id
        assert ("cronally.kind", "manual") in {(a.name, a.value) for a in arrival.entry.attributes}
        await clock.advance(1)
        assert await rig.states() == {fire_id: State.PUBLISHED}


async def test_two_runs_in_one_millisecond_have_ids_of_their_own_and_neither_goes_early():
    async with running_engine() as rig:
        await rig.add("job", "0 12 * * *")
        ids = [await rig.service.run("job", by="t") for _ in range(3)]
        assert ids == [
            "job@2026-11-23T08:59:30Z+manual",
            "job@2026-11-23T08:59:30.001Z+manual",
            "job@2026-11-23T08:59:30.002Z+manual",
        ]
        await rig.clock.advance(1)
        assert sorted(rig.sent) == sorted(ids)
        assert all(a.released_us >= a.entry.fire.due_time * 1000 for a in rig.publisher.arrivals)


async def test_an_idempotency_key_makes_one_fire():
    async with running_engine() as rig:
        await rig.add("job", "0 12 * * *")
        first = await rig.service.run("job", by="t", idempotency_key="k")
        await rig.clock.advance(5)
        assert await rig.service.run("job", by="t", idempotency_key="k") == first
        assert await rig.service.run("job", by="t", idempotency_key="l") != first
        await rig.clock.advance(1)
        assert len(rig.sent) == 2


async def test_a_paused_schedule_can_be_run():
    async with running_engine() as rig:
        await rig.add("job", "* * * * *", paused=True)
        fire_id = await rig.service.run("job", by="t")
        await rig.clock.advance(60)
        assert rig.sent == [fire_id]


async def test_the_deadline_of_a_run_counts_from_the_command():
    async with running_engine(script=lambda _e, _n: THROTTLED) as rig:
        await rig.add("job", "0 8 * * *", deadline="1m")
        fire_id = await rig.service.run("job", by="t")
        await rig.clock.advance(100)
        assert rig.publisher.arrivals[-1].released_us // 1000 - at("08:59:30") == 60_000
        assert await rig.states() == {fire_id: State.EXPIRED}


async def test_a_run_is_not_superseded_and_keeps_the_revision_it_was_given_for():
    async with running_engine(script=lambda _e, _n: TOPIC_GONE) as rig:
        await rig.add("job", "* * * * *", message="old")
        fire_id = await rig.service.run("job", by="t")
        await rig.set("job", when="* * * * *", message="new")
        rig.publisher.script = lambda _e, _n: PUBLISHED
        await rig.clock.advance(301)
        manual = [a for a in rig.publisher.accepted if a.entry.fire.kind is Kind.MANUAL]
        assert [(a.entry.fire_id, a.entry.message) for a in manual] == [(fire_id, "old")]


async def test_a_run_and_a_slot_of_one_instant_are_two_fires():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        await rig.clock.advance_to(at("08:59:40"))
        fire_id = await rig.service.run("job", by="t")
        await rig.clock.advance(1)
        assert sorted(rig.sent) == ["job@2026-11-23T08:59:40Z", fire_id]
        assert set((await rig.states()).values()) == {State.PUBLISHED}


async def test_a_run_that_the_store_refuses_is_not_sent():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "0 12 * * *")
        store.fail("add_manual")
        with pytest.raises(StoreBusy):
            await rig.service.run("job", by="t")
        with pytest.raises(ScheduleNotFound):
            await rig.service.run("other", by="t")
        await clock.advance(10)
        assert rig.sent == []


async def test_dropped_runs_do_not_go():
    async with running_engine(script=lambda _e, _n: TOPIC_GONE) as rig:
        await rig.add("job", "0 12 * * *")
        await rig.service.run("job", by="t")
        await rig.clock.advance(1)
        await rig.service.run("job", by="t")
        await rig.service.pause("job", by="t", drop_pending=True)
        rig.publisher.script = lambda _e, _n: PUBLISHED
        await rig.clock.advance(700)
        assert rig.accepted == []
        assert {e.reason for e in (await rig.journal()).values() if not e.is_open} == {SkipReason.DROPPED}


# --- a store that fails -----------------------------------------------------------------------------------------


async def test_outcomes_wait_in_order_for_a_store_that_fails():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 1s")
        store.fail("commit")
        await clock.advance(20)
        assert len(rig.sent) == 20
        assert await rig.states() == {}
        assert rig.engine.settler.last_error is not None
        store.fail()
        await clock.advance(1.6)
        assert set((await rig.states()).values()) == {State.PUBLISHED}
        assert len(await rig.states()) == 21
        assert rig.engine.settler.last_error is None
        assert len(rig.sent) == len(set(rig.sent))


async def test_after_a_minute_without_a_commit_nothing_leaves_and_then_slots_catch_up_by_policy():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        for policy in ("latest", "all", "skip"):
            await rig.add(policy, "@every 30s", catch_up=policy)
        await rig.add("instant", "@at 2026-11-23T09:03:00Z", catch_up="skip")
        await clock.advance_to(at("08:59:45"))
        store.fail("commit")
        await clock.advance_to(at("09:01:10"))
        assert len(rig.sent) == 6
        assert rig.engine.settler.is_blocked
        assert "takes no commits" in rig.reporting.not_ready_because
        with pytest.raises(NotReady):
            await rig.add("new", "* * * * *")
        await clock.advance_to(at("09:04:15"))
        assert len(rig.sent) == 6
        store.fail()
        await clock.advance(3)
        slots = [f"2026-11-23T09:0{minute}:{second}Z" for minute in range(1, 5) for second in ("00", "30")]
        caught_up = slots[:-1]
        assert sorted(rig.sent[6:]) == sorted([f"latest@{caught_up[-1]}", *(f"all@{t}" for t in caught_up)])
        journal = await rig.journal()
        assert sum(entry.count for entry in journal.values()) == 3 * (2 + len(caught_up)) + 1
        await clock.advance_to(at("09:04:31"))
        assert len(rig.sent) == 6 + 1 + len(caught_up) + 3
        assert rig.reporting.not_ready_because is None


async def test_pending_fires_go_on_once_each_after_a_block():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store, script=lambda _e, _n: THROTTLED) as rig:
        await rig.add("job", "@every 10s", catch_up="all")
        await clock.advance_to(at("09:00:05"))
        store.fail("commit")
        await clock.advance(80)
        assert rig.engine.settler.is_blocked
        rig.publisher.script = lambda _e, _n: PUBLISHED
        store.fail()
        await clock.advance(60)
        assert len(rig.accepted) == len(set(rig.accepted))
        assert set((await rig.states()).values()) == {State.PUBLISHED}


async def test_reads_that_fail_delay_pending_fires_and_lose_none():
    for failing in ("pending_due", "next_pending", "specs", "group_pending", "pending_groups"):
        clock = FakeClock()
        store = FaultyStore(clock)
        async with running_engine(clock=clock, store=store, script=lambda _e, _n: THROTTLED) as rig:
            for name in ("a", "b"):
                topic = TOPIC if name == "a" else TOPIC + ".fifo"
                await rig.add(name, "0 9 * * *", topic=topic)
            await clock.advance_to(at("09:00:01"))
            rig.engine.loop.retrying.look_for_pending()
            store.fail(failing)
            await clock.advance(30)
            store.fail()
            rig.publisher.script = lambda _e, _n: PUBLISHED
            await clock.advance(30)
            assert set((await rig.states()).values()) == {State.PUBLISHED}, failing
            assert len(rig.accepted) == 2


async def test_a_fire_committed_while_pending_fires_are_read_is_not_sent_again():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store, script=lambda _e, n: Answer(delay_s=n)) as rig:
        await rig.add("job", "0 9 * * *")
        await clock.advance_to(at("09:00:00"))
        await rig.set("job", when="0 10 * * *")
        store.after_s["pending_due"] = 3.0
        rig.engine.loop.retrying.look_for_pending()
        await clock.advance(10)
        assert rig.sent == [NINE]


async def test_outcomes_that_a_stop_caught_in_a_commit_are_on_record():
    clock, inner = FakeClock(), MemoryStore()
    store = FaultyStore(clock, inner)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "0 9 * * *")
        store.before_s["commit"] = 30.0
        await clock.advance_to(at("09:00:01"))
        assert await rig.states() == {}
    async with running_engine(clock=clock, store=inner) as rig:
        await clock.advance(1)
        assert rig.sent == []
        assert await rig.states() == {NINE: State.PUBLISHED}


async def test_a_stop_on_a_store_that_fails_is_not_clean_and_repeats_nothing_silently():
    clock, inner = FakeClock(), MemoryStore()
    store = FaultyStore(clock, inner)
    with pytest.raises(StoreBusy):  # noqa: PT012 - the end of the block is what raises
        async with running_engine(clock=clock, store=store) as rig:
            await rig.add("job", "0 9 * * *")
            store.fail("commit")
            await clock.advance_to(at("09:00:01"))
    async with running_engine(clock=clock, store=inner) as rig:
        await clock.advance(1)
        assert rig.sent == [NINE]
        assert await rig.states() == {NINE: State.PUBLISHED}


async def test_a_taken_name_is_a_conflict_at_the_store_too():
    async with running_engine() as rig:
        await rig.add("job", "0 9 * * *")
        stored = (await rig.service.get("job")).stored
        from cronally.engine.changing import Wanted

        async with rig.engine.edits.lock:
            with pytest.raises(Conflict):
                await rig.engine.edits.create(Wanted(stored.spec, None), by="t")
        await rig.clock.advance_to(at("09:00:01"))
        assert rig.sent == [NINE]
