"""Slots of a time that the wall clock shows a second time, after it was set back: those that have a row are settled."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

from cronally.domain.model import Kind
from cronally.instants import MIN_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cronally.domain.model import JournalEntry

_KEPT_MS = 60_000  # a change may plan singly what has been due for a moment
_MOST_SPREAD_MS = 900_000
_AHEAD_MS = 2_000  # what is earlier than the last read less this has been planned

_Slot = tuple[int, UtcMs]
"""Schedule id and fire time: of a scheduled fire."""


class Relived:
    """What is settled of the time up to *through*, which had been reached before; read a horizon at a time.

    By fire time: a slot may have been due earlier or later under another revision, whose spread was another. So rows are read,
    and kept, from as long ago as the longest spread there is (up to a quarter of an hour: a longer one may repeat a fire, with
    the same id).

    Attributes: through: the latest instant of the wall clock before it was set back; later slots have no row.
        read_through: slots up to here have been read.
    """

    def __init__(self) -> None:
        self.through = MIN_UTC_MS
        self.read_through = MIN_UTC_MS
        self._slots: set[_Slot] = set()
        self._ranges: dict[int, list[tuple[UtcMs, UtcMs]]] = {}
        self._paused: dict[int, list[tuple[UtcMs, UtcMs]]] = {}
        self._read: list[tuple[UtcMs, int, list[_Slot]]] = []  # a heap: up to when they are, and which
        self._numbers = count()
        self._spread_ms = 0

    @property
    def is_on(self) -> bool:
        """Whether a slot that is to come may be settled."""
        return self.read_through < self.through or bool(self._read)

    def begin(self, through: UtcMs) -> None:
        """Say that the wall clock has shown every instant up to *through* before."""
        self.through = UtcMs(max(self.through, through))

    def restart(self, now: UtcMs, spread_ms: int = 0) -> None:
        """Forget what was read: planning begins anew after *now*. spread_ms: the longest there is."""
        self._spread_ms = min(spread_ms, _MOST_SPREAD_MS)
        self.read_through = UtcMs(now - self._spread_ms)
        self._slots.clear()
        self._ranges.clear()
        self._read.clear()

    def widen(self, spread_ms: int) -> None:
        """Schedules with a longer spread are here now: what was read is kept for longer."""
        self._spread_ms = max(self._spread_ms, min(spread_ms, _MOST_SPREAD_MS))

    def keep_range(self, entry: JournalEntry) -> None:
        """A row has slots that are still to come, as that of a pause which is over: they stay what it says."""
        self._paused.setdefault(entry.schedule_id, []).append((entry.fire_time, entry.last_slot))

    def forget_pauses(self, schedule_id: int | None = None) -> None:
        """The rows of pauses of a schedule (None: of all) are cut, or about to be read anew."""
        if schedule_id is None:
            self._paused.clear()
        else:
            self._paused.pop(schedule_id, None)

    def wants(self, through: UtcMs) -> tuple[UtcMs, UtcMs] | None:
        """Return the (after, through) of slots to be read before those due by *through* are planned, or None."""
        if self.read_through >= min(through, self.through):
            return None
        return self.read_through, through

    def add(self, settled: Mapping[int, Sequence[tuple[UtcMs, UtcMs]]], through: UtcMs, now: UtcMs) -> None:
        """Take in the (first, last) of the rows up to *through*, and forget those that no one can plan any more."""
        slots: list[_Slot] = []
        for schedule_id, spans in settled.items():
            for first, last in spans:
                if first == last:
                    slots.append((schedule_id, first))
                else:
                    self._ranges.setdefault(schedule_id, []).append((first, last))
        self._keep(through, slots)
        self.read_through = through
        self.pass_by(now)

    def note(self, entry: JournalEntry) -> None:
        """A row became durable, maybe of a slot that was sent before the clock was set back."""
        if entry.kind is Kind.SCHEDULED and entry.fire_time > self.read_through - _AHEAD_MS - self._spread_ms:
            self._keep(entry.fire_time, [(entry.schedule_id, entry.fire_time)])

    def has(self, schedule_id: int, fire_time: UtcMs) -> bool:
        """Whether the slot is settled."""
        if (schedule_id, fire_time) in self._slots:
            return True
        return any(
            first <= fire_time <= last
            for ranges in (self._ranges, self._paused)
            for first, last in ranges.get(schedule_id, ())
        )

    def pass_by(self, now: UtcMs) -> None:
        """Time has gone on to *now*: forget what no one can plan any more."""
        while self._read and self._read[0][0] < now - _KEPT_MS - self._spread_ms:
            self._slots.difference_update(heapq.heappop(self._read)[2])
        if not self._read:
            self._ranges.clear()
            if self.read_through >= self.through:
                self._paused.clear()

    def _keep(self, through: UtcMs, slots: list[_Slot]) -> None:
        self._slots.update(slots)
        heapq.heappush(self._read, (through, next(self._numbers), slots))
