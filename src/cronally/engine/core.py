"""The engine's memory and its decisions. No ``await``: a decision that needs one is split around it.

1. A slot is *held* from the moment it is planned until its outcome is committed. While one is held the watermark stays
   before its due time, unless the slot already has a row (pending).
2. ``planned_through`` is the due time up to which every slot of the timetable has been taken. A schedule that joins later
   has its slots up to there planned singly, by the change that makes it join.
3. A schedule that is being changed is withheld: nothing of it is planned until the change is committed or has failed.
"""

from __future__ import annotations

import heapq
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.model import MISSED_AFTER_MS, Fire, FireKey, JournalEntry, Kind, State
from cronally.domain.policy import Window, clip, slot_window
from cronally.engine.fifo import FifoGroups
from cronally.engine.timetable import Timetable
from cronally.instants import MAX_UTC_MS, MIN_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cronally.domain.model import Pause
    from cronally.domain.recurrence import Recurrence
    from cronally.domain.spec import ScheduleSpec


class Member(NamedTuple):
    """A schedule as the core needs it."""

    id: int
    revision_id: int
    effective_from: UtcMs
    recurrence: Recurrence
    offset_ms: int
    starts: UtcMs | None
    ends: UtcMs | None
    paused_since: UtcMs | None = None
    paused_until: UtcMs | None = None

    @property
    def window(self) -> Window:
        return slot_window(self.effective_from, self.starts, self.ends)


def member_of(
    id_: int, revision_id: int, spec: ScheduleSpec, effective_from: UtcMs, pause: Pause | None
) -> Member:
    """Return the member that a stored schedule makes. Errors: WhenError, ZoneError (tzdata lost a zone)."""
    return Member(
        id=id_,
        revision_id=revision_id,
        effective_from=effective_from,
        recurrence=spec.recurrence(),
        offset_ms=spec.offset_ms(),
        starts=spec.starts,
        ends=spec.ends,
        paused_since=pause.since if pause else None,
        paused_until=pause.until if pause else None,
    )


class Phase(Enum):
    """Where a held fire is."""

    PLANNED = "planned"
    IN_FLIGHT = "in flight"
    WAITING = "waiting"  # in a busy FIFO group
    WITHHELD = "withheld"  # planned, until it is known whether it is dropped
    SETTLED = "settled"  # its outcome is known and not yet committed


class _Held:
    __slots__ = ("fire", "has_row", "phase")

    def __init__(self, fire: Fire, phase: Phase, *, has_row: bool) -> None:
        self.fire = fire
        self.phase = phase
        self.has_row = has_row


def _awake(member: Member) -> Member:
    """Return a paused member as it is once its pause has ended by itself: the slot at the end instant fires."""
    assert member.paused_until is not None
    return member._replace(
        effective_from=UtcMs(max(member.paused_until - 1, member.effective_from)),
        paused_since=None,
        paused_until=None,
    )


class Withheld(NamedTuple):
    """What a change finds when it begins, for each schedule it is about.

    unsettled: fires of slots at or before the change which have no outcome on record. withdrawn: planned fires later
    than the change; they will not go.
    """

    unsettled: list[Fire]
    withdrawn: list[Fire]


