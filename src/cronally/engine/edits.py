"""What may be asked of schedules: to make, change, rest and remove them, one or many (design §4, *Edits are exact*).

Changes are made one at a time, when what came before them is on record. ``changing`` makes them exact, ``flips`` those of an apply.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cronally.engine.changing import Change, Changing, Wanted
from cronally.engine.flips import Flips
from cronally.engine.pause_ends import PauseEnds
from cronally.engine.settle import GROUP_COMMIT_S
from cronally.engine.unbroken import to_its_end

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.clock import Clock
    from cronally.domain.model import Pause
    from cronally.engine.core import Core
    from cronally.engine.hooks import Hooks
    from cronally.engine.loop import Loop
    from cronally.engine.ports import Store
    from cronally.engine.records import Owned, Revised, StagedChange, StoredSchedule
    from cronally.engine.set_back import SetBack


class Edits:
    """Has changes made, each in its turn.

    Attributes: lock. pauses: puts on record those that end by themselves.
    """

    def __init__(
        self, core: Core, store: Store, loop: Loop, set_back: SetBack, clock: Clock, hooks: Hooks
    ) -> None:
        self._core = core
        self._store = store
        self._loop = loop
        self._clock = clock
        self._changing = Changing(core, store, loop, set_back, clock, hooks)
        self._flips = Flips(core, store, loop, clock)
        self.lock = asyncio.Lock()
        """Held by whoever reads a schedule in order to change it."""
        self.pauses = PauseEnds(core, store, loop, self.lock, clock, hooks)

    async def create(self, wanted: Wanted, *, by: str, owner: str | None = None) -> None:
        """Create a schedule. The caller holds ``lock``. Errors: Conflict (name taken), StoreError, NotReady."""
        await to_its_end(self._create(wanted, by=by, owner=owner))

    async def _create(self, wanted: Wanted, *, by: str, owner: str | None) -> None:
        async with self._loop.steady():
            self._core.here.check_new(wanted.spec)
            await self._changing.create(self._clock.wall(), wanted, by=by, owner=owner)

    async def replace(
        self,
        stored: StoredSchedule,
        wanted: Wanted,
        *,
        by: str,
        action: str = "set",
        owner: str | None = None,
        drop_pending: bool = False,
    ) -> Revised:
        """Give a schedule a new revision, or another pause, or both. The caller holds ``lock``."""
        change = Change(by=by, action=action, wanted=wanted, owner=owner, drop_pending=drop_pending)
        return await to_its_end(self._change(stored, change))

    async def remove(
        self, stored: StoredSchedule, *, by: str, drop_pending: bool, owner: str | None = None
    ) -> int:
        """Remove a schedule; return how many pending fires remain. owner: of the apply that does. The caller holds ``lock``."""
        wanted = Wanted(stored.spec, None)
        change = Change(
            by=by,
            action="rm" if owner is None else "apply",
            wanted=wanted,
            owner=owner,
            drop_pending=drop_pending,
            is_removal=True,
        )
        return (await to_its_end(self._change(stored, change))).pending

    async def rest_many(
        self, some: Sequence[tuple[StoredSchedule, Pause | None]], *, by: str, action: str, drop_pending: bool
    ) -> list[Revised]:
        """Give schedules a pause, or end theirs, in one transaction. The caller holds ``lock``."""
        return await self._make_many(
            [
                (
                    stored,
                    Change(
                        by=by, action=action, wanted=Wanted(stored.spec, pause), drop_pending=drop_pending
                    ),
                )
                for stored, pause in some
            ]
        )

    async def remove_many(
        self, some: Sequence[StoredSchedule], *, by: str, drop_pending: bool
    ) -> list[Revised]:
        """Remove schedules in one transaction. The caller holds ``lock``."""
        return await self._make_many(
            [
                (
                    stored,
                    Change(
                        by=by,
                        action="rm",
                        wanted=Wanted(stored.spec, None),
                        drop_pending=drop_pending,
                        is_removal=True,
                    ),
                )
                for stored in some
            ]
        )

    async def _make_many(self, wanted: Sequence[tuple[StoredSchedule, Change]]) -> list[Revised]:
        return await to_its_end(self._change_many(wanted)) if wanted else []

    async def flip(
        self, changes: Sequence[StagedChange], *, by: str, owner: str, removed: Sequence[Owned] = ()
    ) -> None:
        """Make the staged *changes*, and remove what is *removed*, in one transaction. The caller holds ``lock``.

        None of them is at rest.
        """
        await to_its_end(self._flip(changes, removed, by=by, owner=owner))

    async def _flip(
        self, changes: Sequence[StagedChange], removed: Sequence[Owned], *, by: str, owner: str
    ) -> None:
        await self._put_old_on_record()
        async with self._loop.steady():
            await self._flips.make(changes, removed, by=by, owner=owner)

    async def _put_old_on_record(self) -> None:
        """Where commits are far apart, do not take for pending what has been published for seconds."""
        if self._store.commit_interval_s > GROUP_COMMIT_S:
            await self._loop.put_on_record()

    async def _change(self, stored: StoredSchedule, change: Change) -> Revised:
        await self._settle_before(drop_pending=change.drop_pending)
        async with self._loop.steady():
            stored = await self._as_it_is(stored)
            at = await self.pauses.end_all()
            return await self._changing.make(at, stored, change)

    async def _change_many(self, wanted: Sequence[tuple[StoredSchedule, Change]]) -> list[Revised]:
        await self._settle_before(drop_pending=any(change.drop_pending for _, change in wanted))
        async with self._loop.steady():
            wanted = [(await self._as_it_is(stored), change) for stored, change in wanted]
            at = await self.pauses.end_all()
            return await self._changing.make_together(at, wanted)

    async def _settle_before(self, *, drop_pending: bool) -> None:
        if drop_pending:  # what has failed becomes a pending row, so that it is dropped too
            await self._loop.put_on_record()
        else:
            await self._put_old_on_record()

    async def _as_it_is(self, stored: StoredSchedule) -> StoredSchedule:
        """Return a schedule that was read a moment ago. Errors: ShardElsewhere if it is not here any more."""
        if (
            self._clock.wall() < self._core.relived.through
        ):  # the clock may have been set back since it was read
            stored = await self._store.schedule(stored.spec.name) or stored
        self._core.here.check(stored.id)
        return stored
