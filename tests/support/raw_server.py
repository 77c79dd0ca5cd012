"""A server that says exactly what a test wants, byte by byte; and an HTTP proxy."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable


class RawServer:
    """Reads requests with a Content-Length and has *answer* write what it likes.

    Attributes: requests: as they were read, head and body. connections: made so far. on_connect: called with each writer.
    """

    def __init__(
        self,
        answer: Callable[[bytes, asyncio.StreamWriter], Awaitable[None]],
        *,
        on_connect: Callable[[asyncio.StreamWriter], None] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._answer = answer
        self._on_connect = on_connect
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, ssl=self._tls, limit=8_000_000
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def wait_for_connections(self, count: int) -> None:
        """Return once *count* connections have been made."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.connections >= count)

    async def wait_for_open(self, count: int) -> None:
        """Return once exactly *count* connections are open."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._writers) == count)

    async def wait_for_requests(self, count: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= count)

    async def _note(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            await self._note()
            if self._on_connect is not None:
                self._on_connect(writer)
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                while not writer.is_closing():
                    request = await read_request(reader)
                    self.requests.append(request)
                    await self._note()
                    await self._answer(request, writer)
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
            self._tasks.discard(task)
            await self._note()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return head + await reader.readexactly(length)


class Proxy:
    """An HTTP proxy: CONNECT, and plain requests by their whole URL.

    Attributes: asked: the first line of each request. authorizations: the Proxy-Authorization of each, or None.
        refusal: what to answer instead of a tunnel, if not None.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        self.authorizations: list[str | None] = []
        self.refusal: bytes | None = None
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        first, *lines = request.split(b"\r\n\r\n", 1)[0].decode().split("\r\n")
        self.asked.append(first)
        headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
        self.authorizations.append(headers.get("proxy-authorization"))
        if self.refusal is not None:
            writer.write(self.refusal)
            await writer.drain()
            return
        method, target, _ = first.split(" ")
        where = target if method == "CONNECT" else target.split("/")[2]
        host, _, port = where.rpartition(":")
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
        else:
            inner_writer.write(request)
        try:
            await asyncio.gather(_pipe(reader, inner_writer), _pipe(inner_reader, writer))
        finally:
            inner_writer.transport.abort()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()