class Core:
    """State machine of one engine. Instants are passed in."""

    def __init__(self) -> None:
        self.timetable = Timetable()
        self.groups = FifoGroups()
        self.planned_through = UtcMs(0)
        self.at_through = UtcMs(0)
        self.next_at: UtcMs | None = None
        self.next_pending: UtcMs | None = None
        self.failing: set[int] = set()
        self._held: dict[FireKey, _Held] = {}
        self._unsettled_dues: Counter[UtcMs] = Counter()
        self._due_heap: list[UtcMs] = []
        self._bounds: dict[int, tuple[UtcMs | None, UtcMs | None]] = {}
        self._paused: dict[int, Member] = {}
        self._pause_ends: list[tuple[UtcMs, int]] = []
        self._ending: set[int] = set()
        self._changing: dict[int, UtcMs] = {}
        self._dropping: set[int] = set()
        self._floors: dict[int, UtcMs] = {}
        self._floor_count = 0
        self._at_touched: set[int] | None = None
        self._at_planned: set[FireKey] = set()
        self._at_read_after = UtcMs(0)
        self._at_read_for: UtcMs | None = None

    # --- membership ---------------------------------------------------------------------------------------------

    def load(self, member: Member) -> None:
        """Take in a schedule at start, before anything is planned. Its past slots are recovery's."""
        if member.paused_since is not None:
            self._rest(member)
        elif member.recurrence.at_ms is not None:
            self._expect_at(member)
        else:
            self._seat(member)

    def begin_change(self, members: Mapping[int, Member], at: UtcMs) -> Withheld:
        """Withhold the schedules *members* (as they are) for a change effective from *at*."""
        unsettled: list[Fire] = []
        withdrawn: list[Fire] = []
        for key, held in list(self._held.items()):
            if key.schedule_id not in members or key.kind is not Kind.SCHEDULED:
                continue
            if key.fire_time <= at:
                unsettled.append(held.fire)
            elif held.phase is Phase.PLANNED:
                withdrawn.append(held.fire)
                self._release_hold(key)
        for member in members.values():
            first_untaken = self._first_untaken(member)
            unsettled += self._untaken_slots(member, first_untaken, at)
            self._changing[member.id] = UtcMs(min(at, first_untaken - 1))
        return Withheld(unsettled, withdrawn)

    def end_change(self, id_: int, member: Member | None) -> list[Fire]:
        """End the change of a schedule, which is now *member* (None: removed); return the fires to send at once.

        Also after a change that failed, with the member as it was.
        """
        replan_after = self._changing.pop(id_)
        if self._at_touched is not None:
            self._at_touched.add(id_)
        self._forget(id_)
        return [] if member is None else self._join(member, replan_after)

    def hold_watermark(self, at: UtcMs) -> int:
        """Keep the watermark at or before *at* until ``let_watermark`` gets the token returned."""
        self._floor_count += 1
        self._floors[self._floor_count] = at
        return self._floor_count

    def let_watermark(self, token: int) -> None:
        del self._floors[token]

    def end_creation(self, token: int, members: Iterable[Member]) -> list[Fire]:
        """Take in schedules that were created since ``hold_watermark`` gave *token*; return the fires to send at once."""
        at = self._floors[token]
        fires = [fire for member in members for fire in self._join(member, at)]
        self.let_watermark(token)
        return fires

    def _join(self, member: Member, after: UtcMs) -> list[Fire]:
        """Take in a schedule; return its fires with *after* < slot that are already taken."""
        if member.paused_since is not None:
            self._rest(member)
            return []
        if member.recurrence.at_ms is None:
            self._seat(member)
        return self._plan_taken(member, after)

    def _plan_taken(self, member: Member, after: UtcMs) -> list[Fire]:
        """Hold and return the slots of a schedule later than *after* that were taken before it was there."""
        if member.recurrence.at_ms is not None:
            self._expect_at(member)
            through = UtcMs(self.at_through - member.offset_ms)
        else:
            through = UtcMs(self._first_untaken(member) - 1)
            through = UtcMs(min(through, self.planned_through - member.offset_ms))
        window = clip(member.window, after=after, through=through)
        fires = []
        if window.after < window.through:
            for slot in member.recurrence.between_ms(window.after, window.through):
                fire = Fire(member.id, member.revision_id, slot, UtcMs(slot + member.offset_ms))
                if fire.key not in self._at_planned and self.hold(fire):
                    fires.append(fire)
                    if self.is_reading_at and member.recurrence.at_ms is not None:
                        self._at_planned.add(fire.key)
        return fires

    def member(self, id_: int) -> Member | None:
        """Return a schedule that is in the timetable or at rest as the core knows it; None for others (``@at``)."""
        if id_ in self._paused:
            return self._paused[id_]
        if id_ not in self.timetable:
            return None
        entry = self.timetable.entry(id_)
        starts, ends = self._bounds.get(id_, (None, None))
        return Member(
            id=id_,
            revision_id=self.timetable.revision_id(id_),
            effective_from=self.timetable.effective_from(id_),
            recurrence=entry.recurrence,
            offset_ms=entry.offset_ms,
            starts=starts,
            ends=ends,
        )

    def _seat(self, member: Member) -> None:
        self.timetable.join(
            member.id,
            member.revision_id,
            member.effective_from,
            member.recurrence,
            member.offset_ms,
            taken_through=self.planned_through,
        )
        if member.starts is not None or member.ends is not None:
            self._bounds[member.id] = (member.starts, member.ends)

    def _forget(self, id_: int) -> None:
        self.timetable.leave(id_)
        self._bounds.pop(id_, None)
        self._paused.pop(id_, None)
        self._ending.discard(id_)

    def _first_untaken(self, member: Member) -> UtcMs:
        """Return the first fire time from which the member's slots have not been taken."""
        if member.paused_since is not None:
            return MAX_UTC_MS
        if member.id in self.timetable:
            return self.timetable.entry(member.id).next_fire or MAX_UTC_MS
        if member.recurrence.at_ms is not None:
            taken_through = self._at_read_after if self.is_reading_at else self.at_through
            return UtcMs(taken_through - member.offset_ms + 1)
        return MAX_UTC_MS

    def _untaken_slots(self, member: Member, first: UtcMs, through: UtcMs) -> list[Fire]:
        if member.paused_since is not None:
            return []
        window = clip(member.window, after=UtcMs(first - 1), through=through)
        return [
            Fire(member.id, member.revision_id, slot, UtcMs(slot + member.offset_ms))
            for slot in member.recurrence.between_ms(window.after, window.through)
        ]

    # --- pauses ---------------------------------------------------------------------------------------------------

    def _rest(self, member: Member) -> None:
        self._paused[member.id] = member
        if member.paused_until is not None:
            heapq.heappush(self._pause_ends, (member.paused_until, member.id))

    def next_pause_end(self) -> UtcMs | None:
        """Return the earliest end of a pause that has not been planned past, or None."""
        while self._pause_ends:
            until, id_ = self._pause_ends[0]
            member = self._paused.get(id_)
            if member is not None and member.paused_until == until and id_ not in self._ending:
                return until
            heapq.heappop(self._pause_ends)
        return None

    def next_ended_pause(self) -> tuple[UtcMs, Member] | None:
        """Return the earliest end among the pauses planned past, whose record is still to be changed, and whose it is."""
        ending = (self._paused[id_] for id_ in self._ending if id_ not in self._changing)
        first = min(ending, key=lambda member: member.paused_until or MAX_UTC_MS, default=None)
        return None if first is None else (first.paused_until or MAX_UTC_MS, first)

    def is_at_rest(self, id_: int | None) -> bool:
        """Whether a schedule is paused on record."""
        return id_ in self._paused

    def confirm_pause_end(self, id_: int) -> None:
        """The record of a pause that was planned past is changed: the schedule is awake for everyone."""
        self._paused.pop(id_, None)
        self._ending.discard(id_)

    def wake_paused(self, through: UtcMs) -> list[Member]:
        """Seat the schedules whose pause ends at or before *through*, effective from a millisecond before its end."""
        awake = []
        while (until := self.next_pause_end()) is not None and until <= through:
            id_ = heapq.heappop(self._pause_ends)[1]
            if id_ not in self._changing:
                self._ending.add(id_)
                member = _awake(self._paused[id_])
                awake.append(member)
                if member.recurrence.at_ms is None:
                    self._seat(member)
        return awake

    def awake_single_instants(self, after: UtcMs, through: UtcMs) -> list[Fire]:
        """Return the slots with *after* < due <= *through* of ``@at`` schedules whose pause has ended in memory only.

        The store, where they are at rest still, does not name them.
        """
        return [
            fire
            for id_ in self._ending
            if self._paused[id_].recurrence.at_ms is not None
            for fire in self._untaken_slots(_awake(self._paused[id_]), MIN_UTC_MS, MAX_UTC_MS)
            if after < fire.due_time <= through
        ]

    # --- single instants --------------------------------------------------------------------------------------------

    def _expect_at(self, member: Member) -> None:
        assert member.recurrence.at_ms is not None
        due = UtcMs(member.recurrence.at_ms + member.offset_ms)
        if due > self.at_through:
            self._expect_next_at(due)

    def begin_at_read(self, through: UtcMs) -> UtcMs:
        """The slots of ``@at`` schedules due at or before *through* are about to be read; return after which."""
        self._at_read_after, self.at_through = self.at_through, through
        self._at_touched = set()
        self._at_read_for, self.next_at = self.next_at, None
        return self._at_read_after

    def abandon_at_read(self) -> None:
        """The read failed: it is due again at once. What changes planned meanwhile stays planned."""
        self._at_touched = None
        self.at_through = self._at_read_after
        self._expect_next_at(self._at_read_for)

    def end_at_read(self, fires: Iterable[Fire], next_at: UtcMs | None) -> list[Fire]:
        """Hold what was read, less the schedules that changed meanwhile: their change planned them."""
        touched, self._at_touched = self._at_touched or set(), None
        planned, self._at_planned = self._at_planned, set()
        self.expect_next_at(next_at)
        return [
            fire
            for fire in [*fires, *self.awake_single_instants(self._at_read_after, self.at_through)]
            if fire.schedule_id not in touched
            and fire.schedule_id not in self._changing
            and fire.key not in planned
            and self.hold(fire)
        ]

    def expect_next_at(self, next_at: UtcMs | None) -> None:
        """The store knows no slot of an unpaused ``@at`` schedule due after ``at_through`` and before *next_at*."""
        self._expect_next_at(next_at)
        for fire in self.awake_single_instants(self.at_through, MAX_UTC_MS):
            self._expect_next_at(fire.due_time)

    def _expect_next_at(self, next_at: UtcMs | None) -> None:
        if next_at is not None and (self.next_at is None or next_at < self.next_at):
            self.next_at = next_at

    @property
    def is_reading_at(self) -> bool:
        return self._at_touched is not None

    # --- planning ---------------------------------------------------------------------------------------------------

    def plan(self, through: UtcMs) -> list[Fire]:
        """Take and hold every timetable slot due at or before *through*, and end the pauses that end by then."""
        fires: list[Fire] = []
        table = self.timetable
        for entry, slots, ids in table.take(through):
            for slot in slots:
                due = UtcMs(slot + entry.offset_ms)
                for id_ in ids:
                    if table.effective_from(id_) >= slot or id_ in self._changing:
                        continue
                    if id_ in self._bounds and not self._is_in_bounds(id_, slot):
                        continue
                    fire = Fire(id_, table.revision_id(id_), slot, due)
                    if self.hold(fire):
                        fires.append(fire)
        self.planned_through = UtcMs(max(self.planned_through, through))
        return fires + self.end_pauses(through)

    def end_pauses(self, through: UtcMs) -> list[Fire]:
        """End the pauses that end at or before *through*; return the fires that were taken already, now held."""
        awake = self.wake_paused(through)
        return [fire for member in awake for fire in self._plan_taken(member, member.effective_from)]

    def next_due(self) -> UtcMs | None:
        """Return the due time of the earliest slot, or end of a pause, that has not been planned, or None."""
        return min(
            (at for at in (self.timetable.next_due(), self.next_pause_end(), self.next_at) if at is not None),
            default=None,
        )

    def is_overdue(self, now: UtcMs) -> bool:
        """Whether a slot is due that has not been planned yet."""
        due = self.next_due()
        return due is not None and due <= now

    def is_behind(self, now: UtcMs) -> bool:
        """Whether a slot not yet planned counts as missed: then recovery decides, not the plan."""
        due = self.next_due()
        return due is not None and due < now - MISSED_AFTER_MS

    def restart(self, taken_through: UtcMs) -> None:
        """Begin anew after *taken_through*: slots up to there are recovery's, and what was planned is let go.

        Planned fires that have a pending row stay: whoever carries them sends them.
        """
        planned = [held for held in self._held.values() if held.phase is Phase.PLANNED and not held.has_row]
        for held in planned:
            self._release_hold(held.fire.key)
            self.groups.give_up_head(held.fire)
        self.timetable.restart(taken_through)
        self.planned_through = self.at_through = taken_through
        self.next_at = None

    def newest_due_slot(self, id_: int, now: UtcMs) -> UtcMs | None:
        """Return the newest slot of a schedule's present rule that is due, or None; a schedule at rest has none."""
        if id_ not in self.timetable:
            return None
        entry = self.timetable.entry(id_)
        starts, ends = self._bounds.get(id_, (None, None))
        window = slot_window(self.timetable.effective_from(id_), starts, ends)
        window = clip(window, through=UtcMs(now - entry.offset_ms))
        slot = entry.recurrence.latest_ms(UtcMs(window.through + 1))
        return slot if slot is not None and slot > window.after else None

    def _is_in_bounds(self, id_: int, slot: UtcMs) -> bool:
        starts, ends = self._bounds[id_]
        return (starts is None or slot >= starts) and (ends is None or slot <= ends)

    # --- holding ----------------------------------------------------------------------------------------------------

    def hold(self, fire: Fire, *, has_row: bool = False) -> bool:
        """Hold a fire that is about to be sent. has_row: its slot has a pending row.

        False if it is held already, or if it is pending and its schedule's pending fires are being dropped.
        """
        if fire.key in self._held or (has_row and fire.schedule_id in self._dropping):
            return False
        self._held[fire.key] = _Held(fire, Phase.PLANNED, has_row=has_row)
        if not has_row and fire.kind is Kind.SCHEDULED:
            if fire.due_time not in self._unsettled_dues:
                heapq.heappush(self._due_heap, fire.due_time)
            self._unsettled_dues[fire.due_time] += 1
        return True

    def may_release(self, fire: Fire) -> bool:
        """Whether *fire* is still planned (a change may have withdrawn it since it was armed)."""
        held = self._held.get(fire.key)
        return held is not None and held.phase is Phase.PLANNED and held.fire.revision_id == fire.revision_id

    def mark_in_flight(self, fires: Iterable[Fire]) -> None:
        for fire in fires:
            self._held[fire.key].phase = Phase.IN_FLIGHT

    def mark_waiting(self, fire: Fire) -> None:
        """The fire waits in its FIFO group and its pending row is on the way to the store."""
        self._held[fire.key].phase = Phase.WAITING
        self._count_settled(self._held[fire.key])

    def mark_planned(self, fire: Fire) -> bool:
        """A waiting or failed fire is about to be sent again; False if it is being dropped, or is on its way."""
        held = self._held.get(fire.key)
        if held is None:
            return self.hold(fire, has_row=True)
        if held.phase is Phase.IN_FLIGHT:
            return False
        held.phase, held.fire = Phase.PLANNED, fire
        return True

    def begin_manual(self, fire: Fire) -> None:
        """The row of a manual fire is being written: nobody but the writer sends it, however early he sees it."""
        self.hold(fire, has_row=True)
        self._held[fire.key].phase = Phase.WITHHELD

    def end_manual(self, fire: Fire, *, is_done: bool) -> bool:
        """The row is written, or could not be; return whether the fire is to be sent (its FIFO group may have done so)."""
        held = self._held.get(fire.key)
        if held is None or held.phase is not Phase.WITHHELD:
            return False
        if not is_done:
            self._release_hold(fire.key)
        held.phase = Phase.PLANNED
        return is_done

    def is_in_flight(self, fire: Fire) -> bool:
        held = self._held.get(fire.key)
        return held is not None and held.phase is Phase.IN_FLIGHT

    def mark_settled(self, fire: Fire) -> None:
        """The outcome is known; its row goes into the next commit."""
        held = self._held[fire.key]
        held.phase = Phase.SETTLED
        self._count_settled(held)

    def mark_committed(self, entries: Iterable[JournalEntry]) -> None:
        """*entries* are durable: let go of the settled fires among them and remember when to retry the pending ones."""
        for entry in entries:
            held = self._held.get(entry.key)
            if held is None:
                continue
            held.has_row = True
            if held.phase is Phase.SETTLED:
                del self._held[entry.key]
                if entry.state is State.PENDING and entry.next_attempt_at is not None:
                    self.expect_pending(entry.next_attempt_at)

    def note_row(self, fire: Fire) -> bool:
        """A change wrote a pending row for *fire*; return whether the core holds it and so sends it."""
        held = self._held.get(fire.key)
        if held is not None:
            self._count_settled(held)
        return held is not None

    def has_row(self, fire: Fire) -> bool:
        """Whether a fire that is held has a pending row."""
        return self._held[fire.key].has_row

    def expect_pending(self, at: UtcMs) -> None:
        """A pending row may be tried at *at*."""
        if self.next_pending is None or at < self.next_pending:
            self.next_pending = at

    def is_held(self, key: FireKey) -> bool:
        return key in self._held

    def in_flight_count(self) -> int:
        return sum(held.phase is Phase.IN_FLIGHT for held in self._held.values())

    def unsettled_count(self) -> int:
        """Return how many fires are planned, in flight or settled but uncommitted; those waiting in a group are not."""
        return sum(held.phase is not Phase.WAITING for held in self._held.values())

    def begin_drop(self, schedule_id: int) -> frozenset[tuple[UtcMs, Kind]]:
        """Withhold what is planned or pending of a schedule; return (fire time, kind) of what stays: it has been sent."""
        self._dropping.add(schedule_id)
        kept = set()
        for key, held in list(self._held.items()):
            if key.schedule_id != schedule_id:
                continue
            if held.phase in (Phase.IN_FLIGHT, Phase.SETTLED):
                kept.add((key.fire_time, key.kind))
            elif held.has_row:  # should the change fail, it is found by its row again
                self._release_hold(key)
            else:
                held.phase = Phase.WITHHELD
        self.groups.forget(schedule_id, kept)
        return frozenset(kept)

    def end_drop(self, schedule_id: int, *, is_done: bool) -> list[Fire]:
        """End what ``begin_drop`` began; return the fires to send after all, because the change failed."""
        self._dropping.discard(schedule_id)
        withheld = [
            held
            for key, held in self._held.items()
            if key.schedule_id == schedule_id and held.phase is Phase.WITHHELD
        ]
        for held in withheld:
            if is_done:
                self._release_hold(held.fire.key)
            else:
                held.phase = Phase.PLANNED
        return [] if is_done else [held.fire for held in withheld]

    def held_slots(self) -> dict[int, list[tuple[UtcMs, UtcMs]]]:
        """Return per schedule the scheduled slots the core still answers for, sorted, as (slot, slot)."""
        slots: dict[int, list[tuple[UtcMs, UtcMs]]] = {}
        for key in sorted(key for key in self._held if key.kind is Kind.SCHEDULED):
            slots.setdefault(key.schedule_id, []).append((key.fire_time, key.fire_time))
        return slots

    def watermark(self, now: UtcMs) -> UtcMs:
        """Return the due time up to which every slot has a row, once what is settled is committed."""
        through: int = min(now, self.planned_through)
        if self.next_at is not None:
            through = min(through, self.next_at - 1)
        if self.is_reading_at:
            through = min(through, self._at_read_after)
        while self._due_heap and self._due_heap[0] not in self._unsettled_dues:
            heapq.heappop(self._due_heap)
        if self._due_heap:
            through = min(through, self._due_heap[0] - 1)
        through = min((through, *self._changing.values(), *self._floors.values()))
        return UtcMs(through)

    def _release_hold(self, key: FireKey) -> None:
        self._count_settled(self._held.pop(key))

    def _count_settled(self, held: _Held) -> None:
        if held.has_row or held.fire.kind is not Kind.SCHEDULED:
            return
        held.has_row = True
        due = held.fire.due_time
        self._unsettled_dues[due] -= 1
        if self._unsettled_dues[due] <= 0:
            del self._unsettled_dues[due]
