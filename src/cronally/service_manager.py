"""What the service manager is told (sd_notify(3)): ready, why not, still alive, stopping.

1. One datagram for each message, to the socket in ``NOTIFY_SOCKET``; without one nothing is said. It never waits: what the
   socket does not take now goes before the next message.
2. The watchdog is pinged only while the engine's loops go round; nothing else keeps it quiet.
3. What takes long at start and at a stop asks for more time, as long as the event loop turns.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from cronally.actions import about
from cronally.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cronally.clock import Clock

ADDRESS_VARIABLE: Final = "NOTIFY_SOCKET"
_LOOK_EVERY_S: Final = 1.0  # at what there is to say
_PINGS: Final = 4  # in the time the watchdog waits; sd_watchdog_enabled(3) wants two or more
_EXTENSION_S: Final = 30.0  # asked for anew with each look; what hangs then is noticed after as much
_STOP_S: Final = 60.0  # beside the drain: to put on record what was sent, and close the store
_MOST_WAITING: Final = 20  # messages that were not taken
_FLEETING: Final = {"WATCHDOG", "EXTEND_TIMEOUT_USEC"}  # said again soon: not worth a place there
_MOST_CHARS: Final = 300  # of a status

_log = logging.getLogger("cronally")


class ServiceManager:
    """The other end of the socket. Attributes: watchdog_s: how long it waits between two pings; None for ever."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        """address: a path, or a name with ``@`` before it (abstract, unix(7)); None if nobody listens."""
        self.watchdog_s = watchdog_s if address else None
        self._address = f"\0{address[1:]}" if address and address[0] == "@" else address
        self._socket = (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if address else None
        )
        if self._socket is not None:
            self._socket.setblocking(False)
        self._waiting: deque[bytes] = deque(maxlen=_MOST_WAITING)

    @classmethod
    def found_in(cls, environ: Mapping[str, str]) -> ServiceManager:
        """Return the one that *environ* names, or one that nobody hears."""
        address = environ.get(ADDRESS_VARIABLE)
        if address is None or address[:1] not in ("/", "@") or len(address) < 2:
            return cls(None)
        # WATCHDOG_PID may be our parent's: a command in a single file runs as its own child.
        is_meant = environ.get("WATCHDOG_PID") in (None, "", str(os.getpid()), str(os.getppid()))
        usec = environ.get("WATCHDOG_USEC", "")
        is_watched = is_meant and usec.isascii() and usec.isdigit() and int(usec) > 0
        return cls(address, int(usec) / 1_000_000 if is_watched else None)

    @property
    def is_there(self) -> bool:
        return self._socket is not None

    def tell(self, **fields: str | int) -> None:
        """Say ``READY=1`` and the like, in one message."""
        if self._socket is None:
            return
        if not self._waiting or not fields.keys() <= _FLEETING:
            self._waiting.append("\n".join(f"{key}={value}" for key, value in fields.items()).encode())
        while self._waiting:
            try:
                self._socket.sendto(self._waiting[0], self._address or "")
            except BlockingIOError:
                return
            except OSError as exc:  # it has gone, or is none: nothing fires later or less for it
                _log.warning(
                    "the service manager at %s is not reached: %s",
                    self._address,
                    exc,
                    extra=about("service_manager.unreachable", address=self._address, error=str(exc)),
                )
                self.close()
                return
            self._waiting.popleft()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


class Supervision:
    """Tells a service manager how the daemon is, from its start to its end.

    Attributes: silence: says for how many seconds which of the engine's loops has not passed. not_ready_because: says why the
        daemon is not ready, None if it is. Set both once there is an engine.
    """

    def __init__(self, manager: ServiceManager, clock: Clock) -> None:
        self._manager = manager
        self._clock = clock
        self.silence: Callable[[], tuple[float, str | None]] = lambda: (0.0, None)
        self.not_ready_because: Callable[[], str | None] = lambda: "it is starting"
        self._is_starting = True
        self._is_stopping = False
        self._said: str | None = None
        self._pinged_at: float | None = None
        self._is_silent = False

    async def run(self) -> None:
        """Say what there is to say, until cancelled."""
        if not self._manager.is_there:
            return
        every_s = _LOOK_EVERY_S
        if self._manager.watchdog_s is not None:
            every_s = min(every_s, self._manager.watchdog_s / _PINGS)
        while True:
            self.look()
            await self._clock.sleep(every_s)

    def look(self) -> None:
        """Say what has changed, and what is to be said again by now."""
        self._tell_status()
        if self._is_starting:
            self._manager.tell(EXTEND_TIMEOUT_USEC=_usec(_EXTENSION_S))
        self._ping()

    def ready(self) -> None:
        """The socket answers, and what was missed is decided."""
        self._is_starting = False
        self._said = self._status()
        self._manager.tell(READY=1, STATUS=self._said)

    def reloading(self) -> None:
        """The settings are read again; ``ready`` ends that."""
        self._manager.tell(RELOADING=1, MONOTONIC_USEC=_usec(self._clock.mono()))

    def stopping(self, drain_s: float) -> None:
        """The daemon stops; messages in flight may take *drain_s* seconds to be answered."""
        self._is_starting, self._is_stopping = False, True
        self._said = self._status()
        self._manager.tell(STOPPING=1, STATUS=self._said, EXTEND_TIMEOUT_USEC=_usec(drain_s + _STOP_S))

    def _status(self) -> str:
        because = self.not_ready_because()
        return "ready" if because is None else printable(f"not ready: {because}")[:_MOST_CHARS]

    def _tell_status(self) -> None:
        status = self._status()
        if status != self._said:
            self._said = status
            self._manager.tell(STATUS=status)

    def _ping(self) -> None:
        watchdog_s = self._manager.watchdog_s
        if watchdog_s is None:
            return
        now = self._clock.mono()
        silent_s, loop = self.silence()
        if not self._is_stopping and silent_s > watchdog_s / 2:
            if not self._is_silent:
                _log.error(
                    "the engine's loop %r has not passed for %.0f s: the watchdog is told no more",
                    loop,
                    silent_s,
                    extra=about("daemon.hangs", loop=loop, silent_s=round(silent_s)),
                )
            self._is_silent = True
            return
        self._is_silent = False
        if self._pinged_at is None or now - self._pinged_at >= watchdog_s / _PINGS * 0.99:
            self._pinged_at = now
            self._manager.tell(WATCHDOG=1)


def _usec(duration_s: float) -> int:
    return int(duration_s * 1_000_000)
