"""Changes are exact: up to the instant of the change the old rule, after it the new one, and nobody else is touched."""

from __future__ import annotations

import pytest

from cronally.domain.model import SkipReason, State
from cronally.engine.ports import OutcomeClass
from cronally.engine.records import AuditFilter
from cronally.errors import Conflict, FieldError, NotReady, RevisionConflict, ScheduleNotFound, StoreBusy
from cronally.instants import format_utc, parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.recording_publisher import (
    LOST_ACKNOWLEDGEMENT,
    PUBLISHED,
    REJECTED,
    THROTTLED,
    TIMED_OUT,
    TOPIC_GONE,
    Answer,
)
from support.rig import FIFO_TOPIC, TOPIC, running_engine

NINE = "2026-11-23T09:00:00Z"
AT_NINE = "0 9 * * *"


async def add_ten(rig):
    for number in range(10):
        await rig.add(f"job-{number}", AT_NINE)


def at_nine(numbers):
    return sorted(f"job-{number}@{NINE}" for number in numbers)


@pytest.mark.parametrize("ms_before", [1_500, 1, 0])
async def test_removing_one_of_ten_armed_together_leaves_nine(ms_before):
    async with running_engine() as rig:
        await add_ten(rig)
        await rig.clock.advance_to(parse_rfc3339(NINE) - ms_before)
        await rig.service.remove("job-3", by="test")
        await rig.clock.advance(5)
        gone = [] if ms_before == 0 else [3]
        assert sorted(rig.sent) == at_nine(set(range(10)) - set(gone))
        assert set((await rig.states()).values()) == {State.PUBLISHED}


@pytest.mark.parametrize("ms_before", [1_500, 1])
async def test_pausing_one_of_ten_armed_together_leaves_nine(ms_before):
    async with running_engine() as rig:
        await add_ten(rig)
        await rig.clock.advance_to(parse_rfc3339(NINE) - ms_before)
        await rig.service.pause("job-3", by="test")
        await rig.clock.advance(5)
        assert sorted(rig.sent) == at_nine(set(range(10)) - {3})
        await rig.service.resume("job-3", by="test")
        entry = (await rig.journal("job-3"))[f"job-3@{NINE}"]
        assert (entry.state, entry.reason, entry.count, entry.is_open) == (
            State.SKIPPED,
            SkipReason.PAUSED,
            1,
            False,
        )


@pytest.mark.parametrize("ms_before", [1_500, 1])
async def test_a_new_message_within_the_horizon_is_the_one_that_goes(ms_before):
    async with running_engine() as rig:
        await add_ten(rig)
        await rig.clock.advance_to(parse_rfc3339(NINE) - ms_before)
        await rig.set("job-3", when=AT_NINE, message="new")
        await rig.clock.advance(5)
        assert sorted(rig.sent) == at_nine(range(10))
        messages = {arrival.entry.name: arrival.entry.message for arrival in rig.publisher.arrivals}
        assert [name for name, message in messages.items() if message == "new"] == ["job-3"]


async def test_a_change_at_the_very_instant_of_a_slot_leaves_it_to_the_old_rule():
    async with running_engine() as rig:
        await rig.add("job", "@every 1s", message="old")
        await rig.clock.advance(3)
        await rig.set("job", when="@every 1s", message="new")
        await rig.clock.advance(2)
        assert [(a.entry.fire_id[-3:-1], a.entry.message) for a in rig.publisher.arrivals] == [
            ("31", "old"),
            ("32", "old"),
            ("33", "old"),
            ("34", "new"),
            ("35", "new"),
        ]


async def test_a_schedule_created_at_the_instant_of_a_slot_begins_after_it():
    async with running_engine() as rig:
        await rig.clock.advance_to(NINE)
        await rig.add("job", "* * * * *")
        await rig.clock.advance(61)
        assert rig.sent == ["job@2026-11-23T09:01:00Z"]


async def test_another_rule_takes_effect_within_the_horizon():
    async with running_engine() as rig:
        await rig.add("job", AT_NINE)
        await rig.clock.advance_to("2026-11-23T08:59:59Z")
        await rig.set("job", when="@every 1s")
        await rig.clock.advance(2.5)
        assert rig.sent == ["job@2026-11-23T09:00:00Z", "job@2026-11-23T09:00:01Z"]


