"""A wall clock that was set back: what the journal says of a time that is to come again (design §9).

What was published, or tried, stays so: nothing fires twice. What was only decided (skipped or expired without an attempt, by
a clock that was ahead) is taken back and decided anew, and so is every instant later than now at which a schedule was changed or paused: its
rule is in force from now on. Running it twice takes nothing back twice.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.model import JournalEntry, Pause, SkipReason
from cronally.domain.policy import Window, range_in
from cronally.engine import pause_rows
from cronally.engine.member import member_of
from cronally.engine.records import OWN_NAME, ScheduleChange
from cronally.errors import UsageError
from cronally.instants import MIN_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from cronally.clock import Clock
    from cronally.domain.slots import Slots
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.core import Core
    from cronally.engine.member import Member
    from cronally.engine.ports import Store
    from cronally.engine.records import StoredSchedule

_SLICE = 200  # rows or schedules between two yields to the event loop


class TakenBack(NamedTuple):
    """From which watermark the slots are to be decided anew, and up to which due time an entry said ``maybe_published``."""

    watermark: UtcMs
    doubted_through: UtcMs


class _Begun(NamedTuple):
    """A run that recovery has not followed yet. floor: the token that keeps the watermark back."""

    at: UtcMs
    floor: int
    taken: TakenBack


class SetBack:
    """Brings store and core in line with a clock that shows a time for the second time."""

    def __init__(self, core: Core, store: Store, clock: Clock) -> None:
        self._core = core
        self._store = store
        self._clock = clock
        self._begun: _Begun | None = None

    async def run(self, now: UtcMs, *, watermark: UtcMs, reached: UtcMs) -> TakenBack:
        """Take back what was decided of slots later than *now*; what a recovery is to be run with follows.

        Args: now: when the clock was set back; a run again goes by what the first one was told, also that of an earlier daemon.
            reached: the latest instant the clock had shown.
        Errors: StoreError; then it is to be run again. The watermark stays back until ``done``.
        """
        # What an earlier run that failed has taken back is not to be found any more.
        taken = TakenBack(watermark, MIN_UTC_MS)
        if self._begun is not None:
            now, taken = UtcMs(min(now, self._begun.at)), self._begun.taken
        taken = taken._replace(watermark=UtcMs(min(taken.watermark, watermark, now)))
        async for page in self._decided_beyond(now):
            anew = [entry for entry in page if self._is_decided_anew(entry)]
            taken = TakenBack(
                UtcMs(min([taken.watermark, *(entry.due_time - 1 for entry in anew)])),
                max(
                    [taken.doubted_through, *(entry.last_due_time for entry in anew if entry.maybe_published)]
                ),
            )
        self._hold(now, taken)  # before the rows go: without them their slots are to be decided anew
        # Where the rows told of doubts, that instant has to: whoever goes on after a crash knows of nothing else.
        doubted_through = max(taken.doubted_through, self._core.most_doubted())
        await self._store.set_back(
            at=now, watermark=taken.watermark, reached=UtcMs(max(reached, doubted_through))
        )
        async for page in self._decided_beyond(now):
            specs = await self._store.specs([entry.revision_id for entry in page])
            await self._store.amend([self._amended(entry, specs[entry.revision_id], now) for entry in page])
        name = ""
        while changed := await self._store.changed_beyond(now, after=name, limit=_SLICE):
            for stored, is_rested in changed:
                if self._core.here.has(stored.id):
                    await self._bring_forward(stored, now, is_rested=is_rested)
            name = changed[-1][0].spec.name
            await self._clock.sleep(0)
        self._core.relived.begin(reached)
        self._core.relived.forget_pauses()
        async for page in self._decided_beyond(now):
            for entry in page:
                self._core.relived.keep_range(entry)
        self._core.expect_pending(now)
        await self._store.end_set_back()
        return taken

    def _is_decided_anew(self, entry: JournalEntry) -> bool:
        """Whether recovery would decide all slots of *entry*: the rule they are of is in force, and has been since."""
        id_, table = entry.schedule_id, self._core.timetable
        if entry.reason is SkipReason.PAUSED:
            return False
        if id_ not in table or table.revision_id(id_) != entry.revision_id:
            return False
        return table.effective_from(id_) < entry.fire_time and entry.due_time > self._core.pruned_through

    def _amended(self, entry: JournalEntry, spec: ScheduleSpec, now: UtcMs) -> JournalEntry:
        """Return what is left of an entry that reaches beyond *now*."""
        if self._is_decided_anew(entry):
            return entry._replace(count=0)
        if entry.reason is SkipReason.PAUSED or (entry.maybe_published and entry.count == 1):
            return entry  # it stays paused; somebody may have got it
        try:
            slots = spec.recurrence().slots
        except UsageError:  # its zone has left tzdata, say: it has no slots to come
            return entry
        return cut_row(entry, slots, UtcMs(max(now, self._core.pruned_through)))

    def done(self) -> None:
        """That recovery has succeeded."""
        if self._begun is not None:
            self._core.let_watermark(self._begun.floor)
            self._begun = None

    def _hold(self, at: UtcMs, taken: TakenBack) -> None:
        floor = self._core.hold_watermark(taken.watermark)
        self.done()
        self._begun = _Begun(at, floor, taken)

    async def _decided_beyond(self, now: UtcMs) -> AsyncIterator[list[JournalEntry]]:
        """Yield the entries of slots still to come that recovery has decided without an attempt."""
        place: tuple[UtcMs, int, UtcMs] | None = None
        while page := await self._store.decided_beyond(now, after=place, limit=_SLICE):
            last = page[-1]
            place = (last.last_due_time, last.schedule_id, last.fire_time)
            yield [entry for entry in page if self._core.here.has(entry.schedule_id)]
            await self._clock.sleep(0)

    async def _bring_forward(self, stored: StoredSchedule, now: UtcMs, *, is_rested: bool) -> None:
        """Let a schedule be as it is, but from *now* on. is_rested: its pause ended by itself: what that covers stays paused."""
        effective_from = UtcMs(min(stored.effective_from, now))
        pause = stored.pause and replace(stored.pause, since=UtcMs(min(stored.pause.since, now)))
        closed: Sequence[JournalEntry] = ()
        opened: Sequence[JournalEntry] = ()
        member = None
        with suppress(UsageError):  # its zone has left tzdata, say: it has no slots
            member = member_of(stored.id, stored.revision_id, stored.spec, effective_from, pause)
        if member is not None and stored.pause is None and not is_rested:
            closed = await self.cut_pauses(stored.id, now)
        elif member is not None and stored.pause is not None and pause is not None and pause != stored.pause:
            old = member_of(stored.id, stored.revision_id, stored.spec, stored.effective_from, stored.pause)
            closed = pause_rows.closed(old, stored.pause, MIN_UTC_MS)
            pause, opened = await self.begin_pause(member, pause)
        await self._store.change(
            ScheduleChange(
                at=now,
                by=OWN_NAME,
                action="set-back",
                id=stored.id,
                expected_revision_id=stored.revision_id,
                effective_from=effective_from,
                pause=pause,
                closed=tuple(closed),
                opened=tuple(opened),
            )
        )
        if member is not None:
            self._core.reload(member if pause is None else member._replace(paused_since=pause.since))

    async def begin_pause(self, member: Member, pause: Pause) -> tuple[Pause, pause_rows.Rows]:
        """Return *pause* of a schedule whose later slots may have rows, and the rows it makes. Errors: StoreError."""
        entries = await self._store.entries_beyond(member.id, pause.since)
        spans = [(entry.fire_time, entry.last_slot) for entry in entries]
        spans += self._core.held_beyond(member.id, pause.since)
        return pause_rows.begun(member, pause, sorted(spans))

    async def cut_pauses(self, schedule_id: int, at: UtcMs) -> list[JournalEntry]:
        """Return the rows of pauses of a schedule that reach beyond *at*, cut: it is not paused any more."""
        entries = await self._store.entries_beyond(schedule_id, at)
        paused = [entry for entry in entries if entry.reason is SkipReason.PAUSED]
        specs = await self._store.specs([entry.revision_id for entry in paused])
        return [cut_row(entry, specs[entry.revision_id].recurrence().slots, at) for entry in paused]


def cut_row(entry: JournalEntry, slots: Slots, through: UtcMs) -> JournalEntry:
    """Return a range row as it is without its slots later than *through*; a count of 0 if none is left."""
    kept = range_in(slots, Window(UtcMs(entry.fire_time - 1), UtcMs(min(through, entry.last_slot))))
    if kept is None:
        return entry._replace(last_fire_time=entry.fire_time, count=0)
    return entry._replace(last_fire_time=kept.last, count=kept.slots)
