"""A judge of what an engine did: every slot settled once, nothing early, no duplicate without a fault, order kept.

It is told what each schedule was and when (``Life``), computes the slots by itself, and shares nothing with the engine
but the words of the journal.
"""

from __future__ import annotations

import hashlib
import itertools
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.durations import parse_duration
from cronally.domain.model import Kind, SkipReason, State, fire_id
from cronally.instants import MAX_UTC_MS, UtcMs, format_utc, parse_rfc3339
from support.slots_oracle import NaiveCrontab, slots

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cronally.domain.model import JournalEntry
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
        """Return the slots due at or before *through*, and the revision each belongs to."""
        found = {}
        ends = [rule.after for rule in self.rules[1:]] + [self.removed_at]
        for rule, end in zip(self.rules, ends, strict=True):
            offset = spread_offset(self.name, rule.document)
            last = UtcMs(min(end, through - offset))
            for slot in slots_of(rule.document, rule.after, last):
                found[slot] = rule
        return found

    def is_paused(self, slot: UtcMs) -> bool:
        return any(rest.covers(slot) for rest in self.rests)


class Sent(NamedTuple):
    """An attempt. incarnation: of the daemon, from 0."""

    incarnation: int
    arrival: Arrival


@dataclass
class Stop:
    """How an incarnation of the daemon ended."""

    at: UtcMs
    was_crash: bool


def spread_offset(name: str, document: Mapping[str, object]) -> int:
    window_s = parse_duration(str(document.get("spread", "0"))) // 1000
    if window_s == 0:
        return 0
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % window_s * 1000


