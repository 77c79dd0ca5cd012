"""Machines that join, leave, restart and are lost, and what it costs their shards: ``python -m simulation.fleet_days`` from tests/.

Each phase tells for how long a shard was fired by nobody, how many shards changed hands, and how often the table was asked. The engines
take no time to take a shard in; the table takes 20 ms a call.
"""

from __future__ import annotations

import asyncio
import sys
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.shards import SHARDS
from support.fake_clock import FakeClock
from support.fleet import Fleet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.fleet import Node

LATENCY_S = 0.02


class Figures(NamedTuple):
    """What a phase came to.

    Fields: lasted_s. moves: shards that changed hands. idle_s: for each shard, the longest time for which nobody fired it. calls_per_s: to the
        table, of one machine. shares: how many shards each machine has in the end. doubled: shards that two would have sent for.
    """

    phase: str
    lasted_s: float
    moves: int
    idle_s: list[float]
    calls_per_s: float
    shares: list[int]
    doubled: int

    def __str__(self) -> str:
        return (
            f"| {self.phase} | {self.lasted_s:.0f} s | {self.moves} | {median(self.idle_s):.2f} s | {max(self.idle_s):.2f} s "
            f"| {self.calls_per_s:.1f} | {min(self.shares)} to {max(self.shares)} |"
        )


class FleetDays:
    """A fleet, and the phases of its life."""

    def __init__(self, machines: int) -> None:
        self.fleet = Fleet(FakeClock())
        self._machines = machines

    async def run(self) -> list[Figures]:
        """Live through all phases."""
        try:
            return [
                await self._phase("all start at once", self._start),
                await self._phase("nothing happens", self._rest),
                await self._phase("rolling restart, one at a time", self._restart_each),
                await self._phase("a quarter more join, a second apart", self._join),
                await self._phase("as many crash, one after another", self._crash),
                await self._phase("a third crash at once", self._crash_together),
            ]
        finally:
            await self.fleet.end()

    @property
    def _running(self) -> list[Node]:
        return [node for node in self.fleet.nodes if node.is_running]

    async def _phase(self, name: str, happens: Callable[[], Awaitable[None]]) -> Figures:
        fleet = self.fleet
        fleet.longest_idle.clear()
        began_at, moves = fleet.clock.mono(), len(fleet.table.takes)
        calls = sum(node.store.calls for node in fleet.nodes)
        await happens()
        lasted_s = fleet.clock.mono() - began_at
        calls = sum(node.store.calls for node in fleet.nodes) - calls
        return Figures(
            name,
            lasted_s,
            len(fleet.table.takes) - moves,
            [fleet.longest_idle.get(number, 0.0) for number in range(SHARDS)],
            calls / lasted_s / len(self._running),
            sorted(fleet.counts),
            len(fleet.doubled),
        )

    async def _add(self, host: str | None = None) -> None:
        await self.fleet.add(host, latency_s=LATENCY_S)

    async def _start(self) -> None:
        for _ in range(self._machines):
            await self._add()
        await self._rest()

    async def _rest(self) -> None:
        await self.fleet.advance(20)

    async def _restart_each(self) -> None:
        for node in self._running:
            leaving = asyncio.create_task(node.membership.leave())
            await self.fleet.advance(3)
            await leaving
            await self._add(node.host)
            await self.fleet.advance(7)
        await self._rest()

    async def _join(self) -> None:
        for _ in range(max(1, self._machines // 4)):
            await self._add()
            await self.fleet.advance(1)
        await self._rest()

    async def _crash(self) -> None:
        for node in self._running[:: max(2, len(self._running) // max(1, self._machines // 4))]:
            await node.end()
            await self.fleet.advance(12)
        await self._rest()

    async def _crash_together(self) -> None:
        for node in self._running[::3]:
            await node.end()
            await self.fleet.advance(0.05)
        await self._rest()


def main(machines: int) -> None:
    """Print the figures as a table."""
    sys.stdout.write(
        f"{machines} machines\n\n| phase | lasted | shards moved | idle, median | longest | calls/s | shards of one machine |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for figures in asyncio.run(FleetDays(machines).run()):
        sys.stdout.write(f"{figures}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
