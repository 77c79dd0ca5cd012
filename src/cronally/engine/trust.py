"""The last look at the lease, at the publisher's door: a machine that others may have retired by now sends nothing (design §12).

Those that were released in time, and wait inside the publisher for a connection, are looked at again when they are written: it
asks ``may_send`` then.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from cronally.engine.ports import Outcome, OutcomeClass
from cronally.engine.publisher_around import PublisherAround

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronally.clock import Clock
    from cronally.domain.batching import Batch
    from cronally.engine.ports import Armed, Publisher

_NOT_TRUSTED: Final = "LeaseEnded: the lease of this machine had ended before this was sent"


class Trust(PublisherAround):
    """A ``Publisher`` that passes on to *inner* what is released before *trusted_until* (``Clock.boot``), and refuses the rest."""

    def __init__(self, inner: Publisher, trusted_until: Callable[[], float], clock: Clock) -> None:
        super().__init__(inner)
        self._trusted_until = trusted_until
        self._clock = clock

    def may_send(self) -> bool:
        """Whether no other machine can have taken over by now."""
        return self._clock.boot() < self._trusted_until()

    def release(self, armed: Sequence[Armed], settle: Callable[[Sequence[Outcome]], None]) -> None:
        for one in armed:
            if self.may_send():
                self._inner.release((one,), settle)
            else:
                self._refuse(one.batch, settle)

    def _refuse(self, batch: Batch, settle: Callable[[Sequence[Outcome]], None]) -> None:
        released_us, now = self._clock.wall_us(), self._clock.wall()
        outcomes = [
            Outcome(entry.fire, OutcomeClass.RETRY, released_us, now, _NOT_TRUSTED) for entry in batch.entries
        ]
        asyncio.get_running_loop().call_soon(settle, outcomes)
