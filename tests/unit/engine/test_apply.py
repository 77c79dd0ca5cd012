"""A whole file of schedules at once."""

from __future__ import annotations

import json

import pytest

from cronally.domain.model import SkipReason, State
from cronally.engine import applying
from cronally.engine.records import JournalFilter
from cronally.errors import StoreBusy
from cronally.instants import parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.rig import FIFO_TOPIC, TOPIC, running_engine


def at(time_):
    return parse_rfc3339(f"2026-11-23T{time_}Z")


def line(name, when="0 9 * * *", **keys):
    return {"name": name, "when": when, "topic": TOPIC, **keys}


async def names(rig):
    views, _ = await rig.service.list()
    return [view.stored.spec.name for view in views]


async def test_lines_are_created_changed_or_left():
    async with running_engine() as rig:
        result = await rig.apply(line("a"), line("b"), b"", line("c"), owner="team")
        assert (result.created, result.changed, result.unchanged) == (3, 0, 0)
        result = await rig.apply(line("a"), line("b", "1 9 * * *"), line("d"))
        assert (result.created, result.changed, result.unchanged) == (1, 1, 1)
        assert await names(rig) == ["a", "b", "c", "d"]
        assert (await rig.service.get("c")).stored.owner == "team"
        before = (await rig.service.get("a")).stored
        result = await rig.apply(line("a", catch_up="latest"))
        assert (result.unchanged, (await rig.service.get("a")).stored.revision) == (1, before.revision)
        await rig.clock.advance(95)
        assert sorted(rig.sent) == [f"{name}@2026-11-23T09:0{name == 'b':d}:00Z" for name in "abcd"]


@pytest.mark.parametrize(
    ("bad", "place", "words"),
    [
        (b"{", 2, "not JSON"),
        (b"[1]", 2, "JSON object"),
        (b'{"name": "x", "name": "y"}', 2, "there twice"),
        (b"\xff", 2, "UTF-8"),
        (line("a"), 2, "line 1 has the same"),
        (line("a b"), 2, "not a schedule name"),
        ({"when": "* * * * *", "topic": TOPIC}, 2, "name"),
        (line("x", "61 * * * *"), 2, "minute"),
        (line("x", tz="Mars/Base"), 2, "unknown time zone"),
        (line("x", topic="reports"), 2, "ARN"),
        (line("x", topc="reports"), 2, "topic"),
        (line("x", paused="yes"), 2, "paused"),
        (line("x", starts="0001-01-01T00:00:00+01:00"), 2, "outside the years"),
        (line("x", ends="9999-12-31T23:59:59-01:00"), 2, "outside the years"),
        (line("x", message="m" * 262_145), 2, "262,144"),
        (line("x", "@at 2026-11-23T08:59:30Z"), 2, "past"),
        (line("x", "@at 2026-11-23T08:59:30Z", paused=True), 2, "past"),
        (b'{"name": "x", "message": "' + b"m" * 1_048_576 + b'"}', 2, "1,048,576"),
    ],
)
async def test_one_bad_line_and_nothing_is_changed(bad, place, words):
    async with running_engine() as rig:
        result = await rig.apply(line("a"), bad, line("b"))
        [problem] = result.problems
        assert (problem.line, result.problem_count, result.created) == (place, 1, 0)
        assert words in problem.reason
        assert await names(rig) == []


async def test_a_thousand_problems_are_told_and_the_others_counted():
    async with running_engine() as rig:
        result = await rig.apply(*[b"{"] * 1100)
        assert (len(result.problems), result.problem_count) == (applying.MAX_PROBLEMS, 1100)


async def test_an_instant_that_is_past_may_stand_if_it_stands_there_already():
    async with running_engine() as rig:
        once = line("once", "@at 2026-11-23T08:59:31Z")
        await rig.apply(once)
        await rig.clock.advance(5)
        assert (await rig.apply(once)).unchanged == 1
        assert (await rig.apply(once | {"paused": False})).unchanged == 1
        assert "past" in (await rig.apply(once | {"message": "m"})).problems[0].reason
        assert rig.sent == ["once@2026-11-23T08:59:31Z"]


