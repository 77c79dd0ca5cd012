"""Telling people of schedules in trouble: once when it begins, once when it is over, and never a storm.

A schedule is in trouble when a fire of its is rejected or has expired, when one leaves later than its ``late_after`` allows, or when one
has waited for SNS for a minute (or for ``late_after``, if that is shorter). It is over with the next fire that leaves in time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from cronally.actions import about
from cronally.domain.durations import MINUTE_MS, format_duration
from cronally.domain.model import State, fire_id
from cronally.errors import CronallyError, printable
from cronally.instants import MonoS, UtcMs, format_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cronally.clock import Clock
    from cronally.domain.model import JournalEntry
    from cronally.engine.ports import Store
    from cronally.engine.records import Label

GATHER_S: Final = 2.0  # what begins together is told together
EVERY_S: Final = 60.0  # between two messages
RETRY_S: Final = 30.0
_LAST_WORDS_S: Final = 3.0
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


class Alert(NamedTuple):
    """What is to be told: by schedule's name, the sentence. failing comes before recovered."""

    failing: dict[str, str]
    recovered: dict[str, str]

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


class Troubles:
    """Which schedules are in trouble, and what of it has not been told. No ``await``: instants and labels are arguments."""

    def __init__(self, failing: Iterable[int] = ()) -> None:
        """failing: schedules that the daemon before told of."""
        self._troubled = set(failing)
        self._waiting: dict[int, _Waiting] = {}
        self._expected: Counter[int] = Counter()  # entries to be heard, by whose they are
        self._failing: dict[str, str] = {}
        self._recovered: dict[str, str] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether time alone may bring trouble."""
        return bool(self._waiting)

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
        fire = fire_id(name, entry.fire_time, entry.kind)
        if entry.state is State.PENDING:
            waiting = self._waiting.setdefault(
                id_, _Waiting(name, fire, entry.due_time, now, label.late_after, "")
            )
            waiting.error = _reason(entry)
        elif entry.state is not State.PUBLISHED:
            self._waiting.pop(id_, None)
            self._fails(id_, name, f"{fire} {_BECAME[entry.state]}{_because(entry)}")
        else:
            self._waiting.pop(id_, None)
            late_ms = (entry.lateness_us or 0) // 1000
            if label.late_after is not None and late_ms > label.late_after:
                allowed = format_duration(label.late_after)
                self._fails(id_, name, f"{fire} left {_span(late_ms)} late, more than {allowed}")
            elif id_ in self._troubled:
                self._troubled.discard(id_)
                self._recovered[name] = f"{fire} left in time"

    def look(self, now: UtcMs) -> None:
        """See whose fires have waited for too long."""
        for id_, waiting in list(self._waiting.items()):
            late_ms = now - waiting.due_time
            is_late = waiting.late_after is not None and late_ms > waiting.late_after
            if is_late or now - waiting.since >= _WAITS_MS:
                del self._waiting[id_]
                self._fails(
                    id_, waiting.name, f"{waiting.fire_id} waits, {_span(late_ms)} late: {waiting.error}"
                )

    def take(self) -> Alert:
        """Return what has not been told, which then counts as told."""
        alert = Alert(self._failing, self._recovered)
        self._failing, self._recovered = {}, {}
        return alert

    def put_back(self, alert: Alert) -> None:
        """It could not be told after all; what has been heard since is told with it."""
        self._failing = alert.failing | self._failing
        self._recovered = alert.recovered | self._recovered

    def _fails(self, id_: int, name: str, reason: str) -> None:
        if id_ not in self._troubled:
            self._troubled.add(id_)
            self._failing[name] = reason


class Alerts:
    """Hears what is committed and tells people what matters of it."""

    def __init__(self, messenger: Messenger, store: Store, clock: Clock) -> None:
        self.troubles = Troubles()
        self._messenger = messenger
        self._store = store
        self._clock = clock
        self._heard: deque[JournalEntry] = deque()
        self._arrived = asyncio.Event()

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
        may_tell_at = MonoS(0.0)
        while True:
            troubles = self.troubles
            if not troubles.is_waiting and not troubles.has_news:
                await self._arrived.wait()
            await self._clock.sleep(GATHER_S if self._arrived.is_set() else _LOOK_S)
            self._arrived.clear()
            try:
                await self._take_in()
            except CronallyError:  # the store is in trouble itself: it says so, and these are read again
                self._arrived.set()
                continue
            troubles.look(self._clock.wall())
            if troubles.has_news and self._clock.mono() >= may_tell_at:
                is_told = await self._tell()
                may_tell_at = MonoS(self._clock.mono() + (EVERY_S if is_told else RETRY_S))

    async def finish(self) -> None:
        """Tell, if it can be done at once, what has not been told; afterwards nobody remembers."""
        if self.troubles.has_news:
            timer = asyncio.ensure_future(self._clock.sleep(_LAST_WORDS_S))
            telling = asyncio.ensure_future(self._tell())
            await asyncio.wait((timer, telling), return_when=asyncio.FIRST_COMPLETED)
            for task in (timer, telling):
                task.cancel()

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
