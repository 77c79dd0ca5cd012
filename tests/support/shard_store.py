"""A store in dicts for one of several machines: what it has of a shard can be carried to another one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.shards import SHARDS, shard_of
from cronally.engine.records import TakenIn
from support.memory_store import MemoryStore

if TYPE_CHECKING:
    from cronally.domain.model import JournalEntry
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.records import StoredSchedule
    from cronally.instants import UtcMs
    from support.memory_store import Revision


class Numbers:
    """Where the stores of a cluster have their ids from."""

    def __init__(self) -> None:
        self._rows: Counter[int] = Counter()
        self._revisions = 0

    def new_id(self, spec: ScheduleSpec) -> int:
        shard = shard_of(spec)
        self._rows[shard] += 1
        return self._rows[shard] * SHARDS + shard

    def new_revision_id(self) -> int:
        self._revisions += 1
        return self._revisions


class Records(NamedTuple):
    """All that a store has of a shard, but for the audit log."""

    schedules: list[StoredSchedule]
    living: list[int]
    former: list[tuple[str, int]]
    revisions: dict[int, Revision]
    journal: list[JournalEntry]


class ShardStore(MemoryStore):
    """One of several; *numbers* are those of all."""

    def __init__(self, numbers: Numbers) -> None:
        super().__init__()
        self.numbers = numbers

    def _new_id(self, spec: ScheduleSpec) -> int:
        return self.numbers.new_id(spec)

    def _new_revision_id(self) -> int:
        return self.numbers.new_revision_id()

    @property
    def reached(self) -> UtcMs | None:
        return self._reached

    def copy(self, shard: int) -> Records:
        """Return what there is of a shard."""
        schedules = [each for id_, each in self._schedules.items() if id_ % SHARDS == shard]
        return Records(
            schedules,
            [id_ for id_ in self._names.values() if id_ % SHARDS == shard],
            [pair for pair in self._former if pair[1] % SHARDS == shard],
            {id_: each for id_, each in self._revisions.items() if each.schedule_id % SHARDS == shard},
            [entry for key, entry in self._journal.items() if key.schedule_id % SHARDS == shard],
        )

    def drop(self, shard: int) -> None:
        """Let go of a shard: nothing that is read afterwards has to do with it."""
        records = self.copy(shard)
        for entry in records.journal:
            if entry.key in self._pending:
                self._forget_pending(entry)
            del self._journal[entry.key]
        for each in records.schedules:
            del self._schedules[each.id]
        self._names = {name: id_ for name, id_ in self._names.items() if id_ % SHARDS != shard}
        self._former.difference_update(records.former)
        for id_ in records.revisions:
            del self._revisions[id_]

    def add(
        self,
        shard: int,
        records: Records,
        *,
        watermark: UtcMs | None,
        was_clean: bool = True,
        reached: UtcMs | None = None,
    ) -> TakenIn:
        """Take over what another one has, or had, of a shard; return what the engine is to be told."""
        self._schedules |= {each.id: each for each in records.schedules}
        self._names |= {self._schedules[id_].spec.name: id_ for id_ in records.living}
        self._former.update(records.former)
        self._revisions |= records.revisions
        for entry in records.journal:
            MemoryStore._write(self, entry)  # nothing is decided here: a subclass does not take it down
        failing = frozenset(id_ for id_ in records.living if self._schedules[id_].error is not None)
        rows = [self._row(id_) for id_ in sorted(records.living)]
        if reached is not None:
            self._reached = max(reached, self._reached or reached)
        return TakenIn(shard, rows, watermark, was_clean, failing, reached=reached)


def moved(
    source: ShardStore, target: ShardStore, shard: int, *, watermark: UtcMs | None, was_clean: bool = True
) -> TakenIn:
    """Carry a shard from one store to another; return what the taker's engine is to be told."""
    records = source.copy(shard)
    source.drop(shard)
    return target.add(shard, records, watermark=watermark, was_clean=was_clean, reached=source.reached)
