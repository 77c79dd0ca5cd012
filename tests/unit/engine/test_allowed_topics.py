"""The operator's list of topics: no way leads past it, and what it holds back is neither lost nor silent."""

from __future__ import annotations

import json

import pytest

from cronally.domain.model import State
from cronally.errors import TopicNotAllowed
from cronally.instants import parse_rfc3339
from support.fake_clock import FakeClock
from support.rig import FIFO_TOPIC, TOPIC, running_engine

OTHER = "arn:aws:sns:us-east-1:123456789012:other"
ANYWHERE_ELSE = ["arn:aws:sns:us-east-1:123456789012:other*"]
EACH_MINUTE = "1-59 * * * *"  # the clock begins shortly before nine
REFUSAL = "is not among the topics that this daemon may publish to"


def at(time):
    return parse_rfc3339(f"2026-11-23T{time}Z")


@pytest.fixture
def clock():
    return FakeClock()


async def lines(*documents):
    for document in documents:
        yield json.dumps(document).encode()


async def test_a_schedule_for_another_topic_is_not_made_by_any_command(clock):
    async with running_engine(clock=clock, topics=ANYWHERE_ELSE) as rig:
        await rig.add("fine", EACH_MINUTE, topic=OTHER)
        with pytest.raises(TopicNotAllowed, match=REFUSAL):
            await rig.add("no", EACH_MINUTE, topic=TOPIC)
        with pytest.raises(TopicNotAllowed, match=REFUSAL):
            await rig.add("no", EACH_MINUTE, topic=FIFO_TOPIC)
        with pytest.raises(TopicNotAllowed, match=REFUSAL):
            await rig.set("fine", when=EACH_MINUTE, topic=TOPIC)
        assert (await rig.service.get("fine")).stored.spec.topic == OTHER
        assert [view.stored.spec.name for view in (await rig.service.list())[0]] == ["fine"]


@pytest.mark.parametrize("paused", [None, True, False])
async def test_a_file_with_another_topic_changes_nothing_and_the_preview_says_so(clock, paused):
    bad = {
        "name": "no",
        "when": EACH_MINUTE,
        "topic": TOPIC,
        **({} if paused is None else {"paused": paused}),
    }
    good = {"name": "fine", "when": EACH_MINUTE, "topic": OTHER}
    async with running_engine(clock=clock, topics=ANYWHERE_ELSE) as rig:
        applied = await rig.apply(good, bad)
        previewed = await rig.service.preview_apply(lines(good, bad), owner="default", most=10)
        for result in (applied, previewed):
            [problem] = result.problems
            assert (problem.line, problem.name) == (2, "no")
            assert REFUSAL in problem.reason
        assert (await rig.service.list())[0] == []


async def test_a_list_that_became_shorter_stops_every_order(clock):
    async with running_engine(clock=clock) as rig:
        await rig.add("job", EACH_MINUTE, topic=TOPIC)
        await clock.advance_to(at("09:01:00"))
        assert len(rig.sent) == 1
        rig.engine.allow(ANYWHERE_ELSE)
        orders = [
            rig.service.run("job", by="test"),
            rig.service.backfill("job", first="2026-11-22T09:00", last="2026-11-22T09:05", by="test"),
            rig.service.backfill(
                "job", first="2026-11-22T09:00", last="2026-11-22T09:05", by="test", is_dry_run=True
            ),
        ]
        for order in orders:
            with pytest.raises(TopicNotAllowed, match=REFUSAL):
                await order
        # What only takes away, or calls it otherwise, is not refused; and nothing of it publishes.
        before, after = await rig.service.move("job", "task", by="test")
        assert (before.stored.spec.topic, after.stored.spec.topic) == (TOPIC, TOPIC)
        await rig.service.pause("task", by="test")
        await rig.service.resume("task", by="test")
        await clock.advance_to(at("09:05:00"))
        await rig.service.remove("task", by="test")
        assert len(rig.sent) == 1


