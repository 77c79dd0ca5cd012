"""What a new version of the time zone data does to the rules that are stored.

For each zone that a crontab rule goes by, the store keeps the zone itself, with the tzdata version it is of. Under another
version the two are compared, and where they differ in the next two years, each rule of the zone is computed under both:
the schedules for which a fire to come has moved are reported. What is kept and compared grows with the zones, of which
there are a few hundred, and not with the rules.

1. Nothing here decides when a fire is: the timetable has been computed afresh at start, under the present version.
2. It runs beside the engine, a slice at a time, and a store that refuses only makes it try again later.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Final

from cronally.domain.durations import DAY_MS
from cronally.domain.zones import Zone, tzdata_version
from cronally.engine.records import ZoneRecord
from cronally.errors import StoreError
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cronally.clock import Clock
    from cronally.domain.slots import Slots
    from cronally.engine.core import Core
    from cronally.engine.hooks import Hooks
    from cronally.engine.ports import Store
    from cronally.engine.timetable import TimetableEntry

MOST_NAMES: Final = 20  # schedules that a report names; it counts all
_SCANNED_AT_ONCE: Final = 2_000  # entries of the timetable between two yields to the event loop: 2 ms
_WRITTEN_AT_ONCE: Final = 5  # zones of a transaction: each has up to 10 KB, and takes 0.3 ms to write out
_HORIZON_MS: Final = 730 * DAY_MS
_PROBE_MS: Final = 30 * DAY_MS
_MOST_SLOTS: Final = 1_500  # of a rule that are compared one by one: more than a day of minutes; 3 ms
_REMEMBERED: Final = 10_000  # rules of which it is known whether they moved
_INTERVAL_S: Final = 600.0  # how often zones that are new are put on record

Span = tuple[UtcMs, UtcMs]


@dataclass(frozen=True, slots=True)
class ZoneChange:
    """What a change of tzdata moved. old, new: versions. names: of schedules, the first MOST_NAMES. count: of all."""

    old: str
    new: str
    names: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class _Moved:
    """What moved in one zone. first: (id, revision id) of the first MOST_NAMES schedules. count: of all."""

    old: str
    first: tuple[tuple[int, int], ...]
    count: int


class ZoneWatch:
    """Compares at start, and keeps the record while the engine runs. Attributes: change: what was found, or None."""

    def __init__(
        self, core: Core, store: Store, clock: Clock, hooks: Hooks, *, version: str | None = None
    ) -> None:
        """version: of tzdata; None: the one that is installed."""
        self.change: ZoneChange | None = None
        self._core = core
        self._store = store
        self._clock = clock
        self._hooks = hooks
        self._version = tzdata_version() if version is None else version
        self._known: set[str] = set()
        self._moved: dict[str, _Moved] = {}
        self._is_reported = False

    async def run(self) -> None:
        """Compare, then keep the record of new zones, until cancelled."""
        while True:
            try:
                await self.look()
            except StoreError as exc:
                self._hooks.store_failed(exc)
            await self._clock.sleep(_INTERVAL_S)

    async def look(self) -> None:
        """Put every zone on record that is not yet, and report once what moved since another version. Errors: StoreError."""
        zones = await self._new_zones()
        names = sorted(zones)
        for start in range(0, len(names), _WRITTEN_AT_ONCE):
            some = names[start : start + _WRITTEN_AT_ONCE]
            stored = await self._store.zone_records(some)
            fresh = []
            for name in some:
                record = stored.get(name)
                if record is None or record.tzdata != self._version:
                    fresh.append(_record(zones[name], self._version))
                    if record is not None:
                        await self._compare(record, zones[name])
            if fresh:
                await self._store.keep_zone_records(fresh)
            self._known.update(some)  # not before: what is not kept is looked at again
        if not self._is_reported:
            await self._report()
            await self._store.forget_zone_records(but=self._version)
            self._is_reported = True

    async def _new_zones(self) -> dict[str, Zone]:
        """Return the zones that rules go by and that are not on record yet, by name."""
        found: dict[str, Zone] = {}
        for number, entry in enumerate(self._core.timetable.entries(), start=1):
            zone = entry.recurrence.zone
            if zone is not None and zone.name != "UTC" and zone.name not in self._known:
                found[zone.name] = zone
            if number % _SCANNED_AT_ONCE == 0:
                await self._clock.sleep(0)
        return found

    async def _compare(self, record: ZoneRecord, new: Zone) -> None:
        """Note which schedules another version of a zone has moved."""
        old, now = Zone(record.name, [*record.starts], [*record.offsets]), self._clock.wall()
        spans = differing(old, new, now, UtcMs(now + _HORIZON_MS))
        self._moved.pop(record.name, None)
        if not spans:
            return
        found: dict[Slots, bool] = {}
        moved: list[TimetableEntry] = []
        for number, entry in enumerate(self._core.timetable.entries(), start=1):
            rule = entry.recurrence
            if rule.zone is new:
                if rule not in found:
                    found = found if len(found) < _REMEMBERED else {}
                    found[rule] = has_moved(rule, old, spans)
                    await self._clock.sleep(0)
                if found[rule]:
                    moved.append(entry)
            if number % _SCANNED_AT_ONCE == 0:
                await self._clock.sleep(0)
        table = self._core.timetable
        first: list[tuple[int, int]] = []
        count = 0
        for entry in moved:
            ids = entry.ids
            count += len(ids)
            first = nsmallest(MOST_NAMES, [*first, *((id_, table.revision_id(id_)) for id_ in ids)])
            await self._clock.sleep(0)
        self._moved[record.name] = _Moved(record.tzdata, tuple(first), count)

    async def _report(self) -> None:
        count = sum(moved.count for moved in self._moved.values())
        if not count:
            return
        first = nsmallest(MOST_NAMES, (one for moved in self._moved.values() for one in moved.first))
        specs = await self._store.specs([revision_id for _, revision_id in first])
        old = ", ".join(sorted({moved.old for moved in self._moved.values() if moved.count}))
        names = tuple(sorted(spec.name for spec in specs.values()))
        self.change = ZoneChange(old, self._version, names, count)
        self._hooks.zones_changed(self.change)


def _record(zone: Zone, version: str) -> ZoneRecord:
    return ZoneRecord(zone.name, version, tuple(zone.starts[:-1]), tuple(zone.offsets))


def differing(old: Zone, new: Zone, start: UtcMs, end: UtcMs) -> list[Span]:
    """Return the spans within [*start*, *end*) in which the two zones have different offsets, in order."""
    first, last = start // 1000, end // 1000
    changes = {second for zone in (old, new) for second in zone.starts if first < second < last}
    instants = sorted({first, *changes, last})
    spans: list[tuple[int, int]] = []
    for begin, stop in pairwise(instants):
        if old.offset_at(begin) == new.offset_at(begin):
            continue
        if spans and spans[-1][1] == begin:
            begin = spans.pop()[0]  # noqa: PLW2901 - one span with the one before
        spans.append((begin, stop))
    return [(UtcMs(begin * 1000), UtcMs(stop * 1000)) for begin, stop in spans]


def has_moved(rule: Slots, old: Zone, spans: Sequence[Span]) -> bool:
    """Whether *rule* has, in *spans*, other slots than it had by the *old* clock.

    At the beginning of each span they are compared one by one, for up to two days; then the next one of every 30 days.
    """
    before = rule.in_zone(old)
    for start, end in spans:
        after, until = UtcMs(start - 1), UtcMs(min(start + 2 * DAY_MS, end + DAY_MS))
        if any(slot != was for slot, was in _pairs(rule, before, after, until)):
            return True
        for probe in range(after + _PROBE_MS, end, _PROBE_MS):
            if rule.next_ms(UtcMs(probe)) != before.next_ms(UtcMs(probe)):
                return True
    return False


def _pairs(
    rule: Slots, before: Slots, after: UtcMs, until: UtcMs
) -> Iterator[tuple[UtcMs | None, UtcMs | None]]:
    """Yield the slots of both beside each other: the first, however late it is, and those up to *until*."""
    yield rule.next_ms(after), before.next_ms(after)
    slots = list(islice(rule.between_ms(after, until), _MOST_SLOTS))
    were = list(islice(before.between_ms(after, until), _MOST_SLOTS))
    yield from zip(slots, were, strict=False)
    yield UtcMs(len(slots)), UtcMs(len(were))
