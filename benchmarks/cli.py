"""How long does a command take, from the start of its process to the end."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._harness import COMMAND, TOPIC, Daemon, Receiver, fresh_home, line, say, scratch
from benchmarks._report import asked_table, at_most, machine, machine_line, median, table

if TYPE_CHECKING:
    import argparse

QUICK = ["--runs", "10"]
ASKED_LS_MS = 200  # docs/design.md, the command line
ASKED_BINARY_VERSION_MS = (
    800  # of the single executable, which unpacks itself first; its other commands take as much longer
)
ASKED_BINARY_START_MS = 2_000

_COMMANDS: dict[str, list[str]] = {
    "--version": ["--version"],
    "ls": ["ls"],
    "ls --json": ["ls", "--json"],
    "status": ["status"],
    "history": ["history"],
}
_HISTORY_S = 3


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(item.replace("_", "")) for item in text.split(",")],
        default=[20, 1_000],
        metavar="N,N",
    )
    parser.add_argument("--runs", type=int, default=20, help="of each command")
    parser.add_argument(
        "--command",
        type=lambda text: Path(text).resolve(),
        default=COMMAND,
        metavar="PATH",
        help="the single executable, say: dist/cronally",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure. Times are milliseconds."""
    facts = machine()
    rows = []
    starts = []
    floor = [_took_ms([sys.executable, "-c", "pass"], {}) for _ in range(options.runs)]
    with scratch() as directory, Receiver() as receiver:
        for size in options.sizes:
            with Daemon(fresh_home(directory), receiver, command=options.command) as daemon:
                starts.append(daemon.start_s * 1000)
                daemon.apply(line(number, "0 9 1 1 *") for number in range(size - 1))
                daemon.apply([line(size, "@every 1s")])
                time.sleep(_HISTORY_S)  # so that there is a history
                times: dict[str, list[float]] = {name: [] for name in (*_COMMANDS, "add")}
                for number in range(options.runs):
                    for name, arguments in _COMMANDS.items():
                        times[name].append(_command_ms(daemon, *arguments))
                    add = ["add", f"added-{number}", "0 9 * * mon-fri", "--topic", TOPIC, "--message", "{}"]
                    times["add"].append(_command_ms(daemon, *add))
                    daemon.client.remove(f"added-{number}")
            rows += [
                {
                    "size": size,
                    "command": name,
                    "median_ms": median(each),
                    "max_ms": max(each),
                    "all_ms": each,
                }
                for name, each in times.items()
            ]
            say(f"cli {size:,}: ls {median(times['ls']):.0f} ms")
    return {
        "benchmark": "cli",
        "machine": facts,
        "runs": options.runs,
        "python_ms": median(floor),
        "command": options.command.name if options.command == COMMAND else str(options.command),
        "start_ms": median(starts),
        "rows": rows,
        "asked": _asked(rows, median(starts), is_installed=options.command == COMMAND),
    }


def _asked(rows: list[dict[str, Any]], start_ms: float, *, is_installed: bool) -> list[dict[str, Any]]:
    if is_installed:
        return [
            at_most(f"ls, {row['size']:,} schedules", ASKED_LS_MS, row["median_ms"], "ms")
            for row in rows
            if row["command"] == "ls"
        ]
    version_ms = next(row["median_ms"] for row in rows if row["command"] == "--version")
    return [
        at_most("--version", ASKED_BINARY_VERSION_MS, version_ms, "ms"),
        at_most("serve, to ready", ASKED_BINARY_START_MS, start_ms, "ms"),
    ]


def _command_ms(daemon: Daemon, *arguments: str) -> float:
    return _took_ms([str(daemon.command), *arguments], daemon.environment)


def _took_ms(arguments: list[str], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(arguments, env=environment, stdout=subprocess.PIPE, check=True)
    return (time.perf_counter() - began) * 1000


def render(result: dict[str, Any]) -> str:
    """Write the result of run() as tables."""
    rows = [(row["command"], row["size"], row["median_ms"], row["max_ms"]) for row in result["rows"]]
    floor = f"an empty Python program takes {result['python_ms']:.0f} ms, serve {result['start_ms']:.0f} ms to ready"
    return "\n\n".join(
        [
            f"cli: milliseconds from start to exit, of {result['runs']}; {floor}\n{machine_line(result['machine'])}",
            table(("", "schedules", "median", "max"), rows),
            asked_table(result["asked"]),
        ]
    )
