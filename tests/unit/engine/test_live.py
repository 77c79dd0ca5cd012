"""What is told to whoever listens."""

from __future__ import annotations

import pytest

from cronally.domain.model import JournalEntry, Kind, SkipReason, State
from cronally.engine.live import MAX_FEEDS, Feed, Live
from cronally.engine.records import JournalFilter
from cronally.errors import NotReady
from support.recording_publisher import PUBLISHED, REJECTED, TOPIC_GONE
from support.rig import running_engine


def rows(*slots):
    return [JournalEntry(1, slot, 1, slot, State.PUBLISHED) for slot in slots]


def test_a_feed_gives_what_was_put_in_order_and_in_portions():
    feed = Feed()
    feed.put(rows(1, 2, 3))
    feed.put(rows(4, 5))
    assert feed.arrived.is_set()
    assert [entry.fire_time for entry in feed.take(2)] == [1, 2]
    assert [entry.fire_time for entry in feed.take(10)] == [3, 4, 5]
    assert not feed.has_more
    assert feed.take(1) == []


def test_a_feed_that_nobody_takes_from_loses_the_oldest_and_counts_them():
    feed = Feed(most=4)
    for slot in range(0, 12, 2):
        feed.put(rows(slot, slot + 1))
    assert feed.lost == 8
    assert [entry.fire_time for entry in feed.take(10)] == [8, 9, 10, 11]
    feed.put(rows(*range(9)))  # one part is kept whole, however large
    assert len(feed.take(100)) == 9


def test_so_many_listen_at_once_and_no_more():
    live = Live()
    feeds = [live.listening() for _ in range(MAX_FEEDS)]
    for feed in feeds:
        feed.__enter__()
    with pytest.raises(NotReady, match="32 listen already"), live.listening():
        pass
    feeds[0].__exit__(None, None, None)
    with live.listening() as last:
        last.close()
        assert last.is_closed
        assert last.arrived.is_set()


def test_what_is_too_much_to_be_told_is_counted():
    live = Live()
    assert not live.wants_rows
    with live.listening() as feed:
        assert live.wants_rows
        live.put_aside(SkipReason.DROPPED, Kind.SCHEDULED, 5, rows(1, 2))
        assert (len(feed.take(10)), feed.lost) == (2, 3)


async def heard(rig, wanted, act):
    """Return the (name, state, is durable) of what is heard during *act*, until nothing comes for a second."""
    found = []
    with rig.service.listening(wanted) as listener:

        async def listen():
            async for some in listener.rows():
                durable = await rig.journal()
                found.extend((row.name, str(row.entry.state), row.entry in durable.values()) for row in some)

        task = rig.start(listen())
        await act()
        listener.feed.close()
        await rig.clock.advance(2)
        await task
    return found


async def test_what_is_published_is_told_before_it_is_durable():
    async with running_engine() as rig:
        await rig.add("a", "@every 10s")
        await rig.add("b", "@every 10s")

        async def act():
            await rig.clock.advance(10.01)

        found = await heard(rig, JournalFilter(schedule="a"), act)
        assert found == [("a", "published", False)]


@pytest.mark.parametrize(
    ("wanted", "states"),
    [
        (JournalFilter(), ["published", "rejected", "skipped"]),
        (JournalFilter(states=frozenset({State.REJECTED})), ["rejected"]),
        (JournalFilter(reasons=frozenset({SkipReason.CATCH_UP})), ["skipped"]),
        (JournalFilter(schedule="none"), []),
    ],
)
async def test_what_is_wanted_is_told(wanted, states):
    async with running_engine(
        script=lambda entry, _: REJECTED if "bad" in entry.fire_id else PUBLISHED
    ) as rig:
        await rig.add("good", "* * * * *")
        await rig.add("bad", "* * * * *")
        await rig.add("missed", "@every 10s", catch_up="skip")
        await rig.clock.advance(29)

        async def act():
            await rig.clock.advance(2)
            rig.clock.step_wall(60_000)
            await rig.clock.advance(2)

        found = await heard(rig, wanted, act)
        assert sorted({state for _, state, _ in found}) == states


async def fates_heard(rig, act):
    """Return what is heard during *act*, as (name, state, reason, slots), and what the journal has in the end."""
    found = []
    with rig.service.listening(JournalFilter()) as listener:

        async def listen():
            async for some in listener.rows():
                found.extend(
                    (row.name, str(row.entry.state), row.entry.reason, row.entry.count) for row in some
                )

        task = rig.start(listen())
        await act()
        listener.feed.close()
        await rig.clock.advance(2)
        await task
    return found


@pytest.mark.parametrize("ending", ["resume", "until", "remove", "edit"])
async def test_the_slots_of_a_pause_are_told_when_it_ends(ending):
    async with running_engine() as rig:
        await rig.add("job", "@every 10s")
        until = rig.clock.wall() + 35_000 if ending == "until" else None

        async def act():
            await rig.service.pause("job", by="t", until=until)
            await rig.clock.advance(31)
            if ending == "resume":
                await rig.service.resume("job", by="t")
            elif ending == "remove":
                await rig.service.remove("job", by="t")
            elif ending == "edit":
                await rig.set("job", when="@every 11h", paused=False)
            await rig.clock.advance(5)

        assert await fates_heard(rig, act) == [("job", "skipped", SkipReason.PAUSED, 3)]


async def test_what_a_command_drops_is_told():
    async with running_engine(script=lambda *_: TOPIC_GONE) as rig:
        await rig.add("job", "@every 10s", catch_up="all")
        await rig.clock.advance(31)

        async def act():
            await rig.service.pause("job", by="t", drop_pending=True)

        dropped = [("job", "skipped", SkipReason.DROPPED, 1)] * 3
        assert await fates_heard(rig, act) == dropped


async def test_what_a_newer_slot_makes_needless_is_told():
    async with running_engine(script=lambda *_: TOPIC_GONE) as rig:
        await rig.add("job", "@every 15s")

        async def act():
            await rig.clock.advance(65)

        found = await fates_heard(rig, act)
        journal = await rig.journal()
        superseded = [row for row in journal.values() if row.reason is SkipReason.SUPERSEDED]
        assert superseded
        assert found.count(("job", "skipped", SkipReason.SUPERSEDED, 1)) == len(superseded)
