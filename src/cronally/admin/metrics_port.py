"""The port for metrics: what Prometheus may ask over TCP, on this machine alone.

1. It is there only if ``metrics.listen`` says so, and only on a loopback address: nothing comes from another machine.
2. ``GET`` of ``/metrics``, ``/healthz`` and ``/readyz``, and nothing else; no request changes anything.
3. A page in a browser on this machine cannot read it by a name that it has pointed here (DNS rebinding): Host has to name the
   machine itself.
4. It has few connections of its own, so it takes none from the admin socket, and what comes too fast waits: anybody on this
   machine may ask, and nobody of them may make a fire late.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from aiohttp import web

from cronally.admin.boundary import Boundary
from cronally.admin.connections import Connections
from cronally.admin.limits import MAX_METRICS_CONNECTIONS, METRICS_PACE_S, STOP_S
from cronally.admin.metrics import Health
from cronally.errors import CronallyError

if TYPE_CHECKING:
    from cronally.admin.listen import Listen
    from cronally.admin.metrics import Metrics
    from cronally.clock import Clock
    from cronally.engine.reporting import Reporting

_BACKLOG: Final = 16
_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


class MetricsPort:
    """Serves *metrics* at *listen*. Attributes: port: where it listens, once it does. Errors of ``start``: CronallyError if nobody can listen there."""

    def __init__(self, metrics: Metrics, reporting: Reporting, clock: Clock, *, listen: Listen) -> None:
        self.connections = Connections(most=MAX_METRICS_CONNECTIONS)
        self.port = listen.port
        self._metrics = metrics
        self._health = Health(reporting)
        self._clock = clock
        self._listen = listen
        self._turns = asyncio.Semaphore(1)
        self._next_s: float = clock.mono()
        self._runner: web.AppRunner | None = None
        self._listening: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to answer."""
        bound = _bound(self._listen)
        self.port = bound.getsockname()[1]
        try:
            boundary = Boundary(self.connections, place="the port for metrics", check=self._check)
            app = web.Application(middlewares=[boundary.answer])
            for path, handler in (
                ("/metrics", self._metrics.answer),
                ("/healthz", self._health.healthz),
                ("/readyz", self._health.readyz),
            ):
                app.router.add_get(path, handler, allow_head=False)
            self._runner = web.AppRunner(app, shutdown_timeout=STOP_S)
            await self._runner.setup()
            server = self._runner.server
            assert server is not None
            server.request_handler = boundary.outermost(server.request_handler)
            protocols = self.connections.protocols(server)
            self._listening = await asyncio.get_running_loop().create_server(protocols, sock=bound)
        except BaseException:
            bound.close()
            await self.close()
            raise

    async def close(self) -> None:
        """Finish the requests in hand and take no more."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        self.connections.close_waiting()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _check(self, request: web.Request) -> None:
        """Have a request wait that comes too fast; refuse one that does not come from here, or wants more than to read."""
        async with self.connections.turn(request.protocol, self._turns):
            wait_s = self._next_s - self._clock.mono()
            if wait_s > 0:
                await self._clock.sleep(wait_s)
            self._next_s = self._clock.mono() + METRICS_PACE_S
        said = request.headers.get("Host", "")  # aiohttp has refused a second one
        host = said.strip().lower()
        name, colon, port = host.rpartition(":")
        if colon and port.isdecimal() and not host.endswith("]"):
            host = name
        if host not in _HOSTS | {self._listen.host_in_url}:
            raise web.HTTPForbidden(
                text=f"Host has to name this machine: localhost, 127.0.0.1 or [::1], not {said[:100]!r}"
            )
        if request.method != "GET":
            raise web.HTTPMethodNotAllowed(request.method, ["GET"])


def _bound(listen: Listen) -> socket.socket:
    """Return a listening socket. Errors: CronallyError."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a daemon that comes right after another
        bound.bind((listen.host, listen.port))
        bound.listen(_BACKLOG)
    except OSError as exc:
        bound.close()
        raise CronallyError(
            f"metrics.listen: nobody can listen on {listen} ({exc.strerror or exc}); stop what uses it, or choose another port"
        ) from exc
    bound.setblocking(False)
    return bound
