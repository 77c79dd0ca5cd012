"""Whether the engine's loops go round: what a watchdog is told by (docs/operations.md).

Each loop waits a second at most when it has nothing to do (``clock.MAX_WAIT_S``), so one that has not passed for long hangs.
One exception: what waits for a store that refuses says so. To end a process for that would lose the outcomes it keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cronally.clock import Clock
    from cronally.instants import MonoS

PLAN: Final = "plan"
RELEASE: Final = "release"
RETRY: Final = "retry"


class Pulse:
    """When each loop has passed last. One that has never passed does not run, and is not missed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._passed: dict[str, MonoS] = {}

    def beat(self, loop: str) -> None:
        """*loop* passes."""
        self._passed[loop] = self._clock.mono()

    def excuse(self) -> None:
        """Some loop waits for a store that refuses, and looks again: none of them is taken to hang for it."""
        now = self._clock.mono()
        self._passed = dict.fromkeys(self._passed, now)

    def silence(self) -> tuple[float, str | None]:
        """Return for how many seconds the most silent loop has not passed, and which it is."""
        if not self._passed:
            return 0.0, None
        loop = min(self._passed, key=self._passed.__getitem__)
        return self._clock.mono() - self._passed[loop], loop
