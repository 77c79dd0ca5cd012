"""When the system that a schedule comes from would have fired, computed apart from our own rules.

croniter finds the local times, without a zone, and what that system does with local times that do not exist or come
twice is written out here, so that a mistake of ours in reading a rule cannot hide behind itself.

========== ===================================================== ==================================================
clock      a local time that does not exist                      one that comes twice
========== ===================================================== ==================================================
fixed      fires at the first instant after the gap              fires at the first
instants   does not fire                                         fires at both
once       does not fire                                         fires at the first
========== ===================================================== ==================================================

``fixed`` is Vixie cron's for a rule whose minute and hour do not begin with ``*``, ``instants`` its other rules' and
all of Kubernetes' (robfig/cron), ``once`` EventBridge's. Sources: docs/semantics.md, *Beside other schedulers*.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from cronally.cli.render import zone
from cronally.instants import MAX_UTC_MS, UtcMs, from_datetime, to_datetime

if TYPE_CHECKING:
    from collections.abc import Iterator

Clock = Literal["fixed", "instants", "once"]

_REACH: Final = timedelta(hours=3)  # further than the clock of any zone jumps today (Troll: two hours)
_SECOND: Final = timedelta(seconds=1)
_REACH_MS: Final = 3 * 3_600_000


class OldRule(Hashable, Protocol):
    """The instants of a schedule in its old system. Immutable."""

    @property
    def by(self) -> str:
        """What they are computed with, for people."""
        ...

    def after(self, start: UtcMs) -> Iterator[UtcMs]:
        """Yield the instants later than *start*, in order, each once. Errors: ValueError if they cannot be computed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OldCrontab:
    """A crontab rule.

    Attributes: text: five fields as croniter reads them. tz: an IANA name. clock: see above. star_needs_both: a day must
        match both day fields if one begins with ``*`` (Vixie), not only if one is ``*``. years: the only ones, or None.
    """

    text: str
    tz: str
    clock: Clock
    star_needs_both: bool = False
    years: frozenset[int] | None = None

    @property
    def by(self) -> str:
        return "croniter"

    def check(self) -> str | None:
        """Return why croniter cannot read it, or None if it can."""
        try:
            self._iterator(datetime(2026, 1, 1))  # noqa: DTZ001 - local time is naive by nature
        except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as exc:
            return " ".join(str(exc).split())[:200]
        return None

    def after(self, start: UtcMs) -> Iterator[UtcMs]:
        waiting: list[UtcMs] = []
        newest = start
        local_zone = zone(self.tz)
        begin = to_datetime(start).astimezone(local_zone).replace(tzinfo=None) - _REACH
        for local in self._local_times(begin):
            floor = UtcMs(from_datetime(local.replace(tzinfo=local_zone)) - _REACH_MS)
            while waiting and waiting[0] < floor:  # no later local time can come before it
                if (instant := heappop(waiting)) > newest:
                    newest = instant
                    yield instant
            for instant in self._instants(local, local_zone):
                heappush(waiting, instant)
        while waiting:
            if (instant := heappop(waiting)) > newest:
                newest = instant
                yield instant

    def _iterator(self, begin: datetime) -> Any:
        from croniter import croniter

        return croniter(self.text, begin, implement_cron_bug=self.star_needs_both)

    def _local_times(self, begin: datetime) -> Iterator[datetime]:
        from croniter import CroniterBadDateError

        if self.years is not None and begin.year < min(self.years):
            begin = datetime(min(self.years), 1, 1) - _SECOND  # noqa: DTZ001 - as above
        iterator = self._iterator(begin)
        while True:
            try:
                local: datetime = iterator.get_next(datetime)
            except (CroniterBadDateError, OverflowError):
                return
            if self.years is not None and local.year > max(self.years):
                return
            if self.years is None or local.year in self.years:
                yield local

    def _instants(self, local: datetime, local_zone: Any) -> list[UtcMs]:
        """Return when the wall clock shows *local*, or when the rule fires instead."""
        shown = [local.replace(tzinfo=local_zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
        real = [one for one in shown if one.astimezone(local_zone).replace(tzinfo=None) == local]
        instants = sorted({from_datetime(one) for one in real})
        if instants:
            return instants if self.clock == "instants" else instants[:1]
        if self.clock != "fixed":
            return []
        # In a gap the later of the two readings uses the offset before it, the earlier one the offset after it.
        early, late = sorted(shown)
        offset = late.astimezone(local_zone).utcoffset()
        while late - early > _SECOND:
            middle = early + (late - early) // 2
            early, late = (
                (early, middle) if middle.astimezone(local_zone).utcoffset() == offset else (middle, late)
            )
        return [UtcMs(from_datetime(late) // 1000 * 1000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class OldInterval:
    """Every *period_ms* from *anchor_ms* on."""

    period_ms: int
    anchor_ms: UtcMs

    @property
    def by(self) -> str:
        return "arithmetic"

    def after(self, start: UtcMs) -> Iterator[UtcMs]:
        steps = max(0, (start - self.anchor_ms) // self.period_ms + 1)
        instant = self.anchor_ms + steps * self.period_ms
        while instant <= MAX_UTC_MS:
            yield UtcMs(instant)
            instant += self.period_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class OldInstant:
    """Once, at a local time; one that comes twice is the first, of one that does not exist nothing is known."""

    local: datetime
    tz: str

    @property
    def by(self) -> str:
        return "arithmetic"

    def after(self, start: UtcMs) -> Iterator[UtcMs]:
        local_zone = zone(self.tz)
        moment = self.local.replace(tzinfo=local_zone).astimezone(UTC)
        if moment.astimezone(local_zone).replace(tzinfo=None) != self.local:
            raise ValueError("its local time does not exist, and what happens then is not documented")
        if (instant := from_datetime(moment)) > start:
            yield instant