async def test_a_change_that_changes_nothing_keeps_the_revision():
    async with running_engine() as rig:
        await rig.add("job", AT_NINE)
        before = (await rig.service.get("job")).stored
        await rig.clock.advance(5)
        result = await rig.service.put("job", {"when": AT_NINE, "topic": TOPIC, "catch_up": "latest"}, by="t")
        assert result.outcome == "unchanged"
        assert result.view.stored == before


async def test_when_the_store_refuses_a_change_the_old_rule_is_in_force():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await add_ten(rig)
        await rig.clock.advance_to("2026-11-23T08:59:59Z")
        store.fail("change")
        for change in (
            rig.service.remove("job-1", by="test"),
            rig.service.pause("job-2", by="test"),
            rig.service.put("job-3", {"when": "@every 1s", "topic": TOPIC}, by="test"),
            rig.service.put("job-10", {"when": "@every 1s", "topic": TOPIC}, by="test"),
        ):
            with pytest.raises(StoreBusy):
                await change
        store.fail()
        await rig.clock.advance(5)
        assert sorted(rig.sent) == at_nine(range(10))
        assert sorted(await rig.states()) == at_nine(range(10))


async def test_slots_that_come_while_a_change_waits_for_the_store_go_by_the_rule_that_wins():
    for is_failing in (False, True):
        clock = FakeClock()
        store = FaultyStore(clock)
        async with running_engine(clock=clock, store=store) as rig:
            await rig.add("job", "@every 1s", message="old")
            await rig.clock.advance(2.5)
            store.before_s["change"] = 5.0
            store.fails = lambda name, is_failing=is_failing: is_failing and name == "change"
            change = rig.service.put("job", {"when": "@every 2s", "topic": TOPIC, "message": "new"}, by="t")
            waiting = rig.start(change)
            await rig.clock.advance(4)
            assert [a.entry.fire_id[-3:-1] for a in rig.publisher.arrivals] == ["31", "32"]
            await rig.clock.advance(3.5)
            assert isinstance(waiting.exception(), StoreBusy) is is_failing
            went = [(a.entry.fire_id[-3:-1], a.entry.message) for a in rig.publisher.arrivals[2:]]
            if is_failing:
                assert went == [(str(second), "old") for second in range(33, 41)]
            else:
                assert went == [(str(second), "new") for second in range(34, 41, 2)]


async def test_a_pause_and_a_resume_within_the_horizon_send_the_slot_once():
    async with running_engine() as rig:
        await rig.add("job", AT_NINE)
        await rig.clock.advance_to("2026-11-23T08:59:59Z")
        await rig.service.pause("job", by="test")
        await rig.clock.settle()
        await rig.service.resume("job", by="test")
        await rig.clock.advance(5)
        assert rig.sent == [f"job@{NINE}"]
        assert await rig.states() == {f"job@{NINE}": State.PUBLISHED}


async def test_pauses_and_resumes_before_the_engine_gets_a_turn_send_the_slot_once():
    async with running_engine() as rig:
        await rig.add("job", AT_NINE)
        await rig.clock.advance_to("2026-11-23T08:59:59Z")
        for _ in range(3):
            await rig.service.pause("job", by="test")
            await rig.service.resume("job", by="test")
        await rig.clock.advance(5)
        assert rig.sent == [f"job@{NINE}"]


async def test_a_slot_between_fire_and_due_time_goes_by_the_old_revision():
    async with running_engine() as rig:
        await rig.add("job", AT_NINE, spread="10m", message="old")
        await rig.clock.advance_to("2026-11-23T09:00:01Z")
        await rig.set("job", when=AT_NINE, message="new")
        pending = (await rig.journal())[f"job@{NINE}"]
        assert pending.state is State.PENDING
        await rig.clock.advance(700)
        [arrival] = rig.publisher.arrivals
        assert (arrival.entry.message, arrival.released_us) == ("old", pending.due_time * 1000)
        assert await rig.states() == {f"job@{NINE}": State.PUBLISHED}


