"""What an engine has beside it while its machine shares a store with others, for one term."""

from __future__ import annotations

import logging
import platform
from contextlib import suppress
from typing import TYPE_CHECKING

from cronally.actions import about
from cronally.admin.errands import Errands
from cronally.admin.routing import Routing
from cronally.app.stores import table_region
from cronally.domain.shards import SHARDS
from cronally.engine.alerted import AlertedDriver
from cronally.engine.figures import ClusterFigures, LeaseFigures
from cronally.engine.membership import Membership
from cronally.engine.shard_watch import ShardWatch
from cronally.errors import NotReady, StoreError
from cronally.instants import MIN_UTC_MS
from cronally.sns.clients import Clients
from cronally.store.dynamodb import DynamodbStore
from cronally.store.dynamodb_inbox import DynamodbInbox
from cronally.store.dynamodb_notes import DynamodbNotes
from cronally.store.replica_directory import replica_directory

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from contextlib import AsyncExitStack

    from aiohttp import web

    from cronally.clock import Clock
    from cronally.config import Config
    from cronally.engine.alerts import Alerts
    from cronally.engine.engine import Engine
    from cronally.engine.here import Here
    from cronally.engine.hooks import Hooks
    from cronally.engine.lease_counts import LeaseCounts
    from cronally.engine.membership import Driver, Sharing
    from cronally.engine.records import GivenUp, Opened, TakenIn
    from cronally.instants import UtcMs
    from cronally.sns.credentials import Credentials
    from cronally.sns.pacing import Pacing

_log = logging.getLogger(__name__)

_REJOIN_S = 1.0
_LOOK_S = 0.05
_UNCHECKED = frozenset({"/healthz", "/readyz", "/metrics"})


class Paced:
    """A ``Driver`` that is *inner*, and uses as much of each quota as it has of the shards."""

    def __init__(self, inner: Driver, here: Here, pacing: Pacing) -> None:
        self._inner = inner
        self._here = here
        self._pacing = pacing
        self._share()

    async def take_in(self, taken: Sequence[TakenIn]) -> None:
        await self._inner.take_in(taken)
        self._share()

    async def drain(self, timeout_s: float) -> None:
        await self._inner.drain(timeout_s)

    async def give_up(self, number: int) -> GivenUp:
        given = await self._inner.give_up(number)
        self._share()
        return given

    def _share(self) -> None:
        shards = SHARDS - len(self._here.absent)
        self._pacing.share(max(1, shards) / SHARDS)


