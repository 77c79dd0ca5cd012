"""How a shared store makes what an apply has staged the truth, of the shards that this machine has taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.shards import SHARDS, shard_of
from cronally.domain.spec import from_canonical
from cronally.engine.records import StagedRow
from cronally.store.own_writing import OwnWriting, refuse_move
from cronally.store.shared_log import Flipped, Logged, TakenOver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.domain.model import JournalEntry
    from cronally.engine.records import StagedChange, TimetableRow
    from cronally.instants import UtcMs
    from cronally.store.dynamodb_table import DynamodbTable
    from cronally.store.replica import Replica
    from cronally.store.sqlite import ChosenIds


class OwnApplying(OwnWriting):
    """Stages lines, which are this machine's alone, and flips them."""

    def __init__(self, own: Replica, everything: Replica, table: DynamodbTable) -> None:
        super().__init__(own, everything, table)
        self._staged_dues: dict[str, UtcMs | None] = {}

    async def stage_begin(self) -> None:
        await self._own.stage_begin()
        self._staged_dues.clear()

    async def stage(self, rows: Sequence[StagedRow]) -> None:
        await self._own.stage(rows)
        self._staged_dues |= {row.name: row.at_due for row in rows if row.at_due is not None}

    async def unstage(self, names: Sequence[str]) -> None:
        await self._own.unstage(names)

    async def own(self, names: Sequence[str], *, owner: str, at: UtcMs, by: str) -> None:
        by_shard = self._by_shard(await self._own.bearers_of(names), lambda one: one[1])
        await self._write(
            lambda: self._own.own(names, owner=owner, at=at, by=by),
            lambda _: [
                Logged(shard, TakenOver([name for name, _ in some], owner, at, by))
                for shard, some in by_shard.items()
            ],
        )

    async def flip(
        self,
        *,
        at: UtcMs,
        by: str,
        owner: str,
        unsettled: Sequence[JournalEntry],
        removed: Sequence[int] = (),
    ) -> list[TimetableRow]:
        changes = await self._own.staged_changes()
        new = [change.name for change in changes if change.id is None]
        async with self._names.held(new):
            if new:
                await self._refuse_taken(dict.fromkeys(new))
            flip = _Flip(at, by, owner, unsettled, removed)
            return await self._flip(flip, changes)

    async def _flip(self, flip: _Flip, changes: Sequence[StagedChange]) -> list[TimetableRow]:
        staged: dict[int, list[StagedRow]] = {}
        ids: dict[str, ChosenIds] = {}
        taken_over: dict[int, list[tuple[str, int]]] = {}

        async def do() -> list[TimetableRow]:
            shards: dict[str, int] = {}
            for change in changes:
                spec = from_canonical(change.name, change.document)
                if change.id is not None:
                    refuse_move(spec, change.id)
                shards[change.name] = self._taken(shard_of(spec) if change.id is None else change.id % SHARDS)
            for change in changes:
                shard = shards[change.name]
                ids[change.name] = self._next_ids(shard, for_schedule=change.id is None)
                due = self._staged_dues.get(change.name)
                staged.setdefault(shard, []).append(StagedRow(change.name, change.document, due))
            owned = await self._own.taken_over(flip.owner)
            taken_over.update(self._by_shard(owned, lambda one: one[1]))
            return await self._own.flip(**flip._asdict(), ids=ids)

        def logged(_: list[TimetableRow]) -> list[Logged]:
            unsettled = self._entries_by_shard(flip.unsettled)
            removed = self._by_shard(flip.removed, lambda id_: id_)
            found = [
                Logged(shard, TakenOver([name for name, _ in some], flip.owner, flip.at, flip.by))
                for shard, some in taken_over.items()
            ]
            for shard in sorted({*staged, *unsettled, *removed}):
                rows = staged.get(shard, [])
                chosen = [ids[row.name] for row in rows]
                deed = Flipped(
                    flip.at,
                    flip.by,
                    flip.owner,
                    rows,
                    chosen,
                    unsettled.get(shard, ()),
                    removed.get(shard, ()),
                )
                found.append(Logged(shard, deed))
            return found

        return await self._write(do, logged)


class _Flip(NamedTuple):
    """What a flip was asked for."""

    at: UtcMs
    by: str
    owner: str
    unsettled: Sequence[JournalEntry]
    removed: Sequence[int]
