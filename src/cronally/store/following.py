"""How ``everything`` comes to hold what all machines have committed.

1. At the start: of each shard its snapshot and its log since, in the order in which machines had it.
2. Then each machine's commits in their order. A commit after a take-over names the places in the logs of others that come before it.
3. In the background: the older log, newest first, for the journal's history. What stands in a row already is newer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from cronally.domain.model import SkipReason, State
from cronally.engine.unbroken import to_its_end
from cronally.errors import StoreError
from cronally.instants import MIN_UTC_MS
from cronally.store.committing import log_key, place_text, sequence_in
from cronally.store.shared_items import (
    MACHINES,
    PAST,
    SHARDS_KEY,
    machine_in,
    said_in,
    shard_item_in,
)
from cronally.store.shared_log import (
    Amended,
    Asked,
    Backfilled,
    Changed,
    Committed,
    Flipped,
    Logged,
    Retried,
    Taken,
    decode,
    together,
)
from cronally.store.snapshots import SnapshotGone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from cronally.clock import Clock
    from cronally.domain.model import FireKey, JournalEntry
    from cronally.engine.records import Machine, Newer
    from cronally.instants import UtcMs
    from cronally.store.dynamodb_table import DynamodbTable, Item
    from cronally.store.replica import Replica
    from cronally.store.shared_items import ShardItem
    from cronally.store.shared_log import Deed
    from cronally.store.snapshots import Snapshots

_LAST_PART: Final = 9_999
_ATTEMPTS: Final = 10
_PAUSE_S: Final = 0.2


class Follower:
    """Reads the logs of machines into *everything*.

    Attributes: machine: this machine's id, whose commits the committer puts there itself. has_history: all of the older log is read.
        on_entries: told of what other machines have put on record.
    """

    def __init__(
        self,
        table: DynamodbTable,
        everything: Replica,
        snapshots: Snapshots,
        clock: Clock,
        *,
        machine: str,
        on_entries: Callable[[Sequence[JournalEntry]], None] = lambda _: None,
        wants_rows: Callable[[], bool] = lambda: True,
    ) -> None:
        """Take what is open. wants_rows: whether *on_entries* is to be told of each slot that became needless: that takes trips of its own."""
        self.machine = machine
        self.has_history = False
        self._table = table
        self._everything = everything
        self._snapshots = snapshots
        self._clock = clock
        self.on_entries = on_entries
        self._wants_rows = wants_rows
        self._places: dict[str, int] = {}
        self._started: dict[str, UtcMs] = {}
        self._pruned_through: UtcMs = MIN_UTC_MS
        self._half: dict[
            str, tuple[int, int]
        ] = {}  # of a commit that is being repeated: how many of its deeds are
        self._turn = asyncio.Lock()
        self._followed_s = clock.boot()

    @property
    def age_s(self) -> float:
        """How long ago all that was committed by then was there."""
        return self._clock.boot() - self._followed_s

    # the start

    async def load(self) -> None:
        """Read snapshots and the log since. Errors: StoreError."""
        for _ in range(_ATTEMPTS):
            shards = await self._shards()
            machines = await self._table.all_of(MACHINES)
            past = await self._table.all_of(PAST)
            if await self._shards() != shards:  # one was handed over in between
                continue
            try:
                await self._load(shards, machines)
            except SnapshotGone:
                await self._everything.take_out(range(len(shards)))
                await self._clock.sleep(_PAUSE_S)
                continue
            for item in past:
                self._places.setdefault(item["sk"], item["through"])
                self._started.setdefault(item["sk"], item["started_at"])
            return
        raise StoreError("the shards of the shared store change hands too often to be read; try again later")

    async def _shards(self) -> list[ShardItem]:
        return [shard_item_in(item) for item in await self._table.all_of(SHARDS_KEY)]

    async def _load(self, shards: Sequence[ShardItem], machines: Sequence[Item]) -> None:
        self._places = {item["sk"]: item["sequence"] for item in machines}
        self._started = {item["sk"]: item["started_at"] for item in machines}
        pruned = [said_in(item).pruned_through for item in machines] + [
            shard.pruned_through for shard in shards
        ]
        self._pruned_through = max((at for at in pruned if at is not None), default=MIN_UTC_MS)
        for shard in shards:
            if shard.snapshot is not None:
                await self._snapshots.read(self._everything, shard.number, shard.snapshot)
            through = self._places.get(shard.owner, 0) if shard.owner is not None else None
            for machine, _, last in shard.closed(through):
                self._places[machine] = max(self._places.get(machine, 0), last or 0)
        await self._repeat_chains(shards)

    async def _repeat_chains(self, shards: Sequence[ShardItem]) -> None:
        """Repeat the log of each shard since its snapshot. Each machine's log is read once, for all shards."""
        chains: dict[int, list[tuple[str, int, int]]] = {}
        spans: dict[str, tuple[int, int]] = {}
        for shard in shards:
            through = self._places.get(shard.owner, 0) if shard.owner is not None else None
            for machine, first, last in shard.closed(through):
                assert last is not None
                chains.setdefault(shard.number, []).append((machine, first, last))
                low, high = spans.get(machine, (first, last))
                spans[machine] = (min(low, first), max(high, last))
        numbers = frozenset(chains)
        found: dict[tuple[int, str], list[tuple[int, Deed]]] = {}
        for machine, (low, high) in spans.items():
            async for sequence, parts in self._records(machine, low, high):
                for shard_number, deed in decode(parts, shards=numbers):
                    found.setdefault((shard_number, machine), []).append((sequence, deed))
        deeds = (
            Logged(number, deed)
            for number, chain in chains.items()
            for machine, first, last in chain
            for sequence, deed in found.get((number, machine), ())
            if first <= sequence <= last
        )
        for logged in together(deeds):
            await self._everything.repeat(logged.shard, logged.deed)

    # following

    async def follow(self, machines: Iterable[Machine]) -> None:
        """Read what *machines* have committed since. Errors: StoreError."""
        async with self._turn:
            began_s = self._clock.boot()
            for machine in machines:
                self._started.setdefault(machine.id, machine.started_at)
                await self._reach(machine.id, machine.sequence)
            self._followed_s = began_s

    async def catch_up(self) -> None:
        """Read all that is committed by now. Errors: StoreError."""
        await self.follow([machine_in(item) for item in await self._table.all_of(MACHINES)])

    async def reach(self, machine: str, sequence: int) -> None:
        """Read what a machine has committed up to *sequence*. Errors: StoreError."""
        async with self._turn:
            await self._reach(machine, sequence)

    async def _reach(self, machine: str, sequence: int) -> None:
        at = self._places.get(machine, 0)
        if machine == self.machine or at >= sequence:
            self._places.setdefault(machine, at)
            return
        async for found, parts in self._records(machine, at + 1, sequence):
            if found != self._places.get(machine, 0) + 1:
                break
            await self._repeat_record(machine, found, parts)
        if self._places.get(machine, 0) < sequence:
            raise StoreError(
                f"the log of machine {machine} in the shared store lacks commit {self._places.get(machine, 0) + 1} of {sequence}"
            )

    async def _repeat_record(self, machine: str, sequence: int, parts: Sequence[bytes]) -> None:
        """Repeat a commit; if that fails, or nobody waits for it any more, it goes on later where it was: no deed can be repeated twice."""
        begun, done = self._half.get(machine, (sequence, 0))
        done = done if begun == sequence else 0

        async def repeat(number: int, logged: Logged) -> None:
            await self._repeat(logged)
            self._half[machine] = (sequence, number)

        for number, logged in enumerate(together(decode(parts)), start=1):
            if number > done:
                await to_its_end(repeat(number, logged))
        self._half.pop(machine, None)
        self._places[machine] = sequence

    async def _repeat(self, logged: Logged) -> None:
        if isinstance(logged.deed, Taken):
            for place in logged.deed.after:
                await self._reach(place.machine, place.sequence)
        else:
            gone: list[JournalEntry] | None = [] if self._wants_rows() else None
            await self._everything.repeat(logged.shard, logged.deed, gone=gone)
            if told := [*_settled_by(logged.deed), *(gone or ())]:
                self.on_entries(told)

    async def _records(
        self, machine: str, first: int, last: int, *, is_reversed: bool = False
    ) -> AsyncIterator[tuple[int, list[bytes]]]:
        """Yield the records there are of a machine's log, with their sequences."""
        parts: list[bytes] = []
        sequence = -1
        async for page in self._table.query(
            log_key(machine),
            first=place_text(first),
            last=place_text(last, _LAST_PART),
            is_reversed=is_reversed,
        ):
            for item in page:
                if sequence_in(item["sk"]) != sequence:
                    sequence, parts = sequence_in(item["sk"]), []
                parts.append(item["held"])
                if len(parts) == item["parts"]:
                    yield sequence, parts[::-1] if is_reversed else parts

    # history

    async def read_history(self) -> None:
        """Read the older log for the journal's sake. Errors: StoreError; called again, it begins anew."""
        later = _Later()
        for machine in sorted(self._started, key=lambda name: self._started[name], reverse=True):
            last = self._places.get(machine, 0)
            if machine == self.machine or not last:
                continue
            async for _, parts in self._records(machine, 1, last, is_reversed=True):
                rows: list[JournalEntry] = []
                record: list[Logged] = []
                for logged in decode(parts):
                    record.append(logged)
                    await self._clock.sleep(0)
                for logged in reversed(record):
                    rows += later.rows_left_by(logged.deed, pruned_through=self._pruned_through)
                await self._everything.add_old(rows, instead_of=later.to_give_way(rows))
        self.has_history = True


