"""The connections of the admin socket: how many there are, which of them may stay, and what is said where no request is.

1. There are at most *most*. When one more comes, the one that has kept us waiting longest has to go: one that is idle,
   sends its request slowly or does not take its answer. One whose request is in work never has to; if all are, the new
   one is refused.
2. A request counts until its work ends, also when its client has gone: whoever comes and goes gains nothing. One that still
   waits its turn ends with its connection.
3. What is held for clients that keep us waiting (bodies, answers) has a limit of its own; over it, the same goes.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from cronally.actions import about
from cronally.admin import wire
from cronally.admin.limits import (
    IDLE_S,
    MAX_HEADERS,
    MAX_HELD_BYTES,
    MAX_LINE_BYTES,
    READ_AHEAD_BYTES,
    SMALL_BYTES,
)
from cronally.errors import CronallyError, InternalError, NotReady, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

log = logging.getLogger(__name__)

_OVERFULL: Final = (
    "the daemon has as many requests in work as it takes at once; try again in a moment, and look for a client that "
    "does not close its connections"
)
_OVERLOADED: Final = "the daemon holds as many large requests as it has memory for; try again in a moment"
_MAX_QUOTED: Final = 100
BUG: Final = "this is a bug in cronally; the daemon's log has the details"


def error_text(exc: CronallyError) -> str:
    """Return an error as it travels: JSON in ASCII, because the message may quote text that is no valid Unicode."""
    return json.dumps(wire.error_to_plain(exc)) + "\n"


def error_response(exc: CronallyError, *, status: int) -> web.Response:
    """Return the answer that says *exc*."""
    headers = {wire.VERSION_HEADER: str(wire.WIRE_VERSION)}
    return web.Response(text=error_text(exc), status=status, content_type="application/json", headers=headers)


def note_bug(request: web.BaseRequest, exc: BaseException | None) -> None:
    """Put into the log what went wrong with a request that we should have understood."""
    log.error(
        "a bug, met by %s %s",
        request.method,
        request.path,
        exc_info=exc,
        extra=about("admin.bug", method=request.method, path=request.path),
    )


class Connections:
    """All connections, at most *most*. ``protocols`` makes what speaks on them."""

    def __init__(self, *, most: int) -> None:
        self.most = most
        # In the order of how long each has kept us waiting, the longest first.
        self._waiting: dict[web.RequestHandler, None] = {}
        self._in_work: set[web.RequestHandler] = set()
        self._transports: dict[web.RequestHandler, asyncio.Transport] = {}
        self._held: dict[web.RequestHandler, int] = {}
        self._held_bytes = 0
        self._queued: dict[web.RequestHandler, asyncio.Task[object]] = {}

    def protocols(self, server: web.Server) -> Callable[[], asyncio.Protocol]:
        """Return what makes the protocol of each connection that is accepted for *server*."""

        def accepted() -> asyncio.Protocol:
            if self.count >= self.most and not self._close_one(self._waiting):
                return _Refusal()
            connection = _Connection(self, server)
            self._waiting[connection] = None
            return connection

        return accepted

    @property
    def count(self) -> int:
        """Connections and requests in work, at most *most*."""
        return len(self._waiting) + len(self._in_work)

    @property
    def in_work_count(self) -> int:
        """Requests in work, those of clients that have gone included."""
        return len(self._in_work)

    @contextmanager
    def work(self, connection: web.RequestHandler) -> Iterator[None]:
        """For the block, the request on *connection* is in work: nobody waits for its client."""
        self._waiting.pop(connection, None)
        self._in_work.add(connection)
        try:
            yield
        finally:
            self._in_work.discard(connection)
            if connection in self._transports:
                self._waiting[connection] = None

    @asynccontextmanager
    async def turn(self, connection: web.RequestHandler, turns: asyncio.Semaphore) -> AsyncIterator[None]:
        """For the block, have one of *turns*. Errors: CancelledError if the client leaves before it comes."""
        task = asyncio.current_task()
        assert task is not None
        if connection not in self._transports:
            raise ConnectionResetError("the client has gone before its request had its turn")
        self._queued[connection] = task
        try:
            await turns.acquire()
        finally:
            del self._queued[connection]
        try:
            yield
        finally:
            turns.release()

    @contextmanager
    def holding(self, connection: web.RequestHandler) -> Iterator[None]:
        """For the block, we wait for the client of *connection* (until its ``work`` begins), and hold what ``hold`` says."""
        if self._waiting.pop(connection, 0) is None:  # a new wait begins
            self._waiting[connection] = None
        try:
            yield
        finally:
            self._held_bytes -= self._held.pop(connection, 0)

    def hold(self, connection: web.RequestHandler, size_bytes: int) -> None:
        """Note that so many bytes are held for *connection*. What is small is never too much: who asks little is answered.

        Errors: NotReady if that is too much, although all that can go has gone; ConnectionResetError if it has gone itself.
        """
        self._held_bytes += size_bytes - self._held.get(connection, 0)
        self._held[connection] = size_bytes
        while self._held_bytes > MAX_HELD_BYTES and size_bytes > SMALL_BYTES:
            others = [
                one for one in self._waiting if self._held.get(one, 0) > SMALL_BYTES and one is not connection
            ]
            if not self._close_one(others):
                raise NotReady(_OVERLOADED)
        if connection not in self._transports:
            raise ConnectionResetError("closed to make room")

    def close_waiting(self) -> None:
        """Close every connection whose client we wait for."""
        while self._close_one(self._waiting):
            pass

    def _close_one(self, among: Iterable[web.RequestHandler]) -> bool:
        """Close the first connection *among* them; whether there was one."""
        connection = next(iter(among), None)
        if connection is None:
            return False
        transport = self._transports.get(connection)
        self.gone(connection)
        if transport is not None:
            transport.abort()
        return True

    def came(self, connection: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Note that *connection* is open."""
        self._transports[connection] = transport
        if connection not in self._waiting:  # it had to go before it had come
            self._transports.pop(connection)
            transport.abort()

    def gone(self, connection: web.RequestHandler) -> None:
        """Note that *connection* is closed. Its request, if one is in work, still counts; if it waits its turn, it ends."""
        self._waiting.pop(connection, None)
        self._transports.pop(connection, None)
        self._held_bytes -= self._held.pop(connection, 0)
        if connection in self._queued:
            self._queued[connection].cancel()


