"""Armed batches on their way out: first by the instant they leave at, then by whose turn it is.

A *way* is what shares a quota and connections: a region, and whether its topics are FIFO. What holds one way up does not
hold up another.
"""

from __future__ import annotations

import heapq
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.batching import MAX_BATCH_ENTRIES
from cronally.domain.topic import Way, way_of
from cronally.engine.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cronally.engine.ports import Armed
    from cronally.instants import UtcMs


class Departure(NamedTuple):
    """An armed batch. instant: when it may leave."""

    armed: Armed
    instant: UtcMs


class Departures:
    """What is armed and has not left. Attributes: size_bytes: memory it takes."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._to_come: dict[UtcMs, dict[Way, Turns[Departure]]] = {}
        self._instants: list[UtcMs] = []
        self._due: dict[Way, Turns[Departure]] = {}
        self._unadmitted: list[Departure] = []
        self._loads: dict[Way, dict[int, Counter[str]]] = {}  # messages by priority and topic

    def add(self, armed: Armed, instant: UtcMs) -> None:
        """Take in a batch that may leave at *instant*."""
        ways = self._to_come.get(instant)
        if ways is None:
            ways = self._to_come[instant] = {}
            heapq.heappush(self._instants, instant)
        batch = armed.batch
        way, priority = way_of(batch.topic), batch.priority
        turns = ways.get(way)
        if turns is None:
            turns = ways[way] = Turns()
        turns.add(priority, batch.topic, Departure(armed, instant))
        self.size_bytes += armed.size_bytes
        self._note(way, batch.topic, priority, len(batch.entries))

    def next_instant(self) -> UtcMs | None:
        """Return the earliest instant to come, or None."""
        return self._instants[0] if self._instants else None

    def advance(self, now: UtcMs) -> None:
        """What may leave at or before *now* takes its turn; but FIFO batches have to be admitted first."""
        while self._instants and self._instants[0] <= now:
            for way, turns in self._to_come.pop(heapq.heappop(self._instants)).items():
                if way.is_fifo:
                    self._unadmitted += turns
                elif way in self._due:
                    self._due[way].extend(turns)
                else:
                    self._due[way] = turns

    def take_unadmitted(self, before: UtcMs | None) -> list[Departure]:
        """Take out the FIFO batches that may leave, those whose fires are all due before *before* (None: all).

        Their entries have to find out whether it is their turn in their groups; then they are ``put`` back.
        """
        taken: list[Departure] = []
        kept: list[Departure] = []
        for departure in self._unadmitted:
            dues = (entry.fire.due_time for entry in departure.armed.batch.entries)
            (taken if before is None or max(dues) < before else kept).append(departure)
        self._unadmitted = kept
        for departure in taken:
            self._leave(way_of(departure.armed.batch.topic), departure)
        return taken

    def put(self, departure: Departure) -> None:
        """Let a FIFO batch that was admitted take its turn."""
        batch = departure.armed.batch
        way = way_of(batch.topic)
        self._due.setdefault(way, Turns()).add(batch.priority, batch.topic, departure)
        self.size_bytes += departure.armed.size_bytes
        self._note(way, batch.topic, batch.priority, len(batch.entries))

    def has_due(self) -> bool:
        """Whether anything waits that may leave now."""
        return bool(self._due)

    def due(self) -> list[Turns[Departure]]:
        """Return, for each way that has any, what may leave now, to be popped with ``pop``."""
        return list(self._due.values())

    def pop(self, turns: Turns[Departure]) -> Departure:
        """Take the batch whose turn it is."""
        departure = turns.pop()
        turns.end_turn()
        batch = departure.armed.batch
        way = way_of(batch.topic)
        if not turns:
            del self._due[way]
        self._leave(way, departure)
        return departure

    def overstayed(self, instant: UtcMs, most: int) -> list[Departure]:
        """Take out up to *most* batches that might have left before *instant* and have not had their turn.

        Not FIFO ones, where a group keeps its order.
        """
        out: list[Departure] = []
        for way, turns in list(self._due.items()):
            if way.is_fifo or not any(departure.instant < instant for departure in turns):
                continue
            kept: Turns[Departure] = Turns()
            for departure in turns:
                if departure.instant < instant and len(out) < most:
                    out.append(departure)
                    self._leave(way, departure)
                else:
                    batch = departure.armed.batch
                    kept.add(batch.priority, batch.topic, departure)
            if kept:
                self._due[way] = kept
            else:
                del self._due[way]
        return out

    def ahead(self, topic: str, priority: int) -> int:
        """Return how many messages leave before the next one to *topic* that comes now with *priority*."""
        load = self._loads.get(way_of(topic), {})
        ahead = sum(topics.total() for higher, topics in load.items() if higher > priority)
        topics = load.get(priority)
        if topics:
            own, others = topics[topic], len(topics) - (topic in topics)
            turns = own // MAX_BATCH_ENTRIES + 1
            ahead += min(topics.total(), own + turns * others * MAX_BATCH_ENTRIES)
        return ahead

    def is_waiting(self, topic: str, most: int) -> bool:
        """Whether more than *most* batches that might have left wait on the way of *topic*."""
        turns = self._due.get(way_of(topic))
        return turns is not None and sum(1 for _ in islice(turns, most + 1)) > most

    def before(self, topic: str, priority: int) -> int:
        """Return how many messages there are on the way of *topic* that are at least as urgent as *priority*."""
        load = self._loads.get(way_of(topic), {})
        return sum(topics.total() for higher, topics in load.items() if higher >= priority)

    def clear(self) -> list[Departure]:
        """Take everything out."""
        out = list(self)
        self._to_come.clear()
        self._instants.clear()
        self._due.clear()
        self._unadmitted.clear()
        self._loads.clear()
        self.size_bytes = 0
        return out

    def __iter__(self) -> Iterator[Departure]:
        yield from self._unadmitted
        for turns in self._due.values():
            yield from turns
        for instant in sorted(self._to_come):
            for turns in self._to_come[instant].values():
                yield from turns

    def _leave(self, way: Way, departure: Departure) -> None:
        batch = departure.armed.batch
        self.size_bytes -= departure.armed.size_bytes
        self._note(way, batch.topic, batch.priority, -len(batch.entries))

    def _note(self, way: Way, topic: str, priority: int, messages: int) -> None:
        topics = self._loads.setdefault(way, {}).setdefault(priority, Counter())
        left = topics[topic] + messages
        if left:
            topics[topic] = left
        else:
            del topics[topic]
