"""``cronally doctor``: all that a daemon needs, looked at side by side, told in one order.

Works without a daemon, without AWS and without a home, and ends within 10 s whatever does not answer: the daemon and the chain of
credentials have 3 s, then each question to AWS has 3 s, of which at most two come one after the other.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cronally import RELEASED_AT, __version__
from cronally.admin.client import Client
from cronally.domain.durations import MINUTE_MS
from cronally.domain.findings import clock_finding, failed, ok, quota_finding, tzdata_finding, warning
from cronally.domain.store_name import parse_store_name
from cronally.domain.zones import tzdata_version
from cronally.errors import CronallyError, DaemonUnreachable
from cronally.instants import UtcMs, format_utc, parse_rfc3339
from cronally.sns.clients import Clients
from cronally.sns.examination import (
    MOST_REGIONS,
    InUse,
    examine_credentials,
    examine_endpoint,
    examine_topics,
)
from cronally.sns.local import local_credentials
from cronally.store.dynamodb_table import DynamodbTable
from cronally.store.examination import examine_store
from cronally.store.table_examination import examine_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronally.admin.wire import Forecast, Status, Topic
    from cronally.clock import Clock
    from cronally.config import Config
    from cronally.domain.findings import Finding
    from cronally.instants import MonoS
    from cronally.sns.aws import Aws
    from cronally.sns.credentials import Credentials

_ANY_REGION: Final = "us-east-1"  # has an STS, and the stand-in answers for it, too
_DAEMON_S: Final = 3.0
_FORECAST_S: Final = 6.0  # a million schedules take 4 s
_TABLE_S: Final = 6.5
_STORE_UNTIL_S: Final = 8.0  # from the start


@dataclass(frozen=True, slots=True, kw_only=True)
class _Daemon:
    """What a daemon said. status: None if it did not answer. topics: those in use, None if it did not say."""

    findings: list[Finding]
    status: Status | None = None
    topics: list[Topic] | None = None


class Doctor:
    """One examination. topics: ARNs to look at beside those that the daemon's schedules name."""

    def __init__(
        self,
        config: Config,
        credentials: Credentials,
        aws: Aws,
        clock: Clock,
        *,
        socket: str,
        topics: Sequence[str],
    ) -> None:
        self._config = config
        self._credentials = credentials
        self._aws = aws
        self._clock = clock
        self._socket = socket
        self._topics = topics

    async def examine(self) -> list[Finding]:
        """Return the findings: daemon, store, machine, AWS, in this order."""
        asyncio.get_running_loop().set_default_executor(LooseThreads())
        begun = self._clock.mono()
        daemon, credentials = await asyncio.gather(
            self._ask_daemon(), examine_credentials(self._credentials, self._clock)
        )
        store, aws, quotas = await asyncio.gather(
            self._look_at_store(daemon, begun),
            self._look_at_aws(daemon, credentials),
            self._look_at_quotas(daemon),
        )
        return [*daemon.findings, *store, *self._look_at_machine(daemon), *aws, *quotas]

    # --- the daemon -------------------------------------------------------------------------------------------------

    async def _ask_daemon(self) -> _Daemon:
        status: Status | None = None
        topics: list[Topic] | None = None
        problem: Exception = TimeoutError()
        try:
            async with asyncio.timeout(_DAEMON_S):
                status = await asyncio.to_thread(self._called, Client.status)
                topics = await asyncio.to_thread(self._called, Client.topics)
        except (CronallyError, TimeoutError) as exc:
            problem = exc
        if status is None:
            return _Daemon(findings=[self._unanswered(problem)])
        findings = [_daemon_finding(status, self._socket)]
        if topics is None:
            text = "the daemon did not say in time which topics are in use"
            findings.append(warning("topics", text, "name those to look at with --topic ARN"))
        return _Daemon(findings=findings, status=status, topics=topics)

    def _unanswered(self, exc: Exception) -> Finding:
        if isinstance(exc, TimeoutError):
            text = f"it does not answer at {self._socket} within {_DAEMON_S:g} s"
            return failed("daemon", text, "look at its log, and at the load of the machine")
        if not isinstance(exc, DaemonUnreachable):
            text, _, fix = str(exc).partition("; ")
            return failed("daemon", text, fix)
        if "permission denied" in exc.reason:
            return failed(
                "daemon", f"{exc.socket}: {exc.reason}", "join that group, or run it as the daemon's user"
            )
        fix = "start one with 'cronally serve', or name its socket with --socket or CRONALLY_SOCKET"
        return warning("daemon", f"none answers at {exc.socket} ({exc.reason})", fix)

    def _called(self, call: Callable[[Client], Any]) -> Any:
        with Client(self._socket, answer_s=_DAEMON_S) as client:
            return call(client)

    # --- store and machine ------------------------------------------------------------------------------------------

    async def _look_at_store(self, daemon: _Daemon, begun: MonoS) -> list[Finding]:
        status = daemon.status
        store = self._config.store
        if status is not None:
            with suppress(ValueError):
                store = parse_store_name(status.store)
        if store.kind == "dynamodb":
            return await self._look_at_table(store.place, daemon)
        path = store.place
        max_bytes = self._config.journal.max_bytes
        if status is not None:
            max_bytes = status.journal_max_bytes or max_bytes
        try:
            async with asyncio.timeout(_STORE_UNTIL_S - _DAEMON_S + 0.5):  # a disk may not answer at all
                return await asyncio.to_thread(
                    examine_store,
                    path,
                    max_bytes=max_bytes,
                    is_daemon=status is not None,
                    is_late=lambda: self._clock.mono() - begun > _STORE_UNTIL_S,
                )
        except TimeoutError:
            return [
                failed("store", f"the disk of {path} does not answer", "see to the disk, or to its mount")
            ]

    async def _look_at_table(self, name: str, daemon: _Daemon) -> list[Finding]:
        stand_in = None if daemon.status is None else daemon.status.stand_in
        credentials = self._credentials if stand_in is None else local_credentials(self._clock)
        if stand_in is None and not credentials.is_resolved:
            text = f"the DynamoDB table {name} was not looked at: there are no credentials"
            return [warning("store", text, "see to the credentials first")]
        regions = [_ANY_REGION] if stand_in is not None else self._session_region()
        if not regions:
            text = f"in which region is the DynamoDB table {name}? none is set"
            return [failed("store", text, "set AWS_REGION, or the region of the profile")]
        [region] = regions
        clients = Clients(credentials, service="dynamodb", endpoint_url=stand_in)
        table = DynamodbTable(name, lambda: clients.get(region), self._clock)
        try:
            async with asyncio.timeout(_TABLE_S):
                return await examine_table(table, self._clock, region=region)
        except TimeoutError:
            text = f"the DynamoDB table {name} in {region} does not answer within {_TABLE_S:g} s"
            return [failed("store", text, "look at the network, and at the quotas of the account")]
        finally:
            await clients.close()

    def _look_at_machine(self, daemon: _Daemon) -> list[Finding]:
        now = self._clock.wall()
        status = daemon.status
        return [
            clock_finding(
                now=now, released_at=parse_rfc3339(RELEASED_AT), is_synchronised=self._clock.is_synchronised()
            ),
            tzdata_finding(
                tzdata_version(), now=now, daemon_version=None if status is None else status.tzdata
            ),
        ]

    # --- AWS --------------------------------------------------------------------------------------------------------

    async def _look_at_aws(self, daemon: _Daemon, credentials: Finding) -> list[Finding]:
        stand_in = None if daemon.status is None else daemon.status.stand_in
        if stand_in is not None:
            endpoint = await examine_endpoint(_ANY_REGION, self._clock, endpoint_url=stand_in)
            text = f"not needed: the daemon publishes to a local stand-in at {stand_in}, not to AWS"
            return [ok("credentials", text), endpoint._replace(check="endpoint")]
        topics = _in_use(daemon, self._topics)
        regions = list(dict.fromkeys(one.region for one in topics)) or self._session_region()
        endpoints = asyncio.gather(
            *(examine_endpoint(region, self._clock) for region in regions[:MOST_REGIONS])
        )
        identity: list[Finding] = []
        about_topics = [_untested(topics) if topics else _no_topics(daemon)]
        if self._credentials.is_resolved:
            found = await examine_topics(self._aws, topics, (*regions, _ANY_REGION)[0])
            identity, about_topics = found[:1], found[1:] or about_topics
        return [credentials, *identity, *await endpoints, *about_topics]

    async def _look_at_quotas(self, daemon: _Daemon) -> list[Finding]:
        if daemon.status is None or daemon.status.stand_in is not None:
            return []
        try:
            async with asyncio.timeout(_FORECAST_S):
                forecast: Forecast = await asyncio.to_thread(self._called, Client.forecast)
        except (CronallyError, TimeoutError):
            text = "the daemon did not say in time how many messages are due in the coming day"
            return [warning("quota", text, "compare 'cronally forecast' with the quotas of SNS")]
        starts_at = parse_rfc3339(forecast.starts_at)
        findings = []
        for load in forecast.loads:
            busiest = max(load.minutes)
            minute = format_utc(UtcMs(starts_at + load.minutes.index(busiest) * MINUTE_MS))
            way = f"{load.region} FIFO" if load.is_fifo else load.region
            findings.append(quota_finding(way, quota_per_s=load.quota_per_s, busiest=busiest, minute=minute))
        return findings or [ok("quota", "nothing is due in the coming day")]

    def _session_region(self) -> list[str]:
        try:
            region = self._aws.region
        except CronallyError:
            return []  # the finding about credentials says it
        return [region] if region else []


