"""How soon does tail show a fire, and what does it cost to have top open."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
import threading
import time
from typing import TYPE_CHECKING, Any

from benchmarks._harness import COMMAND, Daemon, Receiver, fresh_home, line, say, scheduled_ns, scratch
from benchmarks._report import asked_table, at_most, machine, machine_line, median, table
from cronally.instants import parse_rfc3339

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

QUICK = ["--schedules", "10000", "--seconds", "20"]
ASKED_TAIL_MS = 50
ASKED_TOP_SHARE = 2  # per cent of a core
_WARM_UP_S = 4
_SCREEN = (40, 120)  # rows and columns


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=60, help="of each measurement")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure. tail_ms: from published_at, which is rounded down to a millisecond, until the line has been read."""
    facts = machine()
    with scratch() as directory, Receiver() as receiver, Daemon(fresh_home(directory), receiver) as daemon:
        minutes = (
            line(number, f"{number % 60} {number // 60 % 24} * * *") for number in range(options.schedules)
        )
        daemon.apply([*minutes, line(options.schedules, "@every 1s")])
        say(f"views: {options.schedules:,} schedules are there")
        tail_ms = sorted(_tail_ms(daemon, options.seconds))
        at_rest = 100 * daemon.cpu_per_second(options.seconds)
        with _top(daemon) as process_id:
            time.sleep(_WARM_UP_S)
            before, began = scheduled_ns(process_id), time.monotonic()
            beside = 100 * daemon.cpu_per_second(options.seconds)
            own = 100 * (scheduled_ns(process_id) - before) / 1e9 / (time.monotonic() - began)
    tail = {"p50": median(tail_ms), "max": tail_ms[-1], "count": len(tail_ms)}
    top = {"own": own, "daemon_at_rest": at_rest, "daemon": beside, "both": own + beside - at_rest}
    return {
        "benchmark": "views",
        "machine": facts,
        "schedules": options.schedules,
        "seconds": options.seconds,
        "tail_ms": tail,
        "top_share": top,
        "asked": [
            at_most("tail, the slowest", ASKED_TAIL_MS, tail["max"], "ms"),
            at_most("top and what it asks of the daemon", ASKED_TOP_SHARE, top["both"], "% of a core"),
        ],
    }


def _tail_ms(daemon: Daemon, seconds: int) -> Iterator[float]:
    arguments = [str(COMMAND), "tail", "--json", "--state", "published"]
    tail = subprocess.Popen(arguments, env=daemon.environment, stdout=subprocess.PIPE, text=True)
    assert tail.stdout is not None
    try:
        for _ in range(seconds):
            fire = json.loads(tail.stdout.readline())
            yield time.time() * 1000 - parse_rfc3339(fire["published_at"])
    finally:
        tail.terminate()
        tail.wait()
        tail.stdout.close()


@contextlib.contextmanager
def _top(daemon: Daemon) -> Iterator[int]:
    """Have ``top`` open on a terminal for the block; yield its process id."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *_SCREEN, 0, 0))
    environment = daemon.environment | {"TERM": "xterm-256color"}
    top = subprocess.Popen(
        [str(COMMAND), "top"],
        env=environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    reader = threading.Thread(target=_read_all, args=(master,))
    reader.start()
    try:
        yield top.pid
    finally:
        os.write(master, b"q")
        top.wait(20)
        reader.join()
        os.close(master)


def _read_all(master: int) -> None:
    with contextlib.suppress(OSError):  # its other end was closed
        while os.read(master, 65_536):
            pass


def render(result: dict[str, Any]) -> str:
    """Write the result of run() as tables."""
    tail, top = result["tail_ms"], result["top_share"]
    title = f"views: {result['schedules']:,} schedules, one fires every second; {result['seconds']} s each"
    rows = [
        ("tail: published until its line is read, ms", tail["p50"], tail["max"]),
        ("top: its own process, % of a core", top["own"], None),
        ("the daemon while it is open, % of a core", top["daemon"], None),
        ("the daemon without it, % of a core", top["daemon_at_rest"], None),
    ]
    return "\n\n".join(
        [
            f"{title}\n{machine_line(result['machine'])}",
            table(("", "median", "max"), rows),
            asked_table(result["asked"]),
        ]
    )
