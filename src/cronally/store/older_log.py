"""The log from before the snapshots, read newest first for the journal's sake.

1. The records of all machines are read in the order of their stamps, so that those of one shard come in the order in which they were
   committed, whoever had it.
2. Each record says of every row that it touched what became of it. What stands in a row already is newer.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.store.log_reading import records
from cronally.store.shared_log import (
    Amended,
    Asked,
    Backfilled,
    Changed,
    Committed,
    Flipped,
    Retried,
    decode,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from cronally.clock import Clock
    from cronally.domain.model import FireKey, JournalEntry
    from cronally.instants import UtcMs
    from cronally.store.dynamodb_table import DynamodbTable
    from cronally.store.log_reading import Found
    from cronally.store.replica import Replica
    from cronally.store.shared_log import Deed

_AT_ONCE: Final = 50  # items of a log that are in memory, of each machine that was there at the time
_MOST_ROWS: Final = 1_000
_SLICE_S: Final = 0.002


class End(NamedTuple):
    """The last record of a log that is to be read, and its stamp, or a greater one."""

    sequence: int
    stamp: int


async def read_older_log(
    table: DynamodbTable,
    replica: Replica,
    clock: Clock,
    ends: Mapping[str, End],
    *,
    pruned_through: UtcMs,
) -> None:
    """Put the rows that the logs of machines left into *replica*, but for those due up to *pruned_through*. Errors: StoreError; called again, it begins anew."""
    gone: set[FireKey] = set()
    rows: list[JournalEntry] = []
    began_s = clock.mono()
    async for found in _newest_first(table, ends):
        deeds = []
        for logged in decode(found.parts):
            deeds.append(logged.deed)
            if clock.mono() - began_s > _SLICE_S:
                await clock.sleep(0)
                began_s = clock.mono()
        for deed in reversed(deeds):
            rows += _rows_left_by(deed, gone, pruned_through)
        if len(rows) >= _MOST_ROWS:
            await replica.add_old(rows)
            rows = []
    await replica.add_old(rows)


async def _newest_first(table: DynamodbTable, ends: Mapping[str, End]) -> AsyncIterator[Found]:
    """Yield the records of all logs, that with the greatest stamp first. A log is opened when its turn comes."""
    turns = [(-end.stamp, machine) for machine, end in ends.items()]
    heapq.heapify(turns)
    logs: dict[str, AsyncIterator[Found]] = {}
    first: dict[str, Found] = {}
    while turns:
        _, machine = heapq.heappop(turns)
        if machine in first:
            yield first.pop(machine)
        elif machine not in logs:
            logs[machine] = records(
                table, machine, 1, ends[machine].sequence, is_reversed=True, at_once=_AT_ONCE
            )
        async for found in logs[machine]:
            first[machine] = found
            heapq.heappush(turns, (-found.stamp, machine))
            break


def _rows_left_by(deed: Deed, gone: set[FireKey], pruned_through: UtcMs) -> list[JournalEntry]:
    """Return what a deed says of rows, pending ones too. gone: keys whose rows newer deeds removed; those of this one are added."""
    entries: Sequence[JournalEntry] = ()
    match deed:
        case Changed():
            entries = (*deed.change.closed, *deed.change.unsettled, *deed.dropped)
        case Committed() | Backfilled() | Amended():
            entries = deed.entries
        case Flipped():
            entries = deed.unsettled
        case Asked():
            entries = (deed.entry,)
        case Retried():
            entries = [entry for row in deed.rows for entry in row.new]
    gone |= {entry.key for entry in entries if not entry.count and not entry.is_open}
    rows = {
        entry.key: entry
        for entry in entries
        if not entry.is_open and entry.key not in gone and entry.last_due_time > pruned_through
    }
    return [*rows.values()]