async def test_a_slot_between_fire_and_due_time_goes_although_its_schedule_is_removed():
    async with running_engine() as rig:
        await rig.add("job", AT_NINE, spread="10m")
        await rig.clock.advance_to("2026-11-23T09:00:01Z")
        assert await rig.service.remove("job", by="test", drop_pending=False) == 1
        await rig.clock.advance(700)
        assert rig.sent == [f"job@{NINE}"]


@pytest.mark.parametrize("is_shared", [False, True])
async def test_a_slot_between_fire_and_due_time_of_a_fifo_topic_holds_up_nobody(is_shared):
    async with running_engine() as rig:
        group = {"group": "g"} if is_shared else {}
        await rig.add("late", AT_NINE, spread="10m", topic=FIFO_TOPIC, **group)
        await rig.add("tick", "@every 30s", topic=FIFO_TOPIC, **group)
        await rig.clock.advance_to("2026-11-23T09:00:01Z")
        await rig.set("late", when=AT_NINE, message="new", topic=FIFO_TOPIC, **group)
        due = (await rig.journal("late"))[f"late@{NINE}"].due_time
        await rig.clock.advance(700)
        assert [a.released_us for a in rig.publisher.arrivals if a.entry.name == "late"] == [due * 1000]
        ticks = [a.released_us for a in rig.publisher.arrivals if a.entry.name == "tick"]
        assert all(released_us % 30_000_000 == 0 for released_us in ticks)
        assert len(ticks) == 24


async def test_a_fire_in_flight_is_not_tried_again_while_its_attempt_is_open():
    answers = {1: Answer(delay_s=8)}
    async with running_engine(script=lambda _e, n: answers.get(n, PUBLISHED)) as rig:
        await rig.add("job", AT_NINE)
        await rig.clock.advance_to("2026-11-23T09:00:02Z")
        await rig.set("job", when="0 10 * * *")
        await rig.clock.advance(4)
        assert rig.sent == [f"job@{NINE}"]
        assert await rig.states() == {f"job@{NINE}": State.PENDING}
        await rig.clock.advance(10)
        assert rig.sent == [f"job@{NINE}"]
        assert await rig.states() == {f"job@{NINE}": State.PUBLISHED}


async def test_a_fire_in_flight_across_its_edit_is_tried_again_with_the_old_message():
    answers = {1: TIMED_OUT._replace(delay_s=8)}
    async with running_engine(script=lambda _e, n: answers.get(n, PUBLISHED)) as rig:
        await rig.add("job", AT_NINE, message="old")
        await rig.clock.advance_to("2026-11-23T09:00:02Z")
        await rig.set("job", when="0 10 * * *", message="new")
        await rig.clock.advance(20)
        assert [a.entry.message for a in rig.publisher.arrivals] == ["old", "old"]
        entry = (await rig.journal())[f"job@{NINE}"]
        assert (entry.state, entry.attempts) == (State.PUBLISHED, 2)


async def test_an_outcome_known_but_not_yet_committed_survives_an_edit():
    async with running_engine() as rig:
        await rig.add("job", AT_NINE)
        await rig.clock.advance_to(parse_rfc3339(NINE) + 10)
        await rig.set("job", when="0 10 * * *")
        await rig.clock.advance(20)
        assert rig.sent == [f"job@{NINE}"]
        assert await rig.states() == {f"job@{NINE}": State.PUBLISHED}


async def test_removal_says_how_many_pending_fires_remain_and_they_still_go():
    answers = {1: TOPIC_GONE}
    async with running_engine(script=lambda _e, n: answers.get(n, PUBLISHED)) as rig:
        await rig.add("job", AT_NINE)
        await rig.clock.advance_to("2026-11-23T09:00:02Z")
        assert await rig.service.remove("job", by="test") == 1
        await rig.clock.advance(310)
        assert await rig.states("job") == {f"job@{NINE}": State.PUBLISHED}


