"""Telling people of schedules in trouble: once when it begins, once when it is over, and never a storm.

A schedule is in trouble when a fire of its is rejected or has expired, when one leaves later than its ``late_after`` allows, or when one
has waited for SNS for a minute (or for ``late_after``, if that is shorter). It is over with the next fire that leaves in time.

Of several machines each tells of the schedules that it drives, and what people have been told of a shard goes with it (docs/adr/0015):

1. What is told is noted right after, so that a machine that dies in between has its trouble told twice, and never not at all.
2. Who takes a shard knows from the note whom people know to be in trouble. Others that its records say fail it tells of unless a fire of theirs leaves in a minute.
3. Who gives a shard tells itself what trouble was over by then; what goes on it leaves to the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from cronally.actions import about
from cronally.domain.durations import MINUTE_MS, format_duration
from cronally.domain.model import State, fire_id
from cronally.domain.shards import SHARDS
from cronally.errors import CronallyError, printable
from cronally.instants import MonoS, UtcMs, format_utc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from cronally.clock import Clock
    from cronally.domain.model import JournalEntry
    from cronally.engine.ports import Store
    from cronally.engine.records import Label, TakenIn

GATHER_S: Final = 2.0  # what begins together is told together
EVERY_S: Final = 60.0  # between two messages
RETRY_S: Final = 30.0
_LAST_WORDS_S: Final = 3.0
_GIVING_S: Final = 0.2  # at most, of the second in which a shard that is given is driven again
_LOOK_S: Final = 5.0  # at what waits
_WAITS_MS: Final = MINUTE_MS  # SNS throttles and fails for seconds every day
_LEAST_LATE_US: Final = 1_000_000  # the shortest late_after
_MOST_HEARD: Final = 50_000  # entries between two looks; then the oldest go
_AT_ONCE: Final = 500  # entries between two turns of the event loop
_MOST_LINES: Final = 50  # of a message
_MOST_CHARS: Final = 300  # of a line's reason

_log = logging.getLogger(__name__)


class Messenger(Protocol):
    """Sends a message to people."""

    async def send(self, subject: str, text: str, *, kind: str) -> None:
        """Publish; kind: the attribute ``cronally.alert``. Errors: CronallyError."""
        ...


class Told(NamedTuple):
    """What people have been told of a shard. Fields: troubled: ids of its schedules that they know to be in trouble. at: when the last message of them left."""

    troubled: frozenset[int] = frozenset()
    at: UtcMs | None = None


class Notes(Protocol):
    """Keeps for each shard, for whoever drives it next, what people have been told of it. Errors: StoreError."""

    async def read(self, shard: int) -> Told: ...

    async def write(self, shard: int, told: Told) -> None:
        """Keep it, if this machine still drives the shard."""
        ...


class Alert(NamedTuple):
    """What is to be told: by schedule's name, the sentence. failing comes before recovered. ids: whose it is, by name."""

    failing: dict[str, str]
    recovered: dict[str, str]
    ids: Mapping[str, int] = MappingProxyType({})

    @property
    def kind(self) -> str:
        return "failing" if self.failing else "recovered"

    @property
    def subject(self) -> str:
        """Up to 100 characters of ASCII, as SNS wants it."""
        if len(self.failing) + len(self.recovered) == 1:
            [name] = self.failing or self.recovered
            return f"Cronally: {name} {'fails' if self.failing else 'has recovered'}"[:100]
        parts = [
            f"{len(found):,} schedule{'s' if len(found) > 1 else ''} {words}"
            for found, words in ((self.failing, "in trouble"), (self.recovered, "recovered"))
            if found
        ]
        return f"Cronally: {', '.join(parts)}"

    @property
    def text(self) -> str:
        lines = [f"{name} fails: {reason}" for name, reason in self.failing.items()]
        lines += [f"{name} has recovered: {reason}" for name, reason in self.recovered.items()]
        if len(lines) > _MOST_LINES:
            lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES:,} more"]
        return "\n".join([*lines, "", "cronally history NAME says what became of each fire."])


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


