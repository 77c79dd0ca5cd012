"""What meets in the middle of something else, where no other file of tests has it. docs/faults.md lists them all."""

from __future__ import annotations

import pytest

from cronally.domain.model import State
from cronally.instants import UtcMs, format_utc, parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.recording_publisher import PUBLISHED, THROTTLED, TIMED_OUT, Answer
from support.rig import FIFO_TOPIC, running_engine

DAY_MS = 86_400_000


def at(time):
    return parse_rfc3339(f"2026-11-23T{time}Z")


def times(ids):
    return [id_.partition("T")[2].partition("Z")[0] for id_ in ids]


@pytest.mark.parametrize("ms_before", [1999, 500, 1, 0])
async def test_one_resumed_while_its_neighbours_are_armed_joins_them(ms_before):
    async with running_engine() as rig:
        for name in ("a", "b", "c"):
            await rig.add(name, "* * * * *")
        await rig.service.pause("b", by="t")
        await rig.clock.advance_to(UtcMs(at("09:00:00") - ms_before))
        await rig.service.resume("b", by="t")
        await rig.clock.advance_to(at("09:01:00.100"))
        nine = {"a", "b", "c"} if ms_before else {"a", "c"}  # at the very instant the pause still holds
        assert {id_.partition("@")[0] for id_ in rig.sent if "09:00:00" in id_} == nine
        assert len([id_ for id_ in rig.sent if "09:01:00" in id_]) == 3
        assert len(set(rig.sent)) == len(rig.sent)


async def test_one_that_joins_a_rule_already_planned_has_its_slot_too():
    async with running_engine() as rig:
        await rig.add("first", "*/5 * * * *")
        await rig.clock.advance_to(at("08:59:59"))  # 09:00:00 is planned and armed
        await rig.add("second", "*/5 * * * *")
        await rig.clock.advance_to(at("09:00:00.100"))
        assert sorted(rig.sent) == ["first@2026-11-23T09:00:00Z", "second@2026-11-23T09:00:00Z"]


async def test_an_edit_whose_commit_fails_while_its_slot_is_armed_sends_it_by_the_old_rule():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        for name in ("a", "b"):
            await rig.add(name, "* * * * *", message="old")
        await clock.advance_to(at("08:59:59.500"))
        store.before_s["change"] = 1.0
        store.fail("change")
        edit = rig.start(rig.service.put("a", {"when": "* * * * *", "topic": FIFO_TOPIC}, by="t"))
        await clock.advance(2)
        assert edit.exception() is not None
        assert sorted(rig.sent) == ["a@2026-11-23T09:00:00Z", "b@2026-11-23T09:00:00Z"]
        assert [a.entry.message for a in rig.publisher.arrivals] == ["old", "old"]


@pytest.mark.parametrize("crash", [False, True])
async def test_a_spread_slot_on_the_other_side_of_the_watermark_is_sent_once(crash):
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store, crash=crash) as rig:
        await rig.add("spread", "* * * * *", spread="90s")
        await rig.add("plain", "@every 1s")
        due = (await rig.service.get("spread")).stored.spec.offset_ms()
        assert due > 10_000
        await clock.advance_to(UtcMs(at("09:00:00") + due - 1_500))  # 09:00 has come and is not due yet
        before = rig.sent
    async with running_engine(clock=clock, store=store) as rig:
        await clock.advance(2)
        sent = [id_ for id_ in before + rig.sent if id_.startswith("spread")]
        assert sent == ["spread@2026-11-23T09:00:00Z"]


@pytest.mark.parametrize("policy", ["latest", "all", "skip"])
async def test_a_recovery_that_starts_while_requests_are_in_flight_repeats_none_of_them(policy):
    async with running_engine(script=lambda _e, _n: Answer(delay_s=8)) as rig:
        await rig.add("job", "@every 10s", catch_up=policy)
        await rig.clock.advance_to(at("09:00:01"))
        rig.clock.step_wall(4_000)
        await rig.clock.advance(1.5)
        rig.clock.step_wall(3_000)
        await rig.clock.advance(30)
        assert len(set(rig.sent)) == len(rig.sent)
        assert times(rig.sent)[:3] == ["08:59:40", "08:59:50", "09:00:00"]
        assert set((await rig.states()).values()) == {State.PUBLISHED}


