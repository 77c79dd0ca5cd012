"""Opening connections: addresses, TCP, a proxy's tunnel, TLS."""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from cronally.actions import about

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronally.clock import Clock

CONNECT_TIMEOUT_S = 3.0
RESOLVED_FOR_S = 120.0  # the records of AWS live for 60 s; an address that is gone is noticed when it fails
_NEXT_ADDRESS_S = 1.0  # when there is another one to try
_MAX_HEAD_BYTES = 16_384  # of a proxy's answer
_SAY_EVERY_S = 60.0

_log = logging.getLogger(__name__)

ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)


class Proxy(NamedTuple):
    """An HTTP proxy. tls: how to speak to the proxy itself, None in clear. authorization: of its Basic scheme."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    authorization: str | None = None


class Route(NamedTuple):
    """Where to connect to. tls: None for plain HTTP; then a proxy is asked request by request, without a tunnel."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    proxy: Proxy | None = None


class CannotConnect(Exception):  # noqa: N818 - what happened, not whose fault it is
    """No connection came about; the text says why."""


class Dialer:
    """Opens connections along one route. Names are resolved ahead of their use, and again after a failure."""

    def __init__(self, route: Route, clock: Clock, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        """timeout_s: for all that opening takes but the name."""
        self._route = route
        self._clock = clock
        self._timeout_s = timeout_s
        self._addresses: list[str] = []
        self._resolved_at = 0.0
        self._resolving: asyncio.Task[list[str]] | None = None
        self._turn = 0
        self._silent_until = float("-inf")

    async def dial(self, make: Callable[[], ProtocolT]) -> ProtocolT:
        """Return a protocol of *make* that is connected. Errors: CannotConnect."""
        route = self._route
        where = f"{route.host}:{route.port}"
        if route.proxy is not None:
            where = f"{where} through the proxy {route.proxy.host}:{route.proxy.port}"
        try:
            addresses = await self._resolved()
            async with asyncio.timeout(self._timeout_s):
                return await self._through(addresses, make)
        except TimeoutError:
            self._forget()
            raise CannotConnect(f"ConnectTimeoutError: no connection to {where} in time") from None
        except ssl.SSLCertVerificationError as exc:
            raise CannotConnect(
                f"SSLCertVerificationError: the certificate of {where} is not trusted: {exc.verify_message}; "
                "AWS_CA_BUNDLE names the authorities to trust"
            ) from exc
        except (
            OSError,
            UnicodeError,
            RuntimeError,
        ) as exc:  # a host that is no name, and what an event loop makes of it
            self._forget()
            if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
                self._say_exhausted(where)
            raise CannotConnect(f"{type(exc).__name__}: cannot connect to {where}: {exc}") from exc

    async def _through(self, addresses: Sequence[str], make: Callable[[], ProtocolT]) -> ProtocolT:
        route, proxy = self._route, self._route.proxy
        if proxy is None:
            return await self._connect(addresses, route.port, route.host, route.tls, make)
        if route.tls is None:
            return await self._connect(addresses, proxy.port, proxy.host, proxy.tls, make)
        tunnel = await self._connect(addresses, proxy.port, proxy.host, proxy.tls, _Tunnel)
        try:
            await tunnel.open(route, proxy)
            protocol = make()
            upper = await asyncio.get_running_loop().start_tls(
                tunnel.transport, protocol, route.tls, server_hostname=route.host
            )
        except BaseException:
            tunnel.transport.abort()
            raise
        if upper is None:  # so says the loop if the other side went away just now
            raise ConnectionResetError("the connection was closed during the handshake")
        protocol.connection_made(upper)
        return protocol

    async def _connect(
        self,
        addresses: Sequence[str],
        port: int,
        host: str,
        tls: ssl.SSLContext | None,
        make: Callable[[], ProtocolT],
    ) -> ProtocolT:
        """Return a connection to the first of *addresses* that takes one, beginning with another one each time."""
        self._turn += 1
        start = self._turn % len(addresses)
        ordered = [*addresses[start:], *addresses[:start]]
        loop = asyncio.get_running_loop()
        for address in ordered:
            is_last = address is ordered[-1]
            try:
                async with asyncio.timeout(None if is_last else _NEXT_ADDRESS_S):
                    _, protocol = await loop.create_connection(
                        make, address, port, ssl=tls, server_hostname=host if tls else None
                    )
                    return protocol
            except (OSError, TimeoutError) as exc:
                if is_last or isinstance(exc, ssl.SSLCertVerificationError):
                    raise
                # Those that follow go first from now on: a family of addresses that leads nowhere costs one second once.
                self._addresses = [other for other in self._addresses if other != address]
        raise OSError("there is no address")

    async def _resolved(self) -> list[str]:
        if self._addresses and self._clock.mono() - self._resolved_at < RESOLVED_FOR_S:
            return self._addresses
        if self._resolving is None:
            self._resolving = asyncio.create_task(self._resolve())
            self._resolving.add_done_callback(_seen)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(self._resolving)
        except (OSError, TimeoutError):
            if self._addresses:  # old ones are better than none
                return self._addresses
            raise

    async def _resolve(self) -> list[str]:
        peer = self._route.proxy or self._route
        try:
            found = await asyncio.get_running_loop().getaddrinfo(peer.host, peer.port, type=1)
        finally:
            self._resolving = None
        self._addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        self._resolved_at = self._clock.mono()
        return self._addresses

    def _say_exhausted(self, where: str) -> None:
        now = self._clock.mono()
        if now >= self._silent_until:
            self._silent_until = now + _SAY_EVERY_S
            _log.warning(
                "no file descriptor is left for a connection to %s; fires wait until there is one: allow the daemon more "
                "(LimitNOFILE of its service, or ulimit -n), or see who keeps connections to its socket open",
                where,
                extra=about("sns.no_descriptors", host=where),
            )

    def _forget(self) -> None:
        """Have the name resolved again before the next connection."""
        self._resolved_at = float("-inf")

    async def close(self) -> None:
        if self._resolving is not None:
            self._resolving.cancel()
            await asyncio.gather(self._resolving, return_exceptions=True)


def _seen(task: asyncio.Task[list[str]]) -> None:
    """Look at how *task* ended: those who waited for it may have given up before."""
    if not task.cancelled():
        task.exception()


class _Tunnel(asyncio.Protocol):
    """Asks a proxy for a tunnel: CONNECT, RFC 9110, 9.3.6."""

    def __init__(self) -> None:
        self._head = b""
        self._answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    async def open(self, route: Route, proxy: Proxy) -> None:
        """Return once there is a tunnel. Errors: OSError with what the proxy said."""
        host = f"[{route.host}]" if ":" in route.host else route.host
        authorization = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
        where = f"{host}:{route.port}"
        self.transport.write(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{authorization}\r\n".encode())
        head = await self._answered
        version, _, status = head.split(b"\r\n", 1)[0].partition(b" ")
        if not version.startswith(b"HTTP/1.") or not status.startswith(b"2"):
            said = head.split(b"\r\n", 1)[0].decode("latin-1")[:100]
            raise OSError(f"the proxy answered {said!r}")

    def data_received(self, data: bytes) -> None:
        self._head += data
        if not self._answered.done() and (b"\r\n\r\n" in self._head or len(self._head) > _MAX_HEAD_BYTES):
            self._answered.set_result(self._head)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError("the proxy closed the connection"))
            self._answered.exception()  # seen, whoever still waits
