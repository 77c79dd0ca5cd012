"""An engine on a clock that a test moves, with everything else in memory."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from cronally.domain.model import JournalEntry, State, fire_id
from cronally.engine.arming import DEFAULT_BUDGET_BYTES
from cronally.engine.engine import Engine
from cronally.engine.live import Live
from cronally.engine.measures import Measures
from cronally.engine.records import JournalFilter
from cronally.engine.reporting import Reporting
from cronally.engine.service import Service
from support.fake_clock import FakeClock
from support.memory_store import MemoryStore
from support.recording_publisher import RecordingPublisher, always_published

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence

    from cronally.domain.message import Entry
    from cronally.engine.applying import ApplyResult
    from cronally.engine.clock_watch import ClockWatch
    from cronally.engine.copies import BackupMaker
    from cronally.engine.hooks import Hooks
    from cronally.engine.ports import OutcomeClass, Store
    from support.faulty_store import FaultyStore
    from support.recording_publisher import Answer

_T = TypeVar("_T")

TOPIC = "arn:aws:sns:us-east-1:123456789012:reports"
FIFO_TOPIC = "arn:aws:sns:us-east-1:123456789012:orders.fifo"


@dataclass
class Rig:
    """A running engine and what it touches."""

    clock: FakeClock
    store: Store
    publisher: RecordingPublisher
    engine: Engine
    service: Service
    reporting: Reporting

    async def add(self, name: str, when: str, **keys: object) -> None:
        document: Mapping[str, object] = {"when": when, "topic": TOPIC, **keys}
        await self.service.put(name, document, by="test", create_only=True)
        await self.clock.settle()

    async def set(self, name: str, **keys: object) -> None:
        await self.service.put(name, {"topic": TOPIC, **keys}, by="test")
        await self.clock.settle()

    async def apply(
        self, *lines: Mapping[str, object] | bytes, owner: str = "default", is_pruning: bool = False
    ) -> ApplyResult:
        async def encoded() -> AsyncIterator[bytes]:
            for line in lines:
                yield line if isinstance(line, bytes) else json.dumps(line).encode()

        return await self.service.apply(encoded(), owner=owner, by="test", is_pruning=is_pruning)

    def start(self, change: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Begin a change that takes time of the clock; advance it, then look at the task."""
        return asyncio.get_running_loop().create_task(change)

    @property
    def sent(self) -> list[str]:
        """The fire ids of every attempt, in the order of release."""
        return [arrival.entry.fire_id for arrival in self.publisher.arrivals]

    @property
    def accepted(self) -> list[str]:
        return [arrival.entry.fire_id for arrival in self.publisher.accepted]

    async def journal(self, name: str | None = None) -> dict[str, JournalEntry]:
        """The journal entries by fire id (of a range row: its first slot's), oldest first."""
        rows = await self.service.history(JournalFilter(schedule=name, limit=10_000))
        return {fire_id(row.name, row.entry.fire_time, row.entry.kind): row.entry for row in reversed(rows)}

    async def states(self, name: str | None = None) -> dict[str, State]:
        return {id_: entry.state for id_, entry in (await self.journal(name)).items()}


class _Observed(Measures, Live):
    """What the daemon hears of its engine, less the log."""


def assembled(
    clock: FakeClock,
    store: Store,
    publisher: RecordingPublisher,
    *,
    hooks: Hooks | None = None,
    jitter: Callable[[], float] = lambda: 0.5,
    armed_budget_bytes: int = DEFAULT_BUDGET_BYTES,
    watch: ClockWatch | None = None,
    backup_maker: BackupMaker | None = None,
    topics: Sequence[str] | None = None,
    is_one_of_several: bool = False,
) -> Rig:
    """Put an engine together. topics: patterns of those allowed. hooks: in the place of those that measure lateness."""
    observed = _Observed()
    engine = Engine(
        store,
        publisher,
        clock,
        hooks or observed,
        watch=watch,
        jitter=jitter,
        armed_budget_bytes=armed_budget_bytes,
        topics=topics,
        is_one_of_several=is_one_of_several,
    )
    reporting = Reporting(
        engine.core,
        store,
        engine.loop.halt,
        clock,
        observed,
        engine.loop.circuits,
        version="0",
        store_name="memory",
    )
    service = Service(
        engine.core,
        store,
        engine.edits,
        engine.orders,
        reporting,
        clock,
        observed,
        engine.allowed,
        backup_maker=backup_maker,
    )
    return Rig(clock, store, publisher, engine, service, reporting)


@asynccontextmanager
async def running_engine(
    *,
    clock: FakeClock | None = None,
    store: Store | FaultyStore | None = None,
    script: Callable[[Entry, int], Answer | OutcomeClass] = always_published,
    hooks: Hooks | None = None,
    crash: bool = False,
    armed_budget_bytes: int = DEFAULT_BUDGET_BYTES,
    room: int | None = None,
    quota: float | None = None,
    watch: ClockWatch | None = None,
    backup_maker: BackupMaker | None = None,
    topics: Sequence[str] | None = None,
    is_one_of_several: bool = False,
) -> AsyncIterator[Rig]:
    """Run an engine for the block. room, quota: the publisher's, see there. topics: patterns of those allowed. hooks: in the place of those that measure lateness. crash: leave without stopping it in order, as ``kill -9`` does."""
    clock = clock or FakeClock()
    store = cast("Store", MemoryStore() if store is None else store)
    publisher = RecordingPublisher(clock, script)
    publisher.room, publisher.quota = room, quota
    rig = assembled(
        clock,
        store,
        publisher,
        hooks=hooks,
        armed_budget_bytes=armed_budget_bytes,
        watch=watch,
        backup_maker=backup_maker,
        topics=topics,
        is_one_of_several=is_one_of_several,
    )
    engine = rig.engine
    first = await _while_time_passes(clock, engine.recover(await store.open()))
    rig.reporting.set_ready()
    task = asyncio.create_task(engine.run(first))
    try:
        await clock.settle()
        yield rig
        if not crash:
            drain = asyncio.create_task(engine.drain(10))
            await clock.settle()
            await clock.advance(0 if drain.done() else 11)
            await drain
    finally:
        is_broken = task.done()
        task.cancel()
        results = await _while_time_passes(clock, _ended(task))
        if is_broken and isinstance(results[0], Exception):
            raise results[0]
    if not crash:
        await store.close(watermark=await _while_time_passes(clock, engine.finish()))


async def _ended(task: asyncio.Task[None]) -> Sequence[BaseException | None]:
    return await asyncio.gather(task, return_exceptions=True)


async def _while_time_passes(clock: FakeClock, coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Await what a slow store keeps waiting."""
    task = asyncio.create_task(coroutine)
    await clock.settle()
    while not task.done():
        await clock.advance(0.1)
    return task.result()
