"""A server that speaks DynamoDB, and a meter between it and those who use it, which counts what AWS would charge.

The meter goes by the sizes of items in requests and replies, as AWS describes it ("DynamoDB on-demand capacity mode"): what a server says
it has consumed is not looked at. ``python -m benchmarks._table URL`` is the meter: it prints ``{"port": …}``, and for each line on its
standard input what was consumed since the start.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from benchmarks._harness import ROOT, BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS = ("moto", "dynalite")
DOLLARS_PER_WRITE = 0.625e-6  # us-east-1, on demand, since November 2024
DOLLARS_PER_READ = 0.125e-6
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TARGET = re.compile(rb"\r\nx-amz-target: *DynamoDB_\d+\.(\w+)", re.IGNORECASE)
_START_TIMEOUT_S = 30.0


class Units(NamedTuple):
    """write: of 1 KB. read: of 4 KB, half of one if eventually consistent. calls: of all kinds."""

    write: float = 0.0
    read: float = 0.0
    calls: int = 0

    @property
    def dollars(self) -> float:
        return self.write * DOLLARS_PER_WRITE + self.read * DOLLARS_PER_READ

    def since(self, before: Units) -> Units:
        return Units(self.write - before.write, self.read - before.read, self.calls - before.calls)

    def plus(self, more: Units) -> Units:
        return Units(self.write + more.write, self.read + more.read, self.calls + more.calls)

    def times(self, factor: float) -> Units:
        return Units(self.write * factor, self.read * factor, round(self.calls * factor))


class TableServer:
    """A server of *kind* as a process, behind a meter. Attributes: url: of the meter."""

    def __init__(self, kind: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._server = subprocess.Popen(
            _command(kind, port),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + _START_TIMEOUT_S
        while not _listens(port):
            if self._server.poll() is not None or time.monotonic() > until:
                self._server.kill()
                raise BenchmarkError(f"{kind} does not listen")
            time.sleep(0.05)
        self._meter = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._table", f"http://127.0.0.1:{port}"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = f"http://127.0.0.1:{self._answer()['port']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._meter, self._server):
            process.kill()
            process.wait()
        for stream in (self._meter.stdin, self._meter.stdout):
            assert stream is not None
            stream.close()

    def units(self) -> Units:
        """Return what was consumed so far."""
        assert self._meter.stdin is not None
        self._meter.stdin.write("\n")
        self._meter.stdin.flush()
        return Units(**self._answer())

    def _answer(self) -> dict[str, Any]:
        assert self._meter.stdout is not None
        answer: dict[str, Any] = json.loads(self._meter.stdout.readline())
        return answer


def dynalite() -> Path | None:
    """Return dynalite's script, in the npm prefix that $DYNALITE names, if it is there."""
    prefix = Path(os.environ.get("DYNALITE") or Path.home() / ".cache" / "cronally-dynalite")
    script = prefix / "node_modules" / "dynalite" / "cli.js"
    return script if shutil.which("node") and script.exists() else None


def _command(kind: str, port: int) -> list[str]:
    if kind == "moto":
        return [sys.executable, str(ROOT / "tests" / "support" / "moto_table_server.py"), str(port)]
    script = dynalite()
    if script is None:
        raise BenchmarkError("dynalite is not installed: name the npm prefix that has it with DYNALITE=…")
    return [
        *("node", str(script), "--port", str(port), "--host", "127.0.0.1"),
        *("--createTableMs", "0", "--deleteTableMs", "0", "--updateTableMs", "0"),
    ]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- the meter ----------------------------------------------------------------------------------------------------


def item_bytes(item: Mapping[str, Any]) -> int:
    """Return the size of an item as DynamoDB has it: of names and values."""
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def _value_bytes(value: Mapping[str, Any]) -> int:
    [(type_, held)] = value.items()
    match type_:
        case "S":
            return len(held.encode())
        case "N":
            return len(held.lstrip("-")) // 2 + 2
        case "B":
            return len(held) * 3 // 4
        case "L":
            return 3 + sum(1 + _value_bytes(one) for one in held)
        case "M":
            return 3 + sum(1 + len(key.encode()) + _value_bytes(one) for key, one in held.items())
        case _:
            return 1


def consumed(operation: str, asked: Mapping[str, Any], reply: Mapping[str, Any]) -> Units:
    """Return what one call consumes. An update counts as one of a small item, a refused condition as what it refused."""
    match operation:
        case "PutItem":
            return Units(write=max(1, math.ceil(item_bytes(asked["Item"]) / 1024)), calls=1)
        case "UpdateItem" | "DeleteItem":
            return Units(write=1, calls=1)
        case "BatchWriteItem":
            puts = [
                one.get("PutRequest", {}).get("Item", {})
                for some in asked["RequestItems"].values()
                for one in some
            ]
            return Units(write=sum(max(1, math.ceil(item_bytes(item) / 1024)) for item in puts), calls=1)
        case "GetItem" | "Query":
            items = reply.get("Items", [reply["Item"]] if "Item" in reply else [])
            blocks = max(1, math.ceil(sum(map(item_bytes, items)) / 4096))
            return Units(read=blocks if asked.get("ConsistentRead") else blocks / 2, calls=1)
        case _:
            return Units(calls=1)


class _Meter:
    def __init__(self, port: int) -> None:
        self._port = port
        self.units = Units()
        self._serving: set[asyncio.Task[Any] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.current_task())  # the loop itself may forget it
        back, onward = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while True:
                head, body = await _message(reader)
                onward.write(head + body)
                reply_head, reply_body = await _message(back)
                writer.write(reply_head + reply_body)
                target = _TARGET.search(head)
                if target is not None:
                    reply = json.loads(reply_body or b"{}")
                    one = consumed(target[1].decode(), json.loads(body), reply)
                    self.units = self.units.plus(one)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for stream in (writer, onward):
                stream.transport.abort()
            self._serving.discard(asyncio.current_task())


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return head, await reader.readexactly(int(length[1]) if length else 0)


async def _main(url: str) -> None:
    meter = _Meter(int(url.rpartition(":")[2]))
    server = await asyncio.start_server(meter.serve, "127.0.0.1", 0, limit=1 << 20)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    while await commands.readline():
        print(json.dumps(meter.units._asdict()), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