@pytest.mark.parametrize("topic", [TOPIC, FIFO_TOPIC])
async def test_dropped_pending_fires_never_go(topic):
    async with running_engine(script=lambda _e, _n: TOPIC_GONE) as rig:
        await rig.add("job", "@every 10s", topic=topic, catch_up="all")
        await rig.clock.advance(35)
        sent = list(rig.sent)
        assert await rig.service.remove("job", by="test", drop_pending=True) == 0
        rig.publisher.script = lambda _e, _n: PUBLISHED
        await rig.clock.advance(700)
        assert rig.sent == sent
        entries = await rig.journal("job")
        assert {(entry.state, entry.reason) for entry in entries.values()} == {
            (State.SKIPPED, SkipReason.DROPPED)
        }
        assert len(entries) == 3


async def test_dropping_a_failed_fire_right_after_its_attempt_drops_it():
    async with running_engine(script=lambda _e, _n: THROTTLED) as rig:
        await rig.add("job", AT_NINE)
        await rig.clock.advance_to(parse_rfc3339(NINE) + 10)
        await rig.service.remove("job", by="test", drop_pending=True)
        await rig.clock.advance(100)
        assert rig.sent == [f"job@{NINE}"]
        entry = (await rig.journal("job"))[f"job@{NINE}"]
        assert (entry.state, entry.reason) == (State.SKIPPED, SkipReason.DROPPED)


async def test_dropping_says_nothing_of_a_fire_that_was_published_just_now():
    async with running_engine() as rig:
        await rig.add("job", AT_NINE)
        await rig.clock.advance_to(parse_rfc3339(NINE) + 10)
        await rig.service.remove("job", by="test", drop_pending=True)
        await rig.clock.advance(1)
        assert await rig.states("job") == {f"job@{NINE}": State.PUBLISHED}


async def test_a_fire_in_flight_is_not_dropped():
    async with running_engine(script=lambda _e, _n: Answer(delay_s=3)) as rig:
        await rig.add("job", AT_NINE)
        await rig.clock.advance_to("2026-11-23T09:00:01Z")
        assert await rig.service.remove("job", by="test", drop_pending=True) == 1
        await rig.clock.advance(5)
        assert await rig.states("job") == {f"job@{NINE}": State.PUBLISHED}


@pytest.mark.parametrize("topic", [TOPIC, FIFO_TOPIC])
@pytest.mark.parametrize("is_failing", [False, True])
async def test_what_is_about_to_leave_waits_until_it_is_known_whether_it_is_dropped(topic, is_failing):
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", AT_NINE, spread="10m", topic=topic)
        [due] = [(await rig.service.get("job")).stored.spec.offset_ms() + parse_rfc3339(NINE)]
        await rig.clock.advance_to(due - 500)
        store.before_s["change"] = 2.0
        store.fails = lambda name: is_failing and name == "change"
        removal = rig.start(rig.service.remove("job", by="test", drop_pending=True))
        await rig.clock.advance(1)
        assert rig.sent == []
        await rig.clock.advance(3)
        assert removal.done()
        if is_failing:
            assert isinstance(removal.exception(), StoreBusy)
            assert rig.sent == [f"job@{NINE}"]
            assert await rig.states() == {f"job@{NINE}": State.PUBLISHED}
        else:
            assert rig.sent == []
            assert await rig.states("job") == {f"job@{NINE}": State.SKIPPED}


@pytest.mark.parametrize("topic", [TOPIC, FIFO_TOPIC])
async def test_pending_fires_go_on_when_the_store_refuses_to_drop_them(topic):
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store, script=lambda _e, _n: THROTTLED) as rig:
        await rig.add("job", "@every 10s", topic=topic, catch_up="all")
        await rig.clock.advance(35)
        store.before_s["change"] = 2.0
        store.fail("change")
        removal = rig.start(rig.service.remove("job", by="test", drop_pending=True))
        await rig.clock.advance(3)
        assert isinstance(removal.exception(), StoreBusy)
        store.fail()
        rig.publisher.script = lambda _e, _n: PUBLISHED
        await rig.clock.advance(90)
        assert set((await rig.states()).values()) == {State.PUBLISHED}
        assert len(set(rig.accepted)) == len(rig.accepted) == 12
        if topic == FIFO_TOPIC:
            assert rig.accepted == sorted(rig.accepted)


