"""A clock that stands still until a test moves it.

Waiters are woken in the order of their instants, one at a time, and after each the event loop runs until nothing more is
ready. That is only safe with in-memory adapters: with threads or sockets in flight it would move on too soon; there, wait
for a hook.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools

from cronally.clock import MAX_WAIT_S, WaitResult
from cronally.instants import MonoS, UtcMs, parse_rfc3339

_MOST_TURNS = 200_000  # of the event loop in one settling; more means that a task spins


class FakeClock:
    """Wall, monotonic and boot time under a test's hand. The monotonic origin is odd on purpose."""

    def __init__(self, start: str | UtcMs = "2026-11-23T08:59:30Z") -> None:
        self._wall_us = (parse_rfc3339(start) if isinstance(start, str) else start) * 1000
        self._mono_us = 7_654_321_000
        self._boot_us = 9_876_543_000
        self._waiters: list[tuple[int, int, asyncio.Future[bool]]] = []
        self._order = itertools.count()

    def wall(self) -> UtcMs:
        return UtcMs(self._wall_us // 1000)

    def wall_us(self) -> int:
        return self._wall_us

    def mono(self) -> MonoS:
        return MonoS(self._mono_us / 1e6)

    def boot(self) -> float:
        return self._boot_us / 1e6

    def is_synchronised(self) -> bool | None:
        return True

    async def sleep(self, duration_s: float) -> None:
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        await self._new_waiter(self._mono_us + round(duration_s * 1e6))

    async def wait(self, until: UtcMs | None, wake: asyncio.Event, *, precise: bool = False) -> WaitResult:
        if wake.is_set():
            wake.clear()
            return WaitResult.WOKEN
        if until is not None and self.wall() >= until:
            return WaitResult.DUE
        timer = self._new_timer(until)
        waiters = wake._waiters  # one future serves both: a task for each wait is slow
        waiters.append(timer)
        try:
            is_woken = await timer
        finally:
            waiters.remove(timer)
            timer.cancel()
        if is_woken:
            wake.clear()
            return WaitResult.WOKEN
        return WaitResult.DUE if until is not None and self.wall() >= until else WaitResult.RECHECK

    async def advance(self, seconds: float) -> None:
        """Let *seconds* pass on every clock."""
        target = self._mono_us + round(seconds * 1e6)
        await self.settle()
        while self._waiters and self._waiters[0][0] <= target:
            at, _, waiter = heapq.heappop(self._waiters)
            if waiter.done():
                continue
            self._move(at - self._mono_us)
            waiter.set_result(False)
            await self.settle()
        self._move(target - self._mono_us)
        await self.settle()

    async def advance_to(self, instant: str | UtcMs) -> None:
        """Let time pass until the wall clock shows *instant*."""
        until = parse_rfc3339(instant) if isinstance(instant, str) else instant
        await self.advance((until * 1000 - self._wall_us) / 1e6)

    def step_wall(self, step_ms: int) -> None:
        """Move the wall clock alone, as NTP or an administrator does."""
        self._wall_us += step_ms * 1000

    async def suspend(self, seconds: float) -> None:
        """The machine sleeps: wall and boot time pass, monotonic time does not."""
        self._wall_us += round(seconds * 1e6)
        self._boot_us += round(seconds * 1e6)
        await self.advance(MAX_WAIT_S)

    async def settle(self) -> None:
        """Let every task run until it waits again."""
        ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]  # asyncio's own loop: all it has to run
        for _ in range(_MOST_TURNS):
            await asyncio.sleep(0)
            if not ready:
                return
        raise AssertionError("a task spins: the event loop never comes to rest")

    def _move(self, delta_us: int) -> None:
        if delta_us > 0:
            self._wall_us += delta_us
            self._mono_us += delta_us
            self._boot_us += delta_us

    def _new_timer(self, until: UtcMs | None) -> asyncio.Future[bool]:
        """Return a future that is done when a wait for *until* ends by itself; an event that is set makes it True."""
        capped_us = round(MAX_WAIT_S * 1e6)
        if until is not None:
            capped_us = min(until * 1000 - self._wall_us, capped_us)
        return self._new_waiter(self._mono_us + capped_us)

    def _new_waiter(self, mono_us: int) -> asyncio.Future[bool]:
        waiter = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (mono_us, next(self._order), waiter))
        return waiter
