"""Several machines over one table, in memory: a ``SharedStore`` for each, with the faults that a test wants.

The table is what the machines agree on: heartbeats and shards, changed by conditional writes alone. The records of a shard lie in the
store of the machine that had it last; who takes it copies them from there, as they were at that machine's last commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from cronally.domain.shards import SHARDS, shard_of
from cronally.domain.spec import from_canonical
from cronally.engine.leases import RENEWALS_PER_LEASE, trusted_until
from cronally.engine.records import Machine, Opened, Shard, TakenIn
from cronally.errors import LeaseLost, StoreError
from support.memory_store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from cronally.clock import Clock
    from cronally.domain.model import JournalEntry
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.ports import Store
    from cronally.engine.records import GivenUp, Pruned, Revised, ScheduleChange, TimetableRow
    from cronally.instants import UtcMs
    from cronally.store.base import SingleSlot

_T = TypeVar("_T")

LEASE_MS = 8_000
_NO_ANSWER_S = 1.0  # until a machine gives up waiting for one
_TRY_AGAIN_S = 0.2


@dataclass
class Faults:
    """What happens between one machine and the table.

    Attributes: is_cut: nothing gets through; the machine waits a second each time. latency_s: of each call, half of it on the way there.
        lost_answers: so many of the next calls are done, and the machine does not hear of it.
    """

    is_cut: bool = False
    latency_s: float = 0.0
    lost_answers: int = 0


@dataclass
class Table:
    """What the machines share. Attributes: machines, shards: as they are. refused: commits of machines that were retired. takes: (number, epoch, machine) of every take-over, in order."""

    machines: dict[str, Machine] = field(default_factory=dict)
    shards: list[Shard] = field(
        default_factory=lambda: [Shard(number, None, 0, None) for number in range(SHARDS)]
    )
    refused: list[str] = field(default_factory=list)
    takes: list[tuple[int, int, str]] = field(default_factory=list)
    stores: dict[str, ClusterStore] = field(default_factory=dict)
    holders: dict[int, ClusterStore] = field(default_factory=dict)  # who had a shard last
    incarnations: int = 0
    rows: int = 0
    revisions: int = 0

    @property
    def owners(self) -> dict[int, str]:
        """The living machines of the shards that have one."""
        return {
            shard.number: shard.owner
            for shard in self.shards
            if shard.owner is not None and not self.machines[shard.owner].is_retired
        }

    def heartbeat(self, machine: str, **fields: object) -> Machine:
        """Change a heartbeat, on the condition that the machine is not retired. Errors: LeaseLost."""
        there = self.machines[machine]
        if there.is_retired:
            self.refused.append(machine)
            raise LeaseLost("another machine has retired this one")
        changed = there._replace(version=there.version + 1, **fields)  # type: ignore[arg-type]
        self.machines[machine] = changed
        return changed


class ClusterStore(MemoryStore):
    """A ``SharedStore``: the records of the shards that one machine has taken. Attributes: faults. calls: how many went to the table."""

    def __init__(self, table: Table, clock: Clock, host: str, *, lease_ms: int = LEASE_MS) -> None:
        self._ids: deque[int] = deque()
        self._id = 0
        super().__init__()
        self.faults = Faults()
        self.calls = 0
        self.machine = ""
        self.lease_ms = lease_ms
        self._table = table
        self._clock = clock
        self._host = host
        self._trusted_until = float("-inf")
        self._writing = asyncio.Lock()  # one commit at a time
        self._in_line: set[int] = set()  # shards that are behind no more, as soon as a commit has said so

    # --- one machine's records --------------------------------------------------------------------------------------

    async def open(self) -> Opened:
        table = self._table
        table.incarnations += 1
        self.machine = f"{self._host}-{table.incarnations}"
        machine = Machine(
            self.machine, self._host, 1, 0, None, {}, self.lease_ms, 0, started_at=self._clock.wall()
        )
        began_at = self._clock.boot()
        await self._ask(lambda: table.machines.setdefault(self.machine, machine))
        table.stores[self.machine] = self
        self._trusted_until = trusted_until(began_at, self.lease_ms)
        self._was_clean = False
        return Opened(watermark=None, was_clean=True)

    async def close(self, *, watermark: UtcMs | None) -> None:
        """Nothing is to be closed, and a stop is clean by ``leave``."""

    @property
    def _last_id(self) -> int:
        return self._id

    @_last_id.setter
    def _last_id(self, value: int) -> None:
        self._id = self._ids.popleft() if self._ids else value

    def _new_id(self, spec: ScheduleSpec) -> int:
        self._table.rows += 1
        return self._table.rows * SHARDS + shard_of(spec)

    def _revise(
        self, id_: int, number: int, spec: ScheduleSpec, document: str, slot: SingleSlot | None
    ) -> int:
        revision_id = super()._revise(id_, number, spec, document, slot)
        self._table.revisions += 1
        self._revisions[self._table.revisions] = self._revisions.pop(revision_id)
        return self._table.revisions

    async def change(self, change: ScheduleChange, *, gone: list[JournalEntry] | None = None) -> Revised:
        if change.id is None and change.new_spec is not None:
            self._ids = deque([self._new_id(change.new_spec)])
        return await self._committed(super().change(change, gone=gone))

    async def flip(self, **keys: Any) -> list[TimetableRow]:
        changes = await self.staged_changes()
        new = [from_canonical(each.name, each.document) for each in changes if each.id is None]
        self._ids = deque(map(self._new_id, new))
        return await self._committed(super().flip(**keys))

    async def commit(self, entries: Sequence[JournalEntry], *, watermark: UtcMs | None, **keys: Any) -> int:
        return await self._committed(super().commit(entries, watermark=watermark, **keys), watermark)

    async def mark_unclean(self, shard: int | None = None) -> None:
        await self._committed(super().mark_unclean(shard))

    async def remember_run(self, *args: Any, **keys: Any) -> None:
        await self._committed(super().remember_run(*args, **keys))

    async def add_manual(self, *args: Any, **keys: Any) -> None:
        await self._committed(super().add_manual(*args, **keys))

    async def add_backfill(self, *args: Any, **keys: Any) -> None:
        await self._committed(super().add_backfill(*args, **keys))

    async def retry(self, *args: Any, **keys: Any) -> None:
        await self._committed(super().retry(*args, **keys))

    async def amend(self, *args: Any, **keys: Any) -> None:
        await self._committed(super().amend(*args, **keys))

    async def own(self, *args: Any, **keys: Any) -> None:
        await self._committed(super().own(*args, **keys))

    async def set_back(self, *args: Any, **keys: Any) -> None:
        await self._committed(super().set_back(*args, **keys))

    async def end_set_back(self) -> None:
        await self._committed(super().end_set_back())

    async def prune(self, *args: Any, **keys: Any) -> Pruned:
        return await self._committed(super().prune(*args, **keys))

    async def move_single_slots(self, *args: Any, **keys: Any) -> None:
        await self._committed(super().move_single_slots(*args, **keys))

    async def _committed(self, write: Coroutine[Any, Any, _T], watermark: UtcMs | None = None) -> _T:
        """Do *write* on the records and in the table, in one step; try until the lease ends. Errors: LeaseLost, Conflict."""
        in_line = {*self._in_line}  # now, for *watermark* was told with those in mind and no others
        try:
            async with self._writing:
                return await self._committed_alone(write, watermark, in_line)
        finally:
            write.close()

    async def _committed_alone(
        self, write: Coroutine[Any, Any, _T], watermark: UtcMs | None, in_line: set[int]
    ) -> _T:
        done: list[_T] = []

        def effect() -> _T:
            if not done:
                there = self._table.machines[self.machine]
                mark, behind = there.watermark, there.behind
                if watermark is not None:
                    mark = watermark if mark is None else max(mark, watermark)
                    if watermark >= mark:  # else a shard would jump to what the others had reached before
                        behind = {number: at for number, at in behind.items() if number not in in_line}
                self._table.heartbeat(
                    self.machine, sequence=there.sequence + 1, watermark=mark, behind=behind
                )
                self._in_line &= behind.keys()
                done.append(_at_once(write))
            return done[0]

        while True:
            began_at = self._clock.boot()
            try:
                answer = await self._ask(effect)
            except LeaseLost:
                raise
            except StoreError:
                await self._clock.sleep(_TRY_AGAIN_S)
                if self._clock.boot() >= self._trusted_until:
                    raise LeaseLost("the table did not answer to the end of the lease") from None
            else:
                self._note_renewal(began_at)
                return answer

    # --- what the machines share ------------------------------------------------------------------------------------

    @property
    def everything(self) -> Store:
        """The records of all shards, as they are now."""
        union = ClusterStore(self._table, self._clock, self._host)
        for number, holder in self._table.holders.items():
            union._copy(holder, number)
        return union

    @property
    def has_history(self) -> bool:
        return True

    @property
    def trusted_until(self) -> float:
        return self._trusted_until

    async def renew(self) -> None:
        began_at = self._clock.boot()
        last_at = self._trusted_until - trusted_until(0.0, self.lease_ms)
        if began_at - last_at >= self.lease_ms / 1000 / RENEWALS_PER_LEASE - 0.001:
            await self._ask(lambda: self._table.heartbeat(self.machine))
            self._note_renewal(began_at)

    def _note_renewal(self, began_at: float) -> None:
        self._trusted_until = max(self._trusted_until, trusted_until(began_at, self.lease_ms))

    async def machines(self) -> list[Machine]:
        def effect() -> list[Machine]:
            named = {self.machine, *(shard.owner for shard in self._table.shards)}
            return [each for each in self._table.machines.values() if not each.is_retired or each.id in named]

        return await self._ask(effect)

    async def shards(self) -> list[Shard]:
        return await self._ask(lambda: [*self._table.shards])

    async def retire(self, machine: Machine) -> Machine | None:
        def effect() -> Machine | None:
            there = self._table.machines[machine.id]
            if there.version != machine.version or there.is_retired:
                return None
            self._table.machines[machine.id] = there._replace(is_retired=True)
            return self._table.machines[machine.id]

        return await self._ask(effect)

    async def take(self, shard: Shard, owner: Machine | None) -> TakenIn | None:
        table = self._table

        def effect() -> TakenIn | None:
            there = table.shards[shard.number]
            own = table.machines[self.machine]
            if (there.owner, there.epoch) != (shard.owner, shard.epoch):
                return None
            if there.owner == self.machine:
                return self._taken_in(there.number, own.watermark_of(there.number), was_clean=False)
            if there.owner is None:
                watermark, was_clean = there.watermark, there.was_clean
            else:
                retired = table.machines[there.owner]
                assert retired.is_retired, "a shard is taken from a machine that lives"
                watermark, was_clean = retired.watermark_of(there.number), False
            behind = {**own.behind, there.number: watermark}
            self._in_line.discard(there.number)
            table.heartbeat(self.machine, behind=behind, hand_overs=own.hand_overs + 1)
            epoch = there.epoch + 1
            table.shards[there.number] = Shard(there.number, self.machine, epoch, watermark, was_clean)
            table.takes.append((there.number, epoch, self.machine))
            holder = table.holders.get(there.number)
            if holder is not None:
                self._copy(holder, there.number)
            table.holders[there.number] = self
            return self._taken_in(there.number, watermark, was_clean=was_clean)

        return await self._ask(effect)

    async def recovered(self, number: int) -> None:
        self._in_line.add(number)

    async def begin_give(self, number: int) -> None:
        self._in_line.discard(number)
        async with self._writing:
            own = self._table.machines[self.machine]
            behind = {**own.behind, number: own.watermark_of(number)}
            await self._ask(lambda: self._table.heartbeat(self.machine, behind=behind))

    async def give(self, shard: Shard, given: GivenUp) -> bool:
        table = self._table

        def effect() -> bool:
            there = table.shards[shard.number]
            if (there.owner, there.epoch) != (self.machine, shard.epoch):
                return False
            own = table.machines[self.machine]
            behind = {number: at for number, at in own.behind.items() if number != there.number}
            table.heartbeat(self.machine, hand_overs=own.hand_overs + 1, behind=behind)
            table.shards[shard.number] = there._replace(
                owner=None, watermark=given.watermark, was_clean=given.was_clean
            )
            parked = table.holders[shard.number] = ClusterStore(table, self._clock, self._host)
            parked._copy(self, shard.number)
            self._forget(shard.number)
            return True

        return await self._ask(effect)

    async def begin_leave(self) -> None:
        await self._ask(lambda: self._table.heartbeat(self.machine, is_leaving=True))

    async def leave(self) -> None:
        await self._ask(lambda: self._table.heartbeat(self.machine, is_retired=True, has_left=True))
        self._trusted_until = float("-inf")

    async def follow(self) -> None:
        await self._ask(lambda: None)

    async def _ask(self, effect: Callable[[], _T]) -> _T:
        """Have something done at the table. Errors: StoreError if there is no answer; what *effect* raises."""
        faults = self.faults
        self.calls += 1
        if faults.is_cut:
            await self._clock.sleep(_NO_ANSWER_S)
            raise StoreError("the table does not answer")
        if faults.latency_s:
            await self._clock.sleep(faults.latency_s / 2)
        answer = effect()
        if faults.lost_answers:
            faults.lost_answers -= 1
            await self._clock.sleep(_NO_ANSWER_S)
            raise StoreError("the table does not answer")
        if faults.latency_s:
            await self._clock.sleep(faults.latency_s / 2)
        return answer

    def _taken_in(self, number: int, watermark: UtcMs | None, *, was_clean: bool) -> TakenIn:
        ids = sorted(id_ for id_ in self._names.values() if id_ % SHARDS == number)
        failing = frozenset(id_ for id_ in ids if self._schedules[id_].error is not None)
        return TakenIn(number, [self._row(id_) for id_ in ids], watermark, was_clean, failing)

    def _copy(self, holder: ClusterStore, number: int) -> None:
        """Have the records of a shard as *holder* has them."""
        self._forget(number)

        def is_of(id_: int) -> bool:
            return id_ % SHARDS == number

        self._schedules |= {id_: one for id_, one in holder._schedules.items() if is_of(id_)}
        self._revisions |= {id_: one for id_, one in holder._revisions.items() if is_of(one.schedule_id)}
        self._names |= {name: id_ for name, id_ in holder._names.items() if is_of(id_)}
        self._former |= {(name, id_) for name, id_ in holder._former if is_of(id_)}
        self._rested |= {id_: at for id_, at in holder._rested.items() if is_of(id_)}
        self._runs |= holder._runs
        for place, (id_, row) in holder._audit.items():
            if is_of(id_):
                self._table.rows += 1  # places are unique in all of the table
                self._audit[*place[:2], self._table.rows << 32] = (id_, row)
        for key, entry in holder._journal.items():
            if is_of(key.schedule_id):
                self._write(entry)

    def _forget(self, number: int) -> None:
        """Have nothing of a shard any more."""

        def is_of(id_: int) -> bool:
            return id_ % SHARDS == number

        for key in [key for key in self._pending if is_of(key.schedule_id)]:
            self._forget_pending(self._pending[key])
        self._journal = {key: one for key, one in self._journal.items() if not is_of(key.schedule_id)}
        self._by_due = [row for row in self._by_due if not is_of(row[1].schedule_id)]
        self._by_slot = [row for row in self._by_slot if not is_of(row[1].schedule_id)]
        self._times = {key: times for key, times in self._times.items() if not is_of(key[0])}
        self._names = {name: id_ for name, id_ in self._names.items() if not is_of(id_)}
        self._former = {(name, id_) for name, id_ in self._former if not is_of(id_)}
        self._rested = {id_: at for id_, at in self._rested.items() if not is_of(id_)}
        self._schedules = {id_: one for id_, one in self._schedules.items() if not is_of(id_)}
        self._revisions = {id_: one for id_, one in self._revisions.items() if not is_of(one.schedule_id)}
        self._audit = {place: one for place, one in self._audit.items() if not is_of(one[0])}


def _at_once(work: Coroutine[Any, Any, _T]) -> _T:
    """Return what a coroutine returns that never waits."""
    try:
        work.send(None)
    except StopIteration as stop:
        answer: _T = stop.value
        return answer
    raise AssertionError("a method of MemoryStore waits")
