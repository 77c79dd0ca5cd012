"""One stand-in (moto's server) for a whole test session."""

from __future__ import annotations

import asyncio
import atexit
import shutil
import socket
import tempfile
from functools import cache
from pathlib import Path

from cronally.clock import SystemClock
from cronally.sns.local import find_stand_in


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@cache
def moto_url() -> str:
    """Return the URL of the session's stand-in; the first call starts it. Not to be called on a running event loop."""
    folder = tempfile.mkdtemp(prefix="cronally-moto-")

    async def start() -> str:
        stand_in = await find_stand_in(SystemClock(), log=Path(folder) / "log", port=free_port())
        await stand_in.close()
        assert stand_in.process is not None
        popen = stand_in.process.popen

        def end() -> None:
            popen.kill()
            popen.wait()
            shutil.rmtree(folder, ignore_errors=True)

        atexit.register(end)
        return stand_in.url

    return asyncio.run(start())
