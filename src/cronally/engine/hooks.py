"""Named events of the engine, with data: metrics, live views and tests listen to the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cronally.domain.batching import Batch
    from cronally.domain.model import Fire, JournalEntry, Kind, SkipReason
    from cronally.engine.clock_watch import Jump
    from cronally.engine.ports import Outcome
    from cronally.engine.records import Machine
    from cronally.engine.zone_watch import ZoneChange
    from cronally.errors import StoreError
    from cronally.instants import UtcMs


class Hooks:
    """Override what you want to hear; the default does nothing. Called on the event loop; must not block or raise."""

    @property
    def wants_rows(self) -> bool:
        """Whether somebody wants to hear of the slots that are put aside one by one, and not only how many they are."""
        return False

    def planned(self, fires: Sequence[Fire]) -> None:
        """Fires were planned and will be armed."""

    def released(self, batch: Batch, late_us: int) -> None:
        """A batch left; late_us: how long after the instant it was released for."""

    def answered(self, outcomes: Sequence[Outcome], published: int) -> None:
        """One request has come to its end, answered or not; so many of its messages were *published*."""

    def settled(self, entries: Sequence[JournalEntry]) -> None:
        """Entries were made, of attempts or without one; they are about to be committed."""

    def committed(self, entries: Sequence[JournalEntry]) -> None:
        """Entries are durable."""

    def put_aside(
        self, reason: SkipReason, kind: Kind, slots: int, rows: Sequence[JournalEntry] = ()
    ) -> None:
        """So many slots are durably skipped that were no entries of a commit: by a pause that is over, a command, newer slots.

        rows: what the journal has of them; if they are many the first, and if ``wants_rows`` is not set perhaps none.
        """

    def commit_ended(self, took_s: float, *, is_done: bool) -> None:
        """The store has made a commit of the journal durable, or refused it; waiting for its turn is part of *took_s*."""

    def recovered(self, reason: str, after: UtcMs, through: UtcMs, fires: int, skipped: int) -> None:
        """Recovery decided the slots due in (after, through]."""

    def store_failed(self, error: StoreError) -> None:
        """The store refused; the engine will try again."""

    def pruned(self, rows: int, through: UtcMs, *, for_size: bool) -> None:
        """Old journal entries are gone, of slots due up to *through*. for_size: there were too many, not too old ones."""

    def circuit_opened(self, topic: str, error: str | None) -> None:
        """SNS refuses everything for *topic*: what is due there waits, and one message at a time is tried."""

    def circuit_closed(self, topic: str, opened_at: UtcMs) -> None:
        """SNS takes messages for *topic* again, for the first time since *opened_at*."""

    def instants_moved(self, names: Sequence[str]) -> None:
        """A new tzdata moved the one instant of these ``@at`` schedules."""

    def zones_changed(self, change: ZoneChange) -> None:
        """Under another version of tzdata the next fires of schedules are elsewhere."""

    def clock_jumped(self, jump: Jump) -> None:
        """The wall clock has moved otherwise than the time that passed, or the machine slept."""

    def clock_doubted(self, doubt: str) -> None:
        """The wall clock cannot be right; nothing fires until it is."""

    def loop_lagged(self, lag_s: float) -> None:
        """The event loop was looked at: it woke so much later than it was to."""

    # several machines over one store

    def machine_joined(self, machine: Machine) -> None:
        """A machine, this one too, works on the store from now on, or was found to."""

    def machine_gone(self, machine: Machine) -> None:
        """A machine is retired: it has left, or was silent for its whole lease."""

    def shards_taken(self, numbers: Sequence[int], owner: Machine | None) -> None:
        """This machine drives shards from now on, which *owner* had, or nobody."""

    def shard_given(self, number: int) -> None:
        """This machine does not drive a shard any more; whoever takes it does."""

    def lease_lost(self, reason: str) -> None:
        """Nothing of this incarnation is sent or written any more."""

    def table_failed(self, error: StoreError) -> None:
        """The shared store does not answer, or refuses; it is tried again."""

    def table_answers(self, failed_s: float) -> None:
        """The shared store does again what it is asked, after so long."""


def tell_skipped(hooks: Hooks, rows: Iterable[JournalEntry]) -> None:
    """Say what was skipped by a change; of a pause that goes on that is not known yet."""
    for row in rows:
        if row.reason is not None and row.count and not row.is_open:
            hooks.put_aside(row.reason, row.kind, row.count, (row,))