async def test_a_fire_that_failed_is_not_retried_to_a_topic_that_is_not_allowed_any_more(clock):
    async with running_engine(clock=clock) as rig:
        await rig.add("job", EACH_MINUTE, topic=TOPIC, deadline="30s")
        rig.engine.allow(ANYWHERE_ELSE)
        await clock.advance_to(at("09:02:00"))
        [expired] = [id_ for id_, state in (await rig.states("job")).items() if state is State.EXPIRED]
        with pytest.raises(TopicNotAllowed, match=REFUSAL):
            await rig.service.retry([expired], by="test")
        rig.engine.allow(None)
        assert (await rig.service.retry([expired], by="test")).rows


@pytest.mark.parametrize("topic", [TOPIC, FIFO_TOPIC])
async def test_what_is_due_waits_with_the_reason_and_goes_once_it_is_allowed(clock, topic):
    async with running_engine(clock=clock) as rig:
        await rig.add("job", EACH_MINUTE, topic=topic, catch_up="all")
        await rig.add("fine", EACH_MINUTE, topic=OTHER)
        rig.engine.allow(ANYWHERE_ELSE)
        await clock.advance_to(at("09:03:30"))
        assert {id_.partition("@")[0] for id_ in rig.sent} == {"fine"}
        waiting = await rig.journal("job")
        assert [entry.state for entry in waiting.values()] == [State.PENDING] * 3
        assert any("sns.topics" in (entry.last_error or "") for entry in waiting.values())
        [refusing] = (await rig.reporting.status()).refusing
        assert (refusing.topic, refusing.pending) == (topic, 3)
        assert "sns.topics" in refusing.error
        rig.engine.allow([topic, OTHER])
        await clock.advance(1)
        assert [id_ for id_ in rig.accepted if id_.startswith("job")] == list(waiting)
        assert set((await rig.states("job")).values()) == {State.PUBLISHED}
        assert (await rig.reporting.status()).refusing == ()


async def test_what_is_not_allowed_until_its_deadline_expires_with_the_reason(clock):
    async with running_engine(clock=clock) as rig:
        await rig.add("job", "@at 2026-11-23T09:01:00", topic=TOPIC, deadline="10m")
        rig.engine.allow(ANYWHERE_ELSE)
        await clock.advance_to(at("09:30:00"))
        [entry] = (await rig.journal("job")).values()
        assert entry.state is State.EXPIRED
        assert "sns.topics" in entry.last_error
        assert rig.sent == []


async def test_what_is_armed_already_does_not_leave_once_it_is_not_allowed(clock):
    async with running_engine(clock=clock) as rig:
        await rig.add("job", EACH_MINUTE, topic=TOPIC)
        await clock.advance_to(at("09:00:59"))
        assert rig.publisher.armed
        rig.engine.allow(ANYWHERE_ELSE)
        await clock.advance_to(at("09:01:30"))
        assert rig.sent == []
        assert list((await rig.states("job")).values()) == [State.PENDING]


async def test_what_was_not_made_ready_goes_if_it_is_allowed_before_its_instant(clock):
    async with running_engine(clock=clock) as rig:
        await rig.add("job", EACH_MINUTE, topic=TOPIC)
        rig.engine.allow(ANYWHERE_ELSE)
        await clock.advance_to(at("09:00:59"))
        rig.engine.allow(None)
        await clock.advance_to(at("09:01:01"))
        assert rig.accepted == ["job@2026-11-23T09:01:00Z"]


async def test_a_daemon_that_starts_with_a_shorter_list_holds_what_was_made_before(clock):
    async with running_engine(clock=clock) as rig:
        await rig.add("job", EACH_MINUTE, topic=TOPIC)
        store = rig.store
    async with running_engine(clock=clock, store=store, topics=ANYWHERE_ELSE) as rig:
        await clock.advance_to(at("09:02:30"))
        assert rig.sent == []
        assert State.PENDING in set((await rig.states("job")).values())
