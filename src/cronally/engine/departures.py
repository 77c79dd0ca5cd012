"""Armed batches on their way out: first by the instant they leave at, then by whose turn it is.

A *way* is what shares a quota and connections: a region, and whether its topics are FIFO. What holds one way up does not
hold up another.
"""

from __future__ import annotations

import heapq
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from cronally.engine.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cronally.engine.ports import Armed
    from cronally.instants import UtcMs


class Way(NamedTuple):
    """Batches of one way are sent in one order, those of two independently."""

    region: str
    is_fifo: bool


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
        self._loads: dict[Way, dict[int, Counter[str]]] = {}  # messages by priority and topic
        self._ways: dict[str, Way] = {}

    def add(self, armed: Armed, instant: UtcMs) -> None:
        """Take in a batch that may leave at *instant*."""
        ways = self._to_come.get(instant)
        if ways is None:
            ways = self._to_come[instant] = {}
            heapq.heappush(self._instants, instant)
        batch = armed.batch
        way, priority = self._way(batch.topic), batch.priority
        turns = ways.get(way)
        if turns is None:
            turns = ways[way] = Turns()
        turns.add(priority, batch.topic, Departure(armed, instant))
        self.size_bytes += armed.size_bytes
        self._note(way, batch.topic, priority, len(batch.entries))

    def next_instant(self) -> UtcMs | None:
        """Return the earliest instant to come, or None."""
        return self._instants[0] if self._instants else None

    def advance(self, now: UtcMs) -> list[Departure]:
        """What may leave at or before *now* takes its turn; but what goes to FIFO topics is returned.

        Its entries have to find out first whether it is their turn in their groups; then it is ``put`` back.
        """
        fifo: list[Departure] = []
        while self._instants and self._instants[0] <= now:
            for way, turns in self._to_come.pop(heapq.heappop(self._instants)).items():
                if way.is_fifo:
                    fifo += turns
                    for departure in turns:
                        self._leave(way, departure)
                elif way in self._due:
                    self._due[way].extend(turns)
                else:
                    self._due[way] = turns
        return fifo

    def put(self, departure: Departure) -> None:
        """Let a batch for a FIFO topic take its turn."""
        batch = departure.armed.batch
        way = self._way(batch.topic)
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
        way = self._way(batch.topic)
        if not turns:
            del self._due[way]
        self._leave(way, departure)
        return departure

    def overstayed(self, instant: UtcMs) -> list[Departure]:
        """Take out what might have left before *instant* and has not had its turn; not FIFO, where a group keeps its order."""
        out = []
        for way, turns in list(self._due.items()):
            if way.is_fifo or not any(departure.instant < instant for departure in turns):
                continue
            kept: Turns[Departure] = Turns()
            for departure in turns:
                if departure.instant < instant:
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
        load = self._loads.get(self._way(topic), {})
        ahead = sum(topics.total() for higher, topics in load.items() if higher > priority)
        topics = load.get(priority)
        if topics:
            turns_taken = (topics[topic] + 1) * len(topics)
            ahead += min(topics.total(), turns_taken)
        return ahead

    def clear(self) -> list[Departure]:
        """Take everything out."""
        out = list(self)
        self._to_come.clear()
        self._instants.clear()
        self._due.clear()
        self._loads.clear()
        self.size_bytes = 0
        return out

    def __iter__(self) -> Iterator[Departure]:
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

    def _way(self, topic: str) -> Way:
        way = self._ways.get(topic)
        if way is None:
            way = self._ways[topic] = Way(topic.split(":")[3], topic.endswith(".fifo"))
        return way
