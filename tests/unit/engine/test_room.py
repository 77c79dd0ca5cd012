"""What becomes of fires for which there is no room: in memory, on a connection, in a quota."""

from __future__ import annotations

from cronally.domain.model import State
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.recording_publisher import PUBLISHED, Answer
from support.rig import FIFO_TOPIC, TOPIC, running_engine

OTHER = "arn:aws:sns:us-east-1:123456789012:other"
NINE = "2026-11-23T09:00:00Z"
DAILY = "0 9 * * *"


async def crowd(rig, count, *, name="job", when=DAILY, **keys):
    await rig.apply(*({"name": f"{name}-{n:03}", "when": when, "topic": TOPIC, **keys} for n in range(count)))
    await rig.clock.advance(1)


def names(rig):
    return [arrival.entry.name for arrival in rig.publisher.arrivals]


async def released_late_ms(rig):
    return sorted({entry.lateness_us // 1000 for entry in (await rig.journal()).values()})


# --- connections ---


async def test_what_finds_no_room_leaves_when_there_is_some_and_says_how_late():
    async with running_engine(room=0) as rig:
        await crowd(rig, 25)
        await rig.clock.advance_to(NINE)
        assert rig.sent == []
        await rig.clock.advance(0.2)
        rig.publisher.room = 10
        rig.publisher.on_room()
        await rig.clock.advance(1)
        assert sorted(names(rig)) == [f"job-{n:03}" for n in range(25)]
        assert await released_late_ms(rig) == [200]


async def test_no_more_is_in_flight_than_there_is_room_for():
    most = 0

    def slow(_entry, _attempt):
        nonlocal most
        most = max(most, rig.publisher._unanswered)
        return Answer(delay_s=0.1)

    async with running_engine(room=20, script=slow) as rig:
        await crowd(rig, 100)
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(1)
        assert len(rig.accepted) == 100
        assert most <= 20
        assert await released_late_ms(rig) == [0, 100, 200, 300, 400]


async def test_an_urgent_fire_overtakes_what_waits_for_room():
    async with running_engine(room=10, script=lambda *_: Answer(delay_s=0.1)) as rig:
        await crowd(rig, 50)
        await rig.add("urgent", "@at 2026-11-23T09:00:00.250Z", priority=9)
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(2)
        assert names(rig).index("urgent") == 30
        assert len(rig.accepted) == 51


async def test_a_topic_with_one_is_not_behind_one_with_many():
    async with running_engine(room=10, script=lambda *_: Answer(delay_s=0.1)) as rig:
        await crowd(rig, 100)
        await crowd(rig, 1, name="single", topic=OTHER)
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(3)
        assert names(rig).index("single-000") <= 10
        assert len(rig.accepted) == 101


async def test_what_waits_for_room_can_still_be_changed():
    async with running_engine(room=10, script=lambda *_: Answer(delay_s=0.5)) as rig:
        await crowd(rig, 30, message="old", catch_up="all")
        await rig.clock.advance_to(NINE)
        await rig.service.remove("job-000", by="test")
        await rig.service.remove("job-029", by="test", drop_pending=True)
        await rig.set("job-028", when=DAILY, message="new")
        await rig.clock.advance(10)
        # It was due before the change, so the old message still goes; dropped is dropped.
        assert sorted(names(rig)) == [f"job-{n:03}" for n in range(29)]
        assert {a.entry.message for a in rig.publisher.arrivals} == {"old"}
        states = await rig.states()
        assert states[f"job-029@{NINE}"] is State.SKIPPED
        assert list(states.values()).count(State.PUBLISHED) == 29


async def test_what_finds_no_room_for_ten_seconds_waits_in_the_store():
    async with running_engine(room=0) as rig:
        await crowd(rig, 12)
        await rig.clock.advance_to("2026-11-23T09:00:09Z")
        assert await rig.states() == {}
        await rig.clock.advance(3)
        assert set((await rig.states()).values()) == {State.PENDING}
        rig.publisher.room = None
        rig.publisher.on_room()
        await rig.clock.advance(5)
        assert set((await rig.states()).values()) == {State.PUBLISHED}
        assert {entry.attempts for entry in (await rig.journal()).values()} == {1}


async def test_a_fifo_slot_that_waits_for_room_is_not_overtaken_in_its_group():
    async with running_engine(room=0) as rig:
        await rig.add("order", DAILY, topic=FIFO_TOPIC)
        await rig.clock.advance_to("2026-11-23T09:00:00.300Z")
        await rig.service.run("order", by="test")
        rig.publisher.room = None
        rig.publisher.on_room()
        await rig.clock.advance(5)
        assert rig.sent == [f"order@{NINE}", "order@2026-11-23T09:00:00.300Z+manual"]


async def test_a_clock_set_back_makes_nothing_leave_early():
    async with running_engine(room=0) as rig:
        await crowd(rig, 3)
        await rig.clock.advance_to(NINE)
        rig.clock.step_wall(-300)
        rig.publisher.room = None
        rig.publisher.on_room()
        await rig.clock.settle()
        assert rig.sent == []
        await rig.clock.advance(2)
        assert all(a.released_us >= a.entry.fire.due_time * 1000 for a in rig.publisher.arrivals)
        assert len(rig.sent) == 3


# --- quota ---


async def test_what_would_wait_too_long_for_its_quota_waits_in_the_store_and_comes_back_in_time():
    async with running_engine(quota=10) as rig:
        await crowd(rig, 300)
        await rig.clock.advance_to("2026-11-23T08:59:59.999Z")
        assert await rig.states() == {}  # nothing is written before it is due
        await rig.clock.advance(0.2)
        states = list((await rig.states()).values())
        pending = states.count(State.PENDING)
        assert 150 <= pending <= 200
        await rig.clock.advance(60)
        journal = await rig.journal()
        assert {entry.state for entry in journal.values()} == {State.PUBLISHED}
        assert {entry.attempts for entry in journal.values()} == {1}
        late_s = sorted(entry.lateness_us / 1_000_000 for entry in journal.values())
        assert all(n / 10 - 3 <= late <= n / 10 + 1 for n, late in enumerate(late_s)), late_s


async def test_what_is_put_by_until_it_is_due_can_be_withdrawn():
    async with running_engine(quota=0.1) as rig:
        await crowd(rig, 30)
        await rig.clock.advance_to("2026-11-23T08:59:59.500Z")
        for number in range(30):
            await rig.service.remove(f"job-{number:03}", by="test")
        await rig.clock.advance(120)
        assert rig.sent == []
        assert await rig.journal() == {}


async def test_a_deadline_holds_for_what_waits_for_its_quota():
    async with running_engine(quota=1) as rig:
        await crowd(rig, 100, deadline="15s")
        await rig.clock.advance(200)
        states = list((await rig.states()).values())
        assert set(states) == {State.PUBLISHED, State.EXPIRED}
        for arrival in rig.publisher.arrivals:
            assert arrival.released_us // 1000 - arrival.entry.fire.due_time <= 15_000


async def test_an_urgent_fire_does_not_wait_for_the_quota_that_others_wait_for():
    async with running_engine(quota=1) as rig:
        await crowd(rig, 100)
        await crowd(rig, 3, name="urgent", priority=8)
        await crowd(rig, 2, name="other", topic=OTHER)
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(0.1)
        states = await rig.states()
        waiting = {fire_id.partition("-")[0] for fire_id, state in states.items() if state is State.PENDING}
        assert waiting == {"job"}


async def test_after_a_crash_nothing_that_waited_is_lost():
    async with running_engine(quota=2, room=10, crash=True, script=lambda *_: Answer(delay_s=2)) as rig:
        await crowd(rig, 100, catch_up="all")
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(1)
        before = len(rig.accepted)
    async with running_engine(clock=rig.clock, store=rig.store) as again:
        await again.clock.advance(400)
        states = await again.states()
        assert len(states) == 100
        assert set(states.values()) == {State.PUBLISHED}
        assert before < 100


# --- memory ---


async def test_a_crowd_larger_than_memory_leaves_at_its_instant_all_the_same():
    async with running_engine(armed_budget_bytes=3_000) as rig:
        await crowd(rig, 200)
        await rig.clock.advance_to("2026-11-23T08:59:59.999Z")
        assert sum(len(armed.batch.entries) for armed in rig.publisher.armed) < 20
        await rig.clock.advance(0.001)
        assert sorted(names(rig)) == [f"job-{n:03}" for n in range(200)]
        await rig.clock.advance(1)
        assert await released_late_ms(rig) == [0]


async def test_what_is_due_now_does_not_wait_behind_what_is_armed_for_later():
    async with running_engine(armed_budget_bytes=100) as rig:
        await rig.add("later", "@every 2s")
        await rig.clock.advance_to("2026-11-23T08:59:58.100Z")
        await rig.add("tick", "@every 1s")
        await rig.clock.advance_to("2026-11-23T09:00:01.500Z")
        assert {a.released_us // 1000 - a.entry.fire.due_time for a in rig.publisher.arrivals} == {0}
        assert [name for name in names(rig) if name == "tick"] == ["tick"] * 3


async def test_a_schedule_that_is_changed_while_its_crowd_is_planned_fires_by_its_new_rule():
    async with running_engine(armed_budget_bytes=1) as rig:
        await crowd(rig, 40, message="old")
        await rig.clock.advance_to("2026-11-23T08:59:59Z")
        await rig.service.remove("job-010", by="test")
        await rig.set("job-020", when=DAILY, message="new")
        await rig.set("job-030", when="1 9 * * *", message="new")
        await rig.service.pause("job-035", by="test")
        await rig.clock.advance_to("2026-11-23T09:00:59Z")
        gone = {"job-010", "job-030", "job-035"}
        assert sorted(names(rig)) == sorted({f"job-{n:03}" for n in range(40)} - gone)
        assert [a.entry.name for a in rig.publisher.arrivals if a.entry.message == "new"] == ["job-020"]
        await rig.clock.advance(2)
        assert names(rig)[-1] == "job-030"


async def test_a_crowd_that_memory_holds_up_for_long_is_written_down():
    async with running_engine(armed_budget_bytes=1, room=0, script=lambda *_: PUBLISHED) as rig:
        await crowd(rig, 40)
        await rig.clock.advance_to("2026-11-23T09:00:30Z")
        states = await rig.states()
        assert len(states) == 40
        assert set(states.values()) == {State.PENDING}
        assert rig.engine.core.watermark(rig.clock.wall()) >= rig.clock.wall() - 2_000


# --- what a backlog must not hold up ---


async def test_a_long_backlog_does_not_hold_up_manual_fires_and_groups():
    def slow(entry, _attempt):
        return Answer(delay_s=30 if entry.name.startswith("job") else 0)

    async with running_engine(room=100, script=slow) as rig:
        await rig.apply(*({"name": f"job-{n:04}", "when": DAILY, "topic": TOPIC} for n in range(3_000)))
        await rig.add("single", "@every 1h", topic=OTHER)
        await rig.add("order", "@every 1h", topic=FIFO_TOPIC, group="g")
        await rig.clock.advance_to(
            "2026-11-23T09:00:20Z"
        )  # most of them are pending by now, and more than may be retried
        rig.publisher.room = 5_000
        rig.publisher.on_room()
        await rig.clock.advance(2)
        for name in ("single", "order", "order"):
            await rig.service.run(name, by="test")
            await rig.clock.advance(0.5)
        manual = [name for name in names(rig) if not name.startswith("job")]
        assert sorted(manual[:2]) == ["order", "single"]
        assert manual[2:] == ["single", "order", "order"]


async def test_what_is_put_off_stands_in_line():
    clock = FakeClock()
    async with running_engine(clock=clock, store=FaultyStore(clock), quota=10) as rig:
        await crowd(rig, 1_500)
        await rig.clock.advance_to("2026-11-23T09:00:01Z")
        waiting = [entry for entry in (await rig.journal()).values() if entry.state is State.PENDING]
        assert len(waiting) > 1_000
        assert all(entry.is_in_line for entry in waiting)
        writes = rig.store.calls["commit"]
        await rig.clock.advance(60)
        assert 600 <= len(rig.sent) <= 650
        assert names(rig)[150:] == sorted(names(rig)[150:])
        assert rig.store.calls["in_line"] < 500  # a page a time, and not each of them again and again
        await rig.clock.advance(100)
        assert len(rig.accepted) == len(set(rig.accepted)) == 1_500
        assert rig.store.calls["commit"] - writes < 2_000


async def test_a_crowd_is_put_off_in_parts():
    async with running_engine(room=0) as rig:
        await crowd(rig, 2_000)
        await rig.clock.advance_to("2026-11-23T09:00:12Z")
        states = list((await rig.states()).values())
        assert states.count(State.PENDING) == 2_000


async def test_fifo_slots_of_a_crowd_enter_their_group_in_its_order_however_they_are_planned():
    async with running_engine(armed_budget_bytes=1) as rig:
        for number in (3, 1, 2, 0):
            name = f"order-{number}"
            await rig.add(name, DAILY, topic=FIFO_TOPIC, group="shared", priority=number)
        await crowd(rig, 30)
        await rig.clock.advance_to("2026-11-23T09:00:30Z")
        orders = [name for name in names(rig) if name.startswith("order")]
        assert orders == [f"order-{number}" for number in range(4)]