async def test_an_absent_pause_leaves_it_and_the_key_is_obeyed():
    async with running_engine() as rig:
        await rig.apply(*[line(name, "@every 10s") for name in "abcd"])
        for name in "abc":
            await rig.service.pause(name, by="t")
        await rig.clock.advance_to(at("09:00:05"))
        result = await rig.apply(
            line("a", "@every 10s"),
            line("b", "@every 5s"),
            line("c", "@every 10s", paused=False),
            line("d", "@every 10s", paused={"until": "2026-11-23T09:00:20Z"}),
        )
        assert (result.created, result.changed, result.unchanged) == (0, 3, 1)
        await rig.clock.advance_to(at("09:00:31"))
        assert sorted(rig.sent[3:]) == [
            *(f"c@2026-11-23T09:00:{s}Z" for s in (10, 20, 30)),
            *(f"d@2026-11-23T09:00:{s}Z" for s in (20, 30)),
        ]
        rows = await rig.service.history(JournalFilter(reasons=frozenset({SkipReason.PAUSED})))
        assert sorted((row.name, row.entry.count, row.entry.is_open) for row in rows) == [
            ("a", 6, True),
            ("b", 3, False),
            ("b", 5, True),
            ("c", 3, False),
            ("d", 1, False),
        ]


async def test_a_pause_that_ends_during_an_apply_is_ended_before_its_line():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 10s", catch_up="all")
        await rig.service.pause("job", by="t", until=at("09:00:00"))
        store.before_s["stage"] = 60.0
        task = rig.start(rig.apply(line("job", "@every 10s", message="new", catch_up="all")))
        await clock.advance(70)
        assert task.result().changed == 1
        assert len(rig.sent) == len(set(rig.sent)) == 5
        assert min(rig.sent) == "job@2026-11-23T09:00:00Z"
        assert (await rig.service.get("job")).stored.pause is None


async def test_more_lines_in_one_go_than_are_staged_or_listed_at_once():
    lines = [line(f"job-{number}", f"{number % 60} {number // 60 % 24} * * *") for number in range(6_000)]
    async with running_engine() as rig:
        assert (await rig.apply(*lines)).created == 6_000
        assert len(rig.engine.core.timetable) == 6_000
        await rig.clock.advance_to(at("09:00:00"))
        assert len(rig.sent) == 4


async def test_an_apply_whose_lines_cannot_all_be_staged_changes_nothing(monkeypatch):
    monkeypatch.setattr(applying, "_STAGED_AT_ONCE", 10)
    clock = FakeClock()
    store = FaultyStore(clock)

    async def lines(count):
        for number in range(count):
            yield json.dumps(line(f"job-{number}")).encode()

    async with running_engine(clock=clock, store=store) as rig:
        store.before_s["stage"] = 1.0
        running = rig.start(rig.service.apply(lines(35), owner="file", by="test"))
        await clock.advance(60)
        assert running.result().created == 35
        for fails_at in range(1, 5):
            store.calls.clear()
            store.fails = lambda name, last=fails_at: name == "stage" and store.calls[name] == last
            running = rig.start(rig.service.apply(lines(35), owner="file", by="test", is_pruning=True))
            await clock.advance(60)
            assert isinstance(running.exception(), StoreBusy)
        assert len(await names(rig)) == 35


@pytest.mark.parametrize("topic", [TOPIC, FIFO_TOPIC])
async def test_a_bulk_change_takes_effect_at_one_instant_while_fires_go_out(topic):
    count = 1000
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        many = [f"job-{number}" for number in range(count)]
        old = [line(name, "@every 1s", topic=topic, message="old") for name in many]
        await rig.apply(*old, line("bystander", "@every 1s"))
        await clock.advance(2.99)
        store.before_s["flip"] = 0.02
        task = rig.start(rig.apply(*[document | {"message": "new"} for document in old]))
        await clock.advance(6)
        assert task.result().changed == count
        flipped_at = (await rig.service.get(many[0])).stored.effective_from
        assert flipped_at >= at("08:59:33")
        assert len(rig.sent) == len(set(rig.sent)) == (count + 1) * 8
        for arrival in rig.publisher.arrivals:
            if arrival.entry.name != "bystander":
                is_old = arrival.entry.fire.fire_time <= flipped_at
                assert arrival.entry.message == ("old" if is_old else "new")
        assert {a.released_us % 1_000_000 for a in rig.publisher.arrivals} == {0}
        await clock.advance(0.1)
        assert set((await rig.states("job-7")).values()) == {State.PUBLISHED}


async def test_slots_beyond_the_horizon_and_before_a_bulk_change_go_by_the_old_rule(monkeypatch):
    from cronally.engine import flips

    async with running_engine() as rig:
        old = [line(f"job-{number}", "@every 1s", message="old") for number in range(249)]
        fifo = line("fifo", "@every 1s", message="old", topic=FIFO_TOPIC)
        once = line("once", "@at 2026-11-23T08:59:34Z", message="old")
        await rig.apply(*old, fifo, once)
        await rig.clock.advance(0.5)
        monkeypatch.setattr(flips, "_AHEAD_US", 20_000)  # 5 s ahead for 250 lines
        changed = [document | {"message": "new"} for document in (*old, fifo, once)]
        assert (await rig.apply(*changed)).changed == 251
        await rig.clock.advance(9)
        assert len(rig.sent) == len(set(rig.sent)) == 250 * 9 + 1
        for arrival in rig.publisher.arrivals:
            is_old = arrival.entry.fire.fire_time <= at("08:59:35") + 520
            assert arrival.entry.message == ("old" if is_old else "new")
        assert max(a.released_us - a.entry.fire.due_time * 1000 for a in rig.publisher.arrivals) < 10_000
        assert set((await rig.states("fifo")).values()) == {State.PUBLISHED}


