"""What people have been told of each shard, as items of the table that machines share (docs/adr/0015)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from cronally.engine.records import Told

if TYPE_CHECKING:
    from collections.abc import Callable

    from cronally.store.dynamodb_table import DynamodbTable

_NOTES: Final = "told"


class DynamodbNotes:
    """The ``Notes`` of the machine that drives each shard. *epoch_of*: that in which this one does; None if it does not.

    An older epoch than the one that is there writes nothing: what the machine after it has told is newer.
    """

    def __init__(self, table: DynamodbTable, epoch_of: Callable[[int], int | None]) -> None:
        self._table = table
        self._epoch_of = epoch_of

    async def read(self, shard: int) -> Told:
        item = await self._table.get(_key(shard))
        return Told() if item is None else Told(frozenset(json.loads(item["troubled"])), item["at"])

    async def write(self, shard: int, told: Told) -> None:
        epoch = self._epoch_of(shard)
        if epoch is None:
            return
        pk, sk = _key(shard)
        troubled = json.dumps(sorted(told.troubled), separators=(",", ":"))
        await self._table.put(
            {"pk": pk, "sk": sk, "epoch": epoch, "troubled": troubled, "at": told.at},
            condition="attribute_not_exists(pk) OR #epoch <= :epoch",
            values={"epoch": epoch},
        )


def _key(shard: int) -> tuple[str, str]:
    return _NOTES, f"{shard:02d}"