def _settled_by(deed: Deed) -> Sequence[JournalEntry]:
    """Return the entries in which a deed says what has become of slots."""
    match deed:
        case Committed():
            return deed.entries
        case Changed():
            change = deed.change
            rows = (*change.closed, *change.opened, *change.unsettled)
            return [
                row._replace(revision_id=row.revision_id or deed.ids.revision_id or 0)
                for row in rows
                if row.reason is not None and row.count and not row.is_open
            ]
        case _:
            return ()


class _Later:
    """What is known of newer deeds while older ones are read."""

    def __init__(self) -> None:
        self._gone: set[FireKey] = set()
        """Keys whose rows were removed."""
        self._newer: dict[int, Newer] = {}
        """The earliest later slot of each schedule that made pending ones needless."""
        self._dropped: set[int] = set()
        """Schedules whose pending fires were dropped."""
        self._given_up: set[FireKey] = set()
        """Keys of fires that were pending, of which no row that was read says what became of them."""

    def rows_left_by(self, deed: Deed, *, pruned_through: UtcMs) -> list[JournalEntry]:
        """Return the final rows that a deed left, as far as newer ones do not stand in their place; those due up to *pruned_through* are gone."""
        entries: Sequence[JournalEntry] = ()
        match deed:
            case Changed():
                change = deed.change
                entries = (*change.closed, *change.unsettled)
                if change.drop_pending and change.id is not None:
                    self._dropped.add(change.id)
            case Committed():
                entries = deed.entries
                self._newer |= {one.schedule_id: one for one in deed.newer}
            case Backfilled() | Amended():
                entries = deed.entries
            case Flipped():
                entries = deed.unsettled
            case Asked():
                entries = (deed.entry,)
            case Retried():
                entries = [entry for row in deed.rows for entry in row.new]
        self._gone |= {entry.key for entry in entries if not entry.count and not entry.is_open}
        rows = {
            entry.key: self._final(entry)
            for entry in entries
            if not entry.is_open and entry.key not in self._gone and entry.last_due_time > pruned_through
        }
        return [*rows.values()]

    def to_give_way(self, rows: Sequence[JournalEntry]) -> list[FireKey]:
        """Return at which keys of *rows* what was taken for given up was not: a machine that had the shard later may have begun earlier."""
        return [
            row.key
            for row in rows
            if row.key in self._given_up and row.reason not in (SkipReason.SUPERSEDED, SkipReason.DROPPED)
        ]

    def _final(self, entry: JournalEntry) -> JournalEntry:
        """Return what became of *entry*: if it was pending, and no row says more, it was given up together with others."""
        if entry.state is not State.PENDING:
            return entry
        self._given_up.add(entry.key)
        newer = self._newer.get(entry.schedule_id)
        is_older = (
            newer is not None and entry.fire_time < newer.fire_time and entry.due_time < newer.due_before
        )
        is_dropped = entry.schedule_id in self._dropped and not is_older
        reason = SkipReason.DROPPED if is_dropped else SkipReason.SUPERSEDED
        return entry._replace(state=State.SKIPPED, reason=reason, next_attempt_at=None, is_in_line=False)