class Alerts:
    """Hears what is committed and tells people what matters of it."""

    def __init__(
        self,
        messenger: Messenger,
        store: Store,
        clock: Clock,
        *,
        notes: Notes | None = None,
        may_tell: Callable[[], bool] = lambda: True,
    ) -> None:
        """notes: None if this machine is alone. may_tell: whether no other machine can have taken over what this one drives."""
        self.troubles = Troubles()
        self._messenger = messenger
        self._store = store
        self._clock = clock
        self._notes = notes
        self._may_tell = may_tell
        self._may_tell_at = MonoS(0.0)
        self._told_at: UtcMs | None = None
        self._heard: deque[JournalEntry] = deque()
        self._arrived = asyncio.Event()
        self._taken: dict[int, TakenIn] = {}  # shards that have come, and are to be adopted
        self._unwritten: set[int] = set()
        self._hearing = asyncio.Lock()

    def heard(self, entries: Sequence[JournalEntry]) -> None:
        """Entries are durable."""
        mattering = [entry for entry in entries if self.troubles.expect(entry)]
        if mattering:
            self._heard.extend(mattering)
            while len(self._heard) > _MOST_HEARD:
                self.troubles.forget(self._heard.popleft())
            self._arrived.set()

    async def run(self) -> None:
        """Tell people, for ever."""
        while True:
            troubles = self.troubles
            if not (troubles.is_waiting or troubles.has_news or self._unwritten):
                await self._arrived.wait()
            await self._clock.sleep(GATHER_S if self._arrived.is_set() else _LOOK_S)
            self._arrived.clear()
            try:
                await self._hear()
                await self._look()  # which may take long, and no shard that goes waits for it
            except CronallyError:  # the store is in trouble itself: it says so, and these are read again
                self._arrived.set()
                continue
            if troubles.has_news and self._may_tell() and self._clock.mono() >= self._may_tell_at:
                is_told = await self._tell()
                self._may_tell_at = MonoS(self._clock.mono() + (EVERY_S if is_told else RETRY_S))
            await self._write_notes()

    async def finish(self) -> None:
        """Tell, if it can be done at once, what has not been told; afterwards nobody remembers."""
        if self.troubles.has_news:
            timer = asyncio.ensure_future(self._clock.sleep(_LAST_WORDS_S))
            telling = asyncio.ensure_future(self._tell())
            await asyncio.wait((timer, telling), return_when=asyncio.FIRST_COMPLETED)
            for task in (timer, telling):
                task.cancel()

    # shards that come and go

    def take_in(self, taken: TakenIn) -> None:
        """A shard comes; called again with the same one, it is the same."""
        self._taken[taken.number] = taken
        self.troubles.expect_shard(taken.number)
        self._arrived.set()

    async def give_up(self, number: int) -> None:
        """A shard has gone, and all of it is on record: leave to the next machine what people know of it."""
        if self._taken.pop(number, None) is not None:  # nobody has read yet what people know: that stands
            self.troubles.let_go(number)
            return
        hearing = asyncio.ensure_future(self._hear())
        timer = asyncio.ensure_future(self._clock.sleep(_GIVING_S))
        await asyncio.wait(
            (hearing, timer), return_when=asyncio.FIRST_COMPLETED
        )  # nobody drives it meanwhile
        for task in (hearing, timer):
            task.cancel()
        with suppress(CronallyError, asyncio.CancelledError):  # at worst something is told once more
            await hearing
        before = self.troubles.known(number)
        known = self.troubles.let_go(number)
        if self._notes is not None and (known != before or number in self._unwritten):
            self._unwritten.discard(number)
            with suppress(CronallyError):
                await self._notes.write(number, Told(known, self._clock.wall()))

    async def _hear(self) -> None:
        async with self._hearing:
            await self._adopt()
            await self._take_in()

    async def _adopt(self) -> None:
        while self._taken:
            number, taken = next(iter(self._taken.items()))
            told = Told() if self._notes is None else await self._notes.read(number)
            if self._taken.get(number) is not taken:  # it has gone meanwhile
                continue
            del self._taken[number]
            now = self._clock.wall()
            names = {row.id: row.name for row in taken.rows}
            self.troubles.adopt(number, names, taken.failing, told.troubled, now)
            if told.at is not None:
                left_s = min(EVERY_S - (now - told.at) / 1000, EVERY_S)
                self._may_tell_at = MonoS(max(self._may_tell_at, self._clock.mono() + left_s))

    async def _look(self) -> None:
        now = self._clock.wall()
        self.troubles.look(now)
        for id_, name in self.troubles.overdue(now):
            stored = await self._store.schedule(name)
            self.troubles.find(id_, None if stored is None or stored.id != id_ else stored.error)
            await self._clock.sleep(0)

    async def _write_notes(self) -> None:
        with suppress(CronallyError):  # later
            while self._unwritten and self._notes is not None:
                number = next(iter(self._unwritten))
                await self._notes.write(number, Told(self.troubles.known(number), self._told_at))
                self._unwritten.discard(number)

    async def _take_in(self) -> None:
        while self._heard:
            ids = [self._heard[number].revision_id for number in range(min(_AT_ONCE, len(self._heard)))]
            labels: Mapping[int, Label] = await self._store.labels(ids)
            now = self._clock.wall()
            # Some may have gone meanwhile, because there were too many: what stands there now and has no label waits.
            while self._heard and self._heard[0].revision_id in labels:
                entry = self._heard.popleft()
                self.troubles.hear(entry, labels[entry.revision_id], now)
            if self._heard and self._heard[0].revision_id in ids:  # there is no such revision
                self.troubles.forget(self._heard.popleft())
            await self._clock.sleep(0)

    async def _tell(self) -> bool:
        alert = self.troubles.take()
        try:
            await self._messenger.send(alert.subject, alert.text, kind=alert.kind)
        except CronallyError as exc:
            self.troubles.put_back(alert)
            _log.warning(
                "the alert %r could not be sent: %s; it is tried again",
                alert.subject,
                exc,
                extra=about("alerts.unsent", subject=alert.subject, error=str(exc)),
            )
            return False
        self._told_at = self._clock.wall()
        changed = self.troubles.told()
        if self._notes is not None:
            self._unwritten |= changed
        return True


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
