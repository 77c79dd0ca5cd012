"""The records of a machine's log, as the table has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.store.committing import log_key, place_text, sequence_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cronally.store.dynamodb_table import DynamodbTable

_LAST_PART: Final = 9_999


class Found(NamedTuple):
    """A record. stamp: as in ``shared_items.Said``. parts: as ``shared_log.decode`` takes them."""

    sequence: int
    stamp: int
    parts: list[bytes]


async def records(
    table: DynamodbTable,
    machine: str,
    first: int,
    last: int,
    *,
    is_reversed: bool = False,
    at_once: int | None = None,
) -> AsyncIterator[Found]:
    """Yield the records there are of a machine's log from sequence *first* through *last*. at_once: items of a call; None: a megabyte. Errors: StoreError."""
    parts: list[bytes] = []
    sequence = -1
    async for page in table.query(
        log_key(machine),
        first=place_text(first),
        last=place_text(last, _LAST_PART),
        is_reversed=is_reversed,
        at_once=at_once,
    ):
        for item in page:
            if sequence_in(item["sk"]) != sequence:
                sequence, parts = sequence_in(item["sk"]), []
            parts.append(item["held"])
            if len(parts) == item["parts"]:
                yield Found(sequence, item["stamp"], parts[::-1] if is_reversed else parts)
