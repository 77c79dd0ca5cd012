"""The composition root: the only place that builds things, and the order in which they start and stop."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from cronally import RELEASED_AT, __version__
from cronally.actions import about
from cronally.admin.metrics_port import MetricsPort
from cronally.admin.server import AdminServer
from cronally.clock import SystemClock, WaitResult
from cronally.config import Config, load_config, reloaded
from cronally.doctor import Doctor
from cronally.engine.alerts import Alerts, Troubles
from cronally.engine.arming import armed_budget
from cronally.engine.clock_watch import ClockWatch
from cronally.engine.engine import Engine
from cronally.engine.journalist import Journalist
from cronally.engine.lag_watch import LagWatch
from cronally.engine.reporting import Reporting
from cronally.engine.retention import Retention
from cronally.engine.service import Service
from cronally.engine.zone_watch import ZoneWatch
from cronally.errors import CredentialsInvalid, PublishError, StoreError, UsageError
from cronally.instants import UtcMs, parse_rfc3339
from cronally.logs import logging_to, silent_logs
from cronally.service_manager import ServiceManager, Supervision
from cronally.sns.aws import Aws
from cronally.sns.credentials import Credentials
from cronally.sns.local import LocalPublisher, Received, StandIn, find_stand_in, local_credentials
from cronally.sns.pacing import Pacing, quota_per_s
from cronally.sns.publisher import SnsPublisher
from cronally.sns.subscribing import Subscribing
from cronally.sns.topics import AlertTopic, Topics
from cronally.store.copying import write_copy
from cronally.store.filesystem import network_warning
from cronally.store.lock import locked
from cronally.store.restoring import Restore, finish_restore, restoring
from cronally.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from cronally.clock import Clock
    from cronally.domain.findings import Finding
    from cronally.domain.model import Fire
    from cronally.domain.targets import Target
    from cronally.domain.topic import TopicArn
    from cronally.domain.topic_reports import Step, Subscribed, TopicState
    from cronally.engine.copies import Contents
    from cronally.engine.ports import Publisher
    from cronally.engine.records import Opened

_T = TypeVar("_T")

_STAND_IN_CALLS = 8  # more at once make moto's server slower


_COLLECT_EVERY_S = 60.0
_QUIET_MS = 250  # nothing in flight and nothing due for so long: a collection takes some 10 ms
_MOST_POSTPONED = 2_400  # ten minutes; then it is collected all the same

_log = logging.getLogger("cronally")

Messages: TypeAlias = "AsyncIterator[Received]"
"""What lies in a topic's queue of the stand-in, as it comes."""


def serve(
    flags: Mapping[str, object], *, config_file: str | None = None, log_level: int = logging.INFO
) -> int:
    """Run the daemon until SIGTERM or SIGINT; return its exit code.

    flags: settings given on the command line, by their keys in ``config``; None where one was not given. log_level: the
    least that goes into the log.
    Errors: every CronallyError of the parts, before anything is half-started.
    """

    def read() -> Config:
        return load_config(os.environ, flags, config_file=config_file)

    config = read()
    with logging_to(sys.stderr, log_level, form=config.log_format):
        return run(_Daemon(config, SystemClock(), read).run())


def copy_store(
    file: str, flags: Mapping[str, object], *, config_file: str | None = None, replace: bool
) -> Contents:
    """Copy a store that no daemon uses to *file*, an absolute path; return what is in the copy.

    Errors: ConfigError, StoreLocked (a daemon uses it), and as for a daemon's backup.
    """
    path = os.path.realpath(load_config(os.environ, flags, config_file=config_file).store_path)
    if not Path(path).exists():
        raise StoreError(f"there is no store at {path}; name one with --store")
    with locked(path, fix="leave out --store and --config, and the daemon writes the backup while it runs"):
        finish_restore(path)
        return write_copy(path, file, replace=replace, stop=threading.Event())


def restore_store(
    file: str, flags: Mapping[str, object], *, config_file: str | None = None
) -> AbstractContextManager[Restore]:
    """Hold the store that the settings name for a block, with a checked copy of *file* ready to be put in its place.

    Errors: ConfigError, and those of ``store.restoring.restoring``.
    """
    return restoring(file, load_config(os.environ, flags, config_file=config_file).store_path)


# --- topics -------------------------------------------------------------------------------------------------------


