"""Time that jumps: when no task can run any more, the clock goes to the next instant that somebody waits for.

The event loop asks no selector and no clock of the machine, so that a run depends on nothing but what it is given, and a
simulated day takes as long as what happens in it. Only for tasks with everything in memory: no threads, no sockets.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

from cronally.clock import MAX_WAIT_S
from support.fake_clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from cronally.instants import UtcMs

_T = TypeVar("_T")
_CAP_US = round(MAX_WAIT_S * 1e6)
_IDLE_US = 60_000_000
_MOST_TURNS = 200_000  # of the event loop at one instant; more means that a task spins


class JumpingClock(FakeClock):
    """A ``FakeClock`` that moves by itself; ``advance`` and ``settle`` are waits like any other.

    A wait may last longer than ``MAX_WAIT_S``: looking again at clocks that nobody moved decides nothing. A step or a
    suspend ends it when the real clock's wait would have ended, and one without an instant ends every second while the
    clock is *watchful*.

    Attributes: is_watchful. on_turn: called before each turn of the event loop.
    """

    def __init__(self, start: str | UtcMs) -> None:
        super().__init__(start)
        self.on_turn: Callable[[], None] = lambda: None
        self._is_watchful = False
        self._long: dict[asyncio.Future[bool], int] = {}

    @property
    def is_watchful(self) -> bool:
        return self._is_watchful

    @is_watchful.setter
    def is_watchful(self, value: bool) -> None:
        if value and not self._is_watchful:
            self._look_again()
        self._is_watchful = value

    async def advance(self, seconds: float) -> None:
        await self._new_waiter(self._mono_us + round(seconds * 1e6))

    async def settle(self) -> None:
        await self._new_waiter(self._mono_us)

    def step_wall(self, step_ms: int) -> None:
        super().step_wall(step_ms)
        self._look_again()

    async def suspend(self, seconds: float) -> None:
        self.sleep_through(seconds)
        await self.advance(MAX_WAIT_S)

    def sleep_through(self, seconds: float) -> None:
        """The machine sleeps and has just woken: wall and boot time have passed, monotonic time has not."""
        self._wall_us += round(seconds * 1e6)
        self._boot_us += round(seconds * 1e6)
        self._look_again()

    def stall(self, seconds: float) -> None:
        """Time passes and nobody runs: the event loop is busy, or the process stopped."""
        self._move(round(seconds * 1e6))

    def jump(self) -> None:
        """Go to the next instant somebody waits for, and wake him."""
        while self._waiters:
            at, _, waiter = heapq.heappop(self._waiters)
            if not waiter.done():
                self._move(at - self._mono_us)
                waiter.set_result(False)
                return
        raise AssertionError("every task waits, and none for the clock")

    def timer(self, seconds: float) -> asyncio.Future[bool]:
        """Return a future that is False after *seconds*; who wants it done sooner makes it True."""
        return self._new_waiter(self._mono_us + round(seconds * 1e6))

    def _new_timer(self, until: UtcMs | None) -> asyncio.Future[bool]:
        if until is not None:
            left_us = until * 1000 - self._wall_us
        else:
            left_us = _CAP_US if self._is_watchful else _IDLE_US
        timer = self._new_waiter(self._mono_us + left_us)
        if left_us > _CAP_US:
            self._long[timer] = self._mono_us
            timer.add_done_callback(self._long.pop)
        return timer

    def _look_again(self) -> None:
        for timer, since_us in self._long.items():
            waited_us = self._mono_us - since_us
            at_us = since_us + (waited_us // _CAP_US + 1) * _CAP_US
            heapq.heappush(self._waiters, (at_us, next(self._order), timer))


class _NoSelector(selectors.SelectSelector):
    """Selects nothing; instead the clock jumps."""

    def __init__(self, clock: JumpingClock) -> None:
        super().__init__()
        self._clock = clock

        self._turns = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        self._clock.on_turn()
        self._turns += 1
        if timeout is None or timeout > 0:
            self._clock.jump()
            self._turns = 0
        assert self._turns < _MOST_TURNS, "a task spins: the event loop never comes to rest"
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop by *clock*."""

    def __init__(self, clock: JumpingClock) -> None:
        super().__init__(_NoSelector(clock))
        self._virtual_clock = clock

    def time(self) -> float:
        return self._virtual_clock.mono()


def run_virtually(
    clock: JumpingClock, coroutine: Coroutine[Any, Any, _T], note_error: Callable[[BaseException], None]
) -> _T:
    """Run *coroutine* to its end on an event loop of its own, by *clock*.

    note_error: gets the errors that no task is told of: those of callbacks, and of tasks that nobody asks.
    """

    def note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "exception" in context:
            note_error(context["exception"])

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.get_loop().set_exception_handler(note)
        return runner.run(coroutine)
