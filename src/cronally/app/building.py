"""What a term of an engine consists of, put together. Nothing of it has begun."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cronally import RELEASED_AT, __version__
from cronally.admin.metrics_port import MetricsPort
from cronally.admin.server import AdminServer
from cronally.app.memory import available_memory
from cronally.engine.arming import armed_budget
from cronally.engine.clock_watch import ClockWatch
from cronally.engine.engine import Engine
from cronally.engine.journalist import Journalist
from cronally.engine.outlook import Outlook
from cronally.engine.reporting import Reporting
from cronally.engine.retention import Retention
from cronally.engine.service import Service
from cronally.engine.zone_watch import ZoneWatch
from cronally.instants import parse_rfc3339
from cronally.sns.pacing import quota_per_s

if TYPE_CHECKING:
    from cronally.app.daemon import Daemon
    from cronally.app.sharing import Shared
    from cronally.engine.alerts import Alerts
    from cronally.engine.ports import Publisher, Store
    from cronally.engine.records import Opened
    from cronally.sns.credentials import Credentials
    from cronally.sns.local import StandIn
    from cronally.store.sqlite import SqliteStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What an engine works with, opened.

    Fields: store: of what this machine drives. everything: of what all machines do. file: the store if it is in a file. shared: the
        part of this machine in the store if several share it. opened: what the store knew. store_warning: what is wrong with where
        it lies. stand_in: None for AWS. credentials: to be kept fresh; None for the stand-in. alerts: None if nobody is to be told.
    """

    store: Store
    everything: Store
    file: SqliteStore | None = None
    shared: Shared | None = None
    opened: Opened
    store_warning: str | None = None
    publisher: Publisher
    stand_in: StandIn | None
    credentials: Credentials | None
    alerts: Alerts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What is built of that. metrics_port: None if there is to be none."""

    journalist: Journalist
    engine: Engine
    zone_watch: ZoneWatch
    retention: Retention
    reporting: Reporting
    server: AdminServer
    metrics_port: MetricsPort | None


def build(daemon: Daemon, around: Around) -> Parts:
    """Return the parts of a term of *daemon*."""
    config, clock, shared = daemon.config, daemon.clock, around.shared
    journalist = Journalist(clock, config.journal, alerts=around.alerts)
    if shared is not None:
        shared.store.on_entries = journalist.settled_elsewhere
    engine = _engine(daemon, around, journalist)
    zone_watch = ZoneWatch(engine.core, around.store, clock, journalist)
    retention = Retention(
        engine.core,
        around.store,
        clock,
        journalist,
        is_quiet=engine.loop.is_quiet,
        keep=config.journal,
    )
    outlook = None if shared is None else Outlook(around.everything, clock)
    reporting = _reporting(daemon, around, journalist, engine, zone_watch, outlook)
    server = AdminServer(
        _service(daemon, around, journalist, engine, reporting, outlook),
        reporting,
        clock,
        socket_path=config.socket,
        read_only_group=config.read_only_group,
        routing=None if shared is None else shared.routing(),
        check=None if shared is None else shared.admit,
    )
    return Parts(
        journalist=journalist,
        engine=engine,
        zone_watch=zone_watch,
        retention=retention,
        reporting=reporting,
        server=server,
        metrics_port=None
        if config.metrics_listen is None
        else MetricsPort(server.metrics, reporting, clock, listen=config.metrics_listen),
    )


def _engine(daemon: Daemon, around: Around, journalist: Journalist) -> Engine:
    config = daemon.config
    return Engine(
        around.store,
        around.publisher,
        daemon.clock,
        journalist,
        watch=ClockWatch(daemon.clock, released_at=parse_rfc3339(RELEASED_AT), is_trusted=config.trust_clock),
        armed_budget_bytes=armed_budget(available_memory()),
        topics=config.sns_topics,
        is_one_of_several=around.shared is not None,
    )


def _reporting(
    daemon: Daemon,
    around: Around,
    journalist: Journalist,
    engine: Engine,
    zone_watch: ZoneWatch,
    outlook: Outlook | None,
) -> Reporting:
    config, clock, shared = daemon.config, daemon.clock, around.shared
    stand_in, credentials = around.stand_in, around.credentials
    return Reporting(
        engine.core,
        around.everything,
        engine.loop.halt,
        clock,
        journalist,
        engine.loop.circuits,
        version=__version__,
        store_name=str(config.store),
        store_warning=around.store_warning,
        stand_in=None if stand_in is None else stand_in.url,
        zone_watch=zone_watch,
        keep=config.journal,
        quotas=lambda: daemon.pacing.uses(clock.mono()),
        credentials=lambda: None if credentials is None else credentials.state(),
        sharing=lambda: None if shared is None else shared.state(),
        cluster=lambda: None if shared is None else shared.figures(),
        outlook=outlook,
    )


def _service(
    daemon: Daemon,
    around: Around,
    journalist: Journalist,
    engine: Engine,
    reporting: Reporting,
    outlook: Outlook | None,
) -> Service:
    return Service(
        engine.core,
        around.store,
        engine.edits,
        engine.orders,
        reporting,
        daemon.clock,
        journalist,
        engine.allowed,
        topic_maker=around.stand_in,
        backup_maker=around.file,
        quota_per_s=lambda region, is_fifo: quota_per_s(
            region, is_fifo=is_fifo, given=daemon.config.sns_quota
        ),
        everything=around.everything,
        has_history=lambda: around.shared is None or around.shared.store.has_history,
        outlook=outlook,
        watermark_of=None if around.shared is None else around.shared.watermark_of,
    )