def create_topic(name: str, region: str | None, *, is_fifo: bool) -> str:
    """Create a topic, in *region* or the session's; return its ARN. One that exists is left as it is.

    Errors: UsageError if no region is known; CredentialsInvalid, AwsRefused, AwsUnreachable.
    """

    async def create(aws: Aws) -> str:
        place = region or aws.region
        if place is None:
            raise UsageError("in which region? name it with --region, or set AWS_REGION")
        return await Topics(aws).create(name, place, is_fifo=is_fifo)

    return _with_aws(create)


def subscribe_topic(
    topic: TopicArn, target: Target, *, raw: bool | None, wait_s: float, tell: Callable[[Step], None]
) -> Subscribed:
    """Subscribe *target* to *topic* with all that it needs. Arguments and errors: as ``sns.subscribing.Subscribing`` has them."""

    async def subscribe(aws: Aws) -> Subscribed:
        subscribing = Subscribing(aws, SystemClock(), topic, target, raw=raw, tell=tell)
        return await subscribing.run(wait_s=wait_s)

    return _with_aws(subscribe)


def check_topic(arn: str) -> str:
    """Publish a test message; return its message id. Errors: as ``create_topic``."""
    return _with_aws(lambda aws: Topics(aws).publish_marked(arn))


def topic_states(arns: Sequence[str], *, stand_in: str | None) -> list[TopicState]:
    """Return how topics are at SNS, or at the *stand_in* (URL) that a daemon publishes to. Errors: CredentialsInvalid."""
    return _with_aws(lambda aws: Topics(aws).states(arns), stand_in=stand_in)


def examine(
    socket: str, flags: Mapping[str, object], topics: Sequence[str], *, config_file: str | None = None
) -> list[Finding]:
    """Look at all that a daemon needs; see ``doctor``. topics: ARNs to look at beside those in use. Errors: ConfigError."""
    config = load_config(os.environ, flags, config_file=config_file)

    async def look() -> list[Finding]:
        clock = SystemClock()
        credentials = Credentials(clock)
        aws = Aws(credentials)
        try:
            asked = [*topics, *([config.alerts_topic] if config.alerts_topic else [])]
            return await Doctor(config, credentials, aws, clock, socket=socket, topics=asked).examine()
        finally:
            await aws.close()

    with silent_logs():
        return asyncio.run(look())


def _with_aws(work: Callable[[Aws], Awaitable[_T]], *, stand_in: str | None = None) -> _T:
    """Run *work* with somebody who calls AWS for this user, or the *stand_in* at that URL."""

    async def main() -> _T:
        clock = SystemClock()
        if stand_in is None:
            credentials = Credentials(clock)
            await credentials.start()
            aws = Aws(credentials)
        else:
            aws = Aws(local_credentials(clock), endpoint_url=stand_in, is_stand_in=True)
        try:
            return await work(aws)
        finally:
            await aws.close()

    with silent_logs():  # what went wrong is raised, and said once
        return asyncio.run(main())


# --- the daemon -----------------------------------------------------------------------------------------------------


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run *main* on the fastest event loop there is, and unwrap the one error a task group may carry."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(main)
    except BaseExceptionGroup as group:
        raise _first(group) from group


def available_memory(root: Path = Path("/")) -> int | None:
    """Return how many bytes this process may still take: what Linux calls available, or what its cgroups leave; None elsewhere."""
    found: list[int] = []
    with suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text().splitlines()
        found.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) << 10)
    with suppress(OSError, ValueError):
        if (
            not found
        ):  # a service with ProcSubset=pid does not see that file: take it that half of the machine's is
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    for group in _own_cgroups(root):
        with suppress(OSError, ValueError):
            limit = int((group / "memory.max").read_text())  # "max" where there is none
            found.append(max(0, limit - int((group / "memory.current").read_text())))
    return min(found, default=None)


def _own_cgroups(root: Path) -> Iterator[Path]:
    """Yield the directories of the cgroup of this process and those above it; in a container the root is its own."""
    groups = root / "sys/fs/cgroup"
    own = "/"
    with suppress(OSError):
        own = (root / "proc/self/cgroup").read_text().rpartition("::")[
            2
        ].strip() or "/"  # cgroups(7): 0::/PATH
    group = groups / own.lstrip("/")
    yield group
    yield from (above for above in group.parents if above.is_relative_to(groups))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform != "linux":
        return None
    import uvloop  # noqa: PLC0415 - a dependency on Linux alone

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


