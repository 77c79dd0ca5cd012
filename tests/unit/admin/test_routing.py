"""What one machine asks of others, and waits for."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from cronally.admin.parcels import Parcel, Reply, packed, unpacked
from cronally.admin.parts import Parts
from cronally.admin.requests import ManyWish
from cronally.admin.routing import Routing
from cronally.domain.shards import SHARDS
from cronally.errors import NotReady
from support.fake_clock import FakeClock

REQUEST = Parcel("POST", "/v1/apply?owner=x", {}, b"{}", "somebody")


class Three:
    """Machines ``a``, which is this one, ``b`` and ``c``: shard 1 is b's, shard 2 is c's."""

    machine = host = "a"

    def __init__(self):
        self.over = set()

    def is_there(self, machine):
        return machine not in self.over

    def owner_of(self, shard):
        return {1: "b", 2: "c"}.get(shard, "a")


class Named:
    """Living schedules, and former ones, whose shard is the last figure of their name. Attributes: late: names not read yet."""

    def __init__(self):
        self.former = {}
        self.late = set()

    async def schedule(self, name):
        return (
            None if name in self.late or name in self.former else SimpleNamespace(id=SHARDS + int(name[-1]))
        )

    async def bearers(self, name):
        return [2 * SHARDS + 2, *([SHARDS + self.former[name]] if name in self.former else ())]

    async def catch_up(self):
        self.late.clear()


class Inbox:
    """Answers only when it is told to. Attributes: asked: the futures of the answers, by machine."""

    def __init__(self):
        self.asked = {}

    async def ask(self, machine, request, *, timeout_s):
        self.asked[machine] = asyncio.get_running_loop().create_future()
        return await self.asked[machine]


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def inbox():
    return Inbox()


@pytest.fixture
def owners():
    return Three()


@pytest.fixture
def named():
    return Named()


@pytest.fixture
def routing(owners, inbox, named, clock):
    return Routing(owners, inbox, named, clock, named.catch_up)


def reply(**value):
    return Reply(200, None, json.dumps(value).encode())


async def test_a_machine_that_dies_is_not_waited_for(routing, owners, inbox, clock):
    asking = asyncio.create_task(routing.elsewhere("b", REQUEST))
    await clock.advance(60)
    assert not asking.done()
    owners.over.add("b")
    await clock.advance(2.5)
    with pytest.raises(NotReady, match="b, is over; whether it did it is not known"):
        await asking
    assert inbox.asked["b"].cancelled()


async def test_the_last_answer_of_a_machine_that_is_over_counts(routing, owners, inbox, clock):
    asking = asyncio.create_task(routing.elsewhere("b", REQUEST))
    await clock.settle()
    owners.over.add("b")
    await clock.advance(0.5)
    inbox.asked["b"].set_result(reply(created=1).pack())
    await clock.settle()
    assert asking.result() == {"created": 1}


async def test_machines_make_their_parts_at_the_same_time(routing, inbox, clock):
    parts = Parts(routing, None, clock)
    retrying = asyncio.create_task(parts.retry(["job-1@x", "job-2@x"], by="somebody", is_dry_run=False))
    for round_ in ("look", "do"):
        await clock.settle()
        assert inbox.asked.keys() == {"b", "c"}, round_
        asked, inbox.asked = inbox.asked, {}
        for machine, answer in asked.items():
            answer.set_result(reply(retried=[f"{machine}'s"], pending=[], fires=[]).pack())
    await clock.settle()
    assert retrying.result().retried == ["b's", "c's"]


async def test_a_part_that_fails_is_told_with_what_is_done_all_the_same(routing, owners, inbox, clock):
    parts = Parts(routing, None, clock)
    retrying = asyncio.create_task(parts.retry(["job-1@x", "job-2@x"], by="somebody", is_dry_run=False))
    await clock.settle()
    for answer in inbox.asked.values():
        answer.set_result(reply(retried=[], pending=[], fires=[]).pack())
    await clock.settle()
    owners.over.add("c")
    inbox.asked["b"].set_result(reply(retried=["b's"], pending=[], fires=[]).pack())
    await clock.advance(2.5)
    with pytest.raises(NotReady, match=r"only a part goes again.*c, is over"):
        await retrying


async def test_a_living_schedule_is_where_it_is_whoever_bore_its_name_before(routing, named):
    named.former["gone-1"] = 1
    named.late.add("new-1")  # somebody has just made it elsewhere
    assert await routing.owners_of(["job-1", "new-1", "gone-1"]) == {
        "job-1": "b",
        "new-1": "b",
        "gone-1": "c",
    }


async def test_shards_that_are_on_their_way_one_after_the_other_are_waited_for_each_by_itself(
    routing, owners, clock, monkeypatch
):
    """As while a machine joins: at no moment all of them have an owner."""
    settled_of = owners.owner_of

    def owner_of(shard):
        return None if round(clock.mono() * 10) % 3 == shard else settled_of(shard)

    monkeypatch.setattr(owners, "owner_of", owner_of)
    grouping = asyncio.create_task(routing.groups([0, 1, 2]))
    await clock.advance(0.3)
    assert grouping.result() == {"a": {0}, "b": {1}, "c": {2}}


async def test_what_machines_have_done_is_told_with_the_error_of_one_that_has_not(
    routing, inbox, owners, clock
):
    parts = Parts(routing, None, clock)
    changing = asyncio.create_task(parts.many(ManyWish("remove", ["job-1", "job-2"]), by="somebody"))
    await clock.settle()
    owners.over.add("c")
    inbox.asked["b"].set_result(reply(done=[{"name": "job-1"}], refused=[]).pack())
    await clock.advance(2.5)
    told = changing.result()
    assert told.done == [{"name": "job-1"}]
    assert "c, is over; whether it did it is not known" in told.error["message"]


@pytest.mark.parametrize("size_bytes", [10, 1 << 20])
async def test_a_request_of_any_size_is_what_it_was(size_bytes):
    parcel = REQUEST._replace(body=b"x" * size_bytes)
    assert await unpacked(Parcel.unpack, await packed(parcel)) == parcel
    with pytest.raises(ValueError, match="another machine has written it"):
        await unpacked(Parcel.unpack, b"y" * size_bytes * 100)