async def test_what_was_pruned_up_to_the_watermark_stays_settled_when_the_clock_is_set_back_behind_it():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 10s")
        await clock.advance_to(at("09:00:05"))
        pruned = await store.prune(clock.wall())
        rig.engine.core.pruned_through = pruned.through
        assert (pruned.rows, format_utc(pruned.through)[11:19]) == (3, "09:00:00")
        clock.step_wall(-20_000)
        await clock.advance_to(at("09:00:15"))
        assert times(rig.sent) == ["08:59:40", "08:59:50", "09:00:00", "09:00:10"]
    clock.step_wall(-20_000)
    async with running_engine(clock=clock, store=store) as rig:
        await clock.advance_to(at("09:00:25"))
        assert times(rig.sent) == ["09:00:20"]


async def test_a_deadline_that_passes_during_an_open_attempt_lets_the_answer_decide():
    answers = [Answer(delay_s=8), TIMED_OUT._replace(delay_s=8)]
    async with running_engine(script=lambda entry, _n: answers[entry.name == "lost"]) as rig:
        for name in ("answered", "lost"):
            await rig.add(name, "0 9 * * *", deadline="3s")
        await rig.clock.advance_to(at("09:00:05"))
        assert await rig.states() == {}  # past the deadline, and nobody knows yet
        await rig.clock.advance_to(at("09:00:09"))
        rows = {id_.partition("@")[0]: entry for id_, entry in (await rig.journal()).items()}
        assert (rows["answered"].state, rows["answered"].maybe_published) == (State.PUBLISHED, False)
        assert (rows["lost"].state, rows["lost"].maybe_published) == (State.EXPIRED, True)


async def test_a_failed_head_of_a_fifo_group_holds_up_its_group_until_it_is_settled_and_no_other():
    answers = {"broken": THROTTLED}
    async with running_engine(script=lambda e, _n: answers.get(e.name, PUBLISHED)) as rig:
        keys = {"topic": FIFO_TOPIC, "catch_up": "all"}
        await rig.add("broken", "0 9 * * *", group="one", **keys)
        await rig.add("behind", "* * * * *", group="one", **keys)
        await rig.add("beside", "* * * * *", group="two", **keys)
        await rig.clock.advance_to(at("09:02:01"))
        assert times(id_ for id_ in rig.accepted if "beside" in id_) == ["09:00:00", "09:01:00", "09:02:00"]
        head, *waiting = [id_ for id_ in sorted(await rig.states()) if "beside" not in id_][::-1]
        assert head.startswith("broken")
        answers.clear()
        await rig.clock.advance_to(at("09:05:30"))
        of_one = [id_ for id_ in rig.accepted if "beside" not in id_]
        assert times(of_one) == sorted(times(of_one))
        assert len(of_one) >= len(waiting)
        assert set((await rig.states()).values()) == {State.PUBLISHED}


async def test_an_edit_while_the_clock_is_two_days_ahead_is_in_force_when_it_is_back():
    async with running_engine() as rig:
        await rig.add("job", "@every 10s", message="old")
        await rig.clock.advance_to(at("09:00:05"))
        rig.clock.step_wall(2 * DAY_MS)
        await rig.clock.advance(5)
        await rig.set("job", when="@every 10s", message="new")
        await rig.clock.advance(5)
        rig.clock.step_wall(-2 * DAY_MS)
        await rig.clock.advance_to(at("09:00:45"))
        today = [a for a in rig.publisher.arrivals if "11-23" in a.entry.fire_id]
        assert [a.entry.message for a in today if a.entry.fire.due_time >= at("09:00:20")] == ["new"] * 3
        assert len({a.entry.fire_id for a in today}) == len(today)