class _Daemon:
    """One run of ``cronally serve``: start-up, main, shutdown, in this order on the page."""

    def __init__(self, config: Config, clock: Clock, read: Callable[[], Config]) -> None:
        """read: reads the settings again; raises UsageError if they cannot be accepted."""
        self._config = config
        self._clock = clock
        self._read = read
        self._pacing = Pacing(config.sns_quota)
        self._manager = ServiceManager.found_in(os.environ)
        self._supervision = Supervision(self._manager, clock)
        self._wants_reload = asyncio.Event()
        self._is_stopping = asyncio.Event()
        self._is_hurried = asyncio.Event()
        self._clean_watermark: UtcMs | None = None

    async def run(self) -> int:
        config = self._config
        async with AsyncExitStack() as stack:
            stack.enter_context(self._signals())
            stack.enter_context(self._supervised())
            store = SqliteStore(config.store_path)
            opened = await store.open()
            self._clean_watermark = opened.watermark if opened.was_clean else None
            stack.push_async_callback(self._close, store)
            if store.kept_by_restore is not None:
                _log.warning(
                    "a restore that was interrupted is finished; the store before it is kept as %s",
                    store.kept_by_restore,
                    extra=about("restore.finished", kept=store.kept_by_restore),
                )
            store_warning = network_warning(config.store_path)
            if store_warning is not None:
                _log.warning("%s", store_warning, extra=about("store.on_network"))
            publisher, stand_in, credentials = await self._publisher(stack)
            alerts = await self._alerts(stack, store, credentials, stand_in)
            journalist = Journalist(self._clock, config.journal, alerts=alerts)
            engine = Engine(
                store,
                publisher,
                self._clock,
                journalist,
                watch=ClockWatch(
                    self._clock, released_at=parse_rfc3339(RELEASED_AT), is_trusted=config.trust_clock
                ),
                armed_budget_bytes=armed_budget(available_memory()),
                topics=config.sns_topics,
            )
            zone_watch = ZoneWatch(engine.core, store, self._clock, journalist)
            retention = Retention(
                engine.core,
                store,
                self._clock,
                journalist,
                is_quiet=engine.loop.is_quiet,
                keep=config.journal,
            )
            reporting = Reporting(
                engine.core,
                store,
                engine.loop.halt,
                self._clock,
                journalist,
                engine.loop.circuits,
                version=__version__,
                store_name=f"sqlite:{config.store_path}",
                store_warning=store_warning,
                stand_in=None if stand_in is None else stand_in.url,
                zone_watch=zone_watch,
                keep=config.journal,
                quotas=lambda: self._pacing.uses(self._clock.mono()),
                credentials=lambda: None if credentials is None else credentials.state(),
            )
            self._supervision.not_ready_because = lambda: reporting.not_ready_because
            self._supervision.silence = engine.loop.pulse.silence
            service = Service(
                engine.core,
                store,
                engine.edits,
                engine.orders,
                reporting,
                self._clock,
                journalist,
                engine.allowed,
                topic_maker=stand_in,
                backup_maker=store,
                quota_per_s=lambda region, is_fifo: quota_per_s(
                    region, is_fifo=is_fifo, given=self._config.sns_quota
                ),
            )
            server = AdminServer(
                service,
                reporting,
                self._clock,
                socket_path=config.socket,
                read_only_group=config.read_only_group,
            )
            await server.start()
            stack.push_async_callback(server.close)
            if config.metrics_listen is not None:
                metrics_port = MetricsPort(
                    server.metrics, reporting, self._clock, listen=config.metrics_listen
                )
                await metrics_port.start()
                stack.push_async_callback(metrics_port.close)
            async with asyncio.TaskGroup() as tasks:
                running: list[asyncio.Task[None]] = []
                if credentials is not None:
                    with suppress(CredentialsInvalid):  # it has said so; fires are kept until it succeeds
                        await credentials.start()
                    running.append(tasks.create_task(credentials.run(), name="credentials"))
                first = await self._recover(engine, reporting, opened)
                if first is not None:
                    self._clean_watermark = None
                    running.append(tasks.create_task(engine.run(first), name="engine"))
                    running.append(tasks.create_task(zone_watch.run(), name="zones"))
                    running.append(tasks.create_task(retention.run(), name="retention"))
                    if alerts is not None:
                        alerts.troubles = Troubles(opened.failing)
                        running.append(tasks.create_task(alerts.run(), name="alerts"))
                    running.append(tasks.create_task(LagWatch(self._clock, journalist).run(), name="lag"))
                    running.append(tasks.create_task(self._collect_garbage(engine), name="garbage"))
                    reporting.set_ready()
                    self._announce(stand_in)
                    self._supervision.ready()
                    reloading = self._reload_for_ever(engine, retention, journalist, reporting)
                    running.append(tasks.create_task(reloading, name="reload"))
                    await self._is_stopping.wait()
                    reporting.set_ready("it is stopping")
                    self._supervision.stopping(self._config.drain_timeout_s)
                    store.abandon_backup()
                    await server.close()
                    await self._drain(engine)
                    if alerts is not None:
                        await alerts.finish()
                for task in running:
                    task.cancel()
            if first is not None:
                self._clean_watermark = await engine.finish()
        return 0

    async def _close(self, store: SqliteStore) -> None:
        """Close the store; if all that was sent is on record, as a clean stop."""
        await store.close(watermark=self._clean_watermark)

    async def _publisher(self, stack: AsyncExitStack) -> tuple[Publisher, StandIn | None, Credentials | None]:
        """Return what publishes, the stand-in if there is one, and the credentials to keep fresh beside it."""
        config = self._config
        if not config.is_local:
            credentials = Credentials(self._clock)
            publisher = SnsPublisher(credentials, self._clock, pacing=self._pacing)
            stack.push_async_callback(publisher.close)
            return publisher, None, credentials
        stand_in = await find_stand_in(
            self._clock,
            log=Path(config.state_directory) / "stand-in.log",
            port=config.local_port,
            endpoint_url=os.environ.get("AWS_ENDPOINT_URL"),
        )
        stack.push_async_callback(stand_in.close)
        inner = SnsPublisher(
            stand_in.credentials, self._clock, endpoint_url=stand_in.url, max_connections=_STAND_IN_CALLS
        )
        stack.push_async_callback(inner.close)
        return LocalPublisher(inner, stand_in), stand_in, None

    async def _alerts(
        self,
        stack: AsyncExitStack,
        store: SqliteStore,
        credentials: Credentials | None,
        stand_in: StandIn | None,
    ) -> Alerts | None:
        """Return who tells people of trouble, at the place where messages go; None if nobody is to be told."""
        topic = self._config.alerts_topic
        if topic is None:
            return None
        if stand_in is not None:
            await stand_in.make(topic)
            aws = Aws(stand_in.credentials, endpoint_url=stand_in.url, is_stand_in=True)
        else:
            assert credentials is not None
            aws = Aws(credentials)
        stack.push_async_callback(aws.close)
        return Alerts(AlertTopic(aws, topic), store, self._clock)

    async def _recover(self, engine: Engine, reporting: Reporting, opened: Opened) -> Sequence[Fire] | None:
        """Wait for a clock that can be believed, then bring the engine in line; None if the daemon is stopped first."""
        is_said = False
        while (doubt := engine.watch.doubt(opened.watermark)) is not None:
            reporting.set_ready(f"the clock is not believed: {doubt}; set it, or start with --trust-clock")
            if not is_said:  # it names the time, which is another each second
                _log.warning(
                    "the clock is not believed: %s; waiting (--trust-clock believes it)",
                    doubt,
                    extra=about("clock.doubted", doubt=doubt),
                )
                is_said = True
            if await self._clock.wait(None, self._is_stopping) is WaitResult.WOKEN:
                return None
        gc.collect()
        gc.disable()  # nothing that is loaded is garbage: to look for some takes longer than loading
        try:
            first = await engine.recover(opened)
        finally:
            gc.freeze()  # what is loaded now stays: the collector need not walk it again and again (design §4)
            gc.enable()
        return first

    async def _reload_for_ever(
        self, engine: Engine, retention: Retention, journalist: Journalist, reporting: Reporting
    ) -> None:
        """At each SIGHUP, take over what can be taken over of the settings as they are now, or nothing."""
        while True:
            await self._wants_reload.wait()
            self._wants_reload.clear()
            self._supervision.reloading()
            try:
                read = await asyncio.to_thread(self._read)  # a file may be on a disk that hangs
            except UsageError as exc:
                _log.error(
                    "the settings are not read again, and stay as they were: %s",
                    exc,
                    extra=about("daemon.reload_refused", error=str(exc)),
                )
            else:
                became = reloaded(self._config, read)
                config = self._config = became.config
                self._pacing.replace(config.sns_quota)
                retention.keep = journalist.keep = reporting.keep = config.journal
                engine.allow(config.sns_topics)
                for change in became.applied:
                    _log.info(
                        "reload: %s", change, extra=about("daemon.reload", change=change, is_applied=True)
                    )
                for change in became.waiting:
                    _log.warning(
                        "reload: %s, but not before a restart",
                        change,
                        extra=about("daemon.reload", change=change, is_applied=False),
                    )
                _log.info(
                    "the settings are read again: %d changed",
                    len(became.applied),
                    extra=about("daemon.reloaded", changed=len(became.applied)),
                )
            self._supervision.ready()

    @contextmanager
    def _supervised(self) -> Iterator[None]:
        """For the block, tell the service manager how we are."""
        if self._manager.watchdog_s is not None:
            with suppress(OSError, ValueError):  # there may be no stderr
                faulthandler.enable()  # the watchdog's SIGABRT leaves in the log where each thread was
        telling = asyncio.ensure_future(self._supervision.run())
        try:
            yield
        finally:
            telling.cancel()
            self._manager.close()

    async def _collect_garbage(self, engine: Engine) -> None:
        """Collect garbage between instants only: in a burst it would cost a quarter more, and hold the loop for long."""
        gc.disable()
        try:
            while True:
                await self._clock.sleep(_COLLECT_EVERY_S)
                for _ in range(_MOST_POSTPONED):
                    if engine.loop.is_quiet(_QUIET_MS):
                        break
                    await self._clock.sleep(_QUIET_MS / 1000)
                gc.collect()
        finally:
            gc.enable()

    async def _drain(self, engine: Engine) -> None:
        """Let what is in flight be answered, unless somebody is in a hurry."""
        draining = asyncio.ensure_future(engine.drain(self._config.drain_timeout_s))
        hurried = asyncio.ensure_future(self._is_hurried.wait())
        await asyncio.wait((draining, hurried), return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, hurried):
            task.cancel()
        await asyncio.gather(draining, hurried, return_exceptions=True)

    def _announce(self, stand_in: StandIn | None) -> None:
        store, socket = self._config.store_path, self._config.socket
        _log.info(
            "ready: store %s, socket %s",
            store,
            socket,
            extra=about("daemon.ready", store=store, socket=socket),
        )
        if stand_in is not None:
            _log.info(
                "local SNS and SQS at %s; every topic is made on first use, with a queue of its name",
                stand_in.url,
                extra=about("daemon.stand_in", url=stand_in.url),
            )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT stop in order; a second one skips the wait for what is in flight, and later ones say nothing new.

        SIGHUP has the settings read again; one that comes before all is running is heard then.
        """
        loop = asyncio.get_running_loop()

        def stop() -> None:
            (self._is_hurried if self._is_stopping.is_set() else self._is_stopping).set()

        # Not the loop's own handlers: as those are removed, a signal would end the process for a moment.
        wanted = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: self._wants_reload.set}
        before = {number: _call_on(loop, number, what) for number, what in wanted.items()}
        try:
            yield
        finally:
            # All is on record. One that comes while the interpreter ends would make a clean stop look like none.
            is_over = self._is_stopping.is_set()
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if is_over else handler)


def _call_on(loop: asyncio.AbstractEventLoop, number: signal.Signals, what: Callable[[], None]) -> Any:
    """Have signal *number* call *what* on *loop*; return what it did before."""
    return signal.signal(number, lambda *_: loop.call_soon_threadsafe(what))


@dataclass(frozen=True, slots=True)
class Stage:
    """A daemon and a stand-in of their own, for as long as a demo lasts. messages: what lies in a topic's queue."""

    socket: str
    messages: Callable[[str], Messages]


