"""The pass of the engine: plan, arm, wait, release (design §4).

Three tasks share the core. *Planning* runs a horizon ahead: it takes what is due, loads the messages, packs and arms them.
*Releasing* waits for the instant itself and writes what is armed. *Retrying* sends pending fires when their time has come.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.batching import pack
from cronally.domain.message import compose
from cronally.domain.model import MISSED_AFTER_MS, CatchUp, Kind, SkipReason, State
from cronally.engine.fifo import GroupKey, place_of
from cronally.engine.settle import deadline_of, entry_for, unsent_entry
from cronally.errors import NotReady, StoreError
from cronally.instants import MAX_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from cronally.clock import Clock
    from cronally.domain.batching import Batch
    from cronally.domain.message import Entry
    from cronally.domain.model import Fire, FireKey, JournalEntry
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.core import Core
    from cronally.engine.hooks import Hooks
    from cronally.engine.ports import Armed, Outcome, Publisher, Store
    from cronally.engine.recovery import Recovery
    from cronally.engine.settle import Settler

HORIZON_MS = 2_000
STEP_MS = 1_000  # design §9: a larger difference between the clocks is a step or a resume
_SLICE = 500  # fires composed between two yields to the event loop
_RETRY_PAGE = 500  # pending fires sent together
_MAX_RETRYING = 2_000  # pending fires on their way at once
_STORE_RETRY_S = 0.2
_ON_TIME_MS = 1_000  # the shortest deadline: a batch released within it needs no check


class _Checked(NamedTuple):
    """An armed request, and how many withdrawals there had been when all its entries were last known to be good."""

    armed: Armed
    withdrawals: int


class Loop:
    """Drives the core. One per engine."""

    def __init__(
        self,
        core: Core,
        store: Store,
        publisher: Publisher,
        settler: Settler,
        recovery: Recovery,
        clock: Clock,
        hooks: Hooks,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._core = core
        self._store = store
        self._publisher = publisher
        self._settler = settler
        self._recovery = recovery
        self._clock = clock
        self._hooks = hooks
        self._jitter = jitter
        self._armed: dict[UtcMs, list[_Checked]] = {}
        self._armed_instants: list[UtcMs] = []
        self._withdrawals = 0
        self._wants_release = asyncio.Event()
        self._wants_plan = asyncio.Event()
        self._wants_retry = asyncio.Event()
        self._has_room = asyncio.Event()
        self._idle = asyncio.Event()
        self._sooner: list[Fire] = []
        self._ready: list[Fire] = []
        self._retrying: set[FireKey] = set()
        self._wants_groups = False
        self._recover_because: str | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._is_stopping = False
        self._is_half_recovered = False
        self.recovering = asyncio.Lock()
        """Held by recovery, and by what must not meet it halfway."""

    # --- what others call -------------------------------------------------------------------------------------------

    async def run(self, first: Sequence[Fire] = ()) -> None:
        """Send *first*, then fire everything on time, until cancelled or ``stop``."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._sooner += first
            tasks.create_task(self._plan_for_ever(), name="plan")
            tasks.create_task(self._release_for_ever(), name="release")
            tasks.create_task(self._retry_for_ever(), name="retry")

    @asynccontextmanager
    async def steady(self) -> AsyncIterator[None]:
        """For a change, from when it withholds schedules until they are planned anew: recovery waits, or has been.

        Errors: NotReady if recovery has begun and the store does not let it finish: whose slots are whose is not known.
        """
        async with self.recovering:
            if self._is_half_recovered:
                raise NotReady(
                    "the daemon cannot read its store to decide on missed fires; try again in a moment"
                )
            # What a change finds unsettled is not settled behind its back.
            async with self._settler.committing:
                yield

    def replan(self, fires: Iterable[Fire] = ()) -> None:
        """The timetable changed; *fires* were planned by the change and go at once."""
        self._sooner += fires
        self._wants_plan.set()
        self._wants_retry.set()

    def withdraw(self, fires: Sequence[Fire]) -> None:
        """*fires* are armed and no longer held: their requests are rebuilt without them before they leave."""
        if fires:
            self._withdrawals += 1

    async def put_on_record(self) -> None:
        """Make the outcomes known by now durable. Errors: StoreError."""
        await self._settler.flush()

    def begin_drop(self, schedule_id: int) -> frozenset[tuple[UtcMs, Kind]]:
        """Withhold what is planned or pending of a schedule; return (fire time, kind) of what stays: it has been sent."""
        self._withdrawals += 1
        self._ready = [fire for fire in self._ready if fire.schedule_id != schedule_id]
        return self._core.begin_drop(schedule_id)

    def end_drop(self, schedule_id: int, *, is_done: bool) -> None:
        """The change that drops has been made, or has failed."""
        self.replan(self._core.end_drop(schedule_id, is_done=is_done))
        if not is_done:
            self.look_for_pending()

    def look_for_pending(self) -> None:
        """Pending rows were written, or let go of: find those that nobody holds."""
        self._wants_groups = True
        self._core.expect_pending(self._clock.wall())
        self._wants_retry.set()

    @asynccontextmanager
    async def sending_now(self, fire: Fire, spec: ScheduleSpec) -> AsyncIterator[None]:
        """For writing the pending row of a manual fire: once it is durable the fire is sent, or waits in its group."""
        self._core.begin_manual(fire)
        is_done = False
        try:
            yield
            is_done = True
        finally:
            if self._core.end_manual(fire, is_done=is_done):
                if not spec.is_fifo or self._takes_its_place(fire, spec):
                    self._ready.append(fire)
                else:
                    self._core.mark_waiting(fire)
                self._wants_retry.set()

    def _takes_its_place(self, fire: Fire, spec: ScheduleSpec) -> bool:
        """Let a manual fire into its group; whether it is the head."""
        key = GroupKey(spec.topic, spec.group_id or "")
        if self._is_waiting_for_plan(self._clock.wall()):
            self._core.groups.mark_busy(key)
            return False
        return self._core.groups.enter(key, place_of(fire, spec.name))

    def _is_waiting_for_plan(self, now: UtcMs) -> bool:
        """Whether slots are due that are not planned yet: what comes first in a group is not known."""
        return self._is_held_back() or self._core.is_overdue(now)

    def expect_in_group(self, fires: Iterable[Fire], spec: ScheduleSpec) -> None:
        """*fires* of a FIFO schedule are pending and nobody holds them: their group takes them when they are due."""
        for fire in fires:
            self._core.groups.open_at(GroupKey(spec.topic, spec.group_id or ""), fire.due_time)
        self._wants_retry.set()

    def note_committed(self) -> None:
        """Rows became durable: some may be pending."""
        self._wants_retry.set()
        self._note_idle()

    def stop(self) -> None:
        """Release nothing more."""
        self._is_stopping = True
        self._note_idle()

    async def drained(self) -> None:
        """Return when nothing is in flight, after ``stop``."""
        await self._idle.wait()

    # --- plan and arm -------------------------------------------------------------------------------------------------

    async def _plan_for_ever(self) -> None:
        core, clock = self._core, self._clock
        skew_ms = clock.wall() - clock.mono() * 1000
        while not self._is_stopping:
            now = clock.wall()
            step_ms = now - clock.mono() * 1000 - skew_ms
            if abs(step_ms) > STEP_MS:
                skew_ms += step_ms
                self._hooks.clock_stepped(int(step_ms))
            if step_ms > STEP_MS:
                self._recover_because = "clock step"
            elif self._settler.is_blocked:
                self._is_held_back()
                await clock.wait(None, self._wants_plan)
                continue
            elif core.is_behind(now):
                self._recover_because = self._recover_because or "stall"
            if self._recover_because is not None:
                await self._recover(self._recover_because)
                now = clock.wall()
            withdrawals = self._withdrawals
            fires, self._sooner = list(dict.fromkeys(self._sooner)), []
            fires += core.plan(UtcMs(now + HORIZON_MS))
            fires += await self._read_single_instants(UtcMs(now + HORIZON_MS))
            if fires:
                self._hooks.planned(fires)
                await self._send(fires, withdrawals, is_planned=True)
                self._wants_retry.set()
            due = core.next_due()
            if not self._sooner and self._recover_because is None:
                await clock.wait(None if due is None else UtcMs(due - HORIZON_MS), self._wants_plan)

    async def _recover(self, reason: str) -> None:
        """Let go of all that is armed and have the slots up to now decided anew."""
        watermark = self._core.watermark(self._clock.wall())
        floor = self._core.hold_watermark(watermark)
        pending: list[Fire] = []
        while True:
            async with self.recovering:
                pending += self._disarm()
                try:
                    fires = await self._recovery.run(reason, watermark)
                except StoreError as exc:
                    self._is_half_recovered = True
                    self._hooks.store_failed(exc)
                else:
                    self._is_half_recovered = False
                    self._sooner += fires + pending
                    break
            await self._clock.sleep(_STORE_RETRY_S)
        self._core.let_watermark(floor)
        self._recover_because = None
        self._wants_release.set()
        self._wants_retry.set()

    def _disarm(self) -> list[Fire]:
        """Let go of what is armed or about to be; return those that have a pending row, which recovery leaves alone."""
        armed = [checked.armed for each in self._armed.values() for checked in each]
        fires = [entry.fire for one in armed for entry in one.batch.entries] + self._sooner
        self._armed.clear()
        self._armed_instants.clear()
        self._sooner = []
        self._withdrawals += 1
        return [fire for fire in fires if self._core.may_release(fire) and self._core.has_row(fire)]

    async def _read_single_instants(self, through: UtcMs) -> list[Fire]:
        core = self._core
        if core.next_at is None or core.next_at > through:
            return []
        after = core.begin_at_read(through)
        try:
            fires = await self._store.at_between(after, through)
            next_at = await self._store.next_at(through)
        except StoreError as exc:
            core.abandon_at_read()
            self._hooks.store_failed(exc)
            await self._clock.sleep(_STORE_RETRY_S)
            return []
        return core.end_at_read(fires, next_at)

    async def _send(self, fires: Sequence[Fire], withdrawals: int, *, is_planned: bool = False) -> None:
        """Compose, pack and arm *fires*, each for its due time; what is due already leaves at once.

        withdrawals: how many there had been when *fires* were held. is_planned: should the store not give their specs
        until they count as missed, they are left to recovery.
        """
        by_instant: dict[UtcMs, list[Entry]] = {}
        now = self._clock.wall()
        patience = MAX_UTC_MS
        if is_planned:
            patience = UtcMs(max(now, min(fire.due_time for fire in fires) + MISSED_AFTER_MS))
        for start in range(0, len(fires), _SLICE):
            some = fires[start : start + _SLICE]
            specs = await self._load_specs(some, patience)
            if specs is None:
                self._sooner[:0] = fires
                self._recover_because = "store"
                return
            for fire in some:
                spec = specs[fire.revision_id]
                dated = fire._replace(deadline_at=deadline_of(fire, spec.deadline))
                instant = UtcMs(max(fire.due_time, now))
                by_instant.setdefault(instant, []).append(compose(spec, dated))
        for instant in sorted(by_instant):
            entries = sorted(by_instant[instant], key=_sending_order)
            await self._arm(pack(entries), instant, withdrawals)

    async def _arm(self, batches: Sequence[Batch], instant: UtcMs, withdrawals: int) -> None:
        """Arm *batches*; those that lost an entry to a change meanwhile are rebuilt from the others."""
        while batches:
            armed = await self._publisher.arm(batches, instant)
            whole: list[_Checked] = []
            left: list[Entry] = []
            for one in armed:
                held = [entry for entry in one.batch.entries if self._core.may_release(entry.fire)]
                if len(held) == len(one.batch.entries):
                    whole.append(_Checked(one, withdrawals))
                else:
                    left += held
                    for entry in one.batch.entries:
                        if entry not in held:
                            self._note_retried(entry.fire)
            if whole:
                if instant not in self._armed:
                    self._armed[instant] = []
                    heapq.heappush(self._armed_instants, instant)
                self._armed[instant] += whole
                self._wants_release.set()
            batches = pack(left)

    async def _load_specs(
        self, fires: Sequence[Fire], until: UtcMs = MAX_UTC_MS
    ) -> dict[int, ScheduleSpec] | None:
        """Return the specs of *fires*; None if the store did not give them by *until*."""
        wanted = list({fire.revision_id for fire in fires})
        while True:
            try:
                return await self._store.specs(wanted)
            except StoreError as exc:
                self._hooks.store_failed(exc)
                if self._clock.wall() > until:
                    return None
                await self._clock.sleep(_STORE_RETRY_S)

    # --- wait and release ---------------------------------------------------------------------------------------------

    async def _release_for_ever(self) -> None:
        clock = self._clock
        while not self._is_stopping:
            if self._is_held_back():
                await clock.wait(None, self._wants_release)
                continue
            instant = self._armed_instants[0] if self._armed_instants else None
            await clock.wait(instant, self._wants_release, precise=True)
            now = clock.wall()
            if self._is_held_back():
                continue
            while self._armed_instants and self._armed_instants[0] <= now and not self._is_stopping:
                if now - self._armed_instants[0] > MISSED_AFTER_MS:
                    self._recover_because = "stall"
                    self._wants_plan.set()
                    break
                self._release(heapq.heappop(self._armed_instants), now)

    def _is_held_back(self) -> bool:
        """Whether nothing may leave before recovery has decided anew."""
        if self._recover_because is None and self._settler.is_blocked:
            self._recover_because = "store"
        return self._recover_because is not None

    def _release(self, instant: UtcMs, now: UtcMs) -> None:
        ready: list[Armed] = []
        again: list[Entry] = []
        batches = self._armed.pop(instant)
        is_on_time = now - instant < _ON_TIME_MS
        sure = [
            is_on_time
            and withdrawals == self._withdrawals
            and instant == armed.batch.entries[0].fire.due_time
            and not _is_fifo(armed.batch)
            for armed, withdrawals in batches
        ]
        # Before the others are looked at: a fire that was withdrawn and planned anew is armed twice, and goes once.
        for (armed, _), is_sure in zip(batches, sure, strict=True):
            if is_sure:
                self._core.mark_in_flight(entry.fire for entry in armed.batch.entries)
        for (armed, _), is_sure in zip(batches, sure, strict=True):
            entries = armed.batch.entries
            going = entries if is_sure else [entry for entry in entries if self._may_go(entry, now)]
            if len(going) < len(entries):
                again += going
                continue
            ready.append(armed)
            if not is_sure:
                self._core.mark_in_flight(entry.fire for entry in entries)
        if ready:
            self._publisher.release(ready, self._settle)
            fires = [entry.fire for armed in ready for entry in armed.batch.entries]
            self._hooks.released(fires, self._clock.wall_us() - instant * 1000)
        if again and self._tasks is not None:
            self._tasks.create_task(self._arm(pack(again), now, self._withdrawals), name="rearm")

    def _may_go(self, entry: Entry, now: UtcMs) -> bool:
        """Check a fire at the last moment; False if it does not go now, and then it is seen to otherwise."""
        fire = entry.fire
        if not self._core.may_release(fire):
            self._note_retried(fire)
            return False
        if now > fire.deadline_at:
            self._conclude(fire, unsent_entry(fire, State.EXPIRED))
            return False
        if entry.deduplication is None or self._core.groups.head_of(fire) is not None:
            return True
        key, place = GroupKey(entry.topic, entry.group or ""), place_of(fire, entry.name)
        if self._core.groups.enter(key, place):
            return True
        if self._core.groups.is_waiting(key, place):
            self._core.mark_waiting(fire)
        else:
            self._core.mark_settled(fire)
        self._settler.add([unsent_entry(fire, State.PENDING, next_attempt_at=fire.due_time)])
        self._note_retried(fire)
        return False

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        """Take the outcomes of attempts, as the publisher reports them."""
        rows = []
        for outcome in outcomes:
            row = entry_for(outcome, deadline_at=outcome.fire.deadline_at, jitter=self._jitter())
            self._core.mark_settled(outcome.fire)
            self._after_attempt(outcome.fire, row)
            rows.append(row)
        self._settler.add(rows)
        self._note_idle()

    def _conclude(self, fire: Fire, row: JournalEntry) -> None:
        """Settle a fire without an attempt."""
        self._core.mark_settled(fire)
        self._after_attempt(fire, row)
        self._settler.add([row])

    def _after_attempt(self, fire: Fire, row: JournalEntry) -> None:
        self._note_retried(fire)
        groups = self._core.groups
        if groups.head_of(fire) is None:
            return
        if row.state is State.PENDING and row.next_attempt_at is not None:
            failed = fire._replace(attempts=row.attempts, maybe_published=row.maybe_published)
            groups.replace_head(failed, row.next_attempt_at)
        else:
            following = groups.finish(fire)
            if following is not None:
                self._ready.append(following)
        self._wants_retry.set()

    def _note_retried(self, fire: Fire) -> None:
        if fire.key in self._retrying:
            self._retrying.discard(fire.key)
            self._has_room.set()

    def _note_idle(self) -> None:
        if self._is_stopping and self._core.in_flight_count() == 0:
            self._idle.set()

    # --- retry --------------------------------------------------------------------------------------------------------

    async def _retry_for_ever(self) -> None:
        core, clock = self._core, self._clock
        while not self._is_stopping:
            now = clock.wall()
            if self._is_waiting_for_plan(now):
                self._wants_plan.set()
                await clock.wait(None, self._wants_retry)
                continue
            try:
                if self._wants_groups:
                    await self._recovery.find_groups()
                    self._wants_groups = False
                await self._retry_groups(now)
                await self._retry_pending(now)
            except StoreError as exc:
                self._hooks.store_failed(exc)
                core.expect_pending(now)
                await clock.sleep(_STORE_RETRY_S)
                continue
            if not self._ready:
                instants = (core.next_pending, core.groups.next_retry())
                await clock.wait(
                    min((at for at in instants if at is not None), default=None), self._wants_retry
                )

    async def _retry_groups(self, now: UtcMs) -> None:
        groups = self._core.groups
        wanting = groups.wanting(now)
        for key in wanting:
            groups.begin_refill(key)
        try:
            if wanting:
                await self._settler.flush()
            while wanting:
                await self._refill(wanting[-1], now)
                wanting.pop()
        except StoreError:
            for key in wanting:
                groups.mark_busy(key)
            raise
        fires = []
        for fire in self._ready + groups.retries_due(now):
            if self._core.mark_planned(fire):
                fires.append(fire)
            elif not self._core.is_in_flight(fire):
                groups.give_up_head(fire)
        self._ready = []
        await self._attempt(fires, now)

    async def _refill(self, key: GroupKey, now: UtcMs) -> None:
        groups = self._core.groups
        page = await self._store.group_pending(key.topic, key.group, limit=_RETRY_PAGE)
        specs = await self._store.specs([pending.fire.revision_id for pending in page])
        due = [pending for pending in page if pending.fire.due_time <= now]
        if len(due) < len(page):
            groups.open_at(key, page[len(due)].fire.due_time)
        places = [place_of(p.fire, specs[p.fire.revision_id].name) for p in due]
        head = groups.refill(key, places, is_all=len(due) < _RETRY_PAGE)
        if head is not None:
            next_attempts = {p.fire.key: p.next_attempt_at for p in due}
            groups.retry_head(head, next_attempts.get(head.key, now))

    async def _retry_pending(self, now: UtcMs) -> None:
        core = self._core
        if core.next_pending is None or core.next_pending > now:
            return
        core.next_pending = None
        after: tuple[UtcMs, int, UtcMs, str] | None = None
        while True:
            # During a commit a fire may seem to be pending that is settled.
            async with self._settler.committing:
                page = await self._store.pending_due(now, after=after, limit=_RETRY_PAGE)
                fires = [p.fire for p in page if core.hold(p.fire, has_row=True)]
            await self._attempt(fires, now)
            if len(page) < _RETRY_PAGE:
                break
            last = page[-1]
            after = (last.next_attempt_at, last.fire.schedule_id, last.fire.fire_time, str(last.fire.kind))
            while len(self._retrying) > _MAX_RETRYING - _RETRY_PAGE:
                self._has_room.clear()
                await self._has_room.wait()
        following = await self._store.next_pending(now)
        if following is not None:
            core.expect_pending(following)

    async def _attempt(self, fires: Sequence[Fire], now: UtcMs) -> None:
        """Send pending fires that are held, less those a newer slot makes needless."""
        if not fires:
            return
        withdrawals = self._withdrawals
        specs = await self._load_specs(fires)
        assert specs is not None
        going = []
        for fire in fires:
            spec = specs[fire.revision_id]
            if not self._core.may_release(fire):  # dropped meanwhile
                continue
            if self._is_superseded(fire, spec, now):
                row = unsent_entry(fire, State.SKIPPED, reason=SkipReason.SUPERSEDED)
                self._conclude(fire, row)
            else:
                going.append(fire._replace(deadline_at=deadline_of(fire, spec.deadline)))
        self._retrying.update(fire.key for fire in going)
        await self._send(going, withdrawals)

    def _is_superseded(self, fire: Fire, spec: ScheduleSpec, now: UtcMs) -> bool:
        """Design §4, ``latest``: a slot over 10 s late goes no more once a newer one is due."""
        if spec.catch_up is not CatchUp.LATEST or fire.kind is not Kind.SCHEDULED:
            return False
        if now - fire.due_time <= MISSED_AFTER_MS:
            return False
        newest = self._core.newest_due_slot(fire.schedule_id, now)
        return newest is not None and newest > fire.fire_time


def _is_fifo(batch: Batch) -> bool:
    return batch.topic.endswith(".fifo")


def _sending_order(entry: Entry) -> tuple[int, UtcMs, UtcMs, str]:
    return (-entry.priority, entry.fire.due_time, entry.fire.fire_time, entry.name)
