"""What attempts came to: outcomes become journal rows, a circuit opens or closes, and a FIFO group goes on to its next fire."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from cronally.domain.model import MISSED_AFTER_MS, CatchUp, Kind, State
from cronally.domain.topic import is_fifo_topic
from cronally.engine.ports import OutcomeClass
from cronally.engine.records import Newer
from cronally.engine.settle import entry_for, published_entry, unsent_entry
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronally.domain.message import Entry
    from cronally.domain.model import Fire, FireKey, JournalEntry
    from cronally.engine.backlog import Backlog
    from cronally.engine.circuits import Circuit, Circuits
    from cronally.engine.core import Core
    from cronally.engine.hooks import Hooks
    from cronally.engine.ports import Outcome
    from cronally.engine.settle import Settler

    Settle = Callable[[Sequence[Outcome]], None]

_MAX_RETRYING = 2_000  # pending fires on their way at once
_ROOM_AGAIN = 1_000  # when so few are left, it is worth looking for more
_PUBLISHED = OutcomeClass.PUBLISHED  # to look it up in the enum takes ten times as long
_FAILED = (OutcomeClass.RETRY, OutcomeClass.HOLD)


class Attempts:
    """Takes outcomes.

    Attributes: circuits, backlog. ready: fires that may go now: the next of a FIFO group, manual ones. retrying: pending
        fires on their way. reopening: FIFO topics whose circuit has closed and whose groups are still shut.
        are_heads_unsent: heads of groups have been settled without having been sent, and that may not be durable.
        wants_retry: set when there may be something to retry. has_answer: set whenever an attempt has come to its end. idle: set when nothing is in flight any more, after ``stop``.
    """

    def __init__(
        self,
        core: Core,
        settler: Settler,
        circuits: Circuits,
        backlog: Backlog,
        hooks: Hooks,
        *,
        jitter: Callable[[], float],
    ) -> None:
        self._core = core
        self._settler = settler
        self.circuits = circuits
        self.backlog = backlog
        self._hooks = hooks
        self._jitter = jitter
        self._is_stopping = False
        self._settles: dict[tuple[str, int], Settle] = {}
        self.ready: list[Fire] = []
        self.retrying: set[FireKey] = set()
        self.reopening: set[str] = set()
        self.are_heads_unsent = False
        self.wants_retry = asyncio.Event()
        self.has_answer = asyncio.Event()
        self.idle = asyncio.Event()

    def settle_for(self, topic: str, priority: int) -> Settle:
        """Return what takes the outcomes of one request to *topic* with *priority*, as the publisher reports them."""
        settle = self._settles.get((topic, priority))
        if settle is None:
            settle = partial(self._settle, self.circuits.of(topic), priority)
            self._settles[topic, priority] = settle
        return settle

    def _settle(self, circuit: Circuit, priority: int, outcomes: Sequence[Outcome]) -> None:
        rows = [published_entry(outcome) for outcome in outcomes if outcome.outcome is _PUBLISHED]
        self._hooks.answered(outcomes, len(rows))
        if rows and circuit.succeed(outcomes[0].released_us):
            self._close(circuit)
        if len(rows) < len(outcomes):
            rows = self._rows_of_failure(circuit, priority, outcomes, is_whole=not rows)
        self._core.mark_settled([outcome.fire for outcome in outcomes])
        if self.retrying or self._core.groups:
            for outcome, row in zip(outcomes, rows, strict=True):
                self._after(outcome.fire, row)
        self._settler.add(rows)
        self.has_answer.set()
        self.note_idle()

    def _rows_of_failure(
        self, circuit: Circuit, priority: int, outcomes: Sequence[Outcome], *, is_whole: bool
    ) -> list[JournalEntry]:
        """Return the rows of a request that failed, as a whole or in part."""
        if is_whole:
            self._note_failure(circuit, outcomes)
        rows = []
        for outcome in outcomes:
            row = entry_for(outcome, deadline_at=outcome.fire.deadline_at, jitter=self._jitter())
            if row.state is State.PENDING and circuit.opened_at is not None:
                row = row._replace(next_attempt_at=outcome.fire.deadline_at, is_in_line=True)
                self._note_in_line(circuit.topic, priority, outcome.fire, outcome.finished_at)
            rows.append(row)
        return rows

    def _note_failure(self, circuit: Circuit, outcomes: Sequence[Outcome]) -> None:
        """Nothing of a request was published: is it the topic's fault?"""
        was_probe = any(outcome.fire.key == circuit.probe for outcome in outcomes)
        failed = [outcome for outcome in outcomes if outcome.outcome in _FAILED]
        against = [outcome for outcome in failed if not outcome.is_throttled]
        is_held = any(outcome.outcome is OutcomeClass.HOLD for outcome in against)
        now = outcomes[0].finished_at
        if against:
            is_first = any(outcome.fire.attempts == 0 for outcome in against)
            error, released_us = against[0].error, against[0].released_us
            if circuit.fail(released_us, error, is_held=is_held, is_first=is_first):
                self._open(circuit, now, is_held=is_held)
        if was_probe and failed:
            self.circuits.end_probe(circuit, now, failed[0].error, is_held=is_held, jitter=self._jitter())

    def _open(self, circuit: Circuit, now: UtcMs, *, is_held: bool) -> None:
        self.circuits.trip(circuit, now, is_held=is_held, jitter=self._jitter())
        self.reopening.discard(circuit.topic)
        if is_fifo_topic(circuit.topic):
            self._core.forget_waiting(self._core.groups.shut(circuit.topic))
        else:
            self.backlog.shut(circuit.topic)
        self._hooks.circuit_opened(circuit.topic, circuit.error)
        self.wants_retry.set()

    def _close(self, circuit: Circuit) -> None:
        opened_at = circuit.opened_at or UtcMs(0)
        self.forget(circuit)
        self._hooks.circuit_closed(circuit.topic, opened_at)

    def forget(self, circuit: Circuit) -> None:
        """Close a circuit without a word: nothing waits for it, say, and the next slot may as well try."""
        self.circuits.close(circuit)
        if is_fifo_topic(circuit.topic):
            self.reopening.add(circuit.topic)
        else:
            self.backlog.reopen(circuit.topic)
        self.wants_retry.set()

    def stand_in_line(self, entry: Entry, now: UtcMs) -> None:
        """Have a fire that is due wait in the store until its turn comes, or expire if it may not."""
        fire, spec = entry.fire, entry.spec
        if not self._core.may_release(fire):
            self.note_dropped(fire)
            return
        if now >= fire.deadline_at:
            self.conclude(fire, unsent_entry(fire, State.EXPIRED))
            return
        circuit = self.circuits.open.get(spec.topic)
        is_new = fire.kind is Kind.SCHEDULED and now - fire.due_time <= MISSED_AFTER_MS
        if is_new and spec.catch_up is CatchUp.LATEST:
            self._settler.supersede(Newer(fire.schedule_id, fire.fire_time, UtcMs(now - MISSED_AFTER_MS)))
        row = unsent_entry(
            fire,
            State.PENDING,
            next_attempt_at=fire.deadline_at,
            is_in_line=True,
            last_error=None if circuit is None else circuit.error,
        )
        self._note_in_line(spec.topic, spec.priority, fire, now)
        self.conclude(fire, row)

    def _note_in_line(self, topic: str, priority: int, fire: Fire, now: UtcMs) -> None:
        if not is_fifo_topic(topic):
            self.backlog.note(topic, priority, fire)
        if self.circuits.feed(topic, now):
            self.wants_retry.set()

    def conclude(self, fire: Fire, row: JournalEntry) -> None:
        """Settle a fire without an attempt."""
        if row.state is not State.PENDING and self._core.groups.head_of(fire) is not None:
            self.are_heads_unsent = True
        self._core.mark_settled((fire,))
        self._after(fire, row)
        self._settler.add([row])

    def note_dropped(self, fire: Fire) -> None:
        """A fire is not on its way any more."""
        if fire.key in self.retrying:
            self.retrying.discard(fire.key)
            probed = self.circuits.probes.get(fire.key)
            if probed is not None:
                self.circuits.lose_probe(probed)
                self.wants_retry.set()
            if len(self.retrying) <= _ROOM_AGAIN:
                self.wants_retry.set()

    def room(self) -> int:
        """Return how many more pending fires may be on their way."""
        return max(0, _MAX_RETRYING - len(self.retrying))

    def let_go(self) -> None:
        """The core holds only what is in flight, or settled: nothing else is on its way."""
        self.ready = []
        self.retrying = {key for key in self.retrying if self._core.is_held(key)}
        for circuit in [one for key, one in self.circuits.probes.items() if not self._core.is_held(key)]:
            self.circuits.lose_probe(circuit)

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
