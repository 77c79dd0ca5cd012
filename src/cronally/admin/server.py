"""The admin socket: HTTP and JSON on a Unix socket, translated to calls of ``engine.service``.

1. A request is parsed, one call is made, the answer is rendered; no decision about schedules is taken here.
2. What holds for every request (sizes, turns, errors) is in ``boundary``, what holds for connections in ``connections``.
3. No step holds the event loop longer than 10 ms: big pages are rendered in slices.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from cronally.actions import about
from cronally.admin import wire
from cronally.admin.answers import (
    apply_answer,
    backfill_answer,
    change_answer,
    copy_answer,
    difference_answer,
    dumps,
    fire_answer,
    forecast_answer,
    overview_answer,
    retry_answer,
    schedule_answer,
    status_answer,
    topic_answer,
    why_answer,
)
from cronally.admin.boundary import Boundary, Turns, reading_alone
from cronally.admin.connections import Connections
from cronally.admin.events import EventStreams
from cronally.admin.limits import (
    MAX_APPLIES,
    MAX_FIRES,
    MAX_PAGE_BYTES,
    MAX_READERS,
    STOP_S,
    connection_limit,
)
from cronally.admin.metrics import Health, Metrics
from cronally.admin.paths import read_only_socket
from cronally.admin.requests import (
    ApplyBody,
    audit_cursor,
    backup_wish,
    cursor,
    fire_ids,
    flag,
    idempotency_key,
    if_match,
    instant,
    most_fires,
    query_of,
    read_lines,
    read_object,
    refuse_unknown,
    switch,
    text,
    whole_number,
    words,
)
from cronally.admin.unix_socket import (
    DIRECTORY_MODE,
    PASSABLE_MODE,
    bind_socket,
    closed_directory,
    inode_of,
    peer_uid,
    remove_socket,
    user_name,
)
from cronally.domain.instant_text import read_instant
from cronally.domain.model import SkipReason, State
from cronally.domain.spec import parse_note
from cronally.engine.records import ACTIONS, AuditFilter, JournalFilter
from cronally.errors import FieldError, NotReady, UsageError
from cronally.instants import format_utc

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Iterable

    from cronally.clock import Clock
    from cronally.engine.applying import ApplyResult
    from cronally.engine.reporting import Reporting
    from cronally.engine.service import Service
    from cronally.instants import UtcMs

log = logging.getLogger(__name__)

_RENDERED_AT_ONCE: Final = 50  # rows between two yields to the event loop: about 2 ms
_RENDERED_AT_ONCE_BYTES: Final = 524_288
_AN_INSTANT: Final = "2026-12-24T18:00:00Z, or 2026-12-24T18:00 for the local time in the schedule's zone"


class AdminServer:
    """Serves *service* on a Unix socket. Attributes: events: the answers that go on. metrics: what answers ``/metrics``.

    Args: socket_path: at most 107 bytes; its directory is made if it is missing. read_only_group: whose members have a second
        socket beside it, on which nothing can be changed (docs/adr/0013-read-only-socket.md). Errors of ``start``: UsageError for
        the path or the group, CronallyError if a socket cannot be made or another daemon answers there.
    """

    def __init__(
        self,
        service: Service,
        reporting: Reporting,
        clock: Clock,
        *,
        socket_path: str,
        read_only_group: str | None = None,
    ) -> None:
        self.socket_path = socket_path
        self.connections = Connections(most=connection_limit())
        self._readers = read_only_group
        self.events = EventStreams(service, clock)
        self.metrics = Metrics(reporting, clock)
        self._service = service
        self._reporting = reporting
        self._clock = clock
        self._doors: list[_Door] = []
        self._applies = 0
        self._users: dict[int, str] = {}

    async def start(self) -> None:
        """Begin to answer."""
        turns, readers = Turns(), self._readers
        mode = DIRECTORY_MODE if readers is None else PASSABLE_MODE
        try:
            await self._open(
                bind_socket(self.socket_path, directory_mode=mode),
                self.socket_path,
                self.connections,
                Boundary(self.connections, turns=turns),
            )
            if readers is not None:
                path = read_only_socket(self.socket_path)
                few = Connections(most=min(MAX_READERS, self.connections.most))
                boundary = Boundary(few, turns=turns, check=reading_alone)
                await self._open(bind_socket(path, group=readers), path, few, boundary)
                closed = closed_directory(path, readers)
                if closed is not None:
                    log.warning(
                        "members of the group %s cannot reach %s: %s is closed to them; let others pass through it, which is "
                        "mode 0751 (RuntimeDirectoryMode= in a service file)", readers, path, closed,
                        extra=about("admin.readers_shut_out", group=readers, directory=closed),
                    )  # fmt: skip
        except BaseException:
            await self.close()
            raise

    async def _open(
        self, bound: socket.socket, path: str, connections: Connections, boundary: Boundary
    ) -> None:
        """Answer on a socket that is bound to *path*."""
        try:
            runner = web.AppRunner(self._app(boundary), shutdown_timeout=STOP_S)
            door = _Door(path, inode_of(path), connections, runner)
            self._doors.append(door)
            await runner.setup()
            server = runner.server
            assert server is not None
            server.request_handler = boundary.outermost(server.request_handler)
            protocols = connections.protocols(server)
            door.listening = await asyncio.get_running_loop().create_server(protocols, sock=bound)
        except BaseException:
            bound.close()
            raise

    async def close(self) -> None:
        """Finish the requests in hand, take no more, and remove the socket."""
        doors, self._doors = self._doors, []
        for door in doors:
            if door.listening is not None:
                door.listening.close()
        self.events.end()
        for door in doors:
            door.connections.close_waiting()
            await door.runner.cleanup()
            remove_socket(door.path, door.inode)

    def _app(self, boundary: Boundary) -> web.Application:
        app = web.Application(middlewares=[boundary.answer])
        name = "/v1/schedules/{name}"
        health = Health(self._reporting)
        app.add_routes(
            [
                web.get("/v1/schedules", self._list),
                web.get(name, self._get),
                web.put(name, self._put),
                web.delete(name, self._delete),
                web.post(f"{name}/move", self._move),
                web.post(f"{name}/pause", self._pause),
                web.post(f"{name}/resume", self._resume),
                web.post(f"{name}/run", self._run),
                web.post(f"{name}/backfill", self._backfill),
                web.post("/v1/retry", self._retry),
                web.get(f"{name}/next", self._next),
                web.get(f"{name}/why", self._why),
                web.post("/v1/apply", self._apply),
                web.post("/v1/backup", self._backup),
                web.get("/v1/fires", self._fires),
                web.get("/v1/audit", self._audit),
                web.get("/v1/events", self._events),
                web.get("/v1/forecast", self._forecast),
                web.get("/v1/topics", self._topics),
                web.get("/v1/status", self._status),
                web.get("/v1/overview", self._overview),
                web.get("/metrics", self.metrics.answer),
                web.get("/healthz", health.healthz),
                web.get("/readyz", health.readyz),
            ]
        )
        return app

    # --- schedules --------------------------------------------------------------------------------------------------

    async def _list(self, request: web.Request) -> web.Response:
        """List schedules by name, a page at a time.

        Query: after: the name that the page before gave as next. limit: schedules of a page.
        Answer: SchedulesPage. A large page ends early, and next says where to go on.
        """
        query = query_of(request, "after", "limit")
        limit = whole_number(query, "limit", default=500, least=1, most=wire.MAX_PAGE)
        views, following = await self._service.list(after=query.get("after"), limit=limit)
        rows, total = [], 0
        async for one in self._rendered(map(schedule_answer, views)):
            rows.append(one)
            total += len(one)
            if total > MAX_PAGE_BYTES and len(rows) < len(views):
                following = views[len(rows) - 1].stored.spec.name
                break
        rest = dumps({"next": following, "now": format_utc(self._clock.wall())})
        return _text(f'{{"schedules": [{", ".join(rows)}], {rest[1:]}')

    async def _rendered(self, values: Iterable[object]) -> AsyncIterator[str]:
        """Yield each of *values* as JSON; the event loop has a turn now and then."""
        size = 0
        for number, value in enumerate(values, start=1):
            rendered = dumps(value)
            yield rendered
            size += len(rendered)
            if number % _RENDERED_AT_ONCE == 0 or size > _RENDERED_AT_ONCE_BYTES:
                size = 0
                await self._clock.sleep(0)

    async def _get(self, request: web.Request) -> web.Response:
        """Return a schedule.

        Query: fires: how many of its next slots to name.
        Answer: Schedule, its revision as the ETag.
        """
        query = query_of(request, "fires")
        fires = whole_number(query, "fires", default=3, least=0, most=MAX_FIRES)
        view = await self._service.get(request.match_info["name"], fires=fires)
        return _json(schedule_answer(view), headers={"ETag": f'"{view.stored.revision}"'})

    async def _put(self, request: web.Request) -> web.Response:
        """Create or replace a schedule. The same document again changes nothing.

        Headers: If-Match: the revision to replace; refused if it is at another. If-None-Match: `*` to create only; refused if there is one.
        Body: the keys of a schedule; one that is left out has its default, but for paused, which stays.
        Answer: PutReply; 201 if it was created.
        """
        query_of(request)
        name, by = request.match_info["name"], await self._by(request)
        if_none_match = request.headers.get("If-None-Match")
        if if_none_match not in (None, "*"):
            raise UsageError("If-None-Match can only be *, which means: create, do not replace")
        result = await self._service.put(
            name,
            await read_object(request),
            by=by,
            create_only=if_none_match is not None,
            if_revision=if_match(request),
        )
        _note("put", f"{result.outcome} {name}", by, schedule=name, outcome=result.outcome)
        return _json(
            {"outcome": result.outcome, "schedule": schedule_answer(result.view)},
            status=201 if result.outcome == "created" else 200,
            headers={"ETag": f'"{result.view.stored.revision}"'},
        )

    async def _delete(self, request: web.Request) -> web.Response:
        """Remove a schedule. Its journal stays, and so do its pending fires, unless they are dropped.

        Headers: If-Match: the revision to remove; refused if it is at another.
        Query: drop_pending: skip its pending fires.
        Answer: RemoveReply.
        """
        query = query_of(request, "drop_pending")
        name, by = request.match_info["name"], await self._by(request)
        pending = await self._service.remove(
            name, by=by, drop_pending=flag(query, "drop_pending"), if_revision=if_match(request)
        )
        _note("remove", f"removed {name}", by, schedule=name)
        return _answer(wire.RemoveReply(name=name, pending=pending))

    async def _move(self, request: web.Request) -> web.Response:
        """Give a schedule another name.

        Body: to: the new name.
        Answer: MoveReply.
        """
        query_of(request)
        name, by = request.match_info["name"], await self._by(request)
        wish = await read_object(request)
        refuse_unknown(wish, "to")
        before, after = await self._service.move(name, wish.get("to"), by=by)
        _note(
            "move",
            f"renamed {name} to {after.stored.spec.name}",
            by,
            schedule=name,
            to=after.stored.spec.name,
        )
        return _json({"before": schedule_answer(before), "schedule": schedule_answer(after)})

    async def _pause(self, request: web.Request) -> web.Response:
        """Put a schedule at rest.

        Body: until: an instant, or a duration from now, at which it goes on by itself. note: why it rests. drop_pending: skip its pending fires.
        Answer: PauseReply.
        """
        query_of(request)
        name, by = request.match_info["name"], await self._by(request)
        wish = await read_object(request)
        refuse_unknown(wish, "until", "note", "drop_pending")
        until, note = wish.get("until"), wish.get("note")
        view, pending = await self._service.pause(
            name,
            by=by,
            until=None if until is None else await self._to_come("until", until, name),
            note=None if note is None else parse_note(note),
            drop_pending=switch(wish, "drop_pending"),
        )
        _note("pause", f"paused {name}", by, schedule=name)
        return _json({"schedule": schedule_answer(view), "pending": pending})

    async def _resume(self, request: web.Request) -> web.Response:
        """End the pause of a schedule. One that is not paused stays as it is.

        Answer: Schedule.
        """
        query_of(request)
        name, by = request.match_info["name"], await self._by(request)
        view = await self._service.resume(name, by=by)
        _note("resume", f"resumed {name}", by, schedule=name)
        return _json(schedule_answer(view))

    async def _run(self, request: web.Request) -> web.Response:
        """Fire a schedule now. The fire is durable when the answer comes.

        Headers: Idempotency-Key: a text of the caller's; the same again makes no second fire.
        Answer: RunReply; 201.
        """
        query_of(request)
        name, by = request.match_info["name"], await self._by(request)
        made = await self._service.run(name, by=by, idempotency_key=idempotency_key(request))
        _note("run", f"{made} is fired", by, schedule=name, fire_id=made)
        return _answer(wire.RunReply(fire_id=made), status=201)

    async def _backfill(self, request: web.Request) -> web.Response:
        """Make a fire for each past slot of a time, of kind `backfill`. They are durable when the answer comes.

        Headers: Idempotency-Key: a text of the caller's; the same again makes no second fires.
        Body: from: the instant of the first slot. until: the instant of the last one. max: refuse if there are more. dry_run: change nothing.
        Answer: BackfillReply; 201 if there are new fires.
        """
        query_of(request)
        name, by = request.match_info["name"], await self._by(request)
        wish = await read_object(request)
        refuse_unknown(wish, "from", "until", "max", "dry_run")
        is_dry_run = switch(wish, "dry_run")
        stored, done = await self._service.backfill(
            name,
            first=text(wish, "from", _AN_INSTANT),
            last=text(wish, "until", _AN_INSTANT),
            by=by,
            most=most_fires(wish),
            is_dry_run=is_dry_run,
            idempotency_key=idempotency_key(request),
        )
        if not is_dry_run:
            _note(
                "backfill",
                f"{done.made:,} fires of {name} are backfilled",
                by,
                schedule=name,
                fires=done.made,
            )
        return _answer(backfill_answer(stored, done), status=201 if done.made and not is_dry_run else 200)

    async def _retry(self, request: web.Request) -> web.Response:
        """Make fires that were rejected, have expired or were skipped pending again, with the ids they have.

        Body: fires: their ids, a list. dry_run: change nothing.
        Answer: RetryReply.
        """
        query_of(request)
        by = await self._by(request)
        wish = await read_object(request)
        refuse_unknown(wish, "fires", "dry_run")
        is_dry_run = switch(wish, "dry_run")
        done = await self._service.retry(fire_ids(wish), by=by, is_dry_run=is_dry_run)
        if not is_dry_run:
            _note("retry", f"{len(done.rows):,} fires are retried", by, fires=len(done.rows))
        return _answer(retry_answer(done, with_fires=is_dry_run))

    async def _next(self, request: web.Request) -> web.Response:
        """Return the next slots of a schedule's rule, paused or not.

        Query: after: an instant, or a duration from now, after which they lie; now if it is left out. count: how many.
        Answer: NextReply.
        """
        query = query_of(request, "after", "count")
        name = request.match_info["name"]
        after = query.get("after")
        slots = await self._service.next(
            name,
            after=None if after is None else await self._to_come("after", after, name),
            count=whole_number(query, "count", default=10, least=1, most=MAX_FIRES),
        )
        view = await self._service.get(name, fires=0)
        return _answer(wire.NextReply(fires=[format_utc(slot) for slot in slots], tz=view.stored.spec.tz))

    async def _why(self, request: web.Request) -> web.Response:
        """Say why a schedule has a slot at an instant or has none, and what became of it.

        Query: at: the instant, local in the schedule's zone unless it has an offset.
        Answer: Why.
        """
        query = query_of(request, "at")
        if "at" not in query:
            raise FieldError("at", "is missing; name an instant such as 2026-12-24T18:00:00Z")
        return _answer(why_answer(await self._service.why(request.match_info["name"], query["at"])))

    async def _to_come(self, key: str, value: object, name: str) -> UtcMs:
        """Read an instant, or a time from now, in the zone of a schedule."""
        given = text({key: value}, key, _AN_INSTANT)
        zone = await self._service.zone(name)
        try:
            return read_instant(given, zone, now=self._clock.wall(), direction=1).at
        except UsageError as exc:
            raise FieldError(key, str(exc)) from None

    # --- apply ------------------------------------------------------------------------------------------------------

    async def _apply(self, request: web.Request) -> web.Response:
        """Make schedules as the body states them: all of it, or with a problem nothing.

        Query: owner: whose schedules these are. prune: remove what an earlier apply of this owner made and the body does not name. dry_run: change nothing. differences: how many a dry run lists.
        Body: JSON Lines: a schedule a line, its name beside its keys.
        Answer: ApplyReply; 422 if there are problems.
        """
        query = query_of(request, "owner", "prune", "dry_run", "differences")
        owner = query.get("owner", "default")
        is_dry_run, is_pruning = flag(query, "dry_run"), flag(query, "prune")
        most = whole_number(query, "differences", default=1_000, least=0, most=wire.MAX_DIFFERENCES)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", owner):
            raise UsageError(
                f"{owner[:100]!r} cannot be an owner; use 1 to 80 letters, digits, dots, dashes or underscores, "
                "beginning with a letter or digit"
            )
        if self._applies >= MAX_APPLIES:
            raise NotReady(f"{MAX_APPLIES} applies are under way already; try again when one has ended")
        self._applies += 1  # nothing is awaited before: whoever comes next finds it counted
        try:
            by = await self._by(request)
            body = ApplyBody(request.content)
            await body.read_ahead()
            lines = read_lines(body)
            if is_dry_run:
                result = await self._service.preview_apply(
                    lines, owner=owner, is_pruning=is_pruning, most=most
                )
                return await self._apply_answer(result, is_dry_run=True)
            result = await self._service.apply(lines, owner=owner, by=by, is_pruning=is_pruning)
        finally:
            self._applies -= 1
        keys = ("created", "changed", "removed", "unchanged")
        counts = {key: getattr(result, key) for key in keys} | {"problems": result.problem_count}
        told = ", ".join(f"{count:,} {key}" for key, count in counts.items())
        _note("apply", f"applied a file of {owner}: {told}", by, owner=owner, **counts)
        return await self._apply_answer(result, is_dry_run=False)

    async def _apply_answer(self, result: ApplyResult, *, is_dry_run: bool) -> web.Response:
        """Answer with the result, its differences written a few at a time."""
        differences = (wire.to_plain(difference_answer(one)) for one in result.differences)
        texts = [one async for one in self._rendered(differences)]
        rest = wire.to_plain(apply_answer(result, is_dry_run=is_dry_run))
        del rest["differences"]
        answer = f'{{"differences": [{", ".join(texts)}], {dumps(rest)[1:]}'
        return _text(answer, status=422 if result.problem_count else 200)

    # --- backup -----------------------------------------------------------------------------------------------------

    async def _backup(self, request: web.Request) -> web.Response:
        """Write a copy of the store to a file of the daemon's machine.

        Body: file: an absolute path. force: replace an earlier backup.
        Answer: Copy; 201.
        """
        query_of(request)
        by = await self._by(request)
        is_own = _uid(request) in (0, os.geteuid())
        file, replace = backup_wish(await read_object(request), is_own=is_own)
        contents = await self._service.backup(file, replace=replace)
        log.info(
            "wrote a copy of the store to %s, by %s",
            file,
            by,
            extra=about("admin.backup", file=file, bytes=contents.size_bytes, by=by),
        )
        return _answer(copy_answer(contents), status=201)

    # --- journal and state ------------------------------------------------------------------------------------------

    async def _fires(self, request: web.Request) -> web.Response:
        """List journal entries, newest first, a page at a time.

        Query: schedule: only of this name. state: only in these states. reason: only skipped for these reasons. since: fire times from this instant, or this duration ago, on. until: fire times before it. before: the text that the page before gave as next. limit: entries of a page.
        Answer: FiresPage.
        """
        query = query_of(request, "schedule", "state", "reason", "since", "until", "before", "limit")
        limit = whole_number(query, "limit", default=100, least=1, most=wire.MAX_PAGE)
        rows = await self._service.history(self._journal_filter(query, limit))
        texts = [one async for one in self._rendered(map(fire_answer, rows))]
        following = None
        if len(rows) == limit:
            last = rows[-1].entry
            following = f"{last.fire_time}.{last.schedule_id}.{last.kind}"
        return _text(f'{{"fires": [{", ".join(texts)}], "next": {dumps(following)}}}')

    async def _audit(self, request: web.Request) -> web.Response:
        """List changes, newest first, a page at a time.

        Query: schedule: only of this name, also if it had it once. by: only those of who is so called. action: only these. since: changes from this instant, or this duration ago, on. until: changes before it. before: the text that the page before gave as next. limit: changes of a page.
        Answer: ChangesPage.
        """
        query = query_of(request, "schedule", "by", "action", "since", "until", "before", "limit")
        since, until = self._bounds(query)
        before = query.get("before")
        page = await self._service.audit(
            AuditFilter(
                schedule=query.get("schedule"),
                by=query.get("by"),
                actions=frozenset(words(query, "action", ACTIONS)),
                since=since,
                until=until,
                before=None if before is None else audit_cursor(before),
                limit=whole_number(query, "limit", default=100, least=1, most=wire.MAX_PAGE),
            )
        )
        texts = [one async for one in self._rendered(map(change_answer, page.rows))]
        following = None if page.next is None else ".".join(map(str, page.next))
        return _text(f'{{"changes": [{", ".join(texts)}], "next": {dumps(following)}}}')

    async def _forecast(self, request: web.Request) -> web.Response:
        """Say how many messages each minute of the coming day has, beside the quotas of SNS.

        Answer: Forecast.
        """
        query_of(request)
        return _answer(forecast_answer(await self._service.forecast(), self._service.quota_per_s))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Tell what becomes of fires as it happens, as server-sent events, until the client or the daemon goes.

        Query: schedule: only of this name. state: only in these states. reason: only skipped for these reasons.
        Answer: events `fire`, each a Fire; `lost` with `{"count": …}` when the client reads too slowly; `error` at the end if the store fails.
        """
        query = query_of(request, "schedule", "state", "reason")
        return await self.events.answer(request, self._journal_filter(query, limit=1))

    def _journal_filter(self, query: dict[str, str], limit: int) -> JournalFilter:
        since, until = self._bounds(query)
        before = query.get("before")
        return JournalFilter(
            schedule=query.get("schedule"),
            states=frozenset(State(word) for word in words(query, "state", State)),
            reasons=frozenset(SkipReason(word) for word in words(query, "reason", SkipReason)),
            since=since,
            until=until,
            before=None if before is None else cursor(before),
            limit=limit,
        )

    def _bounds(self, query: dict[str, str]) -> tuple[UtcMs | None, UtcMs | None]:
        """Return the instants that a list is asked to lie between. Errors: FieldError."""
        now = self._clock.wall()
        bounds = {key: instant(key, query[key], now=now) for key in ("since", "until") if key in query}
        since, until = bounds.get("since"), bounds.get("until")
        if since is not None and until is not None and since >= until:
            raise FieldError(
                "until",
                f"{format_utc(until)} is not after since, {format_utc(since)}; name a later instant, or a shorter duration",
            )
        return since, until

    async def _topics(self, request: web.Request) -> web.Response:
        """List the topics in use by ARN, a page at a time. SNS is not asked.

        Query: after: the ARN that the page before gave as next. limit: topics of a page.
        Answer: TopicsPage.
        """
        query = query_of(request, "after", "limit")
        limit = whole_number(query, "limit", default=500, least=1, most=wire.MAX_PAGE)
        page = await self._reporting.topics(after=query.get("after", ""), limit=limit)
        following = page[-1][0].topic if len(page) == limit else None
        return _answer(wire.TopicsPage(topics=[topic_answer(*one) for one in page], next=following))

    async def _status(self, request: web.Request) -> web.Response:
        """Say how the daemon is.

        Answer: Status.
        """
        query_of(request)
        return _answer(status_answer(await self._reporting.status()))

    async def _overview(self, request: web.Request) -> web.Response:
        """Say what a live view shows. It costs little however much is stored.

        Query: coming: how many of the next slots to name.
        Answer: Overview.
        """
        query = query_of(request, "coming")
        most = whole_number(query, "coming", default=20, least=0, most=wire.MAX_COMING)
        return _answer(overview_answer(await self._reporting.overview(most)))

    # --- who and when -----------------------------------------------------------------------------------------------

    async def _by(self, request: web.Request) -> str:
        """Return who asks, ``uid 1000 (anna)``: the kernel's word, not the caller's."""
        uid = _uid(request)
        if uid is None:
            return "unknown"
        if uid not in self._users:
            self._users[uid] = await asyncio.to_thread(user_name, uid)
        return f"uid {uid}{f' ({user})' if (user := self._users[uid]) else ''}"


def _note(change: str, text: str, by: str, **fields: object) -> None:
    """Say in the log what was changed."""
    log.info("%s, by %s", text, by, extra=about("admin.change", change=change, by=by, **fields))


@dataclass
class _Door:
    """A socket that is answered on. inode: by which it is known to be ours."""

    path: str
    inode: tuple[int, int]
    connections: Connections
    runner: web.AppRunner
    listening: asyncio.Server | None = None


def _uid(request: web.Request) -> int | None:
    sock = None if request.transport is None else request.transport.get_extra_info("socket")
    return None if sock is None else peer_uid(sock)


# --- writing answers ------------------------------------------------------------------------------------------------


def _text(body: str, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(text=body + "\n", status=status, headers=headers, content_type="application/json")


def _json(value: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return _text(dumps(value), status=status, headers=headers)


def _answer(value: wire.Answer, *, status: int = 200) -> web.Response:
    return _json(wire.to_plain(value), status=status)
