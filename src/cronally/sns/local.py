"""The local stand-in for SNS and SQS of ``serve --local`` and ``demo``: moto's server, or one that is there already.

1. Nothing here speaks to AWS: requests go to the stand-in alone, signed with dummy credentials.
2. A stand-in that we start is a process of its own: it outlives the daemon, and the next one uses it again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import importlib.util
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import ClientConnectorError
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError

from cronally.domain.topic import TopicArn, parse_topic_arn
from cronally.engine.ports import Outcome, OutcomeClass
from cronally.engine.publisher_around import PublisherAround
from cronally.errors import PublishError
from cronally.instants import UtcMs
from cronally.sns.aws import Aws
from cronally.sns.clients import Clients
from cronally.sns.credentials import Credentials
from cronally.sns.topics import Topics, create_topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from cronally.clock import Clock
    from cronally.domain.batching import Batch
    from cronally.engine.ports import Armed, Publisher

DEFAULT_PORT = 4566  # where LocalStack listened, so that people's settings fit
START_TIMEOUT_S = 60.0  # moto imports for 1 to 2 s on a quiet machine
STOP_TIMEOUT_S = 5.0
_POLL_S = 0.05
_PROBE_TIMEOUT_S = 5.0
_LONG_POLL_S = 20  # SQS API Reference, ReceiveMessage: the longest WaitTimeSeconds
_QUEUE_NAME_CHARS = 80  # SQS API Reference, CreateQueue; topics may have 256


def local_credentials(clock: Clock) -> Credentials:
    """Return dummy credentials: what a stand-in takes and AWS refuses."""
    return Credentials.fixed(clock, "cronally-local", "cronally-local")


class Received(NamedTuple):
    """A message as it lay in a topic's queue. attributes: name to text (base64 for Binary). sent_at: SQS's SentTimestamp."""

    body: str
    attributes: dict[str, str]
    sent_at: UtcMs


@dataclass(eq=False, slots=True)
class _Process:
    popen: subprocess.Popen[bytes]
    log: Path


async def find_stand_in(
    clock: Clock, *, log: Path, port: int = DEFAULT_PORT, endpoint_url: str | None = None
) -> StandIn:
    """Return the stand-in to use: at *endpoint_url* if one answers there, else on *port* of 127.0.0.1, started if need be.

    Args: log: file for the output of a server that is started (replaced). endpoint_url: ``$AWS_ENDPOINT_URL``, if set.
    Errors: PublishError if the port is taken by something else, moto is not installed, or the server does not start.
    """
    if endpoint_url:
        stand_in = StandIn(clock, endpoint_url)
        if await stand_in.probe() is None:
            return stand_in
        await stand_in.close()
    url = f"http://127.0.0.1:{port}"
    stand_in = StandIn(clock, url)
    try:
        await _use_or_start(stand_in, clock, port, log)
    except BaseException:
        await stand_in.stop()
        raise
    return stand_in


_NOBODY = "nobody listens"


async def _use_or_start(stand_in: StandIn, clock: Clock, port: int, log: Path) -> None:
    problem = await stand_in.probe()
    if problem == _NOBODY:
        stand_in.process = await asyncio.to_thread(_start, port, log)
        await _answering(stand_in, clock)
    elif problem is not None:
        raise PublishError(
            f"port {port} is taken by something that is not a stand-in for SNS ({problem}); "
            "stop it, or choose another port with --local-port"
        )


def _start(port: int, log: Path) -> _Process:
    if any(importlib.util.find_spec(name) is None for name in ("moto", "flask", "flask_cors")):
        if getattr(sys, "frozen", False):
            raise PublishError(
                "the single executable has no local stand-in; install the Python package, which has one: "
                "pip install 'cronally[local]' ('serve --local' also uses one that answers at AWS_ENDPOINT_URL)"
            )
        raise PublishError(
            "the local stand-in needs moto's server; install it with: pip install 'cronally[local]'"
        )
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MOTO_"))}
    # Topics may name any region and account; nothing of the user's own AWS settings is needed.
    environment |= {"MOTO_ALLOW_NONEXISTENT_REGION": "true", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "cronally.sns.moto_server", str(port)]
    with log.open("wb") as output:
        popen = subprocess.Popen(  # noqa: S603 - our own interpreter
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    return _Process(popen, log)


async def _answering(stand_in: StandIn, clock: Clock) -> None:
    assert stand_in.process is not None
    popen, log = stand_in.process.popen, stand_in.process.log
    deadline = clock.mono() + START_TIMEOUT_S
    while True:
        is_dead = popen.poll() is not None
        problem = await stand_in.probe()
        if problem is None:
            if is_dead:  # another daemon was quicker to start one here
                stand_in.process = None
            return
        if is_dead or clock.mono() > deadline:
            what = f"ended with status {popen.returncode}" if is_dead else f"does not answer ({problem})"
            last = await asyncio.to_thread(_last_line, log)
            raise PublishError(f"the local stand-in {what}: {last} (all it said is in {log})")
        await clock.sleep(_POLL_S)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


class StandIn:
    """A server that speaks SNS and SQS, here or nearby.

    Attributes: url. credentials: the dummies to sign with. process: set if it was started here.
    """

    def __init__(self, clock: Clock, url: str, *, credentials: Credentials | None = None) -> None:
        self.url = url
        self.credentials = credentials or local_credentials(clock)
        self.process: _Process | None = None
        self._clients: dict[tuple[str, str], Clients] = {}
        self._queues: dict[str, asyncio.Task[str]] = {}

    async def probe(self) -> str | None:
        """Return None if a stand-in answers, else what is wrong. AWS is none: it refuses our credentials."""
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                client = await self._client("sns", "us-east-1", "123456789012")
                reply = await client.list_topics()
        except EndpointConnectionError as exc:
            is_refused = isinstance(exc.kwargs.get("error"), ClientConnectorError)
            return _NOBODY if is_refused else f"it does not speak HTTP: {exc}"
        except ConnectTimeoutError:
            return _NOBODY
        except (BotoCoreError, ClientError, OSError, ValueError, LookupError, AttributeError) as exc:
            # The last three are what botocore's parser makes of XML and HTML that it does not expect.
            return f"{type(exc).__name__}: {exc}" if str(exc) else f"no answer in {_PROBE_TIMEOUT_S:g} s"
        return None if "Topics" in reply else "its answer to ListTopics is not one of SNS"

    async def ensure_topic(self, arn: str) -> str:
        """Create the topic, a queue of its name, and the raw subscription between them, once; return the queue's URL.

        On a FIFO topic the queue is FIFO too. A queue's name is the topic's, shortened where SQS takes no more than 80
        characters. Errors: PublishError.
        """
        maker = self._queues.get(arn)
        if maker is None:
            maker = self._queues[arn] = asyncio.create_task(self._make(parse_topic_arn(arn)))
        try:
            return await asyncio.shield(maker)
        except (ClientError, BotoCoreError, OSError, PublishError) as exc:
            self.forget(arn)
            raise PublishError(f"the local stand-in at {self.url} could not make {arn}: {exc}") from exc

    async def make(self, arn: str) -> None:
        """As ``ensure_topic``, without complaint: a ``TopicMaker``."""
        with suppress(PublishError):
            await self.ensure_topic(arn)

    async def has_topic(self, arn: str) -> bool:
        """Return whether the stand-in has the topic. Errors: PublishError."""
        aws = Aws(self.credentials, endpoint_url=self.url, is_stand_in=True)
        try:
            state = await Topics(aws).state(arn)
        finally:
            await aws.close()
        if state.problem is not None:
            raise PublishError(state.problem)
        return state.exists

    def forget(self, arn: str) -> None:
        """Have the next ``ensure_topic`` make it again: the stand-in has lost it."""
        self._queues.pop(arn, None)

    async def _make(self, topic: TopicArn) -> str:
        sns = await self._client("sns", topic.region, topic.account)
        sqs = await self._client("sqs", topic.region, topic.account)
        await create_topic(sns, topic.text)
        attributes = {"FifoQueue": "true"} if topic.is_fifo else {}
        queue = await sqs.create_queue(QueueName=queue_name(topic), Attributes=attributes)
        url = str(queue["QueueUrl"])
        asked = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        await sns.subscribe(
            TopicArn=topic.text,
            Protocol="sqs",
            Endpoint=asked["Attributes"]["QueueArn"],
            Attributes={"RawMessageDelivery": "true"},
        )
        return url

    async def messages(self, arn: str) -> AsyncIterator[Received]:
        """Yield the messages of the topic's queue as they come, for ever; each is deleted before it is yielded.

        Errors: PublishError if the stand-in cannot be reached.
        """
        topic = parse_topic_arn(arn)
        url = await self.ensure_topic(arn)
        sqs = await self._client("sqs", topic.region, topic.account)
        while True:
            try:
                reply = await sqs.receive_message(
                    QueueUrl=url,
                    MaxNumberOfMessages=10,
                    WaitTimeSeconds=_LONG_POLL_S,
                    MessageAttributeNames=["All"],
                    MessageSystemAttributeNames=["SentTimestamp"],
                )
                messages = reply.get("Messages", [])
                if messages:
                    handles = [
                        {"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in enumerate(messages)
                    ]
                    await sqs.delete_message_batch(QueueUrl=url, Entries=handles)
            except (ClientError, BotoCoreError, OSError) as exc:
                raise PublishError(f"the queue of {arn} at {self.url} cannot be read: {exc}") from exc
            for message in messages:
                yield _received(message)

    async def _client(self, service: str, region: str, account: str) -> Any:
        clients = self._clients.get((service, account))
        if clients is None:
            clients = self._clients[service, account] = Clients(
                self.credentials,
                service=service,
                endpoint_url=self.url,
                headers={"x-moto-account-id": account},  # moto's way to have several accounts
                max_connections=100,  # every reader of a queue holds one
                read_timeout_s=_LONG_POLL_S + 10.0,
            )
        return await clients.get(region)

    async def close(self) -> None:
        """Let go of the connections; the server goes on."""
        makers, self._queues = self._queues, {}
        for maker in makers.values():
            maker.cancel()
        await asyncio.gather(*makers.values(), return_exceptions=True)
        await asyncio.gather(*(clients.close() for clients in self._clients.values()))
        self._clients.clear()

    async def stop(self) -> None:
        """Close, and end the server if it was started here."""
        await self.close()
        process, self.process = self.process, None
        if process is not None:
            await asyncio.to_thread(_end, process.popen)


def _end(popen: subprocess.Popen[bytes]) -> None:
    for signal_ in (signal.SIGTERM, signal.SIGKILL):
        if popen.poll() is not None:
            return
        popen.send_signal(signal_)
        try:
            popen.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue


def queue_name(topic: TopicArn) -> str:
    """Return the name of the topic's queue: the topic's own if SQS takes it, else a beginning of it and a hash."""
    if len(topic.name) <= _QUEUE_NAME_CHARS:
        return topic.name
    suffix = f"-{hashlib.sha256(topic.name.encode()).hexdigest()[:12]}{'.fifo' if topic.is_fifo else ''}"
    return topic.name[: _QUEUE_NAME_CHARS - len(suffix)] + suffix


def _received(message: Any) -> Received:
    attributes = {
        name: base64.b64encode(value["BinaryValue"]).decode()
        if "BinaryValue" in value
        else value["StringValue"]
        for name, value in message.get("MessageAttributes", {}).items()
    }
    return Received(str(message["Body"]), attributes, UtcMs(int(message["Attributes"]["SentTimestamp"])))


class LocalPublisher(PublisherAround):
    """A ``Publisher`` that has the stand-in make a topic before its first message, and again if it has lost it."""

    def __init__(self, inner: Publisher, stand_in: StandIn) -> None:
        super().__init__(inner)
        self._stand_in = stand_in

    async def arm(self, batches: Sequence[Batch], at: UtcMs) -> list[Armed]:
        topics = {batch.topic for batch in batches}
        # A topic that cannot be made shows as the outcome of its entries.
        await asyncio.gather(
            *(self._stand_in.ensure_topic(topic) for topic in topics), return_exceptions=True
        )
        return await self._inner.arm(batches, at)

    def release(self, armed: Sequence[Armed], settle: Callable[[Sequence[Outcome]], None]) -> None:
        for one in armed:
            self._inner.release([one], self._watching(one.batch.topic, settle))

    def _watching(
        self, topic: str, settle: Callable[[Sequence[Outcome]], None]
    ) -> Callable[[Sequence[Outcome]], None]:
        def settled(outcomes: Sequence[Outcome]) -> None:
            if any(_is_lost(outcome) for outcome in outcomes):
                self._stand_in.forget(topic)
                # Nobody has to repair it: the next attempt's arm does.
                outcomes = [
                    outcome._replace(outcome=OutcomeClass.RETRY) if _is_lost(outcome) else outcome
                    for outcome in outcomes
                ]
            settle(outcomes)

        return settled


def _is_lost(outcome: Outcome) -> bool:
    return outcome.outcome is OutcomeClass.HOLD and (outcome.error or "").startswith("NotFound")
