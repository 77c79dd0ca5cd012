"""One incarnation of the daemon, which may die at any moment: from then on nothing of it reaches the store or SNS.

It dies before a chosen turn of the event loop, at a chosen call of the store, before its effect or before the caller has
learnt of it, or between two of the batches that leave together.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from support.faulty_store import FaultyStore
from support.recording_publisher import RecordingPublisher
from support.rig import assembled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from cronally.domain.message import Entry
    from cronally.engine.ports import Armed, Outcome, Store
    from cronally.engine.records import TimetableRow
    from cronally.instants import UtcMs
    from simulation.witness import WitnessStore
    from support.recording_publisher import Answer, Arrival
    from support.virtual_time import JumpingClock


class Mortality:
    """Whether an incarnation lives, and when it dies. Attributes: died_at: by the wall clock; None while it lives."""

    def __init__(self, clock: JumpingClock) -> None:
        self.died_at: UtcMs | None = None
        self._clock = clock
        self._left: dict[str, int] = {}
        self._alarm: asyncio.Future[bool] | None = None

    @property
    def is_dead(self) -> bool:
        return self.died_at is not None

    def die_in(self, kind: str, count: int) -> None:
        """Die at the *count*-th of these to come: ``turn`` of the event loop, ``call`` of the store, ``batch``."""
        self._left[kind] = count
        if kind == "turn":
            self._clock.on_turn = lambda: self.tick("turn")

    def spare(self) -> None:
        """Do not die after all."""
        self._left.clear()
        self._clock.on_turn = lambda: None

    def tick(self, kind: str) -> None:
        if kind in self._left:
            self._left[kind] -= 1
            if self._left[kind] <= 0:
                self.die()

    def die(self) -> None:
        self.spare()
        if self.died_at is None:
            self.died_at = self._clock.wall()
            if self._alarm is not None and not self._alarm.done():
                self._alarm.set_result(True)

    async def outlive(self, seconds: float, task: asyncio.Task[Any] | None = None) -> bool:
        """Let *seconds* pass, or less if *task* ends sooner; return False if the incarnation dies meanwhile."""
        if self.is_dead:
            return False
        alarm = self._alarm = self._clock.timer(seconds)
        if task is not None:
            task.add_done_callback(lambda _: alarm.done() or alarm.set_result(True))
        await alarm
        return not self.is_dead


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


class MortalStore:
    """Passes calls on to a store that survives, as long as the caller lives."""

    def __init__(self, inner: WitnessStore, life: Mortality) -> None:
        self._inner = inner
        self._life = life

    @property
    def commit_interval_s(self) -> float:
        return self._inner.commit_interval_s

    async def timetable(self) -> AsyncIterator[Sequence[TimetableRow]]:
        async for rows in self._inner.timetable():
            await self._pulse()
            yield rows

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._inner, name)

        async def call(*args: object, **keys: object) -> object:
            await self._pulse()
            result = await method(*args, **keys)
            await self._pulse()
            return result

        self.__dict__[name] = call
        return call

    async def _pulse(self) -> None:
        self._life.tick("call")
        if self._life.is_dead:
            await _never()


class MortalPublisher(RecordingPublisher):
    """Sends nothing any more once its daemon is dead. Attributes: on_sent: called with the attempts of each batch that left."""

    def __init__(self, clock: JumpingClock, script: Callable[[Entry, int], Answer], life: Mortality) -> None:
        super().__init__(clock, script)
        self._life = life
        self.on_sent: Callable[[Sequence[Arrival]], None] = lambda _arrivals: None

    def release(self, armed: Sequence[Armed], settle: Callable[[Sequence[Outcome]], None]) -> None:
        for one in armed:
            if not self._life.is_dead:
                before = len(self.arrivals)
                super().release((one,), settle)
                self.on_sent(self.arrivals[before:])
                self._life.tick("batch")


class Incarnation:
    """A daemon from its start to its end.

    Attributes: life. store: refuses and dawdles as the story wants. rig. publisher.
    """

    def __init__(
        self,
        clock: JumpingClock,
        store: WitnessStore,
        script: Callable[[Entry, int], Answer],
        *,
        jitter: Callable[[], float],
        armed_budget_bytes: int,
        is_one_of_several: bool = False,
    ) -> None:
        self.life = Mortality(clock)
        self.store = FaultyStore(clock, cast("Any", MortalStore(store, self.life)))
        self.publisher = MortalPublisher(clock, script, self.life)
        self.rig = assembled(
            clock,
            cast("Store", self.store),
            self.publisher,
            jitter=jitter,
            armed_budget_bytes=armed_budget_bytes,
            is_one_of_several=is_one_of_several,
        )
        self._main: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the store, recover and run. Errors: StoreError."""
        engine = self.rig.engine
        first = await engine.recover(await self.store.open())
        self.rig.reporting.set_ready()
        self._main = asyncio.create_task(engine.run(first))

    @property
    def failure(self) -> BaseException | None:
        """What the engine ended with by itself, which it never should."""
        main = self._main
        return main.exception() if main is not None and main.done() and not main.cancelled() else None

    async def stop(self) -> bool:
        """Stop in order, as SIGTERM does; return whether that is a clean stop. Errors: StoreError; then it is not."""
        assert self._main is not None
        await self.rig.engine.drain(10)
        self._main.cancel()
        await asyncio.gather(self._main, return_exceptions=True)
        watermark = await self.rig.engine.finish()
        await self.store.close(watermark=watermark)
        return watermark is not None

    async def bury(self) -> None:
        """End all tasks of a dead daemon, in whatever they are."""
        self.life.die()
        self.store.fail()  # the dead ask nobody, so that chance goes on as it would
        await end_other_tasks()


async def end_other_tasks() -> None:
    """End every task but this one. Those of the dead may have to be told again: what they clean up with never answers."""
    for _ in range(100):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
    raise AssertionError(f"tasks do not end: {tasks}")
