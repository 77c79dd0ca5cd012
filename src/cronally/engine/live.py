"""What becomes of fires, told as it happens to whoever listens: before it is durable, by some tens of milliseconds.

What is skipped together with others, by a pause that is over, a command or a newer slot, is told once it is durable.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from cronally.engine.hooks import Hooks
from cronally.engine.records import MOST_TOLD, JournalFilter, JournalRow
from cronally.errors import NotReady

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from cronally.clock import Clock
    from cronally.domain.model import JournalEntry, Kind, SkipReason
    from cronally.engine.ports import Store

MAX_FEEDS = 32
_AT_ONCE = 200  # entries between two turns of the event loop
_MOST_NAMES = 100_000  # that a listener remembers
MAX_WAITING = MOST_TOLD  # entries that a listener has not taken yet, 10 MB; then the oldest go


class Feed:
    """One listener's. Attributes: arrived: there is something to take, or it is closed. is_closed. lost: entries it was too slow for, or that were too many."""

    def __init__(self, most: int = MAX_WAITING) -> None:
        self.arrived = asyncio.Event()
        self.is_closed = False
        self.lost = 0
        self._most = most
        self._parts: deque[Sequence[JournalEntry]] = deque()
        self._count = 0

    @property
    def has_more(self) -> bool:
        """Whether there is something to take."""
        return bool(self._parts)

    def put(self, entries: Sequence[JournalEntry], *, left_out: int = 0) -> None:
        """Add entries, which are not changed any more. left_out: so many more were too many to be told."""
        self.lost += left_out
        self._parts.append(entries)
        self._count += len(entries)
        while self._count > self._most and len(self._parts) > 1:
            gone = len(self._parts.popleft())
            self._count -= gone
            self.lost += gone
        self.arrived.set()

    def take(self, most: int) -> list[JournalEntry]:
        """Return the next entries, up to *most*."""
        taken: list[JournalEntry] = []
        while self._parts and len(taken) < most:
            part = self._parts.popleft()
            room = most - len(taken)
            taken += islice(part, room)
            if len(part) > room:
                self._parts.appendleft(part[room:])
        self._count -= len(taken)
        return taken

    def close(self) -> None:
        """Let the listener end."""
        self.is_closed = True
        self.arrived.set()


class Live(Hooks):
    """Tells every feed what is settled."""

    def __init__(self) -> None:
        super().__init__()
        self._feeds: set[Feed] = set()

    def settled(self, entries: Sequence[JournalEntry]) -> None:
        self.settled_elsewhere(entries)

    def settled_elsewhere(self, entries: Sequence[JournalEntry]) -> None:
        """Tell what another machine has on record."""
        for feed in self._feeds:
            feed.put(entries)

    @property
    def wants_rows(self) -> bool:
        return bool(self._feeds)

    def put_aside(
        self, reason: SkipReason, kind: Kind, slots: int, rows: Sequence[JournalEntry] = ()
    ) -> None:
        super().put_aside(reason, kind, slots, rows)
        left_out = slots - sum(row.count for row in rows)
        for feed in self._feeds:
            feed.put(rows, left_out=left_out)

    @contextmanager
    def listening(self) -> Iterator[Feed]:
        """For the block, feed a listener. Errors: NotReady if there are too many."""
        if len(self._feeds) >= MAX_FEEDS:
            raise NotReady(
                f"{MAX_FEEDS} listen already; end a 'cronally tail' or 'cronally top' that nobody looks at"
            )
        feed = Feed()
        self._feeds.add(feed)
        try:
            yield feed
        finally:
            self._feeds.discard(feed)


class Listener:
    """Hears of what *wanted* has: schedule, states, reasons. Attributes: feed."""

    def __init__(self, feed: Feed, wanted: JournalFilter, store: Store, clock: Clock) -> None:
        self.feed = feed
        self._wanted = wanted
        self._store = store
        self._clock = clock
        self._names: dict[int, str] = {}

    async def rows(self) -> AsyncIterator[list[JournalRow]]:
        """Yield entries with their names as they are made, and about once a second nothing, until the feed is closed.

        Errors: StoreError.
        """
        feed, wanted = self.feed, self._wanted
        while not feed.is_closed:
            feed.arrived.clear()
            entries = [entry for entry in feed.take(_AT_ONCE) if self._has(entry)]
            await self._learn_names(entries)
            rows = [JournalRow(self._names[entry.revision_id], entry) for entry in entries]
            yield [row for row in rows if wanted.schedule in (None, row.name)]
            if feed.has_more:
                await self._clock.sleep(0)
            else:
                await self._clock.wait(None, feed.arrived)

    def _has(self, entry: JournalEntry) -> bool:
        wanted = self._wanted
        if wanted.states and entry.state not in wanted.states:
            return False
        return not wanted.reasons or entry.reason in wanted.reasons

    async def _learn_names(self, entries: Sequence[JournalEntry]) -> None:
        unknown = {entry.revision_id for entry in entries} - self._names.keys()
        if not unknown:
            return
        if len(self._names) > _MOST_NAMES:
            self._names.clear()
            unknown = {entry.revision_id for entry in entries}
        labels = await self._store.labels(list(unknown))
        self._names |= {id_: label.name for id_, label in labels.items()}
