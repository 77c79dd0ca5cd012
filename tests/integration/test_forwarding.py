"""Two daemons, each with schedules of its own: either is asked about both, and each change is made by whose schedule it is."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from cronally.admin.client import Client
from cronally.admin.errands import Errands
from cronally.admin.parcels import FORWARDED_BY, Parcel, Reply
from cronally.admin.routing import Routing
from cronally.admin.server import AdminServer
from cronally.domain.model import State
from cronally.domain.shards import SHARDS
from cronally.engine.records import AuditFilter
from cronally.errors import Conflict, NotReady, ScheduleNotFound, UsageError
from support.memory_inbox import MemoryInbox, Post, PostClock
from support.recording_publisher import PUBLISHED, REJECTED, Answer, always_published
from support.rig import TOPIC, Rig, running_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

BELLS = {"when": "0 9 * * *", "topic": TOPIC}


@dataclass
class Owned:
    """Who drives what: shards by number, or *otherwise*."""

    machine: str
    table: dict[int, str | None] = field(default_factory=dict)
    otherwise: str | None = None
    asked: int = 0
    then: Callable[[], None] | None = None
    over: set[str] = field(default_factory=set)

    @property
    def host(self) -> str:
        return self.machine

    def is_there(self, machine: str) -> bool:
        return machine not in self.over

    def owner_of(self, shard: int) -> str | None:
        self.asked += 1
        if self.then is not None and self.asked == 2:
            self.then()
        return self.table.get(shard, self.otherwise)


@dataclass
class Machine:
    rig: Rig
    socket: str
    owners: Owned
    server: AdminServer

    async def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        def work() -> Any:
            with Client(self.socket) as client:
                return getattr(client, method)(*arguments, **named)

        return await asyncio.to_thread(work)


class Both:
    """What there is in both machines, to be read."""

    def __init__(self, *rigs: Rig) -> None:
        self._rigs = rigs

    async def schedule(self, name: str) -> Any:
        found = [await rig.store.schedule(name) for rig in self._rigs]
        return next((one for one in found if one is not None), None)

    async def bearers(self, name: str) -> list[int]:
        return [id_ for rig in self._rigs for id_ in await rig.store.bearers(name)]

    async def timetable(self) -> AsyncIterator[Any]:
        for rig in self._rigs:
            async for rows in rig.store.timetable():
                yield rows


@dataclass
class Pair:
    here: Machine
    there: Machine
    post: Post


@asynccontextmanager
async def _pair(directory: Path, script: Callable[..., Answer] = always_published) -> AsyncIterator[Pair]:
    """script: what is answered to what either sends."""
    post = Post()
    async with AsyncExitStack() as stack:
        rigs = [await stack.enter_async_context(running_engine(script=script)) for _ in range(2)]
        machines = []
        for name, rig in zip(("here", "there"), rigs, strict=True):
            inbox = MemoryInbox(post, name)
            owners = Owned(name, otherwise="there")

            async def catch_up() -> None:
                pass

            routing = Routing(owners, inbox, Both(*rigs), rig.clock, catch_up)  # type: ignore[arg-type]
            socket = str(directory / f"{name}.sock")
            server = AdminServer(rig.service, rig.reporting, rig.clock, socket_path=socket, routing=routing)
            await server.start()
            stack.push_async_callback(server.close)
            errands = asyncio.create_task(Errands(inbox, PostClock(post), socket_path=socket).run())
            stack.callback(errands.cancel)
            machines.append(Machine(rig, socket, owners, server))
        yield Pair(*machines, post)


@pytest.fixture
async def pair(tmp_path):
    async with _pair(tmp_path) as pair:
        yield pair


async def test_a_schedule_is_made_changed_fired_and_removed_by_the_machine_that_drives_its_shard(pair):
    here, there = pair.here, pair.there
    reply = await here.call("put", "bells", BELLS, create_only=True)
    assert reply.outcome == "created"
    assert await here.rig.store.schedule("bells") is None
    assert (await there.rig.store.schedule("bells")).spec.when == "0 9 * * *"
    assert (await here.call("put", "bells", BELLS)).outcome == "unchanged"
    assert (await here.call("pause", "bells", note="quiet")).schedule.paused
    assert not (await here.call("resume", "bells")).paused
    assert (await here.call("run", "bells")).startswith("bells@")
    assert (await here.call("move", "bells", "chimes")).schedule.name == "chimes"
    assert (await here.call("remove", "chimes")).name == "chimes"
    assert await there.rig.store.schedule("chimes") is None
    [*_, first] = (await there.rig.store.audit(AuditFilter())).rows
    assert first.by.startswith("uid ")
    assert first.by.endswith(" on here")


async def test_what_is_wrong_comes_back_as_the_error_that_it_is(pair):
    await pair.here.call("put", "bells", BELLS, create_only=True)
    with pytest.raises(Conflict, match="exists already and is different"):
        await pair.here.call("put", "bells", BELLS | {"when": "0 8 * * *"}, create_only=True)
    with pytest.raises(UsageError, match="minute"):
        await pair.here.call("put", "other", BELLS | {"when": "99 8 * * *"})
    with pytest.raises(ScheduleNotFound, match="nothing"):
        await pair.here.call("pause", "nothing")


async def test_a_shard_that_changes_hands_is_waited_for_and_asked_where_it_is_then(pair):
    """It is driven by nobody, then by a machine that has just given it away, then by us."""
    here, there = pair.here, pair.there
    there.owners.otherwise = "here"
    here.owners.then = lambda: setattr(here.owners, "otherwise", "here")
    asking = asyncio.create_task(here.call("put", "bells", BELLS))
    while here.owners.otherwise != "here":
        await here.rig.clock.advance(0.1)
        await asyncio.wait([asking], timeout=0.01)
    assert (await asking).outcome == "created"
    assert await there.rig.store.schedule("bells") is None
    assert await here.rig.store.schedule("bells") is not None


async def test_a_shard_that_nobody_drives_is_waited_for_so_long_and_then_said(pair):
    pair.here.owners.otherwise = None
    asking = asyncio.create_task(pair.here.call("put", "bells", BELLS))
    while not asking.done():
        await pair.here.rig.clock.advance(1)
        await asyncio.wait([asking], timeout=0.01)
    with pytest.raises(NotReady, match="no machine drives the shard"):
        await asking


async def test_a_machine_that_does_not_answer_is_said_to_be_silent(pair):
    pair.post.silent.add("there")
    with pytest.raises(NotReady, match="there has not answered"):
        await pair.here.call("put", "bells", BELLS)


async def test_a_file_is_applied_part_by_part_with_pruning_and_all_or_nothing_of_what_is_wrong(pair):
    here, there = pair.here, pair.there
    half = dict.fromkeys(range(0, SHARDS, 2), "here")
    here.owners.table = there.owners.table = half
    lines = [json.dumps({"name": f"job-{n}", **BELLS}).encode() for n in range(40)]
    bad = [*lines, json.dumps({"name": "bad", **BELLS, "when": "x"}).encode()]
    refused = await here.call("apply", _chunks(bad), owner="team")
    assert (refused.problem_count, refused.created) == (1, 0)
    assert not await here.rig.store.schedules()
    assert not await there.rig.store.schedules()
    done = await here.call("apply", _chunks(lines), owner="team")
    assert (done.created, done.problem_count) == (40, 0)
    own, others = len(await here.rig.store.schedules()), len(await there.rig.store.schedules())
    assert own + others == 40
    assert min(own, others) > 5


async def test_a_shard_that_leaves_between_the_look_and_the_change_is_waited_for(pair):
    for machine in (pair.here, pair.there):
        absent = machine.rig.engine.core.here.absent
        absent.update(range(SHARDS))
        pair.here.owners.otherwise = pair.there.owners.otherwise = machine.owners.machine
        asking = asyncio.create_task(pair.here.call("put", f"bells-{machine.owners.machine}", BELLS))
        for _ in range(3):
            await pair.here.rig.clock.advance(0.1)
            await asyncio.wait([asking], timeout=0.01)
        assert not asking.done()
        absent.clear()
        while not asking.done():
            await pair.here.rig.clock.advance(0.1)
            await asyncio.wait([asking], timeout=0.01)
        assert (await asking).outcome == "created"


async def test_pruning_takes_nothing_of_a_shard_that_came_while_the_parts_were_made(pair):
    """The line that names it was in the part of the machine that had the shard."""
    here, there = pair.here, pair.there
    line = json.dumps({"name": "moved", **BELLS}).encode()
    there.owners.otherwise = "there"
    await there.call("apply", _chunks([line]), owner="team")
    [moved] = await there.rig.store.schedules()
    here.owners.table = there.owners.table = {moved.id % SHARDS: "here"}
    done = await here.call("apply", _chunks([]), owner="team", prune=True)
    assert done.removed == 0
    assert await there.rig.store.schedule("moved") is not None


async def test_a_part_waits_for_a_shard_that_is_about_to_come_and_is_made_once(pair):
    here, there = pair.here, pair.there
    lines = [json.dumps({"name": f"job-{n}", **BELLS}).encode() for n in range(40)]
    here.owners.table = there.owners.table = dict.fromkeys(range(0, SHARDS, 2), "here")
    here.rig.engine.core.here.absent.add(8)
    there.rig.engine.core.here.absent.add(9)
    asking = asyncio.create_task(here.call("apply", _chunks(lines), owner="team"))
    for _ in range(3):
        await here.rig.clock.advance(0.1)
        await asyncio.wait([asking], timeout=0.05)
    assert not asking.done()
    here.rig.engine.core.here.absent.clear()
    there.rig.engine.core.here.absent.clear()
    while not asking.done():
        await here.rig.clock.advance(0.1)
        await asyncio.wait([asking], timeout=0.01)
    done = await asking
    assert (done.created, done.unchanged) == (40, 0)


async def test_many_schedules_are_changed_by_the_machines_that_drive_them(pair):
    names = [f"job-{number:03}" for number in range(250)]
    for name in names:
        await pair.there.rig.add(name, "0 9 * * *")

    def remove():
        with Client(pair.here.socket) as client:
            return list(client.many("remove", ["none", *names]))

    replies = await asyncio.to_thread(remove)
    assert sorted(one["name"] for reply in replies for one in reply.done) == names
    assert [one["name"] for reply in replies for one in reply.refused] == ["none"]
    assert await pair.there.rig.store.schedules() == []
    [first, *_] = (await pair.there.rig.store.audit(AuditFilter())).rows
    assert (first.action, first.by.endswith(" on here")) == ("rm", True)


async def test_fires_that_failed_are_sent_again_by_whose_they_are_with_their_ids_whoever_is_told(tmp_path):
    def script(_: object, attempt: int) -> Answer:
        return REJECTED if attempt == 1 else PUBLISHED

    async with _pair(tmp_path, script) as pair:
        here, there = pair.here, pair.there
        await there.rig.add("unasked", "0 9 * * *")
        await there.rig.add("theirs", "0 9 * * *")
        await here.rig.add("ours", "0 9 * * *")
        shards = {
            name: (await Both(here.rig, there.rig).bearers(name))[0] % SHARDS for name in ("ours", "theirs")
        }
        assert len({*shards.values()}) == 2
        for machine in (here, there):
            machine.owners.table = {shards["ours"]: "here", shards["theirs"]: "there"}
            await machine.rig.clock.advance(60)
        ours, theirs = (f"{name}@2026-11-23T09:00:00Z" for name in ("ours", "theirs"))
        assert (here.rig.accepted, there.rig.accepted) == ([], [])
        assert (await here.call("retry", [theirs])).retried == [theirs]
        await there.rig.clock.advance(1)
        assert there.rig.accepted == [theirs]
        assert here.rig.sent == [ours]
        assert (await there.rig.states("theirs")) == {theirs: State.PUBLISHED}
        assert (await there.rig.states("unasked")).popitem()[1] is State.REJECTED
        with pytest.raises(Conflict, match="was published"):
            await here.call("retry", [ours, theirs])
        assert (await there.call("retry", [ours])).retried == [ours]
        await here.rig.clock.advance(1)
        assert here.rig.accepted == [ours]
        assert here.rig.sent == [ours, ours]
        assert there.rig.accepted == [theirs]


async def test_a_retry_names_the_fires_that_there_are_not_wherever_they_would_be(pair):
    await pair.here.rig.add("ours", "0 9 * * *")
    await pair.there.rig.add("theirs", "0 9 * * *")
    shard = (await pair.here.rig.store.schedule("ours")).id % SHARDS
    assert (await pair.there.rig.store.schedule("theirs")).id % SHARDS == shard
    with pytest.raises(Exception, match="theirs@2026-11-20T09:00:00Z"):
        await pair.here.call("retry", ["theirs@2026-11-20T09:00:00Z"])


async def test_only_the_daemon_itself_can_say_who_asked_elsewhere(pair, monkeypatch):
    await pair.there.rig.add("bells", "0 9 * * *")
    path, headers = "/v1/schedules/bells/run", {FORWARDED_BY: "uid 0 (root)"}
    own = os.getpid()  # the daemon's, too: it is the process of the test
    monkeypatch.setattr(os, "getpid", lambda: own + 1)
    with pytest.raises(UsageError, match="is what a daemon tells itself"):
        await pair.here.call("_call", "POST", path, headers=headers)


def test_what_travels_is_what_was_packed_and_other_versions_are_refused():
    parcel = Parcel("PUT", "/v1/schedules/a%20b?x=1", {"If-Match": '"3"'}, b"{}\n\x00", "uid 1 (é)")
    assert Parcel.unpack(parcel.pack()) == parcel
    reply = Reply(200, None, b"[]", is_elsewhere=True)
    assert Reply.unpack(reply.pack()) == reply
    for data in (b"", b"nonsense", Reply(200, None, b"").pack()):
        with pytest.raises(ValueError, match="does not know"):
            Parcel.unpack(data)


def _chunks(lines: list[bytes]) -> list[bytes]:
    return [line + b"\n" for line in lines]
