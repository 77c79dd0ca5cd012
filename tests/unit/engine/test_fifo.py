"""Order within a message group: one on its way, the next when it is settled."""

from __future__ import annotations

import pytest

from cronally.domain.model import SkipReason, State
from cronally.engine.fifo import GroupKey
from cronally.instants import format_utc, parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.memory_store import MemoryStore
from support.recording_publisher import (
    LOST_ACKNOWLEDGEMENT,
    PUBLISHED,
    REJECTED,
    THROTTLED,
    TOPIC_GONE,
    Answer,
)
from support.rig import FIFO_TOPIC, running_engine

FIFO = {"topic": FIFO_TOPIC, "group": "g", "catch_up": "all"}


def at(time):
    return parse_rfc3339(f"2026-11-23T{time}Z")


def assert_one_at_a_time(rig):
    """No two attempts of one group overlap, and first attempts are in the order (due, fire time, name)."""
    ends = {}
    firsts = {}
    for arrival in rig.publisher.arrivals:
        key = (arrival.entry.topic, arrival.entry.group)
        assert arrival.released_us >= ends.get(key, 0)
        ends[key] = arrival.released_us + arrival.answer.delay_s * 1e6
        if arrival.attempt == 1:
            fire = arrival.entry.fire
            firsts.setdefault(key, []).append((fire.due_time, fire.fire_time, arrival.entry.name))
    for order in firsts.values():
        assert order == sorted(order)


async def test_the_group_is_the_users_or_the_name_and_the_fire_id_removes_duplicates():
    async with running_engine() as rig:
        await rig.add("mine", "0 9 * * *", topic=FIFO_TOPIC)
        await rig.add("shared", "0 9 * * *", **FIFO)
        await rig.clock.advance_to(at("09:00:01"))
        assert {(a.entry.name, a.entry.group, a.entry.deduplication) for a in rig.publisher.arrivals} == {
            ("mine", "mine", "mine@2026-11-23T09:00:00Z"),
            ("shared", "g", "shared@2026-11-23T09:00:00Z"),
        }


