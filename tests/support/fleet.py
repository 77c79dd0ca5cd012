"""Several machines that share the shards of one table in memory, with an engine each that only remembers which it drives."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from cronally.domain.shards import SHARDS
from cronally.engine.hooks import Hooks
from cronally.engine.membership import Membership
from cronally.engine.records import GivenUp
from cronally.errors import LeaseLost
from support.memory_cluster import LEASE_MS, ClusterStore, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cronally.clock import WaitResult
    from cronally.engine.records import Machine, TakenIn
    from cronally.errors import CronallyError, StoreError
    from cronally.instants import MonoS, UtcMs
    from support.fake_clock import FakeClock

STEP_S = 0.05
"""How often it is looked who would send."""


class Said(Hooks):
    """Attributes: said: what a machine tells of the others, in a few words each."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def machine_joined(self, machine: Machine) -> None:
        self.said.append(f"joined {machine.host}")

    def machine_gone(self, machine: Machine) -> None:
        self.said.append(f"{'left' if machine.has_left else 'retired'} {machine.host}")

    def shards_taken(self, numbers: Sequence[int], owner: Machine | None) -> None:
        self.said.append(f"took {len(numbers)} of {owner.host if owner else 'nobody'}")

    def shard_given(self, number: int) -> None:
        self.said.append("gave")

    def lease_lost(self, reason: str) -> None:
        self.said.append(f"lost: {reason}")

    def table_failed(self, error: StoreError) -> None:
        self.said.append("table fails")

    def table_answers(self, failed_s: float) -> None:
        self.said.append("table answers")


class FakeDriver:
    """Takes and gives shards. Attributes: fires: those it drives. taken: all it was ever given, batches: how many at a time. take_s, give_s: seconds each takes. error: what it raises instead."""

    def __init__(self, clock: NodeClock) -> None:
        self.clock = clock
        self.fires: set[int] = set()
        self.taken: list[TakenIn] = []
        self.batches: list[int] = []
        self.take_s = self.give_s = 0.0
        self.error: CronallyError | None = None
        self.drained_at: float | None = None

    async def take_in(self, taken: Sequence[TakenIn]) -> None:
        await self.clock.sleep(self.take_s)
        if self.error:
            raise self.error
        self.fires.update(one.number for one in taken)
        self.taken += taken
        self.batches.append(len(taken))

    async def drain(self, timeout_s: float) -> None:
        self.drained_at = self.clock.mono()

    async def give_up(self, number: int) -> GivenUp:
        await self.clock.sleep(self.give_s)
        if self.error:
            raise self.error
        self.fires.remove(number)
        return GivenUp(self.clock.wall(), was_clean=True)


