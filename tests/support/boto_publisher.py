"""The reference: a publisher over aiobotocore's publish_batch, which the lane must not differ from.

1. Every entry gets exactly one outcome. An attempt that ends in any way without one (cancelled, closed, a bug) is settled as
   RETRY when its task ends, unknown if its request had begun.
2. At most ``max_calls`` calls of a region are past signing: a signed request never waits for a connection.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import ClientConnectorError
from botocore import exceptions as boto

from cronally.engine.ports import Outcome, OutcomeClass
from cronally.errors import InternalError
from cronally.sns.clients import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, Clients
from cronally.sns.outcome import NOT_NAMED, PUBLISHED, Verdict, call_verdict, entry_verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from cronally.clock import Clock
    from cronally.domain.batching import Batch
    from cronally.domain.message import Entry
    from cronally.domain.spec import Attribute
    from cronally.engine.ports import Armed
    from cronally.instants import UtcMs
    from cronally.sns.credentials import Credentials

    Settle = Callable[[Sequence[Outcome]], None]

MAX_CALLS = 50  # in flight per region; measured: more do not make aiobotocore faster on two cores
ATTEMPT_TIMEOUT_S = (
    CONNECT_TIMEOUT_S + READ_TIMEOUT_S + 2.0
)  # for what no socket timeout covers: DNS, writing, trickles
_SLICE = 50  # batches packed between two turns of the loop, about 2 ms

_CLOSED = Verdict(OutcomeClass.RETRY, "the publisher was closed before this was sent")
_GIVEN_UP = Verdict(OutcomeClass.RETRY, "given up while waiting for the answer of SNS", is_unknown=True)


@dataclass(eq=False, slots=True)
class _Call:
    """A PublishBatch call, packed. refused: entries that cannot even be written, with the reason."""

    batch: Batch
    owner: BotoPublisher = field(repr=False)
    entries: tuple[Entry, ...]
    arguments: list[dict[str, Any]]
    refused: list[tuple[Entry, str]]
    is_released: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.batch.entries)


@dataclass(eq=False, slots=True)
class _Attempt:
    """Entries of one call on their way. released_us: 0 until the request begins to be written."""

    entries: tuple[Entry, ...]
    settle: Settle
    released_us: int = 0
    is_settled: bool = False


class BotoPublisher:
    """A ``Publisher`` for real SNS topics, or for whatever ``AWS_ENDPOINT_URL_SNS`` names.

    One client per region of the topics' ARNs, made by the first ``arm`` that meets the region.
    """

    def __init__(
        self,
        credentials: Credentials,
        clock: Clock,
        *,
        endpoint_url: str | None = None,
        max_calls: int = MAX_CALLS,
        attempt_timeout_s: float = ATTEMPT_TIMEOUT_S,
    ) -> None:
        """endpoint_url: overrides what the environment and profile say. max_calls: in flight at once per region."""
        self._credentials = credentials
        self._clock = clock
        self._clients = Clients(credentials, endpoint_url=endpoint_url, max_connections=max_calls)
        self._max_calls = max_calls
        self._attempt_timeout_s = attempt_timeout_s
        self._gates: dict[str, asyncio.Semaphore] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.on_room: Callable[[], None] = _nobody

    async def arm(self, batches: Sequence[Batch], at: UtcMs) -> list[Armed]:
        armed: list[Armed] = []
        for index, batch in enumerate(batches):
            armed.append(self._packed(batch))
            if index % _SLICE == _SLICE - 1:
                await self._clock.sleep(0)
        regions = {_region(batch.topic) for batch in batches}
        # What goes wrong here goes wrong again on release, where it becomes the entries' outcome.
        await asyncio.gather(*(self._clients.get(region) for region in regions), return_exceptions=True)
        return armed

    def _packed(self, batch: Batch) -> _Call:
        entries: list[Entry] = []
        arguments: list[dict[str, Any]] = []
        refused: list[tuple[Entry, str]] = []
        for entry in batch.entries:
            try:
                arguments.append(_arguments(entry, str(len(entries))))
                entries.append(entry)
            except ValueError as exc:
                refused.append((entry, f"ValueError: {exc}"))
        return _Call(batch, self, tuple(entries), arguments, refused)

    def has_room(self, topic: str, messages: int) -> bool:
        return True

    def wait_s(self, topic: str, messages: int) -> float:
        return 0.0

    def release(self, armed: Sequence[Armed], settle: Settle) -> None:
        for call in armed:
            if not isinstance(call, _Call) or call.owner is not self or call.is_released:
                raise InternalError(f"a batch for {call.batch.topic} was released twice or by a stranger")
            call.is_released = True
            for entry, reason in call.refused:
                self._answer(_Attempt((entry,), settle), Verdict(OutcomeClass.REJECTED, reason))
            if call.entries:
                self._begin(call.batch.topic, call.entries, call.arguments, settle)

    def _begin(
        self, topic: str, entries: tuple[Entry, ...], arguments: list[dict[str, Any]], settle: Settle
    ) -> None:
        attempt = _Attempt(entries, settle)
        if self._is_closed:
            self._answer(attempt, _CLOSED)
        else:
            self._start(self._send(topic, arguments, attempt), attempt)

    def _answer(self, attempt: _Attempt, verdict: Verdict) -> None:
        async def answer() -> None:
            self._settle(attempt, [verdict] * len(attempt.entries))

        self._start(answer(), attempt)

    def _start(self, work: Coroutine[Any, Any, None], attempt: _Attempt) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, attempt))

    async def _send(self, topic: str, arguments: list[dict[str, Any]], attempt: _Attempt) -> None:
        region = _region(topic)
        gate = self._gates.get(region)
        if gate is None:
            gate = self._gates[region] = asyncio.Semaphore(self._max_calls)
        async with gate:
            try:
                async with asyncio.timeout(self._attempt_timeout_s):
                    client = await self._clients.get(region)
                    attempt.released_us = self._clock.wall_us()
                    reply = await client.publish_batch(TopicArn=topic, PublishBatchRequestEntries=arguments)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the entries need their outcome
                verdict = exception_verdict(exc)
                if not attempt.released_us:
                    verdict = verdict._replace(is_unknown=False)
            else:
                self._settle(attempt, reply_verdicts(reply, [packed["Id"] for packed in arguments]))
                return
        if verdict.are_credentials_refused:
            self._credentials.refresh_soon()
        if verdict.may_be_one_entry and len(attempt.entries) > 1:
            attempt.is_settled = True  # by the attempts that follow, one for each entry
            for entry, packed in zip(attempt.entries, arguments, strict=True):
                self._begin(topic, (entry,), [packed], attempt.settle)
            return
        self._settle(attempt, [verdict] * len(attempt.entries))

    def _ended(self, task: asyncio.Task[None], attempt: _Attempt) -> None:
        self._tasks.discard(task)
        if attempt.is_settled:
            return
        exc = None if task.cancelled() else task.exception()
        verdict = _GIVEN_UP if attempt.released_us else _CLOSED
        if exc is not None:
            verdict = verdict._replace(error=f"{type(exc).__name__}: {exc}")
        self._settle(attempt, [verdict] * len(attempt.entries))

    def _settle(self, attempt: _Attempt, verdicts: Iterable[Verdict]) -> None:
        attempt.is_settled = True
        released_us = attempt.released_us or self._clock.wall_us()
        finished_at = self._clock.wall()
        attempt.settle(
            [
                Outcome(
                    entry.fire,
                    verdict.outcome,
                    released_us,
                    finished_at,
                    verdict.error,
                    verdict.is_unknown,
                    verdict.is_throttled,
                )
                for entry, verdict in zip(attempt.entries, verdicts, strict=True)
            ]
        )

    def drop_connections(self) -> None:
        """Its client opens them as it likes."""

    async def close(self) -> None:
        self._is_closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._clients.close()


def _nobody() -> None:
    """Nobody waits for room."""


def _region(topic: str) -> str:
    return topic.split(":")[3]


def _arguments(entry: Entry, id_: str) -> dict[str, Any]:
    packed: dict[str, Any] = {"Id": id_, "Message": entry.message}
    if entry.attributes:
        packed["MessageAttributes"] = {a.name: _attribute(a) for a in entry.attributes}
    if entry.subject is not None:
        packed["Subject"] = entry.subject
    if entry.message_structure is not None:
        packed["MessageStructure"] = entry.message_structure
    if entry.group is not None:
        packed["MessageGroupId"] = entry.group
    if entry.deduplication is not None:
        packed["MessageDeduplicationId"] = entry.deduplication
    return packed


def _attribute(attribute: Attribute) -> dict[str, Any]:
    if attribute.type == "Binary":
        return {"DataType": "Binary", "BinaryValue": base64.b64decode(attribute.value, validate=True)}
    return {"DataType": attribute.type, "StringValue": attribute.value}


def reply_verdicts(reply: object, ids: list[str]) -> list[Verdict]:
    """Return a verdict for each of *ids* from a PublishBatch reply as aiobotocore parsed it; unnamed ones are unknown."""
    verdicts: dict[str, Verdict] = {}
    for member in _members(reply, "Failed"):
        verdicts[str(member.get("Id"))] = entry_verdict(
            str(member.get("Code") or "Unknown"),
            str(member.get("Message") or ""),
            is_sender_fault=member.get("SenderFault") is True,
        )
    for member in _members(reply, "Successful"):
        verdicts[str(member.get("Id"))] = PUBLISHED
    return [verdicts.get(id_, NOT_NAMED) for id_ in ids]


def exception_verdict(exc: BaseException) -> Verdict:
    """Return what an exception out of a call means for every entry of it."""
    if isinstance(exc, boto.ClientError):
        return _client_error(exc)
    text = f"{type(exc).__name__}: {exc}"
    if isinstance(exc, boto.ParamValidationError):  # botocore's own check: nothing was sent
        return Verdict(OutcomeClass.REJECTED, text, may_be_one_entry=True)
    if isinstance(exc, _CREDENTIAL_ERRORS):
        fix = "see 'aws sts get-caller-identity' for what the AWS tools find"
        return Verdict(OutcomeClass.RETRY, f"{text}; {fix}", are_credentials_refused=True)
    if isinstance(exc, _CONFIGURATION_ERRORS):
        return Verdict(OutcomeClass.HOLD, text)
    if isinstance(exc, _NEVER_SENT):
        return Verdict(OutcomeClass.RETRY, text)
    if isinstance(exc, boto.EndpointConnectionError):
        # aiobotocore says this of a refused connection and also of one that was reset with the request on it.
        return Verdict(OutcomeClass.RETRY, text, is_unknown=not _failed_to_connect(exc))
    if isinstance(exc, TimeoutError):
        return Verdict(OutcomeClass.RETRY, "TimeoutError: no answer in time", is_unknown=True)
    return Verdict(OutcomeClass.RETRY, text, is_unknown=True)


_CREDENTIAL_ERRORS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.UnknownCredentialError,
    boto.RefreshWithMFAUnsupportedError,
    boto.MetadataRetrievalError,
)
_CONFIGURATION_ERRORS = (
    boto.ProfileNotFound,
    boto.InvalidRegionError,
    boto.UnknownRegionError,
    boto.NoRegionError,
    boto.InvalidEndpointConfigurationError,
    boto.EndpointProviderError,
    boto.InvalidProxiesConfigError,
)
_NEVER_SENT = (boto.ConnectTimeoutError, boto.SSLError, boto.ProxyConnectionError)


def _client_error(exc: Any) -> Verdict:
    response: Mapping[str, Any] = exc.response
    error = response.get("Error") or {}
    status = (response.get("ResponseMetadata") or {}).get("HTTPStatusCode")
    return call_verdict(
        str(error.get("Code") or "Unknown"),
        str(error.get("Message") or ""),
        status if isinstance(status, int) else 0,
    )


def _failed_to_connect(exc: Any) -> bool:
    cause = exc.kwargs.get("error")
    return isinstance(cause, ClientConnectorError) or (
        isinstance(cause, OSError) and type(cause).__name__ in {"gaierror", "ConnectionRefusedError"}
    )


def _members(reply: object, key: str) -> list[Mapping[str, Any]]:
    members = reply.get(key) if isinstance(reply, dict) else None
    return [member for member in members if isinstance(member, dict)] if isinstance(members, list) else []