async def test_a_shared_group_sends_one_at_a_time_in_order():
    async with running_engine(script=lambda _e, _n: Answer(delay_s=0.05)) as rig:
        for name in "dbca":
            await rig.add(name, "0 9 * * *", **FIFO)
        await rig.clock.advance_to(at("09:00:01"))
        assert [a.entry.name for a in rig.publisher.arrivals] == ["a", "b", "c", "d"]
        assert [a.released_us // 1000 - at("09:00:00") for a in rig.publisher.arrivals] == [0, 50, 100, 150]
        assert set((await rig.states()).values()) == {State.PUBLISHED}


async def test_groups_of_one_topic_do_not_wait_for_each_other():
    async with running_engine() as rig:
        for number in range(25):
            await rig.add(f"job-{number}", "0 9 * * *", topic=FIFO_TOPIC)
        await rig.clock.advance_to(at("09:00:00"))
        assert len(rig.sent) == 25
        assert len({a.batch for a in rig.publisher.arrivals}) == 3


async def test_a_batch_holds_one_entry_of_a_group():
    async with running_engine() as rig:
        for number in range(30):
            await rig.add(f"job-{number}", "0 9 * * *", topic=FIFO_TOPIC, group=f"g{number % 4}")
        await rig.clock.advance_to(at("09:00:02"))
        assert len(set(rig.sent)) == len(rig.sent) == 30
        groups = [(a.batch, a.entry.group) for a in rig.publisher.arrivals]
        assert len(groups) == len(set(groups))
        assert_one_at_a_time(rig)


@pytest.mark.parametrize(
    ("first", "seconds"), [(THROTTLED, 20), (TOPIC_GONE, 620), (LOST_ACKNOWLEDGEMENT, 20)]
)
async def test_a_head_that_is_tried_again_keeps_the_group_busy(first, seconds):
    def script(entry, attempt):
        return first if entry.fire_id.endswith("09:00:00Z") and attempt < 3 else PUBLISHED

    async with running_engine(script=script) as rig:
        await rig.add("job", "@every 10s", **FIFO)
        await rig.clock.advance_to(at("09:00:00"))
        await rig.clock.advance(seconds)
        assert_one_at_a_time(rig)
        ids = list(dict.fromkeys(rig.accepted))
        assert ids == sorted(ids)
        assert len(ids) == seconds // 10 + 3
        assert set((await rig.states()).values()) == {State.PUBLISHED}


async def test_a_slot_due_in_a_busy_group_is_pending_at_its_place():
    script = {"a": Answer(delay_s=5)}
    async with running_engine(script=lambda e, _n: script.get(e.name, PUBLISHED)) as rig:
        await rig.add("a", "0 9 * * *", **FIFO)
        await rig.add("c", "@at 2026-11-23T09:00:01Z", **FIFO)
        await rig.add("b", "@at 2026-11-23T09:00:01Z", **FIFO)
        await rig.clock.advance_to(at("09:00:04"))
        assert list((await rig.states()).values()) == [State.PENDING, State.PENDING]
        await rig.clock.advance(2)
        assert [a.entry.name for a in rig.publisher.arrivals] == ["a", "b", "c"]
        assert set((await rig.states()).values()) == {State.PUBLISHED}
        entry = (await rig.journal())["b@2026-11-23T09:00:01Z"]
        assert (entry.attempts, entry.lateness_us) == (1, 4_000_000)


@pytest.mark.parametrize("outcome", [REJECTED, PUBLISHED])
async def test_a_settled_head_makes_room(outcome):
    async with running_engine(script=lambda e, _n: outcome if e.name == "a" else PUBLISHED) as rig:
        await rig.add("a", "0 9 * * *", **FIFO)
        await rig.add("b", "0 9 * * *", **FIFO)
        await rig.clock.advance_to(at("09:00:01"))
        assert [a.entry.name for a in rig.publisher.arrivals] == ["a", "b"]


async def test_an_expired_head_makes_room():
    async with running_engine(script=lambda e, _n: THROTTLED if e.name == "a" else PUBLISHED) as rig:
        await rig.add("a", "0 9 * * *", **FIFO, deadline="5s")
        await rig.add("b", "0 9 * * *", **FIFO)
        await rig.clock.advance_to(at("09:00:06"))
        states = await rig.states()
        assert states == {"a@2026-11-23T09:00:00Z": State.EXPIRED, "b@2026-11-23T09:00:00Z": State.PUBLISHED}


async def test_superseded_fires_of_a_group_make_room_one_after_the_other():
    async with running_engine(script=lambda _e, _n: TOPIC_GONE) as rig:
        await rig.add("job", "@every 10s", **FIFO | {"catch_up": "latest"})
        await rig.clock.advance_to(at("09:04:00"))
        rig.publisher.script = lambda _e, _n: PUBLISHED
        await rig.clock.advance_to(at("09:04:45"))
        entries = await rig.journal()
        superseded = [e for e in entries.values() if e.reason is SkipReason.SUPERSEDED]
        published = [e for e in entries.values() if e.state is State.PUBLISHED]
        assert len(superseded) + len(published) == len(entries) == 31
        assert max(e.fire_time for e in superseded) < min(e.fire_time for e in published)
        assert min(e.fire_time for e in published) >= at("09:04:20")


async def test_more_than_a_hundred_wait_and_all_go_in_order():
    def script(entry, _attempt):
        return Answer(delay_s=400) if entry.fire_id.endswith("08:59:31Z") else PUBLISHED

    async with running_engine(script=script) as rig:
        await rig.add("a", "@every 1s", **FIFO)
        await rig.add("b", "@every 2s", **FIFO)
        await rig.clock.advance(405)
        assert_one_at_a_time(rig)
        assert len(set(rig.sent)) == len(rig.sent) == 405 + 202
        assert set((await rig.states()).values()) == {State.PUBLISHED}


@pytest.mark.parametrize("crash", [False, True])
async def test_a_group_goes_on_in_order_after_a_restart(crash):
    clock, store = FakeClock(), MemoryStore()
    async with running_engine(clock=clock, store=store, script=lambda _e, _n: THROTTLED, crash=crash) as rig:
        await rig.add("b", "@every 10s", **FIFO)
        await rig.add("a", "@every 10s", **FIFO)
        await clock.advance_to(at("09:00:05"))
    await clock.advance_to(at("09:00:35"))
    async with running_engine(clock=clock, store=store) as rig:
        await clock.advance_to(at("09:00:50"))
        slots = [format_utc(at("08:59:30") + 10_000 * n) for n in range(1, 9)]
        assert rig.accepted == [f"{name}@{slot}" for slot in slots for name in "ab"]


@pytest.mark.parametrize("slow", ["commit", "group_pending", "specs"])
@pytest.mark.parametrize("where", ["before_s", "after_s"])
async def test_a_slot_that_comes_due_while_its_group_is_read_keeps_its_place(slow, where):
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store, script=lambda _e, _n: THROTTLED) as rig:
        await rig.add("a", "@every 1s", **FIFO)
        await clock.advance(5)
    getattr(store, where)[slow] = 2.3
    async with running_engine(clock=clock, store=store) as rig:
        await clock.advance(40)
        getattr(store, where).clear()
        await clock.advance(5)
        assert_one_at_a_time(rig)
        assert rig.accepted == sorted(set(rig.accepted))
        assert set((await rig.states()).values()) == {State.PUBLISHED}


