"""What do stored schedules cost that are not due: time to start, memory, processor time, time to add one more.

Most schedules share a few thousand recurrences. With ``--distinct`` each has a rule of its own instead.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING, Any

from benchmarks._harness import NAMES, TOPIC, Daemon, Receiver, fresh_home, line, say, scratch
from benchmarks._report import asked_table, at_most, machine, machine_line, median, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

QUICK = ["--sizes", "100000,1000000", "--mixes", "shared", "--runs", "1", "--idle-s", "10"]
MIXES = ("shared", "distinct")
ASKED_SIZE = 1_000_000
ASKED_START_S = 15
ASKED_MEMORY_MB = {"shared": 250, "distinct": 500}
ASKED_IDLE_PER_CENT = 1
ASKED_ADD_MS = 50

_SHARED = 3_000  # recurrences
_CHUNK = 100_000  # schedules per file
_DUE = 100  # schedules that fire every
_EVERY_S = 5
_ZONES = ("UTC", "Europe/London", "America/New_York", "Asia/Tokyo", "Asia/Kolkata", "Australia/Lord_Howe")
_BUSY = 0.05  # of a core: it is not at rest yet
_PATIENCE_S = 300
_STRIDE = 7_919_003  # a prime: neighbours get rules that lie far apart


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sizes",
        type=lambda text: sorted(int(item.replace("_", "")) for item in text.split(",")),
        default=[10_000, 100_000, 1_000_000],
        metavar="N,N",
    )
    parser.add_argument("--mixes", type=lambda text: text.split(","), default=list(MIXES), metavar="MIX,MIX")
    parser.add_argument(
        "--distinct", action="store_const", dest="mixes", const=["distinct"], help="only this mix"
    )
    parser.add_argument("--idle-s", type=float, default=20.0, help="how long each rest is measured")
    parser.add_argument("--runs", type=int, default=5, help="starts of each size")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure. Each size adds to the store of the one before it, which is then started anew."""
    facts = machine()
    rows = []
    for mix in options.mixes:
        with scratch() as directory, Receiver() as receiver:
            home = fresh_home(directory)
            stored = 0
            for size in options.sizes:
                fill_s = _fill(home, receiver, mix, stored, size)
                stored = size
                starts = [_start_s(home, receiver) for _ in range(options.runs - 1)]
                with Daemon(home, receiver) as daemon:
                    starts.append(daemon.start_s)
                    row = {"mix": mix, "size": size, "starts_s": starts, "start_s": median(starts)}
                    rows.append(row | {"fill_s": fill_s} | _at_rest(daemon, options.idle_s, size))
                say(f"scale {mix} {size:,}: start {row['start_s']:.1f} s, {rows[-1]['memory_mb']:.0f} MB")
    return {"benchmark": "scale", "machine": facts, "rows": rows, "asked": _asked(rows)}


def _fill(home: Path, receiver: Receiver, mix: str, begin: int, end: int) -> float:
    took_s = 0.0
    with Daemon(home, receiver) as daemon:
        for start in range(begin, end, _CHUNK):
            took_s += daemon.apply(_lines(mix, start, min(start + _CHUNK, end)))
    return took_s


def _start_s(home: Path, receiver: Receiver) -> float:
    with Daemon(home, receiver) as daemon:
        return daemon.start_s


def _lines(mix: str, begin: int, end: int) -> Iterator[str]:
    days = _quiet_days()
    for number in range(begin, end):
        when, tz = _rule(number if mix == "distinct" else number % _SHARED, days)
        yield line(number, when, tz=tz)


def _quiet_days() -> list[int]:
    """Return days of the month that are not near, in any zone: nothing is to fire while we measure."""
    today = dt.datetime.now(dt.UTC).date()
    near = {(today + dt.timedelta(days=shift)).day for shift in (-1, 0, 1, 2)}
    return [day for day in range(1, 29) if day not in near]


