"""Trouble that goes on while a schedule comes to another machine is told once, and so is its end."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from cronally.domain.shards import SHARDS
from cronally.engine.alerted import AlertedDriver
from cronally.engine.alerts import EVERY_S, Alerts
from cronally.engine.journalist import Journalist
from cronally.engine.records import TakenIn, Told
from cronally.engine.retention import Keep
from cronally.errors import PublishError, StoreBusy
from cronally.instants import UtcMs, parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.recording_publisher import PUBLISHED, REJECTED, TOPIC_GONE
from support.rig import running_engine
from support.shard_store import Numbers, ShardStore, moved

NINE = parse_rfc3339("2026-11-23T09:00:00Z")


class Messenger:
    """Attributes: sent, texts, times: of what all machines have told. refuses. hangs_s: so long each message takes."""

    def __init__(self, clock):
        self.clock = clock
        self.sent = []
        self.times = []
        self.texts = []
        self.refuses = False
        self.hangs_s = 0.0

    async def send(self, subject, text, *, kind):
        await self.clock.sleep(self.hangs_s)
        if self.refuses:
            raise PublishError("no topic")
        self.sent.append(subject.removeprefix("Cronally: "))
        self.texts.append(text)
        self.times.append(self.clock.mono())


class MemoryNotes:
    """The ``Notes`` that machines share. Attributes: is_away: they cannot be read or written."""

    def __init__(self):
        self.told = {}
        self.is_away = False

    async def read(self, shard):
        if self.is_away:
            raise StoreBusy("away")
        return self.told.get(shard, Told())

    async def write(self, shard, told):
        if self.is_away:
            raise StoreBusy("away")
        self.told[shard] = told


class World:
    """Machines on one clock that tell one person, and what SNS answers: *bad* for as long as it is set."""

    def __init__(self):
        self.clock = FakeClock()
        self.numbers = Numbers()
        self.messenger = Messenger(self.clock)
        self.notes = MemoryNotes()
        self.bad = None

    @asynccontextmanager
    async def machine(self, *, is_first=False, may_tell=lambda: True):
        store = FaultyStore(self.clock, ShardStore(self.numbers))
        alerts = Alerts(self.messenger, store, self.clock, notes=self.notes, may_tell=may_tell)
        hooks = Journalist(self.clock, Keep(), alerts=alerts)
        async with running_engine(
            clock=self.clock,
            store=store,
            hooks=hooks,
            is_one_of_several=True,
            script=lambda *_: self.bad or PUBLISHED,
        ) as rig:
            rig.alerts = alerts
            rig.driver = AlertedDriver(rig.engine.hand_over, alerts)
            rig.telling = asyncio.create_task(alerts.run())
            if is_first:
                for number in range(SHARDS):
                    await rig.driver.take_in([TakenIn(number, (), None, was_clean=True)])
            yield rig
            rig.telling.cancel()

    async def done(self, work, rig):
        task = rig.start(work)
        await self.clock.settle()
        while not task.done():
            await self.clock.advance(0.1)
        return task.result()

    async def hand_over(self, source, target, name="a"):
        """Carry the shard of a schedule to another machine in order."""
        number = (await source.service.get(name)).stored.id % SHARDS
        watermark, _ = await self.done(source.driver.give_up(number), source)
        taken = moved(source.store.inner, target.store.inner, number, watermark=watermark)
        await self.done(target.driver.take_in([taken]), target)

    async def take_over(self, source, target, name="a"):
        """Carry it there from a machine that dies now."""
        number = (await source.service.get(name)).stored.id % SHARDS
        source.telling.cancel()
        watermark = self.clock.wall()
        store = ShardStore(self.numbers)
        store.add(number, source.store.inner.copy(number), watermark=watermark, was_clean=False)
        source.engine.core.here.leaving.add(number)
        taken = moved(store, target.store.inner, number, watermark=watermark, was_clean=False)
        await self.done(target.driver.take_in([taken]), target)


@pytest.fixture
def world():
    return World()


@pytest.fixture
async def pair(world):
    async with world.machine(is_first=True) as a, world.machine() as b:
        yield a, b


@pytest.fixture(params=["hand_over", "take_over"])
def goes(request, world):
    return getattr(world, request.param)


async def test_trouble_that_was_told_is_told_to_be_over_by_the_machine_that_has_the_schedule_then(
    world, pair, goes
):
    a, b = pair
    world.bad = REJECTED
    await a.add("a", "* * * * *")
    await world.clock.advance_to(NINE)
    await world.clock.advance(10)
    assert world.messenger.sent == ["a fails"]
    await goes(a, b)
    await world.clock.advance(180)
    assert world.messenger.sent == ["a fails"]
    world.bad = None
    await world.clock.advance(300)
    assert world.messenger.sent == ["a fails", "a has recovered"]


async def test_it_is_known_after_many_machines_and_at_a_start_of_the_last(world, pair, goes):
    a, b = pair
    world.bad = TOPIC_GONE
    await a.add("a", "* * * * *")
    await world.clock.advance_to(NINE)
    await world.clock.advance(80)
    assert world.messenger.sent == ["a fails"]
    await world.hand_over(a, b)
    await world.clock.advance(1)
    await goes(b, a)
    async with world.machine() as c:
        await world.clock.advance(70)
        await goes(a, c)
        await world.clock.advance(600)
        assert world.messenger.sent == ["a fails"]
        world.bad = None
        await world.clock.advance(600)
        assert world.messenger.sent == ["a fails", "a has recovered"]


async def test_lateness_that_was_told_is_over_with_the_next_fire_in_time_though_no_error_says_so(
    world, pair, goes
):
    a, b = pair
    await a.add("a", "0 * * * *", late_after="5s")
    await world.clock.advance_to(UtcMs(NINE - 1_000))
    world.clock.step_wall(8_000)
    await world.clock.advance(5)
    assert world.messenger.sent == ["a fails"]
    assert "late, more than 5s" in world.messenger.texts[0]
    await goes(a, b)
    await world.clock.advance(3_600)
    assert world.messenger.sent == ["a fails", "a has recovered"]


async def test_trouble_that_nobody_was_told_of_is_told_by_the_machine_that_has_it_then(world, pair, goes):
    """It waited for less than a minute, or the machine before died before it could tell, or could not."""
    a, b = pair
    world.bad = TOPIC_GONE
    await a.add("a", "0 9 * * *")
    await world.clock.advance_to(NINE)
    await world.clock.advance(20)
    await goes(a, b)
    await world.clock.advance(120)
    [text] = world.messenger.texts
    assert text.startswith("a fails: ")
    assert TOPIC_GONE.error in text
    world.bad = None
    await world.clock.advance(600)
    assert world.messenger.sent == ["a fails", "a has recovered"]


async def test_what_could_not_be_told_before_a_stop_is_told_by_the_next_and_only_if_it_still_fails(
    world, pair, goes
):
    a, b = pair
    world.messenger.refuses = True
    world.bad = REJECTED
    await a.add("a", "0 9 * * *")
    await a.add("b", "* * * * *")
    await world.clock.advance_to(NINE)
    await world.clock.advance(10)
    await goes(a, b)
    assert await b.service.get("b")  # it is of the same shard
    a.telling.cancel()
    world.messenger.refuses = False
    world.bad = None
    await world.clock.advance(300)
    assert world.messenger.sent == ["a fails"]
    assert world.messenger.texts[0].startswith(f"a fails: {REJECTED.error} (it failed on the machine before")


async def test_trouble_that_goes_on_is_left_to_the_next_machine_to_tell(world, pair):
    a, b = pair
    world.messenger.refuses = True
    world.bad = REJECTED
    await a.add("a", "* * * * *")
    await world.clock.advance_to(NINE)
    await world.clock.advance(10)
    await world.hand_over(a, b)
    world.messenger.refuses = False
    await world.clock.advance(300)
    assert world.messenger.sent == ["a fails"]


async def test_who_gives_it_tells_itself_what_was_over_by_then(world, pair):
    a, b = pair
    world.bad = REJECTED
    await a.add("a", "* * * * *")
    await world.clock.advance_to(NINE)
    await world.clock.advance(30)
    world.bad = None
    await world.clock.advance(31)  # told a half minute ago, so that its end has to wait
    assert world.messenger.sent == ["a fails"]
    await world.hand_over(a, b)
    await world.clock.advance(300)
    assert world.messenger.sent == ["a fails", "a has recovered"]


async def test_what_is_being_told_while_the_shard_goes_is_not_told_again(world, pair):
    a, b = pair
    world.bad = REJECTED
    await a.add("a", "* * * * *")
    world.messenger.hangs_s = 5.0
    await world.clock.advance_to(NINE)
    await world.clock.advance(3)
    assert world.messenger.sent == []
    await world.hand_over(a, b)
    await world.clock.advance(300)
    assert world.messenger.sent == ["a fails"]
    world.bad = None
    await world.clock.advance(300)
    assert world.messenger.sent == ["a fails", "a has recovered"]


async def test_of_one_schedule_there_is_at_most_one_message_a_minute_whoever_sends_it(world, pair, goes):
    a, b = pair
    world.bad = REJECTED
    await a.add("a", "@every 10s")
    await world.clock.advance(35)
    assert world.messenger.sent == ["a fails"]
    await goes(a, b)
    world.bad = None
    await world.clock.advance(20)
    assert world.messenger.sent == ["a fails"]
    await world.clock.advance(60)
    assert world.messenger.sent == ["a fails", "a has recovered"]
    first, second = world.messenger.times
    assert second - first >= EVERY_S


async def test_a_machine_that_others_may_have_replaced_tells_nothing(world):
    trusted = [True]
    async with world.machine(is_first=True, may_tell=lambda: trusted[0]) as a:
        world.bad = REJECTED
        await a.add("a", "0 9 * * *")
        trusted[0] = False
        await world.clock.advance_to(NINE)
        await world.clock.advance(90)
        assert world.messenger.sent == []
        trusted[0] = True
        await world.clock.advance(10)
        assert world.messenger.sent == ["a fails"]


async def test_notes_that_cannot_be_read_yet_are_waited_for_and_nothing_is_missed(world, pair):
    a, b = pair
    world.bad = REJECTED
    await a.add("a", "* * * * *")
    await world.clock.advance_to(NINE)
    await world.clock.advance(10)
    world.notes.is_away = True
    world.bad = None
    await world.hand_over(a, b)
    await world.clock.advance(180)
    assert world.messenger.sent == ["a fails"]
    world.notes.is_away = False
    await world.clock.advance(30)
    assert world.messenger.sent == ["a fails", "a has recovered"]


async def test_notes_that_cannot_be_written_are_written_later(world, pair):
    a, b = pair
    world.bad = REJECTED
    await a.add("a", "* * * * *")
    await world.clock.advance(5)
    world.notes.is_away = True
    await world.clock.advance_to(NINE)
    await world.clock.advance(10)
    assert (world.messenger.sent, world.notes.told) == (["a fails"], {})
    world.notes.is_away = False
    await world.clock.advance(10)
    await world.take_over(a, b)
    await world.clock.advance(300)
    assert world.messenger.sent == ["a fails"]


async def test_a_machine_that_is_alone_with_its_file_notes_nothing(world):
    async with world.machine(is_first=True) as a:
        a.alerts._notes = None
        world.bad = REJECTED
        await a.add("a", "* * * * *")
        await world.clock.advance_to(NINE)
        await world.clock.advance(10)
        assert world.messenger.sent == ["a fails"]
        assert world.notes.told == {}
