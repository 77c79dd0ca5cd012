"""Changes of schedules, made exactly (design §4, *Edits are exact*).

At T the core withholds the schedule's slots after T. One transaction holds the new revision, effective from T, and a pending row
for each slot at or before T that has no outcome yet. Committed: the new rule is in force; failed: the old one. What was withheld
meanwhile is planned from whichever won.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.model import JournalEntry, Pause, SkipReason, State
from cronally.engine import pause_rows
from cronally.engine.hooks import tell_skipped
from cronally.engine.member import Member, member_of
from cronally.engine.records import ScheduleChange
from cronally.engine.settle import pending_entry, unsent_entry
from cronally.errors import UsageError
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.clock import Clock
    from cronally.domain.model import Fire, Kind
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.core import Core
    from cronally.engine.hooks import Hooks
    from cronally.engine.loop import Loop
    from cronally.engine.ports import Store
    from cronally.engine.records import Revised, StoredSchedule
    from cronally.engine.set_back import SetBack

_ASKED_AT_ONCE = (
    50  # changes that are worked out between two yields: 5 ms where others want the processor, too
)


class Wanted(NamedTuple):
    """What a schedule shall be after a change. pause: as it shall be, its ``since`` filled in by the change."""

    spec: ScheduleSpec
    pause: Pause | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of one schedule, as it was asked for. drop_pending: its pending fires, too. owner: of the apply that asks."""

    by: str
    action: str
    wanted: Wanted
    drop_pending: bool
    owner: str | None = None
    is_removal: bool = False


@dataclass(slots=True)
class _Begun:
    """A change that is being made: the schedule is withheld.

    Fields: old: as it is. kept: (fire time, kind) of what is not dropped, for it has been sent. unsettled: fires that become
        pending. rows: their entries, and those of what is dropped. future: as it will be. told: the entries that the change makes.
    """

    at: UtcMs
    stored: StoredSchedule
    change: Change
    old: Member | None
    kept: frozenset[tuple[UtcMs, Kind]]
    unsettled: list[Fire]
    rows: list[JournalEntry]
    future: Member | None = None
    told: Sequence[JournalEntry] = ()