@asynccontextmanager
async def demo_stage() -> AsyncIterator[Stage]:
    """Start a stand-in and ``cronally serve`` as processes of their own in a temporary directory; end both afterwards.

    Errors: PublishError, or the reason the daemon gave for not starting.
    """
    clock = SystemClock()
    with tempfile.TemporaryDirectory(prefix="cronally-demo-") as directory:
        home = Path(directory)
        stand_in = await find_stand_in(clock, log=home / "stand-in.log", port=_free_port())
        try:
            async with _daemon(home, stand_in.url) as socket_path:
                yield Stage(socket_path, stand_in.messages)
        finally:
            await stand_in.stop()


@asynccontextmanager
async def _daemon(home: Path, endpoint_url: str) -> AsyncIterator[str]:
    socket_path = str(home / "cronally.sock")
    arguments = ["serve", "--local", "--store", f"sqlite:{home}/cronally.db", "--socket", socket_path]
    daemon = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cronally",
        *arguments,
        env={**os.environ, "AWS_ENDPOINT_URL": endpoint_url},
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is the demo's: it stops the daemon in order
    )
    assert daemon.stderr is not None
    said = b""
    try:
        while b"ready" not in (line := await daemon.stderr.readline()):
            said = line or said
            if not line:
                raise PublishError(f"the daemon of the demo did not start: {said.decode().strip()}")
        reading = asyncio.ensure_future(daemon.stderr.read())
        yield socket_path
    finally:
        with suppress(ProcessLookupError):
            daemon.terminate()
        await daemon.wait()
    await reading


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