def _untested(topics: Sequence[InUse]) -> Finding:
    text = f"{len(topics):,} in use, not tested: there are no credentials"
    return warning("topics", text, "see to the credentials first")


def _no_topics(daemon: _Daemon) -> Finding:
    if daemon.topics is None:
        return ok("topics", "which are in use only a daemon knows; --topic ARN looks at one")
    return ok("topics", "no schedule names any yet")


def _daemon_finding(status: Status, socket: str) -> Finding:
    if not status.is_ready:
        return failed("daemon", f"not ready: {status.not_ready_because}", "see to that; its log may say more")
    text = f"ready at {socket}, schedules: {status.schedules:,}"
    if status.version != __version__:
        return warning(
            "daemon",
            f"{text}; it is version {status.version}, and this is {__version__}",
            "restart it, or use the same release of cronally for both",
        )
    if status.failing:
        return warning(
            "daemon",
            f"{text}, of which {status.failing:,} have an error",
            "cronally ls --json | jq -r '.schedules[] | select(.error) | .name'",
        )
    return ok("daemon", text)


def _in_use(daemon: _Daemon, named: Sequence[str]) -> list[InUse]:
    found = {
        one.topic: InUse(one.topic, None if one.refusing is None else str(one.refusing["error"]))
        for one in daemon.topics or []
    }
    for topic in named:
        found.setdefault(topic, InUse(topic))
    return list(found.values())


class LooseThreads(ThreadPoolExecutor):
    """Threads that nobody waits for: a name server or a disk that does not answer must not hold up the end."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as exc:  # noqa: BLE001 - for whoever waits for the future
                future.set_exception(exc)
            else:
                future.set_result(result)

        threading.Thread(target=run, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as it is inherited
        """Wait for nobody."""
