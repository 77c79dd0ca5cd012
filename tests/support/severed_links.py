"""TCP connections through this process that can be cut: what lies between a machine and AWS, in all the ways in which it fails."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_READ_BYTES = 65_536
_TIMEOUT_S = 10.0


class Cut(StrEnum):
    """How a link is cut."""

    REFUSED = "refused"
    """Connections are reset, and new ones too."""
    SILENT = "silent"
    """Nothing passes; what was on its way is lost."""
    DEAF = "deaf"
    """What is asked passes, and no answer; what was on its way is lost."""
    LATE = "late"
    """Nothing passes, and what was on its way arrives when the link is whole again."""


class Link:
    """One way to *port* of 127.0.0.1, for whoever connects to *url*. Its connections come from *source*."""

    def __init__(self, links: Links, port: int, source: str) -> None:
        self._links = links
        self._port = port
        self._source = source
        self._cut: Cut | None = None
        self._whole = asyncio.Event()
        self._whole.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.url = ""

    def cut(self, how: Cut) -> None:
        """Cut it, in another way if it is cut already."""
        self._links.do(lambda: self._begin(how))

    def heal(self) -> None:
        """Let everything pass again."""
        self._links.do(self._end)

    def _begin(self, how: Cut) -> None:
        self._cut = how
        self._whole.clear()
        if how is Cut.REFUSED:
            self._abort()

    def _end(self) -> None:
        if self._cut is not None and self._cut is not Cut.LATE:
            self._abort()
        self._cut = None
        self._whole.set()

    def _abort(self) -> None:
        for writer in [*self._writers]:
            writer.transport.abort()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        onward: asyncio.StreamWriter | None = None
        try:
            if self._cut is Cut.REFUSED:
                return
            back, onward = await asyncio.open_connection(
                "127.0.0.1", self._port, local_addr=(self._source, 0)
            )
            self._writers.add(onward)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, onward, {Cut.SILENT, Cut.LATE}))
                tasks.create_task(self._pass(back, writer, {Cut.SILENT, Cut.LATE, Cut.DEAF}))
        except* OSError:
            pass
        except* asyncio.CancelledError:
            pass  # all links end; the streams of 3.11 take it for an error of ours
        finally:
            for one in (writer, onward):
                if one is not None:
                    self._writers.discard(one)
                    one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held: set[Cut]) -> None:
        while data := await reader.read(_READ_BYTES):
            while self._cut in held:
                await self._whole.wait()
            writer.write(data)
            await writer.drain()
        while self._cut in held:
            await self._whole.wait()
        with suppress(OSError, RuntimeError):
            writer.write_eof()


class Links:
    """Links, run by a thread. A context manager: they are gone when it ends."""

    def __init__(self) -> None:
        self._links: list[Link] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._thread.start()

    def make(self, url: str, *, source: str = "127.0.0.1") -> Link:
        """Return a new link to a server of this machine. source: the address of 127.0.0.0/8 that its connections come from."""
        link = Link(self, int(url.rpartition(":")[2]), source)
        self._wait(link.listen())
        self._links.append(link)
        return link

    def do(self, act: Callable[[], None]) -> None:
        """Do it in the thread, and return when it is done."""

        async def work() -> None:
            act()

        self._wait(work())

    def close(self) -> None:
        async def end() -> None:
            for link in self._links:
                link.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._wait(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT_S)
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)
