"""The connections to one server, opened ahead, and the requests that wait for one.

1. A request is failed as known not to have been sent, or written once; then it ends in one reply or one failure.
2. Requests are written in the order in which they were given. While one waits, no connection is idle.
3. A connection is idle for at most 12 s, unless something is armed that needs it: SNS closes it after about 20.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from cronally.sns.connection import Connection
from cronally.sns.dialer import CONNECT_TIMEOUT_S, CannotConnect, Dialer

if TYPE_CHECKING:
    from collections.abc import Callable

    from cronally.clock import Clock
    from cronally.sns.dialer import Route
    from cronally.sns.reply import Reply

MAX_CONNECTIONS = 256
ANSWER_TIMEOUT_S = 10.0
ATTEMPT_TIMEOUT_S = 15.0  # also for what takes long to write
MAX_IDLE_S = 12.0  # aiobotocore's, for the 20 s after which AWS closes
OPEN_AHEAD_S = 3.0
_MAX_IDLE_ARMED_S = MAX_IDLE_S + OPEN_AHEAD_S
_MAX_OPENING = (
    16  # at a time: a TLS handshake takes about a millisecond of CPU, and the loop should not stand still
)
_LEAST = 8  # connections for a burst
_DRAIN_S = 0.1  # what is armed for one instant should be on its way within this
_ROUND_TRIP_S = 0.020  # until one is known
_ROUND_TRIPS_FOR_S = 60.0  # the best of the last one or two such spans is what a round trip takes
_RESERVED_FOR_S = 0.5  # after the instant: what was armed may have been withdrawn
_CLOSE_TIMEOUT_S = 1.0


class Request(Protocol):
    """What a lane carries."""

    def begin(self) -> bytes | None:
        """Return all there is to write, now; None if it is not to be sent after all."""
        ...

    def answered(self, reply: Reply) -> None: ...

    def failed(self, why: str, *, is_unknown: bool) -> None:
        """It will not be answered. is_unknown: it was written, at least in part."""
        ...


class Lane:
    """The connections of one route.

    Attributes: on_free: called when a request has left its connection, after its ``answered`` or ``failed``.
    """

    def __init__(
        self,
        route: Route,
        clock: Clock,
        *,
        on_free: Callable[[], None],
        max_connections: int = MAX_CONNECTIONS,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        attempt_timeout_s: float = ATTEMPT_TIMEOUT_S,
    ) -> None:
        self.on_free = on_free
        self._clock = clock
        self._dialer = Dialer(route, clock, timeout_s=connect_timeout_s)
        self._max_connections = max_connections
        self._answer_timeout_s = min(answer_timeout_s, attempt_timeout_s)
        self._attempt_timeout_s = attempt_timeout_s
        self._connections: set[Connection] = set()  # those that carry requests
        self._leaving: set[Connection] = set()  # those that are closed, and not yet gone
        self._idle: list[Connection] = []  # the one used last at the end
        self._busy: dict[Connection, None] = {}  # in order of writing
        self._queue: deque[Request] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._reserved: deque[list[float]] = deque()  # [instant (monotonic, seconds), requests armed for it]
        self._round_trip_s = self._round_trip_before_s = math.inf
        self._round_trip_until = 0.0
        self._sweeping: asyncio.TimerHandle | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._ahead: set[asyncio.TimerHandle] = set()
        self._is_closed = False
        self._all_gone = asyncio.Event()

    # --- what the publisher asks ----------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether there may be one more request without an answer."""
        return len(self._busy) + len(self._queue) < self._max_connections

    @property
    def is_waited_for(self) -> bool:
        """Whether requests wait for a connection."""
        return bool(self._queue)

    def reserve(self, requests: int, in_s: float) -> None:
        """So many more *requests* will be submitted *in_s* seconds from now: have connections open by then."""
        if self._is_closed:
            return
        if in_s > OPEN_AHEAD_S:
            loop = asyncio.get_running_loop()

            def later() -> None:
                self._ahead.discard(handle)
                self.reserve(requests, OPEN_AHEAD_S - 1)

            handle = loop.call_later(in_s - OPEN_AHEAD_S + 1, later)
            self._ahead.add(handle)
            return
        now = self._clock.mono()
        at = round(now + max(in_s, 0.0), 1)
        if self._reserved and self._reserved[-1][0] == at:
            self._reserved[-1][1] += requests
        else:
            self._reserved.append([at, requests])
        self._refresh_idle(at)
        self._open_more(now)

    def submit(self, request: Request) -> None:
        """Write *request* at once if a connection is free, else as soon as one is."""
        if self._is_closed:
            request.failed("the publisher was closed before this was sent", is_unknown=False)
            return
        reserved = self._reserved
        if reserved:
            reserved[0][1] -= 1
            if reserved[0][1] <= 0:
                reserved.popleft()
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.is_open:
                self._write(connection, request)
                return
        self._queue.append(request)
        self._open_towards(self._wanted(len(self._busy) + len(self._queue)))

    def drop_idle(self) -> None:
        """Close every connection that waits for a request."""
        self._drop_idle_since(self._clock.mono())

    async def close(self) -> None:
        """Fail what has no answer, and let go of the connections."""
        self._is_closed = True
        for handle in (self._sweeping, self._watching, *self._ahead):
            if handle is not None:
                handle.cancel()
        self._ahead.clear()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        self._opening.clear()
        await self._dialer.close()
        self._fail_queue("the publisher was closed before this was sent")
        for connection in list(self._connections):
            self._leave(connection)
            connection.abort("given up while waiting for the answer of SNS")
        if self._leaving:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await self._all_gone.wait()

    # --- requests on their way --------------------------------------------------------------------------------------

    def _write(self, connection: Connection, request: Request) -> None:
        data = request.begin()
        while data is None:
            if not self._queue:
                self._rest(connection)
                asyncio.get_running_loop().call_soon(self.on_free)
                return
            request = self._queue.popleft()
            data = request.begin()
        connection.written_at = self._clock.mono()
        self._busy[connection] = None
        connection.send(request, data)
        if self._watching is None:
            self._watch(self._answer_timeout_s)

    def _replied(self, connection: Connection, request: Request, reply: Reply) -> None:
        now = self._clock.mono()
        del self._busy[connection]
        self._note_round_trip(now - connection.written_at, now)
        request.answered(reply)
        if not connection.is_open:
            self._leave(connection)
            if (
                self._queue or self._reserved
            ):  # a server that closes each: have another for what is armed next
                self._open_more(now)
        elif self._queue:
            self._write(connection, self._queue.popleft())
        else:
            self._rest(connection)
        self.on_free()

    def _ended(self, connection: Connection, request: Request | None, why: str) -> None:
        self._leave(connection)
        if connection.is_lost:
            self._leaving.discard(connection)
            if not self._leaving:
                self._all_gone.set()
        if request is not None:
            del self._busy[connection]
            request.failed(why, is_unknown=True)
            self.on_free()
        if connection in self._idle:
            self._idle.remove(connection)
        if self._queue and not self._is_closed:
            self._open_more(self._clock.mono())

    def _leave(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._leaving.add(connection)
            self._all_gone.clear()

    def _rest(self, connection: Connection) -> None:
        connection.idle_since = self._clock.mono()
        self._idle.append(connection)
        if self._sweeping is None and not self._is_closed:
            self._sweep_in(MAX_IDLE_S)

    def _fail_queue(self, why: str) -> None:
        queue, self._queue = self._queue, deque()
        for request in queue:
            request.failed(why, is_unknown=False)
        if queue:
            self.on_free()

    # --- time-outs --------------------------------------------------------------------------------------------------

    def _watch(self, in_s: float) -> None:
        self._watching = asyncio.get_running_loop().call_later(max(in_s, 0.001), self._check)

    def _check(self) -> None:
        """Give up on what has waited too long for its answer, and look again when the next one may."""
        self._watching = None
        now = self._clock.mono()
        for connection in list(self._busy):
            if now >= self._give_up_at(connection):
                connection.abort("TimeoutError: no answer in time")
        if self._busy and self._watching is None:
            self._watch(min(map(self._give_up_at, self._busy)) - now)

    def _give_up_at(self, connection: Connection) -> float:
        limit_s = self._attempt_timeout_s if connection.is_slow else self._answer_timeout_s
        return connection.written_at + limit_s

    def _sweep_in(self, in_s: float) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(max(in_s, 0.1), self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        now = self._clock.mono()
        self._forget_reservations(now)
        limit_s = _MAX_IDLE_ARMED_S if self._reserved else MAX_IDLE_S
        self._drop_idle_since(now - limit_s)
        if self._idle:
            oldest = min(connection.idle_since for connection in self._idle)
            self._sweep_in(oldest + MAX_IDLE_S - now if not self._reserved else 1.0)

    def _drop_idle_since(self, before: float) -> None:
        old = [connection for connection in self._idle if connection.idle_since <= before]
        if old:
            self._idle = [connection for connection in self._idle if connection.idle_since > before]
            for connection in old:
                self._leave(connection)
                connection.abort("")

    # --- opening ----------------------------------------------------------------------------------------------------

    def _refresh_idle(self, at: float) -> None:
        """Drop what SNS may have closed by *at*, so that it is replaced in time."""
        self._drop_idle_since(at - _MAX_IDLE_ARMED_S)

    def _forget_reservations(self, now: float) -> None:
        while self._reserved and self._reserved[0][0] < now - _RESERVED_FOR_S:
            self._reserved.popleft()

    def _wanted(self, requests: int) -> int:
        """Return how many connections drain so many *requests* in good time."""
        round_trip_s = min(self._round_trip_s, self._round_trip_before_s)
        if round_trip_s == math.inf:
            round_trip_s = _ROUND_TRIP_S
        wanted = max(math.ceil(requests * round_trip_s / _DRAIN_S), min(requests, _LEAST))
        return min(wanted, self._max_connections)

    def _open_more(self, now: float) -> None:
        self._forget_reservations(now)
        armed = max((int(requests) for _, requests in self._reserved), default=0)
        self._open_towards(self._wanted(max(armed, len(self._busy) + len(self._queue))))

    def _open_towards(self, wanted: int) -> None:
        if self._is_closed:
            return
        while len(self._connections) + len(self._opening) < wanted and len(self._opening) < _MAX_OPENING:
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(task)

    async def _open(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        problem = "ConnectionClosedError: the connection was closed as soon as it was there"
        connection: Connection | None = None
        try:
            connection = await self._dialer.dial(self._make)
        except CannotConnect as exc:
            problem = str(exc)
        finally:
            self._opening.discard(task)
        if connection is None or not connection.is_open:
            if not self._connections and not self._opening:
                self._fail_queue(problem)
            return
        self._connections.add(connection)
        if self._queue:
            self._write(connection, self._queue.popleft())
        else:
            self._rest(connection)
        self._open_more(self._clock.mono())

    def _make(self) -> Connection:
        return Connection(self._replied, self._ended)

    # --- round trips ------------------------------------------------------------------------------------------------

    def _note_round_trip(self, took_s: float, now: float) -> None:
        if now > self._round_trip_until:
            self._round_trip_until = now + _ROUND_TRIPS_FOR_S
            self._round_trip_before_s, self._round_trip_s = self._round_trip_s, took_s
        elif took_s < self._round_trip_s:
            self._round_trip_s = took_s