async def test_add_refuses_a_different_schedule_of_that_name():
    async with running_engine() as rig:
        await rig.add("job", AT_NINE)
        with pytest.raises(Conflict, match="cronally set job"):
            await rig.add("job", "0 10 * * *")
        result = await rig.service.put("job", {"when": AT_NINE, "topic": TOPIC}, by="t", create_only=True)
        assert result.outcome == "unchanged"


async def test_a_change_of_another_revision_is_refused():
    async with running_engine() as rig:
        await rig.add("job", AT_NINE)
        document = {"when": "0 10 * * *", "topic": TOPIC}
        with pytest.raises(RevisionConflict):
            await rig.service.put("job", document, by="t", if_revision=2)
        with pytest.raises(RevisionConflict):
            await rig.service.put("other", document, by="t", if_revision=1)
        with pytest.raises(RevisionConflict):
            await rig.service.remove("job", by="t", if_revision=2)
        result = await rig.service.put("job", document, by="t", if_revision=1)
        assert (result.outcome, result.view.stored.revision) == ("changed", 2)
        assert await rig.service.remove("job", by="t", if_revision=2) == 0


async def test_an_instant_that_is_past_is_refused_unless_it_stands_there_already():
    async with running_engine() as rig:
        with pytest.raises(FieldError, match="past"):
            await rig.add("once", "@at 2026-11-23T08:59:30Z")
        await rig.add("once", "@at 2026-11-23T08:59:31Z")
        await rig.clock.advance(5)
        document = {"when": "@at 2026-11-23T08:59:31Z", "topic": TOPIC}
        assert (await rig.service.put("once", document, by="t")).outcome == "unchanged"
        with pytest.raises(FieldError, match="past"):
            await rig.service.put("once", document | {"message": "m"}, by="t")


async def test_an_instant_moved_within_the_horizon_fires_once_at_its_new_time():
    async with running_engine() as rig:
        await rig.add("once", "@at 2026-11-23T08:59:40Z")
        await rig.clock.advance(9)
        await rig.set("once", when="@at 2026-11-23T08:59:41Z")
        await rig.clock.advance(20)
        assert rig.sent == ["once@2026-11-23T08:59:41Z"]


async def test_an_instant_moved_while_it_is_read_fires_once_at_its_new_time():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("once", "@at 2026-11-23T08:59:40Z")
        await rig.add("other", "@at 2026-11-23T08:59:40Z")
        store.after_s["at_between"] = 0.5
        await rig.clock.advance(8.2)
        await rig.set("once", when="@at 2026-11-23T08:59:39.500Z")
        await rig.add("new", "@at 2026-11-23T08:59:39Z")
        await rig.clock.advance(20)
        assert sorted(rig.sent) == [
            "new@2026-11-23T08:59:39Z",
            "once@2026-11-23T08:59:39.500Z",
            "other@2026-11-23T08:59:40Z",
        ]


async def test_instants_fire_once_when_reading_them_fails_for_a_while():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("old", "@at 2026-11-23T08:59:40Z")
        await rig.clock.advance(8)
        store.before_s["at_between"] = 3.0
        store.fail("at_between")
        await rig.add("trigger", "@at 2026-11-23T08:59:40.500Z")
        await rig.clock.advance(0.1)
        await rig.add("new", "@at 2026-11-23T08:59:39Z")
        await rig.clock.advance(2)
        store.before_s.clear()
        await rig.clock.advance(3)
        store.fail()
        await rig.clock.advance(20)
        assert sorted(rig.sent) == [
            "new@2026-11-23T08:59:39Z",
            "old@2026-11-23T08:59:40Z",
            "trigger@2026-11-23T08:59:40.500Z",
        ]
        assert set((await rig.states()).values()) == {State.PUBLISHED}


async def test_an_unknown_name_is_told_with_the_nearest_one():
    async with running_engine() as rig:
        await rig.add("nightly-report", AT_NINE)
        with pytest.raises(ScheduleNotFound, match="nightly-report"):
            await rig.service.remove("nightly-reprot", by="t")


