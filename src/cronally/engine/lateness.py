"""How late fires leave, measured over the recent ones."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from cronally.domain.model import Kind, State
from cronally.engine.hooks import Hooks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.domain.model import JournalEntry

_RECENT = 10_000


class Lateness(Hooks):
    """Keeps the lateness of the last 10,000 scheduled fires that went out at the first attempt."""

    def __init__(self) -> None:
        self._recent_us: deque[int] = deque(maxlen=_RECENT)

    def committed(self, entries: Sequence[JournalEntry]) -> None:
        self._recent_us.extend(
            entry.lateness_us
            for entry in entries
            if entry.state is State.PUBLISHED
            and entry.kind is Kind.SCHEDULED
            and entry.attempts == 1
            and entry.lateness_us is not None
        )

    def summary_us(self) -> dict[str, int] | None:
        """Return ``p50``, ``p99`` and ``max`` in microseconds, and ``count``; None before the first fire."""
        if not self._recent_us:
            return None
        ordered = sorted(self._recent_us)
        last = len(ordered) - 1
        return {
            "p50": ordered[last // 2],
            "p99": ordered[min(last, (last * 99 + 99) // 100)],
            "max": ordered[last],
            "count": len(ordered),
        }
