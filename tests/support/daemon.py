"""A daemon for tests of the admin socket: the real server and service on a real Unix socket, an engine in memory.

It runs on an event loop of its own thread, so that the synchronous client and the commands can speak to it.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from cronally.admin.client import Client
from cronally.admin.server import AdminServer
from support.rig import TOPIC, running_engine

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from cronally.engine.copies import BackupMaker
    from cronally.engine.reporting import Reporting
    from cronally.engine.service import Service
    from support.rig import Rig

_T = TypeVar("_T")


@dataclass
class Daemon:
    """A running one. Its clock stands at 2026-11-23T08:59:30Z until ``advance`` is awaited with ``call``."""

    socket: str
    rig: Rig
    server: AdminServer
    loop: asyncio.AbstractEventLoop

    @property
    def service(self) -> Service:
        return self.rig.service

    @property
    def reporting(self) -> Reporting:
        return self.rig.reporting

    def client(self) -> Client:
        return Client(self.socket)

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run *work* on the daemon's loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=20)

    def add(self, name: str, when: str = "0 9 * * *", **keys: object) -> None:
        self.call(self.service.put(name, {"when": when, "topic": TOPIC, **keys}, by="test"))


@contextmanager
def running_daemon(
    directory: Path, *, backup_maker: BackupMaker | None = None, read_only_group: str | None = None
) -> Iterator[Daemon]:
    """Run a daemon for the block; its socket is ``cronally.sock`` in *directory*."""
    socket = str(directory / "cronally.sock")
    found: list[Daemon] = []
    failed: list[BaseException] = []
    started, stop = threading.Event(), asyncio.Event()

    async def main() -> None:
        async with running_engine(backup_maker=backup_maker) as rig:
            server = AdminServer(
                rig.service, rig.reporting, rig.clock, socket_path=socket, read_only_group=read_only_group
            )
            await server.start()
            found.append(Daemon(socket, rig, server, asyncio.get_running_loop()))
            started.set()
            await stop.wait()
            await server.close()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as exc:  # noqa: BLE001 - raised again in the test
            failed.append(exc)
        finally:
            started.set()

    thread = threading.Thread(target=run, name="daemon")
    thread.start()
    started.wait(timeout=20)
    try:
        if failed:
            raise failed[0]
        yield found[0]
    finally:
        if found and thread.is_alive():
            found[0].loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=20)
    if failed:
        raise failed[0]
