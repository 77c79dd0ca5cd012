"""A running engine takes in the schedules of a shard, or lets go of them, while all others go on (design §12).

1. What is taken in is decided up to an instant and on record before anything of it is planned; what is planned is later than that.
2. What is given up leaves no trace but records: each slot due at or before the instant returned has a row, and no later one has
   been sent.
3. Shards that come together are taken in together, those that leave one by one, and neither meets a change of a schedule or a
   recovery halfway: the lock of the edits, then that of recovery. While answers are awaited neither is held.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from cronally.domain.shards import SHARDS, shard_of_group
from cronally.engine.holding import Phase
from cronally.engine.records import GivenUp
from cronally.engine.recovery import Incoming
from cronally.engine.settle import MAX_UNCOMMITTED_S, pending_entry
from cronally.engine.unbroken import to_its_end
from cronally.errors import InternalError
from cronally.instants import MIN_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Container, Iterable, Sequence

    from cronally.clock import Clock
    from cronally.domain.model import Fire
    from cronally.engine.core import Core
    from cronally.engine.edits import Edits
    from cronally.engine.holding import Held
    from cronally.engine.loop import Loop
    from cronally.engine.ports import Store
    from cronally.engine.records import TakenIn
    from cronally.engine.recovery import Recovery
    from cronally.engine.settle import Settler

_SLICE = 200  # schedules taken in or let go between two yields to the event loop
_KEYS = 10_000  # held fires, or groups, looked at between two yields: 1 to 2 ms
_TOGETHER = 5_000  # rows of one commit

_T = TypeVar("_T")


class HandOver:
    """Takes shards in and gives them up. Of one engine."""

    def __init__(
        self,
        core: Core,
        store: Store,
        loop: Loop,
        edits: Edits,
        settler: Settler,
        recovery: Recovery,
        clock: Clock,
    ) -> None:
        self._core = core
        self._store = store
        self._loop = loop
        self._edits = edits
        self._settler = settler
        self._recovery = recovery
        self._clock = clock
        self._one = asyncio.Lock()
        self._given: dict[int, GivenUp] = {}

    # --- taking in ----------------------------------------------------------------------------------------------------

    async def take_in(self, taken: Sequence[TakenIn]) -> None:
        """Bring shards, whose records the store has, into the engine: what was due is decided by policy, what comes is planned.

        Every slot due by now has a row afterwards, so that the watermark of the other shards holds for these too.
        Errors: StoreError, and NotReady while recovery cannot finish or the clock is not believed; then nothing of the shards is
        in, and it is to be called again with the same *taken*.
        """
        async with self._one:
            for one in taken:
                if one.number not in self._core.here.absent:
                    raise InternalError(f"shard {one.number} is here already")
            async with self._edits.lock:
                await to_its_end(self._take_in(taken))

    async def _take_in(self, taken: Sequence[TakenIn]) -> None:
        core, numbers = self._core, {one.number for one in taken}
        async with self._loop.calm():
            await self._settler.flush()  # what an earlier call has decided
            now = self._clock.wall()
            watermarks = [_watermark(one, now) for one in taken]
            floor = core.hold_watermark(min(watermarks))
            try:
                members = [await self._recovery.members(one.rows) for one in taken]
                for one in taken:
                    if not one.was_clean:
                        await self._store.mark_unclean(one.number)
                now = self._clock.wall()
                newest = await self._store.newest_settled(now)
                incoming = [
                    Incoming(its, watermark, _reached(one, watermark, now, newest), one.was_clean)
                    for one, its, watermark in zip(taken, members, watermarks, strict=True)
                ]
                await self._recovery.decide(incoming, now)
                await self._recovery.find_groups(numbers)
                ahead = [one for one in incoming if one.reached > now]
                if ahead:
                    await self._mind_what_is_settled(ahead, now)
            except BaseException:
                for number in numbers:
                    self._forget_marks(number)
                raise
            else:
                for one, its in zip(taken, incoming, strict=True):
                    if its.reached > now and not its.was_clean:
                        core.doubts[one.number] = its.reached
                    core.here.absent.discard(one.number)
                    core.failing.update(one.failing)
                    self._given.pop(one.number, None)
                    async for some in self._slices(its.members):
                        self._loop.replan(core.take_in(some, now))
            finally:
                core.let_watermark(floor)
        self._loop.retrying.look_for_taken()

    async def _mind_what_is_settled(self, ahead: Sequence[Incoming], now: UtcMs) -> None:
        """Have the slots of shards whose machine's clock was ahead planned less those that have a row."""
        core, relived = self._core, self._core.relived
        members = [member for one in ahead for member in one.members]
        ids = {member.id for member in members}
        spread_ms = max([core.timetable.longest_offset_ms(), *(member.offset_ms for member in members)])
        if not relived.is_on:
            relived.restart(now, spread_ms)
        relived.widen(spread_ms)
        relived.begin(max(one.reached for one in ahead))
        await self._mind_ranges(ids, now)
        read_through = MIN_UTC_MS
        while read_through < (through := UtcMs(max(core.planned_through, relived.read_through))):
            found = await self._store.settled_slots(UtcMs(now - spread_ms), through)
            settled = {id_: spans for id_, spans in found.items() if id_ in ids}
            relived.add(settled, UtcMs(max(through, relived.read_through)), self._clock.wall())
            read_through = through

    async def _mind_ranges(self, ids: Container[int], now: UtcMs) -> None:
        """Have no slot planned that is in a range row which reaches beyond *now*: by its last slot it is read too late."""
        place: tuple[UtcMs, int, UtcMs] | None = None
        while page := await self._store.decided_beyond(now, after=place, limit=_SLICE):
            for entry in page:
                if entry.schedule_id in ids and entry.last_slot > entry.fire_time:
                    self._core.relived.keep_range(entry)
            last = page[-1]
            place = (last.last_due_time, last.schedule_id, last.fire_time)
            await self._clock.sleep(0)

    # --- giving up ----------------------------------------------------------------------------------------------------

    async def give_up(self, number: int) -> GivenUp:
        """Let go of a shard: from now on nothing of it is sent, and every slot of it up to the watermark returned has a row.

        Attempts that are open are awaited, and what becomes of them is on record. Asked again, it says the same until the shard is
        taken in again; the store may then let go of its records. Errors: StoreError, and NotReady while recovery cannot finish or
        the clock is not believed; then the shard stays.
        """
        here = self._core.here
        async with self._one:
            if number in self._given:
                return self._given[number]
            if number in here.absent:
                raise InternalError(f"shard {number} is not here")
            at = self._clock.wall()
            here.leaving.add(number)
            try:
                await self._landed(number)
                await self._settler.flush()
                async with self._edits.lock:
                    return await to_its_end(self._give_up(number, at))
            finally:
                if number in here.leaving:
                    self._stay(number)

    async def drain(self, timeout_s: float) -> None:
        """Send nothing more of what is here, and put on record what is answered within *timeout_s*. Errors: StoreError."""
        await self._loop.drain(timeout_s)
        await self._settler.flush()

    async def _landed(self, number: int) -> None:
        """Return when nothing of the shard is on its way."""
        flying = [held.fire async for held in self._held_of(number) if held.phase is Phase.IN_FLIGHT]
        while flying := [fire for fire in flying if self._core.is_in_flight(fire)]:
            await self._loop.answered()

    async def _give_up(self, number: int, at: UtcMs) -> GivenUp:
        core = self._core
        async with self._loop.calm():
            # The clock may have been set back meanwhile.
            at = UtcMs(min(at, await self._edits.pauses.end_all()))
            ids = core.ids_of(number)
            withheld: list[int] = []
            try:
                unsettled = await self._unread(number, at)
                async for some in self._slices(ids):
                    unsettled += core.begin_leaving(some, at)
                    withheld += some
                unsettled += [
                    held.fire
                    async for held in self._held_of(number)
                    if held.phase is Phase.PLANNED and not held.has_row and held.fire.due_time <= at
                ]
                await self._put_on_record({fire.key: fire for fire in unsettled}.values())
            except BaseException:
                async for some in self._slices(withheld):
                    for id_ in some:
                        core.end_change(id_, core.member(id_))
                raise
            core.here.absent.add(number)
            given = self._given[number] = GivenUp(at, was_clean=core.doubted_through_of(number) <= at)
            async for some in self._slices(ids):
                core.end_leaving(some)
            await self._let_go(number)
            core.here.leaving.discard(number)
        return given

    async def _unread(self, number: int, at: UtcMs) -> list[Fire]:
        """Return the slots due by *at* of the shard's ``@at`` schedules that planning has not read yet."""
        core = self._core
        after = core.at_read_through
        fires = await self._store.at_between(after, at) if after < at else []
        return [
            core.fire(fire.schedule_id, fire.revision_id, fire.fire_time, fire.due_time)
            for fire in fires
            if fire.schedule_id % SHARDS == number
            and not core.is_at_settled(fire)
            and not core.relived.has(fire.schedule_id, fire.fire_time)
        ]

    async def _put_on_record(self, unsettled: Iterable[Fire]) -> None:
        """Leave *unsettled* to the next machine, as pending."""
        fires = list(unsettled)
        for start in range(0, len(fires), _TOGETHER):
            some = fires[start : start + _TOGETHER]
            rows = [pending_entry(fire) for fire in some]
            await self._store.commit(rows, watermark=None)
            for fire in some:
                self._core.note_row(fire)
            await self._clock.sleep(0)

    async def _let_go(self, number: int) -> None:
        """Forget all that is held of a shard, or known of its groups."""
        core = self._core
        async for keys in self._slices(core.keys(), _KEYS):
            self._loop.let_go(core.let_go_unsent([key for key in keys if key[0] % SHARDS == number]))
        groups = set()
        async for some in self._slices(core.groups.keys(), _KEYS // 10):
            groups.update([key for key in some if shard_of_group(*key) == number])
        core.groups.drop(groups)
        self._loop.forget_ready(number)
        self._forget_marks(number)

    def _stay(self, number: int) -> None:
        """The shard has not left: what was held up goes on."""
        self._core.here.leaving.discard(number)
        planned, pending = self._core.resume_shard(number)
        self._loop.let_go(pending)
        self._loop.replan(planned)
        self._loop.retrying.look_for_lines()

    # --- what both do -------------------------------------------------------------------------------------------------

    def _forget_marks(self, number: int) -> None:
        failing = self._core.failing
        failing.difference_update([id_ for id_ in failing if id_ % SHARDS == number])
        self._core.doubts.pop(number, None)
        self._recovery.forget(number)

    async def _held_of(self, number: int) -> AsyncIterator[Held]:
        """Yield what is held of a shard, and was when it began."""
        async for keys in self._slices(self._core.keys(), _KEYS):
            for held in self._core.held_at([key for key in keys if key[0] % SHARDS == number]):
                yield held

    async def _slices(self, items: Sequence[_T], size: int = _SLICE) -> AsyncIterator[Sequence[_T]]:
        """Yield *items* some at a time; after each the event loop gets a turn."""
        for start in range(0, len(items), size):
            yield items[start : start + size]
            await self._clock.sleep(0)


def _watermark(taken: TakenIn, now: UtcMs) -> UtcMs:
    """Return from when the slots of a shard are to be decided: if nothing was ever committed, from when its schedules are in effect."""
    if taken.watermark is not None:
        return taken.watermark
    return min((row.effective_from for row in taken.rows), default=now)


def _reached(taken: TakenIn, watermark: UtcMs, now: UtcMs, newest: UtcMs | None) -> UtcMs:
    """Return up to when slots may be settled: later than *now* if the clock of a machine before was ahead of this one's."""
    reached = UtcMs(max(now, watermark, newest or now))
    if taken.was_clean:
        return reached
    known = taken.reached or MIN_UTC_MS
    if reached > max(now, known):
        # For so long it may have sent what is not on record.
        reached = UtcMs(reached + round(MAX_UNCOMMITTED_S * 1000))
    return UtcMs(max(reached, known))
