"""A shard that comes to a running engine, or leaves it, loses no slot, sends none twice, and disturbs no other."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager

import pytest

from cronally.domain.model import Kind, SkipReason, State
from cronally.domain.shards import SHARDS
from cronally.engine.hooks import Hooks
from cronally.engine.records import TakenIn
from cronally.engine.retention import Keep, Retention
from cronally.errors import FireNotFound, ScheduleNotFound, ShardElsewhere, StoreBusy
from cronally.instants import UtcMs, format_utc, parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.lost_zone import lose_zone
from support.recording_publisher import (
    LOST_ACKNOWLEDGEMENT,
    PUBLISHED,
    REJECTED,
    THROTTLED,
    TOPIC_GONE,
    Answer,
)
from support.rig import FIFO_TOPIC, TOPIC, running_engine
from support.shard_store import Numbers, ShardStore, moved
from support.slot_lives import spread_offset


def at(time):
    return parse_rfc3339(f"2026-11-23T{time}Z")


def times(fire_ids):
    return [fire_id[-9:-1] for fire_id in fire_ids]


class Heard(Hooks):
    def __init__(self):
        self.recoveries = []

    def recovered(self, reason, after, through, fires, skipped):
        self.recoveries.append((reason, format_utc(after)[11:], format_utc(through)[11:], fires, skipped))


class Cluster:
    """Machines on one clock, each with a store of its own."""

    def __init__(self):
        self.clock = FakeClock()
        self.numbers = Numbers()

    def machine(self, **keys):
        store = FaultyStore(self.clock, ShardStore(self.numbers))
        return running_engine(clock=self.clock, store=store, is_one_of_several=True, **keys)

    @asynccontextmanager
    async def first(self, **keys):
        """A machine that has all shards, all of them empty."""
        async with self.machine(**keys) as rig:
            for number in range(SHARDS):
                await rig.engine.hand_over.take_in([TakenIn(number, (), None, was_clean=True)])
            yield rig

    async def done(self, coroutine, rig):
        """Await what needs no time."""
        task = rig.start(coroutine)
        await self.clock.settle()
        assert task.done(), "it waits for something"
        return task.result()

    async def give_up(self, rig, number):
        given = await self.done(rig.engine.hand_over.give_up(number), rig)
        assert given.was_clean
        return given.watermark

    async def take_in(self, rig, taken):
        await self.done(rig.engine.hand_over.take_in([taken]), rig)

    async def hand_over(self, source, target, number):
        """Carry a shard from one machine to another in order."""
        watermark = await self.give_up(source, number)
        taken = moved(source.store.inner, target.store.inner, number, watermark=watermark)
        await self.take_in(target, taken)

    async def take_over(self, store, target, number, watermark):
        """Carry a shard to a machine from the store of one that has crashed."""
        inner = target.store.inner
        await self.take_in(target, moved(store.inner, inner, number, watermark=watermark, was_clean=False))


async def shard_of_name(rig, name):
    return (await rig.service.get(name)).stored.id % SHARDS


def everything_of(rig, number):
    """What an engine still knows of a shard."""
    core, loop = rig.engine.core, rig.engine.loop
    attempts = loop._attempts
    groups = core.groups
    known = {
        "timetable or at rest": core.ids_of(number),
        "changing": [id_ for id_ in core._changing if id_ % SHARDS == number],
        "held": [key for key in core._held if key[0] % SHARDS == number],
        "resending": [key for key in core._resending if key[0] % SHARDS == number],
        "row first": [key for key in core._row_first if key[0] % SHARDS == number],
        "ending": [id_ for id_ in core._ending if id_ % SHARDS == number],
        "failing": [id_ for id_ in core.failing if id_ % SHARDS == number],
        "heads": [key for key in groups._heads if key.schedule_id % SHARDS == number],
        "ready": [fire for fire in attempts.ready if fire.schedule_id % SHARDS == number],
        "retrying": [key for key in attempts.retrying if key.schedule_id % SHARDS == number],
        "probes": [key for key in attempts.circuits.probes if key.schedule_id % SHARDS == number],
        "uncommitted": [row for row in rig.engine.settler._queue if row.schedule_id % SHARDS == number],
        "parked": [id_ for id_ in rig.engine.recovery._parked_names if id_ % SHARDS == number],
    }
    return {what: found for what, found in known.items() if found}


# --- a machine of several -----------------------------------------------------------------------------------------


async def test_a_machine_of_several_has_nothing_until_it_takes_it_in():
    cluster = Cluster()
    async with cluster.machine() as rig:
        for change in (
            rig.add("job", "@every 1s"),
            rig.apply({"name": "job", "when": "@every 1s", "topic": TOPIC}),
        ):
            with pytest.raises(ShardElsewhere, match="try again"):
                await change
        assert await rig.journal() == {}
        for number in range(SHARDS):
            await cluster.take_in(rig, TakenIn(number, (), None, was_clean=True))
        await rig.add("job", "@every 1s")
        await cluster.clock.advance(3)
        assert times(rig.sent) == ["08:59:31", "08:59:32", "08:59:33"]


# --- from one to the other ----------------------------------------------------------------------------------------


async def test_a_shard_that_goes_from_one_machine_to_another_has_each_slot_in_one_entry():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("job", "@every 1s", catch_up="all")
        await one.add("other", "@every 1s")
        number = await shard_of_name(one, "job")
        assert number != await shard_of_name(one, "other")
        await cluster.clock.advance(5.5)
        await cluster.hand_over(one, two, number)
        await cluster.clock.advance(5)
        await cluster.hand_over(two, one, number)
        await cluster.clock.advance(5)
        expected = [f"job@{format_utc(UtcMs(at('08:59:31') + 1000 * n))}" for n in range(15)]
        sent = one.publisher.arrivals + two.publisher.arrivals
        jobs = [a for a in sent if a.entry.name == "job"]
        assert sorted(a.entry.fire_id for a in jobs) == expected
        assert [a.entry.fire_id for a in two.publisher.arrivals] == expected[5:10]
        assert all(a.released_us == a.entry.fire.due_time * 1000 for a in sent)
        assert await one.states("job") == dict.fromkeys(expected, State.PUBLISHED)
        assert len([a for a in sent if a.entry.name == "other"]) == 15


@pytest.mark.parametrize("down_s", [0.2, 4, 12])
@pytest.mark.parametrize("policy", ["latest", "all", "skip"])
async def test_what_was_due_on_the_way_is_decided_by_policy_and_the_rest_is_planned(policy, down_s):
    cluster = Cluster()
    heard = Heard()
    async with cluster.first() as one, cluster.machine(hooks=heard) as two:
        await one.add("job", "@every 1s", catch_up=policy)
        number = await shard_of_name(one, "job")
        await cluster.clock.advance(5)
        watermark = await cluster.give_up(one, number)
        assert watermark == cluster.clock.wall() == at("08:59:35")
        assert times(one.sent)[-1] == "08:59:35"
        await cluster.clock.advance(down_s)
        taken = moved(one.store.inner, two.store.inner, number, watermark=watermark)
        await cluster.take_in(two, taken)
        now = cluster.clock.wall()
        # Missed is what is more than 10 s late; of that `latest` fires one, which something newer makes needless at once.
        missed = [s for s in range(36, 36 + int(down_s)) if at("08:59:00") + 1000 * s < now - 10_000]
        assert heard.recoveries[-1][0] == "hand-over"
        assert sum(entry.count for entry in (await two.journal("job")).values()) == 5 + int(down_s)
        await cluster.clock.advance(3.1)
        fired = [s for s in range(36, 39 + int(down_s)) if s not in missed or policy == "all"]
        assert sorted(times(two.sent)) == [f"08:59:{s}" for s in fired]
        entries = (await two.journal("job")).values()
        assert sum(entry.count for entry in entries) == 5 + int(down_s) + 3
        assert not any(entry.maybe_published for entry in entries)
        reasons = {entry.reason for entry in entries if entry.state is State.SKIPPED}
        assert reasons <= {SkipReason.CATCH_UP, SkipReason.SUPERSEDED}
        assert bool(reasons) is (bool(missed) and policy != "all")


async def test_every_slot_due_by_now_has_a_row_as_soon_as_a_shard_is_in():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine(room=0) as two:
        await one.add("job", "@every 1s", catch_up="all")
        number = await shard_of_name(one, "job")
        await cluster.clock.advance(1)
        watermark = await cluster.give_up(one, number)
        await cluster.clock.advance(5)
        await cluster.take_in(two, moved(one.store.inner, two.store.inner, number, watermark=watermark))
        assert times(await two.states("job")) == [f"08:59:{s}" for s in range(31, 37)]
        assert two.engine.core.watermark(cluster.clock.wall()) == at("08:59:36")


@pytest.mark.parametrize("ms_before", [1999, 500, 1])
async def test_a_slot_within_the_horizon_leaves_at_its_instant(ms_before):
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("job", "0 9 * * *")
        await one.add("single", "@at 2026-11-23T09:00:00Z")
        await cluster.clock.advance_to(UtcMs(at("09:00:00") - ms_before))
        for name in ("job", "single"):
            await cluster.hand_over(one, two, await shard_of_name(one, name))
        await cluster.clock.advance(5)
        assert one.sent == []
        assert sorted(two.sent) == ["job@2026-11-23T09:00:00Z", "single@2026-11-23T09:00:00Z"]
        assert {a.released_us for a in two.publisher.arrivals} == {at("09:00:00") * 1000}


async def test_the_watermark_waits_for_a_shard_until_what_was_due_of_it_is_on_record():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("job", "@every 1s")
        number = await shard_of_name(one, "job")
        await cluster.clock.advance(2)
        watermark = await cluster.give_up(one, number)
        taken = moved(one.store.inner, two.store.inner, number, watermark=watermark)
        await cluster.clock.advance(3)
        two.store.before_s["commit"] = 0.5
        taking = two.start(two.engine.hand_over.take_in([taken]))
        await cluster.clock.advance(0.4)
        assert two.engine.core.watermark(cluster.clock.wall()) == watermark
        await cluster.clock.advance(0.6)
        assert taking.done()
        assert two.engine.core.watermark(cluster.clock.wall()) >= at("08:59:35")


async def test_slots_that_come_due_while_a_shard_is_decided_are_sent_at_once_and_once():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("job", "@every 1s", catch_up="all")
        await one.add("single", "@at 2026-11-23T08:59:34Z")
        await cluster.clock.advance(2)
        given = {}
        for name in ("job", "single"):
            number = await shard_of_name(one, name)
            given[number] = await cluster.give_up(one, number)
        for number, watermark in given.items():
            taken = moved(one.store.inner, two.store.inner, number, watermark=watermark)
            two.store.after_s["settled_between"] = 1.7
            taking = two.start(two.engine.hand_over.take_in([taken]))
            await cluster.clock.advance(2)
            two.store.after_s.clear()
            assert taking.done()
        await cluster.clock.advance(2)
        jobs = [f"job@2026-11-23T08:59:{s}Z" for s in range(33, 39)]
        assert Counter(two.sent) == dict.fromkeys([*jobs, "single@2026-11-23T08:59:34Z"], 1)


# --- single instants ----------------------------------------------------------------------------------------------


async def test_single_instants_are_fired_once_by_whoever_has_them():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        for name, time in (
            ("past", "08:59:32"),
            ("between", "08:59:37"),
            ("soon", "08:59:40"),
            ("late", "09:30:00"),
        ):
            await one.add(name, f"@at 2026-11-23T{time}Z")
        numbers = {name: await shard_of_name(one, name) for name in ("past", "between", "soon", "late")}
        await cluster.clock.advance(5)
        given = {name: await cluster.give_up(one, number) for name, number in numbers.items()}
        await cluster.clock.advance(4)
        assert two.engine.core.at_through < at("08:59:32")  # it has read none yet, and reads from there on
        for name, number in numbers.items():
            taken = moved(one.store.inner, two.store.inner, number, watermark=given[name])
            await cluster.take_in(two, taken)
        await cluster.clock.advance_to(at("09:30:05"))
        assert one.sent == ["past@2026-11-23T08:59:32Z"]
        assert times(two.sent) == ["08:59:37", "08:59:40", "09:30:00"]


async def test_a_read_of_single_instants_that_is_under_way_sends_nothing_of_a_shard_twice():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("past", "@at 2026-11-23T08:59:32Z")
        await one.add("own", "@at 2026-11-23T08:59:42Z")
        await one.add("soon", "@at 2026-11-23T08:59:41Z")
        await cluster.clock.advance(5)
        await cluster.hand_over(one, two, await shard_of_name(one, "own"))
        two.store.after_s["at_between"] = 1.0
        await cluster.clock.advance_to(at("08:59:40.100"))
        assert two.engine.core.is_reading_at
        for name in ("past", "soon"):
            await cluster.hand_over(one, two, await shard_of_name(one, name))
        two.store.after_s.clear()
        await cluster.clock.advance(10)
        assert sorted(times(one.sent + two.sent)) == ["08:59:32", "08:59:41", "08:59:42"]


async def test_a_single_instant_that_planning_has_not_read_is_handed_over_as_pending():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("single", "@at 2026-11-23T08:59:40Z")
        number = await shard_of_name(one, "single")
        one.store.before_s["at_between"] = 4.0  # of planning, which is held up
        await cluster.clock.advance_to(at("08:59:40.500"))
        one.store.before_s.clear()
        watermark = await cluster.give_up(one, number)
        assert await one.states() == {"single@2026-11-23T08:59:40Z": State.PENDING}
        await cluster.take_in(two, moved(one.store.inner, two.store.inner, number, watermark=watermark))
        await cluster.clock.advance(5)
        assert (one.sent, two.sent) == ([], ["single@2026-11-23T08:59:40Z"])


async def test_shards_that_come_together_are_decided_in_one_commit_each_by_its_own_watermark():
    """A commit to a shared store takes two writes, one after the other, and while they come nobody fires the shards."""
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        names = [f"job-{number}" for number in range(40)]
        for name in names:
            await one.add(name, "@every 2s", catch_up="all")
        numbers = {await shard_of_name(one, name) for name in names}
        assert len(numbers) > 20
        taken = {}
        for number in numbers:
            watermark = await cluster.give_up(one, number)
            taken[number] = moved(one.store.inner, two.store.inner, number, watermark=watermark)
            await cluster.clock.advance(0.5)
        before = two.store.calls["commit"]
        await cluster.done(two.engine.hand_over.take_in([*taken.values()]), two)
        assert two.store.calls["commit"] == before + 1
        pending = {entry.due_time for entry in (await two.journal()).values()}
        assert max(pending) - min(pending) > 8_000
        await cluster.clock.advance(4)
        sent = one.sent + two.sent
        assert len(sent) == len(set(sent))
        last = cluster.clock.wall()
        for name in names:
            slots = [id_ for id_ in sent if id_.startswith(f"{name}@")]
            assert len(slots) == (last - at("08:59:30")) // 2_000, name


# --- pauses, failing and parked schedules -------------------------------------------------------------------------


async def test_a_paused_schedule_stays_paused_and_wakes_where_it_is():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        for name in ("ever", "awake", "soon", "later"):
            await one.add(name, "@every 1s", catch_up="all")
        for name, until in (
            ("ever", None),
            ("awake", "08:59:34"),
            ("soon", "08:59:36"),
            ("later", "08:59:40"),
        ):
            await one.service.pause(name, by="t", until=until and at(until))
        await cluster.clock.advance_to(at("08:59:32"))
        given = {}
        for name in ("ever", "awake", "soon", "later"):
            number = await shard_of_name(one, name)
            given[number] = await cluster.give_up(one, number)
        await cluster.clock.advance_to(at("08:59:35"))
        for number, watermark in given.items():
            await cluster.take_in(two, moved(one.store.inner, two.store.inner, number, watermark=watermark))
        await cluster.clock.advance_to(at("08:59:42"))
        assert one.sent == []
        woken = {
            name: sorted(times(id_ for id_ in two.sent if id_.startswith(name)))
            for name in ("ever", "awake", "soon", "later")
        }
        assert woken == {
            "ever": [],
            "awake": [f"08:59:{s}" for s in range(34, 43)],
            "soon": [f"08:59:{s}" for s in range(36, 43)],
            "later": [f"08:59:{s}" for s in range(40, 43)],
        }
        for name, first in (("awake", 34), ("soon", 36), ("later", 40)):
            assert (await two.service.get(name)).stored.pause is None
            rests = [e for e in (await two.journal(name)).values() if e.reason is SkipReason.PAUSED]
            assert [(e.is_open, e.last_slot) for e in rests] == [(False, at(f"08:59:{first - 1}"))]
        assert (await two.service.get("ever")).stored.pause is not None


async def test_a_single_instant_whose_pause_has_ended_on_the_way_fires_once():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("past", "@at 2026-11-23T08:59:34Z")
        await one.add("next", "@at 2026-11-23T08:59:38Z")
        given = {}
        for name in ("past", "next"):
            await one.service.pause(name, by="t", until=at("08:59:33"))
            number = await shard_of_name(one, name)
            given[number] = await cluster.give_up(one, number)
        await cluster.clock.advance_to(at("08:59:35"))
        for number, watermark in given.items():
            await cluster.take_in(two, moved(one.store.inner, two.store.inner, number, watermark=watermark))
        await cluster.clock.advance(10)
        assert times(two.sent) == ["08:59:34", "08:59:38"]


async def test_a_pause_that_has_ended_is_on_record_before_its_shard_leaves():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("job", "@every 1s", catch_up="all")
        await one.service.pause("job", by="t", until=at("08:59:33"))
        number = await shard_of_name(one, "job")
        await cluster.clock.advance_to(at("08:59:33"))
        await cluster.hand_over(one, two, number)
        await cluster.clock.advance(2)
        assert times(one.sent + two.sent) == ["08:59:33", "08:59:34", "08:59:35"]


async def test_a_schedule_that_fails_is_known_to_fail_where_it_goes():
    cluster = Cluster()
    answers = [TOPIC_GONE]
    async with (
        cluster.first(script=lambda _e, _n: answers[0]) as one,
        cluster.machine(script=lambda _e, _n: answers[0]) as two,
    ):
        await one.add("job", "0 9 * * *")
        number = await shard_of_name(one, "job")
        await cluster.clock.advance_to(at("09:00:01"))
        stored = (await one.service.get("job")).stored
        assert one.engine.core.failing == {stored.id}
        await cluster.hand_over(one, two, number)
        assert (one.engine.core.failing, two.engine.core.failing) == (set(), {stored.id})
        answers[0] = PUBLISHED
        await cluster.clock.advance(600)
        assert two.accepted == ["job@2026-11-23T09:00:00Z"]
        assert two.engine.core.failing == set()


async def test_a_schedule_whose_rule_cannot_be_compiled_is_parked_and_the_others_go_on(monkeypatch):
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("lost", "* * * * *", tz="Europe/London")
        group = {"topic": FIFO_TOPIC, "group": "g"}
        await one.add("gone", "* * * * *", tz="Europe/London", **group)
        await one.add("kept", "* * * * *", **group)
        given = {}
        for name in ("lost", "kept"):
            number = await shard_of_name(one, name)
            given[number] = await cluster.give_up(one, number)
        lose_zone(monkeypatch, "Europe/London")
        for number, watermark in given.items():
            await cluster.take_in(two, moved(one.store.inner, two.store.inner, number, watermark=watermark))
        assert set(two.engine.recovery.parked) == {"lost", "gone"}
        await cluster.clock.advance(60)
        assert two.sent == ["kept@2026-11-23T09:00:00Z"]
        await cluster.give_up(two, number)
        assert set(two.engine.recovery.parked) == {"lost"}


async def test_a_schedule_that_was_refused_once_is_well_again_where_it_goes():
    cluster = Cluster()
    async with cluster.first(script=lambda _e, _n: REJECTED) as one, cluster.machine() as two:
        await one.add("job", "* * * * *")
        await cluster.clock.advance_to(at("09:00:01"))
        await cluster.hand_over(one, two, await shard_of_name(one, "job"))
        assert (await two.service.get("job")).stored.error is not None
        await cluster.clock.advance(60)
        assert (await two.service.get("job")).stored.error is None


async def test_what_was_missed_since_a_pause_has_ended_goes_by_policy():
    cluster = Cluster()
    heard = Heard()
    async with cluster.first() as one, cluster.machine(hooks=heard) as two:
        await one.add("job", "@every 1s", catch_up="skip")
        await one.service.pause("job", by="t", until=at("08:59:33"))
        number = await shard_of_name(one, "job")
        watermark = await cluster.give_up(one, number)
        await cluster.clock.advance_to(at("08:59:50"))
        await cluster.take_in(two, moved(one.store.inner, two.store.inner, number, watermark=watermark))
        await cluster.clock.advance(2)
        assert sorted(times(two.sent)) == [f"08:59:{s}" for s in range(40, 53)]
        assert heard.recoveries[-1][0] == "hand-over"


async def test_a_single_instant_that_was_decided_by_a_clock_that_was_ahead_is_decided_anew():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("single", "@at 2026-11-23T08:59:35Z", catch_up="skip")
        number = await shard_of_name(one, "single")
        watermark = await cluster.give_up(one, number)
        await cluster.clock.advance_to(at("08:59:50"))
        await cluster.take_in(two, moved(one.store.inner, two.store.inner, number, watermark=watermark))
        assert set((await two.states()).values()) == {State.SKIPPED}
        cluster.clock.step_wall(-20_000)
        await cluster.clock.advance(10)
        assert two.sent == ["single@2026-11-23T08:59:35Z"]


# --- what is pending ----------------------------------------------------------------------------------------------


async def test_what_backs_off_is_held_or_stands_in_line_goes_on_where_its_shard_is():
    cluster = Cluster()
    refused = {"backs-off": THROTTLED, "held": TOPIC_GONE}
    other = TOPIC.replace("reports", "mails")

    def answer(entry, _attempt):
        return refused.get(entry.name, PUBLISHED)

    async with cluster.first(script=answer) as one, cluster.machine(script=answer) as two:
        await one.add("backs-off", "0 9 * * *")
        await one.add("held", "0 9 * * *", topic=other)
        await one.add("in-line", "1 9 * * *", topic=other, deadline="1h")
        await cluster.clock.advance_to(at("09:01:00.500"))
        rows = {row.spec.name: await one.journal(row.spec.name) for row in await one.store.schedules()}
        assert next(iter(rows["in-line"].values())).is_in_line
        attempts = {name: next(iter(found.values())).attempts for name, found in rows.items()}
        assert attempts["backs-off"] > 2
        for name, found in rows.items():
            await cluster.hand_over(one, two, await shard_of_name(one, name))
            assert await two.journal(name) == found
        await cluster.clock.advance(3)
        refused.clear()
        sent = len(one.sent)
        await cluster.clock.advance(600)
        assert len(one.sent) == sent
        assert sorted(two.accepted) == sorted(id_ for name in rows for id_ in rows[name])
        assert {e.attempts > attempts[n] for n in rows for e in (await two.journal(n)).values()} == {True}


async def test_what_somebody_asked_for_is_sent_where_its_shard_is():
    cluster = Cluster()
    async with cluster.first(room=0) as one, cluster.machine() as two:
        await one.add("job", "0 9 * * *")
        fire_id = await one.service.run("job", by="t")
        await cluster.hand_over(one, two, await shard_of_name(one, "job"))
        await cluster.clock.advance(1)
        assert (one.sent, two.sent) == ([], [fire_id])


@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_group_keeps_its_order_from_machine_to_machine(is_busy):
    cluster = Cluster()
    refused = [is_busy]

    def answer(_entry, attempt):
        return THROTTLED._replace(delay_s=0.3) if refused[0] and attempt < 4 else Answer(delay_s=0.3)

    async with cluster.first(script=answer) as one, cluster.machine(script=answer) as two:
        keys = {"topic": FIFO_TOPIC, "group": "g", "catch_up": "all"}
        await one.add("a", "@every 1s", **keys)
        await one.add("b", "@every 2s", **keys)
        number = await shard_of_name(one, "a")
        machines = [one, two]
        for _ in range(6):
            await cluster.clock.advance(2.7)
            giver, taker = machines
            giving = giver.start(giver.engine.hand_over.give_up(number))
            await cluster.clock.advance(0.5)
            watermark = giving.result().watermark
            assert everything_of(giver, number) == {}
            taken = moved(giver.store.inner, taker.store.inner, number, watermark=watermark)
            await cluster.take_in(taker, taken)
            machines.reverse()
        refused[0] = False
        await cluster.clock.advance(60)
        sent = sorted(one.publisher.accepted + two.publisher.accepted, key=lambda a: a.released_us)
        keys_ = [(a.entry.fire.due_time, a.entry.fire.fire_time, a.entry.name) for a in sent]
        assert len(keys_) > 60
        assert keys_ == sorted(set(keys_))


async def test_a_group_that_comes_does_not_let_a_later_slot_overtake_what_is_pending():
    cluster = Cluster()
    async with (
        cluster.first(room=0) as one,
        cluster.machine(script=lambda _e, _n: Answer(delay_s=0.2)) as two,
    ):
        keys = {"topic": FIFO_TOPIC, "group": "g", "catch_up": "all"}
        await one.add("a", "@every 1s", **keys)
        await one.add("mine", "@every 1s", topic=FIFO_TOPIC, group="mine")
        await cluster.hand_over(one, two, await shard_of_name(one, "mine"))
        await cluster.clock.advance(10)
        await cluster.hand_over(one, two, await shard_of_name(one, "a"))
        await cluster.clock.advance(20)
        of_a = times(a.entry.fire_id for a in two.publisher.arrivals if a.entry.name == "a")
        assert of_a == sorted(of_a)
        assert of_a[0] == "08:59:31"
        assert len(of_a) > 25


# --- after a crash ------------------------------------------------------------------------------------------------


async def test_what_a_crashed_machine_may_have_sent_is_in_doubt_and_nothing_else():
    cluster = Cluster()
    async with cluster.first() as two:
        await two.add("own", "0 9 * * *")
        mine = await shard_of_name(two, "own")
        async with cluster.machine(
            crash=True, script=lambda e, _n: THROTTLED if e.name == "pending" else PUBLISHED
        ) as one:
            for number in range(SHARDS):
                if number != mine:
                    await cluster.give_up(two, number)
                    await cluster.take_in(
                        one, moved(two.store.inner, one.store.inner, number, watermark=cluster.clock.wall())
                    )
            for name in ("skips", "pending", "expires"):
                keys = {"deadline": "5s"} if name == "expires" else {}
                await one.add(name, "@every 2s", catch_up="skip" if name == "skips" else "all", **keys)
            numbers = [await shard_of_name(one, name) for name in ("skips", "pending", "expires")]
            await cluster.clock.advance(4)
            watermark = one.store.inner._watermark
            store = one.store
        two.publisher.script = lambda _e, _n: THROTTLED
        await cluster.clock.advance_to(at("09:00:05"))
        for number in numbers:
            await cluster.take_over(store, two, number, watermark)
        doubted = {id_ for id_, entry in (await two.journal()).items() if entry.maybe_published}
        known = await two.journal()
        due = {
            id_ for id_, entry in known.items() if entry.due_time > watermark or entry.state is State.PENDING
        }
        assert doubted == due - {"own@2026-11-23T09:00:00Z"}
        assert {known[id_].state for id_ in doubted} == {State.PENDING, State.SKIPPED, State.EXPIRED}
        await cluster.clock.advance(4)
        later = [e for e in (await two.journal()).values() if e.due_time > at("09:00:05")]
        assert later
        assert not any(entry.maybe_published for entry in later)


async def test_a_shard_of_a_machine_whose_clock_was_ahead_fires_nothing_twice():
    cluster = Cluster()
    ahead = FakeClock(UtcMs(cluster.clock.wall() + 3_000))
    store = FaultyStore(ahead, ShardStore(cluster.numbers))
    async with (
        cluster.first() as two,
        running_engine(clock=ahead, store=store, is_one_of_several=True) as one,
    ):
        await two.add("job", "@every 1s", catch_up="all")
        await two.add("other", "@every 1s")
        number = await shard_of_name(two, "job")
        watermark = await cluster.give_up(two, number)
        await one.engine.hand_over.take_in([moved(two.store.inner, store.inner, number, watermark=watermark)])
        await ahead.advance(4)
        await cluster.clock.advance(4)
        watermark, _ = await one.engine.hand_over.give_up(number)
        assert watermark == cluster.clock.wall() + 3_000
        await cluster.take_in(two, moved(store.inner, two.store.inner, number, watermark=watermark))
        await cluster.clock.advance(6)
        jobs = [id_ for id_ in one.sent + two.sent if id_.startswith("job")]
        assert sorted(times(jobs)) == [f"08:59:{s}" for s in range(31, 41)]
        assert len([id_ for id_ in two.sent if id_.startswith("other")]) == 10


@pytest.mark.parametrize("is_crash", [False, True], ids=["in order", "by a crash"])
async def test_what_a_crashed_machine_may_have_sent_stays_in_doubt_from_machine_to_machine(is_crash):
    cluster = Cluster()
    async with cluster.machine(script=lambda _e, _n: THROTTLED) as three:
        async with cluster.first(crash=is_crash, script=lambda _e, _n: THROTTLED) as two:
            async with cluster.machine(crash=True) as one:
                for number in range(SHARDS):
                    await cluster.hand_over(two, one, number)
                await one.add("job", "@every 10s", catch_up="skip", deadline="15s")
                number = await shard_of_name(one, "job")
                await cluster.clock.advance_to(at("08:59:45"))
                lost = one.store
            await cluster.clock.advance_to(at("09:00:28"))
            await cluster.take_over(lost, two, number, lost.inner._watermark)
            taken_over = (await two.journal("job")).values()
            (skipped,) = [entry for entry in taken_over if entry.reason is SkipReason.CATCH_UP]
            assert (skipped.last_slot, skipped.maybe_published) == (at("09:00:10"), True)
            cluster.clock.step_wall(-30_000)
            await cluster.clock.advance(1)  # what was skipped is taken back, and its row told of the doubt
            if not is_crash:
                given = await cluster.done(two.engine.hand_over.give_up(number), two)
                assert not given.was_clean
            left, watermark = two.store, two.store.inner._watermark
        await cluster.take_over(left, three, number, watermark)
        await cluster.clock.advance_to(at("09:01:30"))
        journal = await three.journal("job")
        doubted = [entry.fire_time for entry in journal.values() if entry.maybe_published]
        assert times(map(format_utc, doubted)) == ["08:59:50", "09:00:00", "09:00:10", "09:00:20"]
        assert {journal[f"job@{format_utc(slot)}"].state for slot in doubted} == {State.EXPIRED}


async def test_a_shard_that_was_on_its_way_when_the_clock_was_set_back_has_each_slot_in_one_entry():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("job", "@every 5s")
        number = await shard_of_name(one, "job")
        await cluster.clock.suspend(60)
        await cluster.clock.advance(2)
        rows = await one.journal("job")
        assert [entry.count for entry in rows.values() if entry.reason is SkipReason.CATCH_UP] == [9]
        watermark = await cluster.give_up(one, number)
        taken = moved(one.store.inner, two.store.inner, number, watermark=watermark)
        cluster.clock.step_wall(-40_000)  # into the middle of what was skipped together
        await cluster.clock.advance(1)
        await cluster.take_in(two, taken)
        await cluster.clock.advance(60)
        sent = times(one.sent + two.sent)
        assert len(sent) == len(set(sent))
        rows = await two.journal("job")
        (skipped,) = [entry for entry in rows.values() if entry.reason is SkipReason.CATCH_UP]
        assert not [time for time in sent if skipped.fire_time <= at(time) <= skipped.last_slot]
        assert len(sent) + skipped.count == (cluster.clock.wall() - at("08:59:30")) // 5_000


# --- what goes wrong while a shard comes ----------------------------------------------------------------------------


TAKING = ("specs", "settled_between", "commit", "pending_groups", "newest_settled", "mark_unclean")


@pytest.mark.parametrize("method", TAKING)
async def test_shards_that_come_together_are_in_all_or_none(method):
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        for name in ("a", "c"):
            await one.add(name, "@every 2s", catch_up="all")
        taken = []
        for name in ("a", "c"):
            number = await shard_of_name(one, name)
            watermark = await cluster.give_up(one, number)
            taken.append(
                moved(one.store.inner, two.store.inner, number, watermark=watermark, was_clean=False)
            )
        await cluster.clock.advance(5)
        two.store.fail(method)
        with pytest.raises(StoreBusy):
            await two.engine.hand_over.take_in(taken)
        assert {each.number for each in taken} <= two.engine.core.here.absent
        two.store.fail()
        await cluster.done(two.engine.hand_over.take_in(taken), two)
        await cluster.clock.advance(3)
        assert sorted(times(two.sent)) == sorted([f"08:59:{s}" for s in (32, 34, 36, 38)] * 2)


@pytest.mark.parametrize("method", TAKING)
async def test_a_shard_that_the_store_does_not_let_in_is_out_and_can_be_taken_again(method):
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("job", "@every 1s", catch_up="all")
        await one.add("single", "@at 2026-11-23T08:59:33Z")
        await one.add("fifo", "@every 1s", topic=FIFO_TOPIC, catch_up="all")
        await one.add("own", "@every 1s")
        await cluster.hand_over(one, two, await shard_of_name(one, "own"))
        given = {}
        for name in ("job", "single", "fifo"):
            number = await shard_of_name(one, name)
            given[number] = await cluster.give_up(one, number)
        await cluster.clock.advance(5)
        all_taken = [
            moved(one.store.inner, two.store.inner, number, watermark=watermark, was_clean=False)
            for number, watermark in given.items()
        ]
        for taken in all_taken:
            two.store.fail(method)
            taking = two.start(two.engine.hand_over.take_in([taken]))
            await cluster.clock.settle()
            assert isinstance(taking.exception(), StoreBusy) or (method, len(taken.rows)) == ("specs", 0)
            two.store.fail()
            kept = everything_of(two, taken.number)
            kept.pop("uncommitted", None)
            assert kept == {}
            with pytest.raises(ShardElsewhere):
                await two.service.run(taken.rows[0].name, by="t")
        await cluster.clock.advance(1)
        assert {id_.partition("@")[0] for id_ in two.sent} <= {"own"}
        for taken in all_taken:
            await cluster.take_in(two, taken)
        await cluster.clock.advance(2)
        fired = Counter(id_ for id_ in two.sent if not id_.startswith("own"))
        seconds = [f"2026-11-23T08:59:{s}Z" for s in range(31, 39)]
        expected = [f"{name}@{t}" for name in ("job", "fifo") for t in seconds] + [
            "single@2026-11-23T08:59:33Z"
        ]
        assert fired == dict.fromkeys(expected, 1)


async def test_a_jump_of_the_clock_while_a_shard_is_taken_in_is_seen_to_afterwards():
    cluster = Cluster()
    heard = Heard()
    async with cluster.first() as one, cluster.machine(hooks=heard) as two:
        await one.add("job", "@every 1s", catch_up="all")
        await one.add("own", "@every 1s", catch_up="all")
        await cluster.hand_over(one, two, await shard_of_name(one, "own"))
        number = await shard_of_name(one, "job")
        watermark = await cluster.give_up(one, number)
        await cluster.clock.advance(3)
        taken = moved(one.store.inner, two.store.inner, number, watermark=watermark)
        two.store.before_s["commit"] = 0.4
        taking = two.start(two.engine.hand_over.take_in([taken]))
        await cluster.clock.advance(0.1)
        cluster.clock.step_wall(5_000)
        await cluster.clock.advance(5)
        two.store.before_s.clear()
        assert taking.done()
        assert [each[0] for each in heard.recoveries[-2:]] == ["hand-over", "clock step"]
        await cluster.clock.advance(1)
        last = int(format_utc(cluster.clock.wall())[17:19])
        expected = [f"{name}@2026-11-23T08:59:{s}Z" for name in ("job", "own") for s in range(31, last + 1)]
        assert Counter(two.sent) == dict.fromkeys(expected, 1)


async def test_a_clock_set_back_while_a_shard_is_taken_in_fires_nothing_twice():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("job", "@every 1s", catch_up="all")
        number = await shard_of_name(one, "job")
        await cluster.clock.advance(5)
        watermark = await cluster.give_up(one, number)
        await cluster.clock.advance(3)
        taken = moved(one.store.inner, two.store.inner, number, watermark=watermark)
        two.store.before_s["commit"] = 0.4
        taking = two.start(two.engine.hand_over.take_in([taken]))
        await cluster.clock.advance(0.1)
        cluster.clock.step_wall(-6_000)
        await cluster.clock.advance(15)
        assert taking.done()
        sent = one.sent + two.sent
        last = int(format_utc(cluster.clock.wall())[17:19])
        assert Counter(sent) == {f"job@2026-11-23T08:59:{s}Z": 1 for s in range(31, last + 1)}


async def test_what_was_decided_and_not_committed_is_on_record_before_it_is_decided_again():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("job", "@every 1s", catch_up="skip")
        number = await shard_of_name(one, "job")
        watermark = await cluster.give_up(one, number)
        await cluster.clock.advance(20)
        taken = moved(one.store.inner, two.store.inner, number, watermark=watermark)
        two.store.fail("commit")
        for _ in range(2):
            with pytest.raises(StoreBusy):
                await two.engine.hand_over.take_in([taken])
            await cluster.clock.advance(15)
        two.store.fail()
        await cluster.take_in(two, taken)
        await cluster.clock.advance(1.1)
        assert sum(entry.count for entry in (await two.journal("job")).values()) == 51


async def test_a_shard_that_the_store_does_not_let_in_leaves_no_parked_schedule(monkeypatch):
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("lost", "* * * * *", tz="Europe/London")
        number = await shard_of_name(one, "lost")
        watermark = await cluster.give_up(one, number)
        lose_zone(monkeypatch, "Europe/London")
        two.store.fail("settled_between")
        with pytest.raises(StoreBusy):
            await two.engine.hand_over.take_in(
                [moved(one.store.inner, two.store.inner, number, watermark=watermark)]
            )
        assert everything_of(two, number) == {}


async def test_a_shard_waits_for_a_recovery_that_is_under_way():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("job", "@every 1s", catch_up="all")
        number = await shard_of_name(one, "job")
        watermark = await cluster.give_up(one, number)
        two.store.before_s["settled_between"] = 2.0
        cluster.clock.step_wall(5_000)
        await cluster.clock.advance(1)
        assert two.engine.loop.recovering.locked()
        two.store.before_s.clear()
        taken = moved(one.store.inner, two.store.inner, number, watermark=watermark)
        taking = two.start(two.engine.hand_over.take_in([taken]))
        await cluster.clock.advance(0.5)
        assert not taking.done()
        await cluster.clock.advance(3)
        assert taking.done()
        last = int(format_utc(cluster.clock.wall())[17:19])
        assert Counter(times(two.sent)) == {f"08:59:{s}": 1 for s in range(31, last + 1)}


async def test_an_order_waits_for_a_shard_that_comes():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("job", "0 9 * * *")
        number = await shard_of_name(one, "job")
        watermark = await cluster.give_up(one, number)
        two.store.before_s["settled_between"] = 0.5
        taken = moved(one.store.inner, two.store.inner, number, watermark=watermark)
        taking = two.start(two.engine.hand_over.take_in([taken]))
        await cluster.clock.settle()
        running = two.start(two.service.run("job", by="t"))
        await cluster.clock.advance(1)
        assert taking.done()
        assert two.sent == [running.result()]


async def test_a_change_waits_for_a_shard_that_comes_and_is_exact():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("job", "@every 1s", message="old", catch_up="all")
        number = await shard_of_name(one, "job")
        watermark = await cluster.give_up(one, number)
        await cluster.clock.advance(2)
        two.store.before_s["settled_between"] = 0.5
        taking = two.start(
            two.engine.hand_over.take_in(
                [moved(one.store.inner, two.store.inner, number, watermark=watermark)]
            )
        )
        await cluster.clock.advance(0.1)
        changing = two.start(
            two.service.put("job", {"when": "@every 1s", "topic": TOPIC, "message": "new"}, by="t")
        )
        await cluster.clock.settle()
        assert not changing.done()
        await cluster.clock.advance(3)
        assert (taking.done(), changing.done()) == (True, True)
        went = {a.entry.fire_id[-9:-1]: a.entry.message for a in two.publisher.arrivals}
        assert went == {
            "08:59:31": "old",
            "08:59:32": "old",
            "08:59:33": "new",
            "08:59:34": "new",
            "08:59:35": "new",
        }
        assert len(two.sent) == 5


async def test_planning_that_lags_does_not_fire_what_a_taken_shard_has_settled():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("job", "@every 1s", catch_up="all")
        await one.add("own", "@every 1s", catch_up="all")
        await cluster.hand_over(one, two, await shard_of_name(one, "own"))
        number = await shard_of_name(one, "job")
        await cluster.clock.advance(1)
        two.store.fails = lambda name: name == "specs"  # planning waits for what it sends
        await cluster.clock.advance(5)
        watermark = await cluster.give_up(one, number)
        two.store.fail()
        assert two.engine.core.planned_through < watermark
        await cluster.take_in(two, moved(one.store.inner, two.store.inner, number, watermark=watermark))
        await cluster.clock.advance(3)
        sent = Counter(one.sent + two.sent)
        seconds = [f"2026-11-23T08:59:{s}Z" for s in range(31, 40)]
        assert sent == {f"{name}@{t}": 1 for name in ("job", "own") for t in seconds}


# --- giving up ----------------------------------------------------------------------------------------------------


async def test_what_is_armed_loses_the_shard_and_the_others_leave_at_their_instant():
    cluster = Cluster()
    async with cluster.first() as one:
        for number in range(10):
            await one.add(f"job-{number}", "0 9 * * *")
        await cluster.clock.advance_to(at("08:59:59.500"))
        assert any(len(armed.batch.entries) == 10 for armed in one.publisher.armed)
        watermark = await cluster.give_up(one, await shard_of_name(one, "job-3"))
        assert watermark == at("08:59:59.500")
        await cluster.clock.advance(2)
        others = [n for n in range(10) if n != 3]
        assert sorted(one.sent) == sorted(f"job-{n}@2026-11-23T09:00:00Z" for n in others)
        assert {a.released_us for a in one.publisher.arrivals} == {at("09:00:00") * 1000}
        assert "job-3@2026-11-23T09:00:00Z" not in await one.journal()


async def test_an_open_attempt_is_awaited_and_the_others_go_on_meanwhile():
    cluster = Cluster()

    def answer(entry, _attempt):
        if entry.name == "slow":
            return LOST_ACKNOWLEDGEMENT._replace(delay_s=8)
        return PUBLISHED

    async with cluster.first(script=answer) as one, cluster.machine() as two:
        await one.add("slow", "@every 5s", catch_up="all")
        await one.add("other", "@every 1s")
        number = await shard_of_name(one, "slow")
        await cluster.clock.advance_to(at("08:59:38.500"))  # that of 08:59:40 is armed
        giving = one.start(one.engine.hand_over.give_up(number))
        await cluster.clock.advance_to(at("08:59:42.900"))
        assert not giving.done()
        await one.set("other", when="@every 1s", message="an edit of others does not wait for it")
        await cluster.clock.advance_to(at("08:59:43"))
        assert giving.result().watermark == at("08:59:38.500")
        assert everything_of(one, number) == {}
        row = (await one.journal("slow"))["slow@2026-11-23T08:59:35Z"]
        assert (row.state, row.attempts, row.maybe_published) == (State.PENDING, 1, True)
        assert set(await one.journal("slow")) == {"slow@2026-11-23T08:59:35Z"}
        others = [a for a in one.publisher.arrivals if a.entry.name == "other"]
        assert len(others) == 13
        assert all(a.released_us == a.entry.fire.due_time * 1000 for a in others)
        await cluster.take_in(
            two, moved(one.store.inner, two.store.inner, number, watermark=giving.result().watermark)
        )
        await cluster.clock.advance(3)
        assert sorted(times(two.sent)) == ["08:59:35", "08:59:40", "08:59:45"]


async def test_what_was_asked_of_a_shard_that_is_given_up_meanwhile_is_for_another_machine():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("job", "0 9 * * *")
        number = await shard_of_name(one, "job")
        one.service._everything = two.store
        await cluster.hand_over(one, two, number)
        for asked in (
            one.service.pause("job", by="uid 1"),
            one.service.run("job", by="uid 1"),
            one.service.retry(["job@2026-11-23T08:00:00Z"], by="uid 1"),
        ):
            with pytest.raises(ShardElsewhere):
                await asked
        with pytest.raises(ScheduleNotFound):
            await one.service.run("other", by="uid 1")
        with pytest.raises(FireNotFound):
            await two.service.retry(["job@2026-11-23T08:00:00Z"], by="uid 1")


async def test_a_machine_that_drains_sends_nothing_more_and_has_on_record_what_is_answered_meanwhile():
    cluster = Cluster()
    async with cluster.first(script=lambda _entry, _attempt: PUBLISHED._replace(delay_s=0.4)) as one:
        await one.add("job", "@every 1s")
        await cluster.clock.advance_to(at("08:59:40.100"))  # that of 08:59:40 is in flight
        draining = one.start(one.engine.hand_over.drain(1.0))
        await cluster.clock.advance_to(at("08:59:40.500"))
        assert draining.done()
        row = (await one.journal("job"))["job@2026-11-23T08:59:40Z"]
        assert row.state is State.PUBLISHED
        await cluster.clock.advance(5)
        assert times(one.sent)[-1] == "08:59:40"


async def test_what_was_due_and_has_not_left_becomes_pending():
    cluster = Cluster()
    async with cluster.first(room=0) as one:
        await one.add("job", "@every 1s", catch_up="all")
        await one.add("fifo", "@every 1s", topic=FIFO_TOPIC, group="g", catch_up="all")
        numbers = [await shard_of_name(one, name) for name in ("job", "fifo")]
        await cluster.clock.advance(3.5)
        for number in numbers:
            watermark = await cluster.give_up(one, number)
            assert watermark == cluster.clock.wall()
            assert everything_of(one, number) == {}
        journal = await one.journal()
        seconds = [f"2026-11-23T08:59:{s}Z" for s in (31, 32, 33)]
        assert set(journal) == {f"{name}@{t}" for name in ("job", "fifo") for t in seconds}
        assert {entry.state for entry in journal.values()} == {State.PENDING}
        first = journal["job@2026-11-23T08:59:31Z"]
        assert (first.next_attempt_at, first.attempts) == (first.due_time, 0)
        one.publisher.room = None
        one.publisher.on_room()
        await cluster.clock.advance(10)
        assert one.sent == []


async def test_what_is_taken_and_finds_no_memory_becomes_pending_too():
    cluster = Cluster()
    async with cluster.first(room=0, armed_budget_bytes=1) as one, cluster.machine() as two:
        for number in range(30):
            await one.add(f"job-{number}", "@every 1s", catch_up="all")
        await cluster.clock.advance(0.5)
        one.store.before_s["specs"] = 5.0  # planning waits for it
        await cluster.clock.advance(3)
        one.store.before_s.clear()
        assert one.engine.core.takings.earliest_due() <= cluster.clock.wall()
        numbers = {await shard_of_name(one, f"job-{number}") for number in range(30)}
        for number in numbers:
            await cluster.hand_over(one, two, number)
        await cluster.clock.advance(2)
        assert one.sent == []
        slots = [f"job-{n}@2026-11-23T08:59:{s}Z" for n in range(30) for s in range(31, 36)]
        assert Counter(two.sent) == dict.fromkeys(slots, 1)


async def test_slots_of_a_spread_are_settled_by_when_they_are_due():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        await one.add("spread", "@every 10s", spread="90s", catch_up="all")
        number = await shard_of_name(one, "spread")
        offset_ms = (await one.service.get("spread")).stored.spec.offset_ms()
        assert offset_ms > 10_000
        for giver, taker, minute in ((one, two, 0), (two, one, 1)):  # a second before one is due
            await cluster.clock.advance_to(UtcMs(at(f"09:0{minute}:40") + offset_ms % 10_000 - 1_000))
            await cluster.hand_over(giver, taker, number)
        await cluster.clock.advance_to(at("09:02:35"))
        sent = one.publisher.arrivals + two.publisher.arrivals
        slots = range(at("08:59:40"), cluster.clock.wall() - offset_ms, 10_000)
        assert sorted(a.entry.fire.fire_time for a in sent) == list(slots)
        assert all(a.released_us == a.entry.fire.due_time * 1000 for a in sent)


async def test_of_a_shard_that_has_left_nothing_can_be_changed_or_asked_for():
    cluster = Cluster()
    async with cluster.first() as one:
        await one.add("job", "@every 1s")
        await cluster.clock.advance(1)
        await cluster.give_up(one, await shard_of_name(one, "job"))
        document = {"when": "@every 2s", "topic": TOPIC}
        for change in (
            one.service.put("job", document, by="t"),
            one.service.pause("job", by="t"),
            one.service.remove("job", by="t"),
            one.service.run("job", by="t"),
            one.service.backfill("job", first="2026-11-23T08:59:00Z", last="2026-11-23T08:59:31Z", by="t"),
            one.apply({"name": "job", **document}),
        ):
            with pytest.raises(ShardElsewhere, match="not this machine's"):
                await change
        await cluster.clock.advance(5)
        assert times(one.sent) == ["08:59:31"]
        assert len(await one.journal()) == 1


async def test_giving_up_again_says_the_same():
    cluster = Cluster()
    async with cluster.first() as one:
        await one.add("job", "@every 1s")
        number = await shard_of_name(one, "job")
        watermark = await cluster.give_up(one, number)
        await cluster.clock.advance(2)
        assert await cluster.give_up(one, number) == watermark
        taken = moved(one.store.inner, one.store.inner, number, watermark=watermark)
        await cluster.take_in(one, taken)  # the store would not give it
        await cluster.clock.advance(1)
        assert await cluster.give_up(one, number) == cluster.clock.wall()
        assert times(one.sent) == ["08:59:31", "08:59:32", "08:59:33"]


@pytest.mark.parametrize("method", ["commit", "change"])
async def test_a_shard_that_the_store_does_not_let_go_stays_and_fires_on(method):
    cluster = Cluster()
    async with cluster.first(room=0) as one:
        await one.add("job", "@every 1s", catch_up="all")
        keys = {"topic": FIFO_TOPIC, "group": "g"}
        await one.add("fifo", "@every 1s", catch_up="all", **keys)
        await one.add("asleep", "@every 1s", catch_up="all", **keys)
        await one.add("rested", "@every 1s", catch_up="all")
        await one.service.pause("asleep", by="t", until=at("08:59:36"))
        await one.service.pause("rested", by="t", until=at("08:59:33"))
        run = await one.service.run("job", by="t")
        if method == "change":
            one.store.fail(method)
        await cluster.clock.advance_to(at("08:59:33.500"))  # nothing waits to be committed
        names = ("rested",) if method == "change" else ("job", "fifo", "rested")
        for name in names:
            one.store.fail(method)
            giving = one.start(one.engine.hand_over.give_up(await shard_of_name(one, name)))
            await cluster.clock.settle()
            assert isinstance(giving.exception(), StoreBusy)
            one.store.fail()
        one.publisher.room = None
        one.publisher.on_room()
        await cluster.clock.advance_to(at("08:59:40"))
        expected = [run]
        for name, first in (("job", 31), ("fifo", 31), ("asleep", 36), ("rested", 33)):
            expected += [f"{name}@2026-11-23T08:59:{s}Z" for s in range(first, 41)]
        assert Counter(one.sent) == dict.fromkeys(expected, 1)
        group = times(a.entry.fire_id for a in one.publisher.arrivals if a.entry.group == "g")
        assert group == sorted(group)
        await cluster.clock.advance(1)
        assert set((await one.states("job")).values()) == {State.PUBLISHED}


async def test_a_group_whose_head_was_about_to_be_tried_again_goes_on_if_its_shard_stays():
    cluster = Cluster()
    async with cluster.first(script=lambda _e, n: THROTTLED if n == 1 else PUBLISHED) as one:
        await one.add("fifo", "@every 1s", catch_up="all", topic=FIFO_TOPIC, group="g")
        number = await shard_of_name(one, "fifo")
        await cluster.clock.advance_to(at("08:59:31"))
        one.publisher.room = 0
        await cluster.clock.advance_to(at("08:59:33"))  # its row waits to be committed
        one.store.fail("commit")
        with pytest.raises(StoreBusy):
            await one.engine.hand_over.give_up(number)
        one.store.fail()
        one.publisher.room = None
        one.publisher.on_room()
        await cluster.clock.advance(20)
        assert times(one.accepted) == sorted(times(one.accepted))
        assert len(set(one.accepted)) == len(one.accepted) > 18


@pytest.mark.parametrize("topic", [TOPIC, FIFO_TOPIC])
async def test_what_is_being_read_when_its_shard_leaves_is_not_missed(topic):
    cluster = Cluster()
    answer = THROTTLED if topic == FIFO_TOPIC else PUBLISHED
    async with cluster.first(script=lambda _e, _n: answer) as one, cluster.machine() as two:
        await one.add("job", "@every 5s", catch_up="all", topic=topic)
        number = await shard_of_name(one, "job")
        await cluster.clock.advance_to(at("08:59:32.900"))
        one.store.before_s["specs"] = 0.7
        await cluster.clock.advance_to(at("08:59:35.100" if topic == FIFO_TOPIC else "08:59:33.100"))
        watermark = await cluster.give_up(one, number)
        taken = moved(one.store.inner, two.store.inner, number, watermark=watermark)
        await cluster.clock.advance(3)
        await cluster.take_in(two, taken)
        await cluster.clock.advance_to(at("08:59:45.100"))
        assert sorted(times(set(two.accepted))) == ["08:59:35", "08:59:40", "08:59:45"]


async def test_a_group_whose_shard_leaves_between_the_reads_of_its_fires_and_of_their_messages_is_let_go():
    cluster = Cluster()
    keys = {"catch_up": "all", "topic": FIFO_TOPIC}
    async with cluster.first(script=lambda _e, _n: THROTTLED) as one, cluster.machine() as two:
        await one.add("job", "@every 5s", group="g", **keys)
        await one.add("other", "@every 1s", group="h", **keys)
        number = await shard_of_name(one, "job")
        await cluster.hand_over(one, two, await shard_of_name(one, "other"))
        await cluster.clock.advance_to(at("08:59:35.100"))
        two.store.fail("group_pending")
        await cluster.hand_over(one, two, number)
        # A change keeps the shard from leaving until its group is read, which takes longer than to leave.
        two.store.before_s["change"] = 0.5
        two.store.after_s["group_pending"] = 1
        changing = two.start(two.service.pause("other", by="t"))
        await cluster.clock.advance(0.1)
        two.store.fail()
        giving = two.start(two.engine.hand_over.give_up(number))
        await cluster.clock.advance(0.5)
        assert changing.done()
        taken = moved(two.store.inner, one.store.inner, number, watermark=giving.result().watermark)
        await cluster.clock.advance(2)
        assert everything_of(two, number) == {}
        two.store.before_s.clear()
        two.store.after_s.clear()
        await two.service.resume("other", by="t")
        await cluster.take_in(two, moved(one.store.inner, two.store.inner, number, watermark=taken.watermark))
        await cluster.clock.advance_to(at("08:59:46"))
        accepted = [arrival.entry for arrival in two.publisher.accepted]
        of_job = times(entry.fire_id for entry in accepted if entry.name == "job")
        assert of_job == ["08:59:35", "08:59:40", "08:59:45"]
        assert accepted[-1].name == "other"


async def test_giving_up_that_is_broken_off_lets_the_shard_stay():
    cluster = Cluster()
    async with cluster.first(script=lambda _e, _n: Answer(delay_s=3)) as one:
        await one.add("job", "@every 1s", catch_up="all")
        number = await shard_of_name(one, "job")
        await cluster.clock.advance(2.5)
        giving = one.start(one.engine.hand_over.give_up(number))
        await cluster.clock.advance(1)
        giving.cancel()
        await cluster.clock.advance(6)
        assert Counter(times(one.sent)) == {f"08:59:{s}": 1 for s in range(31, 40)}


async def test_a_jump_of_the_clock_while_answers_are_awaited_loses_nothing():
    cluster = Cluster()
    async with cluster.first(script=lambda _e, _n: Answer(delay_s=4)) as one, cluster.machine() as two:
        await one.add("job", "@every 1s", catch_up="all")
        await one.add("fifo", "@every 1s", catch_up="all", topic=FIFO_TOPIC)
        number = await shard_of_name(one, "job")
        for name in ("job", "fifo"):
            number = await shard_of_name(one, name)
            await cluster.clock.advance(2.5)
            giving = one.start(one.engine.hand_over.give_up(number))
            await cluster.clock.advance(1)
            cluster.clock.step_wall(4_000)
            await cluster.clock.advance(4)
            taken = moved(one.store.inner, two.store.inner, number, watermark=giving.result().watermark)
            await cluster.take_in(two, taken)
        await cluster.clock.advance(5)
        for name in ("job", "fifo"):
            sent = Counter(times(i for i in one.sent + two.sent if i.startswith(name)))
            first, last = at("08:59:31"), cluster.clock.wall()
            expected = {format_utc(UtcMs(t))[11:19]: 1 for t in range(first, last + 1, 1000)}
            assert sent == expected


async def test_a_clock_set_back_while_answers_are_awaited_fires_nothing_twice():
    cluster = Cluster()
    async with cluster.first(script=lambda _e, _n: Answer(delay_s=4)) as one, cluster.machine() as two:
        await one.add("job", "@every 1s", catch_up="all")
        number = await shard_of_name(one, "job")
        await cluster.clock.advance(8.5)
        giving = one.start(one.engine.hand_over.give_up(number))
        await cluster.clock.advance(1)
        cluster.clock.step_wall(-7_000)
        await cluster.clock.advance(4)
        assert giving.result().watermark <= at("08:59:36.600")
        await cluster.take_in(
            two, moved(one.store.inner, two.store.inner, number, watermark=giving.result().watermark)
        )
        await cluster.clock.advance(10)
        sent = Counter(times(one.sent + two.sent))
        last = int(format_utc(cluster.clock.wall())[17:19])
        assert sent == {f"08:59:{s}": 1 for s in range(31, last + 1)}


async def test_pending_fires_of_a_shard_that_has_left_keep_no_probe_of_others_waiting():
    cluster = Cluster()
    gone = [TOPIC_GONE]
    async with cluster.first(script=lambda _e, _n: gone[0]) as one:
        await one.add("first", "@every 1s", catch_up="all", deadline="1h")
        await one.add("other", "0 9 * * *", catch_up="all", deadline="1h")
        await cluster.clock.advance(30.5)
        await cluster.give_up(one, await shard_of_name(one, "first"))
        gone[0] = PUBLISHED
        await one.service.run("other", by="t")  # it probes
        await cluster.clock.advance(2)
        assert any(id_.startswith("other") for id_ in one.accepted)
        assert not any(id_.startswith("first") for id_ in one.accepted)


@pytest.mark.parametrize("step_ms", [-30_000, 30_000])
async def test_a_clock_that_jumps_after_a_shard_has_left_brings_nothing_of_it_back(step_ms):
    cluster = Cluster()
    async with cluster.first() as one:
        await cluster.clock.advance(12)
        await one.add("job", "@every 1s", catch_up="skip")
        await one.add("single", "@at 2026-11-23T09:00:20Z", catch_up="skip")
        await one.service.pause("single", by="t")
        await one.service.resume("single", by="t")
        numbers = [await shard_of_name(one, name) for name in ("job", "single")]
        await cluster.clock.advance(3.1)
        cluster.clock.step_wall(20_000)  # what was missed is skipped
        await cluster.clock.advance(2)
        journal, sent = await one.journal(), one.sent
        for number in numbers:
            await cluster.give_up(one, number)
        cluster.clock.step_wall(step_ms)
        await cluster.clock.advance(30)
        assert await one.journal() == journal
        assert one.sent == sent
        assert [everything_of(one, number) for number in numbers] == [{}, {}]


async def test_slots_of_a_long_spread_that_come_twice_fire_once_where_their_shard_is():
    cluster = Cluster()
    async with cluster.first() as one, cluster.machine() as two:
        name = next(f"job-{n}" for n in range(99) if spread_offset(f"job-{n}", {"spread": "14m"}) > 600_000)
        await one.add(name, "@every 10s", spread="14m", catch_up="all")
        number = await shard_of_name(one, name)
        await cluster.clock.advance(1200.5)
        cluster.clock.step_wall(-300_000)
        await cluster.clock.advance(5)
        await cluster.hand_over(one, two, number)
        await cluster.clock.advance(600)
        assert Counter(one.sent + two.sent) == dict.fromkeys(one.sent + two.sent, 1)
        assert len(one.sent + two.sent) > 60


async def test_nothing_is_pruned_that_says_what_is_settled_of_a_shard_that_comes():
    cluster = Cluster()
    async with cluster.first() as one:
        await one.add("job", "@every 1s")
        await cluster.clock.advance(10)
        engine, store = one.engine, one.store
        floor = engine.core.hold_watermark(at("08:59:35"))  # as ``take_in`` does
        keep = Keep(keep_ms=3_600_000, max_bytes=1)
        retention = Retention(
            engine.core, store, cluster.clock, Hooks(), is_quiet=lambda _ms: True, keep=keep
        )
        pruning = one.start(retention.prune())
        await cluster.clock.advance(5.1)
        pruning.cancel()
        engine.core.let_watermark(floor)
        assert times(await one.journal()) == [f"08:59:{s}" for s in range(36, 46)]


async def test_a_manual_fire_of_a_shard_that_left_is_not_sent_from_here_again():
    cluster = Cluster()
    async with cluster.first(room=0) as one:
        await one.add("job", "0 9 * * *")
        await one.service.run("job", by="t")
        await cluster.give_up(one, await shard_of_name(one, "job"))
        one.publisher.room = None
        one.publisher.on_room()
        one.engine.loop.retrying.look_for_lines()
        await cluster.clock.advance(5)
        assert one.sent == []
        rows = (await one.journal("job")).values()
        assert [(row.kind, row.state) for row in rows] == [(Kind.MANUAL, State.PENDING)]