async def test_a_flip_that_fails_leaves_the_old_rules_in_force():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        old = [line(f"job-{number}", "@every 1s", message="old") for number in range(300)]
        once = line("once", "@at 2026-11-23T08:59:35Z")
        await rig.apply(*old, once)
        await clock.advance(2.5)
        store.before_s["flip"] = 1.0
        store.fail("flip")
        task = rig.start(
            rig.apply(*[document | {"message": "new"} for document in (*old, once)], line("other"))
        )
        await clock.advance(5)
        assert isinstance(task.exception(), StoreBusy)
        assert len(rig.sent) == len(set(rig.sent)) == 300 * 7 + 1
        assert {a.entry.message for a in rig.publisher.arrivals if a.entry.name != "once"} == {"old"}
        assert "other" not in await names(rig)


async def test_an_apply_that_fails_while_it_reads_the_present_rules_leaves_them_in_force():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        once = line("once", "@at 2026-11-23T08:59:40Z")
        await rig.apply(line("a", "@every 1s"), once)
        store.fail("specs")
        task = rig.start(rig.apply(line("a", "@every 2s"), once | {"message": "m"}))
        await clock.settle()
        assert isinstance(task.exception(), StoreBusy)
        store.fail()
        await clock.advance(12)
        assert len(rig.sent) == 13


async def test_instants_changed_and_created_in_bulk_fire_once():
    async with running_engine() as rig:
        await rig.apply(line("a", "@at 2026-11-23T08:59:40Z"), line("b", "@at 2026-11-23T08:59:41Z"))
        await rig.clock.advance(8.5)
        await rig.apply(
            line("a", "@at 2026-11-23T08:59:40Z", message="new"),
            line("b", "@at 2026-11-23T08:59:45Z"),
            line("c", "@at 2026-11-23T08:59:40Z"),
            line("d", "@at 2026-11-23T08:59:43Z"),
        )
        await rig.clock.advance(30)
        assert sorted(rig.sent) == [
            f"{name}@2026-11-23T08:59:{s}Z" for name, s in zip("abcd", (40, 45, 40, 43), strict=True)
        ]


async def test_a_bulk_change_that_takes_longer_than_expected_begins_again_further_ahead(monkeypatch):
    from cronally.engine import flips

    monkeypatch.setattr(flips, "_AHEAD_US", 4)
    async with running_engine() as rig:
        old = [line(f"job-{number}", "@every 1s", message="old") for number in range(900)]
        await rig.apply(*old)
        await rig.clock.advance(1.5)
        sleep = rig.clock.sleep
        slices = 0

        async def slow_sleep(duration_s):
            nonlocal slices
            if duration_s == 0:
                slices += 1
                await sleep(0.004)
            await sleep(duration_s)

        monkeypatch.setattr(rig.clock, "sleep", slow_sleep)
        task = rig.start(rig.apply(*[document | {"message": "new"} for document in old]))
        await rig.clock.advance(3)
        assert task.result().changed == 900
        monkeypatch.setattr(rig.clock, "sleep", sleep)
        await rig.clock.advance(2)
        at = (await rig.service.get("job-899")).stored.effective_from
        assert len(rig.sent) == len(set(rig.sent)) == 900 * 6
        assert all(
            (a.entry.message == "new") is (a.entry.fire.fire_time > at) for a in rig.publisher.arrivals
        )


async def test_what_is_pruned_fires_up_to_that_instant_and_no_longer():
    async with running_engine() as rig:
        await rig.apply(line("kept", "@every 10s"), line("gone", "@every 10s"), line("rest", "@every 10s"))
        await rig.add("by-hand", "@every 10s")
        await rig.service.pause("rest", by="t")
        await rig.clock.advance_to(at("08:59:59.500"))  # 09:00:00 is planned and armed
        result = await rig.apply(line("kept", "@every 10s"), line("new"), is_pruning=True)
        assert (result.created, result.removed, result.unchanged) == (1, 2, 1)
        assert await names(rig) == ["by-hand", "kept", "new"]
        await rig.clock.advance_to(at("09:00:25"))
        assert sorted(id_ for id_ in rig.sent if "gone" in id_) == [
            "gone@2026-11-23T08:59:40Z", "gone@2026-11-23T08:59:50Z",
        ]  # fmt: skip
        assert sum("kept" in id_ for id_ in rig.sent) == 5
        [rested] = (await rig.journal("rest")).values()
        assert (rested.is_open, rested.reason, rested.count) == (False, SkipReason.PAUSED, 2)


