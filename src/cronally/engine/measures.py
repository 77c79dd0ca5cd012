"""What is counted of fires: how late they leave, and what becomes of them.

Late are scheduled fires that went out at the first attempt: how late a retry is says more of SNS than of us.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from cronally.domain.model import Kind, State
from cronally.engine.hooks import Hooks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.domain.model import JournalEntry

_RECENT = 10_000

BOUNDS_US: Final = (
    *(100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000),
    *(100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000),
)
"""Upper bounds of the histogram's buckets, inclusive, microseconds; the last bucket has none."""


class Measures(Hooks):
    """Keeps the lateness of the last 10,000 fires, and counts since the start.

    Attributes: ended: slots by the final state that they came to, as far as it was settled: a pause and a dropped or
        superseded fire are put on record without it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ended: Counter[State] = Counter()
        self._recent_us: deque[int] = deque(maxlen=_RECENT)
        self._counts = [0] * (len(BOUNDS_US) + 1)

    def committed(self, entries: Sequence[JournalEntry]) -> None:
        published, scheduled = State.PUBLISHED, Kind.SCHEDULED
        others = [entry for entry in entries if entry.state is not published]
        self.ended[published] += len(entries) - len(others)
        for entry in others:
            if entry.state is not State.PENDING:
                self.ended[entry.state] += entry.count
        late_us = [
            entry.lateness_us
            for entry in entries
            if entry.state is published
            and entry.attempts == 1
            and entry.kind is scheduled
            and entry.asked_at is None
            and entry.lateness_us is not None
        ]
        self._recent_us.extend(late_us)
        for lateness_us in late_us:
            self._counts[bisect_left(BOUNDS_US, lateness_us)] += 1

    def lateness_us(self) -> dict[str, int] | None:
        """Return ``p50``, ``p99`` and ``max`` of the recent fires in microseconds, and ``count``; None before the first."""
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

    def lateness_histogram(self) -> list[tuple[int | None, int]]:
        """Return (upper bound in microseconds or None, fires since the start) for each bucket, by bound."""
        return list(zip((*BOUNDS_US, None), self._counts, strict=True))
