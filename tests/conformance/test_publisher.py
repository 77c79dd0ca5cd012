"""What every ``Publisher`` promises (engine/ports.py), on each implementation."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from cronally.clock import SystemClock
from cronally.engine.ports import Outcome, OutcomeClass
from cronally.errors import InternalError
from cronally.sns.credentials import Credentials
from cronally.sns.publisher import SnsPublisher
from support.boto_publisher import BotoPublisher
from support.entries import TOPIC, batch, numbers
from support.fake_sns import ACCESS_KEY, SECRET_KEY, FakeSns, Fault
from support.recording_publisher import (
    LOST_ACKNOWLEDGEMENT,
    REJECTED,
    THROTTLED,
    TOPIC_GONE,
    Answer,
    RecordingPublisher,
)
from support.settled import Settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cronally.domain.batching import Batch
    from cronally.engine.ports import Armed, Publisher

CREDENTIALS = Credentials.fixed(
    SystemClock(), ACCESS_KEY, SECRET_KEY
)  # shared: botocore reads its models once
OTHER_TOPIC = "arn:aws:sns:us-east-1:123456789012:other"


class Harness:
    """One implementation, and the ways in which its SNS can behave."""

    publisher: Publisher

    def throttle(self) -> None:
        raise NotImplementedError

    def lose_acknowledgements(self) -> None:
        raise NotImplementedError

    def lose_topic(self, topic: str) -> None:
        raise NotImplementedError

    def refuse_message(self, text: str) -> None:
        raise NotImplementedError

    def never_answer(self, topic: str) -> None:
        raise NotImplementedError

    def received(self) -> list[str]:
        """Return the fire ids that SNS took."""
        raise NotImplementedError

    def attempts(self) -> int:
        """Return how many batches were sent."""
        raise NotImplementedError

    async def in_flight(self, batches: int) -> None:
        """Return once so many batches have reached SNS."""
        raise NotImplementedError

    async def armed(self, *batches: Batch) -> list[Armed]:
        return await self.publisher.arm(batches, batches[0].entries[0].fire.due_time)

    async def publish(self, *batches: Batch) -> list[Outcome]:
        settled = Settled()
        self.publisher.release(await self.armed(*batches), settled)
        return await settled.wait_for(sum(len(one.entries) for one in batches))


class RecordingHarness(Harness):
    def __init__(self) -> None:
        self.publisher = self.recording = RecordingPublisher(SystemClock())

    def throttle(self):
        self.recording.script = lambda _entry, _attempt: THROTTLED

    def lose_acknowledgements(self):
        self.recording.script = lambda _entry, _attempt: LOST_ACKNOWLEDGEMENT

    def lose_topic(self, topic):
        self.recording.script = lambda entry, _attempt: TOPIC_GONE if entry.topic == topic else Answer()

    def refuse_message(self, text):
        self.recording.script = lambda entry, _attempt: REJECTED if text in entry.message else Answer()

    def never_answer(self, topic):
        self.recording.script = lambda entry, _attempt: Answer(delay_s=1e6 if entry.topic == topic else 0)

    def received(self):
        return [arrival.entry.fire_id for arrival in self.recording.accepted]

    def attempts(self):
        return len({arrival.batch for arrival in self.recording.arrivals})

    async def in_flight(self, batches):
        assert self.attempts() == batches


class SnsHarness(Harness):
    def __init__(self, sns: FakeSns, publisher: Publisher) -> None:
        self.sns = sns
        self.publisher = publisher

    def throttle(self):
        self.sns.faults.always = Fault.THROTTLE

    def lose_acknowledgements(self):
        self.sns.faults.always = Fault.LOST_ACK

    def lose_topic(self, topic):
        self.sns.faults.missing = [topic]

    def refuse_message(self, text):
        self.sns.faults.poison = text

    def never_answer(self, topic):
        self.sns.faults.by_topic = {topic: Fault.HANG}

    def received(self):
        return [message.fire_id for message in self.sns.received]

    def attempts(self):
        return self.sns.requests

    async def in_flight(self, batches):
        await self.sns.wait_for_requests(batches)


@asynccontextmanager
async def recording() -> AsyncIterator[Harness]:
    harness = RecordingHarness()
    yield harness
    await harness.publisher.close()


@asynccontextmanager
async def sns() -> AsyncIterator[Harness]:
    async with FakeSns() as fake:
        harness = SnsHarness(fake, SnsPublisher(CREDENTIALS, SystemClock(), endpoint_url=fake.url))
        yield harness
        await harness.publisher.close()


@asynccontextmanager
async def boto() -> AsyncIterator[Harness]:
    async with FakeSns() as fake:
        harness = SnsHarness(fake, BotoPublisher(CREDENTIALS, SystemClock(), endpoint_url=fake.url))
        yield harness
        await harness.publisher.close()


@pytest.fixture(params=[recording, sns, boto], ids=["recording", "sns", "boto"])
async def harness(request):
    async with request.param() as made:
        yield made


def kinds(outcomes):
    return Counter(outcome.outcome for outcome in outcomes)


async def test_arm_returns_one_request_per_batch_in_order_and_sends_nothing(harness):
    batches = [batch(10), batch(3, first=10, topic=OTHER_TOPIC), batch(1, first=13)]
    armed = await harness.armed(*batches)
    assert [one.batch for one in armed] == batches
    assert harness.attempts() == 0


async def test_nothing_to_arm_is_nothing_to_release(harness):
    assert await harness.publisher.arm([], 0) == []
    settled = Settled()
    harness.publisher.release([], settled)
    await harness.publisher.close()
    assert settled.calls == []


async def test_a_published_entry_says_when_it_left_and_when_that_was_known(harness):
    clock = SystemClock()
    before_us = clock.wall_us()
    [outcome] = await harness.publish(batch(1))
    assert outcome.outcome is OutcomeClass.PUBLISHED
    assert outcome.fire == batch(1).entries[0].fire
    assert (outcome.error, outcome.is_unknown) == (None, False)
    assert before_us <= outcome.released_us <= clock.wall_us()
    assert outcome.released_us // 1000 <= outcome.finished_at <= clock.wall()


async def test_every_entry_of_every_batch_gets_exactly_one_outcome(harness):
    batches = [batch(10, first=first) for first in range(0, 600, 10)]
    outcomes = await harness.publish(*batches)
    assert numbers(outcomes) == list(range(600))
    assert kinds(outcomes) == {OutcomeClass.PUBLISHED: 600}
    assert sorted(harness.received()) == sorted(e.fire_id for one in batches for e in one.entries)


async def test_release_returns_before_any_outcome(harness):
    settled = Settled()
    harness.publisher.release(await harness.armed(batch(2)), settled)
    assert settled.calls == []
    assert len(await settled.wait_for(2)) == 2


async def test_attempts_begin_in_the_order_given(harness):
    outcomes = await harness.publish(*(batch(1, first=n) for n in range(40)))
    released = {outcome.fire.schedule_id: outcome.released_us for outcome in outcomes}
    assert [released[n] for n in range(40)] == sorted(released.values())


async def test_throttling_is_retry_and_known(harness):
    harness.throttle()
    outcomes = await harness.publish(batch(3))
    assert kinds(outcomes) == {OutcomeClass.RETRY: 3}
    assert all(not o.is_unknown and o.error.startswith("Throttling: ") for o in outcomes)
    assert all(o.is_throttled for o in outcomes)
    assert harness.received() == []


async def test_one_attempt_is_made_and_retrying_is_left_to_the_engine(harness):
    harness.throttle()
    await harness.publish(batch(10))
    assert harness.attempts() == 1


async def test_a_lost_acknowledgement_is_retry_and_unknown(harness):
    harness.lose_acknowledgements()
    outcomes = await harness.publish(batch(3))
    assert [(o.outcome, o.is_unknown) for o in outcomes] == [(OutcomeClass.RETRY, True)] * 3
    assert all(o.error for o in outcomes)
    assert len(harness.received()) == 3


async def test_a_topic_that_is_gone_is_hold_and_harms_no_other(harness):
    harness.lose_topic(TOPIC)
    outcomes = await harness.publish(batch(2), batch(2, first=2, topic=OTHER_TOPIC))
    by_number = {o.fire.schedule_id: o for o in outcomes}
    assert [by_number[n].outcome for n in range(4)] == [OutcomeClass.HOLD] * 2 + [OutcomeClass.PUBLISHED] * 2
    assert by_number[0].error.startswith("NotFound: ")
    assert not by_number[0].is_unknown


async def test_one_bad_message_is_rejected_and_the_nine_good_ones_go(harness):
    harness.refuse_message("job-4@")
    outcomes = await harness.publish(batch(10))
    assert numbers(outcomes) == list(range(10))
    assert [o.fire.schedule_id for o in outcomes if o.outcome is OutcomeClass.REJECTED] == [4]
    assert kinds(outcomes) == {OutcomeClass.PUBLISHED: 9, OutcomeClass.REJECTED: 1}
    assert len(harness.received()) == 9


async def test_a_batch_settles_while_another_waits(harness):
    harness.never_answer(TOPIC)
    settled = Settled()
    armed = await harness.armed(batch(5), batch(5, first=5, topic=OTHER_TOPIC))
    harness.publisher.release(armed, settled)
    assert numbers(await settled.wait_for(5)) == list(range(5, 10))


async def test_close_gives_up_what_is_in_flight_as_unknown_and_no_outcome_follows(harness):
    harness.never_answer(TOPIC)
    settled = Settled()
    harness.publisher.release(await harness.armed(batch(5), batch(5, first=5)), settled)
    await harness.in_flight(2)
    async with asyncio.timeout(5):
        await harness.publisher.close()
    assert numbers(settled.outcomes) == list(range(10))
    assert {(o.outcome, o.is_unknown) for o in settled.outcomes} == {(OutcomeClass.RETRY, True)}
    assert all(o.error for o in settled.outcomes)
    await asyncio.sleep(0)
    assert len(settled.outcomes) == 10


async def test_close_may_be_called_at_once_after_release_and_twice(harness):
    settled = Settled()
    harness.publisher.release(await harness.armed(batch(5)), settled)
    await harness.publisher.close()
    await harness.publisher.close()
    assert numbers(settled.outcomes) == list(range(5))


async def test_what_is_released_after_close_is_retried_and_known_not_to_have_gone(harness):
    armed = await harness.armed(batch(2))
    await harness.publisher.close()
    settled = Settled()
    harness.publisher.release(armed, settled)
    outcomes = await settled.wait_for(2)
    assert {(o.outcome, o.is_unknown) for o in outcomes} == {(OutcomeClass.RETRY, False)}
    assert harness.received() == []


async def test_arm_after_close_raises_nothing(harness):
    await harness.publisher.close()
    assert len(await harness.armed(batch(2))) == 1


async def test_a_request_is_released_once(harness):
    armed = await harness.armed(batch(1))
    settled = Settled()
    harness.publisher.release(armed, settled)
    with pytest.raises(InternalError, match="twice"):
        harness.publisher.release(armed, settled)
    assert len(await settled.wait_for(1)) == 1
    assert len(harness.received()) == 1


@pytest.mark.parametrize("stranger", [recording, sns, boto], ids=["recording", "sns", "boto"])
async def test_only_the_publisher_that_armed_a_request_releases_it(harness, stranger):
    async with stranger() as other:
        foreign = await other.armed(batch(1))
        with pytest.raises(InternalError, match="stranger"):
            harness.publisher.release(foreign, Settled())
    assert harness.attempts() == 0