async def test_a_name_can_be_used_again_and_its_history_answers_for_both():
    async with running_engine() as rig:
        await rig.add("job", "@every 1s")
        await rig.clock.advance(1.5)
        await rig.service.remove("job", by="t")
        await rig.clock.advance(5)
        await rig.add("job", "@every 1s")
        await rig.clock.advance(1)
        assert list(await rig.states("job")) == ["job@2026-11-23T08:59:31Z", "job@2026-11-23T08:59:37Z"]


async def test_changes_are_refused_while_the_daemon_is_not_ready():
    async with running_engine() as rig:
        rig.reporting.set_ready("it is stopping")
        with pytest.raises(NotReady, match="it is stopping"):
            await rig.add("job", AT_NINE)


@pytest.mark.parametrize("change", ["put", "create", "remove", "apply", "run"])
async def test_a_change_that_is_cancelled_is_made_to_its_end(change):
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 1s", message="old")
        await clock.advance(1.5)
        document = {"when": "@every 1s", "topic": TOPIC, "message": "new"}
        for method in ("change", "flip", "add_manual"):
            store.after_s[method] = 1.0
        task = rig.start(
            {
                "put": lambda: rig.service.put("job", document, by="t"),
                "create": lambda: rig.service.put("other", document, by="t"),
                "remove": lambda: rig.service.remove("job", by="t"),
                "apply": lambda: rig.apply({"name": "job", **document}),
                "run": lambda: rig.service.run("job", by="t"),
            }[change]()
        )
        await clock.settle()
        task.cancel()
        store.after_s.clear()
        await clock.advance(3)
        assert task.cancelled()
        sent = [(a.entry.name, a.entry.message, a.entry.fire.kind.value) for a in rig.publisher.arrivals[1:]]
        old, new = ("job", "old", "scheduled"), ("job", "new", "scheduled")
        assert (
            sorted(set(sent))
            == {
                "put": [new],
                "create": [old, ("other", "new", "scheduled")],
                "remove": [],
                "apply": [new],
                "run": [("job", "old", "manual"), old],
            }[change]
        )
        assert len(rig.sent) == len(set(rig.sent))


async def test_a_pause_that_ends_while_its_schedule_is_read_to_be_changed_is_ended_first():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 1s", catch_up="all")
        until = parse_rfc3339("2026-11-23T08:59:35Z")
        await rig.service.pause("job", by="t", until=until)
        await clock.advance_to(until - 500)
        store.after_s["schedule"] = 1.2
        document = {"when": "@every 1s", "topic": TOPIC, "catch_up": "all", "message": "new"}
        task = rig.start(rig.service.put("job", document, by="t"))
        await clock.advance(1.5)
        store.after_s.clear()
        await clock.advance(5)
        assert task.result().view.stored.pause is None
        at = task.result().view.stored.effective_from
        assert at > until
        states = await rig.journal("job")
        paused = [entry for entry in states.values() if entry.reason is SkipReason.PAUSED]
        assert [(entry.count, entry.is_open) for entry in paused] == [(4, False)]
        assert sorted(rig.sent) == [f"job@2026-11-23T08:59:{s}Z" for s in range(35, 36 + len(rig.sent) - 1)]
        for arrival in rig.publisher.arrivals:
            assert (arrival.entry.message == "new") is (arrival.entry.fire.fire_time > at)


async def test_changes_wait_or_are_refused_while_missed_fires_are_undecided():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 10s", catch_up="all")
        await clock.advance(5)
        store.fail("settled_between")
        await clock.suspend(60)
        with pytest.raises(NotReady, match="missed fires"):
            await rig.set("job", when="@every 20s")
        store.fail()
        await clock.advance(1)
        await rig.set("job", when="@every 20s", catch_up="all")
        await clock.advance(25)
        states = await rig.states()
        assert set(states.values()) == {State.PUBLISHED}
        assert sorted(states) == sorted(rig.sent)
        assert len(states) == 6 + 2


