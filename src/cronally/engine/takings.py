"""Slots that have been taken from the timetable and are not held yet.

A crowd is due at one instant: its ids are taken in one step, and become fires some hundreds at a time, as far as memory for
armed requests goes. What has not become a fire yet costs eight bytes.

1. Slots leave in the order in which they are to be armed: what is due already by priority, what is to come by due time and
   then by priority; topics of equal priority take turns.
2. The slots of one schedule leave in their order.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from cronally.engine.turns import Turns
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence

    from cronally.engine.timetable import TimetableEntry

_TURN = 50  # slots of a topic in a row: five full batches


class Crowd:
    """The schedules that share one slot. number: of their entry in the timetable, which others may have afterwards."""

    __slots__ = ("_ids", "_left", "_position", "due_time", "number", "slot")

    def __init__(self, number: int, slot: UtcMs, due_time: UtcMs, ids: array[int]) -> None:
        self.number = number
        self.slot = slot
        self.due_time = due_time
        self._ids = ids
        self._position = 0
        self._left: set[int] | None = None  # made when somebody asks for a schedule, which is seldom

    @property
    def is_done(self) -> bool:
        return self._position >= len(self._ids)

    def take(self, most: int) -> Sequence[int]:
        """Return up to *most* ids that have not been taken; fewer, or none, where some were forgotten."""
        ids: Sequence[int] = self._ids[self._position : self._position + most]
        self._position += most
        if self._left is not None:
            ids = [id_ for id_ in ids if id_ in self._left]
            self._left.difference_update(ids)
        return ids

    def has(self, id_: int) -> bool:
        """Whether the schedule's slot has not been taken."""
        if self._left is None:
            self._left = set(self._ids[self._position :])
        return id_ in self._left

    def forget(self, id_: int) -> None:
        if self.has(id_):
            assert self._left is not None
            self._left.discard(id_)


class Portion(NamedTuple):
    """Schedules of one crowd whose turn has come."""

    crowd: Crowd
    ids: Sequence[int]


class Takings:
    """Crowds, and whose turn it is."""

    def __init__(self) -> None:
        self._to_come: dict[UtcMs, Turns[Crowd]] = {}
        self._instants: list[UtcMs] = []
        self._due: Turns[Crowd] = Turns()
        self._of_entry: dict[int, list[Crowd]] = {}
        self._by_due: list[tuple[UtcMs, int, Crowd]] = []
        self._numbers = count()

    def __bool__(self) -> bool:
        return bool(self._of_entry)

    def add(self, entry: TimetableEntry, slot: UtcMs, ids: array[int]) -> None:
        """Take in the slot that *ids* share. No two calls name the same entry and slot."""
        crowd = Crowd(entry.number, slot, UtcMs(slot + entry.offset_ms), ids)
        turns = self._to_come.get(crowd.due_time)
        if turns is None:
            turns = self._to_come[crowd.due_time] = Turns()
            heapq.heappush(self._instants, crowd.due_time)
        turns.add(entry.priority, entry.topic, crowd)
        self._of_entry.setdefault(entry.number, []).append(crowd)
        heapq.heappush(self._by_due, (crowd.due_time, next(self._numbers), crowd))

    def take(self, now: UtcMs, most: int) -> list[Portion]:
        """Return the next up to *most* slots; the order is that of rule 1 as of *now*."""
        while self._instants and self._instants[0] <= now:
            self._due.extend(self._to_come.pop(heapq.heappop(self._instants)))
        portions: list[Portion] = []
        while most > 0:
            turns = self._due or (self._to_come[self._instants[0]] if self._instants else None)
            if not turns:
                break
            left = turn = min(most, _TURN)
            queue = turns.queue()
            while left and queue:
                crowd = queue[0]
                ids = crowd.take(left)
                left -= len(ids)
                if ids:
                    portions.append(Portion(crowd, ids))
                if crowd.is_done:
                    queue.popleft()
                    self._end(crowd)
            most -= max(turn - left, 1)
            turns.end_turn()
            if turns is not self._due and not turns:
                del self._to_come[heapq.heappop(self._instants)]
        return portions

    def earliest_due(self) -> UtcMs | None:
        """Return the due time of the earliest slot here, or None."""
        while self._by_due and self._by_due[0][2].is_done:
            heapq.heappop(self._by_due)
        return self._by_due[0][0] if self._by_due else None

    def first_slot(self, entry: TimetableEntry, id_: int) -> UtcMs | None:
        """Return the first slot here of a schedule that shares *entry*, or None."""
        slots = (crowd.slot for crowd in self._of_entry.get(entry.number, ()) if crowd.has(id_))
        return min(slots, default=None)

    def forget(self, entry: TimetableEntry, id_: int) -> None:
        """A schedule leaves *entry*: its slots here are gone."""
        for crowd in self._of_entry.get(entry.number, ()):
            crowd.forget(id_)

    def clear(self) -> None:
        """Forget everything."""
        self._to_come.clear()
        self._instants.clear()
        self._due = Turns()
        self._of_entry.clear()
        self._by_due.clear()

    def _end(self, crowd: Crowd) -> None:
        crowds = self._of_entry[crowd.number]
        crowds.remove(crowd)
        if not crowds:
            del self._of_entry[crowd.number]
