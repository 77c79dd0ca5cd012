"""Publishing in tests: release, and wait for the outcomes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.clock import Clock
    from cronally.domain.batching import Batch
    from cronally.engine.ports import Outcome, Publisher


class Settled:
    """Collects outcomes; ``calls`` keeps them as they came."""

    def __init__(self) -> None:
        self.calls: list[list[Outcome]] = []
        self._changed = asyncio.Event()

    def __call__(self, outcomes: Sequence[Outcome]) -> None:
        self.calls.append(list(outcomes))
        self._changed.set()

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for call in self.calls for outcome in call]

    async def wait_for(self, count: int) -> list[Outcome]:
        while len(self.outcomes) < count:
            self._changed.clear()
            await self._changed.wait()
        return self.outcomes


async def release(publisher: Publisher, clock: Clock, *batches: Batch) -> Settled:
    """Arm *batches* for now and release them."""
    settled = Settled()
    publisher.release(await publisher.arm(batches, clock.wall()), settled)
    return settled


async def publish(publisher: Publisher, clock: Clock, *batches: Batch) -> list[Outcome]:
    """Arm and release *batches*, and return all outcomes."""
    settled = await release(publisher, clock, *batches)
    return await settled.wait_for(sum(len(one.entries) for one in batches))
