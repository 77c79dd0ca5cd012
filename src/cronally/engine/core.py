"""The engine's memory and its decisions. No ``await``: a decision that needs one is split around it.

1. A slot is *held* from the moment it is planned until its outcome is committed. While one is held the watermark stays
   before its due time, unless the slot already has a row (pending).
2. ``planned_through`` is the due time up to which every slot of the timetable has been taken. Taken slots become fires in
   portions (``takings``). A schedule that joins later has its slots up to there planned singly, by the change that makes it
   join.
3. A schedule that is being changed is withheld: nothing of it is planned until the change is committed or has failed.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from cronally.domain.model import MISSED_AFTER_MS, Fire, FireKey, Kind
from cronally.domain.policy import clip, next_slot, slot_window
from cronally.domain.shards import SHARDS
from cronally.engine.holding import Holding, Phase
from cronally.engine.member import Member, awakened
from cronally.engine.takings import Takings
from cronally.engine.timetable import Timetable
from cronally.instants import MAX_UTC_MS, MIN_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cronally.engine.timetable import TimetableEntry


class Core(Holding):
    """State machine of one engine: what is due when, and (``Holding``) what it answers for. Instants are passed in.

    Attributes: doubted_through: what was due by then may have been sent by a daemon that crashed before it had that on record;
        its fires are ``maybe_published`` from the start. doubts: the same of single shards.
    """

    def __init__(self) -> None:
        super().__init__()
        self.timetable = Timetable()
        self.takings = Takings(self.timetable)
        self.planned_through = UtcMs(0)
        self.at_through = UtcMs(0)
        self.next_at: UtcMs | None = None
        self.doubted_through = MIN_UTC_MS
        self.doubts: dict[int, UtcMs] = {}
        self.failing: set[int] = set()
        self._ends: dict[int, UtcMs] = {}
        self._paused: dict[int, Member] = {}
        self._paused_end = 0  # all ids that were ever paused are smaller
        self._pause_ends: list[tuple[UtcMs, int]] = []
        self._ending: set[int] = set()
        self._changing: dict[int, UtcMs] = {}
        self._floors: dict[int, UtcMs] = {}
        self._floor_count = 0
        self._at_touched: set[int] | None = None
        self._at_planned: set[FireKey] = set()
        self._at_read_after = UtcMs(0)
        self._at_read_for: UtcMs | None = None
        self._at_settled: dict[int, UtcMs] = {}  # by shard: up to when what was read of it may be settled

    # --- membership ---------------------------------------------------------------------------------------------

    def load(self, member: Member) -> None:
        """Take in a schedule at start; a ``restart`` follows before anything is planned. Its past slots are recovery's."""
        if member.paused_since is not None:
            self._rest(member)
        elif member.recurrence.at_ms is not None:
            self._expect_at(member)
        else:
            self._seat(member, taken_through=None)

    def reload(self, member: Member) -> None:
        """Take in a schedule as the store has it now; a ``restart`` follows."""
        self._forget(member.id)
        self.load(member)

    def is_plain(self, member: Member) -> bool:
        """Whether nothing but its entry tells a schedule in the timetable from the others that share its rule."""
        return member.id in self.timetable and member.starts is None and member.ends is None

    def begin_change(self, members: Mapping[int, Member], at: UtcMs) -> list[Fire]:
        """Withhold the schedules *members* (as they are) for a change effective from *at*.

        Return the fires of slots at or before it which have no outcome on record; planned ones later than that are
        withdrawn.
        """
        unsettled: list[Fire] = []
        for held in self.held_of(members):
            fire = held.fire
            if fire.kind is not Kind.SCHEDULED:
                continue
            if fire.fire_time <= at:
                unsettled.append(fire)
            elif held.phase is Phase.PLANNED:
                self._release_hold(fire)
        for member in members.values():
            first_untaken = self._first_untaken(member)
            unsettled += self._untaken_slots(member, first_untaken, at)
            self._changing[member.id] = UtcMs(min(at, first_untaken - 1))
        return unsettled

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

    # --- shards that come and go --------------------------------------------------------------------------------------

    def take_in(self, members: Iterable[Member], at: UtcMs) -> list[Fire]:
        """Take in schedules of which every slot due at or before *at* is settled; return the fires to send at once.

        Those of a shard are all taken in as of the same instant, at or before now.
        """
        fires = self.take(at)  # then none of them is among those that come yet
        for member in members:
            self._at_settled[member.id % SHARDS] = at
            after = UtcMs(at - member.offset_ms)
            if member.paused_until is not None and member.paused_until <= at:
                fires += self._join_awake(member, after)
            elif member.paused_since is not None or (member.recurrence.at_ms or MAX_UTC_MS) > after:
                fires += self._join(member, after)
        return fires

    def _join_awake(self, member: Member, after: UtcMs) -> list[Fire]:
        """Take in a schedule whose pause has ended, although its record does not say so yet."""
        self._rest(member)
        self._ending.add(member.id)
        awake = awakened(member)
        if awake.recurrence.at_ms is None:
            self._seat(awake, taken_through=self.planned_through)
        elif awake.recurrence.at_ms <= after:
            return []
        return self._plan_taken(awake, after)

    def ids_of(self, shard: int) -> list[int]:
        """Return the schedules of a shard that are in the timetable or at rest."""
        end = max(self.timetable.end, self._paused_end)
        return [id_ for id_ in range(shard, end, SHARDS) if id_ in self.timetable or id_ in self._paused]

    def begin_leaving(self, ids: Iterable[int], at: UtcMs) -> list[Fire]:
        """Withhold schedules whose shard leaves; return the fires of their slots due at or before *at* that nobody holds.

        Until ``end_leaving``, or ``end_change`` if they stay. Of those that sleep no pause has ended.
        """
        unsettled: list[Fire] = []
        for id_ in ids:
            member = self.member(id_)
            assert member is not None
            first, through = self._first_untaken(member), UtcMs(at - member.offset_ms)
            unsettled += self._untaken_slots(member, first, through)
            self._changing[id_] = UtcMs(min(through, first - 1))
        return unsettled

    def end_leaving(self, ids: Iterable[int]) -> None:
        """Forget schedules that were withheld: they are another machine's."""
        for id_ in ids:
            del self._changing[id_]
            self._forget(id_)

    @property
    def at_read_through(self) -> UtcMs:
        """The slots of ``@at`` schedules due up to here were read; later ones are about to be, or will be."""
        return self._at_read_after if self.is_reading_at else self.at_through

    def is_at_settled(self, fire: Fire) -> bool:
        """Whether the slot of an ``@at`` schedule was settled before its shard was taken in."""
        return fire.due_time <= self._at_settled.get(fire.schedule_id % SHARDS, MIN_UTC_MS)

    # --- what changes have in common ----------------------------------------------------------------------------------

    def _join(self, member: Member, after: UtcMs) -> list[Fire]:
        """Take in a schedule; return its fires with *after* < slot that are already taken."""
        if member.paused_since is not None:
            self._rest(member)
            return []
        if member.recurrence.at_ms is None:
            self._seat(member, taken_through=self.planned_through)
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
                fire = self.fire(member.id, member.revision_id, slot, UtcMs(slot + member.offset_ms))
                if fire.key not in self._at_planned and self.hold(fire):
                    fires.append(fire)
                    if self.is_reading_at and member.recurrence.at_ms is not None:
                        self._at_planned.add(fire.key)
        return fires

    def fire(self, id_: int, revision_id: int, slot: UtcMs, due_time: UtcMs) -> Fire:
        """Return the fire of a slot that has no row."""
        is_doubted = due_time <= self.doubted_through_of(id_ % SHARDS)
        return Fire(id_, revision_id, slot, due_time, maybe_published=is_doubted)

    def doubted_through_of(self, shard: int) -> UtcMs:
        """Return what is doubted of a shard, see *doubted_through*."""
        return UtcMs(max(self.doubted_through, self.doubts.get(shard, MIN_UTC_MS)))

    def most_doubted(self) -> UtcMs:
        """Return the latest instant up to which anything is doubted."""
        return UtcMs(max([self.doubted_through, *self.doubts.values()]))

    def member(self, id_: int) -> Member | None:
        """Return a schedule that is in the timetable or at rest as the core knows it; None for others (``@at``)."""
        if id_ in self._paused:
            return self._paused[id_]
        if id_ not in self.timetable:
            return None
        entry = self.timetable.entry(id_)
        ends = self._ends.get(id_)
        return Member(
            id=id_,
            revision_id=self.timetable.revision_id(id_),
            effective_from=self.timetable.effective_from(id_),
            recurrence=entry.recurrence,
            offset_ms=entry.offset_ms,
            topic=entry.topic,
            priority=entry.priority,
            starts=None,  # effective from covers it
            ends=ends,
        )

    def ends_of(self, id_: int) -> UtcMs | None:
        """Return after which fire time a schedule of the timetable has no more slots, or None."""
        return self._ends.get(id_)

    def _seat(self, member: Member, *, taken_through: UtcMs | None) -> None:
        window = member.window
        self.timetable.join(
            member.id,
            member.revision_id,
            window.after,
            member.recurrence,
            member.offset_ms,
            topic=member.topic,
            priority=member.priority,
            taken_through=taken_through,
        )
        if member.ends is not None:
            self._ends[member.id] = member.ends

    def _forget(self, id_: int) -> None:
        if id_ in self.timetable:
            self.takings.forget(self.timetable.entry(id_), id_)
        self.timetable.leave(id_)
        self._ends.pop(id_, None)
        self._paused.pop(id_, None)
        self._ending.discard(id_)

    def _first_untaken(self, member: Member) -> UtcMs:
        """Return the first fire time from which the member's slots have not been taken."""
        if member.paused_since is not None:
            return MAX_UTC_MS
        if member.id in self.timetable:
            entry = self.timetable.entry(member.id)
            return self.takings.first_slot(entry, member.id) or entry.next_fire or MAX_UTC_MS
        if member.recurrence.at_ms is not None:
            return UtcMs(self.at_read_through - member.offset_ms + 1)
        return MAX_UTC_MS

    def _untaken_slots(self, member: Member, first: UtcMs, through: UtcMs) -> list[Fire]:
        if member.paused_since is not None:
            return []
        window = clip(member.window, after=UtcMs(first - 1), through=through)
        return [
            self.fire(member.id, member.revision_id, slot, UtcMs(slot + member.offset_ms))
            for slot in member.recurrence.between_ms(window.after, window.through)
            if not self.relived.has(member.id, slot)
        ]

    # --- pauses ---------------------------------------------------------------------------------------------------

    def _rest(self, member: Member) -> None:
        self._paused[member.id] = member
        self._paused_end = max(self._paused_end, member.id + 1)
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
                member = awakened(self._paused[id_])
                awake.append(member)
                if member.recurrence.at_ms is None:
                    self._seat(member, taken_through=self.planned_through)
        return awake

    def awake_single_instants(self, after: UtcMs, through: UtcMs) -> list[Fire]:
        """Return the slots with *after* < due <= *through* of ``@at`` schedules whose pause has ended in memory only.

        The store, where they are at rest still, does not name them.
        """
        return [
            fire
            for id_ in self._ending
            if self._paused[id_].recurrence.at_ms is not None
            for fire in self._untaken_slots(awakened(self._paused[id_]), MIN_UTC_MS, MAX_UTC_MS)
            if after < fire.due_time <= through and not self.is_at_settled(fire)
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
        read = [
            self.fire(fire.schedule_id, fire.revision_id, fire.fire_time, fire.due_time) for fire in fires
        ]
        return [
            fire
            for fire in [*read, *self.awake_single_instants(self._at_read_after, self.at_through)]
            if fire.schedule_id not in touched
            and fire.schedule_id not in self._changing
            and not self.is_at_settled(fire)
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

    def take(self, through: UtcMs) -> list[Fire]:
        """Take every timetable slot due at or before *through*, for ``plan``, and end the pauses that end by then.

        Return the fires of those, now held: their slots may have been taken before.
        """
        for entry, slots, span in self.timetable.take(through):
            for slot in slots:
                self.takings.add(entry, slot, span)
        self.planned_through = UtcMs(max(self.planned_through, through))
        return self.end_pauses(through)

    def plan(self, now: UtcMs, most: int) -> list[Fire]:
        """Hold and return the next fires of what was taken, about *most*; none when there is nothing left."""
        fires: list[Fire] = []
        changing, ends = self._changing, self._ends
        new, scheduled = tuple.__new__, Kind.SCHEDULED  # twice as fast as by name
        effective_from, revision_id = self.timetable.effective_from, self.timetable.revision_id
        while not fires and self.takings:
            for crowd, ids in self.takings.take(now, most):
                slot, due = crowd.slot, crowd.due_time
                is_doubted = due <= self.doubted_through
                planned = [
                    new(Fire, (id_, revision_id(id_), slot, due, scheduled, 0, is_doubted, MAX_UTC_MS, None))
                    for id_ in ids
                    if effective_from(id_) < slot
                    and id_ not in changing
                    and (id_ not in ends or slot <= ends[id_])
                ]
                if self.doubts:
                    planned = [self.fire(*fire[:4]) for fire in planned]
                fires += self.hold_new(planned)
        return fires

    def end_pauses(self, through: UtcMs) -> list[Fire]:
        """End the pauses that end at or before *through*; return the fires that were taken already, now held."""
        awake = self.wake_paused(through)
        return [fire for member in awake for fire in self._plan_taken(member, member.effective_from)]

    def next_due(self) -> UtcMs | None:
        """Return the due time of the earliest slot, or end of a pause, that has not been planned, or None."""
        return self._earliest_unplanned(self.takings.earliest_due())

    def earliest_unplanned_fifo(self) -> UtcMs | None:
        """Return when the first slot is due that has not been planned and may be one of a FIFO topic, or None."""
        return self._earliest_unplanned(self.takings.earliest_due(is_fifo=True))

    def _earliest_unplanned(self, taken: UtcMs | None) -> UtcMs | None:
        instants = (taken, self.timetable.next_due(), self.next_pause_end(), self.next_at)
        return min((at for at in instants if at is not None), default=None)

    def is_fifo_overdue(self, now: UtcMs) -> bool:
        """Whether a slot may be due in a FIFO group that has not been planned yet: what comes first there is not known."""
        due = self.earliest_unplanned_fifo()
        return due is not None and due <= now

    def is_behind(self, now: UtcMs) -> bool:
        """Whether a slot not yet planned counts as missed: then recovery decides, not the plan."""
        due = self.next_due()
        return due is not None and due < now - MISSED_AFTER_MS

    def restart(self, taken_through: UtcMs, since: UtcMs) -> Iterator[list[TimetableEntry]]:
        """Begin anew after *taken_through*: slots up to there are recovery's, and what was planned is let go.

        Planned fires that have a pending row stay: whoever carries them sends them. What is due next is known once the
        iterator has come to its end (see ``Timetable.restart_in_slices``); it yields the entries with slots that were due
        after *since*, in slices.
        """
        planned = [held for held in self._held.values() if held.phase is Phase.PLANNED and not held.has_row]
        for held in planned:
            self._release_hold(held.fire)
            self.groups.give_up_head(held.fire)
        self.takings.clear()
        self.relived.restart(taken_through, self.timetable.longest_offset_ms())
        self.planned_through = self.at_through = taken_through
        self.next_at = None
        self._at_settled.clear()
        return self.timetable.restart_in_slices(taken_through, since)

    def coming(self, most: int) -> list[Fire]:
        """Return the next slot of each of the schedules that come first, up to *most*, by due time; without those taken already.

        ``@at`` schedules are not here. Of a crowd that ``starts`` later only so many are looked at.
        """
        table = self.timetable
        found: list[tuple[UtcMs, int, Fire]] = []
        for entry in table.by_due():
            slot, offset_ms = entry.next_fire, entry.offset_ms
            assert slot is not None
            if len(found) >= most and heapq.nsmallest(most, found)[-1][0] <= slot + offset_ms:
                break
            for id_ in table.first_ids(entry, most):
                after = UtcMs(max(slot - 1, table.effective_from(id_)))
                window = slot_window(after, None, self._ends.get(id_))
                own = next_slot(entry.recurrence, window, after)
                if own is not None:
                    due = UtcMs(own + offset_ms)
                    found.append((due, id_, self.fire(id_, table.revision_id(id_), own, due)))
        return [fire for *_, fire in heapq.nsmallest(most, found)]

    def newest_due_slot(self, id_: int, now: UtcMs) -> UtcMs | None:
        """Return the newest slot of a schedule's present rule that is due, or None; a schedule at rest has none."""
        if id_ not in self.timetable:
            return None
        entry = self.timetable.entry(id_)
        window = slot_window(self.timetable.effective_from(id_), None, self._ends.get(id_))
        window = clip(window, through=UtcMs(now - entry.offset_ms))
        slot = entry.recurrence.latest_ms(UtcMs(window.through + 1))
        return slot if slot is not None and slot > window.after else None

    def watermark(self, now: UtcMs) -> UtcMs:
        """Return the due time up to which every slot has a row, once what is settled is committed."""
        through: int = min(now, self.planned_through)
        if self.next_at is not None:
            through = min(through, self.next_at - 1)
        if self.is_reading_at:
            through = min(through, self._at_read_after)
        for earliest in (self.earliest_unsettled_due(), self.takings.earliest_due()):
            if earliest is not None:
                through = min(through, earliest - 1)
        through = min((through, *self._changing.values(), *self._floors.values()))
        return UtcMs(through)
