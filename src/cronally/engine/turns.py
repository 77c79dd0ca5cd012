"""Who goes next: by priority, 9 first; topics of equal priority take turns; within a topic, first come, first served."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

_T = TypeVar("_T")


class Turns(Generic[_T]):
    """Items waiting. A topic that has nothing left loses its place; one that comes again stands at the end."""

    def __init__(self) -> None:
        self._topics: dict[int, OrderedDict[str, deque[_T]]] = {}
        self._priorities: list[int] = []  # those that have items, highest first

    def __bool__(self) -> bool:
        return bool(self._priorities)

    def __iter__(self) -> Iterator[_T]:
        for priority in self._priorities:
            for queue in self._topics[priority].values():
                yield from queue

    def add(self, priority: int, topic: str, item: _T) -> None:
        self._queue(priority, topic).append(item)

    def extend(self, other: Turns[_T]) -> None:
        """Take over all that *other* has, behind what is here; *other* is not to be used again."""
        if not self:
            self._topics, self._priorities = other._topics, other._priorities
            return
        for priority, topics in other._topics.items():
            for topic, queue in topics.items():
                self._queue(priority, topic).extend(queue)

    def queue(self) -> deque[_T] | None:
        """Return what the topic has whose turn it is, to look at; None if there is nothing at all."""
        if not self._priorities:
            return None
        topics = self._topics[self._priorities[0]]
        return topics[next(iter(topics))]

    def pop(self) -> _T:
        """Take the first item of the topic whose turn it is. Errors: IndexError if there is none."""
        queue = self.queue()
        if queue is None:
            raise IndexError("nobody is waiting")
        return queue.popleft()

    def end_turn(self) -> None:
        """The topic whose turn it is goes to the end, or away if it has nothing left. To be called after ``pop``."""
        priority = self._priorities[0]
        topics = self._topics[priority]
        topic = next(iter(topics))
        if topics[topic]:
            topics.move_to_end(topic)
            return
        del topics[topic]
        if not topics:
            del self._topics[priority]
            del self._priorities[0]

    def _queue(self, priority: int, topic: str) -> deque[_T]:
        topics = self._topics.get(priority)
        if topics is None:
            topics = self._topics[priority] = OrderedDict()
            self._priorities = sorted(self._topics, reverse=True)
        queue = topics.get(topic)
        if queue is None:
            queue = topics[topic] = deque()
        return queue
