"""Which recurrence is due next, and whose it is.

One heap entry per distinct (recurrence, spread offset, topic, priority); the ids of the schedules that share it are chained
in typed arrays, so that a million schedules cost a few dozen bytes each and a tick costs what fires. Topic and priority
are part of it because they decide in which order a crowd is armed, before anything of it has been read from the store.

1. An entry's ``next_fire`` is the first slot that has not been taken. All slots before it have been.
2. Entries leave the heap only when they are popped; one that has no schedules left is dropped then.
3. There may be as many entries as schedules. So an entry is a number, and what is known of it stands in columns.
"""

from __future__ import annotations

import heapq
from array import array
from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.instants import UtcMs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cronally.domain.slots import Slots

_NONE: Final = -1  # no entry, no schedule
_NEVER: Final = -(1 << 63)  # in the column of next fires: there is none
_NUMBER_BITS: Final = 32  # of a heap item; the due time stands above them
_NUMBER_MASK: Final = (1 << _NUMBER_BITS) - 1
_GONE: Final = -2  # the number that stood here has been taken out
_PARTS: Final = 256  # of the numbers by hash: with a million of them one takes 3 ms to grow
_HASH_MASK: Final = 0xFFFF_FFFF
_RESTARTED_AT_ONCE: Final = 300  # entries; 1 to 3 ms


class TimetableEntry:
    """A recurrence at one spread offset to one topic, and the ids that share it. Times are fire times; due = fire + offset."""

    __slots__ = ("_table", "number")

    def __init__(self, table: Timetable, number: int) -> None:
        self._table = table
        self.number = number

    @property
    def recurrence(self) -> Slots:
        return self._table._rules[self.number]  # noqa: SLF001 - a view of the table's columns

    @property
    def offset_ms(self) -> int:
        return self._table._offset_s[self.number] * 1000  # noqa: SLF001

    @property
    def topic(self) -> str:
        return self._table._topics[self._table._topic_of[self.number]]  # noqa: SLF001

    @property
    def priority(self) -> int:
        return self._table._priority[self.number]  # noqa: SLF001

    @property
    def next_fire(self) -> UtcMs | None:
        slot = self._table._next_fire[self.number]  # noqa: SLF001
        return None if slot == _NEVER else UtcMs(slot)

    @property
    def ids(self) -> array[int]:
        """The ids that share the entry now, in the order in which they joined."""
        return self._table._ids(self.number)  # noqa: SLF001


class Span(NamedTuple):
    """Schedules of an entry that joined one after the other, from the first to the last."""

    first: int
    last: int


class Taken(NamedTuple):
    """Slots taken from an entry, in order, with the schedules that shared it at that moment."""

    entry: TimetableEntry
    slots: list[UtcMs]
    span: Span


