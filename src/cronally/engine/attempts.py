"""What attempts came to: outcomes become journal rows, and a FIFO group goes on to its next fire."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cronally.domain.model import State
from cronally.engine.ports import OutcomeClass
from cronally.engine.settle import entry_for, published_entry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronally.domain.model import Fire, FireKey, JournalEntry
    from cronally.engine.core import Core
    from cronally.engine.ports import Outcome
    from cronally.engine.settle import Settler

_MAX_RETRYING = 2_000  # pending fires on their way at once
_ROOM_AGAIN = 1_000  # when so few are left, it is worth looking for more


class Attempts:
    """Takes outcomes.

    Attributes: ready: fires that may go now: the next of a FIFO group, manual ones. retrying: pending fires on their way.
        wants_retry: set when there may be something to retry. idle: set when
        nothing is in flight any more, after ``stop``.
    """

    def __init__(self, core: Core, settler: Settler, *, jitter: Callable[[], float]) -> None:
        self._core = core
        self._settler = settler
        self._jitter = jitter
        self._is_stopping = False
        self.ready: list[Fire] = []
        self.retrying: set[FireKey] = set()
        self.wants_retry = asyncio.Event()
        self.idle = asyncio.Event()

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Take the outcomes of attempts, as the publisher reports them."""
        published = OutcomeClass.PUBLISHED
        rows = [
            published_entry(outcome)
            if outcome.outcome is published
            else entry_for(outcome, deadline_at=outcome.fire.deadline_at, jitter=self._jitter())
            for outcome in outcomes
        ]
        self._core.mark_settled([outcome.fire for outcome in outcomes])
        if self.retrying or self._core.groups:
            for outcome, row in zip(outcomes, rows, strict=True):
                self._after(outcome.fire, row)
        self._settler.add(rows)
        self.note_idle()

    def conclude(self, fire: Fire, row: JournalEntry) -> None:
        """Settle a fire without an attempt."""
        self._core.mark_settled((fire,))
        self._after(fire, row)
        self._settler.add([row])

    def note_dropped(self, fire: Fire) -> None:
        """A fire is not on its way any more."""
        if fire.key in self.retrying:
            self.retrying.discard(fire.key)
            if len(self.retrying) <= _ROOM_AGAIN:
                self.wants_retry.set()

    def has_room_for(self, fires: int) -> bool:
        """Whether so many more pending *fires* may be on their way."""
        return len(self.retrying) + fires <= _MAX_RETRYING

    def let_go(self) -> None:
        """The core holds only what is in flight, or settled: nothing else is on its way."""
        self.ready = []
        self.retrying = {key for key in self.retrying if self._core.is_held(key)}

    def stop(self) -> None:
        """Nothing more will be released."""
        self._is_stopping = True
        self.note_idle()

    def note_idle(self) -> None:
        if self._is_stopping and self._core.in_flight_count() == 0:
            self.idle.set()

    def _after(self, fire: Fire, row: JournalEntry) -> None:
        self.note_dropped(fire)
        groups = self._core.groups
        if groups.head_of(fire) is None:
            return
        if row.state is State.PENDING and row.next_attempt_at is not None:
            failed = fire._replace(attempts=row.attempts, maybe_published=row.maybe_published)
            groups.replace_head(failed, row.next_attempt_at)
        else:
            following = groups.finish(fire)
            if following is not None:
                self.ready.append(following)
        self.wants_retry.set()
