"""A fake SNS on loopback: PublishBatch as AWS answers it, and every way in which it may not.

In a test: ``async with FakeSns() as sns`` and ``sns.url``. For other processes: ``python -m support.fake_sns --port 0``
prints ``{"port": …, "url": …, "control_port": …}`` and answers on both ports, under ``/_control``:

    GET  /_control/received?since=N   {"count": …, "messages": […]}, from the N-th accepted entry on
    GET  /_control/wait?messages=N    {} once N entries have been accepted
    GET  /_control/stats              requests, accepted, connections, …
    POST /_control/take               {"messages": […]}, those whose requests have ended, which it forgets
    POST /_control/faults             the fields of ``Faults`` to set, as JSON
    POST /_control/down               {"for_s": S}: cut all connections and refuse new ones for so many seconds;
                                      the control port stays
    POST /_control/reset              forget what was received, and all faults

Standard library only, and no framework: it shares the cores with the sender.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import re
import socket
import struct
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast
from urllib.parse import parse_qsl, quote, unquote_plus, urlsplit
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

ACCESS_KEY = "AKIDFAKESNS"
SECRET_KEY = "fake/secret"
MAX_SKEW_S = 15 * 60  # SNS: "(… - 15 min.)" in its error text
MAX_BYTES = 262_144  # SNS API Reference, PublishBatch
DEDUPLICATION_S = 5 * 60  # SNS Developer Guide, FIFO topics

_ARN = re.compile(r"arn:aws[a-z-]*:sns:([a-z0-9-]+):\d{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?")
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_XMLNS = 'xmlns="http://sns.amazonaws.com/doc/2010-03-31/"'


class Fault:
    """What may happen to a whole request, by name."""

    THROTTLE = "throttle"
    ERROR_500 = "500"
    UNAVAILABLE = "503"
    """A 503 in HTML, as a load balancer writes it."""
    RESET_BEFORE = "reset_before"
    """The connection is reset with the request read and not accepted."""
    RESET_AFTER = "reset_after"
    """The same, but accepted."""
    LOST_ACK = "lost_ack"
    """Accepted; the connection is closed in order, without an answer."""
    ERROR_500_AFTER = "500_after"
    """Accepted, and answered with a 500 all the same."""
    HANG = "hang"
    HANG_AFTER = "hang_after"
    EMPTY_REPLY = "empty_reply"
    """Accepted; the reply names nobody."""
    HALF_REPLY = "half_reply"
    """Accepted; the reply names the first entry only."""
    GARBAGE = "garbage"
    """Accepted; the reply is no XML."""
    TRUNCATED = "truncated"
    """Accepted; the connection is closed in the middle of the reply."""
    NOT_FOUND = "not_found"
    DENIED = "denied"
    EXPIRED_TOKEN = "expired_token"
    OK = "ok"


@dataclass(slots=True)
class Faults:
    """What goes wrong. Every field may be set at any time, also over ``/_control/faults``.

    Fields: next: faults of the next requests, one each, ``ok`` for none. always: the fault of all others. by_topic: ARN to
        fault. quota: messages a second, a bucket of one second, else ``Throttling``. delay_s: before each answer.
        fail_entries: text in a message to [code, is sender's fault]; that entry fails, the others go. poison: text in a
        message; the whole call is refused as InvalidParameter. missing: ARNs that do not exist. idle_close_s: a connection
        without a request for so long is closed. skew_s: added to the clock that judges signatures and is
        sent as Date.
    """

    next: list[str] = field(default_factory=list)
    always: str | None = None
    by_topic: dict[str, str] = field(default_factory=dict)
    quota: float | None = None
    delay_s: float = 0.0
    fail_entries: dict[str, tuple[str, bool]] = field(default_factory=dict)
    poison: str | None = None
    missing: list[str] = field(default_factory=list)
    idle_close_s: float | None = None
    skew_s: float = 0.0


class Message(NamedTuple):
    """An entry that was accepted.

    Fields: arrived_us: wall clock when its request was complete. attributes: name to (type, value). request: number of
        the request it came with, from 0. connected_us: when its connection was made. peer: the address that came from. is_dropped: a FIFO repeat within
        five minutes: accepted, not delivered.
    """

    arrived_us: int
    topic: str
    id: str
    message: str
    attributes: dict[str, tuple[str, str]]
    subject: str | None
    message_structure: str | None
    group: str | None
    deduplication: str | None
    request: int
    connected_us: int = 0
    peer: str = ""
    is_dropped: bool = False

    @property
    def fire_id(self) -> str | None:
        attribute = self.attributes.get("cronally.fire_id")
        return attribute[1] if attribute else None

    def as_json(self) -> dict[str, Any]:
        return {**self._asdict(), "fire_id": self.fire_id}


class Refusal(Exception):  # noqa: N818 - an answer, not a failure of ours
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Request(NamedTuple):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    arrived_us: int


class FakeSns:
    """The server. Attributes: faults. requests: how many SNS calls were read. refusals: error codes answered, counted.

    connections: made so far. open_connections: now. gate: clear it to hold every answer back until it is set.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        """tls: to be spoken to over HTTPS, as localhost."""
        self.faults = Faults()
        self._tls = tls
        self.requests = 0
        self.refusals: Counter[str] = Counter()
        self.connections = 0
        self.open_connections: set[Connection] = set()
        self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.port = 0
        self._messages: list[Message] = []
        self._accepted = 0
        self._tokens = 0.0
        self._tokens_at: float | None = None
        self._seen: dict[tuple[str, str], float] = {}
        self._open: set[int] = set()
        self._answered: dict[int, int] = {}
        self._changed = asyncio.Condition()
        self._waiters = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self), "127.0.0.1", port, backlog=1024, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def start_control(self) -> int:
        """Answer ``/_control`` on a port of its own, also while this one is down; return its number."""
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self, is_control=True), "127.0.0.1", 0
        )
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self.open_connections):
            connection.reset()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}" if self._tls else f"http://127.0.0.1:{self.port}"

    @property
    def received(self) -> list[Message]:
        """Every accepted entry, in order of arrival."""
        return self._messages

    @property
    def delivered(self) -> list[Message]:
        """What subscribers get: ``received`` without the repeats that a FIFO topic drops."""
        return [message for message in self.received if not message.is_dropped]

    async def wait_for_requests(self, count: int) -> None:
        """Return once *count* SNS calls have been read."""
        await self._wait(lambda: self.requests >= count)

    async def wait_for_messages(self, count: int) -> list[Message]:
        """Return what was accepted once that is *count* entries."""
        await self._wait(lambda: self._accepted >= count)
        return self.received

    async def wait_for_topic(self, topic: str, count: int = 1) -> list[Message]:
        """Return what was accepted for *topic* once that is so many messages."""
        await self._wait(lambda: len(self._accepted_for(topic)) >= count)
        return self._accepted_for(topic)

    def _accepted_for(self, topic: str) -> list[Message]:
        return [message for message in self._messages if message.topic == topic]

    async def wait_for_connections(self, count: int) -> None:
        """Return once exactly *count* connections are open."""
        await self._wait(lambda: len(self.open_connections) == count)

    async def wait_for_opened(self, count: int) -> None:
        """Return once *count* connections have been made, whatever became of them."""
        await self._wait(lambda: self.connections >= count)

    async def wait_until_up(self) -> None:
        """Return once connections are accepted again."""
        await self._wait(lambda: self._server is not None)

    def close_connections(self) -> None:
        """Close all connections, in order."""
        for connection in list(self.open_connections):
            connection.close()

    async def _wait(self, is_true: Callable[[], bool]) -> None:
        self._waiters += 1
        try:
            async with self._changed:
                await self._changed.wait_for(is_true)
        finally:
            self._waiters -= 1

    def reset(self) -> None:
        """Forget what was received, and all faults."""
        self.faults = Faults()
        self._messages.clear()
        self._answered.clear()
        self._seen.clear()
        self.refusals.clear()
        self.requests = self._accepted = self.most_at_once = 0
        self._tokens_at = None

    def notify(self) -> None:
        if not self._waiters:
            return

        async def wake() -> None:
            async with self._changed:
                self._changed.notify_all()

        self._spawn(wake())

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- one request ---

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer *request* now or later; the connection reads no other before it is answered."""
        if request.target.startswith("/_control/wait"):
            self._spawn(self._answer_when(connection, int(_query(request).get("messages", "0"))))
            return
        if request.target.startswith("/_control"):
            connection.answer(self._control(request))
            return
        number = self.requests
        self.requests += 1
        self._answer(connection, request, number)
        self.notify()

    async def _answer_when(self, connection: Connection, count: int) -> None:
        await self.wait_for_messages(count)
        connection.answer(_json({}))

    def _answer(self, connection: Connection, request: Request, number: int) -> None:
        fault = Fault.OK
        try:
            self._authenticate(request)
            form = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
            if form.get("Action") != "PublishBatch":
                reply = http_reply(200, self._other_action(form))
            else:
                reply, fault = self._publish(connection, request, form, number)
        except Refusal as refusal:
            self.refusals[refusal.code] += 1
            reply = error_reply(refusal.status, refusal.code, refusal.message)
        date = formatdate(time.time() + self.faults.skew_s, usegmt=True)
        reply = reply.replace(b"\r\n", f"\r\nDate: {date}\r\n".encode(), 1)
        self._open.add(number)
        self.most_at_once = max(self.most_at_once, len(self._open))
        if self.gate.is_set() and not self.faults.delay_s:
            self._finish(connection, reply, fault, number)
        else:
            self._spawn(self._finish_later(connection, reply, fault, number))

    async def _finish_later(self, connection: Connection, reply: bytes, fault: str, number: int) -> None:
        await self.gate.wait()
        await asyncio.sleep(self.faults.delay_s)
        self._finish(connection, reply, fault, number)

    def _finish(self, connection: Connection, reply: bytes, fault: str, number: int) -> None:
        self._open.remove(number)
        if fault == Fault.OK and connection in self.open_connections:
            self._answered[number] = time.time_ns() // 1000
        match fault:
            case Fault.RESET_BEFORE | Fault.RESET_AFTER:
                connection.reset()
            case Fault.LOST_ACK:
                connection.close()
            case Fault.TRUNCATED:
                connection.close(reply[:-40])
            case Fault.HANG | Fault.HANG_AFTER:
                pass
            case _:
                connection.answer(reply)

    def _publish(
        self, connection: Connection, request: Request, form: dict[str, str], number: int
    ) -> tuple[bytes, str]:
        topic = form.get("TopicArn", "")
        entries = read_entries(form, request.arrived_us, number, connection.connected_us, connection.peer)
        fault = self._fault(topic)
        if fault == Fault.THROTTLE or not self._has_quota(len(entries)):
            raise Refusal(400, "Throttling", "Rate exceeded")
        if fault == Fault.ERROR_500:
            raise Refusal(500, "InternalError", "We encountered an internal error. Please try again.")
        if fault == Fault.DENIED:
            raise Refusal(403, "AuthorizationError", "User is not authorized to perform: SNS:Publish")
        if fault == Fault.EXPIRED_TOKEN:
            raise Refusal(403, "ExpiredToken", "The security token included in the request is expired")
        if fault == Fault.NOT_FOUND or topic in self.faults.missing:
            raise Refusal(404, "NotFound", "Topic does not exist")
        if fault == Fault.UNAVAILABLE:
            return http_reply(503, "<html><body>Service Unavailable</body></html>", "text/html"), fault
        if fault in {Fault.RESET_BEFORE, Fault.HANG}:
            return b"", fault
        self._check(topic, entries, request)
        good, failed = self._accept(topic, entries)
        if fault == Fault.ERROR_500_AFTER:
            return error_reply(500, "InternalError", "We encountered an internal error."), fault
        if fault == Fault.GARBAGE:
            return http_reply(200, "<PublishBatchResponse><Publish"), fault
        if fault == Fault.EMPTY_REPLY:
            return http_reply(200, _published([], [])), fault
        if fault == Fault.HALF_REPLY:
            return http_reply(200, _published(good[:1], [])), fault
        return http_reply(200, _published(good, failed)), fault

    def _fault(self, topic: str) -> str:
        if topic in self.faults.by_topic:
            return self.faults.by_topic[topic]
        if self.faults.next:
            return self.faults.next.pop(0)
        return self.faults.always or Fault.OK

    def _has_quota(self, messages: int) -> bool:
        quota = self.faults.quota
        if quota is None:
            return True
        now = time.monotonic()
        if self._tokens_at is None:
            self._tokens = quota
        else:
            self._tokens = min(quota, self._tokens + (now - self._tokens_at) * quota)
        self._tokens_at = now
        if self._tokens < messages:
            return False
        self._tokens -= messages
        return True

    def _check(self, topic: str, entries: list[Message], request: Request) -> None:
        arn = _ARN.fullmatch(topic)
        scope = re.search(r"Credential=[^/]*/\d{8}/([^/]+)/", request.headers.get("authorization", ""))
        if arn is None or (scope is not None and arn[1] != scope[1]):
            raise Refusal(400, "InvalidParameter", "Invalid parameter: TopicArn")
        is_fifo = arn[2] is not None
        ids = [entry.id for entry in entries]
        if not ids:
            raise Refusal(400, "EmptyBatchRequest", "The batch request doesn't contain any entries.")
        if len(ids) > 10:
            raise Refusal(
                400,
                "TooManyEntriesInBatchRequest",
                "The batch request contains more entries than permissible.",
            )
        if len(set(ids)) != len(ids):
            raise Refusal(
                400, "BatchEntryIdsNotDistinct", "Two or more batch entries in the request have the same Id."
            )
        if not all(_ID.fullmatch(id_) for id_ in ids):
            raise Refusal(
                400, "InvalidBatchEntryId", "The Id of a batch entry doesn't abide by the specification."
            )
        if sum(_size(entry) for entry in entries) > MAX_BYTES:
            if len(entries) == 1:
                raise Refusal(400, "InvalidParameter", "Invalid parameter: Message too long")
            raise Refusal(
                400, "BatchRequestTooLong", "The length of all the batch messages put together is too long."
            )
        for entry in entries:
            self._check_entry(entry, is_fifo=is_fifo)

    def _check_entry(self, entry: Message, *, is_fifo: bool) -> None:
        if not entry.message:
            raise Refusal(400, "InvalidParameter", "Invalid parameter: Empty message")
        if entry.subject is not None and not re.fullmatch(r"[^\x00-\x1f\x7f]{1,100}", entry.subject):
            raise Refusal(400, "InvalidParameter", "Invalid parameter: Subject")
        if is_fifo and not entry.group:
            raise Refusal(
                400,
                "InvalidParameter",
                "Invalid parameter: The MessageGroupId parameter is required for FIFO topics",
            )
        if is_fifo != (entry.deduplication is not None):
            raise Refusal(400, "InvalidParameter", "Invalid parameter: MessageDeduplicationId")
        if entry.message_structure == "json" and '"default"' not in entry.message:
            raise Refusal(
                400,
                "InvalidParameter",
                "Invalid parameter: Message Structure - No default entry in JSON message body",
            )
        for name, (type_, value) in entry.attributes.items():
            if not value or type_.partition(".")[0] not in {"String", "Number", "Binary"}:
                raise Refusal(400, "ParameterValueInvalid", f"The message attribute '{name}' is invalid.")
        if self.faults.poison is not None and self.faults.poison in entry.message:
            raise Refusal(400, "InvalidParameter", "Invalid parameter: Message")

    def _accept(self, topic: str, entries: list[Message]) -> tuple[list[str], list[tuple[str, str, bool]]]:
        good: list[str] = []
        failed: list[tuple[str, str, bool]] = []
        for given in entries:
            entry = given
            failure = next((f for text, f in self.faults.fail_entries.items() if text in entry.message), None)
            if failure is not None:
                failed.append((entry.id, failure[0], bool(failure[1])))
                continue
            if entry.deduplication is not None:
                key, now = (topic, entry.deduplication), entry.arrived_us / 1e6
                if now - self._seen.get(key, -1e18) < DEDUPLICATION_S:
                    entry = entry._replace(is_dropped=True)
                else:
                    self._seen[key] = now
            good.append(entry.id)
            self._messages.append(entry)
            self._accepted += 1
        return good, failed

    def _other_action(self, form: dict[str, str]) -> str:
        arn = escape(form.get("TopicArn", ""))
        match form.get("Action"):
            case "ListTopics":
                return result_xml("ListTopics", "<Topics/>")
            case "CreateTopic":
                name = f"arn:aws:sns:us-east-1:123456789012:{escape(form.get('Name', ''))}"
                return result_xml("CreateTopic", f"<TopicArn>{name}</TopicArn>")
            case "GetTopicAttributes":
                if form.get("TopicArn") in self.faults.missing:
                    raise Refusal(404, "NotFound", "Topic does not exist")
                entry = f"<entry><key>TopicArn</key><value>{arn}</value></entry>"
                return result_xml("GetTopicAttributes", f"<Attributes>{entry}</Attributes>")
            case action:
                raise Refusal(400, "InvalidAction", f"The action {action} is not valid for this endpoint.")

    # --- signature version 4, checked from the specification and not with botocore ---

    def _authenticate(self, request: Request) -> None:
        header = request.headers.get("authorization", "")
        match = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
            r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})",
            header,
        )
        if match is None:
            code = "IncompleteSignature" if header else "MissingAuthenticationToken"
            raise Refusal(403, code, "Request is missing a whole Authentication Token")
        key, day, region, service, signed, signature = match.groups()
        if key != ACCESS_KEY:
            raise Refusal(
                403, "InvalidClientTokenId", "The security token included in the request is invalid."
            )
        stamp = request.headers.get("x-amz-date", "")
        try:
            instant = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise Refusal(403, "IncompleteSignature", "Date must be in ISO-8601 'basic format'.") from None
        names = signed.split(";")
        if (
            service != "sns"
            or stamp[:8] != day
            or names != sorted(names)
            or not {"host", "x-amz-date"} <= set(names)
        ):
            raise Refusal(
                403,
                "SignatureDoesNotMatch",
                "Credential should be scoped to a valid date, region and service.",
            )
        now = time.time() + self.faults.skew_s
        if abs(now - instant) > MAX_SKEW_S:
            raise Refusal(
                403,
                "SignatureDoesNotMatch",
                f"Signature expired: {stamp} is now earlier than … (… - 15 min.)",
            )
        target = urlsplit(request.target)
        query = "&".join(
            f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}"
            for k, v in sorted(parse_qsl(target.query, keep_blank_values=True))
        )
        canonical = "\n".join(
            [
                request.method,
                quote(target.path or "/", safe="/-_.~"),
                query,
                *(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in names),
                "",
                signed,
                hashlib.sha256(request.body).hexdigest(),
            ]
        )
        scope = f"{day}/{region}/{service}/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        wanted = hmac.new(_signing_key(day, region, service), text.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(wanted, signature):
            raise Refusal(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
            )

    # --- control ---

    def _control(self, request: Request) -> bytes:
        match (request.method, urlsplit(request.target).path):
            case ("GET", "/_control/received"):
                since = int(_query(request).get("since", "0"))
                messages = [message.as_json() for message in self.received[since:]]
                return _json({"count": len(self.received), "messages": messages})
            case ("GET", "/_control/stats"):
                return _json(
                    {
                        "requests": self.requests,
                        "accepted": self._accepted,
                        "connections": self.connections,
                        "open_connections": len(self.open_connections),
                        "most_at_once": self.most_at_once,
                        "refusals": dict(self.refusals),
                    }
                )
            case ("POST", "/_control/take"):
                return _json({"messages": self._take()})
            case ("POST", "/_control/down"):
                self._spawn(self._be_down(float(json.loads(request.body)["for_s"])))
                return _json({})
            case ("POST", "/_control/faults"):
                wanted = json.loads(request.body)
                unknown = set(wanted) - {f.name for f in fields(Faults)}
                if unknown:
                    return _json({"error": f"no such faults: {sorted(unknown)}"}, 400)
                for name, value in wanted.items():
                    setattr(self.faults, name, value)
                return _json({})
            case ("POST", "/_control/reset"):
                self.reset()
                return _json({})
            case _:
                return _json({"error": "no such control"}, 404)

    def _take(self) -> list[dict[str, Any]]:
        """Return what was received up to the first request that is still open, and forget it.

        Each has ``answered_us``, when a reply that says so was written, or None if none was.
        """
        messages, self._messages = self._messages, []
        for number, message in enumerate(messages):
            if message.request in self._open:
                self._messages = messages[number:]
                del messages[number:]
        taken = [
            {**message.as_json(), "answered_us": self._answered.get(message.request)} for message in messages
        ]
        for message in messages:
            self._answered.pop(message.request, None)
        return taken

    async def _be_down(self, for_s: float) -> None:
        await asyncio.sleep(0)  # the answer to this command goes out
        server, self._server = self._server, None
        if server is None:  # it is down already
            return
        server.close()
        for connection in list(self.open_connections):
            connection.reset()
        await asyncio.sleep(for_s)
        await self.start(self.port)
        self.notify()


class Connection(asyncio.Protocol):
    """HTTP/1.1 as SDKs speak it: Content-Length, keep-alive, one request at a time."""

    def __init__(self, sns: FakeSns, *, is_control: bool = False) -> None:
        """is_control: it is none that a sender has made."""
        self._sns = sns
        self._is_control = is_control
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self.connected_us = 0
        self.peer = ""
        self._is_busy = False
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has the methods, not the class
        if self._is_control:
            return
        self.connected_us = time.time_ns() // 1000
        self.peer = (transport.get_extra_info("peername") or ("",))[0]
        self._sns.connections += 1
        self._sns.open_connections.add(self)
        self._watch_idle()
        self._sns.notify()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._sns.open_connections.discard(self)
        if self._idle is not None:
            self._idle.cancel()
        self._sns.notify()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_busy:
            self._read()

    def _read(self) -> None:
        while not self._is_busy and self._transport is not None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ", 2)
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
            }
            length = int(headers.get("content-length", "0"))
            if len(self._buffer) < end + 4 + length:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + length])
            del self._buffer[: end + 4 + length]
            self._is_busy = True
            self._sns.handle(self, Request(method, target, headers, body, time.time_ns() // 1000))

    def answer(self, reply: bytes) -> None:
        self._is_busy = False
        if self._transport is None:
            return
        self._transport.write(reply)
        self._watch_idle()
        if self._buffer:
            asyncio.get_running_loop().call_soon(self._read)

    def close(self, last: bytes = b"") -> None:
        if self._transport is not None:
            self._transport.write(last)
            self._transport.close()

    def reset(self) -> None:
        if self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        # Under TLS uvloop may have none any more when the client was quicker.
        with contextlib.suppress(OSError, AttributeError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _watch_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        limit_s = self._sns.faults.idle_close_s
        if limit_s is not None:
            self._idle = asyncio.get_running_loop().call_later(limit_s, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if not self._is_busy:
            self.close()


def _query(request: Request) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(request.target).query))


def read_entries(
    form: dict[str, str], arrived_us: int, request: int, connected_us: int, peer: str = ""
) -> list[Message]:
    prefix = "PublishBatchRequestEntries.member."
    members: dict[int, dict[str, str]] = {}
    for key, value in form.items():
        if key.startswith(prefix):
            number, _, name = key[len(prefix) :].partition(".")
            members.setdefault(int(number), {})[name] = value
    return [
        Message(
            arrived_us=arrived_us,
            topic=form.get("TopicArn", ""),
            id=member.get("Id", ""),
            message=member.get("Message", ""),
            attributes=_attributes(member),
            subject=member.get("Subject"),
            message_structure=member.get("MessageStructure"),
            group=member.get("MessageGroupId"),
            deduplication=member.get("MessageDeduplicationId"),
            request=request,
            connected_us=connected_us,
            peer=peer,
        )
        for _, member in sorted(members.items())
    ]


def _attributes(member: dict[str, str]) -> dict[str, tuple[str, str]]:
    attributes: dict[str, tuple[str, str]] = {}
    for key, name in member.items():
        if key.startswith("MessageAttributes.entry.") and key.endswith(".Name"):
            value = key[: -len("Name")] + "Value."
            text = member.get(f"{value}StringValue", member.get(f"{value}BinaryValue", ""))
            attributes[name] = (member.get(f"{value}DataType", ""), text)
    return attributes


def _size(entry: Message) -> int:
    size = len(entry.message.encode())
    for name, (type_, value) in entry.attributes.items():
        size += len(name) + len(type_)
        try:
            size += len(base64.b64decode(value, validate=True)) if type_ == "Binary" else len(value.encode())
        except binascii.Error:
            raise Refusal(
                400, "ParameterValueInvalid", f"The message attribute '{name}' is not base64."
            ) from None
    return size


@lru_cache(maxsize=64)
def _signing_key(day: str, region: str, service: str) -> bytes:
    key = f"AWS4{SECRET_KEY}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _published(good: list[str], failed: list[tuple[str, str, bool]]) -> str:
    base = uuid.uuid4().hex[:24]
    successes = "".join(
        f"<member><MessageId>{base}{n:08x}</MessageId><Id>{escape(unquote_plus(id_))}</Id></member>"
        for n, id_ in enumerate(good)
    )
    failures = "".join(
        f"<member><Code>{escape(code)}</Code><Message>the test wants it</Message><Id>{escape(id_)}</Id>"
        f"<SenderFault>{str(is_sender_fault).lower()}</SenderFault></member>"
        for id_, code, is_sender_fault in failed
    )
    return result_xml("PublishBatch", f"<Successful>{successes}</Successful><Failed>{failures}</Failed>")


def result_xml(action: str, content: str) -> str:
    return (
        f"<{action}Response {_XMLNS}><{action}Result>{content}</{action}Result>"
        f"<ResponseMetadata><RequestId>fake</RequestId></ResponseMetadata></{action}Response>"
    )


def error_reply(status: int, code: str, message: str) -> bytes:
    type_ = "Sender" if status < 500 else "Receiver"
    return http_reply(
        status,
        f"<ErrorResponse {_XMLNS}><Error><Type>{type_}</Type><Code>{code}</Code><Message>{escape(message)}</Message>"
        "</Error><RequestId>fake</RequestId></ErrorResponse>",
    )


def http_reply(status: int, content: str, content_type: str = "text/xml") -> bytes:
    body = content.encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _json(value: object, status: int = 200) -> bytes:
    return http_reply(status, json.dumps(value), "application/json")


async def _serve(port: int) -> None:
    sns = FakeSns()
    await sns.start(port)
    control_port = await sns.start_control()
    print(json.dumps({"port": sns.port, "url": sns.url, "control_port": control_port}), flush=True)
    await asyncio.Event().wait()


def _main() -> None:
    parser = argparse.ArgumentParser(description="A fake SNS on loopback.")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    runner: Callable[..., Any] = asyncio.run
    if sys.platform == "linux":
        import uvloop

        runner = uvloop.run
    with contextlib.suppress(KeyboardInterrupt):
        runner(_serve(options.port))


if __name__ == "__main__":
    _main()
