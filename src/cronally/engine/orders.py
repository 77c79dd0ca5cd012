"""Fires that somebody asks for: one now (``run``), failed ones again (``retry``), those of the past (``backfill``).

1. They are pending rows, durable before the command returns; the engine sends them as it sends every pending fire.
2. A retried fire keeps its row, kind and id. What its row says of earlier attempts stays; when it was asked for joins it.
3. While rows are written nothing is committed and no FIFO group they belong to lets anybody else in: each takes its place.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from itertools import groupby, islice
from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.domain.model import Fire, FireName, Kind, State, fire_id, parse_fire_id
from cronally.domain.policy import SlotRange, Window, clip, next_slot, range_in, slot_window, without
from cronally.engine.records import JournalRow, Order, Reopened
from cronally.engine.settle import unsent_entry
from cronally.engine.unbroken import to_its_end
from cronally.errors import Conflict, FireNotFound, UsageError
from cronally.instants import MAX_UTC_MS, MIN_UTC_MS, UtcMs, format_utc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from cronally.clock import Clock
    from cronally.domain.allowed import AllowedTopics
    from cronally.domain.model import FireKey, JournalEntry
    from cronally.domain.slots import Slots
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.loop import Loop
    from cronally.engine.ports import Store
    from cronally.engine.records import StoredSchedule

MOST_RETRIED: Final = 1_000  # fires of one transaction
MOST_BACKFILLED: Final = 1_000  # unless the command says otherwise
_SLICE: Final = 250  # slots computed and written together: 5 to 8 ms of the event loop
_AT_ONCE: Final = 100  # parts of a range computed between two yields to the event loop: 3 ms
_SHOWN: Final = 10  # fire ids an answer names
_NAMED: Final = 3  # fire ids an error names


class Retried(NamedTuple):
    """What a retry does. rows: those it makes pending, as they were, one slot each. pending: ids that are so already."""

    rows: tuple[JournalRow, ...]
    pending: tuple[str, ...]


class Backfilled(NamedTuple):
    """What a backfill does.

    Fields: slots: of the rule, in the time asked for. made: those that become fires. already: those that had a backfill
        fire before. first, last: slots, None without any. fires: ids of the first that are made.
    """

    slots: int
    made: int
    already: int
    first: UtcMs | None
    last: UtcMs | None
    fires: tuple[str, ...]

    def written(self) -> str:
        """Return it as text, for ``read``."""
        return json.dumps(self)

    @classmethod
    def read(cls, text: str) -> Backfilled:
        *counts, fires = json.loads(text)
        return cls._make((*counts, tuple(fires)))


class _Found(NamedTuple):
    """A final journal row, and the slots of it that are asked for."""

    row: JournalRow
    slots: list[UtcMs]


class Orders:
    """Takes them. The caller holds the lock of the edits for each. Errors of each: TopicNotAllowed, too."""

    def __init__(self, store: Store, loop: Loop, clock: Clock, allowed: AllowedTopics) -> None:
        self._store = store
        self._loop = loop
        self._clock = clock
        self._allowed = allowed

    # --- run --------------------------------------------------------------------------------------------------------

    async def run_now(self, stored: StoredSchedule, *, by: str, idempotency_key: str | None) -> str:
        """Write a manual fire and send it; return its id."""
        self._allowed.check(stored.spec.topic)
        return await to_its_end(self._run_now(stored, by=by, idempotency_key=idempotency_key))

    async def _run_now(self, stored: StoredSchedule, *, by: str, idempotency_key: str | None) -> str:
        self._loop.check_here(stored.id)
        retrying = self._loop.retrying
        with retrying.holding_group(stored.spec):
            now = self._clock.wall()
            taken = await self._store.fire_times(stored.id, Kind.MANUAL, now, MAX_UTC_MS)
            at = now
            while at in taken:
                at = UtcMs(at + 1)
            fire = Fire(stored.id, stored.revision_id, at, at, Kind.MANUAL)
            id_ = fire_id(stored.spec.name, at, Kind.MANUAL)
            async with retrying.sending_now(fire, stored.spec):
                await self._store.add_manual(
                    unsent_entry(fire, State.PENDING, next_attempt_at=at),
                    by=by,
                    fire_id=id_,
                    idempotency_key=idempotency_key,
                )
        return id_

    # --- retry ------------------------------------------------------------------------------------------------------

    async def retry(self, fire_ids: Sequence[str], *, by: str, is_dry_run: bool = False) -> Retried:
        """Make rejected, expired and skipped fires pending again, all of them or none.

        Args: fire_ids: up to ``MOST_RETRIED``. is_dry_run: only say what would be done.
        Errors: UsageError (no fire id), FireNotFound, Conflict (published, or in a pause that goes on), StoreError,
            NotReady.
        """
        names = list(dict.fromkeys(map(parse_fire_id, fire_ids)))
        if len(names) > MOST_RETRIED:
            raise UsageError(f"{len(names):,} fires are too many for one retry; name up to {MOST_RETRIED:,}")
        await self._loop.put_on_record()  # what has failed just now is final
        found, pending = await self._look_up(names)
        specs = await self._store.specs([one.row.entry.revision_id for one in found])
        for spec in specs.values():
            self._allowed.check(spec.topic)
        now = self._clock.wall()
        # All of them before anything is written: what cannot be taken out of a range refuses all.
        reopened = [await self._reopened(one, specs[one.row.entry.revision_id], now) for one in found]
        if found and not is_dry_run:
            await to_its_end(self._reopen(reopened, found, specs, now, by=by))
        rows = [_single(one.row, slot) for one in found for slot in one.slots]
        return Retried(tuple(sorted(rows, key=_by_time)), tuple(pending))

    async def _reopened(self, found: _Found, spec: ScheduleSpec, now: UtcMs) -> Reopened:
        """Return *found* with its slots pending, and what is left of its range. Errors: Conflict."""
        entry = found.row.entry
        new = [_pending(_single(found.row, slot).entry, now) for slot in found.slots]
        if found.slots != [entry.fire_time] or entry.count > 1:
            for left in _left(spec.recurrence().slots, found):
                rest = _single(found.row, left.first).entry
                new.append(rest._replace(last_fire_time=left.last, count=left.slots))
                if len(new) % _AT_ONCE == 0:
                    await self._clock.sleep(0)
            new.sort(key=lambda row: row.fire_time)
        return Reopened(entry, tuple(new))

    async def _reopen(
        self,
        reopened: Sequence[Reopened],
        found: Sequence[_Found],
        specs: Mapping[int, ScheduleSpec],
        now: UtcMs,
        *,
        by: str,
    ) -> None:
        fires = [
            (_fire(entry), specs[entry.revision_id])
            for row in reopened
            for entry in row.new
            if entry.state is State.PENDING
        ]
        async with self._letting_in(fires):
            await self._store.retry(reopened, at=now, by=by, orders=_orders(found))

    async def _look_up(self, names: Sequence[FireName]) -> tuple[list[_Found], list[str]]:
        """Return the final rows of the fires *names*, and the ids of those that are pending."""
        bearers = {name.name: await self._store.bearers(name.name) for name in names}
        keys = [key for name in names for key in name.keys(bearers[name.name])]
        at_key = {row.entry.key: row for row in await self._store.rows(keys)}
        found: dict[FireKey, _Found] = {}
        pending: list[str] = []
        published: list[str] = []
        for name in names:
            rows = [at_key[key] for key in name.keys(bearers[name.name]) if key in at_key]
            row = next((row for row in rows if row.name == name.name), None)
            if row is None or row.entry.is_open:
                row = await self._range_of(name, bearers[name.name])
            if row.entry.state is State.PUBLISHED:
                published.append(str(name))
            elif row.entry.state is State.PENDING:
                pending.append(str(name))
            else:
                found.setdefault(row.entry.key, _Found(row, [])).slots.append(name.fire_time)
        if published:
            raise Conflict(
                f"{_list(published)} {'was' if len(published) == 1 else 'were'} published, so nothing was retried; "
                "to send a message again, 'cronally run' makes a new fire"
            )
        return list(found.values()), pending

    async def _range_of(self, name: FireName, bearers: Sequence[int]) -> JournalRow:
        """Return the range row that *name* lies in. Errors: FireNotFound; Conflict if the range still grows."""
        for schedule_id in bearers if name.kind is Kind.SCHEDULED else ():
            for row in await self._store.covering(schedule_id, name.fire_time):
                entry = row.entry
                if row.name != name.name or (entry.last_fire_time is None and not entry.is_open):
                    continue
                spec = (await self._store.specs([entry.revision_id]))[entry.revision_id]
                if spec.recurrence().slots.latest_ms(UtcMs(name.fire_time + 1)) != name.fire_time:
                    continue
                if not entry.is_open:
                    return row
                if name.fire_time <= self._clock.wall():
                    raise Conflict(
                        f"{name} was skipped in a pause that goes on, and cannot be taken out of it yet; first end it: "
                        f"cronally resume {spec.name}"
                    )
        suggestion = None if bearers else await self._store.nearest_name(name.name)
        raise FireNotFound(str(name), name.name, suggestion=suggestion)

    # --- backfill ---------------------------------------------------------------------------------------------------

    async def backfill(
        self,
        stored: StoredSchedule,
        first: UtcMs,
        last: UtcMs,
        *,
        by: str,
        most: int = MOST_BACKFILLED,
        is_dry_run: bool = False,
    ) -> Backfilled:
        """Make a fire for each slot of the present rule with *first* <= slot <= *last*, oldest first.

        Slots that have a backfill fire are left alone. Each ``_SLICE`` is atomic; after a crash the same command makes
        the rest. most: more slots are refused. Errors: UsageError, StoreError, NotReady.
        """
        self._allowed.check(stored.spec.topic)
        slots, spec = stored.spec.recurrence().slots, stored.spec
        if first > last:
            raise UsageError(
                f"from {format_utc(first)} until {format_utc(last)} there is no time; it ends before it begins"
            )
        window = clip(slot_window(MIN_UTC_MS, spec.starts, spec.ends), after=UtcMs(first - 1), through=last)
        now = self._clock.wall()
        to_come = next_slot(slots, window, now)
        if to_come is not None:
            raise UsageError(
                f"{spec.name} has slots up to then that are still to come, the first at {format_utc(to_come)}; "
                f"a backfill ends now at the latest: {format_utc(now)}"
            )
        whole = range_in(slots, window)
        count = 0 if whole is None else whole.slots
        if count > most:
            raise UsageError(
                f"{spec.name} has {count:,} slots there, and a backfill makes up to {most:,} fires; choose a shorter "
                f"time, or allow that many with --max {count}"
            )
        made: list[str] = []
        made_count = 0
        between = slots.between_ms(window.after, window.through)
        while some := list(islice(between, _SLICE)):
            there = await self._store.fire_times(stored.id, Kind.BACKFILL, some[0], some[-1])
            new = [slot for slot in some if slot not in there]
            if new and not is_dry_run:
                await to_its_end(self._add_backfill(stored, new, now, by=by))
            made_count += len(new)
            made += [fire_id(spec.name, slot, Kind.BACKFILL) for slot in new[: _SHOWN - len(made)]]
            await self._clock.sleep(0)
        return Backfilled(
            count, made_count, count - made_count, whole and whole.first, whole and whole.last, tuple(made)
        )

    async def _add_backfill(
        self, stored: StoredSchedule, slots: Sequence[UtcMs], at: UtcMs, *, by: str
    ) -> None:
        fires = [Fire(stored.id, stored.revision_id, slot, at, Kind.BACKFILL) for slot in slots]
        ids = [fire_id(stored.spec.name, slot, Kind.BACKFILL) for slot in (slots[0], slots[-1])]
        async with self._letting_in([(fires[0], stored.spec)]):
            await self._store.add_backfill(
                [unsent_entry(fire, State.PENDING, next_attempt_at=at) for fire in fires],
                at=at,
                by=by,
                order=Order(stored.id, stored.revision_id, len(fires), *ids),
            )

    # --- what both do -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _letting_in(self, fires: Iterable[tuple[Fire, ScheduleSpec]]) -> AsyncIterator[None]:
        """For writing the pending rows of *fires*: their FIFO groups wait for them, and then they are sent."""
        retrying, topics = self._loop.retrying, set()
        async with self._loop.steady():
            for fire, spec in fires:
                self._loop.check_here(fire.schedule_id)
                topics.add(spec.topic)
                if spec.is_fifo:  # before the row is there, so that no later one slips in
                    retrying.expect_in_group((fire,), spec)
            yield
        retrying.expect_asked(topics)


def _left(slots: Slots, found: _Found) -> Iterator[SlotRange]:
    """Return the ranges that are left of a row without the slots that are asked for. Errors: Conflict."""
    entry = found.row.entry
    whole = SlotRange(entry.fire_time, entry.last_slot, entry.count)
    if range_in(slots, Window(UtcMs(whole.first - 1), whole.last)) != whole:
        raise Conflict(
            f"one row stands for {entry.count:,} slots of {found.row.name} from {format_utc(whole.first)} to "
            f"{format_utc(whole.last)}, and its rule gives others there now (another version of the time zone data); none can "
            f"be taken out of it, but 'cronally backfill {found.row.name}' makes new fires"
        )
    return without(slots, whole, sorted(found.slots))


def _by_time(row: JournalRow) -> tuple[UtcMs, str, str]:
    return row.entry.fire_time, row.name, str(row.entry.kind)


def _single(row: JournalRow, slot: UtcMs) -> JournalRow:
    """Return *row* as if *slot* had it to itself."""
    entry = row.entry
    due_time = UtcMs(slot + entry.due_time - entry.fire_time)
    return row._replace(entry=entry._replace(fire_time=slot, due_time=due_time, last_fire_time=None, count=1))


def _pending(entry: JournalEntry, now: UtcMs) -> JournalEntry:
    return entry._replace(
        state=State.PENDING, reason=None, next_attempt_at=UtcMs(max(now, entry.due_time)), asked_at=now
    )


def _fire(entry: JournalEntry) -> Fire:
    return Fire(entry.schedule_id, entry.revision_id, entry.fire_time, entry.due_time, entry.kind)


def _orders(found: Iterable[_Found]) -> list[Order]:
    """Return what the audit log keeps: one line for each revision."""

    def whose(one: _Found) -> tuple[int, int]:
        return one.row.entry.schedule_id, one.row.entry.revision_id

    orders = []
    for (schedule_id, revision_id), some in groupby(sorted(found, key=whose), key=whose):
        fires = sorted((slot, one.row.entry.kind, one.row.name) for one in some for slot in one.slots)
        ids = [fire_id(name, slot, kind) for slot, kind, name in (fires[0], fires[-1])]
        orders.append(Order(schedule_id, revision_id, len(fires), *ids))
    return orders


def _list(ids: Sequence[str]) -> str:
    more = len(ids) - _NAMED
    return f"{', '.join(ids[:_NAMED])}{f' and {more:,} more' if more > 0 else ''}"
