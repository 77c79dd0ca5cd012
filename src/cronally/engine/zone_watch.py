"""What a new version of the time zone data does to the rules that are stored.

For each distinct crontab rule in a zone of its own the store keeps the next fires, sampled over two years, with the tzdata
version they were computed under. Under another version they are computed again from the same instants, and the
schedules for which a fire to come has moved are reported.

1. Nothing here decides when a fire is: the timetable has been computed afresh at start, under the present version.
2. It runs beside the engine, a slice at a time, and a store that refuses only makes it try again later.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from cronally.domain.durations import DAY_MS
from cronally.domain.zones import tzdata_version
from cronally.engine.ports import RuleFires
from cronally.errors import StoreError
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.clock import Clock
    from cronally.domain.recurrence import Recurrence
    from cronally.engine.core import Core
    from cronally.engine.hooks import Hooks
    from cronally.engine.ports import Store
    from cronally.engine.timetable import TimetableEntry

MOST_NAMES: Final = 20  # schedules that a report names; it counts all
_SLICE: Final = 16  # rules between two yields to the event loop: 3 ms, or 6 if their fires are compared
_SCANNED_AT_ONCE: Final = 5_000  # entries of the timetable between two yields
_WRITTEN_AT_ONCE: Final = 200  # rules of a transaction: writing them out takes 2 ms
_PROBES: Final = 25  # next fires that are kept of a rule, the first slot after every 30 days
_PROBE_MS: Final = 30 * DAY_MS
_STALE_MS: Final = (
    180 * DAY_MS
)  # fires older than this are computed anew, so that a year and a half stays ahead
_INTERVAL_S: Final = 600.0  # how often rules that are new are put on record


@dataclass(frozen=True, slots=True)
class ZoneChange:
    """What a change of tzdata moved. old, new: versions. names: of schedules, the first MOST_NAMES. count: of all."""

    old: str
    new: str
    names: tuple[str, ...]
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
        self._known: set[Recurrence] = set()
        self._old: set[str] = set()
        self._moved: dict[int, int] = {}  # schedule id to revision id
        self._is_reported = False

    async def run(self) -> None:
        """Compare, then keep the record of new rules, until cancelled."""
        while True:
            try:
                await self.look()
            except StoreError as exc:
                self._hooks.store_failed(exc)
            await self._clock.sleep(_INTERVAL_S)

    async def look(self) -> None:
        """Put every rule on record that is not yet, and report once what moved since another version. Errors: StoreError."""
        rules = await self._new_rules()
        fresh: list[RuleFires] = []
        looked_at: list[Recurrence] = []
        for start in range(0, len(rules), _SLICE):
            some = rules[start : start + _SLICE]
            fresh += await self._look_at(some)
            looked_at += [rule for rule, _ in some]
            if len(fresh) >= _WRITTEN_AT_ONCE or start + _SLICE >= len(rules):
                if fresh:
                    await self._store.keep_rule_fires(fresh)
                self._known.update(looked_at)  # not before: what is not kept is looked at again
                fresh, looked_at = [], []
            await self._clock.sleep(0)
        if not self._is_reported:
            await self._report()
            await self._store.forget_rule_fires(but=self._version)
            self._is_reported = True

    async def _new_rules(self) -> list[tuple[Recurrence, list[TimetableEntry]]]:
        """Return the rules that are not on record yet, each with its entries: one per spread offset."""
        found: dict[Recurrence, list[TimetableEntry]] = {}
        for number, entry in enumerate(list(self._core.timetable.entries()), start=1):
            rule = entry.recurrence
            if rule.fields is not None and rule.tz != "UTC" and rule not in self._known:
                found.setdefault(rule, []).append(entry)
            if number % _SCANNED_AT_ONCE == 0:
                await self._clock.sleep(0)
        return list(found.items())

    async def _look_at(self, rules: Sequence[tuple[Recurrence, list[TimetableEntry]]]) -> list[RuleFires]:
        """Note which of *rules* have moved; return what is to be kept of them."""
        now = self._clock.wall()
        keys = [rule_key(rule) for rule, _ in rules]
        stored = await self._store.rule_fires(keys)
        fresh = []
        for key, (rule, entries) in zip(keys, rules, strict=True):
            row = stored.get(key)
            is_current = row is not None and row.tzdata == self._version
            if row is not None and not is_current and has_moved(rule, row, now):
                self._old.add(row.tzdata)
                table = self._core.timetable
                self._moved |= {id_: table.revision_id(id_) for entry in entries for id_ in entry.ids}
            if row is None or not is_current or row.fires[0][0] < now - _STALE_MS:
                fresh.append(RuleFires(key, self._version, next_fires(rule, now)))
        return fresh

    async def _report(self) -> None:
        if not self._moved:
            return
        first = sorted(self._moved)[:MOST_NAMES]
        specs = await self._store.specs([self._moved[id_] for id_ in first])
        names = tuple(sorted(spec.name for spec in specs.values()))
        self.change = ZoneChange(", ".join(sorted(self._old)), self._version, names, len(self._moved))
        self._hooks.zones_changed(self.change)


def rule_key(rule: Recurrence) -> str:
    """Return a text that is equal for two rules only if they have the same slots: the zone, and a digest of the rest."""
    return f"{rule.tz} {sha256(repr(rule.key).encode()).hexdigest()[:32]}"


def next_fires(rule: Recurrence, now: UtcMs) -> tuple[tuple[UtcMs, UtcMs | None], ...]:
    """Return (instant, first slot later than it) for *now* and every 30 days after it, two years long."""
    probes = (UtcMs(now + number * _PROBE_MS) for number in range(_PROBES))
    return tuple((probe, rule.next_ms(probe)) for probe in probes)


def has_moved(rule: Recurrence, row: RuleFires, now: UtcMs) -> bool:
    """Whether a fire to come is elsewhere than it was when *row* was written."""
    for probe, fire in row.fires:
        found = rule.next_ms(probe)
        if found != fire and max(found or now, fire or now) > now:
            return True
    return False
