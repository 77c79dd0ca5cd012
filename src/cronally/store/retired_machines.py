"""Machines that are over: retiring one, what it has said for good, and forgetting it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cronally.errors import StoreError
from cronally.store.committing import KEPT_DAYS
from cronally.store.shared_items import MACHINES, expires_s, machine_in, machine_key, past_item, said_in

if TYPE_CHECKING:
    from collections.abc import Collection

    from cronally.clock import Clock
    from cronally.engine.records import Machine
    from cronally.store.dynamodb_table import DynamodbTable
    from cronally.store.shared_items import Said

_FORGET_MS: Final = 3_600_000  # a retired machine's heartbeat is kept until everybody must have read it


class RetiredMachines:
    """The heartbeats in *table* that nobody renews any more."""

    def __init__(self, table: DynamodbTable, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._frozen: dict[str, Said] = {}

    async def retire(self, machine: Machine) -> Machine | None:
        """Retire a machine as it was seen; return what it is now, None if it has said something since. Errors: StoreError."""
        await self._table.update(
            machine_key(machine.id),
            {"retired": True, "retired_at": self._clock.wall()},
            condition="#version = :seen AND #retired = :no",
            values={"seen": machine.version, "no": False},
        )
        # Whether that was this call, one before whose answer was lost, or another machine's: it is frozen at this version.
        item = await self._table.get(machine_key(machine.id))
        if item is None or not item["retired"] or item["version"] != machine.version:
            return None
        self._frozen[machine.id] = said_in(item)
        return machine_in(item)

    async def said_of(self, owner: Machine) -> Said:
        """Return what the heartbeat of a retired machine says, for good. Errors: StoreError."""
        if owner.id not in self._frozen:
            item = await self._table.get(machine_key(owner.id))
            if item is None:
                raise StoreError(f"the heartbeat of machine {owner.id} is gone from the shared store")
            self._frozen[owner.id] = said_in(item)
        return self._frozen[owner.id]

    async def forget(self, *, but: Collection[str | None]) -> None:
        """Forget the heartbeats of machines that are retired for long, those left out that a shard still names. Errors: StoreError."""
        before = self._clock.wall() - _FORGET_MS
        for item in await self._table.all_of(MACHINES):
            if item["retired"] and item["sk"] not in but and item["retired_at"] < before:
                await self._table.put(
                    past_item(
                        item["sk"],
                        through=item["sequence"],
                        stamp=said_in(item).stamp,
                        expires=expires_s(self._clock.wall(), 2 * KEPT_DAYS),
                    )
                )
                await self._table.delete(
                    machine_key(item["sk"]), condition="#retired = :yes", values={"yes": True}
                )