async def test_pauses_and_resumes_while_the_planner_is_busy_send_the_slot_once():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", AT_NINE)
        await rig.add("other", "@at 2026-11-23T09:00:00.500Z")
        await clock.advance_to("2026-11-23T08:59:58.200Z")
        store.before_s["specs"] = 0.5
        await rig.add("another", AT_NINE)
        for _ in range(3):
            await rig.service.pause("job", by="test")
            await rig.service.resume("job", by="test")
        await clock.advance(5)
        assert rig.sent.count(f"job@{NINE}") == 1
        assert len(rig.sent) == 3


async def test_an_instant_that_is_past_when_its_schedule_is_changed_while_it_is_read_goes_by_the_old_rule():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("once", "@at 2026-11-23T08:59:40Z", message="old")
        store.after_s["at_between"] = 3.0
        await clock.advance_to("2026-11-23T08:59:40.200Z")
        assert rig.sent == []
        await rig.set("once", when="@at 2026-11-23T08:59:50Z", message="new")
        await clock.advance(20)
        assert [(a.entry.fire_id[-4:-1], a.entry.message) for a in rig.publisher.arrivals] == [
            (":40", "old"),
            (":50", "new"),
        ]


async def test_what_an_attempt_came_to_is_not_forgotten_by_a_change_that_waits_for_the_store():
    clock = FakeClock()
    store = FaultyStore(clock)
    answers = {1: LOST_ACKNOWLEDGEMENT._replace(outcome=OutcomeClass.HOLD)}
    async with running_engine(clock=clock, store=store, script=lambda _e, n: answers.get(n, REJECTED)) as rig:
        await rig.add("job", AT_NINE)
        await clock.advance_to(parse_rfc3339(NINE) + 10)
        store.before_s["change"] = 1.0
        rig.start(rig.service.put("job", {"when": "0 10 * * *", "topic": TOPIC}, by="t"))
        await clock.advance(5)
        assert len(rig.sent) == 1
        await clock.advance(300)
        entry = (await rig.journal())[f"job@{NINE}"]
        assert (entry.state, entry.attempts, entry.maybe_published) == (State.REJECTED, 2, True)


async def test_a_schedule_that_is_renamed_keeps_its_slots_and_its_pending_fires_their_name():
    async with running_engine(script=lambda _entry, attempt: THROTTLED if attempt == 1 else PUBLISHED) as rig:
        await rig.add("old", "@every 10s", catch_up="all")
        await rig.clock.advance_to(
            parse_rfc3339("2026-11-23T08:59:50.001Z")
        )  # the slot at :50 is to be tried again
        before, after = await rig.service.move("old", "new", by="t")
        assert (before.stored.spec.name, after.stored.spec.name) == ("old", "new")
        await rig.clock.advance_to(parse_rfc3339("2026-11-23T09:00:15Z"))
        ids = [id_.replace("2026-11-23T", "") for id_ in rig.accepted]
        assert sorted(ids) == ["new@09:00:00Z", "new@09:00:10Z", "old@08:59:40Z", "old@08:59:50Z"]
        assert set((await rig.states("new")).values()) == {State.PUBLISHED}


async def test_a_change_of_many_is_as_exact_as_one_of_each():
    async with running_engine() as rig:
        for name in "abcd":
            await rig.add(name, "@every 10s")
        await rig.clock.advance(29)  # what is due at :00 is planned
        began = rig.clock.wall()
        await rig.service.remove_many(["a", "none"], by="t")
        done = await rig.service.pause_many(["b", "c"], by="t")
        assert [(one.name, one.error, one.view.stored.pause.by) for one in done] == [
            ("b", None, "t"),
            ("c", None, "t"),
        ]
        await rig.clock.advance(11)
        await rig.service.resume_many(["a", "b", "d"], by="t")
        await rig.clock.advance(11)
        assert {
            name.partition("@")[0] for name in rig.sent if name.partition("@")[2] > format_utc(began)
        } == {"b", "d"}
        [rested] = [row for row in (await rig.journal("b")).values() if row.reason is SkipReason.PAUSED]
        assert (rested.count, rested.is_open) == (2, False)
        actions = [row.action for row in (await rig.store.audit(AuditFilter())).rows if row.action != "add"]
        assert actions == ["resume", "pause", "pause", "rm"]