async def test_a_store_that_fails_while_a_group_is_read_keeps_the_order():
    clock = FakeClock()
    inner = MemoryStore()
    async with running_engine(clock=clock, store=inner, script=lambda _e, _n: THROTTLED) as rig:
        await rig.add("a", "@every 1s", **FIFO)
        await rig.add("b", "@every 3s", topic=FIFO_TOPIC, catch_up="all")
        await clock.advance(10)
    store = FaultyStore(clock, inner)
    store.fail("group_pending")
    async with running_engine(clock=clock, store=store) as rig:
        await clock.advance(5)
        assert rig.sent == []
        store.fail()
        await clock.advance(5)
        assert_one_at_a_time(rig)
        assert len(rig.accepted) == len(set(rig.accepted)) == 20 + 6
        assert set((await rig.states()).values()) == {State.PUBLISHED}


async def test_removing_the_schedule_of_a_head_lets_it_finish():
    async with running_engine(script=lambda e, n: THROTTLED if e.name == "a" and n < 6 else PUBLISHED) as rig:
        await rig.add("a", "0 9 * * *", **FIFO)
        await rig.add("b", "0 9 * * *", **FIFO)
        await rig.clock.advance_to(at("09:00:00"))
        await rig.service.remove("a", by="t")
        await rig.clock.advance(30)
        assert rig.accepted == ["a@2026-11-23T09:00:00Z", "b@2026-11-23T09:00:00Z"]


@pytest.mark.parametrize("failing", ["a", "b"])
async def test_dropping_one_schedule_of_a_group_lets_the_others_go_on(failing):
    async with running_engine(script=lambda e, _n: THROTTLED if e.name == failing else PUBLISHED) as rig:
        for name in "abc":
            await rig.add(name, "@every 10s", **FIFO)
        await rig.clock.advance_to(at("09:00:05"))
        await rig.service.remove(failing, by="t", drop_pending=True)
        await rig.clock.advance_to(at("09:00:15"))
        others = [name for name in "abc" if name != failing]
        slots = [format_utc(at("08:59:30") + 10_000 * n) for n in range(1, 5)]
        expected = [f"{name}@{slot}" for slot in slots for name in others]
        assert sorted(rig.accepted) == sorted(expected)
        assert_one_at_a_time(rig)
        assert {e.reason for e in (await rig.journal(failing)).values()} == {SkipReason.DROPPED}


async def test_dropping_a_waiting_fire_leaves_the_head_in_flight():
    async with running_engine(script=lambda _e, _n: Answer(delay_s=8)) as rig:
        await rig.add("a", "0 9 * * *", **FIFO)
        await rig.add("b", "0 9 * * *", **FIFO)
        await rig.add("c", "0 9 * * *", **FIFO)
        await rig.clock.advance_to(at("09:00:01"))
        await rig.service.remove("b", by="t", drop_pending=True)
        await rig.clock.advance(20)
        assert rig.accepted == ["a@2026-11-23T09:00:00Z", "c@2026-11-23T09:00:00Z"]
        assert_one_at_a_time(rig)


async def test_a_manual_run_takes_its_place_in_the_group():
    async with running_engine(script=lambda _e, _n: Answer(delay_s=1)) as rig:
        await rig.add("job", "@every 10s", **FIFO)
        await rig.clock.advance_to(at("08:59:40"))
        await rig.clock.advance(0.2)
        fire_id = await rig.service.run("job", by="t")
        await rig.clock.advance_to(at("08:59:55"))
        assert rig.accepted == ["job@2026-11-23T08:59:40Z", fire_id, "job@2026-11-23T08:59:50Z"]
        assert_one_at_a_time(rig)


@pytest.mark.parametrize("is_written", [True, False])
async def test_a_slot_that_comes_due_while_a_run_is_written_goes_after_it(is_written):
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 10s", **FIFO)
        await clock.advance_to(at("08:59:39.900"))
        store.before_s["add_manual"] = 0.3
        if not is_written:
            store.fail("add_manual")
        running = rig.start(rig.service.run("job", by="t"))
        await clock.advance(0.2)
        assert rig.sent == []
        await clock.advance(2)
        run = [] if running.exception() else [running.result()]
        assert rig.accepted == [*run, "job@2026-11-23T08:59:40Z"]
        assert len(run) == is_written
        assert_one_at_a_time(rig)
        assert set((await rig.states()).values()) == {State.PUBLISHED}


