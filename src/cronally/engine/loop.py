"""The pass of the engine: plan, arm, wait, release (design §4).

Three tasks share the core. *Planning*, here, runs a horizon ahead: it takes what is due and has it armed. ``Releasing`` waits
for the instant itself and writes what is armed. ``Retrying`` sends pending fires when their time has come.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from cronally.clock import within
from cronally.domain.shards import SHARDS
from cronally.engine.arming import DEFAULT_BUDGET_BYTES, SLICE, Arming
from cronally.engine.attempts import Attempts
from cronally.engine.backlog import Backlog
from cronally.engine.circuits import Circuits
from cronally.engine.departures import Departures
from cronally.engine.halt import Halt
from cronally.engine.pulse import PLAN, Pulse
from cronally.engine.releasing import Releasing
from cronally.engine.retrying import Retrying
from cronally.errors import NotReady, StoreError
from cronally.instants import MIN_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from cronally.clock import Clock
    from cronally.domain.model import Fire, Kind
    from cronally.engine.clock_watch import ClockWatch
    from cronally.engine.core import Core
    from cronally.engine.hooks import Hooks
    from cronally.engine.ports import Publisher, Store
    from cronally.engine.recovery import Recovery
    from cronally.engine.set_back import SetBack
    from cronally.engine.settle import Settler

HORIZON_MS = 2_000
_STORE_RETRY_S = 0.2
_MOST_STORE_RETRY_S = 2.0


@dataclass
class _Begun:
    """What a recovery that the store has not let finish hands on to the next attempt.

    floor: the token that keeps the watermark back. reached: the latest instant the clock had shown when it was set back, None
    if it was not. pending: fires with a row, which recovery leaves alone.
    """

    floor: int | None = None
    reached: UtcMs | None = None
    pending: list[Fire] = field(default_factory=list)
    retry_s: float = _STORE_RETRY_S


class Loop:
    """Drives the core. One per engine. Attributes: retrying: for those who write pending rows. halt: why nothing leaves. circuits. pulse: whether it goes round."""

    def __init__(
        self,
        core: Core,
        store: Store,
        publisher: Publisher,
        settler: Settler,
        recovery: Recovery,
        set_back: SetBack,
        watch: ClockWatch,
        clock: Clock,
        hooks: Hooks,
        *,
        jitter: Callable[[], float] = random.random,
        armed_budget_bytes: int = DEFAULT_BUDGET_BYTES,
    ) -> None:
        self._core = core
        self._store = store
        self._settler = settler
        self._publisher = publisher
        self._recovery = recovery
        self._set_back = set_back
        self._watch = watch
        self._clock = clock
        self._hooks = hooks
        self._wants_plan = asyncio.Event()
        self._sooner: deque[Fire] = deque()
        self._is_stopping = False
        self._begun = _Begun()
        self._jump_seen = asyncio.Event()
        self.recovering = asyncio.Lock()
        """Held by recovery, and by what must not meet it halfway."""
        self.halt = Halt(settler)
        self.pulse = Pulse(clock)
        self._departures = Departures()
        self.circuits = Circuits()
        self._attempts = Attempts(core, settler, self.circuits, Backlog(), hooks, jitter=jitter)
        self._arming = Arming(
            core,
            store,
            publisher,
            self._departures,
            self._attempts,
            self.pulse,
            clock,
            hooks,
            budget_bytes=armed_budget_bytes,
            note_memory=self._wants_plan.set,
        )
        self._releasing = Releasing(
            core,
            publisher,
            self._departures,
            self._arming,
            self._attempts,
            settler,
            self.halt,
            self.pulse,
            clock,
            hooks,
            wants_plan=self._wants_plan,
        )
        self.retrying = Retrying(
            core,
            store,
            self._arming,
            self._attempts,
            settler,
            recovery,
            self.halt,
            self.pulse,
            clock,
            hooks,
            wants_plan=self._wants_plan,
        )

    # --- what others call -------------------------------------------------------------------------------------------

    async def run(self, first: Sequence[Fire] = ()) -> None:
        """Send *first*, then fire everything on time, until cancelled or ``stop``."""
        self._sooner += first
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._plan_for_ever(), name="plan")
            tasks.create_task(self._releasing.run(), name="release")
            tasks.create_task(self.retrying.run(), name="retry")

    @asynccontextmanager
    async def steady(self) -> AsyncIterator[None]:
        """For a change, from when it withholds schedules until they are planned anew: recovery waits, or has been.

        Errors: as ``calm``.
        """
        # During a change what it finds unsettled is not settled behind its back.
        async with self.calm(), self._settler.committing:
            yield

    @asynccontextmanager
    async def calm(self) -> AsyncIterator[None]:
        """For what must not meet recovery halfway: it waits, or has been.

        Errors: NotReady if recovery has begun and the store does not let it finish: whose slots are whose is not known.
        """
        async with self._recovered():
            if self.halt.is_half_recovered:
                raise NotReady(
                    "the daemon cannot read its store to decide on missed fires; try again in a moment"
                )
            yield

    def check_here(self, schedule_id: int) -> None:
        """Before an order for a schedule. Errors: NotReady if its shard is not here."""
        self._core.here.check(schedule_id)

    @asynccontextmanager
    async def _recovered(self) -> AsyncIterator[None]:
        """Hold off recovery, once it has seen to a clock that has just jumped."""
        while True:
            while self._watch.jump() is not None and not self._is_stopping:
                if self.halt.doubt is not None:
                    raise NotReady(f"the daemon takes no changes now: {self.halt.because}")
                self._wants_plan.set()
                await self._clock.wait(None, self._jump_seen)
            async with self.recovering:
                if self._watch.jump() is None or self._is_stopping:
                    yield
                    return

    def replan(self, fires: Iterable[Fire] = ()) -> None:
        """The timetable changed; *fires* were planned by the change and go at once."""
        self._sooner += fires
        self._wants_plan.set()
        self._attempts.wants_retry.set()

    async def put_on_record(self) -> None:
        """Make the outcomes known by now durable. Errors: StoreError."""
        await self._settler.flush()

    def begin_drop(self, schedule_id: int) -> frozenset[tuple[UtcMs, Kind]]:
        """Withhold what is planned or pending of a schedule; return (fire time, kind) of what stays: it has been sent."""
        self._attempts.ready = [fire for fire in self._attempts.ready if fire.schedule_id != schedule_id]
        return self._core.begin_drop(schedule_id)

    def end_drop(self, schedule_id: int, *, is_done: bool) -> None:
        """The change that drops has been made, or has failed."""
        self.replan(self._core.end_drop(schedule_id, is_done=is_done))
        if not is_done:
            self.retrying.look_for_lines()

    async def answered(self) -> None:
        """Return when the next attempt has come to its end."""
        self._attempts.has_answer.clear()
        await self._attempts.has_answer.wait()

    def let_go(self, fires: Iterable[Fire]) -> None:
        """*fires* are not sent by this engine after all."""
        for fire in fires:
            self._attempts.note_dropped(fire)

    def forget_ready(self, shard: int) -> None:
        """Nothing of a shard that has left may go any more."""
        self._attempts.ready = [fire for fire in self._attempts.ready if fire.schedule_id % SHARDS != shard]

    def note_committed(self) -> None:
        """Rows became durable: some may be pending."""
        self._attempts.wants_retry.set()
        self._attempts.note_idle()

    def is_quiet(self, duration_ms: int) -> bool:
        """Whether nothing is in flight or waits to leave, and nothing that is armed leaves within *duration_ms*."""
        instant = self._departures.next_instant()
        if self._departures.has_due() or self._core.in_flight_count():
            return False
        return instant is None or instant - self._clock.wall() > duration_ms

    async def drain(self, timeout_s: float) -> bool:
        """Release nothing more and wait for what is in flight; return whether all of it was answered in time.

        Call it while ``run`` is still running.
        """
        self._is_stopping = True
        self._releasing.stop()
        self.retrying.stop()
        self._attempts.stop()
        self._wants_plan.set()
        return (await within(self._clock, timeout_s, self._attempts.idle.wait())).done()

    # --- plan -------------------------------------------------------------------------------------------------------

    async def _plan_for_ever(self) -> None:
        core, clock, halt, attempts = self._core, self._clock, self.halt, self._attempts
        while not self._is_stopping:
            self.pulse.beat(PLAN)
            now = clock.wall()
            jump, reached = self._watch.look(), None
            if jump is not None:
                halt.reason = jump.reason
                if self._is_doubted():
                    await clock.wait(None, self._wants_plan)
                    continue
                self._hooks.clock_jumped(jump)
                self._publisher.drop_connections()
                reached = jump.expected if jump.is_back else None
            elif halt.reason is None and self._settler.is_blocked:
                halt.is_on()
                await clock.wait(None, self._wants_plan)
                continue
            elif core.is_behind(now):
                halt.reason = halt.reason or "stall"
            self._watch.believe()
            self._jump_seen.set()
            halt.doubt = None
            if halt.reason is not None:
                if not await self._recover(halt.reason, reached):
                    continue
                now = clock.wall()
            if not await self._read_settled(now):
                continue
            sooner = self._take_sooner(now) + self._arming.take_later(now, SLICE)
            fires = sooner + core.take(UtcMs(now + HORIZON_MS))
            fires += self._plan_some(now)
            fires += await self._read_single_instants(UtcMs(now + HORIZON_MS))
            # A fire that was withheld and let go twice may be among them twice; one whose shard is leaving does not go.
            if sooner or core.here.leaving:
                fires = list({fire.key: fire for fire in fires if core.may_release(fire)}.values())
            if fires:
                self._hooks.planned(fires)
                await self._send(fires)
            if halt.reason is not None:
                continue
            if self._sooner or core.takings:
                dues = [self._sooner_due(), core.takings.earliest_due()]
                dues = [due for due in dues if due is not None]
                if not any(self._room(due, now) for due in dues):
                    await self._wait_for_memory(dues, now)
                continue
            attempts.wants_retry.set()
            due, later = core.next_due(), self._arming.next_later()
            instants = (None if due is None else UtcMs(due - HORIZON_MS), later)
            await clock.wait(min((at for at in instants if at is not None), default=None), self._wants_plan)

    async def _wait_for_memory(self, dues: Sequence[UtcMs | None], now: UtcMs) -> None:
        """Wait until something armed has left, or what waits is due: then it is armed if nothing stands before it."""
        instants = [at for at in (*dues, self._arming.next_later()) if at is not None and at > now]
        await self._clock.wait(min(instants, default=UtcMs(now + HORIZON_MS // 2)), self._wants_plan)

    def _take_sooner(self, now: UtcMs) -> list[Fire]:
        """Return the next fires that were held already.

        Few, as changes leave them, go on whatever there is memory for: those of a FIFO group must not come after later
        ones. Many, as recovery leaves them (but none of FIFO topics), as many as there is memory for.
        """
        sooner = self._sooner
        most = SLICE if len(sooner) <= SLICE else self._room(self._sooner_due(), now)
        return [sooner.popleft() for _ in range(min(len(sooner), most))]

    def _sooner_due(self) -> UtcMs | None:
        """Return when the first of the next of those is due, or None."""
        return min((fire.due_time for fire in islice(self._sooner, SLICE)), default=None)

    def _plan_some(self, now: UtcMs) -> list[Fire]:
        """Return the next fires of what was taken, as many as there is memory for."""
        room = self._room(self._core.takings.earliest_due(), now)
        return self._core.plan(now, room) if room else []

    def _room(self, due: UtcMs | None, now: UtcMs) -> int:
        """Return how many fires, the first of them due at *due*, may be armed or written down now."""
        room = self._arming.room(due, now)
        return SLICE if not room and self._arming.is_hopeless(due, now) else room

    async def _send(self, fires: Sequence[Fire]) -> None:
        for start in range(0, len(fires), SLICE):
            self.pulse.beat(PLAN)
            if not await self._arming.send_planned(fires[start : start + SLICE]):
                self._sooner.extendleft(reversed(fires[start:]))
                self.halt.reason = "store"
                return

    def _is_doubted(self) -> bool:
        """Whether the wall clock cannot be right, so that nothing may leave; says so once."""
        doubt = self._watch.doubt(self._core.watermark(self._clock.wall()))
        if doubt is not None and doubt != self.halt.doubt:
            self._hooks.clock_doubted(doubt)
        self.halt.doubt = doubt
        return doubt is not None

    async def _recover(self, reason: str, reached: UtcMs | None) -> bool:
        """Let go of all that is armed and have the slots up to now decided anew; False if the store did not let that finish.

        Then it is to be run again, with the clocks as they are by then. reached: what the clock had shown if it was set back
        since they were looked at last, else None.
        """
        begun, now = self._begun, self._clock.wall()
        watermark = self._core.watermark(now)
        floor = self._core.hold_watermark(watermark)
        if begun.floor is not None:
            self._core.let_watermark(begun.floor)
        begun.floor = floor
        if reached is not None:
            begun.reached = UtcMs(max(reached, begun.reached or reached))
        async with self.recovering:
            if begun.reached is None:
                begun.pending += self._disarm()
            else:
                self._let_go()
                begun.pending.clear()
            try:
                since, doubted_through = watermark, MIN_UTC_MS
                if begun.reached is not None:
                    await self._settler.flush()
                    since, doubted_through = await self._set_back.run(
                        now, watermark=watermark, reached=begun.reached
                    )
                fires = await self._recovery.run(reason, since, doubted_through=doubted_through)
            except StoreError as exc:
                self.halt.is_half_recovered = True
                self._hooks.store_failed(exc)
            else:
                self.halt.is_half_recovered = False
                self._set_back.done()
                self._sooner += fires + begun.pending
        if self.halt.is_half_recovered:
            self.pulse.excuse()
            await self._clock.sleep(begun.retry_s)
            begun.retry_s = min(2 * begun.retry_s, _MOST_STORE_RETRY_S)  # each time walks the whole timetable
            return False
        self._core.let_watermark(floor)
        self._begun = _Begun()
        self.halt.reason = None
        self._releasing.wants_release.set()
        self._attempts.wants_retry.set()
        return True

    def _let_go(self) -> None:
        """Forget all that is planned, armed or to be retried, with every instant of a clock that has been set back."""
        self._departures.clear()
        self._arming.clear_later()
        self._sooner.clear()
        self._core.let_all_go()
        self._attempts.let_go()
        self.retrying.forget_instants()

    def _disarm(self) -> list[Fire]:
        """Let go of what is armed or about to be; return those that have a pending row, which recovery leaves alone."""
        fires = [
            entry.fire for departure in self._departures.clear() for entry in departure.armed.batch.entries
        ]
        fires += self._arming.clear_later()
        fires += self._sooner
        self._sooner.clear()
        kept = []
        for fire in fires:
            if self._core.may_release(fire) and self._core.has_row(fire):
                kept.append(fire)
            else:
                self._attempts.note_dropped(fire)
        return kept

    async def _read_settled(self, now: UtcMs) -> bool:
        """After the clock was set back, learn which of the slots about to be planned are settled; False if that failed."""
        relived = self._core.relived
        relived.pass_by(now)
        window = relived.wants(UtcMs(now + HORIZON_MS))
        if window is None:
            return True
        after, through = window
        try:
            settled = await self._store.settled_slots(after, through)
        except StoreError as exc:
            self._hooks.store_failed(exc)
            await self._clock.sleep(_STORE_RETRY_S)
            return False
        relived.add(settled, through, now)
        return True

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
