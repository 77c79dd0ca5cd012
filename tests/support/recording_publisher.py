"""A publisher in memory: it remembers what was released and answers as a script says."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cronally.engine.ports import Outcome, OutcomeClass
from cronally.errors import InternalError
from cronally.sns.pacing import DEFAULT, Pacing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronally.clock import Clock
    from cronally.domain.batching import Batch
    from cronally.domain.message import Entry
    from cronally.engine.ports import Armed
    from cronally.instants import UtcMs


class Answer(NamedTuple):
    """What the script says of one attempt.

    Fields: delay_s: seconds of the clock until the outcome is known; the entries of a batch that share a delay settle
        together. error: None takes a fitting text. is_unknown: no answer came. is_accepted: a receiver gets the message
        (None: it does if the outcome is PUBLISHED); True with RETRY and is_unknown is a lost acknowledgement.
        is_throttled: as in ``Outcome``.
    """

    outcome: OutcomeClass = OutcomeClass.PUBLISHED
    delay_s: float = 0.0
    error: str | None = None
    is_unknown: bool = False
    is_accepted: bool | None = None
    is_throttled: bool = False


PUBLISHED = Answer()
THROTTLED = Answer(OutcomeClass.RETRY, error="Throttling: Rate exceeded", is_throttled=True)
TIMED_OUT = Answer(OutcomeClass.RETRY, error="no answer within 10 s", is_unknown=True)
LOST_ACKNOWLEDGEMENT = TIMED_OUT._replace(is_accepted=True)
TOPIC_GONE = Answer(OutcomeClass.HOLD, error="NotFound: Topic does not exist")
REJECTED = Answer(OutcomeClass.REJECTED, error="InvalidParameter: Invalid parameter: Message")


def always_published(_entry: Entry, _attempt: int) -> Answer:
    return PUBLISHED


class Arrival(NamedTuple):
    """One attempt of one entry, in the order of release.

    Fields: attempt: from 1, counted by fire id. released_us: wall clock. batch: number of its batch, from 0.
    """

    entry: Entry
    attempt: int
    released_us: int
    batch: int
    answer: Answer

    @property
    def is_accepted(self) -> bool:
        """Whether a receiver gets this message."""
        accepted = self.answer.is_accepted
        return self.answer.outcome is OutcomeClass.PUBLISHED if accepted is None else accepted


@dataclass(eq=False, slots=True)
class RecordedBatch:
    """An armed batch. at: the instant it was armed for."""

    batch: Batch
    at: UtcMs
    owner: RecordingPublisher = field(repr=False)
    is_released: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.batch.entries)


class RecordingPublisher:
    """A ``Publisher`` for tests of the engine; every delay runs on *clock*.

    It has room for *room* messages in flight, and a quota of *quota* messages a second of each region (None: no limit);
    change them at any time and call ``on_room``.

    Attributes: script: called once per entry and attempt, in the order of release; replace it at any time.
        arrivals: every attempt. armed: every batch ever armed. is_closed.
    """

    def __init__(
        self, clock: Clock, script: Callable[[Entry, int], Answer | OutcomeClass] = always_published
    ) -> None:
        self.script = script
        self.arrivals: list[Arrival] = []
        self.armed: list[RecordedBatch] = []
        self.is_closed = False
        self.dropped_connections = 0
        self.room: int | None = None
        self._quota: float | None = None
        self._pacing: Pacing | None = None
        self._asking: asyncio.Task[None] | None = None
        self.on_room: Callable[[], None] = lambda: None
        self._clock = clock
        self._attempts: Counter[str] = Counter()
        self._open: dict[object, Callable[[], None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._batches = 0
        self._unanswered = 0
        self._arrived = asyncio.Event()

    @property
    def quota(self) -> float | None:
        return self._quota

    @quota.setter
    def quota(self, messages_per_s: float | None) -> None:
        self._quota = messages_per_s
        self._pacing = None if messages_per_s is None else Pacing({DEFAULT: messages_per_s})

    @property
    def accepted(self) -> list[Arrival]:
        """What a receiver has got, duplicates included, in order."""
        return [arrival for arrival in self.arrivals if arrival.is_accepted]

    @property
    def in_flight(self) -> int:
        """Groups of entries whose outcome is still to come."""
        return len(self._open)

    async def wait_for(self, count: int) -> list[Arrival]:
        """Return the arrivals once there are *count* of them."""
        while len(self.arrivals) < count:
            self._arrived.clear()
            await self._arrived.wait()
        return self.arrivals

    async def arm(self, batches: Sequence[Batch], at: UtcMs) -> list[Armed]:
        armed = [RecordedBatch(batch, at, self) for batch in batches]
        self.armed += armed
        return list(armed)

    def has_room(self, topic: str, messages: int) -> bool:
        is_larger = self._unanswered == 0 and self.room  # a batch that is larger than the room goes alone
        if self.room is not None and self._unanswered + messages > self.room and not is_larger:
            return False
        wait_s = 0.0 if self._pacing is None else self._pacing.room_in_s(topic, messages, self._clock.mono())
        if wait_s > 0 and self._asking is None and not self.is_closed:
            self._asking = asyncio.get_running_loop().create_task(self._ask_again_in(wait_s))
            self._tasks.add(self._asking)
        return wait_s <= 0

    async def _ask_again_in(self, wait_s: float) -> None:
        await self._clock.sleep(max(wait_s, 0.001))
        self._tasks.discard(self._asking)
        self._asking = None
        self.on_room()

    def wait_s(self, topic: str, messages: int) -> float:
        return 0.0 if self._pacing is None else self._pacing.wait_s(topic, messages, self._clock.mono())

    def release(self, armed: Sequence[Armed], settle: Callable[[Sequence[Outcome]], None]) -> None:
        for one in armed:
            if not isinstance(one, RecordedBatch) or one.owner is not self or one.is_released:
                raise InternalError(f"a batch for {one.batch.topic} was released twice or by a stranger")
            one.is_released = True
            if self._pacing is not None:
                self._pacing.take(one.batch.topic, len(one.batch.entries), self._clock.mono())
            self._release(one.batch, settle)

    def _release(self, batch: Batch, settle: Callable[[Sequence[Outcome]], None]) -> None:
        loop = asyncio.get_running_loop()
        released_us = self._clock.wall_us()
        if self.is_closed:
            closed = Answer(OutcomeClass.RETRY, error="the publisher is closed")
            refused = [self._outcome(entry, closed, released_us) for entry in batch.entries]
            loop.call_soon(settle, refused)
            return
        by_delay: dict[float, list[tuple[Entry, Answer]]] = {}
        for entry in batch.entries:
            self._attempts[entry.fire_id] += 1
            attempt = self._attempts[entry.fire_id]
            answer = self.script(entry, attempt)
            if isinstance(answer, OutcomeClass):
                answer = Answer(answer)
            self.arrivals.append(Arrival(entry, attempt, released_us, self._batches, answer))
            by_delay.setdefault(answer.delay_s, []).append((entry, answer))
        self._batches += 1
        self._arrived.set()
        for delay_s, answers in by_delay.items():
            self._answer_after(delay_s, answers, released_us, settle)

    def _answer_after(
        self,
        delay_s: float,
        answers: list[tuple[Entry, Answer]],
        released_us: int,
        settle: Callable[[Sequence[Outcome]], None],
    ) -> None:
        token = object()
        self._unanswered += len(answers)

        def give_up() -> None:
            closed = Answer(OutcomeClass.RETRY, error="the publisher was closed", is_unknown=True)
            settle([self._outcome(entry, closed, released_us) for entry, _ in answers])

        def finish() -> None:
            if self._open.pop(token, None) is not None:
                self._unanswered -= len(answers)
                settle([self._outcome(entry, answer, released_us) for entry, answer in answers])
                self.on_room()

        async def finish_later() -> None:
            await self._clock.sleep(delay_s)
            finish()

        self._open[token] = give_up
        if delay_s <= 0:
            asyncio.get_running_loop().call_soon(finish)
            return
        task = asyncio.get_running_loop().create_task(finish_later())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _outcome(self, entry: Entry, answer: Answer, released_us: int) -> Outcome:
        is_published = answer.outcome is OutcomeClass.PUBLISHED
        error = None if is_published else answer.error or f"{answer.outcome.value}, as the test wants"
        return Outcome(
            entry.fire,
            answer.outcome,
            released_us,
            self._clock.wall(),
            error,
            answer.is_unknown and not is_published,
            answer.is_throttled and not is_published,
        )

    def drop_connections(self) -> None:
        self.dropped_connections += 1

    async def close(self) -> None:
        self.is_closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        given_up, self._open = self._open, {}
        for give_up in given_up.values():
            give_up()
