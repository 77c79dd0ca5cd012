"""Servers that speak DynamoDB, one of each for a whole test session: moto's, and dynalite where Node has it."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from support.moto_server import free_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_START_TIMEOUT_S = 60.0
_names = itertools.count()


@cache
def table_server(kind: str) -> str | None:
    """Return the URL of the session's server of a kind, ``moto`` or ``dynalite``; None if it is not installed. The first call starts it."""
    port = free_port()
    if kind == "moto":
        command = [sys.executable, "-m", "support.moto_table_server", str(port)]
    else:
        script = dynalite()
        if script is None:
            return None
        command = [
            *("node", str(script), "--port", str(port), "--host", "127.0.0.1"),
            *("--createTableMs", "0", "--deleteTableMs", "0", "--updateTableMs", "0"),
        ]
    popen = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )

    def end() -> None:
        popen.kill()
        popen.wait()

    atexit.register(end)
    until = time.monotonic() + _START_TIMEOUT_S
    while True:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return f"http://127.0.0.1:{port}"
        assert popen.poll() is None, f"{command} ended with status {popen.returncode}"
        assert time.monotonic() < until, f"{command} does not listen"
        time.sleep(0.05)


def dynalite() -> Path | None:
    """Return dynalite's script: in the npm prefix that $DYNALITE names, or where ``make dynalite`` puts it."""
    if shutil.which("node") is None:
        return None
    prefix = Path(os.environ.get("DYNALITE") or Path.home() / ".cache" / "cronally-dynalite")
    script = prefix / "node_modules" / "dynalite" / "cli.js"
    return script if script.exists() else None


def new_table_name() -> str:
    """Return a name that no table of this session has."""
    return f"cronally-{os.getpid()}-{next(_names)}"


@cache
def _session() -> AioSession:
    session = AioSession()
    session.set_credentials("test", "test")
    return session


class TableClient:
    """One client of a server, made when it is first asked for; what ``DynamodbStore`` takes as *client*."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._context: Any = None
        self.client: Any = None

    async def __call__(self) -> Any:
        if self.client is None:
            self._context = _session().create_client(
                "dynamodb",
                region_name="us-east-1",
                endpoint_url=self._url,
                config=AioConfig(
                    retries={"total_max_attempts": 1}, max_pool_connections=20, parameter_validation=False
                ),
            )
            self.client = await self._context.__aenter__()
        return self.client

    async def close(self) -> None:
        if self.client is not None:
            self.client = None
            await self._context.__aexit__(None, None, None)
