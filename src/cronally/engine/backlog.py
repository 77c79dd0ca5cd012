"""Lines of pending fires in the store: which of them are read next, and from where.

A line is what waits of one topic and one priority, in the order of due times. Its fires cost nothing here: a line is read a
page at a time, as far as there is room. Within a region (and apart for its FIFO topics) the highest priority goes first;
topics of equal priority take turns, a page each.

1. A line knows the place up to which it was read. Whatever takes its place before that has it read from its beginning again:
   what is on its way is skipped then, because it is held.
2. A line in which something has been put since it was last read is *fresh*: the rows may not be durable yet.
3. The lines of a topic that refuses everything are *shut*: they are kept, and not read.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from cronally.domain.topic import way_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cronally.domain.model import Fire
    from cronally.domain.topic import Way
    from cronally.engine.records import LinePlace, PendingFire

_PRIORITIES = range(9, -1, -1)


def line_place(fire: Fire) -> LinePlace:
    return (fire.due_time, fire.schedule_id, fire.fire_time, str(fire.kind))


class Line:
    """What waits of one topic and priority. after: the last place that was read. is_fresh: rule 2."""

    __slots__ = ("after", "is_fresh", "priority", "topic")

    def __init__(self, topic: str, priority: int) -> None:
        self.topic = topic
        self.priority = priority
        self.after: LinePlace | None = None
        self.is_fresh = True


class Backlog:
    """The lines that may have fires."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, int], Line] = {}
        self._ways: dict[Way, dict[int, OrderedDict[str, Line]]] = {}
        self._shut: set[str] = set()

    def __bool__(self) -> bool:
        """Whether any line is to be read."""
        return bool(self._ways)

    def note(self, topic: str, priority: int, fire: Fire) -> None:
        """A fire takes its place in a line; its row is on the way to the store."""
        line = self._line(topic, priority)
        line.is_fresh = True
        if line.after is not None and line_place(fire) <= line.after:
            line.after = None

    def restart(self, lines: Iterable[tuple[str, int]]) -> None:
        """Read *lines*, (topic, priority), from their beginning: nobody may hold what is in them."""
        for topic, priority in lines:
            self._line(topic, priority).after = None

    def shut(self, topic: str) -> None:
        """Read no line of *topic*."""
        self._shut.add(topic)
        for priority in _PRIORITIES:
            line = self._lines.get((topic, priority))
            if line is not None:
                self._rest(line)

    def reopen(self, topic: str) -> None:
        """Read the lines of *topic* again, from their beginning."""
        self._shut.discard(topic)
        self.restart(self.lines_of(topic))

    def lines_of(self, topic: str) -> list[tuple[str, int]]:
        """Return the lines of a topic that may have fires, the most urgent first."""
        return [(topic, priority) for priority in _PRIORITIES if (topic, priority) in self._lines]

    def next_line(self, room: Callable[[Line], int]) -> tuple[Line, int] | None:
        """Return the line whose turn it is, and how many of its fires there is room for; None if there is none or no room.

        room: how many fires of a line may go; asked once for each region.
        """
        for priorities in self._ways.values():
            topics = priorities[max(priorities)]
            line = next(iter(topics.values()))
            most = room(line)
            if most:
                topics.move_to_end(line.topic)
                return line, most
        return None

    def note_read(self, line: Line, page: Sequence[PendingFire], *, is_last: bool) -> None:
        """A page of *line* was read, and what nobody held is held now. is_last: there is no more, for now."""
        if page:
            line.after = line_place(page[-1].fire)
        if is_last and not line.is_fresh:
            self._rest(line)
            del self._lines[line.topic, line.priority]

    def _line(self, topic: str, priority: int) -> Line:
        line = self._lines.get((topic, priority))
        if line is None:
            line = self._lines[topic, priority] = Line(topic, priority)
        if topic not in self._shut:
            priorities = self._ways.setdefault(way_of(topic), {})
            priorities.setdefault(priority, OrderedDict()).setdefault(topic, line)
        return line

    def _rest(self, line: Line) -> None:
        way = way_of(line.topic)
        priorities = self._ways.get(way, {})
        topics = priorities.get(line.priority)
        if topics is None or topics.pop(line.topic, None) is None or topics:
            return
        del priorities[line.priority]
        if not priorities:
            del self._ways[way]
