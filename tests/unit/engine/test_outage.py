"""What becomes of slots while SNS refuses everything for a topic, and after."""

from __future__ import annotations

import pytest

from cronally.domain.model import SkipReason, State
from cronally.engine.measures import Measures
from cronally.instants import parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.recording_publisher import PUBLISHED, THROTTLED, TIMED_OUT, TOPIC_GONE, Answer
from support.rig import FIFO_TOPIC, TOPIC, running_engine

OTHER = "arn:aws:sns:us-east-1:123456789012:other"
WEST = "arn:aws:sns:us-west-2:123456789012:reports"


def at(time):
    return parse_rfc3339(f"2026-11-23T{time}Z")


class Circuit(Measures):
    """Remembers what is said of circuits."""

    def __init__(self):
        super().__init__()
        self.said = []

    def circuit_opened(self, topic, error):
        self.said.append(("opened", topic, error))

    def circuit_closed(self, topic, opened_at):
        self.said.append(("closed", topic, opened_at))


def refusing(*topics, answer=TOPIC_GONE):
    return lambda entry, _n: answer if entry.topic in topics else PUBLISHED


async def crowd(rig, count, *, name="job", when="* * * * *", **keys):
    await rig.apply(*({"name": f"{name}-{n:03}", "when": when, "topic": TOPIC, **keys} for n in range(count)))


async def heal(rig):
    rig.publisher.script = lambda _e, _n: PUBLISHED


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    return FaultyStore(clock)


async def test_while_a_topic_is_gone_only_probes_go_and_nothing_is_kept_in_memory(clock, store):
    hooks = Circuit()
    async with running_engine(clock=clock, store=store, hooks=hooks, script=refusing(TOPIC)) as rig:
        await crowd(rig, 40, catch_up="all")
        await rig.add("well", "* * * * *", topic=OTHER)
        await clock.advance_to(at("09:00:30"))
        await clock.advance_to(at("10:00:30"))
        of_topic = [arrival for arrival in rig.publisher.arrivals if arrival.entry.topic == TOPIC]
        assert len(of_topic) == 40 + 12
        assert len([arrival for arrival in rig.publisher.accepted if arrival.entry.name == "well"]) == 61
        states = list((await rig.states()).values())
        assert states.count(State.PENDING) == 61 * 40
        assert len(rig.engine.core._held) == 0
        assert store.calls["in_line"] <= 3 * 12
        assert store.calls["pending_due"] <= 3
        assert rig.engine.core.watermark(clock.wall()) == at("10:00:30")
        assert {(await rig.service.get(f"job-{n:03}")).stored.error for n in range(40)} == {TOPIC_GONE.error}
        await heal(rig)
        await clock.advance(400)
        assert set((await rig.states()).values()) == {State.PUBLISHED}
        assert len(rig.accepted) == len(set(rig.accepted))
        assert (await rig.service.get("job-000")).stored.error is None
        assert [said[0] for said in hooks.said] == ["opened", "closed"]
        assert hooks.said[0][2] == TOPIC_GONE.error
        assert hooks.said[1][2] == at("09:00:00")