class Timetable:
    """The heap of recurrences. Schedules are known by id; ids are small, ascending and never reused."""

    def __init__(self) -> None:
        self._heap: list[int] = []  # due time << _NUMBER_BITS | number of the entry
        self._numbers = _Numbers()
        self._free_numbers: list[int] = []
        self._topics: list[str] = []
        self._number_of_topic: dict[str, int] = {}
        # Columns, indexed by the number of an entry. The schedules of an entry are a chain from its first to its last.
        self._rules: list[Slots] = []
        self._next_fire = array("q")
        self._offset_s = array("i")
        self._topic_of = array("i")
        self._priority = array("b")
        self._is_queued = array("b")
        self._first = array("i")
        self._last = array("i")
        # Columns, indexed by schedule id.
        self._entry_of = array("i")
        self._joined = array(
            "I"
        )  # the order in which schedules joined, and in which they stand in their chains
        self._joins = 0
        self._before = array("i")
        self._after = array("i")
        self._revision_id = array("q")
        self._effective_from = array("q")
        self._size = 0

    def __len__(self) -> int:
        """Return how many schedules are in the timetable."""
        return self._size

    @property
    def end(self) -> int:
        """All ids are smaller."""
        return len(self._entry_of)

    def __contains__(self, schedule_id: int) -> bool:
        return schedule_id < len(self._entry_of) and self._entry_of[schedule_id] != _NONE

    def join(
        self,
        schedule_id: int,
        revision_id: int,
        effective_from: UtcMs,
        recurrence: Slots,
        offset_ms: int,
        *,
        topic: str,
        priority: int,
        taken_through: UtcMs | None,
    ) -> TimetableEntry:
        """Put a schedule beside those that share its rule and return their entry.

        offset_ms: whole seconds, up to a day. taken_through: due time up to which all slots have been taken; a new entry
        begins after it (None: a ``restart`` follows, and will say). The slots of this schedule before the entry's
        ``next_fire`` are the caller's to plan.
        """
        topic_number = self._number_of_topic.get(topic)
        if topic_number is None:
            topic_number = self._number_of_topic[topic] = len(self._topics)
            self._topics.append(topic)
        hash_ = hash((recurrence, offset_ms, topic_number, priority))
        for number in self._numbers.alike(hash_):
            if (
                self._offset_s[number] * 1000 == offset_ms
                and self._topic_of[number] == topic_number
                and self._priority[number] == priority
                and self._rules[number] == recurrence
            ):
                break
        else:
            number = self._new_number(recurrence, offset_ms // 1000, topic_number, priority)
            self._numbers.add(hash_, number)
            if taken_through is not None:
                slot = recurrence.next_ms(UtcMs(taken_through - offset_ms))
                self._next_fire[number] = _NEVER if slot is None else slot
        if taken_through is not None:
            self._queue(number)
        entry = TimetableEntry(self, number)
        self.join_entry(entry, schedule_id, revision_id, effective_from)
        return entry

    def join_entry(
        self, entry: TimetableEntry, schedule_id: int, revision_id: int, effective_from: UtcMs
    ) -> None:
        """Put a schedule into an entry that has others: what ``join`` does with one of the same rule, but cheaper."""
        number = entry.number
        if schedule_id >= len(self._entry_of):
            self._grow(schedule_id)
        last = self._last[number]
        self._joins += 1
        self._joined[schedule_id] = self._joins
        self._entry_of[schedule_id] = number
        self._before[schedule_id] = last
        self._after[schedule_id] = _NONE
        self._revision_id[schedule_id] = revision_id
        self._effective_from[schedule_id] = effective_from
        if last == _NONE:
            self._first[number] = schedule_id
        else:
            self._after[last] = schedule_id
        self._last[number] = schedule_id
        self._size += 1

    def leave(self, schedule_id: int) -> None:
        """Take a schedule out. Unknown ids are ignored."""
        if schedule_id not in self:
            return
        number = self._entry_of[schedule_id]
        before, after = self._before[schedule_id], self._after[schedule_id]
        if before == _NONE:
            self._first[number] = after
        else:
            self._after[before] = after
        if after == _NONE:
            self._last[number] = before
        else:
            self._before[after] = before
        self._entry_of[schedule_id] = _NONE
        self._size -= 1
        if self._first[number] == _NONE:
            key = (
                self._rules[number],
                self._offset_s[number] * 1000,
                self._topic_of[number],
                self._priority[number],
            )
            self._numbers.discard(hash(key), number)
            if not self._is_queued[number]:
                self._free_numbers.append(number)

    def entry(self, schedule_id: int) -> TimetableEntry:
        """Return the entry of a schedule that is in the timetable."""
        return TimetableEntry(self, self._entry_of[schedule_id])

    def revision_id(self, schedule_id: int) -> int:
        return self._revision_id[schedule_id]

    def effective_from(self, schedule_id: int) -> UtcMs:
        return UtcMs(self._effective_from[schedule_id])

    def longest_offset_ms(self) -> int:
        """Return the longest time from a slot to when it is due."""
        return max(self._offset_s, default=0) * 1000

    def next_due(self) -> UtcMs | None:
        """Return the due time of the earliest slot not yet taken, or None."""
        while self._heap:
            number = self._heap[0] & _NUMBER_MASK
            if self._first[number] != _NONE:
                return UtcMs(self._heap[0] >> _NUMBER_BITS)
            heapq.heappop(self._heap)
            self._is_queued[number] = False
            self._free_numbers.append(number)
        return None

    def by_due(self) -> Iterator[TimetableEntry]:
        """Yield the entries by the due time of their first slot that is not taken, and take none. Until the last nothing may change."""
        heap = self._heap
        reached = [(heap[0], 0)] if heap else []  # each item of a heap comes before its two children
        while reached:
            item, place = heapq.heappop(reached)
            number = item & _NUMBER_MASK
            if self._first[number] != _NONE:
                yield TimetableEntry(self, number)
            for child in range(2 * place + 1, min(2 * place + 3, len(heap))):
                heapq.heappush(reached, (heap[child], child))

    def first_ids(self, entry: TimetableEntry, most: int) -> list[int]:
        """Return the first up to *most* ids that share an entry, in the order in which they joined."""
        number = entry.number
        return self.walk(Span(self._first[number], self._last[number]), most)[0]

    def take(self, through: UtcMs) -> Iterator[Taken]:
        """Yield, by due time of the first, all slots due at or before *through*; afterwards they count as taken.

        One entry at a time: what is not yielded yet is not taken yet.
        """
        while (due := self.next_due()) is not None and due <= through:
            number = heapq.heappop(self._heap) & _NUMBER_MASK
            self._is_queued[number] = False
            entry, rule = TimetableEntry(self, number), self._rules[number]
            slots: list[UtcMs] = []
            slot, last = entry.next_fire, through - entry.offset_ms
            while slot is not None and slot <= last:
                slots.append(slot)
                slot = rule.next_ms(slot)
            self._next_fire[number] = _NEVER if slot is None else slot
            self._queue(number)
            yield Taken(entry, slots, Span(self._first[number], self._last[number]))

    def walk(self, span: Span, most: int) -> tuple[list[int], Span | None]:
        """Return the first up to *most* ids of a span of which no id has left, and what remains of it."""
        after, (id_, last) = self._after, span
        ids = []
        for _ in range(most):
            ids.append(id_)
            if id_ == last:
                return ids, None
            id_ = after[id_]
        return ids, Span(id_, last)

    def without(self, span: Span, schedule_id: int) -> Span | None:
        """Return what remains of a span when a schedule that is still in the timetable leaves."""
        if span.first == span.last == schedule_id:
            return None
        if span.first == schedule_id:
            return Span(self._after[schedule_id], span.last)
        if span.last == schedule_id:
            return Span(span.first, self._before[schedule_id])
        return span

    def is_within(self, span: Span, schedule_id: int) -> bool:
        """Whether a schedule of the same entry is one of the span."""
        joined = self._joined
        return joined[span.first] <= joined[schedule_id] <= joined[span.last]

    def restart(self, taken_through: UtcMs) -> None:
        """Count every slot due at or before *taken_through* as taken, and none after it."""
        for _ in self.restart_in_slices(taken_through, taken_through):
            pass

    def restart_in_slices(self, taken_through: UtcMs, since: UtcMs) -> Iterator[list[TimetableEntry]]:
        """Do what ``restart`` does, a slice of some milliseconds at a time.

        Yields, per slice, the entries that have slots with *since* < due <= *taken_through*. Until the last slice no one
        may join, leave or take; an iterator that is dropped halfway leaves a table that has to be restarted.
        """
        stale, self._heap = self._heap, []
        return self._restart(taken_through, min(since, taken_through), stale)

    def _restart(
        self, taken_through: UtcMs, since: UtcMs, stale: list[int]
    ) -> Iterator[list[TimetableEntry]]:
        for start in range(0, len(self._rules), _RESTARTED_AT_ONCE):
            found: list[TimetableEntry] = []
            for number in range(start, min(start + _RESTARTED_AT_ONCE, len(self._rules))):
                was_queued, self._is_queued[number] = self._is_queued[number], False
                if self._first[number] == _NONE:
                    if was_queued:
                        self._free_numbers.append(number)
                    continue
                next_ms, offset_ms = self._rules[number].next_ms, self._offset_s[number] * 1000
                slot = next_ms(UtcMs(since - offset_ms))
                if slot is not None and slot <= taken_through - offset_ms:
                    found.append(TimetableEntry(self, number))
                    slot = next_ms(UtcMs(taken_through - offset_ms))
                self._next_fire[number] = _NEVER if slot is None else slot
                self._queue(number)
            del stale[-_RESTARTED_AT_ONCE:]  # to let go of a million numbers takes a while, too
            yield found

    def ids(self) -> Iterator[int]:
        """Yield the ids of all schedules, ascending; those that come or go meanwhile may be among them or not."""
        return (id_ for id_ in range(len(self._entry_of)) if self._entry_of[id_] != _NONE)

    def entries(self) -> Iterator[TimetableEntry]:
        """Yield the entries that have schedules; those that come or go meanwhile may be among them or not."""
        return (
            TimetableEntry(self, number) for number in range(len(self._rules)) if self._first[number] != _NONE
        )

    def _ids(self, number: int) -> array[int]:
        ids, after, id_ = array("q"), self._after, self._first[number]
        while id_ != _NONE:
            ids.append(id_)
            id_ = after[id_]
        return ids

    def _new_number(self, rule: Slots, offset_s: int, topic_number: int, priority: int) -> int:
        if self._free_numbers:
            number = self._free_numbers.pop()
        else:
            number = len(self._rules)
            self._rules.append(rule)
            for column in (
                self._next_fire,
                self._offset_s,
                self._topic_of,
                self._priority,
                self._is_queued,
                self._first,
                self._last,
            ):
                column.append(0)
        self._rules[number] = rule
        self._next_fire[number] = _NEVER
        self._offset_s[number] = offset_s
        self._topic_of[number] = topic_number
        self._priority[number] = priority
        self._first[number] = self._last[number] = _NONE
        return number

    def _queue(self, number: int) -> None:
        slot = self._next_fire[number]
        if slot != _NEVER and not self._is_queued[number]:
            due = slot + self._offset_s[number] * 1000
            heapq.heappush(self._heap, due << _NUMBER_BITS | number)
            self._is_queued[number] = True

    def _grow(self, schedule_id: int) -> None:
        missing = max(schedule_id + 1 - len(self._entry_of), len(self._entry_of) // 8)
        self._entry_of.extend(array("i", [_NONE]) * missing)
        for links in (self._before, self._after):
            links.extend(array("i", [_NONE]) * missing)
        for column in (self._revision_id, self._effective_from):
            column.extend(array("q", [0]) * missing)
        self._joined.extend(array("I", [0]) * missing)


class _Numbers:
    """Entry numbers by hash, in parts so that none takes long to grow."""

    def __init__(self) -> None:
        self._parts = [_Part() for _ in range(_PARTS)]

    def alike(self, hash_: int) -> Iterator[int]:
        """Yield the numbers whose hash is that of *hash_* as far as it is kept."""
        return self._parts[hash_ >> 32 & _PARTS - 1].alike(hash_ & _HASH_MASK)

    def add(self, hash_: int, number: int) -> None:
        """Add a number that is not there."""
        self._parts[hash_ >> 32 & _PARTS - 1].add(hash_ & _HASH_MASK, number)

    def discard(self, hash_: int, number: int) -> None:
        """Take out a number that was added with *hash_*."""
        self._parts[hash_ >> 32 & _PARTS - 1].discard(hash_ & _HASH_MASK, number)


class _Part:
    """Open addressing in two arrays: 12 to 24 bytes a number, where a dict with its keys takes 150."""

    __slots__ = ("_hashes", "_kept", "_places", "_used")

    def __init__(self) -> None:
        self._empty(8)

    def alike(self, hash_: int) -> Iterator[int]:
        mask = len(self._places) - 1
        place = hash_ & mask
        while (number := self._places[place]) != _NONE:
            if number != _GONE and self._hashes[place] == hash_:
                yield number
            place = place + 1 & mask

    def add(self, hash_: int, number: int) -> None:
        if (self._used + 1) * 3 > len(self._places) * 2:
            self._rebuild()
        mask = len(self._places) - 1
        place = hash_ & mask
        while self._places[place] != _NONE:
            place = place + 1 & mask
        self._places[place] = number
        self._hashes[place] = hash_
        self._used += 1
        self._kept += 1

    def discard(self, hash_: int, number: int) -> None:
        mask = len(self._places) - 1
        place = hash_ & mask
        while self._places[place] != number:
            place = place + 1 & mask
        self._places[place] = _GONE
        self._kept -= 1

    def _rebuild(self) -> None:
        hashes, places = self._hashes, self._places
        self._empty(len(places) * 2 if self._kept * 2 >= len(places) else len(places))
        for hash_, number in zip(hashes, places, strict=True):
            if number >= 0:
                self.add(hash_, number)

    def _empty(self, size: int) -> None:
        self._used = 0  # places that are not _NONE
        self._kept = 0  # numbers
        self._hashes = array("I", [0]) * size
        self._places = array("i", [_NONE]) * size
