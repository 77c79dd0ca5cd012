"""How late the event loop is: once a second it is asked to wake, and how much later it does is told.

A step that holds the loop is seen with a chance of its length in a second: one that comes again is seen soon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cronally.clock import Clock
    from cronally.engine.hooks import Hooks

_EVERY_S: Final = 1.0  # 0.003 % of a core


class LagWatch:
    """Asks the loop, for ever."""

    def __init__(self, clock: Clock, hooks: Hooks) -> None:
        self._clock = clock
        self._hooks = hooks

    async def run(self) -> None:
        """Tell how late the loop is, until cancelled."""
        clock = self._clock
        while True:
            asked_s = clock.mono()
            await clock.sleep(_EVERY_S)
            self._hooks.loop_lagged(clock.mono() - asked_s - _EVERY_S)
