"""Whether the wall clock still goes with the others, and whether it can be believed (design §9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.durations import DAY_MS
from cronally.instants import MIN_UTC_MS, UtcMs, format_utc

if TYPE_CHECKING:
    from cronally.clock import Clock

JUMP_MS = 1_000  # design §9: a larger difference between the clocks is a step or a resume
_MOST_AHEAD_MS = DAY_MS  # design §9: an unsynchronised clock so far ahead of the journal is not believed


class Jump(NamedTuple):
    """The wall clock shows *now*; by the time that has passed it would show *expected*.

    slept_ms: how long the machine was suspended meanwhile.
    """

    expected: UtcMs
    now: UtcMs
    slept_ms: int

    @property
    def is_resume(self) -> bool:
        """Whether the machine slept, and its clock went on as it should."""
        return self.slept_ms > JUMP_MS and abs(self.now - self.expected - self.slept_ms) <= JUMP_MS

    @property
    def is_back(self) -> bool:
        """Whether there is time that comes a second time."""
        return self.now < self.expected - JUMP_MS

    @property
    def reason(self) -> str:
        if self.is_resume:
            return "resume from suspend"
        return "clock set back" if self.is_back else "clock step"


class _Reading(NamedTuple):
    wall: UtcMs
    mono_s: float
    boot_s: float


class ClockWatch:
    """Compares the clocks with how they were when they were believed last.

    Args: released_at: when this version was made; it cannot be earlier. is_trusted: the wall clock is believed whatever
        it says.
    """

    def __init__(self, clock: Clock, *, released_at: UtcMs = MIN_UTC_MS, is_trusted: bool = False) -> None:
        self._clock = clock
        self._released_at = released_at
        self._is_trusted = is_trusted
        self._believed = self._seen = self._read()

    def look(self) -> Jump | None:
        """Read the clocks, for ``believe``; return as ``jump`` does."""
        self._seen = self._read()
        return self._compared(self._seen)

    def believe(self) -> None:
        """Take the clocks to be right as they were at the last ``look``."""
        self._believed = self._seen

    def jump(self) -> Jump | None:
        """Return how the wall clock has moved against the others since it was believed; None if by no more than a second."""
        return self._compared(self._read())

    def doubt(self, watermark: UtcMs | None) -> str | None:
        """Say why the wall clock cannot be right, or None. watermark: of the journal."""
        if self._is_trusted:
            return None
        now = self._clock.wall()
        if now < self._released_at:
            return f"it says {format_utc(now)}, before this version was made"
        jump = self.jump()
        is_far = watermark is not None and now > watermark + _MOST_AHEAD_MS
        is_explained = jump is not None and jump.is_resume
        if is_far and not is_explained and self._clock.is_synchronised() is False:
            return (
                f"it is not synchronised and says {format_utc(now)}, over a day after the last journal entry"
            )
        return None

    def _compared(self, now: _Reading) -> Jump | None:
        before = self._believed
        passed_ms = (now.mono_s - before.mono_s) * 1000
        slept_ms = (now.boot_s - before.boot_s) * 1000 - passed_ms
        expected = before.wall + passed_ms
        if abs(now.wall - expected) <= JUMP_MS and slept_ms <= JUMP_MS:
            return None
        return Jump(UtcMs(round(expected)), now.wall, round(slept_ms))

    def _read(self) -> _Reading:
        return _Reading(self._clock.wall(), self._clock.mono(), self._clock.boot())
