"""Outcomes become journal rows, and the watermark follows, in one transaction at a time.

Commits are grouped: the first outcome waits up to 50 ms for others, and as long as a store of several machines wants if all of
them were published. What could not be committed stays, in order, and is
tried again; a fire counts as settled only when its row is durable.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cronally.clock import WaitResult
from cronally.domain.model import Fire, JournalEntry, Kind, SkipReason, State
from cronally.domain.policy import HOLD_MS, backoff_ms
from cronally.engine.ports import Outcome, OutcomeClass
from cronally.errors import StoreError
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronally.clock import Clock
    from cronally.engine.core import Core
    from cronally.engine.hooks import Hooks
    from cronally.engine.ports import Store
    from cronally.engine.records import Newer

_PUBLISHED = State.PUBLISHED  # to look it up in the enum takes ten times as long
_PUBLISHED_REST = tuple(  # the fields after lateness_us, but for asked_at, the last
    JournalEntry._field_defaults[name]
    for name in JournalEntry._fields[JournalEntry._fields.index("lateness_us") + 1 : -1]
)
_new = tuple.__new__  # what _make calls, and twice as fast as by name
GROUP_COMMIT_S = 0.05
RETRY_COMMIT_S = 0.5
_MOST_TOGETHER = 5_000  # rows of one commit: to note that they are durable takes 3 ms
MAX_UNCOMMITTED = 100_000  # design §8: beyond this, or 60 s, nothing is released until a commit succeeds
MAX_UNCOMMITTED_S = 60.0


def published_entry(outcome: Outcome) -> JournalEntry:
    """Return the journal row of a fire that was published."""
    fire, _, released_us, finished_at, _, _, _ = outcome
    schedule_id, revision_id, fire_time, due_time, kind, attempts, _, _, asked_at = fire
    lateness_us = released_us - due_time * 1000
    return _new(  # a burst makes a hundred thousand of these
        JournalEntry,
        (
            *(schedule_id, fire_time, revision_id, due_time, _PUBLISHED, kind, None, attempts + 1),
            *(released_us // 1000, finished_at, max(0, lateness_us)),
            *_PUBLISHED_REST,
            asked_at,
        ),
    )


def entry_for(outcome: Outcome, *, deadline_at: UtcMs, jitter: float) -> JournalEntry:
    """Return the journal row that an attempt's outcome makes.

    Args: deadline_at: the last instant at which an attempt may begin. jitter: uniform in [0, 1), for the backoff.
    """
    fire = outcome.fire
    attempts = fire.attempts + 1
    lateness_us = max(0, outcome.released_us - fire.due_time * 1000)
    if (
        fire.kind is not Kind.SCHEDULED
    ):  # it was asked for by now, whatever a clock has said that was set back since
        fire = fire._replace(due_time=UtcMs(min(fire.due_time, outcome.finished_at)))
    fire = fire._replace(attempts=attempts, maybe_published=fire.maybe_published or outcome.is_unknown)

    def failed(state: State, next_attempt_at: UtcMs | None = None) -> JournalEntry:
        row = unsent_entry(fire, state, next_attempt_at=next_attempt_at, last_error=outcome.error)
        return row._replace(released_at=UtcMs(outcome.released_us // 1000), lateness_us=lateness_us)

    match outcome.outcome:
        case OutcomeClass.PUBLISHED:
            return published_entry(outcome)
        case OutcomeClass.REJECTED:
            return failed(State.REJECTED)
        case OutcomeClass.RETRY | OutcomeClass.HOLD:
            now = outcome.finished_at
            if now >= deadline_at:
                return failed(State.EXPIRED)
            is_held = outcome.outcome is OutcomeClass.HOLD
            again = now + (HOLD_MS if is_held else backoff_ms(attempts, jitter))
            if fire.kind is Kind.SCHEDULED:
                again = max(again, fire.due_time)  # the clock may have been set back since it left
            return failed(State.PENDING, UtcMs(min(again, deadline_at)))


def unsent_entry(
    fire: Fire,
    state: State,
    *,
    reason: SkipReason | None = None,
    next_attempt_at: UtcMs | None = None,
    is_in_line: bool = False,
    last_error: str | None = None,
    last_fire_time: UtcMs | None = None,
    count: int = 1,
) -> JournalEntry:
    """Return a row about a fire that is not being attempted now: pending, skipped or expired.

    last_error: what keeps it from being attempted. last_fire_time, count: of a range row, which begins at the fire.
    """
    return JournalEntry(
        schedule_id=fire.schedule_id,
        fire_time=fire.fire_time,
        kind=fire.kind,
        revision_id=fire.revision_id,
        due_time=fire.due_time,
        state=state,
        reason=reason,
        attempts=fire.attempts,
        maybe_published=fire.maybe_published,
        last_error=last_error,
        next_attempt_at=next_attempt_at,
        is_in_line=is_in_line,
        last_fire_time=last_fire_time,
        count=count,
        asked_at=fire.asked_at,
    )


def pending_entry(fire: Fire) -> JournalEntry:
    """Return the row of a fire that is to be sent when it is due."""
    return unsent_entry(fire, State.PENDING, next_attempt_at=fire.due_time)


class Settler:
    """Commits journal rows in groups."""

    def __init__(
        self, core: Core, store: Store, clock: Clock, hooks: Hooks, *, on_committed: Callable[[], None]
    ) -> None:
        self._core = core
        self._store = store
        self._clock = clock
        self._hooks = hooks
        self._on_committed = on_committed
        self._queue: list[JournalEntry] = []
        self._errors: dict[int, str | None] = {}
        self._newer: list[Newer] = []
        self.committing = asyncio.Lock()
        """Held during a commit, and by whoever must not see half of one: the rows, and not yet what follows from them."""
        self._arrived = asyncio.Event()
        self._pressing = asyncio.Event()
        """Set when something waits that is to be on record soon: not published, or a great many."""
        self._oldest_uncommitted: float | None = None
        self.last_error: StoreError | None = None

    def add(self, entries: Sequence[JournalEntry]) -> None:
        """Take rows for the next commit, in order."""
        failing = self._core.failing
        for entry in entries:
            if failing or entry.state is not _PUBLISHED:
                self._note_error(entry)
                if entry.state is not _PUBLISHED:
                    self._pressing.set()
        self._queue.extend(entries)
        if len(self._queue) >= _MOST_TOGETHER:
            self._pressing.set()
        self._hooks.settled(entries)
        if self._queue and self._oldest_uncommitted is None:
            self._oldest_uncommitted = self._clock.mono()
        self._arrived.set()

    def supersede(self, newer: Newer) -> None:
        """With the next commit, older pending slots of a schedule go no more; but what is on its way then does."""
        self._newer.append(newer)

    @property
    def is_blocked(self) -> bool:
        """Whether so much is uncommitted that nothing more may be released."""
        if self._oldest_uncommitted is None or self.last_error is None:
            return False
        age_s = self._clock.mono() - self._oldest_uncommitted
        return len(self._queue) >= MAX_UNCOMMITTED or age_s >= MAX_UNCOMMITTED_S

    async def run(self) -> None:
        """Commit what arrives, for ever."""
        while True:
            await self._arrived.wait()
            await self._others()
            self._arrived.clear()
            while self._queue:
                try:
                    await self.flush()
                except StoreError:
                    await self._clock.sleep(RETRY_COMMIT_S)

    async def _others(self) -> None:
        """Wait for what shall be committed together with what waits already."""
        await self._clock.sleep(GROUP_COMMIT_S)
        until_s = self._clock.mono() + self._store.commit_interval_s - GROUP_COMMIT_S
        while not self._pressing.is_set() and (left_s := until_s - self._clock.mono()) > 0.001:
            until = UtcMs(self._clock.wall() + round(left_s * 1000))
            if await self._clock.wait(until, self._pressing) is WaitResult.WOKEN:
                await self._clock.sleep(GROUP_COMMIT_S)
                return

    async def flush(self) -> None:
        """Commit all that has been added. Errors: StoreError; then it stays queued, as it does when cancelled.

        Much of it is committed in parts, so that none holds the event loop for long. The watermark goes with the last:
        it speaks of all of them.
        """
        async with self.committing:
            if not self._queue:
                return
            self._pressing.clear()
            entries, self._queue = self._queue, []
            errors, self._errors = self._errors, {}
            newer, self._newer = self._newer, []
            kept = self._core.resent_of({one.schedule_id for one in newer}) if newer else []
            watermark = self._core.watermark(self._clock.wall())
            while entries:
                part = entries[:_MOST_TOGETHER]
                is_last = len(part) == len(entries)
                began_s = self._clock.mono()
                gone: list[JournalEntry] | None = [] if self._hooks.wants_rows else None
                try:
                    superseded = await self._store.commit(
                        part,
                        watermark=watermark if is_last else None,
                        errors=list(errors.items()) if is_last else (),
                        newer=newer if is_last else (),
                        kept=kept,
                        gone=gone,
                    )
                except (StoreError, asyncio.CancelledError) as exc:
                    self._queue[:0] = entries
                    self._errors = errors | self._errors
                    self._newer[:0] = newer
                    if isinstance(exc, StoreError):
                        self.last_error = exc
                        self._hooks.commit_ended(self._clock.mono() - began_s, is_done=False)
                        self._hooks.store_failed(exc)
                    raise
                self._hooks.commit_ended(self._clock.mono() - began_s, is_done=True)
                del entries[:_MOST_TOGETHER]
                self._core.mark_committed(part)
                self._hooks.committed(part)
                if superseded:
                    self._hooks.put_aside(SkipReason.SUPERSEDED, Kind.SCHEDULED, superseded, gone or ())
                self.last_error = None
                self._oldest_uncommitted = self._clock.mono() if entries or self._queue else None
        self._on_committed()

    def _note_error(self, entry: JournalEntry) -> None:
        failing = self._core.failing
        if entry.state is State.PUBLISHED:
            if entry.schedule_id in failing:
                failing.discard(entry.schedule_id)
                self._errors[entry.schedule_id] = None
        elif entry.last_error is not None and entry.state in (State.PENDING, State.REJECTED, State.EXPIRED):
            if entry.released_at is None and entry.schedule_id in failing:
                return  # that its topic refuses everything is said once, not with each slot
            failing.add(entry.schedule_id)
            self._errors[entry.schedule_id] = entry.last_error
