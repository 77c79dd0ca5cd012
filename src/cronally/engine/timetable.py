"""Which recurrence is due next, and whose it is.

One heap entry per distinct (recurrence, spread offset, topic, priority); the ids of the schedules that share it lie beside
it in a typed array, so that a million schedules cost a few dozen bytes each and a tick costs what fires. Topic and priority
are part of it because they decide in which order a crowd is armed, before anything of it has been read from the store.

1. An entry's ``next_fire`` is the first slot that has not been taken. All slots before it have been.
2. Entries leave the heap only when they are popped; one that has no schedules left is dropped then.
"""

from __future__ import annotations

import heapq
from array import array
from typing import TYPE_CHECKING, NamedTuple

from cronally.instants import UtcMs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cronally.domain.recurrence import Recurrence

_ABSENT = -1
_Key = tuple[object, int, str, int]


class TimetableEntry:
    """A recurrence at one spread offset to one topic, and the ids that share it. Times are fire times; due = fire + offset."""

    __slots__ = ("ids", "is_queued", "next_fire", "number", "offset_ms", "priority", "recurrence", "topic")

    def __init__(
        self, number: int, recurrence: Recurrence, offset_ms: int, topic: str, priority: int
    ) -> None:
        self.number = number
        self.recurrence = recurrence
        self.offset_ms = offset_ms
        self.topic = topic
        self.priority = priority
        self.ids = array("q")
        self.next_fire: UtcMs | None = None
        self.is_queued = False

    @property
    def key(self) -> _Key:
        return (self.recurrence.key, self.offset_ms, self.topic, self.priority)

    @property
    def next_due(self) -> UtcMs | None:
        return None if self.next_fire is None else UtcMs(self.next_fire + self.offset_ms)


class Taken(NamedTuple):
    """Slots taken from an entry, in order, with the ids that shared it at that moment."""

    entry: TimetableEntry
    slots: list[UtcMs]
    ids: array[int]


class Timetable:
    """The heap of recurrences. Schedules are known by id; ids are small, ascending and never reused."""

    def __init__(self) -> None:
        self._heap: list[tuple[UtcMs, int]] = []
        self._entries: list[TimetableEntry] = []
        self._free_numbers: list[int] = []
        self._by_key: dict[_Key, TimetableEntry] = {}
        # Columns, indexed by schedule id.
        self._entry_of = array("i")
        self._place_in_entry = array("i")
        self._revision_id = array("q")
        self._effective_from = array("q")
        self._size = 0

    def __len__(self) -> int:
        """Return how many schedules are in the timetable."""
        return self._size

    def __contains__(self, schedule_id: int) -> bool:
        return schedule_id < len(self._entry_of) and self._entry_of[schedule_id] != _ABSENT

    def join(
        self,
        schedule_id: int,
        revision_id: int,
        effective_from: UtcMs,
        recurrence: Recurrence,
        offset_ms: int,
        *,
        topic: str,
        priority: int,
        taken_through: UtcMs,
    ) -> TimetableEntry:
        """Put a schedule beside those that share its rule and return their entry.

        taken_through: due time up to which all slots have been taken; a new entry begins after it. The slots of this
        schedule before the entry's ``next_fire`` are the caller's to plan.
        """
        entry = self._by_key.get((recurrence.key, offset_ms, topic, priority))
        if entry is None:
            entry = self._new_entry(recurrence, offset_ms, topic, priority)
            self._by_key[entry.key] = entry
            entry.next_fire = recurrence.next_ms(UtcMs(taken_through - offset_ms))
        self._queue(entry)
        self._grow(schedule_id)
        self._entry_of[schedule_id] = entry.number
        self._place_in_entry[schedule_id] = len(entry.ids)
        self._revision_id[schedule_id] = revision_id
        self._effective_from[schedule_id] = effective_from
        entry.ids.append(schedule_id)
        self._size += 1
        return entry

    def leave(self, schedule_id: int) -> None:
        """Take a schedule out. Unknown ids are ignored."""
        if schedule_id not in self:
            return
        entry = self.entry(schedule_id)
        place, last = self._place_in_entry[schedule_id], entry.ids[-1]
        entry.ids[place] = last
        self._place_in_entry[last] = place
        entry.ids.pop()
        self._entry_of[schedule_id] = _ABSENT
        self._size -= 1
        if not entry.ids:
            del self._by_key[entry.key]
            if not entry.is_queued:
                self._free_numbers.append(entry.number)

    def entry(self, schedule_id: int) -> TimetableEntry:
        """Return the entry of a schedule that is in the timetable."""
        return self._entries[self._entry_of[schedule_id]]

    def revision_id(self, schedule_id: int) -> int:
        return self._revision_id[schedule_id]

    def effective_from(self, schedule_id: int) -> UtcMs:
        return UtcMs(self._effective_from[schedule_id])

    def next_due(self) -> UtcMs | None:
        """Return the due time of the earliest slot not yet taken, or None."""
        while self._heap:
            due, number = self._heap[0]
            if self._entries[number].ids:
                return due
            heapq.heappop(self._heap)
            self._entries[number].is_queued = False
            self._free_numbers.append(number)
        return None

    def take(self, through: UtcMs) -> Iterator[Taken]:
        """Yield, by due time of the first, all slots due at or before *through*; afterwards they count as taken.

        One entry at a time: what is not yielded yet is not taken yet.
        """
        while (due := self.next_due()) is not None and due <= through:
            entry = self._entries[heapq.heappop(self._heap)[1]]
            entry.is_queued = False
            slots, slot = [], entry.next_fire
            while slot is not None and slot + entry.offset_ms <= through:
                slots.append(slot)
                slot = entry.recurrence.next_ms(slot)
            entry.next_fire = slot
            self._queue(entry)
            yield Taken(entry, slots, entry.ids[:])

    def restart(self, taken_through: UtcMs) -> None:
        """Count every slot due at or before *taken_through* as taken, and none after it."""
        stale = [entry for entry in self._entries if entry.is_queued]
        self._heap.clear()
        for entry in stale:
            entry.is_queued = False
            if not entry.ids:
                self._free_numbers.append(entry.number)
        for entry in self.entries():
            entry.next_fire = entry.recurrence.next_ms(UtcMs(taken_through - entry.offset_ms))
            self._queue(entry)

    def entries(self) -> Iterator[TimetableEntry]:
        """Yield the entries that have schedules."""
        return (entry for entry in self._entries if entry.ids)

    def _new_entry(self, recurrence: Recurrence, offset_ms: int, topic: str, priority: int) -> TimetableEntry:
        if not self._free_numbers:
            self._entries.append(TimetableEntry(len(self._entries), recurrence, offset_ms, topic, priority))
            return self._entries[-1]
        entry = TimetableEntry(self._free_numbers.pop(), recurrence, offset_ms, topic, priority)
        self._entries[entry.number] = entry
        return entry

    def _queue(self, entry: TimetableEntry) -> None:
        due = entry.next_due
        if due is not None and not entry.is_queued:
            heapq.heappush(self._heap, (due, entry.number))
            entry.is_queued = True

    def _grow(self, schedule_id: int) -> None:
        missing = schedule_id + 1 - len(self._entry_of)
        if missing > 0:
            missing = max(missing, len(self._entry_of) // 8)
            self._entry_of.extend([_ABSENT] * missing)
            for column in (self._place_in_entry, self._revision_id, self._effective_from):
                column.extend([0] * missing)
