"""Whether each entry has the reason, the time and the doubt that its schedule's policies allow (design §4)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from cronally.domain.model import Kind, SkipReason, State, fire_id
from cronally.engine.ports import OutcomeClass
from cronally.instants import UtcMs, format_utc
from support.slot_lives import deadline_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cronally.domain.model import FireKey, JournalEntry
    from support.slot_lives import Life, Notes, Rule, Sent, Stop

_MISSED_AFTER_MS = 10_000
_AHEAD_MS = 3_000  # so long before its time a fire is planned, and may be held up
_ALL_MOST = 1_000
_ON_TIME_US = 1_000
_UNCOMMITTED_MS = 60_000  # for so long a daemon sends what it cannot put on record


def policy_faults(
    life: Life,
    rows: Iterable[JournalEntry],
    slots: Mapping[UtcMs, Rule],
    row_of: Mapping[UtcMs, JournalEntry],
    attempts: Mapping[FireKey, Sequence[Sent]],
    stops: Sequence[Stop],
    notes: Notes,
) -> list[str]:
    """Return what is wrong with the final rows of one schedule. slots: in order, with their revisions."""
    return list(_Judge(life, slots, row_of, attempts, stops, notes).judge(rows))


class _Judge:
    def __init__(
        self,
        life: Life,
        slots: Mapping[UtcMs, Rule],
        row_of: Mapping[UtcMs, JournalEntry],
        attempts: Mapping[FireKey, Sequence[Sent]],
        stops: Sequence[Stop],
        notes: Notes,
    ) -> None:
        self._life = life
        self._slots = slots
        self._ordered = list(slots)
        self._row_of = row_of
        self._attempts = attempts
        self._stops = stops
        self._notes = notes
        self._written = notes.written

    def judge(self, rows: Iterable[JournalEntry]) -> Iterable[str]:
        for row in rows:
            if row.is_open or row.reason is SkipReason.PAUSED or row.state is State.PENDING:
                continue
            rule = self._life.rule(row.revision_id)
            written = self._written.get(row.key)
            if self._notes.is_of_two_times(row, written):
                continue  # it was decided, or sent, at a time that has been taken back since
            if rule is None or written is None:
                yield f"{self._name(row)} has a revision or a time that nobody knows"
                continue
            found = self._fault(row, rule, written)
            if found is not None:
                yield f"{self._name(row)} ({row.state}, {row.reason}, written at {format_utc(written)}) {found}"
            if row.maybe_published and not self._may_doubt(row, written):
                yield f"{self._name(row)} is called maybe published, and nothing was unknown"

    def _name(self, row: JournalEntry) -> str:
        return fire_id(self._life.name, row.fire_time, row.kind)

    def _fault(self, row: JournalEntry, rule: Rule, written: UtcMs) -> str | None:
        if row.state is State.PUBLISHED:
            return self._published_fault(row)
        if row.state is State.EXPIRED:
            is_over = written >= row.due_time + deadline_ms(rule.document)
            return None if is_over else "was called so before its deadline"
        if row.state is State.REJECTED:
            answers = {each.arrival.answer.outcome for each in self._attempts.get(row.key, ())}
            return None if OutcomeClass.REJECTED in answers else "was never refused"
        if row.reason is SkipReason.DROPPED:
            drops = self._notes.drops.get(row.schedule_id, ())
            return None if any(at <= written for at in drops) else "nobody wanted it dropped"
        if row.reason is SkipReason.SUPERSEDED:
            if self._notes.came_twice(self._life.removed_at):
                return None  # it was removed later than that, by a clock that was set back since
            return self._superseded_fault(row, rule, written)
        return self._catch_up_fault(row, rule, written)

    def _published_fault(self, row: JournalEntry) -> str | None:
        attempts = self._attempts.get(row.key, ())
        if row.released_at not in {each.arrival.released_us // 1000 for each in attempts}:
            return "says a time at which nothing left"
        first = attempts[0].arrival
        late_us = first.released_us - row.due_time * 1000
        if late_us <= _ON_TIME_US or first.entry.deduplication is not None:
            return None
        is_hindered = self._notes.slowing.overlap(
            UtcMs(row.due_time - _AHEAD_MS), UtcMs(first.released_us // 1000)
        )
        return None if is_hindered else f"was {late_us / 1e6:.3f} s late although nothing was wrong"

    def _superseded_fault(self, row: JournalEntry, rule: Rule, written: UtcMs) -> str | None:
        if rule.document.get("catch_up", "latest") != "latest" or row.kind is not Kind.SCHEDULED:
            return "its policy is not latest"
        if written - row.due_time <= _MISSED_AFTER_MS:
            return "was not over 10 s late"
        later = self._ordered[bisect_right(self._ordered, row.fire_time) :]
        if not any(slot + self._life.offset(self._slots[slot]) <= written for slot in later):
            return "no newer slot was due"
        return None

    def _catch_up_fault(self, row: JournalEntry, rule: Rule, written: UtcMs) -> str | None:
        if row.reason is not SkipReason.CATCH_UP or row.kind is not Kind.SCHEDULED:
            return "has no reason, or one of another kind"
        offset = self._life.offset(rule)
        last = row.fire_time if row.last_fire_time is None else row.last_fire_time
        if written - (last + offset) <= _MISSED_AFTER_MS:
            return "was not over 10 s late"
        for slot in (row.fire_time, last):
            due = UtcMs(slot + offset)
            key = row._replace(fire_time=slot).key
            # Of an attempt that was open for long a crash may have kept the outcome from the store.
            until = written if key in self._attempts else UtcMs(due + _MISSED_AFTER_MS)
            if not self._notes.missing.overlap(UtcMs(due - _AHEAD_MS), until):
                return f"nothing kept {format_utc(slot)} from firing"
        policy = rule.document.get("catch_up", "latest")
        if policy == "skip":
            return None
        following = self._following(last, rule)
        if policy == "latest":
            is_newest = all(self._is_missed(slot) for slot in following)
            return "was the newest, and should have fired" if is_newest else None
        newer = bisect_right(following, written - offset)
        return None if newer >= _ALL_MOST else f"has only {newer} newer ones"

    def _following(self, slot: UtcMs, rule: Rule) -> list[UtcMs]:
        """Return the slots of the same revision after *slot*, at most those that matter."""
        start = bisect_left(self._ordered, slot + 1)
        following = []
        for later in self._ordered[start : start + 20 * _ALL_MOST]:
            if self._slots[later].revision_id != rule.revision_id:
                break
            following.append(later)
        return following

    def _is_missed(self, slot: UtcMs) -> bool:
        row = self._row_of.get(slot)
        return row is None or row.reason is SkipReason.CATCH_UP

    def _may_doubt(self, row: JournalEntry, written: UtcMs) -> bool:
        for each in self._attempts.get(row.key, ()):
            answered = each.arrival.released_us + round(each.arrival.answer.delay_s * 1e6)
            if each.arrival.answer.is_unknown or answered >= self._stops[each.incarnation].at * 1000:
                return True
        # By fire time: a slot of an old revision may be pending before it is due, and a crash puts all that is pending in doubt.
        return any(
            stop.leaves_doubt
            and (stop.at <= written or self._notes.came_twice(stop.at))
            and row.fire_time <= self._doubted_through(stop)
            for stop in self._stops
        )

    def _doubted_through(self, stop: Stop) -> int:
        """Return how far a daemon that starts after *stop* has to doubt: in a time that comes again, as far as the clock has been."""
        seen = [step.before for step in self._notes.back_steps if step.covers(stop.recovered_at)]
        return max([stop.recovered_at, *(before + _UNCOMMITTED_MS for before in seen)])
