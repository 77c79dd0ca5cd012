"""A judge of what an engine did: every slot settled once, nothing early, no duplicate without a fault, order kept.

It is told what each schedule was and when (``Life``), computes the slots by itself, and shares nothing with the engine
but the words of the journal.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING

from cronally.domain.model import Kind, SkipReason, State, fire_id
from cronally.instants import UtcMs, format_utc
from support.slot_days import slots_of
from support.slot_lives import Life, Notes, Rest, Rule, Sent, Stop, deadline_ms
from support.slot_policies import policy_faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cronally.domain.model import FireKey, JournalEntry

__all__ = ["Life", "Notes", "Rest", "Rule", "Sent", "Stop", "faults", "slots_of"]


def faults(
    lives: Mapping[int, Life],
    journal: Sequence[JournalEntry],
    sent: Sequence[Sent],
    stops: Sequence[Stop],
    through: UtcMs,
    notes: Notes | None = None,
    *,
    seen_late_ms: int = 0,
) -> list[str]:
    """Return what is wrong, a sentence each; nothing if all promises were kept.

    A slot that the wall clock came to twice may have a row of any revision that its schedule ever had.

    Args: lives: by schedule id. through: slots due by then must be settled. stops: of each incarnation, the last too.
        notes: None: reasons and times are not judged. seen_late_ms: up to so long after it left an attempt was taken down.
    """
    is_judging, notes = notes is not None, notes or Notes()
    latest = max([through, *(step.before for step in notes.back_steps)])
    rows: dict[int, list[JournalEntry]] = defaultdict(list)
    for entry in journal:
        rows[entry.schedule_id].append(entry)
    attempts: dict[FireKey, list[Sent]] = defaultdict(list)
    for each in sent:
        attempts[each.arrival.entry.fire.key].append(each)
    wrong = [f"a row of an unknown schedule {id_}" for id_ in rows.keys() - lives.keys()]
    known: set[tuple[int, UtcMs, Kind]] = set()
    asked_at = {row.key: row.asked_at for row in journal if row.asked_at is not None}
    for id_, life in lives.items():
        # A pause's row may end, and a fire be settled, later than *through*.
        later = life.expected(UtcMs(latest + 3_600_000))
        found, row_of = _slot_faults(life, rows[id_], later, through, notes)
        wrong += found
        wrong += _row_faults(life, rows[id_], attempts, through)
        known.update(row.key for row in rows[id_] if row.kind is not Kind.SCHEDULED)
        known.update((id_, slot, Kind.SCHEDULED) for slot in row_of)
        if is_judging:
            wrong += policy_faults(life, rows[id_], later, row_of, attempts, stops, notes)
    for key, of_fire in attempts.items():
        wrong += _attempt_faults(of_fire, stops, notes)
        life = lives[key.schedule_id]
        if key not in known and not notes.came_twice(key.fire_time):
            wrong.append(f"{of_fire[0].arrival.entry.fire_id} was sent and has no entry")
        wrong += _deadline_faults(life, of_fire, asked_at.get(key, UtcMs(0)), seen_late_ms)
    ids = {fire_id(lives[row.schedule_id].name, row.fire_time, row.kind) for row in journal}
    wrong += [f"{id_} was confirmed and has no entry" for id_ in sorted(notes.runs - ids)]
    return wrong + _order_faults(sent, notes, asked_at)


def _slot_faults(
    life: Life, rows: Iterable[JournalEntry], later: Mapping[UtcMs, Rule], through: UtcMs, notes: Notes
) -> tuple[list[str], dict[UtcMs, JournalEntry]]:
    """Return what is wrong, and the row that covers each slot. later: slots, in order, also ones after *through*."""
    wrong = []
    ordered = list(later)
    covered: dict[UtcMs, JournalEntry] = {}
    has_rests = bool(life.rests)
    for row in rows:
        if row.kind is not Kind.SCHEDULED:
            continue
        first = row.fire_time
        if row.is_open:
            last = max(first, ordered[bisect_right(ordered, through) - 1]) if ordered else first
        else:
            last = first if row.last_fire_time is None else row.last_fire_time
        within = (
            ([first] if first in later else [])
            if first == last
            else ordered[bisect_left(ordered, first) : bisect_right(ordered, last)]
        )
        of_revision = life.rule(row.revision_id)
        is_from_false_future = notes.came_twice(last)
        if is_from_false_future and of_revision is not None and not row.is_open:
            within = slots_of(of_revision.document, UtcMs(first - 1), last, name=life.name)
        here = f"{fire_id(life.name, first)} ({row.state}, {row.reason})"
        if not row.is_open:
            if not within or within[0] != first or within[-1] != last:
                wrong.append(f"{here} is no slot, or ends at none")
            if len(within) != row.count:
                wrong.append(f"{here} says {row.count} slots and there are {len(within)}")
        for slot in within:
            if slot in covered:
                wrong.append(f"{fire_id(life.name, slot)} has two entries")
            covered[slot] = row
            if is_from_false_future:
                continue
            if later[slot].revision_id != row.revision_id:
                wrong.append(f"{here} is of revision {row.revision_id}, not {later[slot].revision_id}")
            is_paused = has_rests and life.is_paused(slot)
            if is_paused is not (row.reason is SkipReason.PAUSED):
                wrong.append(f"{here}: paused is {is_paused}")
    wrong += [
        f"{fire_id(life.name, slot)} was missed"
        for slot, rule in later.items()
        if slot not in covered and slot <= through and slot + life.offset(rule) <= through
    ]
    return wrong, covered


def _row_faults(
    life: Life,
    rows: Iterable[JournalEntry],
    attempts: Mapping[FireKey, Sequence[Sent]],
    through: UtcMs,
) -> list[str]:
    wrong = []
    for row in rows:
        accepted = row.count == 1 and any(each.arrival.is_accepted for each in attempts.get(row.key, ()))
        if row.state is State.PUBLISHED and accepted and (row.lateness_us or 0) >= 0:
            continue
        id_ = fire_id(life.name, row.fire_time, row.kind)
        if row.state is State.PENDING:
            if row.due_time <= through:
                wrong.append(f"{id_} is pending at the end")
        elif row.state is State.PUBLISHED and not accepted:
            wrong.append(f"{id_} is called published and nobody got it")
        elif row.state is State.PUBLISHED:
            wrong.append(f"{id_} has a negative lateness")
        elif accepted and not row.maybe_published:
            wrong.append(f"{id_} is called {row.state} ({row.reason}) and somebody got it")
    return wrong


def _attempt_faults(attempts: Sequence[Sent], stops: Sequence[Stop], notes: Notes) -> list[str]:
    wrong = []
    for each in attempts:
        entry = each.arrival.entry
        if each.arrival.released_us < entry.fire.due_time * 1000:
            due = format_utc(entry.fire.due_time)
            wrong.append(f"{entry.fire_id} left at {each.arrival.released_us} us, before {due}")
        if entry.fire_id != attempts[0].arrival.entry.fire_id:
            wrong.append(f"{entry.fire_id} was {attempts[0].arrival.entry.fire_id} before")
    for earlier, later in itertools.pairwise(attempts):
        id_ = later.arrival.entry.fire_id
        answered_us = earlier.arrival.released_us + round(earlier.arrival.answer.delay_s * 1e6)
        stop = stops[earlier.incarnation]
        is_same = earlier.incarnation == later.incarnation
        if notes.is_set_back(earlier.arrival.released_us // 1000, answered_us // 1000):
            continue  # what the wall clock says of the two does not say which was first
        if is_same and later.arrival.released_us < answered_us:
            wrong.append(f"{id_} was sent again while its attempt was open")
        lost = not is_same and (stop.was_crash or answered_us >= stop.at * 1000)
        if earlier.arrival.is_accepted and not earlier.arrival.answer.is_unknown and not lost:
            wrong.append(f"{id_} was sent again although it had been published")
    return wrong


def _deadline_faults(life: Life, attempts: Sequence[Sent], asked_at: UtcMs, seen_late_ms: int) -> list[str]:
    """asked_at: when it was asked for again; its deadline counts from there."""
    fire = attempts[0].arrival.entry.fire
    rule = life.rule(fire.revision_id)
    last_us = (
        max(fire.due_time, asked_at) + (deadline_ms(rule.document) if rule else 0) + seen_late_ms
    ) * 1000 + 999
    return [
        f"{each.arrival.entry.fire_id} was tried at {each.arrival.released_us} us, after its deadline"
        for each in attempts
        if each.arrival.released_us > last_us
    ]


def _order_faults(sent: Iterable[Sent], notes: Notes, asked_at: Mapping[FireKey, UtcMs]) -> list[str]:
    """Within a group no fire is sent, nor sent again, once a later one has been; a new daemon may repeat what it knows not.

    asked_at: of fires that were asked for again, after later ones as it may be: when.
    """
    wrong = []
    newest: dict[tuple[object, ...], tuple[UtcMs, str]] = {}
    seen = set()
    latest_us = 0
    for incarnation, arrival in sent:
        entry = arrival.entry
        if (
            arrival.released_us < latest_us
        ):  # the clock was set back: what was decided by a false one is decided anew
            newest.clear()
        latest_us = arrival.released_us
        if entry.deduplication is None or notes.came_twice(entry.fire.due_time):
            continue
        again_at = asked_at.get(entry.fire.key)
        if again_at is not None and arrival.released_us >= again_at * 1000:
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
