"""Clients that mean ill, many at once, for a while: what they send, and what they were told.

    python -m benchmarks._attack SOCKET --clients 200 --seconds 20

It writes one JSON document: how often each status was the answer (``none``: closed without one), how long a well-behaved
client waited for its own meanwhile, and which answers were bugs of the daemon.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

from benchmarks._harness import TOPIC

_ANSWER_S = 20.0
_MEGABYTE = 1_048_576

Bytes = AsyncIterator[bytes]
_DOCUMENT = {"when": "0 9 * * *", "topic": TOPIC}


def _head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: evil.example", *headers, "", ""]).encode()


def _put(body: bytes) -> bytes:
    return _head("PUT", "/v1/schedules/attack", f"Content-Length: {len(body)}") + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_APPLY = _head("POST", "/v1/apply", "Transfer-Encoding: chunked")


def _fixed(data: bytes) -> Callable[[random.Random], Bytes]:
    async def send(_dice: random.Random) -> Bytes:
        yield data

    return send


async def _idle(_dice: random.Random) -> Bytes:
    yield b""
    await asyncio.sleep(1)


async def _slow_head(_dice: random.Random) -> Bytes:
    for byte in _head("GET", "/v1/status"):
        yield bytes([byte])
        await asyncio.sleep(0.05)


async def _slow_body(_dice: random.Random) -> Bytes:
    yield _head("PUT", "/v1/schedules/attack", "Content-Length: 1000000")
    for _ in range(20):
        yield b"x" * 40_000
        await asyncio.sleep(0.05)


async def _endless_body(_dice: random.Random) -> Bytes:
    yield _head("PUT", "/v1/schedules/attack", "Transfer-Encoding: chunked")
    for _ in range(1_024):
        yield _chunk(b"x" * _MEGABYTE)


async def _endless_line(_dice: random.Random) -> Bytes:
    yield _APPLY
    for _ in range(1_024):
        yield _chunk(b"x" * _MEGABYTE)


async def _empty_lines(_dice: random.Random) -> Bytes:
    yield _APPLY
    for _ in range(10):
        yield _chunk(b"\n" * 100_000)
    yield b"0\r\n\r\n"


async def _bad_lines(_dice: random.Random) -> Bytes:
    yield _APPLY
    for number in range(500):
        yield _chunk(json.dumps({"name": "a", **_DOCUMENT, "tz": f"No/Where{number}"}).encode() + b"\n")
    yield b"0\r\n\r\n"


async def _stalled_apply(_dice: random.Random) -> Bytes:
    yield _APPLY + _chunk(json.dumps({"name": "a", **_DOCUMENT}).encode())
    await asyncio.sleep(1)


async def _garbage(dice: random.Random) -> Bytes:
    yield dice.randbytes(dice.randrange(1, 500))


ATTACKS: dict[str, Callable[[random.Random], Bytes]] = {
    "idle": _idle,
    "slow head": _slow_head,
    "slow body": _slow_body,
    "endless body": _endless_body,
    "endless line": _endless_line,
    "empty lines": _empty_lines,
    "bad lines": _bad_lines,
    "stalled apply": _stalled_apply,
    "garbage": _garbage,
    "a gibibyte": _fixed(_head("PUT", "/v1/schedules/attack", f"Content-Length: {1 << 30}")),
    "long line": _fixed(b"GET /" + b"a" * _MEGABYTE),
    "deep": _fixed(_put(b"[" * 30_000)),
    "numbers": _fixed(_put(b"[" + b"0," * 500_000 + b"0]")),
    "pairs": _fixed(_put(b"{" + b",".join(b'"%d": 0' % number for number in range(80_000)) + b"}")),
    "escapes": _fixed(_put(json.dumps({**_DOCUMENT, "message": "\t" * 170_000}).encode())),
    "long when": _fixed(_put(json.dumps({**_DOCUMENT, "when": "0," * 480 + "0 0 1 1 *"}).encode())),
    "no zone": _fixed(_put(json.dumps({**_DOCUMENT, "tz": "../etc/passwd"}).encode())),
    "list": _fixed(_head("GET", "/v1/schedules?limit=1000")),
    "history": _fixed(_head("GET", "/v1/fires?limit=1000")),
    "next": _fixed(_head("GET", "/v1/schedules/rare/next?count=1000")),
    "path": _fixed(_head("GET", "/v1/schedules/%2e%2e%2f%00%ff")),
    "pipeline": _fixed(_head("GET", "/v1/status") * 100),
}


async def _attack(
    path: str, send: Callable[[random.Random], Bytes], dice: random.Random
) -> tuple[str, bytes]:
    """Send, and return the status that was the answer with its beginning."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError:  # many are at the door already
        await asyncio.sleep(0.05)
        return "no connection", b""
    try:
        try:
            async for data in send(dice):
                writer.write(data)
                await writer.drain()
                if reader.at_eof():
                    break
        except OSError:
            pass  # refused before all was sent
        async with asyncio.timeout(
            0.5 if send in {_idle, _slow_body, _garbage, _stalled_apply} else _ANSWER_S
        ):
            answer = await reader.read(65_536)
    except (OSError, TimeoutError):
        answer = b""
    finally:
        writer.transport.abort()
    return (answer[9:12].decode("latin-1") or "none"), answer


async def _ask(path: str) -> float:
    """Return how long a well-behaved client waits for its answer, in seconds; infinite if it was refused."""
    began = time.monotonic()
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(path)
            break
        except BlockingIOError:
            await asyncio.sleep(0.001)
    try:
        writer.write(_head("GET", "/v1/schedules?limit=10", "Connection: close"))
        answer = await reader.read()
    except OSError:
        answer = b""
    finally:
        writer.transport.abort()
    return time.monotonic() - began if b" 200 " in answer[:20] else float("inf")


async def run(path: str, *, clients: int, seconds: float, seed: int = 1) -> dict[str, Any]:
    """Attack the daemon at *path*."""
    end = time.monotonic() + seconds
    statuses: Counter[str] = Counter()
    bugs: list[str] = []
    waits: list[float] = []

    async def client(number: int) -> None:
        dice = random.Random(seed * 1_000 + number)
        while time.monotonic() < end:
            name = dice.choice(list(ATTACKS))
            status, answer = await _attack(path, ATTACKS[name], dice)
            statuses[status] += 1
            if status == "500":
                bugs.append(f"{name}: {answer[-300:]!r}")

    async def honest() -> None:
        while time.monotonic() < end:
            waits.append(await _ask(path))
            await asyncio.sleep(0.1)

    await asyncio.gather(honest(), *(client(number) for number in range(clients)))
    answered = sorted(wait for wait in waits if wait != float("inf"))
    return {
        "statuses": dict(sorted(statuses.items())),
        "bugs": bugs[:10],
        "asked": len(waits),
        "refused": len(waits) - len(answered),
        "wait_ms": {
            "p50": round(answered[len(answered) // 2] * 1000, 1) if answered else None,
            "max": round(answered[-1] * 1000, 1) if answered else None,
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    json.dump(asyncio.run(run(given.socket, clients=given.clients, seconds=given.seconds)), sys.stdout)
