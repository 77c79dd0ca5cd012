"""Snapshots of shards in the table: what a machine reads instead of the whole log.

A snapshot is what ``Replica.read_out`` gives of a shard, as lines of JSON, compressed together and cut into parts. It counts once the shard's item names it.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Final

from cronally.errors import StoreError
from cronally.store.dynamodb_table import MOST_ITEM_BYTES
from cronally.store.shared_items import SnapshotRef

if TYPE_CHECKING:
    from cronally.instants import UtcMs
    from cronally.store.attribute_values import Key
    from cronally.store.database import Connection
    from cronally.store.dynamodb_table import DynamodbTable
    from cronally.store.replica import Replica

_FORMAT: Final = b"\x01"
_LEVEL: Final = 6


class SnapshotGone(StoreError):  # noqa: N818 - says the state
    """It has been replaced by a newer one: read the shard's item again."""

    is_retryable = True


def snapshot_key(shard: int) -> str:
    """Return the partition key of a shard's snapshots."""
    return f"snapshot/{shard:02d}"


def _sk(epoch: int, sequence: int, part: int) -> str:
    return f"{epoch:08d}.{sequence:012d}.{part:04d}"


class Snapshots:
    """The snapshots in *table*."""

    def __init__(self, table: DynamodbTable) -> None:
        self._table = table

    async def write(
        self,
        replica: Replica,
        connection: Connection,
        shard: int,
        *,
        epoch: int,
        sequence: int,
        after: UtcMs | None,
    ) -> SnapshotRef:
        """Write one of *shard* as *connection* sees it, of its journal what is pending or open or later than *after*. Errors: StoreError."""
        squeezing = zlib.compressobj(_LEVEL)
        held = bytearray(_FORMAT)
        parts = size_bytes = 0

        async def put(most: int) -> None:
            nonlocal parts, size_bytes
            some = bytes(held[:most])
            del held[:most]
            await self._table.put(
                {"pk": snapshot_key(shard), "sk": _sk(epoch, sequence, parts), "held": some}
            )
            parts += 1
            size_bytes += len(some)

        async for table, rows in replica.read_out(connection, shard, after=after):
            line = json.dumps([table, rows], ensure_ascii=False, separators=(",", ":"))
            held += squeezing.compress(line.encode("utf-8", "replace") + b"\n")
            while len(held) > MOST_ITEM_BYTES:
                await put(MOST_ITEM_BYTES)
        held += squeezing.flush()
        while held:
            await put(MOST_ITEM_BYTES)
        return SnapshotRef(epoch, sequence, parts, size_bytes)

    async def read(self, replica: Replica, shard: int, ref: SnapshotRef) -> None:
        """Put a snapshot of *shard* into *replica*. Errors: SnapshotGone; StoreError."""
        parts = [
            item["held"]
            async for page in self._table.query(
                snapshot_key(shard),
                first=_sk(ref.epoch, ref.sequence, 0),
                last=_sk(ref.epoch, ref.sequence, ref.parts - 1),
            )
            for item in page
        ]
        if len(parts) != ref.parts:
            raise SnapshotGone(f"a snapshot of shard {shard} has been replaced while it was read; try again")
        whole = b"".join(parts)
        if whole[:1] != _FORMAT:
            raise StoreError(
                "a snapshot of the shared store was written by a newer cronally; start that one on this machine, too"
            )
        for line in zlib.decompress(whole[1:]).split(b"\n")[:-1]:
            table, rows = json.loads(line)
            await replica.put_in(shard, table, rows)

    async def forget_before(self, shard: int, ref: SnapshotRef) -> None:
        """Delete the parts of snapshots that are older than *ref*. Errors: StoreError, perhaps with some left."""
        last = _sk(ref.epoch, ref.sequence, 0)
        gone: list[Key] = [
            (item["pk"], item["sk"])
            async for page in self._table.query(snapshot_key(shard), last=last)
            for item in page
            if item["sk"] < last
        ]
        await self._table.write_all([], deletes=gone)
