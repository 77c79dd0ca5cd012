"""How often what was measured lay where: a histogram that costs a list's increment for each value."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Distribution(NamedTuple):
    """What a histogram has counted. buckets: (inclusive upper bound in seconds, or None for the rest; values), by bound."""

    buckets: tuple[tuple[float | None, int], ...]
    sum_s: float


class Histogram:
    """Counts durations by *bounds_us*, inclusive upper bounds in microseconds, rising; what is longer lies in a last bucket."""

    __slots__ = ("_bounds_us", "_counts", "_sum_us")

    def __init__(self, bounds_us: Sequence[int]) -> None:
        self._bounds_us = bounds_us
        self._counts = [0] * (len(bounds_us) + 1)
        self._sum_us = 0

    def add(self, duration_us: int) -> None:
        """Count one duration."""
        self._counts[bisect_left(self._bounds_us, duration_us)] += 1
        self._sum_us += duration_us

    def extend(self, durations_us: Sequence[int]) -> None:
        """Count many durations."""
        bounds_us, counts = self._bounds_us, self._counts
        for duration_us in durations_us:
            counts[bisect_left(bounds_us, duration_us)] += 1
        self._sum_us += sum(durations_us)

    def counts(self) -> list[tuple[int | None, int]]:
        """Return (upper bound in microseconds or None, values) for each bucket, by bound."""
        return list(zip((*self._bounds_us, None), self._counts, strict=True))

    def distribution(self) -> Distribution:
        """Return what has been counted by now."""
        return Distribution(
            tuple((None if bound is None else bound / 1e6, count) for bound, count in self.counts()),
            self._sum_us / 1e6,
        )


def from_ms(*bounds_ms: float) -> tuple[int, ...]:
    """Return bounds given in milliseconds as a histogram takes them."""
    return tuple(round(bound * 1000) for bound in bounds_ms)
