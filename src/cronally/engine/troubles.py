"""Which schedules are in trouble: since when, why, and what of it people have not been told.

A schedule is in trouble when a fire of its is rejected or has expired, when one leaves later than its ``late_after`` allows, or when one
has waited for SNS for a minute (or for ``late_after``, if that is shorter). It is over with the next fire that leaves in time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.domain.durations import MINUTE_MS, format_duration
from cronally.domain.model import State, fire_id
from cronally.domain.shards import SHARDS
from cronally.engine.alert import Alert
from cronally.errors import printable
from cronally.instants import UtcMs, format_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cronally.domain.model import JournalEntry
    from cronally.engine.records import Label

_WAITS_MS: Final = MINUTE_MS  # SNS throttles and fails for seconds every day
_LEAST_LATE_US: Final = 1_000_000  # the shortest late_after
_MOST_CHARS: Final = 300  # of a line's reason


@dataclass(slots=True)
class _Waiting:
    """A fire that SNS did not take yet, the first of its schedule since one left in time."""

    name: str
    fire_id: str
    due_time: UtcMs
    since: UtcMs
    late_after: int | None
    error: str


class _Found(NamedTuple):
    """A schedule that failed on the machine before, of which people do not know yet."""

    name: str
    since: UtcMs


class Troubles:
    """Which schedules are in trouble, and what of it has not been told. No ``await``: instants and labels are arguments."""

    def __init__(self, failing: Iterable[int] = ()) -> None:
        """failing: schedules that the daemon before told of."""
        self._troubled = set(failing)
        self._known = set(self._troubled)  # to people
        self._waiting: dict[int, _Waiting] = {}
        self._found: dict[int, _Found] = {}
        self._expected: Counter[int] = Counter()  # entries to be heard, by whose they are
        self._failing: dict[str, str] = {}
        self._recovered: dict[str, str] = {}
        self._ids: dict[str, int] = {}  # of those in the two above
        self._telling: dict[int, bool] = {}  # of whom is told right now, and whether they are in trouble
        self._unread: set[int] = set()
        self._gone: set[int] = set()

    @property
    def is_waiting(self) -> bool:
        """Whether time alone may bring trouble."""
        return bool(self._waiting or self._found)

    @property
    def has_news(self) -> bool:
        return bool(self._failing or self._recovered)

    def expect(self, entry: JournalEntry) -> bool:
        """Whether an entry can begin or end trouble; then it is to be heard, or forgotten."""
        state, id_ = entry.state, entry.schedule_id
        if state is State.PUBLISHED:
            matters = (
                (entry.lateness_us or 0) >= _LEAST_LATE_US
                or id_ in self._troubled
                or id_ in self._waiting
                or id_ in self._expected
                or id_ % SHARDS in self._unread
            )
        elif state is State.PENDING:
            matters = entry.last_error is not None
        else:
            matters = state is not State.SKIPPED
        if matters:
            self._expected[id_] += 1
        return matters

    def forget(self, entry: JournalEntry) -> None:
        """An entry that was expected is not heard."""
        self._expected[entry.schedule_id] -= 1
        if not self._expected[entry.schedule_id]:
            del self._expected[entry.schedule_id]

    def hear(self, entry: JournalEntry, label: Label, now: UtcMs) -> None:
        """Take in an entry that was expected."""
        self.forget(entry)
        id_, name = entry.schedule_id, label.name
        if id_ % SHARDS in self._gone:
            return
        fire = fire_id(name, entry.fire_time, entry.kind)
        if entry.state is State.PENDING:
            waiting = self._waiting.setdefault(
                id_, _Waiting(name, fire, entry.due_time, now, label.late_after, "")
            )
            waiting.error = _reason(entry)
        elif entry.state is not State.PUBLISHED:
            self._fails(id_, name, f"{fire} {_BECAME[entry.state]}{_because(entry)}")
        else:
            late_ms = (entry.lateness_us or 0) // 1000
            if label.late_after is not None and late_ms > label.late_after:
                allowed = format_duration(label.late_after)
                self._fails(id_, name, f"{fire} left {_span(late_ms)} late, more than {allowed}")
            else:
                self._waits_no_more(id_)
                if id_ in self._troubled:
                    self._troubled.discard(id_)
                    self._recovered[name] = f"{fire} left in time"
                    self._ids[name] = id_

    def look(self, now: UtcMs) -> None:
        """See whose fires have waited for too long."""
        for id_, waiting in list(self._waiting.items()):
            late_ms = now - waiting.due_time
            is_late = waiting.late_after is not None and late_ms > waiting.late_after
            if is_late or now - waiting.since >= _WAITS_MS:
                self._fails(
                    id_, waiting.name, f"{waiting.fire_id} waits, {_span(late_ms)} late: {waiting.error}"
                )

    def take(self) -> Alert:
        """Return what has not been told, which then counts as being told."""
        names = self._failing | self._recovered
        alert = Alert(self._failing, self._recovered, {name: self._ids[name] for name in names})
        self._failing, self._recovered, self._ids = {}, {}, {}
        self._telling = {id_: id_ in self._troubled for id_ in alert.ids.values()}
        return alert

    def told(self) -> set[int]:
        """What was taken is told; return the shards of which people know something else now."""
        changed = {id_ % SHARDS for id_ in self._telling} - self._gone
        self._note_told(id_ for id_ in self._telling if id_ % SHARDS in changed)
        self._telling = {}
        return changed

    def put_back(self, alert: Alert) -> None:
        """It could not be told after all; what has been heard since is told with it."""
        self._telling = {}
        self._failing = alert.failing | self._failing
        self._recovered = alert.recovered | self._recovered
        self._ids = {**alert.ids, **self._ids}

    def known(self, shard: int) -> frozenset[int]:
        """Return the schedules of a shard that people know to be in trouble."""
        return frozenset(self._of(shard, self._known))

    # shards that come and go

    def expect_shard(self, shard: int) -> None:
        """A shard comes, and it is to be read what people know of it."""
        self._gone.discard(shard)
        self._unread.add(shard)

    def adopt(
        self, shard: int, names: Mapping[int, str], failing: Iterable[int], known: Iterable[int], now: UtcMs
    ) -> None:
        """A shard has come. names: of its schedules. failing: those that its records say fail. known: those that people know to be in trouble."""
        self._unread.discard(shard)
        there = {id_ for id_ in known if id_ in names}
        self._known |= there
        self._troubled |= there
        for id_ in failing:
            if id_ in names and id_ not in self._troubled:
                self._found[id_] = _Found(names[id_], now)

    def overdue(self, now: UtcMs) -> list[tuple[int, str]]:
        """Return id and name of those found failing of which no fire has left in time for a minute; each is then to be found again."""
        return [(id_, found.name) for id_, found in self._found.items() if now - found.since >= _WAITS_MS]

    def find(self, id_: int, error: str | None) -> None:
        """One that was overdue has this error; None: it does not fail any more."""
        found = self._found.pop(id_, None)
        if found is not None and error is not None:
            reason = printable(error)[:_MOST_CHARS]
            self._fails(id_, found.name, f"{reason} (it failed on the machine before this one)")

    def let_go(self, shard: int) -> frozenset[int]:
        """Forget a shard that goes; return whom of it people know to be in trouble once what is left here has been told."""
        self._gone.add(shard)
        self._unread.discard(shard)
        self._note_told(self._of(shard, self._telling))
        for name, id_ in list(self._ids.items()):
            if id_ % SHARDS == shard:
                if id_ in self._troubled:  # the next machine finds that it fails
                    self._failing.pop(name, None)
                    self._recovered.pop(name, None)
                    del self._ids[name]
                else:
                    self._known.discard(id_)
        known = self.known(shard)
        for id_ in list(self._of(shard, [*self._waiting, *self._found])):
            self._waits_no_more(id_)
        for ids in (self._known, self._troubled):
            ids.difference_update(list(self._of(shard, ids)))
        return known

    @staticmethod
    def _of(shard: int, ids: Iterable[int]) -> Iterator[int]:
        return (id_ for id_ in ids if id_ % SHARDS == shard)

    def _note_told(self, ids: Iterable[int]) -> None:
        for id_ in ids:
            (self._known.add if self._telling[id_] else self._known.discard)(id_)

    def _waits_no_more(self, id_: int) -> None:
        self._waiting.pop(id_, None)
        self._found.pop(id_, None)

    def _fails(self, id_: int, name: str, reason: str) -> None:
        self._waits_no_more(id_)
        if id_ not in self._troubled:
            self._troubled.add(id_)
            self._failing[name] = reason
            self._ids[name] = id_


_BECAME: Final = {State.REJECTED: "was rejected", State.EXPIRED: "has expired"}


def _reason(entry: JournalEntry) -> str:
    return printable(entry.last_error or "")[:_MOST_CHARS]


def _because(entry: JournalEntry) -> str:
    more = (
        f" ({entry.count:,} of them up to {format_utc(entry.last_fire_time)})" if entry.last_fire_time else ""
    )
    return more + (f": {_reason(entry)}" if entry.last_error else "")


def _span(ms: int) -> str:
    return format_duration(max(ms, 1_000) // 1_000 * 1_000)
