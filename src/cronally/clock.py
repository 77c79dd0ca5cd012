"""The only reader of time.

Wall time decides *what*, monotonic time *how long* (design §9). Everything else takes a ``Clock``.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import time
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cronally.instants import MonoS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

MAX_WAIT_S = 1.0  # design §9: a stepped clock or a resumed machine is noticed within this
_EARLY_WAKE_S = (
    0.0015  # design §6: asyncio's timer is up to 1.4 ms late, so wake before and yield until the instant
)
_TIME_ERROR = 5  # adjtimex(2): TIME_ERROR, the kernel calls the clock unsynchronised


class WaitResult(Enum):
    """Why a wait ended: the instant has come, somebody woke it, or it is time to look at the clocks again."""

    DUE = "due"
    WOKEN = "woken"
    RECHECK = "recheck"


class Clock(Protocol):
    """Time, as the engine sees it."""

    def wall(self) -> UtcMs:
        """Return the wall clock, milliseconds since the epoch, rounded down."""
        ...

    def wall_us(self) -> int:
        """Return the wall clock in microseconds since the epoch; for lateness only."""
        ...

    def mono(self) -> MonoS:
        """Return the monotonic clock, seconds; it stands still while the machine is suspended."""
        ...

    def boot(self) -> float:
        """Return seconds since boot, suspend included."""
        ...

    def is_synchronised(self) -> bool | None:
        """Whether the kernel calls the wall clock synchronised; None where that cannot be known."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Return after *duration_s* seconds of monotonic time."""
        ...

    async def wait(self, until: UtcMs | None, wake: asyncio.Event, *, precise: bool = False) -> WaitResult:
        """Wait for the wall instant *until* (None: for ever), for *wake*, or for at most ``MAX_WAIT_S``.

        Never returns DUE while ``wall() < until``. *precise* spends up to 1.5 ms of CPU on ending at the instant itself;
        without it the wait may end some milliseconds after. *wake* is cleared when WOKEN is returned.
        """
        ...


class SystemClock:
    """The clocks of this machine."""

    def wall(self) -> UtcMs:
        return UtcMs(time.time_ns() // 1_000_000)

    def wall_us(self) -> int:
        return time.time_ns() // 1_000

    def mono(self) -> MonoS:
        return MonoS(time.monotonic())

    def boot(self) -> float:
        if sys.platform == "linux":
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.monotonic()

    def is_synchronised(self) -> bool | None:
        if sys.platform != "linux":
            return None
        timex = ctypes.create_string_buffer(512)  # struct timex is 208 bytes; modes 0 at its start only reads
        try:
            state: int = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
        except (OSError, AttributeError):
            return None
        return None if state < 0 else state != _TIME_ERROR

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)

    async def wait(self, until: UtcMs | None, wake: asyncio.Event, *, precise: bool = False) -> WaitResult:
        if wake.is_set():
            wake.clear()
            return WaitResult.WOKEN
        remaining_s = MAX_WAIT_S if until is None else until / 1000 - time.time()
        if remaining_s > 0:
            margin_s = _EARLY_WAKE_S if precise else 0.0
            if remaining_s > margin_s and await _woken(wake, min(remaining_s - margin_s, MAX_WAIT_S)):
                return WaitResult.WOKEN
            if until is None:
                return WaitResult.RECHECK
        until_ns = (until or 0) * 1_000_000
        while (remaining_ns := until_ns - time.time_ns()) > 0:
            if (
                remaining_ns > 2e9 * _EARLY_WAKE_S
            ):  # the timer was early, or the clock has been set back just now
                return WaitResult.RECHECK
            if wake.is_set():
                wake.clear()
                return WaitResult.WOKEN
            await asyncio.sleep(0 if precise else 0.001)
        return WaitResult.DUE


async def _woken(wake: asyncio.Event, timeout_s: float) -> bool:
    loop = asyncio.get_running_loop()
    waiter = loop.create_task(wake.wait())
    try:
        done, _ = await asyncio.wait((waiter,), timeout=timeout_s)
    finally:
        waiter.cancel()
    if done:
        wake.clear()
    return bool(done)


async def within(clock: Clock, duration_s: float, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Await *work*, but no longer than *duration_s* seconds; return its task, which is cancelled if it is not done by then."""
    task = asyncio.ensure_future(work)
    timer = asyncio.ensure_future(clock.sleep(duration_s))
    try:
        await asyncio.wait((task, timer), return_when=asyncio.FIRST_COMPLETED)
        return task
    finally:
        timer.cancel()
        task.cancel()
