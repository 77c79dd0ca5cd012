"""The routes of the admin socket that change something."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from functools import wraps
from typing import TYPE_CHECKING

from cronally.actions import about
from cronally.admin import wire
from cronally.admin.answers import (
    apply_answer,
    backfill_answer,
    copy_answer,
    difference_answer,
    dumps,
    retry_answer,
    schedule_answer,
)
from cronally.admin.limits import MAX_APPLIES
from cronally.admin.many import many_done
from cronally.admin.parcels import FORWARDED_BY
from cronally.admin.parts import Parts, read_shards
from cronally.admin.rendering import json_answer, rendered, text_answer, wire_answer
from cronally.admin.requests import (
    AN_INSTANT,
    ApplyBody,
    backup_wish,
    fire_ids,
    flag,
    idempotency_key,
    if_match,
    many_wish,
    most_fires,
    query_of,
    read_lines,
    read_object,
    refuse_unknown,
    switch,
    text,
    to_come,
    whole_number,
)
from cronally.admin.routing import not_here
from cronally.admin.unix_socket import peer_of, user_name
from cronally.domain.spec import parse_note
from cronally.errors import NotReady, ShardElsewhere, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from cronally.admin.routing import Routing
    from cronally.admin.unix_socket import Peer
    from cronally.clock import Clock
    from cronally.engine.applying import ApplyResult
    from cronally.engine.service import Service

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


class Changes:
    """Handlers of requests that change something."""

    def __init__(self, service: Service, clock: Clock, *, routing: Routing | None = None) -> None:
        """routing: where there are several machines, finds the one that makes a change."""
        self._service = service
        self._clock = clock
        self._routing = routing
        self._parts = None if routing is None else Parts(routing, service, clock)
        self._applies = 0
        self._users: dict[int, str] = {}

    def of_one(self, handler: Handler) -> Handler:
        """Return *handler*, of a change of the schedule that the path names, as the machine carries it out that drives it."""
        if self._routing is None:
            return handler
        routing = self._routing

        @wraps(handler)
        async def routed(request: web.Request) -> web.StreamResponse:
            return await routing.change(request, await self._by(request), handler)

        return routed

    async def put(self, request: web.Request) -> web.Response:
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
        return json_answer(
            {"outcome": result.outcome, "schedule": schedule_answer(result.view)},
            status=201 if result.outcome == "created" else 200,
            headers={"ETag": f'"{result.view.stored.revision}"'},
        )

    async def delete(self, request: web.Request) -> web.Response:
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
        return wire_answer(wire.RemoveReply(name=name, pending=pending))

    async def move(self, request: web.Request) -> web.Response:
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
        return json_answer({"before": schedule_answer(before), "schedule": schedule_answer(after)})

    async def pause(self, request: web.Request) -> web.Response:
        """Put a schedule at rest.

        Body: until: an instant, or a duration from now, at which it goes on by itself. note: why it rests. drop_pending: skip its pending fires.
        Answer: PauseReply.
        """
        query_of(request)
        name, by = request.match_info["name"], await self._by(request)
        wish = await read_object(request)
        refuse_unknown(wish, "until", "note", "drop_pending")
        until = None if wish.get("until") is None else text(wish, "until", AN_INSTANT)
        note = wish.get("note")
        view, pending = await self._service.pause(
            name,
            by=by,
            until=None
            if until is None
            else to_come("until", until, await self._service.zone(name), now=self._clock.wall()),
            note=None if note is None else parse_note(note),
            drop_pending=switch(wish, "drop_pending"),
        )
        _note("pause", f"paused {name}", by, schedule=name)
        return json_answer({"schedule": schedule_answer(view), "pending": pending})

    async def resume(self, request: web.Request) -> web.Response:
        """End the pause of a schedule. One that is not paused stays as it is.

        Answer: Schedule.
        """
        query_of(request)
        name, by = request.match_info["name"], await self._by(request)
        view = await self._service.resume(name, by=by)
        _note("resume", f"resumed {name}", by, schedule=name)
        return json_answer(schedule_answer(view))

    async def many(self, request: web.Request) -> web.Response:
        """Remove, pause or resume many schedules: those of a machine that can be in one transaction, or none of them.

        Body: action: `remove`, `pause` or `resume`. names: of up to 200 schedules. until: the end of a pause, as there. note: why they rest. drop_pending: skip their pending fires.
        Answer: ManyReply; those that it does not name are to be asked for again: the answer would be too long, or their shards change hands.
        """
        query_of(request)
        by = await self._by(request)
        wish = many_wish(await read_object(request))
        parts = None if FORWARDED_BY in request.headers else self._parts
        if parts is not None:
            reply = await parts.many(wish, by=by)
        else:
            try:
                reply = await many_done(self._service, self._clock, wish, by=by)
            except ShardElsewhere:
                return not_here()
        if reply.done:
            _note(wish.action, f"{wish.action}: {len(reply.done):,} schedules", by, schedules=len(reply.done))
        texts = [one async for one in rendered(self._clock, reply.done)]
        return text_answer(
            f'{{"done": [{", ".join(texts)}], "refused": {dumps(reply.refused)}, "error": {dumps(reply.error)}}}'
        )

    async def run(self, request: web.Request) -> web.Response:
        """Fire a schedule now. The fire is durable when the answer comes.

        Headers: Idempotency-Key: a text of the caller's; the same again makes no second fire.
        Answer: RunReply; 201.
        """
        query_of(request)
        name, by = request.match_info["name"], await self._by(request)
        made = await self._service.run(name, by=by, idempotency_key=idempotency_key(request))
        _note("run", f"{made} is fired", by, schedule=name, fire_id=made)
        return wire_answer(wire.RunReply(fire_id=made), status=201)

    async def backfill(self, request: web.Request) -> web.Response:
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
            first=text(wish, "from", AN_INSTANT),
            last=text(wish, "until", AN_INSTANT),
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
        return wire_answer(backfill_answer(stored, done), status=201 if done.made and not is_dry_run else 200)

    async def retry(self, request: web.Request) -> web.Response:
        """Make fires that were rejected, have expired or were skipped pending again, with the ids they have.

        Body: fires: their ids, a list. dry_run: change nothing.
        Answer: RetryReply.
        """
        query_of(request)
        by = await self._by(request)
        wish = await read_object(request)
        refuse_unknown(wish, "fires", "dry_run")
        is_dry_run = switch(wish, "dry_run")
        parts = None if FORWARDED_BY in request.headers else self._parts
        if parts is not None:
            reply = await parts.retry(fire_ids(wish), by=by, is_dry_run=is_dry_run)
        else:
            done = await self._service.retry(fire_ids(wish), by=by, is_dry_run=is_dry_run)
            reply = retry_answer(done, with_fires=is_dry_run)
        if not is_dry_run:
            _note("retry", f"{len(reply.retried):,} fires are retried", by, fires=len(reply.retried))
        return wire_answer(reply)

    async def apply(self, request: web.Request) -> web.Response:
        """Make schedules as the body states them: all of it, or with a problem nothing.

        Query: owner: whose schedules these are. prune: remove what an earlier apply of this owner made and the body does not name. dry_run: change nothing. differences: how many a dry run lists.
        Body: JSON Lines: a schedule a line, its name beside its keys.
        Answer: ApplyReply; 422 if there are problems.
        """
        is_part = FORWARDED_BY in request.headers
        query = query_of(
            request, "owner", "prune", "dry_run", "differences", *(("shards",) if is_part else ())
        )
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
            if is_part:
                result = await self._service.apply(
                    lines, owner=owner, by=by, is_pruning=is_pruning, shards=read_shards(query["shards"])
                )
            else:
                apply = self._service.apply if self._parts is None else self._parts.apply
                result = await apply(lines, owner=owner, by=by, is_pruning=is_pruning)
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
        texts = [one async for one in rendered(self._clock, differences)]
        rest = wire.to_plain(apply_answer(result, is_dry_run=is_dry_run))
        del rest["differences"]
        if result.shards is not None:  # for the machine that has parted it
            rest["shards"] = sorted(result.shards)
        answer = f'{{"differences": [{", ".join(texts)}], {dumps(rest)[1:]}'
        return text_answer(answer, status=422 if result.problem_count else 200)

    async def backup(self, request: web.Request) -> web.Response:
        """Write a copy of the store to a file of the daemon's machine.

        Body: file: an absolute path. force: replace an earlier backup.
        Answer: Copy; 201.
        """
        query_of(request)
        by = await self._by(request)
        peer = _peer(request)
        is_own = peer is not None and peer.uid in (0, os.geteuid())
        file, replace = backup_wish(await read_object(request), is_own=is_own)
        contents = await self._service.backup(file, replace=replace)
        log.info(
            "wrote a copy of the store to %s, by %s",
            file,
            by,
            extra=about("admin.backup", file=file, bytes=contents.size_bytes, by=by),
        )
        return wire_answer(copy_answer(contents), status=201)

    async def _by(self, request: web.Request) -> str:
        """Return who asks, ``uid 1000 (anna)``: the kernel's word, not the caller's."""
        peer = _peer(request)
        told = request.headers.get(FORWARDED_BY)
        if told is not None:
            if peer is None or peer.pid != os.getpid():
                raise UsageError(f"{FORWARDED_BY} is what a daemon tells itself; leave it out")
            return told
        if peer is None:
            return "unknown"
        uid = peer.uid
        if uid not in self._users:
            self._users[uid] = await asyncio.to_thread(user_name, uid)
        return f"uid {uid}{f' ({user})' if (user := self._users[uid]) else ''}"


def _note(change: str, text: str, by: str, **fields: object) -> None:
    """Say in the log what was changed."""
    log.info("%s, by %s", text, by, extra=about("admin.change", change=change, by=by, **fields))


def _peer(request: web.Request) -> Peer | None:
    sock = None if request.transport is None else request.transport.get_extra_info("socket")
    return None if sock is None else peer_of(sock)
