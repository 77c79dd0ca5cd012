"""How the daemon is: its status, its topics, and what a live view of it shows."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from cronally.domain.zones import tzdata_version
from cronally.engine.figures import Figures
from cronally.engine.retention import Keep
from cronally.engine.views import Coming, Overview, Refusing, Status
from cronally.errors import StoreError
from cronally.instants import MAX_UTC_MS, MIN_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronally.clock import Clock
    from cronally.engine.circuits import Circuit, Circuits
    from cronally.engine.core import Core
    from cronally.engine.figures import ClusterFigures, CredentialsState, QuotaUse
    from cronally.engine.halt import Halt
    from cronally.engine.measures import Measures
    from cronally.engine.membership import Sharing
    from cronally.engine.outlook import Outlook
    from cronally.engine.ports import Store
    from cronally.engine.records import StoreCounts, TopicUse
    from cronally.engine.zone_watch import ZoneWatch

_MOST_CIRCUITS = 20  # that are named


class Reporting:
    """Tells how the daemon is. Errors: StoreError.

    Attributes: keep: how much of the journal is kept.
    """

    def __init__(
        self,
        core: Core,
        store: Store,
        halt: Halt,
        clock: Clock,
        measures: Measures,
        circuits: Circuits,
        *,
        version: str,
        store_name: str,
        store_warning: str | None = None,
        stand_in: str | None = None,
        zone_watch: ZoneWatch | None = None,
        keep: Keep | None = None,
        quotas: Callable[[], Sequence[QuotaUse]] = tuple,
        credentials: Callable[[], CredentialsState | None] = lambda: None,
        sharing: Callable[[], Sharing | None] = lambda: None,
        cluster: Callable[[], ClusterFigures | None] = lambda: None,
        outlook: Outlook | None = None,
    ) -> None:
        """quotas, credentials, sharing, cluster: how these are now; without them, there are none.

        outlook: of what all machines drive; None if *core* drives it all.
        """
        self.keep = keep or Keep()
        self._core = core
        self._store = store
        self._halt = halt
        self._clock = clock
        self._measures = measures
        self._circuits = circuits
        self._version = version
        self._store_name = store_name
        self._store_warning = store_warning
        self._stand_in = stand_in
        self._zone_watch = zone_watch
        self._quotas = quotas
        self._credentials = credentials
        self._sharing = sharing
        self._cluster = cluster
        self._outlook = outlook
        self._started_at = clock.wall()
        self._not_ready_because: str | None = "it is starting"

    def set_ready(self, not_ready_because: str | None = None) -> None:
        """Open for changes; or, with a reason, close."""
        self._not_ready_because = not_ready_because

    @property
    def not_ready_because(self) -> str | None:
        """Why changes are refused and fires may be held back; None when all is well."""
        return self._not_ready_because or self._halt.because

    @property
    def pruned_through(self) -> UtcMs | None:
        """The due time up to which journal entries may be gone; None if none were pruned."""
        through = self._core.pruned_through
        return None if through == MIN_UTC_MS else through

    async def status(self) -> Status:
        counts = await self._store.counts()
        size_bytes = await self._store.size_bytes()
        now = self._clock.wall()
        return Status(
            version=self._version,
            tzdata=tzdata_version(),
            started_at=self._started_at,
            now=now,
            is_ready=self.not_ready_because is None,
            not_ready_because=self.not_ready_because,
            store=self._store_name,
            schedules=counts.schedules,
            paused=counts.paused,
            failing=counts.failing,
            journal=counts.journal,
            watermark=self._core.watermark(now),
            next_fire=self._core.next_due(),
            in_flight=self._core.in_flight_count(),
            lateness_us=self._measures.lateness_us(),
            lateness_histogram=self._measures.lateness_histogram(),
            stand_in=self._stand_in,
            zone_change=None if self._zone_watch is None else self._zone_watch.change,
            pruned_through=self.pruned_through,
            size_bytes=size_bytes,
            keep=self.keep,
            store_warning=self._store_warning,
            refusing=await self._refusing(now),
            refusing_count=len(self._circuits.open),
            sharing=self._sharing(),
        )

    async def overview(self, most: int) -> Overview:
        """Return what a live view shows, which costs little however much is stored. most: slots to come."""
        counts = await self._store.counts(with_final=False)
        coming = await self._coming(most)
        now = self._clock.wall()
        return Overview(
            version=self._version,
            started_at=self._started_at,
            now=now,
            not_ready_because=self.not_ready_because,
            schedules=counts.schedules,
            paused=counts.paused,
            failing=counts.failing,
            pending=sum(counts.journal.values()),
            oldest_pending_due=counts.oldest_pending_due,
            in_flight=self._core.in_flight_count(),
            watermark=self._core.watermark(now),
            ended=dict(self._measures.ended),
            lateness_us=self._measures.lateness_us(),
            refusing=await self._refusing(now),
            refusing_count=len(self._circuits.open),
            coming=coming,
        )

    async def figures(self) -> Figures:
        """Return what is measured, which costs little however much is stored; also while the store cannot be read."""
        counts: StoreCounts | None = None
        size_bytes: int | None = None
        some = self._circuits.summary()[:_MOST_CIRCUITS]
        pending: dict[str, int] = {}
        with suppress(StoreError):
            counts = await self._store.counts(with_final=False)
            size_bytes = await self._store.size_bytes()
            pending = await self._store.pending_counts([circuit.topic for circuit in some])
        now, measures = self._clock.wall(), self._measures
        return Figures(
            version=self._version,
            tzdata=tzdata_version(),
            now=now,
            is_ready=self.not_ready_because is None,
            fates=dict(measures.fates),
            attempts=dict(measures.attempts),
            retries=measures.retries,
            lateness=measures.lateness.distribution(),
            answer=measures.answer.distribution(),
            commit=measures.commit.distribution(),
            lag=measures.lag.distribution(),
            commit_failures=measures.commit_failures,
            store_failures=measures.store_failures,
            in_flight=self._core.in_flight_count(),
            watermark=self._core.watermark(now) if self._core.planned_through else None,
            counts=counts,
            size_bytes=size_bytes,
            max_size_bytes=self.keep.max_bytes,
            refusing=tuple(_refusing(circuit, now, pending.get(circuit.topic, 0)) for circuit in some),
            refusing_count=len(self._circuits.open),
            quotas=tuple(self._quotas()),
            credentials=self._credentials(),
            hand_overs=dict(measures.hand_overs),
            cluster=self._cluster(),
        )

    async def _coming(self, most: int) -> tuple[Coming, ...]:
        """Return the next slot of each of the schedules that come first, by due time; not what is planned already."""
        if not most:
            return ()
        core = self._core if self._outlook is None else await self._outlook.core()
        fires = core.coming(most)
        fires += await self._store.at_between(core.at_through, MAX_UTC_MS, limit=most)
        fires = sorted(fires, key=lambda fire: fire.due_time)[:most]
        labels = await self._store.labels([fire.revision_id for fire in fires])
        return tuple(
            Coming(labels[fire.revision_id], fire.fire_time, fire.due_time)
            for fire in fires
            if fire.revision_id in labels
        )

    async def topics(
        self, *, after: str = "", limit: int = 1000
    ) -> Sequence[tuple[TopicUse, Refusing | None]]:
        """Return a page of the topics in use by ARN, each with how it refuses if SNS refuses everything for it."""
        uses = await self._store.topics(after=after, limit=limit)
        now = self._clock.wall()
        page = []
        for use in uses:
            circuit = self._circuits.open.get(use.topic)
            page.append((use, None if circuit is None else _refusing(circuit, now, use.pending)))
        return page

    async def _refusing(self, now: UtcMs) -> tuple[Refusing, ...]:
        some = self._circuits.summary()[:_MOST_CIRCUITS]
        pending = await self._store.pending_counts([circuit.topic for circuit in some])
        return tuple(_refusing(circuit, now, pending[circuit.topic]) for circuit in some)


def _refusing(circuit: Circuit, now: UtcMs, pending: int) -> Refusing:
    return Refusing(
        topic=circuit.topic,
        since=circuit.opened_at or now,
        error=circuit.error,
        pending=pending,
        next_probe=UtcMs(max(circuit.probe_at, now)),
    )
