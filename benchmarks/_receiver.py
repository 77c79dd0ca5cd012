"""The receiver of the benchmarks: SNS as far as publishing goes, a process of its own, as cheap as Python can make it.

It stamps each request when its last byte is read, answers at once, and keeps the bytes. Signatures are checked and
messages counted later, when it is asked to ``collect``; or, if too much lies there, one request at a time between two
reads, so that a long run takes no more memory than a short one.

``python -m benchmarks._receiver`` prints ``{"port": …}`` and then answers lines on its standard input, each a JSON object:

    {"do": "stats"}                       what came so far, without a look at it
    {"do": "collect", "names": [F, N]}    book all, return the ledger's summary and begin a new one. Expected at every
                                          fire time are the N schedules that the format F names ("bench-{:06d}");
                                          with "between_s": [A, B] other fire times are left out
    {"do": "arrivals"}                    return [fire id, microseconds] of all that came since, and forget it; it is not booked
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import ssl
import sys
import time
from collections import deque
from functools import lru_cache
from typing import Any, cast

from benchmarks._ledger import Ledger, fires_in

_BACKLOG = 20_000  # requests kept before they are booked between reads: 140 MB of full batches
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_IDS = re.compile(rb"\.Id=([^&]*)")
_SERIAL = b"00000000"  # in a reply, where the number of the request goes
_XMLNS = b'xmlns="http://sns.amazonaws.com/doc/2010-03-31/"'


class Receiver:
    """What all connections share. quota: messages a second, with a bucket of one second; None for no limit."""

    def __init__(self, *, latency_s: float = 0.0, quota: float | None = None) -> None:
        self.latency_s = latency_s
        self.quota = quota
        self.connections = 0
        self.requests = 0
        self.messages = 0
        self.throttled = 0
        self.ledger = Ledger()
        self._raw: deque[tuple[int, bytes]] = deque()
        self._tokens = quota or 0.0
        self._tokens_at = time.monotonic()
        self._is_booking = False

    def handle(self, request: bytes, body_at: int) -> bytes:
        """Keep a request that is complete now, and return the answer."""
        arrived_us = time.time_ns() // 1000
        ids = tuple(_IDS.findall(request, body_at))
        if self.quota is not None and not self._has_quota(len(ids) or 1):
            self.throttled += 1
            return _THROTTLED
        self.requests += 1
        self.messages += len(ids) or 1
        self._raw.append((arrived_us, request))
        if len(self._raw) > _BACKLOG and not self._is_booking:
            self._is_booking = True
            asyncio.get_running_loop().call_soon(self._book_one)
        return _published(ids).replace(_SERIAL, b"%08x" % self.requests)

    def _has_quota(self, count: int) -> bool:
        assert self.quota is not None
        now = time.monotonic()
        self._tokens = min(self.quota, self._tokens + (now - self._tokens_at) * self.quota)
        self._tokens_at = now
        if self._tokens < count:
            return False
        self._tokens -= count
        return True

    def _book_one(self) -> None:
        self.ledger.take(*self._raw.popleft())
        self._is_booking = len(self._raw) > _BACKLOG
        if self._is_booking:
            asyncio.get_running_loop().call_soon(self._book_one)

    def stats(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "messages": self.messages,
            "throttled": self.throttled,
            "connections": self.connections,
        }

    def arrivals(self) -> list[tuple[str, int]]:
        """Return the fire ids that came, and when, and forget them."""
        raw, self._raw = self._raw, deque()
        return [
            (fire_id.decode(), arrived_us)
            for arrived_us, request in raw
            for fire_id, _ in fires_in(request[request.index(b"\r\n\r\n") + 4 :])
        ]

    async def collect(
        self, expected: list[str], between_s: tuple[float, float] | None = None
    ) -> dict[str, Any]:
        """Book all that is kept, and begin anew."""
        while self._raw:
            self.ledger.take(*self._raw.popleft())
            await asyncio.sleep(0)
        ledger, self.ledger = self.ledger, Ledger()
        summary = ledger.summary(expected, between_s)
        summary |= {"throttled": self.throttled, "connections": self.connections}
        self.requests = self.messages = self.throttled = 0
        return summary


class _Connection(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: asyncio.Transport | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._receiver.connections += 1

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(data, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(data) < whole:
                break
            answer = self._receiver.handle(data[:whole], end + 4)
            data = data[whole:]
            if self._receiver.latency_s:
                asyncio.get_running_loop().call_later(self._receiver.latency_s, self._answer, answer)
            else:
                self._answer(answer)
        self._rest = data

    def _answer(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


@lru_cache(maxsize=4096)
def _published(ids: tuple[bytes, ...]) -> bytes:
    """Return the answer to a PublishBatch of *ids*, or to a Publish if there are none, with ``_SERIAL`` in each MessageId."""
    if not ids:
        return _reply(b"Publish", b"<MessageId>%s</MessageId>" % _message_id(0))
    members = b"".join(
        b"<member><Id>%s</Id><MessageId>%s</MessageId></member>" % (id_, _message_id(number))
        for number, id_ in enumerate(ids)
    )
    return _reply(b"PublishBatch", b"<Successful>%s</Successful><Failed/>" % members)


def _message_id(number: int) -> bytes:
    return b"%s-bbbb-5ccc-8ddd-eeeeeeee%04x" % (_SERIAL, number)


def _reply(action: bytes, content: bytes) -> bytes:
    return _http(
        b"200 OK",
        b"<%sResponse %s><%sResult>%s</%sResult><ResponseMetadata><RequestId>bench</RequestId></ResponseMetadata></%sResponse>"
        % (action, _XMLNS, action, content, action, action),
    )


def _http(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s" % (
        status,
        len(body),
        body,
    )


_THROTTLED = _http(
    b"400 Bad Request",
    b"<ErrorResponse %s><Error><Type>Sender</Type><Code>Throttling</Code><Message>Rate exceeded</Message></Error>"
    b"<RequestId>bench</RequestId></ErrorResponse>" % _XMLNS,
)


async def serve(receiver: Receiver, tls: ssl.SSLContext | None) -> None:
    """Print the port, and answer commands until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(receiver), "127.0.0.1", 0, backlog=1024, ssl=tls)
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    gc.freeze()
    gc.disable()  # nothing that is kept here points in a circle
    while line := await commands.readline():
        command = json.loads(line)
        answer: Any
        if command["do"] == "stats":
            answer = receiver.stats()
        elif command["do"] == "arrivals":
            answer = receiver.arrivals()
        else:
            form, count = command["names"]
            expected = [form.format(number) for number in range(count)]
            answer = await receiver.collect(expected, command.get("between_s"))
        print(json.dumps(answer), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="The receiver of the benchmarks.")
    parser.add_argument("--tls", metavar="PEM", help="a file with key and certificate")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="before each answer")
    parser.add_argument("--quota", type=float, help="messages a second; beyond it, Throttling")
    options = parser.parse_args()
    tls = None
    if options.tls:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.tls)
    receiver = Receiver(latency_s=options.latency_ms / 1000, quota=options.quota)
    run: Any = asyncio.run
    if sys.platform == "linux":
        import uvloop  # noqa: PLC0415 - a dependency on Linux alone

        run = uvloop.run
    run(serve(receiver, tls))


if __name__ == "__main__":
    main()
