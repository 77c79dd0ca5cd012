"""The composition root: the only place that builds things, and the order in which they start and stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cronally import RELEASED_AT, __version__
from cronally.admin.server import AdminServer
from cronally.clock import SystemClock, WaitResult
from cronally.config import Config, load_config
from cronally.domain.zones import tzdata_version
from cronally.engine.arming import armed_budget
from cronally.engine.engine import Engine
from cronally.engine.lateness import Lateness
from cronally.engine.service import Service
from cronally.engine.zone_watch import ZoneWatch
from cronally.errors import CredentialsInvalid, PublishError
from cronally.instants import UtcMs, format_utc, parse_rfc3339
from cronally.sns.credentials import Credentials
from cronally.sns.local import LocalPublisher, Received, StandIn, find_stand_in
from cronally.sns.pacing import Pacing
from cronally.sns.publisher import SnsPublisher
from cronally.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
    from typing import Any

    from cronally.clock import Clock
    from cronally.domain.model import Fire
    from cronally.engine.ports import Opened, Publisher
    from cronally.engine.zone_watch import ZoneChange
    from cronally.errors import StoreError

_MOST_NAMES = 20  # schedules that a log line names
_STAND_IN_CALLS = 8  # more at once make moto's server slower
_MAX_AHEAD_MS = 86_400_000  # design §9: an unsynchronised clock a day ahead of the journal is not believed

_COLLECT_EVERY_S = 60.0
_QUIET_MS = 250  # nothing in flight and nothing due for so long: a collection takes some 10 ms
_MOST_POSTPONED = 2_400  # ten minutes; then it is collected all the same

_log = logging.getLogger("cronally")

Messages: TypeAlias = "AsyncIterator[Received]"
"""What lies in a topic's queue of the stand-in, as it comes."""


def serve(flags: Mapping[str, object], *, config_file: str | None = None) -> int:
    """Run the daemon until SIGTERM or SIGINT; return its exit code.

    flags: settings given on the command line, by their keys in ``config``; None where one was not given.
    Errors: every CronallyError of the parts, before anything is half-started.
    """
    config = load_config(os.environ, flags, config_file=config_file)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="cronally: %(message)s")
    _log.setLevel(logging.INFO)
    return run(_Daemon(config, SystemClock()).run())


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run *main* on the fastest event loop there is, and unwrap the one error a task group may carry."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(main)
    except BaseExceptionGroup as group:
        raise _first(group) from group


