"""The last look at a message's topic, at the publisher's door: what the operator's list has no place for does not leave.

1. It stands between the engine and the publisher, so whatever way a fire has come, and whenever its schedule was made, it
   passes here. Nothing of a topic that is not allowed is encoded, signed or sent.
2. To the engine such a topic is one that holds everything (docs/adr/0012): its fires stand in line in the store with the
   reason, until they are allowed or their deadline passes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.domain.allowed import NOT_ALLOWED
from cronally.engine.ports import Outcome, OutcomeClass
from cronally.engine.publisher_around import PublisherAround

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronally.clock import Clock
    from cronally.domain.allowed import AllowedTopics
    from cronally.domain.batching import Batch
    from cronally.engine.ports import Armed, Publisher
    from cronally.instants import UtcMs

_JUST_ALLOWED: Final = "TopicNotAllowed: this daemon might not publish to it until just now"


class _Kept(NamedTuple):
    """A batch that was not made ready, for its topic was not allowed."""

    batch: Batch

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.batch.entries)


class Gate(PublisherAround):
    """A ``Publisher`` that passes on to *inner* what *allowed* has a place for, and holds the rest."""

    def __init__(self, inner: Publisher, allowed: AllowedTopics, clock: Clock) -> None:
        super().__init__(inner)
        self._allowed = allowed
        self._clock = clock

    async def arm(self, batches: Sequence[Batch], at: UtcMs) -> list[Armed]:
        if self._allowed.patterns is None:
            return await self._inner.arm(batches, at)
        going = [batch for batch in batches if self._allowed.allows(batch.topic)]
        armed = iter(await self._inner.arm(going, at))
        kept = {id(batch) for batch in batches} - {id(batch) for batch in going}
        return [_Kept(batch) if id(batch) in kept else next(armed) for batch in batches]

    def has_room(self, topic: str, messages: int) -> bool:
        return not self._allowed.allows(topic) or super().has_room(topic, messages)

    def wait_s(self, topic: str, messages: int) -> float:
        return super().wait_s(topic, messages) if self._allowed.allows(topic) else 0.0

    def release(self, armed: Sequence[Armed], settle: Callable[[Sequence[Outcome]], None]) -> None:
        for one in armed:
            is_allowed = self._allowed.allows(one.batch.topic)
            if is_allowed and not isinstance(one, _Kept):
                self._inner.release((one,), settle)
            else:
                self._hold(one.batch, settle, is_allowed=is_allowed)

    def _hold(self, batch: Batch, settle: Callable[[Sequence[Outcome]], None], *, is_allowed: bool) -> None:
        """Answer for a batch that does not leave. is_allowed: it may by now, and is not ready."""
        outcome = OutcomeClass.RETRY if is_allowed else OutcomeClass.HOLD
        error = _JUST_ALLOWED if is_allowed else NOT_ALLOWED
        released_us, now = self._clock.wall_us(), self._clock.wall()
        outcomes = [Outcome(entry.fire, outcome, released_us, now, error) for entry in batch.entries]
        asyncio.get_running_loop().call_soon(settle, outcomes)