async def test_pruning_is_as_atomic_as_the_rest():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.apply(line("a", "@every 10s"), line("b", "@every 10s"))
        store.fail("flip")
        with pytest.raises(StoreBusy):
            await rig.apply(line("c"), is_pruning=True)
        store.fail()
        assert (await rig.apply(line("a", tz="Mars"), is_pruning=True)).problem_count == 1
        await clock.advance_to(at("09:00:05"))
        assert await names(rig) == ["a", "b"]
        assert sum("b@" in id_ for id_ in rig.sent) == 3


async def test_a_slot_that_is_due_when_its_schedule_is_pruned_is_still_sent():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.apply(line("a", "@every 10s", spread="9s"), line("b", "@every 10s", topic=FIFO_TOPIC))
        store.before_s["flip"] = 5
        await clock.advance_to(at("08:59:58"))
        pruning = rig.start(rig.apply(line("c"), is_pruning=True))
        await clock.advance(6)
        assert (await pruning).removed == 2
        await clock.advance_to(at("09:00:25"))
        slots = {id_.partition("@")[2] for id_ in rig.accepted if id_[0] in "ab"}
        assert slots == {"2026-11-23T08:59:40Z", "2026-11-23T08:59:50Z"}
        assert len(rig.accepted) == len(set(rig.accepted)) == 5  # with that of c


async def test_a_preview_tells_all_and_does_nothing():
    async def lines(*given):
        for each in given:
            yield json.dumps(each).encode()

    async with running_engine() as rig:
        await rig.apply(line("same"), line("other"), line("gone"), line("rest", paused=True))
        given = [line("same"), line("other", note="x"), line("new"), line("rest", paused=False)]
        result = await rig.service.preview_apply(lines(*given), owner="default", is_pruning=True, most=10)
        assert (result.created, result.changed, result.removed, result.unchanged) == (1, 2, 1, 1)
        found = {each.name: (each.before is None, each.after is None) for each in result.differences}
        assert found == {
            "gone": (False, True),
            "new": (True, False),
            "other": (False, False),
            "rest": (False, False),
        }
        few = await rig.service.preview_apply(lines(*given), owner="default", most=1)
        assert [each.name for each in few.differences] == ["new"]
        assert (few.changed, few.removed) == (2, 0)
        assert await names(rig) == ["gone", "other", "rest", "same"]
        assert (await rig.service.get("other")).stored.revision == 1


async def test_a_preview_with_large_messages_is_cut_short(monkeypatch):
    async def lines():
        for number in range(5):
            yield json.dumps(line(f"s{number}", message="x" * 4_000)).encode()

    monkeypatch.setattr(applying, "_MOST_SHOWN_BYTES", 9_000)
    async with running_engine() as rig:
        result = await rig.service.preview_apply(lines(), owner="default", most=10)
        assert (result.created, len(result.differences)) == (5, 2)


async def test_a_line_names_its_owner_also_if_it_changes_nothing():
    async with running_engine() as rig:
        lines = [line("plain"), line("rests", paused=True), line("still", paused=True)]
        await rig.apply(*lines, owner="a")
        result = await rig.apply(*lines[:2], line("still"), owner="b")
        assert (result.created, result.changed, result.unchanged) == (0, 0, 3)
        owners = {view.stored.spec.name: view.stored.owner for view in (await rig.service.list())[0]}
        assert owners == {"plain": "b", "rests": "b", "still": "b"}
        assert (await rig.apply(line("x"), owner="a", is_pruning=True)).removed == 0
        await rig.apply(*lines, line("new"), owner="c")
        assert {view.stored.owner for view in (await rig.service.list())[0]} == {"a", "c"}


async def test_what_wakes_while_it_is_pruned_is_removed_all_the_same():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.apply(line("kept"), line("o1", "@every 10s"), line("o2"))
        for name in ("o1", "o2"):
            await rig.service.pause(name, by="t", until=at("08:59:35"))
        store.before_s["change"] = 6
        pruning = rig.start(rig.apply(line("kept", paused=True), is_pruning=True))
        await clock.advance(60)
        assert (await pruning).removed == 2
        store.before_s.clear()
        assert await names(rig) == ["kept"]