def available_memory() -> int | None:
    """Return how many bytes this process may still take: what Linux calls available, or what its cgroup leaves; None elsewhere."""
    found: list[int] = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) << 10)
    with suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())  # "max" where there is none
        found.append(max(0, limit - int(Path("/sys/fs/cgroup/memory.current").read_text())))
    return min(found, default=None)


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

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._is_stopping = asyncio.Event()
        self._is_hurried = asyncio.Event()
        self._clean_watermark: UtcMs | None = None

    async def run(self) -> int:
        config = self._config
        async with AsyncExitStack() as stack:
            stack.enter_context(self._signals())
            store = SqliteStore(config.store_path)
            opened = await store.open()
            self._clean_watermark = opened.watermark if opened.was_clean else None
            stack.push_async_callback(self._close, store)
            lateness = _Journalist()
            publisher, stand_in, credentials = await self._publisher(stack)
            engine = Engine(
                store, publisher, self._clock, lateness, armed_budget_bytes=armed_budget(available_memory())
            )
            zone_watch = ZoneWatch(engine.core, store, self._clock, lateness)
            service = Service(
                engine.core,
                store,
                engine.edits,
                engine.settler,
                self._clock,
                lateness,
                engine.loop.circuits,
                version=__version__,
                store_name=f"sqlite:{config.store_path}",
                stand_in=None if stand_in is None else stand_in.url,
                topic_maker=stand_in,
                zone_watch=zone_watch,
            )
            server = AdminServer(service, self._clock, socket_path=config.socket)
            await server.start()
            stack.push_async_callback(server.close)
            async with asyncio.TaskGroup() as tasks:
                running: list[asyncio.Task[None]] = []
                if credentials is not None:
                    with suppress(CredentialsInvalid):  # it has said so; fires are kept until it succeeds
                        await credentials.start()
                    running.append(tasks.create_task(credentials.run(), name="credentials"))
                first = await self._recover(engine, service, opened)
                if first is not None:
                    self._clean_watermark = None
                    running.append(tasks.create_task(engine.run(first), name="engine"))
                    running.append(tasks.create_task(zone_watch.run(), name="zones"))
                    running.append(tasks.create_task(self._collect_garbage(engine), name="garbage"))
                    service.set_ready()
                    self._announce(stand_in)
                    await self._is_stopping.wait()
                    service.set_ready("it is stopping")
                    await server.close()
                    await self._drain(engine)
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
            publisher = SnsPublisher(credentials, self._clock, pacing=Pacing(config.sns_quota))
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

    async def _recover(self, engine: Engine, service: Service, opened: Opened) -> Sequence[Fire] | None:
        """Wait for a clock that can be believed, then bring the engine in line; None if the daemon is stopped first."""
        said: str | None = None
        while (doubt := self._clock_doubt(opened.watermark)) is not None and not self._config.trust_clock:
            if doubt != said:
                said = doubt
                service.set_ready(f"the clock is not believed: {doubt}; set it, or start with --trust-clock")
                _log.warning("the clock is not believed: %s; waiting (--trust-clock believes it)", doubt)
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

    def _clock_doubt(self, watermark: UtcMs | None) -> str | None:
        """Say why the wall clock cannot be right, or None (design §9)."""
        now = self._clock.wall()
        if now < parse_rfc3339(RELEASED_AT):
            return f"it says {format_utc(now)}, before this version was made"
        is_far = watermark is not None and now > watermark + _MAX_AHEAD_MS
        if is_far and self._clock.is_synchronised() is False:
            return (
                f"it is not synchronised and says {format_utc(now)}, over a day after the last journal entry"
            )
        return None

    async def _drain(self, engine: Engine) -> None:
        """Let what is in flight be answered, unless somebody is in a hurry."""
        draining = asyncio.ensure_future(engine.drain(self._config.drain_timeout_s))
        hurried = asyncio.ensure_future(self._is_hurried.wait())
        await asyncio.wait((draining, hurried), return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, hurried):
            task.cancel()
        await asyncio.gather(draining, hurried, return_exceptions=True)

    def _announce(self, stand_in: StandIn | None) -> None:
        _log.info("ready: store %s, socket %s", self._config.store_path, self._config.socket)
        if stand_in is not None:
            _log.info(
                "local SNS and SQS at %s; every topic is made on first use, with a queue of its name",
                stand_in.url,
            )

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT stop in order; a second one skips the wait for what is in flight."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            (self._is_hurried if self._is_stopping.is_set() else self._is_stopping).set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


class _Journalist(Lateness):
    """Says in the log what an operator wants to know."""

    def recovered(self, reason: str, after: UtcMs, through: UtcMs, fires: int, skipped: int) -> None:
        if fires or skipped:
            _log.info(
                "%s: of the slots due from %s to %s, %d are sent late and %d skipped",
                reason,
                format_utc(after),
                format_utc(through),
                fires,
                skipped,
            )

    def store_failed(self, error: StoreError) -> None:
        _log.warning("the store refuses: %s; trying again", error)

    def circuit_opened(self, topic: str, error: str | None) -> None:
        _log.warning(
            "SNS refuses everything for %s (%s): what is due there waits, and one message at a time is tried",
            topic,
            error,
            extra={"action": "circuit_opened"},
        )

    def circuit_closed(self, topic: str, opened_at: UtcMs) -> None:
        _log.warning(
            "SNS takes messages for %s again, for the first time since %s; what waited goes now",
            topic,
            format_utc(opened_at),
            extra={"action": "circuit_closed"},
        )

    def instants_moved(self, names: Sequence[str]) -> None:
        first = ", ".join(names[:_MOST_NAMES])
        _log.warning(
            "new time zone data (tzdata %s) moved the instant of %d schedules: %s%s",
            tzdata_version(),
            len(names),
            first,
            ", …" if len(names) > _MOST_NAMES else "",
        )

    def zones_changed(self, change: ZoneChange) -> None:
        _log.warning(
            "tzdata %s has become %s, which moved next fires (schedules: %d): %s; 'cronally next NAME' shows them",
            change.old,
            change.new,
            change.count,
            ", ".join(change.names) + (", …" if change.count > len(change.names) else ""),
        )

    def clock_stepped(self, wall_step_ms: int) -> None:
        _log.warning("the wall clock moved by %.3f s against the monotonic one", wall_step_ms / 1000)


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