class NodeClock:
    """The clock of one machine of several. While it is frozen no wait of the machine ends, as under SIGSTOP; time passes."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._goes_on = asyncio.Event()
        self._goes_on.set()

    def freeze(self) -> None:
        self._goes_on.clear()

    def thaw(self) -> None:
        self._goes_on.set()

    @property
    def is_frozen(self) -> bool:
        return not self._goes_on.is_set()

    def wall(self) -> UtcMs:
        return self._clock.wall()

    def wall_us(self) -> int:
        return self._clock.wall_us()

    def mono(self) -> MonoS:
        return self._clock.mono()

    def boot(self) -> float:
        return self._clock.boot()

    def is_synchronised(self) -> bool | None:
        return True

    async def sleep(self, duration_s: float) -> None:
        await self._clock.sleep(duration_s)
        await self._goes_on.wait()

    async def wait(self, until: UtcMs | None, wake: asyncio.Event, *, precise: bool = False) -> WaitResult:
        result = await self._clock.wait(until, wake, precise=precise)
        await self._goes_on.wait()
        return result


class Node:
    """One incarnation of a machine. It sends nothing once its membership has ended, as the daemon does."""

    def __init__(self, fleet: Fleet, host: str, former: Iterable[str]) -> None:
        self.host = host
        self.clock = NodeClock(fleet.clock)
        self.hooks = Said()
        self.driver = FakeDriver(self.clock)
        self.store = ClusterStore(fleet.table, self.clock, host)
        self.running: asyncio.Task[None] | None = None
        self._former = former
        self._table = fleet.table

    async def start(self) -> None:
        await self.store.open()
        self.membership = Membership(self.store, self.driver, self.clock, self.hooks, former=self._former)
        self.running = asyncio.create_task(self.membership.run())

    @property
    def is_running(self) -> bool:
        return self.running is not None and not self.running.done()

    @property
    def said(self) -> list[str]:
        return self.hooks.said

    @property
    def owned(self) -> set[int]:
        return {number for number, owner in self._table.owners.items() if owner == self.store.machine}

    @property
    def sends(self) -> set[int]:
        """The shards of which it would send something if it was due now, or, if it is frozen, as soon as it goes on."""
        is_trusted = self.clock.boot() < self.store.trusted_until
        return self.driver.fires if is_trusted and self.is_running else set()

    async def end(self) -> None:
        """Be gone at once, as with ``kill -9``."""
        if self.running is not None:
            self.running.cancel()
            with suppress(asyncio.CancelledError, LeaseLost):
                await self.running


class Fleet:
    """The machines over one table.

    Attributes: nodes: all that ever were, in order. doubled: shards for which two machines would have sent. longest_idle: by shard, for how
        many seconds at most nobody would have, since it was cleared.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.table = Table()
        self.nodes: list[Node] = []
        self.doubled: set[int] = set()
        self.longest_idle: dict[int, float] = {}
        self._idle_since: dict[int, float] = {}

    async def add(
        self,
        host: str | None = None,
        *,
        former: Iterable[str] = (),
        latency_s: float = 0.0,
        lease_ms: int = LEASE_MS,
        error: CronallyError | None = None,
    ) -> Node:
        """Start a machine. latency_s: of its calls to the table. error: what its engine says."""
        node = Node(self, host or f"m{len(self.nodes)}", former)
        node.store.faults.latency_s = latency_s
        node.store.lease_ms = lease_ms
        node.driver.error = error
        starting = asyncio.create_task(node.start())
        await self.clock.settle()
        while not starting.done():
            await self.clock.advance(0.01)
        await starting
        self.nodes.append(node)
        await self.clock.settle()
        return node

    async def advance(self, seconds: float, step_s: float = STEP_S) -> None:
        """Let time pass, and look each *step_s* who would send."""
        for _ in range(round(seconds / step_s)):
            await self.clock.advance(step_s)
            self.look()

    def look(self) -> None:
        senders = Counter(number for node in self.nodes for number in node.sends)
        self.doubled |= {number for number, count in senders.items() if count > 1}
        now = self.clock.mono()
        for number in range(SHARDS):
            if number in senders:
                self._idle_since.pop(number, None)
            else:
                since = self._idle_since.setdefault(number, now)
                self.longest_idle[number] = max(self.longest_idle.get(number, 0.0), round(now - since, 3))

    @property
    def counts(self) -> list[int]:
        """How many shards each running machine would send for."""
        return [len(node.sends) for node in self.nodes if node.is_running]

    @property
    def is_whole(self) -> bool:
        """Whether every shard is driven by the machine that owns it."""
        is_right = all(node.driver.fires == node.owned for node in self.nodes if node.is_running)
        return is_right and len(self.table.owners) == SHARDS

    async def until_whole(self, at_most_s: float) -> float:
        """Return after how many seconds every shard is fired, or *at_most_s* and more."""
        began_at = self.clock.mono()
        while sum(self.counts) < SHARDS and self.clock.mono() - began_at <= at_most_s:
            await self.advance(STEP_S)
        return self.clock.mono() - began_at

    async def end(self) -> None:
        """Let all tasks end."""
        for node in self.nodes:
            node.clock.thaw()
            await node.end()
