"""What the engine's side asks of whoever can write a copy of the store while it is in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cronally.instants import UtcMs


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a file of a store holds.

    Attributes: schedules: those not removed. journal: rows. pending: rows still to be published. watermark: every slot due
        at or before it is in the journal; None if nothing was ever committed. schema: its version.
    """

    path: str
    size_bytes: int
    schedules: int
    journal: int
    pending: int
    watermark: UtcMs | None
    schema: int


class BackupMaker(Protocol):
    """Writes copies of the store that it is."""

    async def backup(self, path: str, *, replace: bool) -> Contents:
        """Write a consistent, checked copy to *path* (absolute) while the store is in use; all of it or nothing.

        replace: an earlier backup may be there; nothing else is ever overwritten. Errors: Conflict (there is a file, or a
        backup is being written already), BackupFailed (it cannot be written there), StoreCorrupt, StoreError.
        """
        ...