def slots_of(document: Mapping[str, object], after: UtcMs, through: UtcMs) -> list[UtcMs]:
    """Return the slots in after < slot <= through that the rule and the bounds of *document* name."""
    starts = parse_rfc3339(str(document["starts"])) if "starts" in document else None
    ends = parse_rfc3339(str(document["ends"])) if "ends" in document else None
    first = after + 1 if starts is None else max(after + 1, starts)
    last = through if ends is None else min(through, ends)
    if first > last:
        return []
    when, tz = str(document["when"]), str(document.get("tz", "UTC"))
    if when.startswith("@every "):
        period, anchor = parse_duration(when.removeprefix("@every ")), starts or 0
        return [UtcMs(slot) for slot in range(first + (anchor - first) % period, last + 1, period)]
    if when.startswith("@at "):
        instant = parse_rfc3339(when.removeprefix("@at "))
        return [instant] if first <= instant <= last else []
    day_ms = 86_400_000
    found: list[UtcMs] = []
    for day in range(first // day_ms, last // day_ms + 1):
        found += [slot for slot in _crontab_day(when, tz, day * day_ms // 1000) if first <= slot <= last]
    return found


@cache
def _crontab_day(when: str, tz: str, start_s: int) -> list[UtcMs]:
    return [UtcMs(second * 1000) for second in slots(NaiveCrontab(when), tz, start_s - 1, start_s + 86_399)]


def faults(
    lives: Mapping[int, Life],
    journal: Sequence[JournalEntry],
    sent: Sequence[Sent],
    stops: Sequence[Stop],
    through: UtcMs,
) -> list[str]:
    """Return what is wrong, a sentence each; nothing if all promises were kept.

    Args: lives: by schedule id. through: slots due by then must be settled. stops: of each incarnation, the last too.
    """
    rows: dict[int, list[JournalEntry]] = defaultdict(list)
    for entry in journal:
        rows[entry.schedule_id].append(entry)
    by_id: dict[str, list[Sent]] = defaultdict(list)
    for each in sent:
        by_id[each.arrival.entry.fire_id].append(each)
    wrong = [f"a row of an unknown schedule {id_}" for id_ in rows.keys() - lives.keys()]
    for id_, life in lives.items():
        wrong += _slot_faults(life, rows[id_], through)
        wrong += _row_faults(life, rows[id_], by_id)
    for id_text, attempts in by_id.items():
        wrong += _attempt_faults(id_text, attempts, stops)
    return wrong + _order_faults(sent)


def _slot_faults(life: Life, rows: Iterable[JournalEntry], through: UtcMs) -> list[str]:
    wrong = []
    expected = life.expected(through)
    later = life.expected(UtcMs(through + 3_600_000))
    ordered = sorted(later)
    covered: dict[UtcMs, JournalEntry] = {}
    for row in rows:
        if row.kind is not Kind.SCHEDULED:
            continue
        here = f"{fire_id(life.name, row.fire_time)} ({row.state}, {row.reason})"
        if row.is_open:
            last = max([slot for slot in ordered if slot <= through], default=row.fire_time)
        else:
            last = row.fire_time if row.last_fire_time is None else row.last_fire_time
        within = [slot for slot in ordered[: bisect_right(ordered, last)] if slot >= row.fire_time]
        if not row.is_open and (not within or (within[0], within[-1]) != (row.fire_time, last)):
            wrong.append(f"{here} is no slot, or ends at none")
        if not row.is_open and len(within) != row.count:
            wrong.append(f"{here} says {row.count} slots and there are {len(within)}")
        for slot in within:
            if slot in covered:
                wrong.append(f"{fire_id(life.name, slot)} has two entries")
            covered[slot] = row
            if later[slot].revision_id != row.revision_id:
                wrong.append(f"{here} is of revision {row.revision_id}, not {later[slot].revision_id}")
            if life.is_paused(slot) is not (row.reason is SkipReason.PAUSED):
                wrong.append(f"{here}: paused is {life.is_paused(slot)}")
    wrong += [f"{fire_id(life.name, slot)} was missed" for slot in expected if slot not in covered]
    return wrong


def _row_faults(life: Life, rows: Iterable[JournalEntry], by_id: Mapping[str, list[Sent]]) -> list[str]:
    wrong = []
    for row in rows:
        id_ = fire_id(life.name, row.fire_time, row.kind)
        accepted = [each for each in by_id.get(id_, ()) if each.arrival.is_accepted and row.count == 1]
        accepted = [each for each in accepted if each.arrival.entry.fire.schedule_id == row.schedule_id]
        if row.state is State.PENDING:
            wrong.append(f"{id_} is pending at the end")
        elif row.state is State.PUBLISHED and not accepted:
            wrong.append(f"{id_} is called published and nobody got it")
        elif row.state is not State.PUBLISHED and accepted and not row.maybe_published:
            wrong.append(f"{id_} is called {row.state} ({row.reason}) and somebody got it")
        if row.state is State.PUBLISHED and row.lateness_us is not None and row.lateness_us < 0:
            wrong.append(f"{id_} has a negative lateness")
    return wrong


def _attempt_faults(id_: str, attempts: Sequence[Sent], stops: Sequence[Stop]) -> list[str]:
    wrong = []
    for each in attempts:
        if each.arrival.released_us < each.arrival.entry.fire.due_time * 1000:
            due = format_utc(each.arrival.entry.fire.due_time)
            wrong.append(f"{id_} left at {each.arrival.released_us} us, before {due}")
    for earlier, later in itertools.pairwise(attempts):
        answered_us = earlier.arrival.released_us + round(earlier.arrival.answer.delay_s * 1e6)
        stop = stops[earlier.incarnation]
        is_same = earlier.incarnation == later.incarnation
        if is_same and later.arrival.released_us < answered_us:
            wrong.append(f"{id_} was sent again while its attempt was open")
        lost = not is_same and (stop.was_crash or answered_us >= stop.at * 1000)
        if earlier.arrival.is_accepted and not earlier.arrival.answer.is_unknown and not lost:
            wrong.append(f"{id_} was sent again although it had been published")
    return wrong


def _order_faults(sent: Iterable[Sent]) -> list[str]:
    """Within a group no fire is sent, nor sent again, once a later one has been; a new daemon may repeat what it knows not."""
    wrong = []
    newest: dict[tuple[object, ...], tuple[UtcMs, str]] = {}
    seen = set()
    for incarnation, arrival in sent:
        entry = arrival.entry
        if entry.deduplication is None:
            continue
        keys: list[tuple[object, ...]] = [(entry.topic, entry.group, incarnation)]
        if entry.fire_id not in seen:
            keys.append((entry.topic, entry.group))
        seen.add(entry.fire_id)
        for key in keys:
            before = newest.get(key, (0, ""))
            if entry.fire.due_time < before[0]:
                wrong.append(f"{entry.fire_id} was sent after {before[1]}")
            newest[key] = (entry.fire.due_time, entry.fire_id)
    return wrong
