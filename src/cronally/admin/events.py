"""Answers that go on: server-sent events of what becomes of fires, one answer for each who listens."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import web

from cronally.admin import wire
from cronally.admin.answers import dumps, fire_answer
from cronally.admin.limits import ANSWER_S, EVENTS_QUIET_S
from cronally.errors import StoreError

if TYPE_CHECKING:
    from cronally.clock import Clock
    from cronally.engine.live import Feed, Listener
    from cronally.engine.records import JournalFilter
    from cronally.engine.service import Service


class EventStreams:
    """All such answers of one server."""

    def __init__(self, service: Service, clock: Clock) -> None:
        self._service = service
        self._clock = clock
        self._feeds: set[Feed] = set()

    def end(self) -> None:
        """End the answers that are under way."""
        for feed in self._feeds:
            feed.close()

    async def answer(self, request: web.Request, wanted: JournalFilter) -> web.StreamResponse:
        """Write each entry of *wanted* as it is made, until the client or the daemon goes."""
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", wire.VERSION_HEADER: str(wire.WIRE_VERSION)}
        )
        with self._service.listening(wanted) as listener:
            self._feeds.add(listener.feed)
            try:
                await response.prepare(request)
                await self._write(response, listener)
            except StoreError as exc:
                with suppress(ConnectionError):
                    await response.write(_event("error", wire.error_to_plain(exc)["error"]).encode())
            except (ConnectionError, TimeoutError):
                if request.transport is not None:
                    request.transport.abort()
            finally:
                self._feeds.discard(listener.feed)
        response.force_close()
        return response

    async def _write(self, response: web.StreamResponse, listener: Listener) -> None:
        quiet_since, lost = self._clock.mono(), 0
        async for rows in listener.rows():
            events = [_event("fire", fire_answer(row)) for row in rows]
            if listener.feed.lost > lost:
                events.append(_event("lost", {"count": listener.feed.lost - lost}))
                lost = listener.feed.lost
            if self._clock.mono() - quiet_since >= EVENTS_QUIET_S and not events:
                events.append(": nothing has happened\n\n")
            if events:
                quiet_since = self._clock.mono()
                async with asyncio.timeout(ANSWER_S):
                    await response.write("".join(events).encode())


def _event(kind: str, value: object) -> str:
    return f"event: {kind}\ndata: {dumps(value)}\n\n"