class Changing:
    """Makes changes durable and brings the core in line with them.

    The caller makes one after the other, while the loop is ``steady`` and every pause that is over has ended.
    """

    def __init__(
        self, core: Core, store: Store, loop: Loop, set_back: SetBack, clock: Clock, hooks: Hooks
    ) -> None:
        self._core = core
        self._store = store
        self._loop = loop
        self._set_back = set_back
        self._clock = clock
        self._hooks = hooks

    async def create(self, at: UtcMs, wanted: Wanted, *, by: str, owner: str | None) -> None:
        """Create a schedule at *at*. owner: of the apply that does. Errors: Conflict (name taken), StoreError."""
        pause = wanted.pause and Pause(since=at, until=wanted.pause.until, note=wanted.pause.note, by=by)
        token = self._core.hold_watermark(at)
        members: list[Member] = []
        try:
            future = member_of(0, 0, wanted.spec, at, pause)
            revised = await self._store.change(
                ScheduleChange(
                    at=at,
                    by=by,
                    action="add" if owner is None else "apply",
                    name=wanted.spec.name,
                    new_spec=wanted.spec,
                    effective_from=at,
                    pause=pause,
                    owner=owner,
                    opened=pause_rows.opened(future, pause) if pause else (),
                )
            )
            members.append(member_of(revised.id, revised.revision_id, wanted.spec, at, pause))
        finally:
            self._loop.replan(self._core.end_creation(token, members))

    async def make(self, at: UtcMs, stored: StoredSchedule, change: Change) -> Revised:
        """Make a change at *at*. stored: as it was read; its pause may be over. Errors: Conflict, StoreError."""
        begun = self._begin(at, [(_awoken(stored, at), change)])
        revised: Revised | None = None
        try:
            [one] = begun
            gone: list[JournalEntry] = []
            asked = await self._asked(at, one)
            revised = await self._store.change(asked, gone=gone if self._hooks.wants_rows else None)
            self._note_done(one, revised, gone)
        finally:
            self._end(begun, [revised])
        self._find_unsettled(one)
        return revised

    async def make_together(
        self, at: UtcMs, wanted: Sequence[tuple[StoredSchedule, Change]]
    ) -> list[Revised]:
        """Make changes at *at*, in one transaction; otherwise as ``make``."""
        begun = self._begin(at, [(_awoken(stored, at), change) for stored, change in wanted])
        revised: list[Revised] = []
        try:
            gone: list[JournalEntry] = []
            asked = []
            for number, one in enumerate(begun, start=1):
                asked.append(await self._asked(at, one))
                if number % _ASKED_AT_ONCE == 0:
                    await self._clock.sleep(0)
            revised = await self._store.change_many(asked, gone=gone if self._hooks.wants_rows else None)
            rows: dict[int, list[JournalEntry]] = {}
            for row in gone:
                rows.setdefault(row.schedule_id, []).append(row)
            for one, done in zip(begun, revised, strict=True):
                self._note_done(one, done, rows.get(done.id, ()))
        finally:
            self._end(begun, revised or [None] * len(begun))
        for one in begun:
            self._find_unsettled(one)
        return revised

    def _begin(self, at: UtcMs, wanted: Sequence[tuple[StoredSchedule, Change]]) -> list[_Begun]:
        """Withhold the schedules of *wanted* changes, and with them what these drop."""
        members = {stored.id: _present(stored) for stored, _ in wanted}
        withheld: dict[int, list[Fire]] = {}
        for fire in self._core.begin_change({id_: old for id_, old in members.items() if old}, at):
            withheld.setdefault(fire.schedule_id, []).append(fire)
        begun = []
        for stored, change in wanted:
            kept = self._loop.begin_drop(stored.id) if change.drop_pending else frozenset()
            fires = withheld.get(stored.id, [])
            unsettled = fires
            if change.drop_pending:
                unsettled = [fire for fire in fires if (fire.fire_time, fire.kind) in kept]
            rows = [pending_entry(fire) for fire in unsettled]
            rows += [
                unsent_entry(fire, State.SKIPPED, reason=SkipReason.DROPPED)
                for fire in fires
                if fire not in unsettled
            ]
            begun.append(_Begun(at, stored, change, members[stored.id], kept, unsettled, rows))
        return begun

    async def _asked(self, at: UtcMs, one: _Begun) -> ScheduleChange:
        """Return what the store is to do."""
        stored, change, old = one.stored, one.change, one.old
        spec = None if change.wanted.spec == stored.spec else change.wanted.spec
        pause = _pause_from(at, change, None if spec else stored.pause)
        is_resumed = stored.pause is not None and pause is None
        effective_from = at if spec or is_resumed or change.is_removal else stored.effective_from
        future = None
        if not change.is_removal:
            revision_id = 0 if spec else stored.revision_id
            future = member_of(stored.id, revision_id, spec or stored.spec, effective_from, pause)
        closed = pause_rows.closed(old, stored.pause, at) if old and stored.pause else ()
        opened = pause_rows.opened(future, pause) if future and pause else ()
        cut: Sequence[JournalEntry] = ()
        if spec is None and pause and stored.pause and pause.since == stored.pause.since:
            closed, opened = pause_rows.unless_both(closed, opened)
        elif at < self._core.relived.through:  # later slots may have rows
            if pause and future:
                pause, opened = await self._set_back.begin_pause(future, pause)
            elif stored.pause:
                cut = await self._set_back.cut_pauses(stored.id, at)
                self._core.relived.forget_pauses(stored.id)
        one.future, one.told = future, (*closed, *opened, *one.rows)
        return ScheduleChange(
            at=at,
            by=change.by,
            action=change.action,
            id=stored.id,
            expected_revision_id=stored.revision_id,
            new_spec=spec,
            effective_from=effective_from,
            pause=pause,
            owner=change.owner,
            is_removal=change.is_removal,
            unsettled=tuple(one.rows),
            closed=(*closed, *cut),
            opened=opened,
            drop_pending=change.drop_pending,
            kept=one.kept,
        )

    def _note_done(self, one: _Begun, revised: Revised, gone: Sequence[JournalEntry]) -> None:
        """The store has made a change, and dropped what is *gone*."""
        one.future = one.future and one.future._replace(revision_id=revised.revision_id)
        tell_skipped(
            self._hooks,
            (row._replace(revision_id=row.revision_id or revised.revision_id) for row in one.told),
        )
        for kind, count in revised.dropped:
            told = [row for row in gone if row.kind is kind]
            self._hooks.put_aside(SkipReason.DROPPED, kind, count, told)

    def _end(self, begun: Sequence[_Begun], revised: Sequence[Revised | None]) -> None:
        """Let go of what was withheld: the new rule is in force where the change was made, the old one where it was not."""
        for one, done in zip(begun, revised, strict=True):
            winner = one.old if done is None else one.future
            if one.change.drop_pending:
                self._loop.end_drop(one.stored.id, is_done=done is not None)
            if one.old:
                self._loop.replan(self._core.end_change(one.stored.id, winner))
            elif winner:
                self._loop.replan(self._core.end_creation(self._core.hold_watermark(one.at), [winner]))

    def _find_unsettled(self, one: _Begun) -> None:
        """What was on its way when the change was made is pending now."""
        spec = one.stored.spec
        if spec.is_fifo:
            self._loop.retrying.expect_in_group(
                [fire for fire in one.unsettled if not self._core.note_row(fire)], spec
            )
        else:
            self._loop.retrying.expect_unheld(one.unsettled)


def _is_over(pause: Pause, at: UtcMs) -> bool:
    return pause.until is not None and pause.until <= at


def _awoken(stored: StoredSchedule, at: UtcMs) -> StoredSchedule:
    """Return a schedule as it is at *at*: its pause may have ended since it was read."""
    if stored.pause is None or not _is_over(stored.pause, at):
        return stored
    return replace(stored, pause=None, effective_from=_awake_from(stored))


def _awake_from(stored: StoredSchedule) -> UtcMs:
    assert stored.pause is not None
    assert stored.pause.until is not None
    return UtcMs(max(stored.pause.until - 1, stored.effective_from))


def _pause_from(at: UtcMs, change: Change, present: Pause | None) -> Pause | None:
    """Return the pause that *change* makes at *at*; it goes on since *present* began, if there is one."""
    pause = change.wanted.pause
    if pause is None or _is_over(pause, at):
        return None
    return replace(pause, since=at if present is None else present.since, by=change.by)


def _present(stored: StoredSchedule) -> Member | None:
    """Return the schedule as it is, or None if its rule cannot be compiled any more (its zone left tzdata)."""
    try:
        return member_of(stored.id, stored.revision_id, stored.spec, stored.effective_from, stored.pause)
    except UsageError:
        return None
