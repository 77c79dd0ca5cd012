"""The admin socket: HTTP and JSON on a Unix socket, translated to calls of ``engine.service``.

1. A request is parsed, one call is made, the answer is rendered (``reading``, ``changing``); no decision about schedules is
   taken here.
2. What holds for every request (sizes, turns, errors) is in ``boundary``, what holds for connections in ``connections``.
3. No step holds the event loop longer than 10 ms: big pages are rendered in slices.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from cronally.actions import about
from cronally.admin.boundary import Boundary, Turns, reading_alone
from cronally.admin.changing import Changes
from cronally.admin.connections import Connections
from cronally.admin.limits import MAX_READERS, STOP_S, connection_limit
from cronally.admin.metrics import Health, Metrics
from cronally.admin.paths import read_only_socket
from cronally.admin.reading import Readings
from cronally.admin.unix_socket import (
    DIRECTORY_MODE,
    PASSABLE_MODE,
    bind_socket,
    closed_directory,
    inode_of,
    remove_socket,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from cronally.admin.routing import Routing
    from cronally.clock import Clock
    from cronally.engine.reporting import Reporting
    from cronally.engine.service import Service

log = logging.getLogger(__name__)


class AdminServer:
    """Serves *service* on a Unix socket. Attributes: events: the answers that go on. metrics: what answers ``/metrics``.

    Args: socket_path: at most 107 bytes; its directory is made if it is missing. read_only_group: whose members have a second
        socket beside it, on which nothing can be changed (docs/adr/0013-read-only-socket.md). routing: has changes carried out by the
        machine that drives the schedule; None if there is only this one. check: refuses requests by their head. Errors of ``start``: UsageError for
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
        routing: Routing | None = None,
        check: Callable[[web.Request], Awaitable[None]] | None = None,
    ) -> None:
        self.socket_path = socket_path
        self.connections = Connections(most=connection_limit())
        self._readers = read_only_group
        self._check = check
        self._readings = Readings(service, reporting, clock)
        self._changes = Changes(service, clock, routing=routing)
        self.events = self._readings.streams
        self.metrics = Metrics(reporting, clock)
        self._reporting = reporting
        self._doors: list[_Door] = []

    async def start(self) -> None:
        """Begin to answer."""
        turns, readers = Turns(), self._readers
        mode = DIRECTORY_MODE if readers is None else PASSABLE_MODE
        try:
            await self._open(
                bind_socket(self.socket_path, directory_mode=mode),
                self.socket_path,
                self.connections,
                Boundary(self.connections, turns=turns, check=self._check),
            )
            if readers is not None:
                path = read_only_socket(self.socket_path)
                few = Connections(most=min(MAX_READERS, self.connections.most))
                boundary = Boundary(few, turns=turns, check=self._reading_alone)
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

    async def _reading_alone(self, request: web.Request) -> None:
        await reading_alone(request)
        if self._check is not None:
            await self._check(request)

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
        readings, changes = self._readings, self._changes
        of_one = changes.of_one
        app.add_routes(
            [
                web.get("/v1/schedules", readings.list),
                web.get(name, readings.get),
                web.put(name, of_one(changes.put)),
                web.delete(name, of_one(changes.delete)),
                web.post(f"{name}/move", of_one(changes.move)),
                web.post(f"{name}/pause", of_one(changes.pause)),
                web.post(f"{name}/resume", of_one(changes.resume)),
                web.post(f"{name}/run", of_one(changes.run)),
                web.post(f"{name}/backfill", of_one(changes.backfill)),
                web.post("/v1/many", changes.many),
                web.post("/v1/retry", changes.retry),
                web.get(f"{name}/next", readings.next),
                web.get(f"{name}/why", readings.why),
                web.post("/v1/apply", changes.apply),
                web.post("/v1/backup", changes.backup),
                web.get("/v1/fires", readings.fires),
                web.get("/v1/audit", readings.audit),
                web.get("/v1/events", readings.events),
                web.get("/v1/forecast", readings.forecast),
                web.get("/v1/topics", readings.topics),
                web.get("/v1/status", readings.status),
                web.get("/v1/overview", readings.overview),
                web.get("/metrics", self.metrics.answer),
                web.get("/healthz", health.healthz),
                web.get("/readyz", health.readyz),
            ]
        )
        return app


@dataclass
class _Door:
    """A socket that is answered on. inode: by which it is known to be ours."""

    path: str
    inode: tuple[int, int]
    connections: Connections
    runner: web.AppRunner
    listening: asyncio.Server | None = None