def _rule(number: int, days: list[int]) -> tuple[str, str]:
    """Return a rule and its zone, another for every *number* up to some millions."""
    total = 60 * 24 * len(days) * 12 * len(_ZONES)
    rest, minute = divmod(number * _STRIDE % total, 60)
    rest, hour = divmod(rest, 24)
    rest, day = divmod(rest, len(days))
    zone, month = divmod(rest, 12)
    return f"{minute} {hour} {days[day]} {month + 1} *", _ZONES[zone]


def _at_rest(daemon: Daemon, idle_s: float, size: int) -> dict[str, Any]:
    busy_s = _busy_s(daemon)
    memory_mb = daemon.memory_mb()
    idle = daemon.cpu_per_second(idle_s)
    commands = [_timed_ms(daemon, number) for number in range(5)]
    puts = [_put_ms(daemon, number) for number in range(20)]
    daemon.apply(line(number, f"@every {_EVERY_S}s", names="due-{:d}") for number in range(_DUE))
    time.sleep(2 * _EVERY_S - time.time() % _EVERY_S - _EVERY_S / 2)  # to the middle between two instants
    with_due = daemon.cpu_per_second(max(1, round(idle_s / _EVERY_S)) * _EVERY_S)
    for number in range(_DUE):
        daemon.client.remove(f"due-{number}")
    for number in range(len(commands)):
        daemon.client.remove(f"command-{number}")
    for number in range(len(puts)):
        daemon.client.remove(f"put-{number}")
    assert daemon.client.status().schedules == size
    return {
        "busy_s": busy_s,
        "memory_mb": memory_mb,
        "idle_per_cent": idle * 100,
        # At rest the daemon looks up once a second.
        "tick_ms": idle * 1000,
        "tick_due_ms": (with_due - idle) * _EVERY_S * 1000,
        "add_ms": median(commands),
        "put_ms": median(puts),
        "put_max_ms": max(puts),
    }


def _busy_s(daemon: Daemon) -> float:
    """Wait until what the start has left to be done is done; return how long that took, 0 if there was nothing."""
    began = time.monotonic()
    while daemon.cpu_per_second(1.0) > _BUSY and time.monotonic() < began + _PATIENCE_S:
        pass
    return max(0.0, time.monotonic() - began - 1.0)


def _timed_ms(daemon: Daemon, number: int) -> float:
    began = time.perf_counter()
    daemon.run("add", f"command-{number}", "0 9 1 1 *", "--topic", TOPIC, "--message", "{}")
    return (time.perf_counter() - began) * 1000


def _put_ms(daemon: Daemon, number: int) -> float:
    document = {"when": "0 9 1 1 *", "topic": TOPIC, "message": NAMES.format(number)}
    began = time.perf_counter()
    daemon.client.put(f"put-{number}", document)
    return (time.perf_counter() - began) * 1000


def _asked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    figures = []
    for row in rows:
        if row["size"] == ASKED_SIZE:
            mix = row["mix"]
            figures += [
                at_most(f"start, {mix}", ASKED_START_S, row["start_s"], "s"),
                at_most(f"resident, {mix}", ASKED_MEMORY_MB[mix], row["memory_mb"], "MB"),
                at_most(f"idle, {mix}", ASKED_IDLE_PER_CENT, row["idle_per_cent"], "% of a core"),
                at_most(f"add on the socket, {mix}", ASKED_ADD_MS, row["put_ms"], "ms"),
            ]
    return figures


def render(result: dict[str, Any]) -> str:
    """Write the result of run() as tables."""
    keys = (
        "start_s",
        "busy_s",
        "memory_mb",
        "idle_per_cent",
        "tick_ms",
        "tick_due_ms",
        "put_ms",
        "add_ms",
        "fill_s",
    )
    head = (
        "",
        "N",
        "start s",
        "busy s",
        "MB",
        "idle %",
        "tick ms",
        f"{_DUE} due ms",
        "PUT ms",
        "add ms",
        "apply s",
    )
    blocks = [
        f"scale: schedules stored, none due; then {_DUE} due at once\n{machine_line(result['machine'])}",
        table(head, [(row["mix"], row["size"], *(row[key] for key in keys)) for row in result["rows"]]),
    ]
    if result["asked"]:
        blocks.append(asked_table(result["asked"]))
    return "\n\n".join(blocks)
