"""The admin socket: HTTP and JSON on a Unix socket, translated to calls of ``engine.service``.

1. A request is parsed, one call is made, the answer is rendered; no decision about schedules is taken here.
2. Every error leaves as ``{"error": {…}}`` with an exit code; one that is nobody's fault but ours is logged with its
   traceback and leaves as 500, exit code 70, without details.
3. No step holds the event loop longer than 10 ms: big pages are rendered in slices.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from cronally.admin import wire
from cronally.admin.answers import apply_answer, fire_answer, schedule_answer, status_answer, why_answer
from cronally.admin.unix_socket import bind_socket, inode_of, peer_uid, remove_socket, user_name
from cronally.domain.documents import load_json
from cronally.domain.durations import parse_duration
from cronally.domain.model import Kind, SkipReason, State
from cronally.domain.spec import parse_note
from cronally.engine.ports import JournalFilter
from cronally.errors import (
    Conflict,
    CronallyError,
    FieldError,
    InternalError,
    NotReady,
    RevisionConflict,
    ScheduleNotFound,
    StoreError,
    UsageError,
)
from cronally.instants import UtcMs, format_utc, parse_rfc3339

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from cronally.clock import Clock
    from cronally.engine.service import Service

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)

MAX_FIRES: Final = 1_000  # slots one answer names
_RENDERED_AT_ONCE: Final = 50  # rows between two yields to the event loop: about 2 ms
_MAX_PAGE_BYTES: Final = 4_194_304  # a page of long messages ends here
_STALL_S: Final = 60.0  # an apply whose lines stop coming this long is given up: it holds back other changes


class AdminServer:
    """Serves *service* on a Unix socket.

    Args: socket_path: at most 107 bytes; its directory is made if it is missing. Errors of ``start``: UsageError for
        the path, CronallyError if it cannot be made or another daemon answers there.
    """

    def __init__(self, service: Service, clock: Clock, *, socket_path: str) -> None:
        self.socket_path = socket_path
        self._service = service
        self._clock = clock
        self._runner: web.AppRunner | None = None
        self._inode: tuple[int, int] | None = None
        self._users: dict[int, str] = {}

    async def start(self) -> None:
        """Begin to answer."""
        bound = bind_socket(self.socket_path)
        try:
            self._inode = inode_of(self.socket_path)
            self._runner = web.AppRunner(self._app(), access_log=None, handle_signals=False)
            await self._runner.setup()
            await web.SockSite(self._runner, bound).start()
        except BaseException:
            bound.close()
            await self.close()
            raise

    async def close(self) -> None:
        """Finish the requests in hand, take no more, and remove the socket."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._inode is not None:
            remove_socket(self.socket_path, self._inode)
            self._inode = None

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._boundary], client_max_size=wire.MAX_BODY_BYTES)
        name = "/v1/schedules/{name}"
        app.add_routes(
            [
                web.get("/v1/schedules", self._list),
                web.get(name, self._get),
                web.put(name, self._put),
                web.delete(name, self._delete),
                web.post(f"{name}/pause", self._pause),
                web.post(f"{name}/resume", self._resume),
                web.post(f"{name}/run", self._run),
                web.get(f"{name}/next", self._next),
                web.get(f"{name}/why", self._why),
                web.post("/v1/apply", self._apply),
                web.get("/v1/fires", self._fires),
                web.get("/v1/status", self._status),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
            ]
        )
        return app

    @web.middleware
    async def _boundary(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            theirs = request.headers.get(wire.VERSION_HEADER)
            if theirs is not None:
                wire.check_version(theirs)
            response = await handler(request)
        except CronallyError as exc:
            if isinstance(exc, InternalError):
                log.exception("admin.bug method=%s path=%s", request.method, request.path)
            response = _error(exc, status=_status_of(exc))
        except web.HTTPException as exc:
            response = _error(_refusal(request, exc), status=exc.status)
        except (ConnectionError, web.RequestPayloadError):
            response = _json({}, status=400)  # the client has gone; nobody will read this
        except Exception:
            log.exception("admin.bug method=%s path=%s", request.method, request.path)
            bug = InternalError("this is a bug in cronally; the daemon's log has the details")
            response = _error(bug, status=500)
        response.headers[wire.VERSION_HEADER] = str(wire.WIRE_VERSION)
        return response

    # --- schedules --------------------------------------------------------------------------------------------------

    async def _list(self, request: web.Request) -> web.Response:
        query = _query(request, "after", "limit")
        limit = _number(query, "limit", default=500, least=1, most=wire.MAX_PAGE)
        views, following = await self._service.list(after=query.get("after"), limit=limit)
        rows, total = [], 0
        for number, view in enumerate(views, start=1):
            rows.append(_dumps(schedule_answer(view)))
            total += len(rows[-1])
            if total > _MAX_PAGE_BYTES and number < len(views):
                following = view.stored.spec.name
                break
            if number % _RENDERED_AT_ONCE == 0:
                await self._clock.sleep(0)
        rest = _dumps({"next": following, "now": format_utc(self._clock.wall())})
        return _text(f'{{"schedules": [{", ".join(rows)}], {rest[1:]}')

    async def _get(self, request: web.Request) -> web.Response:
        query = _query(request, "fires")
        fires = _number(query, "fires", default=3, least=0, most=MAX_FIRES)
        view = await self._service.get(request.match_info["name"], fires=fires)
        return _json(schedule_answer(view), headers={"ETag": f'"{view.stored.revision}"'})

    async def _put(self, request: web.Request) -> web.Response:
        _query(request)
        name, by = request.match_info["name"], await self._by(request)
        if_none_match = request.headers.get("If-None-Match")
        if if_none_match not in (None, "*"):
            raise UsageError("If-None-Match can only be *, which means: create, do not replace")
        result = await self._service.put(
            name,
            await _object(request),
            by=by,
            create_only=if_none_match is not None,
            if_revision=_if_match(request),
        )
        log.info("admin.change action=put schedule=%s outcome=%s by=%s", name, result.outcome, by)
        return _json(
            {"outcome": result.outcome, "schedule": schedule_answer(result.view)},
            status=201 if result.outcome == "created" else 200,
            headers={"ETag": f'"{result.view.stored.revision}"'},
        )

    async def _delete(self, request: web.Request) -> web.Response:
        query = _query(request, "drop_pending")
        name, by = request.match_info["name"], await self._by(request)
        pending = await self._service.remove(
            name, by=by, drop_pending=_flag(query, "drop_pending"), if_revision=_if_match(request)
        )
        log.info("admin.change action=remove schedule=%s by=%s", name, by)
        return _answer(wire.RemoveReply(name=name, pending=pending))

    async def _pause(self, request: web.Request) -> web.Response:
        _query(request)
        name, by = request.match_info["name"], await self._by(request)
        wish = await _object(request)
        unknown = set(wish) - {"until", "note", "drop_pending"}
        if unknown:
            raise FieldError(min(unknown)[:100], "no such key; the keys are until, note, drop_pending")
        until, note, drop_pending = wish.get("until"), wish.get("note"), wish.get("drop_pending", False)
        if not isinstance(drop_pending, bool):
            raise FieldError("drop_pending", "must be true or false")
        view, pending = await self._service.pause(
            name,
            by=by,
            until=None if until is None else self._instant("until", until, sign=1),
            note=None if note is None else parse_note(note),
            drop_pending=drop_pending,
        )
        log.info("admin.change action=pause schedule=%s by=%s", name, by)
        return _json({"schedule": schedule_answer(view), "pending": pending})

    async def _resume(self, request: web.Request) -> web.Response:
        _query(request)
        name, by = request.match_info["name"], await self._by(request)
        view = await self._service.resume(name, by=by)
        log.info("admin.change action=resume schedule=%s by=%s", name, by)
        return _json(schedule_answer(view))

    async def _run(self, request: web.Request) -> web.Response:
        _query(request)
        name, by = request.match_info["name"], await self._by(request)
        key = request.headers.get("Idempotency-Key")
        if key is not None:
            wire.check_key(key)
        made = await self._service.run(name, by=by, idempotency_key=key)
        log.info("admin.change action=run schedule=%s fire_id=%s by=%s", name, made, by)
        return _answer(wire.RunReply(fire_id=made), status=201)

    async def _next(self, request: web.Request) -> web.Response:
        query = _query(request, "after", "count")
        name = request.match_info["name"]
        after = query.get("after")
        slots = await self._service.next(
            name,
            after=None if after is None else self._instant("after", after, sign=1),
            count=_number(query, "count", default=10, least=1, most=MAX_FIRES),
        )
        view = await self._service.get(name, fires=0)
        return _answer(wire.NextReply(fires=[format_utc(slot) for slot in slots], tz=view.stored.spec.tz))

    async def _why(self, request: web.Request) -> web.Response:
        query = _query(request, "at")
        if "at" not in query:
            raise FieldError("at", "is missing; name an instant such as 2026-12-24T18:00:00Z")
        return _answer(why_answer(await self._service.why(request.match_info["name"], query["at"])))

    # --- apply ------------------------------------------------------------------------------------------------------

    async def _apply(self, request: web.Request) -> web.Response:
        query = _query(request, "owner")
        owner, by = query.get("owner", "default"), await self._by(request)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", owner):
            raise UsageError(
                f"{owner[:100]!r} cannot be an owner; use 1 to 80 letters, digits, dots, dashes or underscores, "
                "beginning with a letter or digit"
            )
        result = await self._service.apply(_lines(request.content), owner=owner, by=by)
        log.info(
            "admin.change action=apply owner=%s created=%d changed=%d unchanged=%d problems=%d by=%s",
            owner, result.created, result.changed, result.unchanged, result.problem_count, by,
        )  # fmt: skip
        return _answer(apply_answer(result), status=422 if result.problem_count else 200)

    # --- journal and state ------------------------------------------------------------------------------------------

    async def _fires(self, request: web.Request) -> web.Response:
        query = _query(request, "schedule", "state", "reason", "since", "until", "before", "limit")
        since, until, before = query.get("since"), query.get("until"), query.get("before")
        limit = _number(query, "limit", default=100, least=1, most=wire.MAX_PAGE)
        rows = await self._service.history(
            JournalFilter(
                schedule=query.get("schedule"),
                states=frozenset(State(word) for word in _words(query, "state", State)),
                reasons=frozenset(SkipReason(word) for word in _words(query, "reason", SkipReason)),
                since=None if since is None else self._instant("since", since, sign=-1),
                until=None if until is None else self._instant("until", until, sign=-1),
                before=None if before is None else _cursor(before),
                limit=limit,
            )
        )
        texts = []
        for number, row in enumerate(rows, start=1):
            texts.append(_dumps(fire_answer(row)))
            if number % _RENDERED_AT_ONCE == 0:
                await self._clock.sleep(0)
        following = None
        if len(rows) == limit:
            last = rows[-1].entry
            following = f"{last.fire_time}.{last.schedule_id}.{last.kind}"
        return _text(f'{{"fires": [{", ".join(texts)}], "next": {_dumps(following)}}}')

    async def _status(self, request: web.Request) -> web.Response:
        _query(request)
        return _answer(status_answer(await self._service.status()))

    async def _healthz(self, _: web.Request) -> web.Response:
        return _json({"ok": True})

    async def _readyz(self, _: web.Request) -> web.Response:
        status = await self._service.status()
        return _json(
            {"ready": status.is_ready, "because": status.not_ready_because},
            status=200 if status.is_ready else 503,
        )

    # --- who and when -----------------------------------------------------------------------------------------------

    async def _by(self, request: web.Request) -> str:
        """Return who asks, ``uid 1000 (anna)``: the kernel's word, not the caller's."""
        sock = None if request.transport is None else request.transport.get_extra_info("socket")
        uid = None if sock is None else peer_uid(sock)
        if uid is None:
            return "unknown"
        if uid not in self._users:
            self._users[uid] = await asyncio.to_thread(user_name, uid)
        return f"uid {uid}{f' ({user})' if (user := self._users[uid]) else ''}"

    def _instant(self, key: str, value: object, *, sign: int) -> UtcMs:
        """Read an instant, or a duration from now: forward (sign 1) or back (sign -1)."""
        if isinstance(value, str):
            with suppress(ValueError):
                return parse_rfc3339(value)
            with suppress(ValueError):
                return UtcMs(self._clock.wall() + sign * parse_duration(value))
        raise FieldError(
            key,
            f"{str(value)[:50]!r} is neither an instant such as 2026-12-24T18:00:00Z nor a duration such as 90s, 2h or 1d",
        )


# --- reading requests -------------------------------------------------------------------------------------------


def _query(request: web.Request, *known: str) -> dict[str, str]:
    """Return the query's parameters; one that is not *known* is refused, and so is one given twice."""
    for key in request.query:
        if key not in known:
            there_are = f"there are {', '.join(known)}" if known else "this path takes none"
            raise UsageError(f"no such parameter: {key[:100]}; {there_are}")
        if len(request.query.getall(key)) > 1:
            raise UsageError(
                f"the parameter {key} is there twice; give it once, several words with commas between"
            )
    return dict(request.query)


def _number(query: dict[str, str], key: str, *, default: int, least: int, most: int) -> int:
    text = query.get(key)
    if text is None:
        return default
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not least <= int(text) <= most:
        raise FieldError(key, f"must be a whole number from {least} to {most}, not {text[:50]!r}")
    return int(text)


def _flag(query: dict[str, str], key: str) -> bool:
    text = query.get(key, "false")
    if text not in ("true", "false"):
        raise FieldError(key, f"must be true or false, not {text[:50]!r}")
    return text == "true"


def _words(query: dict[str, str], key: str, known: Iterable[str]) -> list[str]:
    words = [word.strip() for word in query.get(key, "").split(",") if word.strip()]
    for word in words:
        if word not in tuple(known):
            raise FieldError(key, f"must be among {', '.join(known)}, not {word[:50]!r}")
    return words


def _cursor(text: str) -> tuple[UtcMs, int, str]:
    match = re.fullmatch(r"(-?\d{1,18})\.(\d{1,18})\.([a-z]+)", text, re.ASCII)
    if match is None or match[3] not in tuple(Kind):
        raise FieldError("before", "must be the text that the page before gave as next")
    return UtcMs(int(match[1])), int(match[2]), match[3]


def _if_match(request: web.Request) -> int | None:
    text = request.headers.get("If-Match")
    if text is None:
        return None
    match = re.fullmatch(r'"?(\d{1,18})"?', text.strip(), re.ASCII)
    if match is None:
        raise UsageError(f'If-Match is a revision number such as "3", not {text[:50]!r}')
    return int(match[1])


async def _object(request: web.Request) -> dict[str, Any]:
    """Return the body, a JSON object; an empty body is an empty one. Errors: UsageError."""
    body = await request.read()
    if not body.strip():
        return {}
    try:
        value = load_json(body)
    except ValueError as exc:
        raise UsageError(f"the request is not JSON that can be accepted: {exc}") from None
    if not isinstance(value, dict):
        raise UsageError('the request must be a JSON object such as {"when": "0 9 * * *", …}')
    return value


async def _lines(content: Any) -> AsyncIterator[bytes]:
    """Yield the lines of a body, empty ones too, so that they can be counted.

    A line that is too long is yielded cut, still too long, for its reader to refuse; no more than that is kept.
    """
    rest, most = b"", wire.MAX_BODY_BYTES + 1
    mark = b"\xef\xbb\xbf"  # some editors begin a file with it
    while True:
        try:
            async with asyncio.timeout(_STALL_S):
                chunk: bytes = await content.readany()
        except TimeoutError:
            raise CronallyError(
                f"nothing was applied: the next line did not come within {_STALL_S:.0f} s; "
                "write the lines to a file first and apply that"
            ) from None
        if not chunk:
            break
        *whole, tail = chunk.split(b"\n")
        for line in whole:
            yield (rest + line)[:most].removeprefix(mark)
            rest, mark = b"", b""
        rest = (rest + tail)[:most]
    if rest.removeprefix(mark):
        yield rest.removeprefix(mark)


# --- writing answers ------------------------------------------------------------------------------------------------


_dumps: Final = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make one per row


def _text(body: str, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(text=body + "\n", status=status, headers=headers, content_type="application/json")


def _json(value: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return _text(_dumps(value), status=status, headers=headers)


def _error(exc: CronallyError, *, status: int) -> web.Response:
    # ASCII, because the message may quote text that is no valid Unicode.
    return _text(json.dumps(wire.error_to_plain(exc)), status=status)


def _answer(value: wire.Answer, *, status: int = 200) -> web.Response:
    return _json(wire.to_plain(value), status=status)


def _status_of(exc: CronallyError) -> int:
    match exc:
        case RevisionConflict():
            return 412
        case Conflict():
            return 409
        case ScheduleNotFound():
            return 404
        case UsageError():
            return 400
        case NotReady():
            return 503
        case StoreError():
            return 503 if exc.is_retryable else 500
    return 400 if exc.exit_code == 3 else 500  # 3: the other side speaks another version


def _refusal(request: web.Request, exc: web.HTTPException) -> CronallyError:
    if isinstance(exc, web.HTTPRequestEntityTooLarge):
        return UsageError(
            f"the request has more than {wire.MAX_BODY_BYTES:,} bytes; a message has at most 262,144, "
            "and a file of schedules goes to /v1/apply"
        )
    place = f"{request.method} {request.path[:200]}"
    if isinstance(exc, web.HTTPMethodNotAllowed):
        return UsageError(
            f"{place} is not possible; this path takes {', '.join(sorted(exc.allowed_methods))}"
        )
    return UsageError(f"the admin socket has nothing at {place}")
