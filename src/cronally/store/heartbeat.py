"""The heartbeat of this machine: what fences its commits, and how long it may be trusted.

1. One conditional write at a time: the item is still of the version that this machine wrote last, and not retired. Nobody but this machine and whoever retires
   it writes there, so that an answer that was lost is known from the item's version.
2. It is trusted from the start of the write that succeeded; if it is not known which attempt did, from the start of the first.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cronally.engine.lease_counts import HEARTBEAT, LeaseCounts
from cronally.engine.leases import trusted_until
from cronally.errors import LeaseLost, StoreError
from cronally.store.shared_items import MACHINES, Said, machine_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cronally.clock import Clock
    from cronally.instants import UtcMs
    from cronally.store.attribute_values import Item
    from cronally.store.dynamodb_table import DynamodbTable

R = TypeVar("R")

_FIRST_PAUSE_S: Final = 0.05
_MOST_PAUSE_S: Final = 1.0


class Heartbeat:
    """The item of one incarnation. Build it with ``join``.

    Attributes: machine: its id. said: what it says, as far as that is known to be there. trusted_until: on ``Clock.boot``.
    """

    def __init__(
        self,
        table: DynamodbTable,
        clock: Clock,
        *,
        host: str,
        lease_ms: int,
        counts: LeaseCounts | None = None,
    ) -> None:
        """host: what people call the machine. counts: of what becomes of it."""
        self.machine = f"{host}-{secrets.token_hex(6)}"
        self.said = Said()
        self.trusted_until = 0.0
        self._table = table
        self._clock = clock
        self._host = host
        self._lease_ms = lease_ms
        self._counts = counts or LeaseCounts()
        self._version = 1
        self._started_at: UtcMs
        self._lost: LeaseLost | None = None
        self._queued: list[tuple[Callable[[Said], Said], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._began_s = 0.0

    async def join(self) -> None:
        """Write the item. Errors: StoreError."""
        began_s = self._clock.boot()
        self._started_at = self._clock.wall()
        await self._table.put(
            self._item(self._version, self.said)
        )  # nobody else knows the id: once more does no harm
        self._trust(began_s)

    def _item(self, version: int, said: Said) -> Item:
        return {
            "pk": MACHINES,
            "sk": self.machine,
            "host": self._host,
            "version": version,
            "lease_ms": self._lease_ms,
            "started_at": self._started_at,
            "retired": False,
            "has_left": False,
            **said.written(),
        }

    def check(self) -> None:
        """Errors: LeaseLost if it is lost."""
        if self._lost is not None:
            raise self._lost

    def lose(self, reason: str) -> LeaseLost:
        """This incarnation is over; return the error that says so."""
        if self._lost is None:
            self._lost = LeaseLost(reason)
            self.trusted_until = 0.0
        return self._lost

    async def say(self, change: Callable[[Said], Said]) -> None:
        """Renew the lease and say what *change* makes of what was said. What waits meanwhile goes together. Errors: LeaseLost."""
        self.check()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(heard)
        self._queued.append((change, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all())
        await asyncio.shield(done)

    async def renew(self) -> None:
        """Renew the lease unless that has been done within a third of it. Errors: LeaseLost."""
        self.check()
        if self._clock.boot() >= self._began_s + self._lease_ms / 3000:
            await self.say(lambda said: said)

    async def until_done(self, do: Callable[[], Awaitable[R]]) -> R:
        """Do what may be done twice, again and again while the lease lasts. Errors: LeaseLost."""
        pause_s = _FIRST_PAUSE_S
        while True:
            self.check()
            try:
                return await do()
            except LeaseLost:
                raise
            except StoreError as exc:
                if self._clock.boot() >= self.trusted_until:
                    raise self.lose(f"the table has not answered for a whole lease ({exc})") from exc
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, _MOST_PAUSE_S)

    async def leave(self) -> None:
        """Retire in order. Errors: LeaseLost; StoreError."""
        await self.say(lambda said: said)  # nothing else is under way
        values = {"mine": self._version, "no": False}
        await self._table.update(
            machine_key(self.machine),
            {"retired": True, "has_left": True, "retired_at": self._clock.wall()},
            condition="#version = :mine AND #retired = :no",
            values=values,
        )
        self.lose("it has left")

    async def _write_all(self) -> None:
        while self._queued:
            queued, self._queued = self._queued, []
            said = self.said
            for change, _ in queued:
                said = change(said)
            try:
                await self._write(said)
            except LeaseLost as exc:
                for _, done in queued:
                    if not done.done():
                        done.set_exception(exc)
            else:
                for _, done in queued:
                    if not done.done():
                        done.set_result(None)

    async def _write(self, said: Said) -> None:
        doubtful_s: float | None = None
        pause_s = _FIRST_PAUSE_S
        last: StoreError | None = None
        while True:
            self.check()
            began_s = self._clock.boot()
            if began_s >= self.trusted_until:
                raise self.lose(
                    f"the table has not taken a commit for a whole lease ({last or 'this machine stood still'})"
                )
            try:
                if await self._attempt(said):
                    break
                if await self._was_written():
                    began_s = began_s if doubtful_s is None else doubtful_s
                    break
                self._counts.refused[HEARTBEAT] += 1
                raise self.lose("another machine has retired it")
            except LeaseLost:
                raise
            except StoreError as exc:
                last = exc
                self._counts.failed += 1
                doubtful_s = began_s if doubtful_s is None else doubtful_s
            await self._clock.sleep(max(0.0, min(pause_s, self.trusted_until - self._clock.boot())))
            pause_s = min(2 * pause_s, _MOST_PAUSE_S)
        self._version += 1
        self._counts.renewed += 1
        self.said = said
        self._trust(began_s)

    async def _attempt(self, said: Said) -> bool:
        return await self._table.put(
            self._item(self._version + 1, said),
            condition="#version = :mine AND #retired = :no",
            values={"mine": self._version, "no": False},
        )

    async def _was_written(self) -> bool:
        """Whether an attempt without an answer was written after all, and nobody has retired this machine since."""
        item = await self._table.get(machine_key(self.machine))
        return item is not None and not item["retired"] and item["version"] == self._version + 1

    def _trust(self, began_s: float) -> None:
        self._began_s = began_s
        self.trusted_until = trusted_until(began_s, self._lease_ms)


def heard(done: asyncio.Future[Any]) -> None:
    """Whoever waited may be gone; its error is no news then."""
    if not done.cancelled():
        done.exception()
