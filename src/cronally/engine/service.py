"""What may be asked of a running engine: the facade behind the admin socket."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.instant_text import read_instant
from cronally.domain.model import Pause, is_same_pause
from cronally.domain.policy import clip, range_in
from cronally.domain.shards import SHARDS
from cronally.domain.spec import from_document, parse_paused, to_document
from cronally.engine.applying import Applying, ApplyResult
from cronally.engine.changing import Wanted
from cronally.engine.forecast import Forecast, forecast_of
from cronally.engine.live import Listener
from cronally.engine.member import Member, member_of
from cronally.engine.orders import MOST_BACKFILLED, Backfilled
from cronally.engine.records import JournalFilter, JournalRow, StoredSchedule
from cronally.engine.views import (
    PutResult,
    ScheduleView,
    fires_to_come,
    next_slots,
    warnings_of,
    wished_pause,
)
from cronally.engine.why import Why, why
from cronally.errors import (
    Conflict,
    CronallyError,
    FieldError,
    FireNotFound,
    NotReady,
    RevisionConflict,
    ScheduleNotFound,
    ShardElsewhere,
    UsageError,
)
from cronally.instants import UtcMs, format_utc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

    from cronally.clock import Clock
    from cronally.domain.allowed import AllowedTopics
    from cronally.domain.spec import ScheduleSpec
    from cronally.domain.zones import Zone
    from cronally.engine.copies import BackupMaker, Contents
    from cronally.engine.core import Core
    from cronally.engine.edits import Edits
    from cronally.engine.live import Live
    from cronally.engine.orders import Orders, Retried
    from cronally.engine.outlook import Outlook
    from cronally.engine.ports import Store, TopicMaker
    from cronally.engine.records import AuditFilter, AuditPage, Revised
    from cronally.engine.reporting import Reporting

_SLICE = 200
_MOST_BYTES_AT_ONCE = 524_288  # of messages, in the answer to a change of many schedules


class DoneAtOnce(NamedTuple):
    """What a change of many did to one of them. pending: its fires that remain. view: as it is now, if it is there. error: why nothing was done."""

    name: str
    pending: int = 0
    view: ScheduleView | None = None
    error: CronallyError | None = None


class Service:
    """All commands of the admin socket; each is exact (design §4, *Edits are exact*) and durable when it returns.

    *by* says who asks (``uid 1000``), for the audit log. Errors: ScheduleNotFound, Conflict, UsageError, StoreError,
    NotReady.
    """

    def __init__(
        self,
        core: Core,
        store: Store,
        edits: Edits,
        orders: Orders,
        reporting: Reporting,
        clock: Clock,
        live: Live,
        allowed: AllowedTopics,
        *,
        topic_maker: TopicMaker | None = None,
        backup_maker: BackupMaker | None = None,
        quota_per_s: Callable[[str, bool], float] = lambda _region, _is_fifo: 0.0,
        everything: Store | None = None,
        has_history: Callable[[], bool] = lambda: True,
        watermark_of: Callable[[int], UtcMs] | None = None,
        outlook: Outlook | None = None,
    ) -> None:
        """quota_per_s: messages a second that a region takes, for FIFO topics or the others; 0 for no limit.

        everything: where *store* has the schedules of this machine alone, one to read about all of them. has_history: whether
        that has all of the journal by now. watermark_of: says how far the one with this id is settled. outlook: of everything.
        """
        self._core = core
        self._store = store
        self._everything = everything or store
        self.has_history = has_history
        self._outlook = outlook
        self._watermark_of = watermark_of or (lambda _: core.watermark(clock.wall()))
        self._edits = edits
        self._orders = orders
        self._reporting = reporting
        self._clock = clock
        self._live = live
        self._allowed = allowed
        self._topic_maker = topic_maker
        self._backup_maker = backup_maker
        self.quota_per_s = quota_per_s

    # --- reading ----------------------------------------------------------------------------------------------------

    async def list(
        self, *, after: str | None = None, limit: int = 1000
    ) -> tuple[Sequence[ScheduleView], str | None]:
        """Return a page of schedules by name, and the name to pass as *after* for the next page (None: no more)."""
        page = await self._everything.schedules(after=after, limit=limit)
        views = []
        for start in range(0, len(page), _SLICE):
            views += [self._view(stored, fires=1) for stored in page[start : start + _SLICE]]
            await self._clock.sleep(0)
        return views, page[-1].spec.name if len(page) == limit else None

    async def get(self, name: str, *, fires: int = 3) -> ScheduleView:
        return self._view(await self._seen(name), fires=fires)

    async def zone(self, name: str) -> Zone:
        """Return the zone that a schedule goes by. Errors: also UsageError if its rule cannot be read any more."""
        return (await self._seen(name)).spec.recurrence().zone

    async def next(self, name: str, *, after: UtcMs | None = None, count: int = 10) -> Sequence[UtcMs]:
        """Return the next slots of a schedule's rule later than *after* (None: now); a pause is not regarded."""
        stored = await self._seen(name)
        start = self._clock.wall() if after is None else after
        slots: list[UtcMs] = []
        while len(slots) < count:
            asked = min(_SLICE, count - len(slots))
            more = next_slots(stored.spec, start, asked)
            slots += more
            if len(more) < asked:
                break
            start = more[-1]
            await self._clock.sleep(0)
        return slots

    async def history(self, wanted: JournalFilter) -> Sequence[JournalRow]:
        """Return journal entries, newest first. Errors: ScheduleNotFound if a schedule is named that never was."""
        rows = await self._everything.history(wanted)
        is_known = rows or wanted.schedule is None or wanted.before is not None
        if not is_known and wanted.schedule is not None:
            everything = JournalFilter(schedule=wanted.schedule, limit=1)
            if not await self._everything.history(everything):
                await self._seen(wanted.schedule)
        return await self._with_open_measured(rows)

    async def audit(self, wanted: AuditFilter) -> AuditPage:
        """Return what was done to schedules, newest first. Errors: ScheduleNotFound if a schedule is named that never was."""
        page = await self._everything.audit(wanted)
        if (
            wanted.schedule is not None
            and not page.rows
            and not await self._everything.bearers(wanted.schedule)
        ):
            await self._seen(wanted.schedule)
        return page

    async def why(self, name: str, at: str) -> Why:
        """Say why a schedule has a fire at an instant or has none. at: as ``read_instant`` takes it, in its zone.

        Errors: ScheduleNotFound; UsageError if *at* is no instant, or the rule cannot be read any more.
        """
        stored = await self._seen(name)
        now = self._clock.wall()
        asked = read_instant(at, stored.spec.recurrence().zone, now=now, direction=-1)
        rows = await self._everything.covering(stored.id, asked.at)
        watermark = self._watermark_of(stored.id)
        specs = await self._everything.specs([row.entry.revision_id for row in rows])
        measured = await self._with_open_measured(rows)
        return why(
            stored,
            asked,
            measured,
            specs,
            now=now,
            watermark=watermark,
            pruned_through=self._reporting.pruned_through,
            keep=self._reporting.keep,
        )

    async def backup(self, path: str, *, replace: bool) -> Contents:
        """Write a copy of the store to *path* while it is in use. Errors: see ``BackupMaker.backup``; UsageError."""
        if self._backup_maker is None:
            raise UsageError("this daemon's store is no file that can be copied")
        return await self._backup_maker.backup(path, replace=replace)

    async def forecast(self) -> Forecast:
        """Return how many messages will be due in each minute of the 24 hours from the next full minute on.

        Schedules that are paused now are left out. Errors: StoreError.
        """
        core = self._core if self._outlook is None else await self._outlook.core()
        return await forecast_of(core, self._everything, self._clock)

    @contextmanager
    def listening(self, wanted: JournalFilter) -> Iterator[Listener]:
        """For the block, hear of what *wanted* has (schedule, states, reasons). Errors: NotReady if too many listen."""
        with self._live.listening() as feed:
            yield Listener(feed, wanted, self._everything, self._clock)

    # --- changing ---------------------------------------------------------------------------------------------------

    async def put(
        self,
        name: str,
        document: Mapping[str, object],
        *,
        by: str,
        create_only: bool = False,
        if_revision: int | None = None,
        owner: str | None = None,
    ) -> PutResult:
        """Create or replace a schedule. create_only: an existing, different one is a Conflict that names ``set``.

        if_revision: RevisionConflict unless it is current. A key ``paused`` is obeyed; absent, it leaves the pause.
        """
        from_document(name, document)
        async with self._changing():
            return await self._put(
                name, document, by=by, owner=owner, create_only=create_only, if_revision=if_revision
            )

    async def _put(
        self,
        name: str,
        document: Mapping[str, object],
        *,
        by: str,
        owner: str | None,
        create_only: bool = False,
        if_revision: int | None = None,
    ) -> PutResult:
        spec = from_document(name, document)
        self._allowed.check(spec.topic)
        stored = await self._store.schedule(name)
        if if_revision is not None:
            _check_revision(name, stored, if_revision)
        pause = wished_pause(parse_paused(document.get("paused")), stored, self._clock.wall())
        if stored is not None and stored.spec == spec and is_same_pause(stored.pause, pause):
            return PutResult("unchanged", self._view(stored, fires=3))
        if stored is not None and create_only:
            raise Conflict(
                f"{name!r} exists already and is different; change it with 'cronally set {name} …'"
            )
        if stored is None or stored.spec != spec:
            self._refuse_past(spec)
        wanted = Wanted(spec, pause)
        await self._make_topics([spec.topic])
        if stored is None:
            await self._edits.create(wanted, by=by, owner=owner)
        else:
            action = "set" if owner is None else "apply"
            await self._edits.replace(stored, wanted, by=by, action=action, owner=owner)
        return PutResult("created" if stored is None else "changed", await self.get(name))

    async def remove(
        self, name: str, *, by: str, drop_pending: bool = False, if_revision: int | None = None
    ) -> int:
        """Remove a schedule; return how many of its pending fires remain."""
        async with self._changing():
            stored = await self._stored(name)
            if if_revision is not None:
                _check_revision(name, stored, if_revision)
            return await self._edits.remove(stored, by=by, drop_pending=drop_pending)

    async def move(self, name: str, new_name: object, *, by: str) -> tuple[ScheduleView, ScheduleView]:
        """Give a schedule another name; return it as it was and as it is. Its pending fires keep the old one.

        Errors: Conflict if a schedule has that name, or it is its own.
        """
        async with self._changing():
            stored = await self._stored(name)
            document = to_document(stored.spec)
            spec = from_document(new_name, document)
            if await self._everything.schedule(spec.name) is not None:
                raise Conflict(f"there is a schedule named {spec.name!r} already; choose another name")
            before = self._view(stored, fires=3)
            await self._edits.replace(stored, Wanted(spec, stored.pause), by=by, action="mv")
            return before, await self.get(spec.name)

    async def pause(
        self,
        name: str,
        *,
        by: str,
        until: UtcMs | None = None,
        note: str | None = None,
        drop_pending: bool = False,
    ) -> tuple[ScheduleView, int]:
        """Pause a schedule (again: with another end or note); return it and how many pending fires remain."""
        async with self._changing():
            stored = await self._stored(name)
            if until is not None:
                _refuse_past_end(until, self._clock.wall())
            pause = Pause(since=self._clock.wall(), until=until, note=note, by=by)
            revised = await self._edits.replace(
                stored, Wanted(stored.spec, pause), by=by, action="pause", drop_pending=drop_pending
            )
            return await self.get(name), revised.pending

    async def resume(self, name: str, *, by: str) -> ScheduleView:
        async with self._changing():
            stored = await self._stored(name)
            if stored.pause is not None:
                await self._edits.replace(stored, Wanted(stored.spec, None), by=by, action="resume")
            return await self.get(name)

    async def remove_many(
        self, names: Sequence[str], *, by: str, drop_pending: bool = False
    ) -> Sequence[DoneAtOnce]:
        """Remove schedules, those that can be in one transaction. names: up to 200 (``MOST_AT_ONCE``)."""

        async def remove(some: Sequence[StoredSchedule]) -> Sequence[Revised]:
            return await self._edits.remove_many(some, by=by, drop_pending=drop_pending)

        return await self._at_once(names, remove, are_gone=True)

    async def pause_many(
        self,
        names: Sequence[str],
        *,
        by: str,
        until: Callable[[Zone], UtcMs] | None = None,
        note: str | None = None,
        drop_pending: bool = False,
    ) -> Sequence[DoneAtOnce]:
        """Pause schedules, as ``remove_many`` removes them. until: gives the end of the pause of a schedule in its zone."""

        def check(stored: StoredSchedule) -> None:
            if until is not None:
                _refuse_past_end(until(stored.spec.recurrence().zone), self._clock.wall())

        async def pause(some: Sequence[StoredSchedule]) -> Sequence[Revised]:
            since = self._clock.wall()
            pauses = []
            for stored in some:
                end = None if until is None else until(stored.spec.recurrence().zone)
                pauses.append((stored, Pause(since=since, until=end, note=note, by=by)))
            return await self._edits.rest_many(pauses, by=by, action="pause", drop_pending=drop_pending)

        return await self._at_once(names, pause, check=check)

    async def resume_many(self, names: Sequence[str], *, by: str) -> Sequence[DoneAtOnce]:
        """End the pauses of schedules, as ``remove_many`` removes them; those that are not paused stay as they are."""

        async def resume(some: Sequence[StoredSchedule]) -> Sequence[Revised]:
            paused = [(stored, None) for stored in some if stored.pause is not None]
            return await self._edits.rest_many(paused, by=by, action="resume", drop_pending=False)

        return await self._at_once(names, resume)

    async def _at_once(
        self,
        names: Sequence[str],
        act: Callable[[Sequence[StoredSchedule]], Awaitable[Sequence[Revised]]],
        *,
        check: Callable[[StoredSchedule], None] = lambda _: None,
        are_gone: bool = False,
    ) -> Sequence[DoneAtOnce]:
        """Do it to the schedules of *names* that pass *check*; of many long ones only to the first, whose answers are not too large.

        Returns: what became of each, in their order; whoever is not among them was not looked at.
        """
        async with self._changing():
            found: dict[str, StoredSchedule | CronallyError] = {}
            size_bytes = 0
            for name in dict.fromkeys(names):
                try:
                    stored = await self._stored(name)
                    check(stored)
                except UsageError as exc:
                    found[name] = exc
                    continue
                except ScheduleNotFound as exc:
                    if (other := await self._everything.schedule(name)) is not None:
                        raise ShardElsewhere(other.id % SHARDS) from None
                    found[name] = exc
                    continue
                found[name] = stored
                size_bytes += len((stored.spec.message or "").encode())
                if size_bytes > _MOST_BYTES_AT_ONCE:
                    break
            some = [one for one in found.values() if isinstance(one, StoredSchedule)]
            pending = {revised.id: revised.pending for revised in await act(some)}
            done = []
            for name, one in found.items():
                if not isinstance(one, StoredSchedule):
                    done.append(DoneAtOnce(name, error=one))
                    continue
                view = None if are_gone else await self.get(name)
                done.append(DoneAtOnce(name, pending.get(one.id, one.pending), view))
            return done

    async def run(self, name: str, *, by: str, idempotency_key: str | None = None) -> str:
        """Fire now; return the fire id once the fire is durable."""
        async with self._changing():
            if idempotency_key is not None:
                done = await self._everything.remembered_run(idempotency_key)
                if done is not None:
                    return done
            stored = await self._stored(name)
            return await self._orders.run_now(stored, by=by, idempotency_key=idempotency_key)

    async def retry(self, fire_ids: Sequence[str], *, by: str, is_dry_run: bool = False) -> Retried:
        """Make rejected, expired and skipped fires (up to 1,000) pending again, all of them or none.

        is_dry_run: only say what would be done. Errors: FireNotFound, too; ShardElsewhere.
        """
        async with self._changing():
            try:
                return await self._orders.retry(fire_ids, by=by, is_dry_run=is_dry_run)
            except FireNotFound as exc:
                for id_ in await self._everything.bearers(exc.schedule):
                    self._core.here.check(id_)  # its shard may have been given up a moment ago
                if self.has_history():
                    raise
                raise NotReady(
                    f"{exc.fire_id} is not among the fires that this machine has read so far: it has not been here for long, and "
                    "reads what is older from the table; try again in a moment"
                ) from exc

    async def backfill(
        self,
        name: str,
        *,
        first: str,
        last: str,
        by: str,
        most: int | None = None,
        is_dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> tuple[StoredSchedule, Backfilled]:
        """Make a fire for each past slot of a schedule's present rule with *first* <= slot <= *last*, paused or not.

        Args: first, last: as ``read_instant`` takes them, in its zone. most: more slots than that are refused (None: 1,000).
            is_dry_run: only say what would be done.
        """
        async with self._changing():
            stored = await self._stored(name)
            key = None if idempotency_key is None or is_dry_run else f"backfill\n{idempotency_key}"
            done = None if key is None else await self._everything.remembered_run(key)
            if done is not None:
                return stored, Backfilled.read(done)
            zone, now = stored.spec.recurrence().zone, self._clock.wall()
            result = await self._orders.backfill(
                stored,
                read_instant(first, zone, now=now, direction=-1).at,
                read_instant(last, zone, now=now, direction=-1).at,
                by=by,
                most=MOST_BACKFILLED if most is None else most,
                is_dry_run=is_dry_run,
            )
            if key is not None:
                await self._store.remember_run(key, result.written(), at=self._clock.wall())
            return stored, result

    async def apply(
        self,
        lines: AsyncIterator[bytes],
        *,
        owner: str,
        by: str,
        is_pruning: bool = False,
        shards: Mapping[int, int] | None = None,
    ) -> ApplyResult:
        """Apply JSON Lines, one document with its ``name`` a line, all or nothing.

        is_pruning: what an earlier apply of the same owner made, and no line names, is removed. shards: as in ``Applying.run``.
        """
        async with self._changing():
            applying = self._applying(by=by, owner=owner, store=self._store)
            result = await applying.run(lines, owner=owner, by=by, is_pruning=is_pruning, shards=shards)
            await self._make_topics(applying.topics)
            return result

    async def preview_apply(
        self, lines: AsyncIterator[bytes], *, owner: str, is_pruning: bool = False, most: int
    ) -> ApplyResult:
        """Say what ``apply`` would do, with the first *most* differences by name, and do nothing."""
        async with self._changing():
            applying = self._applying(by="", owner=owner, store=self._everything)
            return await applying.preview(lines, owner=owner, is_pruning=is_pruning, most=most)

    def _applying(self, *, by: str, owner: str, store: Store) -> Applying:
        async def put(name: str, document: Mapping[str, object]) -> str:
            await self._edits.pauses.finish()
            return (await self._put(name, document, by=by, owner=owner)).outcome

        async def remove(name: str) -> None:
            await self._edits.remove(await self._stored(name), by=by, drop_pending=False, owner=owner)

        return Applying(store, self._edits, self._core, self._clock, self._allowed, put, remove)

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """One change at a time, on a daemon that is ready, with the ended pauses on record."""
        because = self._reporting.not_ready_because
        if because is not None:
            raise NotReady(f"the daemon takes no changes now: {because}; try again in a moment")
        async with self._edits.lock:
            await self._edits.pauses.finish()
            yield

    async def _make_topics(self, topics: Iterable[str]) -> None:
        if self._topic_maker is not None:
            for topic in topics:
                await self._topic_maker.make(topic)

    def _refuse_past(self, spec: ScheduleSpec) -> None:
        at = spec.recurrence().at_ms
        if at is not None and at <= self._clock.wall():
            raise FieldError(
                "when", f"{spec.when!r} is {format_utc(at)}, which is past; name an instant to come"
            )

    async def _stored(self, name: str) -> StoredSchedule:
        stored = await self._store.schedule(name)
        if stored is None:
            there = await self._everything.schedule(name)
            if there is not None:  # its shard may have been given up a moment ago
                self._core.here.check(there.id)
            suggestion = await self._everything.nearest_name(name[:100])
            raise ScheduleNotFound(name[:100], suggestion=suggestion)
        return stored

    async def _seen(self, name: str) -> StoredSchedule:
        """Return a schedule, whoever drives it, to be looked at."""
        stored = await self._everything.schedule(name)
        if stored is None:
            raise ScheduleNotFound(name[:100], suggestion=await self._everything.nearest_name(name[:100]))
        return stored

    def _view(self, stored: StoredSchedule, *, fires: int) -> ScheduleView:
        after = UtcMs(max(self._clock.wall(), stored.effective_from))
        to_come = fires_to_come(stored.spec, stored.pause, after, fires)
        return ScheduleView(stored, to_come, warnings_of(stored.spec))

    async def _with_open_measured(self, rows: Iterable[JournalRow]) -> Sequence[JournalRow]:
        """Return *rows*, open ones with their last slot and count as of now."""
        now = self._clock.wall()
        measured = []
        for row in rows:
            if row.entry.is_open:
                member = self._core.member(row.entry.schedule_id) or await self._member_elsewhere(row)
                measured.append(row if member is None else _measured(row, member, now))
            else:
                measured.append(row)
        return measured

    async def _member_elsewhere(self, row: JournalRow) -> Member | None:
        """Return the schedule of an open row that another machine drives; None if its rule cannot be read."""
        stored = await self._everything.schedule(row.name)
        if stored is None or stored.id != row.entry.schedule_id:
            return None
        with suppress(UsageError):
            return member_of(stored.id, stored.revision_id, stored.spec, stored.effective_from, stored.pause)
        return None


def _measured(row: JournalRow, member: Member, now: UtcMs) -> JournalRow:
    """An open row with its last slot and count as of now."""
    entry = row.entry
    through = now if member.paused_until is None else UtcMs(min(now, member.paused_until - 1))
    window = clip(member.window, after=UtcMs(entry.fire_time - 1), through=through)
    so_far = range_in(member.recurrence, window)
    if so_far is None:
        return row
    return row._replace(entry=entry._replace(last_fire_time=so_far.last, count=so_far.slots))


def _refuse_past_end(until: UtcMs, now: UtcMs) -> None:
    if until <= now:
        raise FieldError("until", f"{format_utc(until)} is past; name an instant to come")


def _check_revision(name: str, stored: StoredSchedule | None, expected: int) -> None:
    found = stored.revision if stored else 0
    if found != expected:
        raise RevisionConflict(name, expected=expected, found=found)