async def test_a_removed_name_used_again_keeps_the_order_of_its_group():
    async with running_engine(script=lambda _e, n: THROTTLED if n < 7 else PUBLISHED) as rig:
        await rig.add("job", "@every 10s", topic=FIFO_TOPIC, catch_up="all")
        await rig.clock.advance_to(at("08:59:45"))
        await rig.service.remove("job", by="t")
        await rig.add("job", "@every 10s", topic=FIFO_TOPIC, catch_up="all")
        await rig.clock.advance(100)
        assert rig.accepted == sorted(rig.accepted)
        assert_one_at_a_time(rig)


async def test_a_slot_that_comes_due_while_outcomes_are_committed_before_a_refill_keeps_its_place():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("a", "@every 2s", **FIFO)
        await clock.advance_to(at("08:59:40"))
        store.before_s["commit"] = 3.0  # the outcome of the slot at :40 waits
        rig.engine.core.groups.mark_busy(GroupKey(FIFO_TOPIC, "g"))
        rig.engine.loop.note_committed()
        await clock.advance(2.5)
        store.before_s.clear()
        await clock.advance(10)
        assert_one_at_a_time(rig)
        assert len(set(rig.sent)) == len(rig.sent) == 11
        assert set((await rig.states()).values()) == {State.PUBLISHED}


async def test_a_run_while_the_planner_is_busy_comes_after_the_slots_that_are_late():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 1s", topic=FIFO_TOPIC, catch_up="all")
        await clock.advance(2.5)
        store.before_s["specs"] = 6.0
        await rig.add("neighbour", "@every 1s")
        store.before_s.clear()
        await clock.advance(4)
        fire_id = await rig.service.run("job", by="t")
        await clock.advance(5)
        assert_one_at_a_time(rig)
        assert len(set(rig.sent)) == len(rig.sent)
        mine = [id_ for id_ in rig.sent if id_.startswith("job")]
        assert mine[6] == fire_id


async def test_a_run_right_after_a_step_of_the_clock_comes_after_the_slots_that_are_late():
    async with running_engine() as rig:
        await rig.add("job", "@every 1s", topic=FIFO_TOPIC, catch_up="all")
        await rig.clock.advance(2.5)
        rig.clock.step_wall(8_000)
        fire_id = await rig.service.run("job", by="t")
        await rig.clock.advance(5)
        assert_one_at_a_time(rig)
        assert len(set(rig.sent)) == len(rig.sent) == 16
        assert rig.sent[10] == fire_id


async def test_a_change_right_after_a_step_of_the_clock_keeps_the_order_of_a_shared_group():
    async with running_engine() as rig:
        await rig.add("a", "@every 3s", **FIFO)
        await rig.add("b", "@every 1s", **FIFO)
        await rig.clock.advance(2.5)
        rig.clock.step_wall(30_000)
        await rig.set("a", when="@every 3s", message="new", **FIFO)
        await rig.clock.advance(5)
        assert_one_at_a_time(rig)
        assert len(set(rig.sent)) == len(rig.sent)
        assert set((await rig.states()).values()) == {State.PUBLISHED}


async def test_a_head_that_is_being_armed_again_when_recovery_begins_is_not_forgotten():
    def script(entry, attempt):
        return Answer(delay_s=300) if entry.name == "busy" and attempt == 1 else PUBLISHED

    async with running_engine(script=script) as rig:
        await rig.add("busy", "@at 2026-11-23T08:59:50Z", **FIFO)
        await rig.add("behind", "@at 2026-11-23T09:00:00Z", **FIFO)
        await rig.add("free", "@at 2026-11-23T09:00:00Z", topic=FIFO_TOPIC, catch_up="all")
        await rig.clock.advance_to("2026-11-23T08:59:59.500Z")
        arm = rig.publisher.arm

        async def slow_arm(batches, instant):
            await rig.clock.sleep(5)
            return await arm(batches, instant)

        rig.publisher.arm = slow_arm
        await rig.clock.advance(1)
        assert rig.sent == ["busy@2026-11-23T08:59:50Z"]
        await rig.clock.suspend(30)
        await rig.clock.advance(20)
        assert rig.sent[1:] == ["free@2026-11-23T09:00:00Z"]


async def test_priority_orders_groups_and_never_the_fires_within_one():
    async with running_engine() as rig:
        for name, priority in (("c", 9), ("a", 1), ("b", 5)):
            await rig.add(name, "0 9 * * *", topic=FIFO_TOPIC, group="shared", priority=priority)
        await rig.clock.advance(32)
        assert [arrival.entry.name for arrival in rig.publisher.arrivals] == ["a", "b", "c"]
