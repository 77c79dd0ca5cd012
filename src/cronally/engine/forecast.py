"""How many messages will be due in each minute of the coming day, by region."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING

from cronally.domain.durations import DAY_MS, MINUTE_MS
from cronally.domain.policy import clip, slot_window
from cronally.domain.topic import way_of
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cronally.clock import Clock
    from cronally.domain.model import Fire
    from cronally.domain.policy import Window
    from cronally.domain.slots import Slots
    from cronally.domain.topic import Way
    from cronally.engine.core import Core
    from cronally.engine.ports import Store
    from cronally.engine.timetable import TimetableEntry

MINUTES = DAY_MS // MINUTE_MS
_SINGLES_AT_ONCE = 200  # @at schedules whose topics are asked for
_AT_ONCE = 1_000  # schedules, slots or counts between two turns of the event loop: 2 to 5 ms


class Forecast:
    """The minutes from *starts_at* on. Attributes: minutes: by way, messages due in each of the 1,440 minutes."""

    def __init__(self, starts_at: UtcMs) -> None:
        self.starts_at = starts_at
        self.minutes: dict[Way, array[int]] = {}

    @property
    def ends_at(self) -> UtcMs:
        return UtcMs(self.starts_at + DAY_MS)

    def add_timetable(self, core: Core) -> Iterator[None]:
        """Count what the schedules of the timetable have, a step at a time. Those that come or go meanwhile may be counted or not."""
        table = core.timetable
        entries: dict[int, TimetableEntry] = {}
        crowds: Counter[tuple[int, Window]] = Counter()
        for id_ in table.ids():
            entry = table.entry(id_)
            entries.setdefault(entry.number, entry)
            crowds[entry.number, self._window(core, id_, entry.offset_ms)] += 1
            yield
        for (number, window), count in crowds.items():
            entry = entries[number]
            for due, times in _dues(entry.recurrence, entry.offset_ms, window):
                self._add(entry.topic, due, times * count)
                yield
            yield

    def _window(self, core: Core, id_: int, offset_ms: int) -> Window:
        """Return the fire times that are due within the day and that the schedule's bounds leave open."""
        after, through = UtcMs(self.starts_at - offset_ms - 1), UtcMs(self.ends_at - offset_ms - 1)
        window = slot_window(core.timetable.effective_from(id_), None, core.ends_of(id_))
        return clip(window, after=after, through=through)

    def add_singles(self, fires: Iterable[tuple[Fire, str]]) -> None:
        """Count fires of ``@at`` schedules, each with its topic."""
        for fire, topic in fires:
            self._add(topic, fire.due_time, 1)

    def _add(self, topic: str, due: int, count: int) -> None:
        way = way_of(topic)
        minutes = self.minutes.get(way)
        if minutes is None:
            minutes = self.minutes[way] = array("q", bytes(8 * MINUTES))
        minutes[(due - self.starts_at) // MINUTE_MS] += count


async def forecast_of(core: Core, store: Store, clock: Clock) -> Forecast:
    """Return the forecast from the next full minute on, without the schedules that are paused. Errors: StoreError."""
    now = clock.wall()
    forecast = Forecast(UtcMs(now - now % MINUTE_MS + MINUTE_MS))
    for number, _ in enumerate(forecast.add_timetable(core), start=1):
        if number % _AT_ONCE == 0:
            await clock.sleep(0)
    fires = await store.at_between(UtcMs(forecast.starts_at - 1), UtcMs(forecast.ends_at - 1))
    for start in range(0, len(fires), _SINGLES_AT_ONCE):
        some = fires[start : start + _SINGLES_AT_ONCE]
        labels = await store.labels([fire.revision_id for fire in some])
        forecast.add_singles((fire, labels[fire.revision_id].topic) for fire in some)
        await clock.sleep(0)
    return forecast


def _dues(slots: Slots, offset_ms: int, window: Window) -> Iterator[tuple[int, int]]:
    """Yield due times with how many slots are due then; of a rule with over one a minute, each minute once."""
    if window.after >= window.through:
        return
    if slots.count_ms(window.after, window.through) <= MINUTES:
        for slot in slots.between_ms(window.after, window.through):
            yield slot + offset_ms, 1
        return
    begin = window.after
    while begin < window.through:
        first_due = begin + offset_ms + 1
        next_minute = first_due - first_due % MINUTE_MS + MINUTE_MS
        end = UtcMs(min(next_minute - offset_ms - 1, window.through))
        yield first_due, slots.count_ms(begin, end)
        begin = end
