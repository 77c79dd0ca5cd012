"""One term of an engine: the order in which what it consists of starts and stops."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cronally.actions import about
from cronally.app.building import Around, build
from cronally.app.reloading import reload_for_ever
from cronally.app.sharing import Shared
from cronally.clock import WaitResult
from cronally.engine.alerts import Alerts
from cronally.engine.lag_watch import LagWatch
from cronally.engine.records import Opened
from cronally.engine.troubles import Troubles
from cronally.engine.trust import Trust
from cronally.errors import CredentialsInvalid
from cronally.sns.aws import Aws
from cronally.sns.credentials import Credentials
from cronally.sns.local import LocalPublisher, StandIn, find_stand_in
from cronally.sns.publisher import SnsPublisher
from cronally.sns.topics import AlertTopic
from cronally.store.filesystem import network_warning
from cronally.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import Any

    from cronally.app.building import Parts
    from cronally.app.daemon import Daemon
    from cronally.domain.model import Fire
    from cronally.engine.engine import Engine
    from cronally.engine.ports import Publisher, Store
    from cronally.engine.reporting import Reporting
    from cronally.instants import UtcMs

_STAND_IN_CALLS = 8  # more at once make moto's server slower
_COLLECT_EVERY_S = 60.0
_QUIET_MS = 250  # nothing in flight and nothing due for so long: a collection takes some 10 ms
_MOST_POSTPONED = 2_400  # ten minutes; then it is collected all the same

_log = logging.getLogger("cronally")


class Term:
    """One engine of a daemon, from when its store is opened until that is closed: start-up, main, shutdown, in this order on the page."""

    def __init__(self, daemon: Daemon, former: list[str] | None = None) -> None:
        """former: ids that this process had among the machines of a shared store, in terms before; this term's is added."""
        self._daemon = daemon
        self._former = [] if former is None else former
        self._clock = daemon.clock
        self._clean_watermark: UtcMs | None = None
        self._shared: Shared | None = None

    async def run(self) -> None:
        """Run until a signal stops it in order."""
        async with AsyncExitStack() as stack:
            around = await self._open(stack)
            parts = build(self._daemon, around)
            self._daemon.supervision.not_ready_because = lambda: parts.reporting.not_ready_because
            self._daemon.supervision.silence = parts.engine.loop.pulse.silence
            await self._listen(stack, parts)
            async with asyncio.TaskGroup() as tasks:
                running = await self._refresh(around.credentials, tasks)
                first = await self._come_up(around, parts)
                if first is not None:
                    self._clean_watermark = None
                    running += self._start(around, parts, first, tasks)
                    is_stopping = self._daemon.signals.is_stopping
                    if around.shared is None or await around.shared.all_driven(is_stopping):
                        running += self._say_ready(around, parts, tasks)
                        await is_stopping.wait()
                    await self._stop(around, parts)
                elif around.shared is not None:
                    await around.shared.leave(0)
                for task in running:
                    task.cancel()
            if first is not None:
                self._clean_watermark = await parts.engine.finish()

    # --- start-up ---------------------------------------------------------------------------------------------------

    async def _open(self, stack: AsyncExitStack) -> Around:
        """Open what the engine works with; *stack* closes it."""
        if self._daemon.config.store.kind == "sqlite":
            file, opened, warning = await self._open_file(stack)
            publisher, stand_in, credentials = await self._publisher(stack)
            return Around(
                store=file,
                everything=file,
                file=file,
                opened=opened,
                store_warning=warning,
                publisher=publisher,
                stand_in=stand_in,
                credentials=credentials,
                alerts=await self._alerts(stack, file, credentials, stand_in),
            )
        publisher, stand_in, credentials = await self._publisher(stack)
        shared = self._shared = await self._share(stack, stand_in, credentials)
        return Around(
            store=shared.store,
            everything=shared.store.everything,
            shared=shared,
            opened=Opened(watermark=None, was_clean=True),  # shards are taken in one by one
            publisher=Trust(publisher, shared.trusted_until, self._clock),
            stand_in=stand_in,
            credentials=credentials,
            alerts=await self._alerts(stack, shared.store, credentials, stand_in),
        )

    async def _open_file(self, stack: AsyncExitStack) -> tuple[SqliteStore, Opened, str | None]:
        """Open the store in a file; return it, what it knew, and what is wrong with where it lies."""
        path = self._daemon.config.store_path
        store = SqliteStore(path)
        opened = await store.open()
        self._clean_watermark = opened.watermark if opened.was_clean else None
        stack.push_async_callback(self._close, store)
        if store.kept_by_restore is not None:
            _log.warning(
                "a restore that was interrupted is finished; the store before it is kept as %s",
                store.kept_by_restore,
                extra=about("restore.finished", kept=store.kept_by_restore),
            )
        warning = network_warning(path)
        if warning is not None:
            _log.warning("%s", warning, extra=about("store.on_network"))
        return store, opened, warning

    async def _share(
        self, stack: AsyncExitStack, stand_in: StandIn | None, credentials: Credentials | None
    ) -> Shared:
        """Return this machine's part in the store that it shares, which is not open yet."""
        signing = credentials if stand_in is None else stand_in.credentials
        assert signing is not None
        if credentials is not None:
            await credentials.start()
        url = None if stand_in is None else stand_in.url
        shared = Shared(
            self._daemon.config,
            self._clock,
            signing,
            stack,
            endpoint_url=url,
            former=self._former,
            leases=self._daemon.leases,
        )
        stack.push_async_callback(shared.store.close, watermark=None)
        return shared

    async def _publisher(self, stack: AsyncExitStack) -> tuple[Publisher, StandIn | None, Credentials | None]:
        """Return what publishes, the stand-in if there is one, and the credentials to keep fresh beside it."""
        config = self._daemon.config
        if not config.is_local:
            credentials = Credentials(self._clock)
            publisher = SnsPublisher(
                credentials, self._clock, pacing=self._daemon.pacing, may_send=self._may_send
            )
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
            stand_in.credentials,
            self._clock,
            endpoint_url=stand_in.url,
            max_connections=_STAND_IN_CALLS,
            may_send=self._may_send,
        )
        stack.push_async_callback(inner.close)
        return LocalPublisher(inner, stand_in), stand_in, None

    async def _alerts(
        self,
        stack: AsyncExitStack,
        store: Store,
        credentials: Credentials | None,
        stand_in: StandIn | None,
    ) -> Alerts | None:
        """Return who tells people of trouble, at the place where messages go; None if nobody is to be told."""
        topic = self._daemon.config.alerts_topic
        if topic is None:
            return None
        if stand_in is not None:
            await stand_in.make(topic)
            aws = Aws(stand_in.credentials, endpoint_url=stand_in.url, is_stand_in=True)
        else:
            assert credentials is not None
            aws = Aws(credentials)
        stack.push_async_callback(aws.close)
        notes = None if self._shared is None else self._shared.notes()
        return Alerts(AlertTopic(aws, topic), store, self._clock, notes=notes, may_tell=self._may_send)

    def _may_send(self) -> bool:
        """Whether no other machine can have taken over what this one drives."""
        return self._shared is None or self._clock.boot() < self._shared.store.trusted_until

    async def _listen(self, stack: AsyncExitStack, parts: Parts) -> None:
        """Answer on the socket and, if there is to be one, on the port for metrics, until *stack* is closed."""
        await parts.server.start()
        stack.push_async_callback(parts.server.close)
        if parts.metrics_port is not None:
            await parts.metrics_port.start()
            stack.push_async_callback(parts.metrics_port.close)

    async def _refresh(
        self, credentials: Credentials | None, tasks: asyncio.TaskGroup
    ) -> list[asyncio.Task[None]]:
        """Find credentials, and keep them fresh in a task."""
        if credentials is None:
            return []
        with suppress(CredentialsInvalid):  # it has said so; fires are kept until it succeeds
            await credentials.start()
        return [tasks.create_task(credentials.run(), name="credentials")]

    async def _come_up(self, around: Around, parts: Parts) -> Sequence[Fire] | None:
        """Join the other machines if there are any, and recover; None if the daemon is stopped first."""
        if around.shared is not None and not await self._join(around.shared, parts.reporting):
            return None
        return await self._recover(parts.engine, parts.reporting, around.opened)

    async def _join(self, shared: Shared, reporting: Reporting) -> bool:
        """Read the table and join the other machines; False if the daemon is stopped first. Errors: StoreError, of the first term."""
        reporting.set_ready("it has not joined the other machines yet")
        joining = asyncio.ensure_future(shared.join(is_first=not self._former))
        stopping = asyncio.ensure_future(self._daemon.signals.is_stopping.wait())
        await asyncio.wait((joining, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not joining.done():
            joining.cancel()
            await asyncio.gather(joining, return_exceptions=True)
            return False
        joining.result()
        self._former.append(shared.machine)
        return True

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
            if await self._clock.wait(None, self._daemon.signals.is_stopping) is WaitResult.WOKEN:
                return None
        gc.collect()
        gc.disable()  # nothing that is loaded is garbage: to look for some takes longer than loading
        try:
            first = await engine.recover(opened)
        finally:
            gc.freeze()  # what is loaded now stays: the collector need not walk it again and again (design §4)
            gc.enable()
        return first

    # --- main -------------------------------------------------------------------------------------------------------

    def _start(
        self, around: Around, parts: Parts, first: Sequence[Fire], tasks: asyncio.TaskGroup
    ) -> list[asyncio.Task[None]]:
        """Fire, and do all that goes on beside that. With several machines, begin to take shards."""
        engine, alerts = parts.engine, around.alerts
        running = [
            tasks.create_task(engine.run(first), name="engine"),
            tasks.create_task(parts.zone_watch.run(), name="zones"),
            tasks.create_task(parts.retention.run(), name="retention"),
        ]
        if alerts is not None:
            alerts.troubles = Troubles(around.opened.failing)
            running.append(tasks.create_task(alerts.run(), name="alerts"))
        running.append(tasks.create_task(LagWatch(self._clock, parts.journalist).run(), name="lag"))
        running.append(tasks.create_task(self._collect_garbage(engine), name="garbage"))
        if around.shared is not None:
            running += around.shared.begin(engine, self._daemon.pacing, alerts, parts.journalist, tasks)
        return running

    def _say_ready(self, around: Around, parts: Parts, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Say that it is ready, and do from now on what others ask for: machines, and who sends SIGHUP."""
        running = []
        if around.shared is not None:
            errands = around.shared.errands(self._daemon.config.socket)
            running.append(tasks.create_task(errands.run(), name="errands"))
        parts.reporting.set_ready()
        self._announce(around.stand_in)
        self._daemon.supervision.ready()
        reloading = reload_for_ever(
            self._daemon, parts.engine, parts.retention, parts.journalist, parts.reporting
        )
        running.append(tasks.create_task(reloading, name="reload"))
        return running

    def _announce(self, stand_in: StandIn | None) -> None:
        store, socket = str(self._daemon.config.store), self._daemon.config.socket
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

    # --- shutdown ---------------------------------------------------------------------------------------------------

    async def _stop(self, around: Around, parts: Parts) -> None:
        """Take no more orders, give what this machine has, and let what is in flight be answered."""
        parts.reporting.set_ready("it is stopping")
        self._daemon.supervision.stopping(self._daemon.config.drain_timeout_s)
        if around.file is not None:
            around.file.abandon_backup()
        await parts.server.close()
        if around.shared is not None:
            await self._unless_hurried(around.shared.leave(self._daemon.config.drain_timeout_s))
        await self._unless_hurried(parts.engine.drain(self._daemon.config.drain_timeout_s))
        if around.alerts is not None:
            await around.alerts.finish()

    async def _unless_hurried(self, work: Coroutine[Any, Any, object]) -> None:
        """Wait for *work*, which lets what is in flight be answered, unless somebody is in a hurry."""
        working = asyncio.ensure_future(work)
        hurried = asyncio.ensure_future(self._daemon.signals.is_hurried.wait())
        try:
            await asyncio.wait((working, hurried), return_when=asyncio.FIRST_COMPLETED)
        finally:  # the lease may be lost meanwhile, and *work* with it
            for task in (working, hurried):
                task.cancel()
            await asyncio.gather(working, hurried, return_exceptions=True)

    async def _close(self, store: SqliteStore) -> None:
        """Close the store; if all that was sent is on record, as a clean stop."""
        await store.close(watermark=self._clean_watermark)
