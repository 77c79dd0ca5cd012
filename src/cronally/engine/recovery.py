"""Memory brought in line with the store: at start, after a suspend or a clock step, after a stall, when a shard is taken over.

For each schedule the slots in (max(watermark, effective from), now], less those with a journal row, less those the core
still holds, then the catch-up policy. A slot due at or before *pruned through* is settled, although its row may
be gone. Running it twice decides nothing twice: what the first run wrote is a row.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cronally.domain.crontab import name_hash
from cronally.domain.model import Fire, JournalEntry, SkipReason, State
from cronally.domain.policy import CaughtUp, catch_up, clip, slot_window
from cronally.domain.shards import SHARDS, shard_of_group
from cronally.domain.spec import from_canonical
from cronally.engine.fifo import GroupKey
from cronally.engine.member import Member, awakened, member_of_row
from cronally.engine.settle import unsent_entry
from cronally.errors import UsageError
from cronally.instants import MIN_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from cronally.clock import Clock
    from cronally.domain.slots import Slots
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.core import Core
    from cronally.engine.hooks import Hooks
    from cronally.engine.ports import Store
    from cronally.engine.records import TimetableRow
    from cronally.engine.settle import Settler
    from cronally.engine.timetable import TimetableEntry

_SLICE = 500  # schedules decided between two yields to the event loop

_LOADED_AT_ONCE = 250  # schedules; 10 ms if each has a rule of its own
_TAKEN_AT_ONCE = 100  # the same while others fire
_COMMITTED_AT_ONCE = 2_000  # rows of shards that come
_MARKED = 2_000  # groups found busy between two yields to the event loop
_MOST_RULES = 100_000  # texts that are remembered while loading: 30 MB

_T = TypeVar("_T")
_Settled = dict[
    int, list[tuple[UtcMs, UtcMs]]
]  # per schedule the (first, last) slots that are settled, sorted


class _Due(NamedTuple):
    """A schedule that has slots to be decided, those later than *after*. recurrence: None: that of its spec."""

    id: int
    revision_id: int
    recurrence: Slots | None
    offset_ms: int
    after: UtcMs


class Incoming(NamedTuple):
    """The schedules of a shard that comes. reached: up to when slots may be settled. watermark, was_clean: as in ``records.TakenIn``."""

    members: Sequence[Member]
    watermark: UtcMs
    reached: UtcMs
    was_clean: bool


class Recovery:
    """Decides what becomes of the slots that were due while nothing could fire.

    Attributes: parked: by name, why the rule of a schedule cannot be compiled.
    """

    def __init__(self, core: Core, store: Store, settler: Settler, clock: Clock, hooks: Hooks) -> None:
        self._core = core
        self._store = store
        self._settler = settler
        self._clock = clock
        self._hooks = hooks
        self.parked: dict[str, str] = {}
        self._parked_names: dict[int, str] = {}

    async def load(self) -> None:
        """Fill an empty core from the store, and find the FIFO groups that have pending fires."""
        now = self._clock.wall()
        self._core.planned_through = self._core.at_through = now
        moved: dict[str, tuple[int, UtcMs]] = {}
        known = _Known()
        async for rows in self._store.timetable():
            for start in range(0, len(rows), _LOADED_AT_ONCE):
                self._load_rows(rows[start : start + _LOADED_AT_ONCE], now, known, moved)
                known.forget_old()
                await self._clock.sleep(0)
        await self._note_moved(moved)
        self._core.expect_next_at(await self._store.next_at(now))
        self._core.expect_pending(now)
        await self.find_groups()

    async def _note_moved(self, moved: Mapping[str, tuple[int, UtcMs]]) -> None:
        if moved:
            await self._store.move_single_slots(list(moved.values()))
            self._hooks.instants_moved(sorted(moved))

    def _load_rows(
        self,
        rows: Sequence[TimetableRow],
        now: UtcMs,
        known: _Known,
        moved: dict[str, tuple[int, UtcMs]],
    ) -> None:
        """Take *rows* in.

        moved: by name, the id and the new instant of ``@at`` schedules that another tzdata has moved.
        """
        core = self._core
        for row in rows:
            entry = known.entry(row)
            if entry is not None and row.paused_since is None:
                core.timetable.join_entry(entry, row.id, row.revision_id, row.effective_from)
                continue
            member = self._member(row)
            if member is None:
                continue
            core.load(member)
            if _is_moved(row, member, now):
                moved[row.name] = (row.id, UtcMs(member.recurrence.at_ms or 0))
            elif core.is_plain(member):
                known.add(row, core.timetable.entry(row.id))

    def _member(self, row: TimetableRow) -> Member | None:
        try:
            return member_of_row(row)
        except UsageError as exc:  # its zone has left tzdata, say: the others go on without it
            self._core.failing.add(row.id)
            self.parked[row.name] = str(exc)
            self._parked_names[row.id] = row.name
            return None

    # --- shards that come and go --------------------------------------------------------------------------------------

    async def members(self, rows: Sequence[TimetableRow]) -> list[Member]:
        """Return the schedules of a shard that is to be taken in, less those that are parked. Errors: StoreError."""
        now = self._clock.wall()
        moved: dict[str, tuple[int, UtcMs]] = {}
        members: list[Member] = []
        for start in range(0, len(rows), _TAKEN_AT_ONCE):
            for row in rows[start : start + _TAKEN_AT_ONCE]:
                member = self._member(row)
                if member is None:
                    continue
                if _is_moved(row, member, now):
                    moved[row.name] = (row.id, UtcMs(member.recurrence.at_ms or 0))
                members.append(member)
            await self._clock.sleep(0)
        await self._note_moved(moved)
        return members

    async def decide(self, incoming: Sequence[Incoming], now: UtcMs) -> None:
        """Decide every slot of schedules that the core does not know yet, due in (watermark, now], and put it on record.

        What is to be sent is pending: so the watermark of those that are here already, which may be later, holds for them too.
        What a machine that crashed had was due may have been sent. All goes into as few commits as it fits: a shared store takes
        two writes for each, one after the other. Errors: StoreError; then it may be run again, with the same *incoming*.
        """
        decisions: dict[bool, list[_Decision]] = {True: [], False: []}
        settled = await self._settled_in_store(min(one.watermark for one in incoming), now)
        waiting: list[JournalEntry] = []
        for one in incoming:
            doubted_through = MIN_UTC_MS if one.was_clean else one.reached
            decision = _Decision(self._core, now, doubted_through=doubted_through, are_all_pending=True)
            decisions[one.was_clean].append(decision)
            for some in _slices(one.members):
                dues = []
                for member in some:
                    awake = _awake(member, now)
                    if awake is None:
                        continue
                    due = _due_of(awake, one.watermark)
                    first = awake.recurrence.next_ms(due.after)
                    if first is not None and first <= now - due.offset_ms:
                        dues.append(due)
                await self._decide(dues, settled, decision)
                waiting += decision.rows
                decision.rows = []
                if len(waiting) >= _COMMITTED_AT_ONCE:
                    await self._commit(waiting)
                    waiting = []
                await self._clock.sleep(0)
        await self._commit(waiting)
        for was_clean, alike in decisions.items():
            if alike:
                after = min(one.watermark for one in incoming if one.was_clean == was_clean)
                pending = sum(decision.pending_count for decision in alike)
                skipped = sum(decision.skipped_count for decision in alike)
                reason = "hand-over" if was_clean else "take-over"
                self._hooks.recovered(reason, after, now, pending, skipped)

    def forget(self, shard: int) -> None:
        """A shard has left: of its schedules none is parked here any more."""
        for id_ in [id_ for id_ in self._parked_names if id_ % SHARDS == shard]:
            self.parked.pop(self._parked_names.pop(id_), None)

    # --- what was due while nothing could fire --------------------------------------------------------------------------

    async def run(self, reason: str, watermark: UtcMs, *, doubted_through: UtcMs = MIN_UTC_MS) -> list[Fire]:
        """Decide every slot due in (watermark, now]; return the fires to send at once, by due time.

        doubted_through: what was due by then may have been sent (see ``Core``).
        No change may be under way. Errors: StoreError; then nothing is lost, and it is to be run again with the same
        *watermark*, which the caller holds until it succeeds.
        """
        core = self._core
        floor = core.hold_watermark(watermark)
        try:
            await self._settler.flush()
            now = self._clock.wall()
            watermark = max(watermark, core.pruned_through)
            core.wake_paused(now)
            core.doubted_through = UtcMs(max(core.doubted_through, doubted_through))
            decision = _Decision(core, now, doubted_through=core.doubted_through)
            late = core.restart(now, watermark)
            settled = await self._settled(watermark, now)
            for entries in late:
                for entry in entries:
                    await self._decide_entry(entry, watermark, settled, decision)
                await self._clock.sleep(0)
            await self._decide_single_instants(watermark, settled, decision)
            core.expect_next_at(await self._store.next_at(now))
            await self._flush(decision)
            await self.find_groups()
        finally:
            core.let_watermark(floor)
        self._hooks.recovered(reason, watermark, now, len(decision.fires), decision.skipped_count)
        return sorted(decision.fires, key=lambda fire: (fire.due_time, fire.schedule_id))

    async def _settled(self, watermark: UtcMs, now: UtcMs) -> _Settled:
        # Before the read: what is committed during it may be in neither afterwards.
        held = self._core.held_slots()
        settled = await self._settled_in_store(watermark, now)
        _add(settled, held)
        return settled

    async def _settled_in_store(self, watermark: UtcMs, now: UtcMs) -> _Settled:
        settled = await self._store.settled_between(watermark, now)
        after = UtcMs(watermark - self._core.timetable.longest_offset_ms())
        through = UtcMs(min(now, self._core.relived.through))
        if through > after:
            # In a time that came again a slot may have a row of another revision, by which it was due earlier or later.
            _add(settled, await self._store.settled_slots(after, through))
        return settled

    async def _decide_entry(
        self, entry: TimetableEntry, watermark: UtcMs, settled: _Settled, decision: _Decision
    ) -> None:
        table = self._core.timetable
        rule, offset_ms = entry.recurrence, entry.offset_ms
        for ids in _slices(entry.ids):
            dues = [
                _Due(
                    id_,
                    table.revision_id(id_),
                    rule,
                    offset_ms,
                    UtcMs(max(watermark - offset_ms, table.effective_from(id_))),
                )
                for id_ in ids
            ]
            await self._decide(dues, settled, decision)
            await self._flush(decision)

    async def _decide_single_instants(self, watermark: UtcMs, settled: _Settled, decision: _Decision) -> None:
        single = await self._store.at_between(watermark, decision.now)
        single += self._core.awake_single_instants(watermark, decision.now)
        single = [fire for fire in single if self._core.here.has(fire.schedule_id)]
        for fires in _slices(single):
            dues = [
                _Due(
                    fire.schedule_id,
                    fire.revision_id,
                    None,
                    fire.due_time - fire.fire_time,
                    UtcMs(fire.fire_time - 1),
                )
                for fire in fires
            ]
            await self._decide(dues, settled, decision)
            await self._flush(decision)

    async def _decide(self, dues: Sequence[_Due], settled: _Settled, decision: _Decision) -> None:
        """Decide the slots of one slice of schedules."""
        specs = await self._store.specs([due.revision_id for due in dues]) if dues else {}
        for due in dues:
            decision.decide(due, specs[due.revision_id], settled.get(due.id, ()))

    async def _flush(self, decision: _Decision) -> None:
        """Make the rows decided so far durable; hold the fires; give the event loop a turn."""
        for fire in decision.to_hold:
            self._core.hold(fire)
        decision.to_hold.clear()
        rows, decision.rows = decision.rows, []
        await self._commit(rows)
        await self._clock.sleep(0)

    async def _commit(self, rows: Sequence[JournalEntry]) -> None:
        if rows:
            self._settler.add(rows)
            await self._settler.flush()

    async def find_groups(self, shards: Collection[int] | None = None) -> None:
        """Have the FIFO groups (of *shards*) that have pending fires in the store read from there."""
        core = self._core
        for number, pair in enumerate(await self._store.pending_groups(), start=1):
            if shards is None or shard_of_group(*pair) in shards:
                core.groups.mark_busy(GroupKey(*pair))
            if shards is not None and number % _MARKED == 0:
                await self._clock.sleep(0)


class _Known:
    """Where the schedules of a rule go, as far as its text and what their names decide of it say so."""

    def __init__(self) -> None:
        self._shares: dict[str, tuple[tuple[int, int], ...]] = {}  # of rules that the name decides
        self._entries: dict[object, TimetableEntry] = {}  # by the rule, or by (rule, what the name decides)

    def entry(self, row: TimetableRow) -> TimetableEntry | None:
        found = self._entries.get(row.rule)
        if found is None and (shares := self._shares.get(row.rule)) is not None:
            found = self._entries.get(_by_name(row, shares))
        return found

    def add(self, row: TimetableRow, entry: TimetableEntry) -> None:
        shares = from_canonical(row.name, row.rule).name_shares()
        if shares:
            self._shares[row.rule] = shares
        self._entries[_by_name(row, shares) if shares else row.rule] = entry

    def forget_old(self) -> None:
        for known in (self._entries, self._shares):
            if len(known) > _MOST_RULES:
                for key in list(islice(known, _LOADED_AT_ONCE)):
                    del known[key]  # type: ignore[arg-type]  # it is one of its own


def _by_name(row: TimetableRow, shares: tuple[tuple[int, int], ...]) -> tuple[object, ...]:
    hash_ = name_hash(row.name)
    return row.rule, *[(hash_ >> shift) % divisor for shift, divisor in shares]


class _Decision:
    """What recovery has decided so far. are_all_pending: what is to be sent gets a row first, and nothing is to be held."""

    def __init__(
        self, core: Core, now: UtcMs, *, doubted_through: UtcMs, are_all_pending: bool = False
    ) -> None:
        self.now = now
        self.fires: list[Fire] = []
        self.to_hold: list[Fire] = []
        self.rows: list[JournalEntry] = []
        self.skipped_count = 0
        self.pending_count = 0
        self._core = core
        self._doubted_through = doubted_through
        self._are_all_pending = are_all_pending

    def decide(self, due: _Due, spec: ScheduleSpec, settled: Sequence[tuple[UtcMs, UtcMs]]) -> None:
        """Decide the slots of one schedule that are due by now."""
        recurrence = spec.recurrence().slots if due.recurrence is None else due.recurrence
        offset_ms = due.offset_ms
        through = UtcMs(self.now - offset_ms)
        window = clip(slot_window(due.after, spec.starts, spec.ends), through=through)
        if window.after >= window.through:
            return
        result = catch_up(
            recurrence,
            window,
            settled,
            now=self.now,
            offset_ms=offset_ms,
            policy=spec.catch_up,
            deadline_ms=spec.deadline,
        )
        self._record(due, result, is_fifo=spec.is_fifo)

    def _record(self, due: _Due, result: CaughtUp, *, is_fifo: bool) -> None:
        def fire_at(slot: UtcMs) -> Fire:
            fire = self._core.fire(due.id, due.revision_id, slot, UtcMs(slot + due.offset_ms))
            return fire._replace(maybe_published=True) if fire.due_time <= self._doubted_through else fire

        for skipped in result.skipped:
            self.skipped_count += skipped.slots
            self.rows.append(
                unsent_entry(
                    fire_at(skipped.first),
                    State.SKIPPED,
                    reason=SkipReason.CATCH_UP,
                    last_fire_time=skipped.last,
                    count=skipped.slots,
                )
            )
        self.rows += [unsent_entry(fire_at(slot), State.EXPIRED) for slot in result.expired]
        for slot in result.fires:
            fire = fire_at(slot)
            if (
                is_fifo or self._are_all_pending
            ):  # in a group their order is the store's: (due time, fire time, name)
                self.pending_count += 1
                again = fire.due_time if self._are_all_pending else self.now
                self.rows.append(unsent_entry(fire, State.PENDING, next_attempt_at=again))
            else:
                self.fires.append(fire)
                self.to_hold.append(fire)


def _awake(member: Member, now: UtcMs) -> Member | None:
    """Return a schedule as it is *now*, None if it is at rest: its record may not say yet that its pause has ended."""
    if member.paused_since is None:
        return member
    return None if member.paused_until is None or member.paused_until > now else awakened(member)


def _due_of(member: Member, watermark: UtcMs) -> _Due:
    offset_ms = member.offset_ms
    after = UtcMs(max(watermark - offset_ms, member.effective_from))
    return _Due(member.id, member.revision_id, member.recurrence, offset_ms, after)


def _add(settled: _Settled, more: Mapping[int, Sequence[tuple[UtcMs, UtcMs]]]) -> None:
    """Add *more* to what is settled; some of it may be there already."""
    for schedule_id, slots in more.items():
        settled[schedule_id] = sorted([*settled.get(schedule_id, ()), *slots])


def _is_moved(row: TimetableRow, member: Member, now: UtcMs) -> bool:
    """Whether the instant of an ``@at`` schedule is to come and not the one on record: another tzdata computed that."""
    at = member.recurrence.at_ms
    if at is None or row.slot_time is None or at == row.slot_time:
        return False
    return min(at, row.slot_time) + member.offset_ms > now


def _slices(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + _SLICE] for start in range(0, len(items), _SLICE))
