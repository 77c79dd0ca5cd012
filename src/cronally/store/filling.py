"""The mark of a table that ``store copy`` fills: while it is there, no machine joins.

A machine joins and then looks for the mark; a copy marks and then looks for machines. So one of the two sees the other.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from cronally.errors import Conflict, StoreBusy, StoreError
from cronally.instants import UtcMs, format_utc

if TYPE_CHECKING:
    from collections.abc import Callable

    from cronally.clock import Clock
    from cronally.store.attribute_values import Key
    from cronally.store.dynamodb_table import DynamodbTable

_KEY: Final[Key] = ("filling", "mark")
_RENEWED_S: Final = 2.0
_SILENT_S: Final = 10.0
_ATTEMPTS: Final = 20
_PAUSE_S: Final = 0.5


async def refuse_filling(table: DynamodbTable) -> None:
    """Errors: StoreError if a copy fills *table*, or was interrupted; also if it does not answer."""
    item = await table.get(_KEY)
    if item is not None:
        since = format_utc(UtcMs(item["since"]))
        raise StoreError(
            f"'cronally store copy' fills the DynamoDB table {table.name!r} since {since} and has not finished; wait for it, "
            "or, if it was interrupted, run it again: it begins anew"
        )


class Filling:
    """The mark of one copy. Build it, then ``begin``.

    Attributes: id: of this copy. others: ids of copies that were interrupted before. has_begun: *others* had looked at the table
        before they were interrupted, so that what is in it is theirs.
    """

    def __init__(self, table: DynamodbTable, clock: Clock) -> None:
        self.id = f"copy-{secrets.token_hex(6)}"
        self.others: list[str] = []
        self.has_begun = False
        self._table = table
        self._clock = clock
        self._version = 1
        self._since = clock.wall()
        self._renewed_s = clock.mono()

    async def begin(self, tell: Callable[[str], None]) -> None:
        """Put the mark there. One that nobody renews is taken over. Errors: Conflict if another copy goes on; StoreError."""
        if await self._put("attribute_not_exists(pk)", {}):
            return
        seen = await self._table.get(_KEY)
        if seen is None:
            raise StoreBusy(f"another copy into {self._table.name!r} has just ended; run it again")
        tell(
            f"another copy into {self._table.name} has not finished; watching for {_SILENT_S:g} s whether it goes on"
        )
        await self._clock.sleep(_SILENT_S)
        self.others = [str(id_) for id_ in seen["holders"]]
        self.has_begun = bool(seen["has_begun"])
        self._version = seen["version"] + 1
        if not await self._put("#version = :seen", {"seen": seen["version"]}):
            raise Conflict(
                f"another 'cronally store copy' fills the table {self._table.name!r} just now; wait for it, or stop it first"
            )

    async def renew(self, *, is_due: bool = False) -> None:
        """Say that this copy goes on, if it is time. Errors: Conflict if another one has taken over; StoreError."""
        if is_due or self._clock.mono() >= self._renewed_s + _RENEWED_S:
            await self._say()

    async def say_begun(self) -> None:
        """From now on, what is in the table is this copy's. Errors: as ``renew``."""
        self.has_begun = True
        await self._say()

    async def end(self) -> None:
        """Take the mark away. Errors: as ``renew``."""
        for attempt in range(_ATTEMPTS):
            try:
                if await self._table.delete(_KEY, condition="#holder = :me", values={"me": self.id}):
                    return
                if await self._table.get(_KEY) is None:
                    return  # an attempt whose answer was lost
            except StoreBusy:
                if attempt == _ATTEMPTS - 1:
                    raise
                await self._clock.sleep(_PAUSE_S)
            else:
                raise self._lost()

    async def _say(self) -> None:
        self._version += 1
        self._renewed_s = self._clock.mono()
        for attempt in range(_ATTEMPTS):
            try:
                if not await self._put("#holder = :me", {"me": self.id}):
                    raise self._lost()
            except StoreBusy:
                if attempt == _ATTEMPTS - 1:
                    raise
                await self._clock.sleep(_PAUSE_S)
            else:
                return

    async def _put(self, condition: str, values: dict[str, object]) -> bool:
        pk, sk = _KEY
        return await self._table.put(
            {
                "pk": pk,
                "sk": sk,
                "holder": self.id,
                "holders": [*self.others, self.id],
                "has_begun": self.has_begun,
                "version": self._version,
                "since": self._since,
            },
            condition=condition,
            values=values,
        )

    def _lost(self) -> Conflict:
        return Conflict(
            f"another 'cronally store copy' has begun to fill the table {self._table.name!r}; this one stops"
        )
