"""Slots that have been taken from the timetable and are not held yet.

A crowd is due at one instant: its ids are taken in one step, and become fires some hundreds at a time, as far as memory for
armed requests goes. What has not become a fire yet costs nothing.

1. Slots leave in the order in which they are to be armed: what is due already by priority, what is to come by due time and
   then by priority; topics of equal priority take turns. FIFO topics are all of one priority.
2. The slots of one schedule leave in their order.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.topic import is_fifo_topic
from cronally.engine.turns import Turns
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.engine.timetable import Span, Timetable, TimetableEntry

_FIFO_PRIORITY = 5  # of all crowds of FIFO topics: the default
_TURN = 50  # slots of a topic in a row: five full batches


class Crowd:
    """The schedules that share one slot, those whose turn has come left out.

    number: of their entry in the timetable, which others may have afterwards. left: None when there are no more.
    """

    __slots__ = ("due_time", "left", "number", "slot")

    def __init__(self, number: int, slot: UtcMs, due_time: UtcMs, left: Span) -> None:
        self.number = number
        self.slot = slot
        self.due_time = due_time
        self.left: Span | None = left


class Portion(NamedTuple):
    """Schedules of one crowd whose turn has come."""

    crowd: Crowd
    ids: Sequence[int]


class Takings:
    """Crowds, and whose turn it is. Who belongs to them is read from the *timetable* as their turn comes."""

    def __init__(self, timetable: Timetable) -> None:
        self._timetable = timetable
        self._to_come: dict[UtcMs, Turns[Crowd]] = {}
        self._instants: list[UtcMs] = []
        self._due: Turns[Crowd] = Turns()
        self._of_entry: dict[int, list[Crowd]] = {}
        self._by_due: list[tuple[UtcMs, int, Crowd]] = []
        self._fifo_by_due: list[tuple[UtcMs, int, Crowd]] = []
        self._numbers = count()

    def __bool__(self) -> bool:
        return bool(self._of_entry)

    def add(self, entry: TimetableEntry, slot: UtcMs, span: Span) -> None:
        """Take in the slot that the schedules of *span* share. No two calls name the same entry and slot."""
        crowd = Crowd(entry.number, slot, UtcMs(slot + entry.offset_ms), span)
        turns = self._to_come.get(crowd.due_time)
        if turns is None:
            turns = self._to_come[crowd.due_time] = Turns()
            heapq.heappush(self._instants, crowd.due_time)
        is_fifo = is_fifo_topic(entry.topic)
        # Priority orders groups, never the fires within one: whose group is free is not known here.
        turns.add(_FIFO_PRIORITY if is_fifo else entry.priority, entry.topic, crowd)
        if is_fifo:
            heapq.heappush(self._fifo_by_due, (crowd.due_time, next(self._numbers), crowd))
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
                if crowd.left is not None:
                    ids, crowd.left = self._timetable.walk(crowd.left, left)
                    left -= len(ids)
                    portions.append(Portion(crowd, ids))
                if crowd.left is None:
                    queue.popleft()
                    self._end(crowd)
            most -= max(turn - left, 1)
            turns.end_turn()
            if turns is not self._due and not turns:
                del self._to_come[heapq.heappop(self._instants)]
        return portions

    def earliest_due(self, *, is_fifo: bool = False) -> UtcMs | None:
        """Return the due time of the earliest slot here, or of those of FIFO topics; None if there is none."""
        by_due = self._fifo_by_due if is_fifo else self._by_due
        while by_due and by_due[0][2].left is None:
            heapq.heappop(by_due)
        return by_due[0][0] if by_due else None

    def first_slot(self, entry: TimetableEntry, id_: int) -> UtcMs | None:
        """Return the first slot here of a schedule that shares *entry*, or None."""
        slots = (
            crowd.slot
            for crowd in self._of_entry.get(entry.number, ())
            if crowd.left is not None and self._timetable.is_within(crowd.left, id_)
        )
        return min(slots, default=None)

    def forget(self, entry: TimetableEntry, id_: int) -> None:
        """A schedule is about to leave *entry*: its slots here are gone."""
        for crowd in self._of_entry.get(entry.number, ()):
            if crowd.left is not None:
                crowd.left = self._timetable.without(crowd.left, id_)

    def clear(self) -> None:
        """Forget everything."""
        self._to_come.clear()
        self._instants.clear()
        self._due = Turns()
        self._of_entry.clear()
        self._by_due.clear()
        self._fifo_by_due.clear()

    def _end(self, crowd: Crowd) -> None:
        crowds = self._of_entry[crowd.number]
        crowds.remove(crowd)
        if not crowds:
            del self._of_entry[crowd.number]