class _Connection(web.RequestHandler):
    """aiohttp's, counted, and with our words where it would say its own."""

    __slots__ = ("_all",)

    def __init__(self, all_: Connections, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            read_bufsize=READ_AHEAD_BYTES,
            lingering_time=0,  # on a Unix socket the answer arrives although the rest of the body is not read
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]  # which is how to have none
        )
        self._all = all_

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)  # uvloop's is none, and does all the same
        stream.set_write_buffer_limits(0)  # what is written is done when the system has it all
        super().connection_made(transport)
        self._all.came(self, stream)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._all.gone(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request (400), or an exception that nothing else has caught."""
        error: CronallyError
        if status == HTTPStatus.BAD_REQUEST:
            status, error = _refusal(exc, message or "")
        else:
            note_bug(request, exc)
            status, error = 500, InternalError(BUG)
        if request.writer.output_size > 0:
            raise ConnectionResetError("an answer has begun already")
        response = error_response(error, status=status)
        response.force_close()
        return response


class _Refusal(asyncio.Protocol):
    """Says that there are too many, and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        body = error_text(NotReady(_OVERFULL))
        head = (
            f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"{wire.VERSION_HEADER}: {wire.WIRE_VERSION}\r\nConnection: close\r\n\r\n"
        )
        stream.write((head + body).encode("ascii"))
        stream.close()


def _refusal(exc: BaseException | None, said: str) -> tuple[int, UsageError]:
    """Return status and error for what aiohttp *said* of bytes that are no request."""
    if isinstance(exc, LineTooLong):
        return 431, UsageError(
            f"the request's first line or one of its headers has more than {MAX_LINE_BYTES:,} bytes; write less there"
        )
    first = said.strip().partition("\n")[0].rstrip(":. ")[:_MAX_QUOTED]
    if first.startswith("Too many headers"):
        return 431, UsageError(f"the request has more than {MAX_HEADERS} headers; leave some out")
    return 400, UsageError(
        f"what came is no HTTP request ({first or 'it cannot be read'}); speak HTTP/1.1, or use the cronally command"
    )
