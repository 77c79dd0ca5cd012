"""Flips: everything that an apply has staged comes into force at one instant, in one transaction (design §4).

A large one takes effect a little ahead, so that the timetable can be brought in line in slices and every slot up to then is
the old rule's and every later one the new rule's.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from cronally.domain.spec import from_canonical
from cronally.engine.member import Member, member_of, member_of_row
from cronally.engine.records import StagedChange
from cronally.engine.settle import pending_entry
from cronally.errors import UsageError
from cronally.instants import MIN_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cronally.clock import Clock
    from cronally.domain.model import Fire
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.core import Core
    from cronally.engine.loop import Loop
    from cronally.engine.ports import Store
    from cronally.engine.records import Owned

_SLICE = 200  # schedules taken in between two yields to the event loop
_AHEAD_US = 40  # a bulk change takes effect this much later per schedule, so that it is committed by then
_SOON_MS = 60_000  # more than a bulk change may look ahead


class Flips:
    """Makes flips durable and brings the core in line with them."""

    def __init__(self, core: Core, store: Store, loop: Loop, clock: Clock) -> None:
        self._core = core
        self._store = store
        self._loop = loop
        self._clock = clock

    async def make(
        self, changes: Sequence[StagedChange], removed: Sequence[Owned], *, by: str, owner: str
    ) -> None:
        """Make the staged *changes*, and remove what is *removed*, in one transaction. The loop is ``steady``.

        None of them is at rest. Errors: StoreError; ShardElsewhere if one is not here.
        """
        await self._check_here([*changes, *removed])
        at = self._clock.wall()
        token = self._core.hold_watermark(at)
        old: dict[int, Member] = {}
        unsettled: list[Fire] = []
        created: list[Member] = []
        try:
            members = await self._present_members([*changes, *removed])
            count = len(changes) + len(removed)
            ahead_ms = count * _AHEAD_US // 1000 if count > _SLICE else 0
            while not await self._withhold(
                members, at := UtcMs(self._clock.wall() + ahead_ms), old, unsettled
            ):
                ahead_ms *= 2  # the machine is slower than that
            rows = await self._store.flip(
                at=at,
                by=by,
                owner=owner,
                unsettled=[pending_entry(fire) for fire in unsettled],
                removed=[one.id for one in removed],
            )
            for start in range(0, len(rows), _SLICE):
                for member in map(member_of_row, rows[start : start + _SLICE]):
                    if member.id in old:
                        del old[member.id]
                        self._loop.replan(self._core.end_change(member.id, member))
                    else:
                        created.append(member)
                await self._clock.sleep(0)
            for number, one in enumerate(removed):
                if old.pop(one.id, None) is not None:
                    self._loop.replan(self._core.end_change(one.id, None))
                if number % _SLICE == _SLICE - 1:
                    await self._clock.sleep(0)
        finally:
            self._let_go(old)
            await self._take_in(token, at, created)
        self._loop.retrying.expect_unheld(unsettled)

    async def _check_here(self, changes: Sequence[StagedChange | Owned]) -> None:
        """Errors: ShardElsewhere if that of one of *changes* is not here."""
        here = self._core.here
        if not here.absent:
            return
        for number, change in enumerate(changes, start=1):
            if change.id is not None:
                here.check(change.id)
            elif isinstance(change, StagedChange):
                here.check_new(from_canonical(change.name, change.document))
            if number % _SLICE == 0:
                await self._clock.sleep(0)

    async def _withhold(
        self, members: Mapping[int, Member], at: UtcMs, old: dict[int, Member], unsettled: list[Fire]
    ) -> bool:
        """Withhold *members* from *at* on, in slices; add what they are to *old*. False: it took until after *at*."""
        ids = list(members)
        for start in range(0, len(ids), _SLICE):
            if start and self._clock.wall() > at:
                self._let_go(old)
                unsettled.clear()
                return False
            some = {id_: members[id_] for id_ in ids[start : start + _SLICE]}
            old |= some
            unsettled += self._core.begin_change(some, at)
            await self._clock.sleep(0)
        return True

    def _let_go(self, old: dict[int, Member]) -> None:
        """The schedules that are still withheld stay as they are in *old*."""
        while old:
            id_, member = old.popitem()
            self._loop.replan(self._core.end_change(id_, member))

    async def _take_in(self, token: int, at: UtcMs, created: Sequence[Member]) -> None:
        for start in range(0, len(created), _SLICE):
            slice_token = self._core.hold_watermark(at)
            fires = self._core.end_creation(slice_token, created[start : start + _SLICE])
            self._loop.replan(fires)
            await self._clock.sleep(0)
        self._core.let_watermark(token)

    async def _present_members(self, changes: Sequence[StagedChange | Owned]) -> dict[int, Member]:
        """Return the schedules that *changes* are about as they are now, those that are new left out."""
        members: dict[int, Member] = {}
        for start in range(0, len(changes), _SLICE):
            single: dict[int, StagedChange | Owned] = {}
            for change in changes[start : start + _SLICE]:
                if change.id is None or change.revision_id is None:
                    continue
                member = self._core.member(change.id)
                if member is None:
                    single[change.revision_id] = change
                else:
                    members[change.id] = member
            specs = await self._store.specs(list(single)) if single else {}
            for revision_id, change in single.items():
                member = await self._single(change, revision_id, specs[revision_id])
                if member is not None:
                    members[member.id] = member
            await self._clock.sleep(0)
        return members

    async def _single(
        self, change: StagedChange | Owned, revision_id: int, spec: ScheduleSpec
    ) -> Member | None:
        """Return a schedule that the core does not keep: an ``@at`` one; None if its rule cannot be compiled any more."""
        assert change.id is not None
        effective_from = MIN_UTC_MS
        with suppress(UsageError):
            member = member_of(change.id, revision_id, spec, effective_from, None)
            assert member.recurrence.at_ms is not None
            if member.recurrence.at_ms < self._clock.wall() + _SOON_MS:  # only then it matters
                stored = await self._store.schedule(change.name)
                if stored is not None:
                    member = member._replace(effective_from=stored.effective_from)
            return member
        return None