class Shared:
    """A machine's part in the shared store *store*. It is an ``admin.routing.Owners``."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        credentials: Credentials,
        stack: AsyncExitStack,
        *,
        endpoint_url: str | None,
        former: list[str],
        leases: LeaseCounts,
    ) -> None:
        """endpoint_url: of the stand-in; None for AWS, or what the environment says. former: ids that this process had before. leases: what became of them.

        Errors: UsageError if no region is known; StoreError if there is no place for the replicas.
        """
        self._clock = clock
        self._is_local = endpoint_url is not None
        self._former = former
        self._leases = leases
        self._watch = ShardWatch(clock, self.state)
        region = table_region(credentials, default="us-east-1" if self._is_local else None)
        self._clients = Clients(credentials, service="dynamodb", endpoint_url=endpoint_url)
        stack.push_async_callback(self._clients.close)
        self.host = config.machine or platform.node() or "unknown"
        self.store = DynamodbStore(
            config.store.place,
            lambda: self._clients.get(region),
            clock,
            directory=stack.enter_context(replica_directory(config.state_directory, config.store.place)),
            lease_ms=config.lease_ms,
            host=self.host,
            counts=leases,
        )
        stack.push_async_callback(self.store.close, watermark=None)
        self._inbox = DynamodbInbox(self.store.table, lambda: self.store.machine, clock)
        self._membership: Membership | None = None
        self._waiting_because: str | None = "it is reading what the table has"

    # --- joining ----------------------------------------------------------------------------------------------------

    async def join(self, *, is_first: bool) -> Opened:
        """Read the table and join its machines; one that does not answer is waited for.

        is_first: what does not pass by itself is an error (there is no such table, say), as long as a person may look on.
        """
        is_told = False
        while True:
            try:
                if self._is_local:  # there a topic is made on first use, too
                    await self.store.table.create()
                opened = await self.store.open()
            except StoreError as exc:
                if is_first and not exc.is_retryable:
                    raise
                if not is_told:
                    is_told = True
                    _log.warning(
                        "the other machines cannot be joined: %s; trying again",
                        exc,
                        extra=about("table.awaited", error=str(exc)),
                    )
                self._waiting_because = str(exc)
                await self._clock.sleep(_REJOIN_S)
            else:
                self._waiting_because = None
                return opened

    async def admit(self, request: web.Request) -> None:
        """Refuse a request while there is nothing to answer it with. Errors: NotReady."""
        if self._waiting_because is not None and request.path not in _UNCHECKED:
            raise NotReady(f"the daemon has not joined the other machines: {self._waiting_because}")

    def begin(
        self,
        engine: Engine,
        pacing: Pacing,
        alerts: Alerts | None,
        hooks: Hooks,
        tasks: asyncio.TaskGroup,
    ) -> list[asyncio.Task[None]]:
        """Begin to take shards, in tasks of which the first ends with ``leave``. pacing, alerts: are told which."""
        driver: Driver = Paced(engine.hand_over, engine.core.here, pacing)
        driver = driver if alerts is None else AlertedDriver(driver, alerts)
        self._membership = Membership(self.store, driver, self._clock, hooks, former=self._former)
        return [
            tasks.create_task(self._membership.run(), name="membership"),
            tasks.create_task(self._watch.run(), name="shards"),
        ]

    async def all_driven(self, stop: asyncio.Event) -> bool:
        """Return True once each shard has an owner that lives; False as soon as *stop* is set."""
        membership = self._membership
        assert membership is not None
        while not stop.is_set():
            state = membership.sharing()
            if state.machines and not state.free and not membership.is_busy:
                return True
            await self._clock.sleep(_LOOK_S)
        return False

    def trusted_until(self) -> float:
        """Return until when on ``Clock.boot`` this machine may send."""
        return self.store.trusted_until

    def notes(self) -> DynamodbNotes:
        """Return where it is kept what people have been told of each shard."""
        return DynamodbNotes(self.store.table, self.store.epoch_of)

    def errands(self, socket_path: str) -> Errands:
        """Return who carries out what other machines ask."""
        return Errands(self._inbox, self._clock, socket_path=socket_path)

    async def leave(self, within_s: float) -> None:
        """Give all shards, and leave the others."""
        if self._membership is not None:
            await self._membership.leave(within_s=within_s)
        elif self._waiting_because is None:  # it has joined, and no more than that
            with suppress(StoreError):
                await self.store.leave()

    # --- what is told of it -----------------------------------------------------------------------------------------

    def routing(self) -> Routing:
        """Return who finds the machine for each change."""
        return Routing(self, self._inbox, self.store.everything, self._clock, self.store.catch_up)

    @property
    def machine(self) -> str:
        return self.store.machine

    def is_there(self, machine: str) -> bool:
        return self._membership is None or self._membership.is_there(machine)

    def owner_of(self, shard: int) -> str | None:
        return None if self._membership is None else self._membership.owner_of(shard)

    def watermark_of(self, schedule_id: int) -> UtcMs:
        """Return how far the schedule with this id is settled, as far as its machine says."""
        found = None if self._membership is None else self._membership.watermark_of(schedule_id % SHARDS)
        return MIN_UTC_MS if found is None else found

    def state(self) -> Sharing | None:
        """Return what this machine knows of all; None before it has joined."""
        return None if self._membership is None else self._membership.sharing()

    def figures(self) -> ClusterFigures:
        """Return what is measured of this machine's part."""
        leases, units = self._leases, self.store.table.units
        return ClusterFigures(
            lease_ms=self.store.lease_ms,
            sharing=self.state(),
            undriven_for_s=self._watch.look(),
            following_age_s=self.store.following_age_s,
            leases=LeaseFigures(leases.renewed, leases.failed, dict(leases.refused), leases.lost),
            read_units=units.read,
            write_units=units.write,
        )
