"""What every request of the admin socket passes: its size and pace, its turn, and how an error leaves.

1. Every error leaves as ``{"error": {…}}`` with an exit code; one that is nobody's fault but ours is logged with its
   traceback and leaves as 500, exit code 70, without details.
2. A body is read, and an answer written, while nobody else has to wait for it.
3. Few requests are in work at once, so that one pass of the event loop has few slices of work in it. A change waits for
   the changes before it, never for those who read, and the other way round.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion10, web

from cronally.actions import about
from cronally.admin import wire
from cronally.admin.connections import BUG, error_response, note_bug
from cronally.admin.limits import (
    ANSWER_S,
    BODY_S,
    CHANGES_AT_ONCE,
    MAX_APPLY_BYTES,
    READS_AT_ONCE,
)
from cronally.admin.parcels import FORWARDED_BY
from cronally.admin.requests import BODY
from cronally.errors import (
    Conflict,
    CronallyError,
    FireNotFound,
    InternalError,
    NotReady,
    ReadOnly,
    RevisionConflict,
    ScheduleNotFound,
    StoreError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cronally.admin.connections import Connections

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)

_APPLY: Final = "/v1/apply"
_WITHOUT_TURN: Final = frozenset(
    {_APPLY, "/v1/events", "/healthz"}
)  # an apply reads its body as it goes, and has a limit of its own, as those have who listen
_READING: Final = frozenset({"GET", "HEAD"})


async def reading_alone(request: web.Request) -> None:
    """Refuse a request that may change something, by its method. Errors: ReadOnly."""
    if request.method not in _READING:
        raise ReadOnly(f"{request.method[:20]} {request.path[:200]}")


class Turns:
    """The turns of those who share them.

    Attributes: forwarded: of changes that other machines pass on. Each machine might wait for the other if these stood in line with
        those that wait for another machine.
    """

    def __init__(self) -> None:
        self.reads = asyncio.Semaphore(READS_AT_ONCE)
        self.changes = asyncio.Semaphore(CHANGES_AT_ONCE)
        self.forwarded = asyncio.Semaphore(CHANGES_AT_ONCE)


class Boundary:
    """Takes requests to their handlers, and what comes of them back."""

    def __init__(
        self,
        connections: Connections,
        *,
        turns: Turns | None = None,
        place: str = "the admin socket",
        check: Callable[[web.Request], Awaitable[None]] | None = None,
    ) -> None:
        """turns: shared with others. place: what is spoken of when there is nothing at a path. check: has requests wait, or refuses them by their head."""
        self._connections = connections
        self._turns = turns or Turns()
        self._place = place
        self._check = check

    def outermost(self, route: Handler) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
        """Return *route* with our words for what aiohttp refuses by itself, before there is a handler."""

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            assert isinstance(request, web.Request)
            try:
                return await route(request)
            except (
                web.HTTPException,
                ConnectionError,
            ) as exc:  # the latter: nobody there to be told to go on
                return await self.answer(request, _raising(exc))

        return handle

    @web.middleware
    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Return what *handler* answers, or an error, once it is with the client."""
        try:
            theirs = request.headers.get(wire.VERSION_HEADER)
            if theirs is not None:
                wire.check_version(theirs)
            response = await self._handled(request, handler)
        except CronallyError as exc:
            if isinstance(exc, InternalError):
                note_bug(request, exc)
            response = error_response(exc, status=_status_of(exc))
        except web.HTTPException as exc:
            response = error_response(_refusal(request, exc, self._place), status=exc.status)
            if isinstance(exc, web.HTTPMethodNotAllowed):
                response.headers["Allow"] = _allowed(exc)  # RFC 9110, 15.5.6: it must be there
        except (ConnectionError, web.RequestPayloadError):
            gone = UsageError("the request's body does not come as its headers say; send all of it")
            response = error_response(gone, status=400)
        except Exception as exc:  # noqa: BLE001 - the client and the log are told
            note_bug(request, exc)
            bug = InternalError(BUG)
            response = error_response(bug, status=500)
        response.headers[wire.VERSION_HEADER] = str(wire.WIRE_VERSION)
        if not request.content.is_eof():
            response.force_close()  # the rest of its body is never read
        await self._deliver(request, response)
        log.debug(
            "%s %s: %d",
            request.method,
            request.path_qs,
            response.status,
            extra=about("admin.request", method=request.method, path=request.path_qs, status=response.status),
        )
        return response

    async def _handled(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        _check_head(request)
        if self._check is not None:
            await self._check(request)
        is_reading = request.method in _READING
        connection = request.protocol
        if request.path in _WITHOUT_TURN:
            with self._connections.work(connection):
                return await handler(request)
        with self._connections.holding(connection):
            if request.can_read_body and not is_reading:
                request[BODY] = await self._body(request)
            turns = self._turns.reads if is_reading else self._turns.changes
            if FORWARDED_BY in request.headers:
                turns = self._turns.forwarded
            with self._connections.work(connection):
                async with self._connections.turn(connection, turns):
                    return await handler(request)

    async def _body(self, request: web.Request) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                while chunk := await request.content.readany():
                    body += chunk
                    if len(body) > wire.MAX_BODY_BYTES:
                        raise _too_large()
                    self._connections.hold(request.protocol, len(body))
        except TimeoutError:
            raise web.HTTPRequestTimeout(
                text=f"the request's body did not come within {BODY_S:.0f} s; send all that Content-Length promises"
            ) from None
        return bytes(body)

    async def _deliver(self, request: web.Request, response: web.StreamResponse) -> None:
        """Write the answer; the connection of a client that does not take it is closed."""
        connection, transport = request.protocol, request.transport
        if not isinstance(response, web.Response) or transport is None:
            return
        with self._connections.holding(connection):
            try:
                try:
                    self._connections.hold(connection, response.content_length or 0)
                except NotReady as exc:  # there is room for the reason
                    response = error_response(exc, status=_status_of(exc))
                    self._connections.hold(connection, response.content_length or 0)
                async with asyncio.timeout(ANSWER_S):
                    await response.prepare(request)
                    await response.write_eof()
            except (ConnectionError, TimeoutError):
                transport.abort()


def _raising(exc: Exception) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        raise exc

    return handle


def _check_head(request: web.Request) -> None:
    """Refuse what is known to be wrong before anything of the body is read."""
    if request.version < HttpVersion10:
        raise web.HTTPBadRequest(
            text="the first line has to end in HTTP/1.1; write it, or use the cronally command"
        )
    size = request.content_length
    most = MAX_APPLY_BYTES if request.path == _APPLY else wire.MAX_BODY_BYTES
    if size is not None and size > most:
        raise _too_large(most)
    coding = request.headers.get("Content-Encoding", "identity")
    if coding.lower() != "identity":
        raise web.HTTPUnsupportedMediaType(
            text=f"a body is not unpacked (Content-Encoding: {coding[:50]!r}); send it as it is"
        )


def _too_large(most: int = wire.MAX_BODY_BYTES) -> web.HTTPException:
    return web.HTTPRequestEntityTooLarge(
        most,
        text=f"the request has more than {most:,} bytes; a message has at most 262,144, and a file of schedules goes to {_APPLY}",
    )


def _status_of(exc: CronallyError) -> int:
    match exc:
        case RevisionConflict():
            return 412
        case Conflict():
            return 409
        case ScheduleNotFound() | FireNotFound():
            return 404
        case UsageError():
            return 400
        case ReadOnly():
            return 403
        case NotReady():
            return 503
        case StoreError():
            return 503 if exc.is_retryable else 500
    return 400 if exc.exit_code == 3 else 500  # 3: the other side speaks another version


def _allowed(exc: web.HTTPMethodNotAllowed) -> str:
    return ", ".join(sorted(exc.allowed_methods))


def _refusal(request: web.Request, exc: web.HTTPException, where: str) -> CronallyError:
    place = f"{request.method} {request.path[:200]}"
    match exc:
        case web.HTTPMethodNotAllowed():
            return UsageError(f"{place} is not possible; this path takes {_allowed(exc)}")
        case web.HTTPNotFound():
            return UsageError(f"{where} has nothing at {place}")
        case web.HTTPExpectationFailed():
            return UsageError("the only Expect that can be met is 100-continue; leave it out")
    return UsageError(exc.text or exc.reason)
