"""How long the journal is kept: what comes first of an age and a size, pruned in small steps beside everything else.

1. A row goes once all of it was due, and left if it left at all, so long ago (``Store.prune``); over the size, the oldest go
   first, if need be up to the watermark. What is pending or open, or after the watermark, never goes.
2. A step is one short transaction. It waits for a moment in which nothing leaves; if there is none, it goes on all the
   same, and the more often that happens, the less it waits: what comes in for good must go out at the same rate.
3. A wrong clock must not cost the journal: after a step of the clock nothing is too old for an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cronally.domain.durations import DAY_MS, format_duration
from cronally.domain.sizes import format_size
from cronally.engine.clock_watch import JUMP_MS
from cronally.errors import StoreError
from cronally.instants import MIN_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Callable

    from cronally.clock import Clock
    from cronally.engine.core import Core
    from cronally.engine.hooks import Hooks
    from cronally.engine.ports import Store

DEFAULT_KEEP_MS: Final = 30 * DAY_MS  # design §8
DEFAULT_MAX_BYTES: Final = 2 << 30  # design §8
INTERVAL_S: Final = 60.0  # between two passes
AFTER_STEP_S: Final = 3600.0  # for so long after a step of the clock nothing is pruned for its age
_ANEW_S: Final = 3600.0  # how often a pass begins at the oldest row again: what had to stay may go now
_STEP_ROWS: Final = 250  # 5 ms of the writer, if each is on another page
_PAUSE_S: Final = 0.01  # between two steps the writer is free for as long as it was not
_QUIET_MS: Final = 50  # nothing in flight, and nothing due for so long
_LOOK_S: Final = 0.05  # how often to look whether it is quiet
_MOST_PATIENCE_S: Final = 1.0  # how long a step waits for that, at first
_LEAST_PATIENCE_S: Final = 0.01  # and at least: 25,000 rows a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How much of the journal is kept. keep_ms: an hour or more. max_bytes: of the whole store."""

    keep_ms: int = DEFAULT_KEEP_MS
    max_bytes: int = DEFAULT_MAX_BYTES

    def __str__(self) -> str:
        """Return both, for people."""
        return f"{format_duration(self.keep_ms)} or {format_size(self.max_bytes)}, what comes first"


class Retention:
    """Prunes the journal while the engine runs. Attributes: keep: how much of it is kept; another one holds from the next pass."""

    def __init__(
        self,
        core: Core,
        store: Store,
        clock: Clock,
        hooks: Hooks,
        *,
        is_quiet: Callable[[int], bool],
        keep: Keep,
    ) -> None:
        """is_quiet: whether nothing is in flight and nothing leaves within so many milliseconds."""
        self._core = core
        self._store = store
        self._clock = clock
        self._hooks = hooks
        self._is_quiet = is_quiet
        self.keep = keep
        self._patience_s = _MOST_PATIENCE_S
        self._after: tuple[UtcMs, int, str] | None = None
        self._anew_at: float = clock.mono()
        self._epoch_ms = self._epoch()
        self._rests_until: float = clock.mono()

    async def run(self) -> None:
        """Make a pass a minute, until cancelled."""
        while True:
            await self._clock.sleep(INTERVAL_S)
            try:
                await self.prune()
            except StoreError as exc:
                self._hooks.store_failed(exc)

    async def prune(self) -> None:
        """Prune all that is too old, then the oldest of what is too much. Errors: StoreError; what is done is done."""
        if self._clock.mono() >= self._anew_at:
            self._after, self._anew_at = None, self._clock.mono() + _ANEW_S
        if not self._is_clock_new():
            await self._walk(UtcMs(max(MIN_UTC_MS, self._clock.wall() - self.keep.keep_ms)), most_bytes=None)
        if await self._is_over(self.keep.max_bytes):
            await self._walk(self._clock.wall(), most_bytes=self.keep.max_bytes)
        self._patience_s = min(_MOST_PATIENCE_S, self._patience_s * 2)

    async def _walk(self, bound: UtcMs, *, most_bytes: int | None) -> None:
        """Prune up to *bound*, until no more than *most_bytes* are left (None: all of it)."""
        rows, is_end = 0, False
        try:
            while not is_end and (most_bytes is None or await self._is_over(most_bytes)):
                await self._moment()
                # Of a shard that is being taken in the last rows say what is settled.
                bound = min(bound, self._core.watermark(self._clock.wall()))
                step = await self._store.prune(bound, after=self._after, limit=_STEP_ROWS)
                self._after, is_end = step.after, step.is_end
                rows += step.rows
                if step.through is not None:
                    self._core.pruned_through = max(self._core.pruned_through, step.through)
        finally:
            if rows:
                self._hooks.pruned(rows, self._core.pruned_through, for_size=most_bytes is not None)

    async def _is_over(self, most_bytes: int) -> bool:
        return await self._store.size_bytes() > most_bytes

    async def _moment(self) -> None:
        """Wait for a moment in which nothing leaves, as long as patience lasts."""
        waited_s = 0.0
        while not self._is_quiet(_QUIET_MS):
            if waited_s >= self._patience_s:
                self._patience_s = max(_LEAST_PATIENCE_S, self._patience_s / 2)
                return
            pause_s = min(_LOOK_S, self._patience_s - waited_s)
            await self._clock.sleep(pause_s)
            waited_s += pause_s
        await self._clock.sleep(_PAUSE_S)

    def _is_clock_new(self) -> bool:
        """Whether the wall clock has moved against the monotonic one in the last hour."""
        epoch_ms = self._epoch()
        if abs(epoch_ms - self._epoch_ms) > JUMP_MS:
            self._rests_until = self._clock.mono() + AFTER_STEP_S
        self._epoch_ms = epoch_ms
        return self._clock.mono() < self._rests_until

    def _epoch(self) -> float:
        """Return what the wall clock showed when the monotonic one began, milliseconds."""
        return self._clock.wall() - self._clock.mono() * 1000
