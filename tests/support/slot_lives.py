"""What schedules were, and when: the ground on which the slot checker stands."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.durations import parse_duration
from cronally.instants import MAX_UTC_MS, UtcMs
from support.slot_days import name_number, slots_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cronally.domain.model import FireKey, JournalEntry
    from support.recording_publisher import Arrival


class Rule(NamedTuple):
    """A revision: in force for the slots later than *after* (and up to the next one's). document: as in a file."""

    after: UtcMs
    revision_id: int
    document: Mapping[str, object]


@dataclass
class Rest:
    """A pause: the slots with *since* < slot < *until* and slot <= *resumed_at* do not fire."""

    since: UtcMs
    until: UtcMs | None = None
    resumed_at: UtcMs = MAX_UTC_MS

    def covers(self, slot: UtcMs) -> bool:
        return self.since < slot <= self.resumed_at and (self.until is None or slot < self.until)


@dataclass
class Life:
    """A schedule from its creation to its removal: it has no slots later than *removed_at*."""

    name: str
    rules: list[Rule] = field(default_factory=list)
    rests: list[Rest] = field(default_factory=list)
    removed_at: UtcMs = MAX_UTC_MS

    def expected(self, through: UtcMs) -> dict[UtcMs, Rule]:
        """Return the slots due at or before *through*, in order, and the revision each belongs to."""
        found = {}
        for rule, end in zip(self.rules, self._ends(), strict=True):
            offset = self.offset(rule)
            last = UtcMs(min(end, through - offset))
            for slot in slots_of(rule.document, rule.after, last, name=self.name):
                found[slot] = rule
        return found

    def _ends(self) -> list[UtcMs]:
        """Return until when each rule is in force; one made in a false future ends where a later one begins before it."""
        ends = [self.removed_at]
        for rule in self.rules[:0:-1]:
            ends.append(min(rule.after, ends[-1]))
        return ends[::-1]

    def offset(self, rule: Rule) -> int:
        return spread_offset(self.name, rule.document)

    def rule(self, revision_id: int) -> Rule | None:
        return next((rule for rule in self.rules if rule.revision_id == revision_id), None)

    def is_paused(self, slot: UtcMs) -> bool:
        return any(rest.covers(slot) for rest in self.rests)


class Sent(NamedTuple):
    """An attempt. incarnation: of the daemon, from 0."""

    incarnation: int
    arrival: Arrival


@dataclass
class Stop:
    """How an incarnation of the daemon ended.

    Fields: leaves_doubt: what has no entry may have been sent. recovered_at: when the next one had decided what was due
        meanwhile.
    """

    at: UtcMs
    was_crash: bool
    leaves_doubt: bool
    recovered_at: UtcMs = MAX_UTC_MS


class Trouble(NamedTuple):
    """Something that may keep fires from leaving on time, by the wall clock. kind: ``down``, ``step``, ``store``…"""

    kind: str
    since: UtcMs
    until: UtcMs


class BackStep(NamedTuple):
    """The wall clock was set from *before* back to *after*: what lies between came to pass twice."""

    before: UtcMs
    after: UtcMs

    def covers(self, instant: int) -> bool:
        return self.after < instant <= self.before


class Troubles:
    """All of them. Attributes: spans, sorted."""

    def __init__(self, spans: Iterable[Trouble] = ()) -> None:
        self.spans = sorted(spans, key=lambda span: span.since)
        self._starts = [span.since for span in self.spans]
        self._ends: list[UtcMs] = []
        last = UtcMs(0)
        for span in self.spans:
            last = max(last, span.until)
            self._ends.append(last)

    def overlap(self, since: UtcMs, until: UtcMs) -> bool:
        """Whether anything was wrong in [since, until]."""
        number = bisect_left(self._starts, until + 1) - 1  # the last one that began by then
        return number >= 0 and self._ends[number] >= since


@dataclass
class Notes:
    """What else a test has seen.

    Fields: written: when the final row of a fire was written. drops: when commands to drop the pending fires of a schedule,
        by its id, began. runs: ids of manual fires that a command has confirmed. missing: what keeps a slot from firing at
        all: a daemon that is down, a clock that jumps, a store that refuses. slowing: that, and what makes fires late.
        back_steps: of the wall clock.
    """

    written: dict[FireKey, UtcMs] = field(default_factory=dict)
    drops: dict[int, list[UtcMs]] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)
    missing: Troubles = field(default_factory=Troubles)
    slowing: Troubles = field(default_factory=Troubles)
    back_steps: list[BackStep] = field(default_factory=list)

    def came_twice(self, instant: int) -> bool:
        """Whether the wall clock showed *instant* more than once."""
        return any(step.covers(instant) for step in self.back_steps)

    def is_of_two_times(self, row: JournalEntry, written: UtcMs | None) -> bool:
        """Whether the clock was set back to before *row* was written, from after its slot was due: who knows what it went by."""
        last = row.due_time if written is None else max(row.due_time, written)
        return any(
            step.after <= last and max(row.fire_time, row.due_time) <= step.before for step in self.back_steps
        )

    def is_set_back(self, since: int, until: int) -> bool:
        """Whether the clock was set back between two instants that it showed."""
        return any(since <= step.before and step.after <= until for step in self.back_steps)


def deadline_ms(document: Mapping[str, object]) -> int:
    return parse_duration(str(document.get("deadline", "24h")))


def spread_offset(name: str, document: Mapping[str, object]) -> int:
    window_s = parse_duration(str(document.get("spread", "0"))) // 1000
    return 0 if window_s == 0 else name_number(name) % window_s * 1000
