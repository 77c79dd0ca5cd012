"""Why nothing may leave before recovery has decided anew what does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cronally.engine.settle import Settler


class Halt:
    """Shared by those who plan, release and retry.

    Attributes: reason: what recovery is to be told; None when all is well. doubt: why the clock cannot be right, or None.
        is_half_recovered: recovery has begun, and the store does not let it finish.
    """

    def __init__(self, settler: Settler) -> None:
        self.reason: str | None = None
        self.doubt: str | None = None
        self.is_half_recovered = False
        self._settler = settler

    def is_on(self) -> bool:
        """Whether nothing may leave: recovery is asked for, or the store takes no commits (design §8)."""
        if self.reason is None and self._settler.is_blocked:
            self.reason = "store"
        return self.reason is not None

    @property
    def because(self) -> str | None:
        """Why nothing leaves, for a person; None while all is well or recovery is about to see to it."""
        if self.doubt is not None:
            return f"the clock is not believed: {self.doubt}; set it, or start with --trust-clock"
        error = self._settler.last_error
        if error is not None and (self._settler.is_blocked or not error.is_retryable):
            return f"the store takes no commits ({error})"
        if self.is_half_recovered:
            return "the store cannot be read to decide on missed fires; the log says why"
        return None
