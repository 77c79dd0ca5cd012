"""The routes of the admin socket that read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cronally.admin import wire
from cronally.admin.answers import (
    change_answer,
    dumps,
    fire_answer,
    forecast_answer,
    overview_answer,
    schedule_answer,
    status_answer,
    topic_answer,
    why_answer,
)
from cronally.admin.events import EventStreams
from cronally.admin.limits import MAX_FIRES, MAX_PAGE_BYTES
from cronally.admin.rendering import json_answer, rendered, text_answer, wire_answer
from cronally.admin.requests import audit_cursor, cursor, instant, query_of, to_come, whole_number, words
from cronally.domain.model import SkipReason, State
from cronally.engine.records import ACTIONS, AuditFilter, JournalFilter
from cronally.errors import FieldError
from cronally.instants import format_utc

if TYPE_CHECKING:
    from aiohttp import web

    from cronally.clock import Clock
    from cronally.engine.reporting import Reporting
    from cronally.engine.service import Service
    from cronally.instants import UtcMs


class Readings:
    """Handlers of requests that change nothing. Attributes: streams: the answers that go on."""

    def __init__(self, service: Service, reporting: Reporting, clock: Clock) -> None:
        self.streams = EventStreams(service, clock)
        self._service = service
        self._reporting = reporting
        self._clock = clock

    async def list(self, request: web.Request) -> web.Response:
        """List schedules by name, a page at a time.

        Query: after: the name that the page before gave as next. limit: schedules of a page.
        Answer: SchedulesPage. A large page ends early, and next says where to go on.
        """
        query = query_of(request, "after", "limit")
        limit = whole_number(query, "limit", default=500, least=1, most=wire.MAX_PAGE)
        views, following = await self._service.list(after=query.get("after"), limit=limit)
        rows, total = [], 0
        async for one in rendered(self._clock, map(schedule_answer, views)):
            rows.append(one)
            total += len(one)
            if total > MAX_PAGE_BYTES and len(rows) < len(views):
                following = views[len(rows) - 1].stored.spec.name
                break
        rest = dumps({"next": following, "now": format_utc(self._clock.wall())})
        return text_answer(f'{{"schedules": [{", ".join(rows)}], {rest[1:]}')

    async def get(self, request: web.Request) -> web.Response:
        """Return a schedule.

        Query: fires: how many of its next slots to name.
        Answer: Schedule, its revision as the ETag.
        """
        query = query_of(request, "fires")
        fires = whole_number(query, "fires", default=3, least=0, most=MAX_FIRES)
        view = await self._service.get(request.match_info["name"], fires=fires)
        return json_answer(schedule_answer(view), headers={"ETag": f'"{view.stored.revision}"'})

    async def next(self, request: web.Request) -> web.Response:
        """Return the next slots of a schedule's rule, paused or not.

        Query: after: an instant, or a duration from now, after which they lie; now if it is left out. count: how many.
        Answer: NextReply.
        """
        query = query_of(request, "after", "count")
        name = request.match_info["name"]
        after = query.get("after")
        slots = await self._service.next(
            name,
            after=None
            if after is None
            else to_come("after", after, await self._service.zone(name), now=self._clock.wall()),
            count=whole_number(query, "count", default=10, least=1, most=MAX_FIRES),
        )
        view = await self._service.get(name, fires=0)
        return wire_answer(wire.NextReply(fires=[format_utc(slot) for slot in slots], tz=view.stored.spec.tz))

    async def why(self, request: web.Request) -> web.Response:
        """Say why a schedule has a slot at an instant or has none, and what became of it.

        Query: at: the instant, local in the schedule's zone unless it has an offset.
        Answer: Why.
        """
        query = query_of(request, "at")
        if "at" not in query:
            raise FieldError("at", "is missing; name an instant such as 2026-12-24T18:00:00Z")
        return wire_answer(why_answer(await self._service.why(request.match_info["name"], query["at"])))

    async def fires(self, request: web.Request) -> web.Response:
        """List journal entries, newest first, a page at a time.

        Query: schedule: only of this name. state: only in these states. reason: only skipped for these reasons. since: fire times from this instant, or this duration ago, on. until: fire times before it. before: the text that the page before gave as next. limit: entries of a page.
        Answer: FiresPage.
        """
        query = query_of(request, "schedule", "state", "reason", "since", "until", "before", "limit")
        limit = whole_number(query, "limit", default=100, least=1, most=wire.MAX_PAGE)
        is_complete = self._service.has_history()
        rows = await self._service.history(self._journal_filter(query, limit))
        texts = [one async for one in rendered(self._clock, map(fire_answer, rows))]
        following = None
        if len(rows) == limit:
            last = rows[-1].entry
            following = f"{last.fire_time}.{last.schedule_id}.{last.kind}"
        end = f'"next": {dumps(following)}, "is_complete": {dumps(is_complete)}'
        return text_answer(f'{{"fires": [{", ".join(texts)}], {end}}}')

    async def audit(self, request: web.Request) -> web.Response:
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
        texts = [one async for one in rendered(self._clock, map(change_answer, page.rows))]
        following = None if page.next is None else ".".join(map(str, page.next))
        return text_answer(f'{{"changes": [{", ".join(texts)}], "next": {dumps(following)}}}')

    async def forecast(self, request: web.Request) -> web.Response:
        """Say how many messages each minute of the coming day has, beside the quotas of SNS.

        Answer: Forecast.
        """
        query_of(request)
        return wire_answer(forecast_answer(await self._service.forecast(), self._service.quota_per_s))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Tell what becomes of fires as it happens, as server-sent events, until the client or the daemon goes.

        Query: schedule: only of this name. state: only in these states. reason: only skipped for these reasons.
        Answer: events `fire`, each a Fire; `lost` with `{"count": …}` when the client reads too slowly; `error` at the end if the store fails.
        """
        query = query_of(request, "schedule", "state", "reason")
        return await self.streams.answer(request, self._journal_filter(query, limit=1))

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

    async def topics(self, request: web.Request) -> web.Response:
        """List the topics in use by ARN, a page at a time. SNS is not asked.

        Query: after: the ARN that the page before gave as next. limit: topics of a page.
        Answer: TopicsPage.
        """
        query = query_of(request, "after", "limit")
        limit = whole_number(query, "limit", default=500, least=1, most=wire.MAX_PAGE)
        page = await self._reporting.topics(after=query.get("after", ""), limit=limit)
        following = page[-1][0].topic if len(page) == limit else None
        return wire_answer(wire.TopicsPage(topics=[topic_answer(*one) for one in page], next=following))

    async def status(self, request: web.Request) -> web.Response:
        """Say how the daemon is.

        Answer: Status.
        """
        query_of(request)
        return wire_answer(status_answer(await self._reporting.status()))

    async def overview(self, request: web.Request) -> web.Response:
        """Say what a live view shows. It costs little however much is stored.

        Query: coming: how many of the next slots to name.
        Answer: Overview.
        """
        query = query_of(request, "coming")
        most = whole_number(query, "coming", default=20, least=0, most=wire.MAX_COMING)
        return wire_answer(overview_answer(await self._reporting.overview(most)))
