"""What a shared store reads of the shards that this machine has taken: as a store of a single machine does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from cronally.domain.model import Fire, FireKey, JournalEntry, Kind
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.records import (
        AuditFilter,
        AuditPage,
        JournalFilter,
        JournalRow,
        Label,
        LinePlace,
        Owned,
        PendingFire,
        StagedChange,
        StoreCounts,
        StoredSchedule,
        TimetableRow,
        TopicUse,
        ZoneRecord,
    )
    from cronally.instants import UtcMs
    from cronally.store.replica import Replica


class OwnReading:
    """Reads from the replica ``own``, and old rows that are not there yet from ``everything``."""

    def __init__(self, own: Replica, everything: Replica) -> None:
        self._own = own
        self._everything = everything

    def timetable(self) -> AsyncIterator[Sequence[TimetableRow]]:
        return self._own.timetable()

    async def schedule(self, name: str) -> StoredSchedule | None:
        return await self._own.schedule(name)

    async def schedules(self, *, after: str | None = None, limit: int = 1000) -> list[StoredSchedule]:
        return await self._own.schedules(after=after, limit=limit)

    async def topics(self, *, after: str = "", limit: int = 1000) -> list[TopicUse]:
        return await self._own.topics(after=after, limit=limit)

    async def nearest_name(self, name: str) -> str | None:
        return await self._own.nearest_name(name)

    async def specs(self, revision_ids: Sequence[int]) -> dict[int, ScheduleSpec]:
        return await self._own.specs(revision_ids)

    async def labels(self, revision_ids: Sequence[int]) -> dict[int, Label]:
        return await self._own.labels(revision_ids)

    async def audit(self, wanted: AuditFilter) -> AuditPage:
        return await self._own.audit(wanted)

    async def at_between(self, after: UtcMs, through: UtcMs, *, limit: int | None = None) -> list[Fire]:
        return await self._own.at_between(after, through, limit=limit)

    async def next_at(self, after: UtcMs) -> UtcMs | None:
        return await self._own.next_at(after)

    async def settled_between(self, after: UtcMs, through: UtcMs) -> dict[int, list[tuple[UtcMs, UtcMs]]]:
        return await self._own.settled_between(after, through)

    async def settled_slots(self, after: UtcMs, through: UtcMs) -> dict[int, list[tuple[UtcMs, UtcMs]]]:
        return await self._own.settled_slots(after, through)

    async def pending_due(
        self, through: UtcMs, *, after: tuple[UtcMs, int, UtcMs, str] | None = None, limit: int = 2000
    ) -> list[PendingFire]:
        return await self._own.pending_due(through, after=after, limit=limit)

    async def next_pending(self, after: UtcMs) -> UtcMs | None:
        return await self._own.next_pending(after)

    async def lines(self) -> list[tuple[str, int]]:
        return await self._own.lines()

    async def in_line(
        self, topic: str, priority: int, *, after: LinePlace | None = None, limit: int = 500
    ) -> list[PendingFire]:
        return await self._own.in_line(topic, priority, after=after, limit=limit)

    async def pending_counts(self, topics: Sequence[str]) -> dict[str, int]:
        return await self._own.pending_counts(topics)

    async def pending_groups(self, topic: str | None = None) -> list[tuple[str, str]]:
        return await self._own.pending_groups(topic)

    async def next_group(self, topic: str, after: str = "") -> str | None:
        return await self._own.next_group(topic, after)

    async def group_pending(self, topic: str, group: str, *, limit: int = 100) -> list[PendingFire]:
        return await self._own.group_pending(topic, group, limit=limit)

    async def fire_times(self, schedule_id: int, kind: Kind, first: UtcMs, last: UtcMs) -> set[UtcMs]:
        found = await self._own.fire_times(schedule_id, kind, first, last)
        return found | await self._everything.fire_times(schedule_id, kind, first, last)

    async def remembered_run(self, key: str) -> str | None:
        found = await self._own.remembered_run(key)
        return await self._everything.remembered_run(key) if found is None else found

    async def bearers(self, name: str) -> list[int]:
        return await self._own.bearers(name)

    async def rows(self, keys: Sequence[FireKey]) -> list[JournalRow]:
        found = await self._own.rows(keys)
        there = {row.entry.key for row in found}
        return found + await self._everything.rows([key for key in keys if key not in there])

    async def history(self, wanted: JournalFilter) -> list[JournalRow]:
        return await self._own.history(wanted)

    async def covering(self, schedule_id: int, fire_time: UtcMs) -> list[JournalRow]:
        found = await self._own.covering(schedule_id, fire_time)
        return found or await self._everything.covering(schedule_id, fire_time)

    async def counts(self, *, with_final: bool = True) -> StoreCounts:
        return await self._own.counts(with_final=with_final)

    async def newest_settled(self, after: UtcMs) -> UtcMs | None:
        return await self._own.newest_settled(after)

    async def decided_beyond(
        self, at: UtcMs, *, after: tuple[UtcMs, int, UtcMs] | None = None, limit: int = 500
    ) -> list[JournalEntry]:
        return await self._own.decided_beyond(at, after=after, limit=limit)

    async def entries_beyond(self, schedule_id: int, at: UtcMs) -> list[JournalEntry]:
        return await self._own.entries_beyond(schedule_id, at)

    async def changed_beyond(
        self, at: UtcMs, *, after: str = "", limit: int = 500
    ) -> list[tuple[StoredSchedule, bool]]:
        return await self._own.changed_beyond(at, after=after, limit=limit)

    async def size_bytes(self) -> int:
        return await self._own.size_bytes() + await self._everything.size_bytes()

    async def zone_records(self, names: Sequence[str]) -> dict[str, ZoneRecord]:
        return await self._own.zone_records(names)

    async def staged_changes(self) -> list[StagedChange]:
        return await self._own.staged_changes()

    async def owned(self, owner: str) -> list[Owned]:
        return await self._own.owned(owner)
