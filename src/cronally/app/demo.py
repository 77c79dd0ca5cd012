"""A daemon and a stand-in that are there for a demo alone."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cronally.clock import SystemClock
from cronally.errors import PublishError
from cronally.sns.local import Received, find_stand_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

Messages: TypeAlias = "AsyncIterator[Received]"
"""What lies in a topic's queue of the stand-in, as it comes."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A daemon and a stand-in of their own, for as long as a demo lasts. messages: what lies in a topic's queue."""

    socket: str
    messages: Callable[[str], Messages]


@asynccontextmanager
async def demo_stage() -> AsyncIterator[Stage]:
    """Start a stand-in and ``cronally serve`` as processes of their own in a temporary directory; end both afterwards.

    Errors: PublishError, or the reason the daemon gave for not starting.
    """
    clock = SystemClock()
    with tempfile.TemporaryDirectory(prefix="cronally-demo-") as directory:
        home = Path(directory)
        stand_in = await find_stand_in(clock, log=home / "stand-in.log", port=_free_port())
        try:
            async with _daemon(home, stand_in.url) as socket_path:
                yield Stage(socket_path, stand_in.messages)
        finally:
            await stand_in.stop()


@asynccontextmanager
async def _daemon(home: Path, endpoint_url: str) -> AsyncIterator[str]:
    socket_path = str(home / "cronally.sock")
    arguments = ["serve", "--local", "--store", f"sqlite:{home}/cronally.db", "--socket", socket_path]
    daemon = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cronally",
        *arguments,
        env={**os.environ, "AWS_ENDPOINT_URL": endpoint_url},
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is the demo's: it stops the daemon in order
    )
    assert daemon.stderr is not None
    said = b""
    try:
        while b"ready" not in (line := await daemon.stderr.readline()):
            said = line or said
            if not line:
                raise PublishError(f"the daemon of the demo did not start: {said.decode().strip()}")
        reading = asyncio.ensure_future(daemon.stderr.read())
        yield socket_path
    finally:
        with suppress(ProcessLookupError):
            daemon.terminate()
        await daemon.wait()
    await reading


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
