"""The shared store in memory: what it promises, as far as others build on it."""

from __future__ import annotations

import asyncio

import pytest

from cronally.domain.shards import SHARDS, shard_of
from cronally.domain.spec import ScheduleSpec
from cronally.engine.records import GivenUp, ScheduleChange
from cronally.errors import LeaseLost
from support.entries import NINE, TOPIC
from support.fake_clock import FakeClock
from support.memory_cluster import ClusterStore, Table

SPEC = ScheduleSpec(name="job", when="* * * * *", topic=TOPIC)
NUMBER = shard_of(SPEC)


class Machines:
    def __init__(self):
        self.clock = FakeClock()
        self.table = Table()

    async def open(self, host):
        store = ClusterStore(self.table, self.clock, host)
        await store.open()
        return store

    async def retire(self, store, by):
        [machine] = [each for each in await by.machines() if each.id == store.machine]
        return await by.retire(machine)


@pytest.fixture
def machines():
    return Machines()


async def take(store, owner=None, number=NUMBER):
    shards = await store.shards()
    return await store.take(shards[number], owner)


async def add(store, spec=SPEC):
    change = ScheduleChange(action="add", at=NINE, by="test", new_spec=spec)
    return await store.change(change)


async def test_a_schedule_has_its_shard_in_its_id_and_goes_with_it(machines):
    a, b = await machines.open("a"), await machines.open("b")
    assert (await take(a)).rows == []
    revised = await add(a)
    assert revised.id % SHARDS == NUMBER
    await a.give((await a.shards())[NUMBER], GivenUp(NINE, was_clean=True))
    assert await a.schedule("job") is None
    taken = await take(b)
    assert [(row.id, row.name) for row in taken.rows] == [(revised.id, "job")]
    assert (taken.watermark, taken.was_clean) == (NINE, True)
    other = await add(b, ScheduleSpec(name="other", when="* * * * *", topic=TOPIC))
    assert other.revision_id != revised.revision_id
    assert {each.spec.name for each in await a.everything.schedules()} == {"job"}


async def test_what_a_retired_machine_had_is_taken_as_it_was_and_it_can_write_nothing_more(machines):
    a, b = await machines.open("a"), await machines.open("b")
    await take(a)
    await add(a)
    frozen = await machines.retire(a, b)
    with pytest.raises(LeaseLost):
        await add(a, ScheduleSpec(name="late", when="* * * * *", topic=TOPIC))
    await machines.clock.advance(4)
    with pytest.raises(LeaseLost):
        await a.renew()
    assert [row.name for row in (await take(b, frozen)).rows] == ["job"]


@pytest.mark.parametrize(
    ("watermark", "is_behind"), [(NINE + 100, False), (NINE + 50, False), (NINE + 49, True)]
)
async def test_a_shard_is_in_line_after_a_commit_that_is_not_behind_the_machine(
    machines, watermark, is_behind
):
    a, b = await machines.open("a"), await machines.open("b")
    await take(a)
    await a.give((await a.shards())[NUMBER], GivenUp(NINE, was_clean=True))
    await b.commit([], watermark=NINE + 50)
    await take(b)
    await b.commit([], watermark=NINE + 50)
    [own] = [each for each in await a.machines() if each.id == b.machine]
    assert own.watermark_of(NUMBER) == NINE
    await b.recovered(NUMBER)
    await b.commit([], watermark=watermark)
    [own] = [each for each in await a.machines() if each.id == b.machine]
    assert own.watermark_of(NUMBER) == (NINE if is_behind else watermark)


async def test_a_commit_on_its_way_does_not_bring_a_shard_in_line(machines):
    a = await machines.open("a")
    await take(a)
    a.faults.latency_s = 1.0
    commit = asyncio.create_task(a.commit([], watermark=NINE))
    await machines.clock.settle()
    await a.recovered(NUMBER)
    await machines.clock.advance(1)
    await commit
    assert NUMBER in machines.table.machines[a.machine].behind


async def test_a_commit_whose_answer_is_lost_is_made_once(machines):
    a = await machines.open("a")
    await take(a)
    a.faults.lost_answers = 2
    adding = asyncio.create_task(add(a))
    await machines.clock.advance(3)
    assert (await adding).revision == 1
    assert len(await a.schedules()) == 1


async def test_what_cannot_be_committed_to_the_end_of_the_lease_is_not_made(machines):
    a = await machines.open("a")
    await take(a)
    a.faults.is_cut = True
    adding = asyncio.create_task(add(a))
    await machines.clock.advance(9)
    with pytest.raises(LeaseLost):
        await adding
    assert await a.schedules() == []
