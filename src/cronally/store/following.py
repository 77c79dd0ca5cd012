"""How ``everything`` comes to hold what all machines have committed.

1. At the start: of each shard its snapshot and its log since, in the order in which machines had it.
2. Then each machine's commits in their order. A commit after a take-over names the places in the logs of others that come before it.
3. In the background: the older log, for the journal's history (``older_log``).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from cronally.engine.unbroken import to_its_end
from cronally.errors import StoreError
from cronally.instants import MAX_UTC_MS, MIN_UTC_MS
from cronally.store.log_reading import records
from cronally.store.older_log import End, read_older_log
from cronally.store.shared_items import (
    MACHINES,
    PAST,
    SHARDS_KEY,
    machine_in,
    said_in,
    shard_item_in,
)
from cronally.store.shared_log import Changed, Committed, Logged, Taken, decode, together
from cronally.store.snapshots import SnapshotGone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cronally.clock import Clock
    from cronally.domain.model import JournalEntry
    from cronally.engine.records import Machine
    from cronally.instants import UtcMs
    from cronally.store.attribute_values import Item
    from cronally.store.dynamodb_table import DynamodbTable
    from cronally.store.log_reading import Found
    from cronally.store.replica import Replica
    from cronally.store.shared_items import ShardItem
    from cronally.store.shared_log import Deed
    from cronally.store.snapshots import Snapshots

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
    ) -> None:
        """Take what is open."""
        self.machine = machine
        self.has_history = False
        self._table = table
        self._everything = everything
        self._snapshots = snapshots
        self._clock = clock
        self.on_entries = on_entries
        self._places: dict[str, int] = {}
        self._stamps: dict[str, int] = {}
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
                self._stamps.setdefault(item["sk"], item["stamp"])
            return
        raise StoreError("the shards of the shared store change hands too often to be read; try again later")

    async def _shards(self) -> list[ShardItem]:
        return [shard_item_in(item) for item in await self._table.all_of(SHARDS_KEY)]

    async def _load(self, shards: Sequence[ShardItem], machines: Sequence[Item]) -> None:
        self._places = {item["sk"]: item["sequence"] for item in machines}
        self._stamps = {item["sk"]: said_in(item).stamp for item in machines}
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
            async for record in records(self._table, machine, low, high):
                for shard_number, deed in decode(record.parts, shards=numbers):
                    found.setdefault((shard_number, machine), []).append((record.sequence, deed))
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
        async for found in records(self._table, machine, at + 1, sequence):
            if found.sequence != self._places.get(machine, 0) + 1:
                break
            await self._repeat_record(machine, found)
        if self._places.get(machine, 0) < sequence:
            raise StoreError(
                f"the log of machine {machine} in the shared store lacks commit {self._places.get(machine, 0) + 1} of {sequence}"
            )

    async def _repeat_record(self, machine: str, found: Found) -> None:
        """Repeat a commit; if that fails, or nobody waits for it any more, it goes on later where it was: no deed can be repeated twice."""
        sequence = found.sequence
        begun, done = self._half.get(machine, (sequence, 0))
        done = done if begun == sequence else 0

        async def repeat(number: int, logged: Logged) -> None:
            await self._repeat(logged)
            self._half[machine] = (sequence, number)

        for number, logged in enumerate(together(decode(found.parts)), start=1):
            if number > done:
                await to_its_end(repeat(number, logged))
        self._half.pop(machine, None)
        self._places[machine] = sequence
        self._stamps[machine] = found.stamp

    async def _repeat(self, logged: Logged) -> None:
        if isinstance(logged.deed, Taken):
            for place in logged.deed.after:
                await self._reach(place.machine, place.sequence)
        else:
            await self._everything.repeat(logged.shard, logged.deed)
            if settled := _settled_by(logged.deed):
                self.on_entries(settled)

    # history

    async def read_history(self) -> None:
        """Read the older log for the journal's sake. Errors: StoreError; called again, it begins anew."""
        ends = {
            machine: End(sequence, self._stamps.get(machine, MAX_UTC_MS))
            for machine, sequence in self._places.items()
            if sequence and machine != self.machine
        }
        await read_older_log(
            self._table, self._everything, self._clock, ends, pruned_through=self._pruned_through
        )
        self.has_history = True


def _settled_by(deed: Deed) -> Sequence[JournalEntry]:
    """Return the entries in which a deed says what has become of slots."""
    match deed:
        case Committed():
            return deed.entries
        case Changed():
            change = deed.change
            rows = (*change.closed, *change.opened, *change.unsettled, *deed.dropped)
            return [
                row._replace(revision_id=row.revision_id or deed.ids.revision_id or 0)
                for row in rows
                if row.reason is not None and row.count and not row.is_open
            ]
        case _:
            return ()