async def test_when_it_returns_the_backlog_goes_by_priority_and_due_time_with_the_topics_in_turn(
    clock, store
):
    async with running_engine(clock=clock, store=store, script=refusing(TOPIC, OTHER), quota=20) as rig:
        for topic, name in ((TOPIC, "here"), (OTHER, "there")):
            for priority in (2, 5, 9):
                keys = {"topic": topic, "priority": priority, "catch_up": "all"}
                await crowd(rig, 15, name=f"{name}-{priority}", **keys)
        await clock.advance_to(at("09:20:30"))
        await heal(rig)
        before = len(rig.publisher.arrivals)
        await clock.advance_to(at("09:25:05"))
        await clock.advance(300)
        went = [
            arrival.entry
            for arrival in rig.publisher.arrivals[before:]
            if arrival.entry.fire.due_time < at("09:20:30")
        ]
        for priority in (9, 5, 2):
            of = [entry for entry in went if entry.priority == priority]
            for topic in (TOPIC, OTHER):
                dues = [entry.fire.due_time for entry in of if entry.topic == topic]
                late = [n for n, due in enumerate(dues) if dues[:n] and due < max(dues[:n])]
                assert len(late) <= 12, (priority, topic, len(late))  # probes, and what was tried at first
        last = {p: max(n for n, entry in enumerate(went) if entry.priority == p) for p in (9, 5, 2)}
        first = {p: [n for n, entry in enumerate(went) if entry.priority == p][5] for p in (9, 5, 2)}
        assert last[9] <= first[5] + 60  # what is armed is not called back
        assert last[5] <= first[2] + 60
        half = [entry.topic for entry in went if entry.priority == 9]
        half = half[: len(half) // 2]
        assert abs(half.count(TOPIC) - half.count(OTHER)) <= 60


async def test_new_slots_go_on_time_beside_a_backlog(clock):
    async with running_engine(clock=clock, script=refusing(TOPIC), quota=30) as rig:
        await crowd(rig, 200, catch_up="all")
        await clock.advance_to(at("09:10:30"))
        await crowd(rig, 1, name="tick", when="@every 1s", topic=OTHER)
        await heal(rig)
        await clock.advance_to(at("09:12:00"))
        ticks = [a for a in rig.publisher.arrivals if a.entry.name.startswith("tick")]
        late_ms = [a.released_us // 1000 - a.entry.fire.due_time for a in ticks]
        assert len(ticks) > 80
        assert max(late_ms) <= 2_000
        pending = [state for state in (await rig.states()).values() if state is State.PENDING]
        assert pending


async def test_what_waits_expires_at_its_deadline_with_what_sns_said(clock, store):
    async with running_engine(clock=clock, store=store, script=refusing(TOPIC, FIFO_TOPIC)) as rig:
        await crowd(rig, 5, catch_up="all", deadline="10m")
        await crowd(rig, 3, name="order", topic=FIFO_TOPIC, group="one", catch_up="all", deadline="10m")
        await clock.advance_to(at("09:30:30"))
        rows = (await rig.journal()).values()
        for row in rows:
            expected = State.EXPIRED if row.due_time + 600_000 <= clock.wall() else State.PENDING
            assert row.state is expected, row
        expired = [row for row in rows if row.state is State.EXPIRED]
        assert len(expired) == 8 * 21
        without = [row for row in expired if row.last_error != TOPIC_GONE.error]
        assert {row.due_time for row in without} <= {
            at("08:59:00"),
            at("09:00:00"),
        }  # behind another of their group
        tried = [row for row in expired if row.due_time == at("09:00:00") and row.released_at is not None]
        assert len(tried) == 6


async def test_under_latest_one_pending_slot_is_left_of_each_schedule(clock, store):
    async with running_engine(clock=clock, store=store, script=refusing(TOPIC, FIFO_TOPIC)) as rig:
        await crowd(rig, 5)
        await crowd(rig, 2, name="order", topic=FIFO_TOPIC)
        await rig.add("all", "* * * * *", catch_up="all")
        await clock.advance_to(at("09:04:02"))
        entries = (await rig.journal()).values()
        pending = [row for row in entries if row.state is State.PENDING and row.schedule_id <= 7]
        assert {row.due_time for row in pending} == {at("09:04:00")}
        superseded = [row for row in entries if row.reason is SkipReason.SUPERSEDED]
        assert len(superseded) == 7 * 4
        assert {row.last_error for row in superseded} == {TOPIC_GONE.error}
        assert len([row for row in entries if row.state is State.PENDING]) == 7 + 5
        await heal(rig)
        await clock.advance_to(at("09:05:30"))
        counts = [name for name in rig.accepted if name.startswith("job-000")]
        assert counts in (
            ["job-000@2026-11-23T09:05:00Z"],
            [f"job-000@2026-11-23T09:0{n}:00Z" for n in (4, 5)],
        )


async def test_slots_within_ten_seconds_of_a_newer_one_are_not_superseded(clock):
    async with running_engine(clock=clock, script=refusing(TOPIC)) as rig:
        await rig.add("job", "@every 1s")
        await clock.advance_to(at("09:00:00.500"))
        pending = [row.due_time for row in (await rig.journal()).values() if row.state is State.PENDING]
        assert sorted(pending) == [at("09:00:00") - 1_000 * n for n in range(10, -1, -1)]


async def test_status_names_what_refuses_how_much_waits_and_when_it_is_tried_again(clock):
    async with running_engine(clock=clock, script=refusing(TOPIC, FIFO_TOPIC)) as rig:
        await crowd(rig, 3, catch_up="all")
        await crowd(rig, 2, name="order", topic=FIFO_TOPIC, group="one", catch_up="all")
        await clock.advance_to(at("09:02:30"))
        status = await rig.reporting.status()
        assert status.refusing_count == 2
        assert [one.topic for one in status.refusing] == [FIFO_TOPIC, TOPIC]
        for one, pending in zip(status.refusing, (6, 9), strict=True):
            assert (one.since, one.error, one.pending) == (at("09:00:00"), TOPIC_GONE.error, pending)
            assert one.next_probe == at("09:05:00")
        await heal(rig)
        await clock.advance_to(at("09:06:30"))
        assert (await rig.reporting.status()).refusing == ()


async def test_throttling_opens_nothing(clock):
    hooks = Circuit()
    async with running_engine(clock=clock, hooks=hooks, script=lambda _e, _n: THROTTLED) as rig:
        await crowd(rig, 20, catch_up="all")
        await clock.advance_to(at("09:05:00"))
        assert hooks.said == []
        assert rig.engine.loop.circuits.open == {}


async def test_one_entry_that_is_held_while_its_neighbours_go_opens_nothing(clock):
    hooks = Circuit()
    script = lambda entry, _n: TOPIC_GONE if entry.name == "job-003" else PUBLISHED  # noqa: E731
    async with running_engine(clock=clock, hooks=hooks, script=script) as rig:
        await crowd(rig, 20, catch_up="all")
        await clock.advance_to(at("09:03:00"))
        assert hooks.said == []
        assert len(rig.accepted) == 19 * 4


async def test_what_is_armed_when_the_circuit_opens_does_not_go(clock):
    async with running_engine(clock=clock, script=refusing(TOPIC)) as rig:
        await rig.add("first", "@at 2026-11-23T09:00:00Z")
        await rig.add("second", "@at 2026-11-23T09:00:00.900Z", catch_up="all")
        await clock.advance_to(at("08:59:59.500"))
        assert len(rig.publisher.armed) == 2
        await clock.advance(3)
        assert rig.sent == ["first@2026-11-23T09:00:00Z"]
        assert set((await rig.states()).values()) == {State.PENDING}


async def test_a_probe_that_fails_is_followed_by_another_message(clock):
    def poison(entry, _n):
        return TOPIC_GONE if entry.name == "job-000" or clock.wall() < at("09:00:01") else PUBLISHED

    async with running_engine(clock=clock, script=poison) as rig:
        await crowd(rig, 3, when="0 9 * * *")
        await clock.advance_to(at("09:04:59"))
        assert rig.accepted == []
        await clock.advance_to(at("09:10:01"))
        assert sorted(rig.accepted) == [f"job-00{n}@2026-11-23T09:00:00Z" for n in (1, 2)]


async def test_a_probe_goes_at_once_when_there_was_nothing_to_probe_with(clock):
    async with running_engine(clock=clock, script=refusing(TOPIC, answer=TIMED_OUT)) as rig:
        await rig.add("job", "0 9 * * *", deadline="30s")
        await clock.advance_to(at("09:10:00"))
        assert set((await rig.states()).values()) == {State.EXPIRED}
        await heal(rig)
        await rig.add("next", "@at 2026-11-23T09:20:00Z")
        await clock.advance_to(at("09:20:01"))
        assert rig.accepted == ["next@2026-11-23T09:20:00Z"]


async def test_a_topic_that_nothing_waits_for_is_forgotten_after_ten_minutes(clock):
    hooks = Circuit()
    async with running_engine(clock=clock, hooks=hooks, script=refusing(TOPIC, FIFO_TOPIC)) as rig:
        await crowd(rig, 2)
        await rig.add("order", "* * * * *", topic=FIFO_TOPIC)
        await clock.advance_to(at("09:02:30"))
        for name in ("job-000", "job-001", "order"):
            await rig.service.remove(name, by="test", drop_pending=True)
        await clock.advance_to(at("09:11:30"))
        assert len(rig.engine.loop.circuits.open) == 2
        await clock.advance_to(at("09:14:30"))
        assert rig.engine.loop.circuits.open == {}
        assert [said[0] for said in hooks.said] == ["opened", "opened"]
        await heal(rig)
        for name, topic in (("a", TOPIC), ("b", FIFO_TOPIC)):
            await rig.add(name, "@at 2026-11-23T09:20:00Z", topic=topic)
        await clock.advance_to(at("09:20:01"))
        assert sorted(rig.accepted) == ["a@2026-11-23T09:20:00Z", "b@2026-11-23T09:20:00Z"]


async def test_a_manual_fire_waits_in_line_and_has_its_topic_tried_at_once(clock):
    async with running_engine(clock=clock, script=refusing(TOPIC, FIFO_TOPIC)) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.add("order", "0 9 * * *", topic=FIFO_TOPIC)
        await clock.advance_to(at("09:00:30"))
        for name in ("job", "order"):
            await rig.service.run(name, by="test")
        await clock.advance(10)
        assert len(rig.sent) == 4
        assert set((await rig.states()).values()) == {State.PENDING}
        await heal(rig)
        await rig.service.run("job", by="test")
        await clock.advance(1)
        assert len(rig.accepted) == 3
        await clock.advance_to(at("09:06:05"))
        assert len(rig.accepted) == 5


async def test_groups_keep_their_order_and_cost_nothing_while_their_topic_refuses(clock, store):
    async with running_engine(clock=clock, store=store, script=refusing(FIFO_TOPIC)) as rig:
        for n in range(8):
            await rig.add(f"order-{n}", "@every 20s", topic=FIFO_TOPIC, group=f"g-{n % 3}", catch_up="all")
        await clock.advance_to(at("09:20:10"))
        assert len(rig.sent) <= 3 + 4
        assert len(rig.engine.core.groups) == 0
        assert len(rig.engine.core._held) == 0
        before = len(rig.publisher.arrivals)
        rig.publisher.script = lambda _e, _n: Answer(delay_s=0.05)
        await clock.advance_to(at("09:26:00"))
        for group in range(3):
            went = [a.entry for a in rig.publisher.arrivals[before:] if a.entry.group == f"g-{group}"]
            places = [(entry.fire.due_time, entry.fire.fire_time, entry.name) for entry in went]
            assert places == sorted(places)
        assert set((await rig.states()).values()) == {State.PUBLISHED}
        assert len(rig.accepted) == len(set(rig.accepted))


async def test_a_restart_in_an_outage_goes_on_where_it_was(clock, store):
    async with running_engine(
        clock=clock, store=store, script=refusing(TOPIC, FIFO_TOPIC), crash=True
    ) as rig:
        await crowd(rig, 30, catch_up="all")
        await crowd(rig, 5, name="order", topic=FIFO_TOPIC, catch_up="all")
        await clock.advance_to(at("09:10:00.020"))
    async with running_engine(clock=clock, store=store, script=refusing(TOPIC, FIFO_TOPIC)) as rig:
        await clock.advance_to(at("09:20:00.020"))
        assert len(rig.sent) < 2_100
        await heal(rig)
        await clock.advance_to(at("09:30:30"))
        assert set((await rig.states()).values()) == {State.PUBLISHED}
        assert len(await rig.states()) == 35 * 31


async def test_a_drop_in_an_outage_takes_what_waits_and_a_drop_that_fails_loses_nothing(clock, store):
    from cronally.errors import StoreError

    async with running_engine(clock=clock, store=store, script=refusing(TOPIC)) as rig:
        await crowd(rig, 3, catch_up="all")
        await clock.advance_to(at("09:10:30"))
        await rig.service.remove("job-000", by="test", drop_pending=True)
        store.fail("change")
        with pytest.raises(StoreError):
            await rig.service.remove("job-001", by="test", drop_pending=True)
        store.fail()
        await heal(rig)
        await clock.advance_to(at("09:16:30"))
        states = await rig.states()
        assert {state for id_, state in states.items() if not id_.startswith("job-000")} == {State.PUBLISHED}
        dropped = {state for id_, state in states.items() if id_.startswith("job-000")}
        assert dropped == {State.SKIPPED}
        assert len(states) == 11 + 2 * 17


async def test_an_outage_of_one_region_leaves_the_others_alone(clock):
    async with running_engine(clock=clock, script=refusing(TOPIC), quota=50) as rig:
        await crowd(rig, 100, catch_up="all")
        await rig.add("west", "@every 1s", topic=WEST)
        await clock.advance_to(at("09:02:00"))
        late = {a.released_us // 1000 - a.entry.fire.due_time for a in rig.publisher.accepted}
        assert late == {0}


async def test_a_clock_set_back_delays_neither_probe_nor_backlog(clock):
    async with running_engine(clock=clock, script=refusing(TOPIC)) as rig:
        await crowd(rig, 3, when="0 9 * * *")
        await clock.advance_to(at("09:01:00"))
        clock.step_wall(-30_000)
        rig.engine.loop.retrying.forget_instants()
        await heal(rig)
        await clock.advance(1)
        assert len(rig.accepted) == 3


async def test_a_fire_that_is_due_only_when_its_time_comes_again_is_no_probe(clock):
    async with running_engine(clock=clock) as rig:
        await crowd(rig, 3, catch_up="skip")
        await clock.advance_to(at("09:00:30"))
        clock.step_wall(3_600_000)
        await clock.advance_to(at("10:00:40"))
        rig.publisher.script = refusing(TOPIC)
        await clock.advance_to(at("10:02:30"))
        clock.step_wall(-3_600_000)
        await clock.advance(1)
        await heal(rig)
        await clock.advance_to(at("09:10:30"))
        states = await rig.states()
        assert {states[f"job-001@2026-11-23T09:0{n}:00Z"] for n in range(3, 10)} == {State.PUBLISHED}


async def test_a_probe_that_the_quota_leaves_no_room_for_is_tried_again_a_second_later(clock):
    async with running_engine(clock=clock, script=refusing(TOPIC)) as rig:
        for n in range(4):
            await rig.add(f"job-{n}", "* * * * *", catch_up="all")
        await clock.advance_to(at("09:02:30"))
        rig.publisher.room = 0
        rig.publisher.quota = 0.001
        for _ in range(30):  # takes all that the quota has kept
            rig.publisher._pacing.take(TOPIC, 100, clock.mono())
        await clock.advance_to(at("09:12:00"))  # would spin
        await heal(rig)
        rig.publisher.room = rig.publisher.quota = None
        rig.publisher.on_room()
        await clock.advance(400)
        assert set((await rig.states()).values()) == {State.PUBLISHED}
