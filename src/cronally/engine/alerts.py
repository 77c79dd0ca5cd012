"""Telling people of schedules in trouble: once when it begins, once when it is over, and never a storm.

Of several machines each tells of the schedules that it drives, and what people have been told of a shard goes with it (docs/adr/0015):

1. What is told is noted right after, so that a machine that dies in between has its trouble told twice, and never not at all.
2. Who takes a shard knows from the note whom people know to be in trouble. Others that its records say fail it tells of unless a fire of theirs leaves in a minute.
3. Who gives a shard tells itself what trouble was over by then; what goes on it leaves to the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from cronally.actions import about
from cronally.clock import within
from cronally.engine.records import Told
from cronally.engine.troubles import Troubles
from cronally.errors import CronallyError
from cronally.instants import MonoS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
_MOST_HEARD: Final = 50_000  # entries between two looks; then the oldest go
_AT_ONCE: Final = 500  # entries between two turns of the event loop

_log = logging.getLogger(__name__)


class Messenger(Protocol):
    """Sends a message to people."""

    async def send(self, subject: str, text: str, *, kind: str) -> None:
        """Publish; kind: the attribute ``cronally.alert``. Errors: CronallyError."""
        ...


class Notes(Protocol):
    """Keeps for each shard, for whoever drives it next, what people have been told of it. Errors: StoreError."""

    async def read(self, shard: int) -> Told: ...

    async def write(self, shard: int, told: Told) -> None:
        """Keep it, if this machine still drives the shard."""
        ...


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
            await within(self._clock, _LAST_WORDS_S, self._tell())

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
        hearing = await within(self._clock, _GIVING_S, self._hear())  # nobody drives it meanwhile
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
