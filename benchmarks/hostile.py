"""How late are messages while clients attack the admin socket: beside a calm phase of the same run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks._harness import ROOT, BenchmarkError, Daemon, Receiver, fresh_home, line, say, scratch
from benchmarks._report import asked_table, at, at_most, machine, machine_line, none_of, table

if TYPE_CHECKING:
    import argparse

QUICK = ["--seconds", "10"]
ASKED_P99_MS = 20

_NAMES = "tick-{:03d}"
_WARM_UP_S = 3
_SHARES = (50, 99, 100)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=int, default=30, help="of each phase")
    parser.add_argument("--schedules", type=int, default=20, help="that fire every second")
    parser.add_argument("--clients", type=int, default=200)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure. Times are milliseconds after the fire time, at the receiver."""
    facts = machine()
    with scratch() as directory, Receiver() as receiver, Daemon(fresh_home(directory), receiver) as daemon:
        ticks = [line(number, "@every 1s", names=_NAMES) for number in range(options.schedules)]
        others = [line(number, "0 9 1 1 *", tz="America/Sao_Paulo") for number in range(2_000)]
        daemon.apply([*ticks, *others, line(0, "0 0 29 2 mon", names="rare")])
        phases = {"calm": _phase(daemon, receiver, options, attack=False)}
        say(f"hostile: calm p99 {phases['calm']['p99']:.2f} ms")
        phases["attack"] = _phase(daemon, receiver, options, attack=True)
        say(f"hostile: attacked p99 {phases['attack']['p99']:.2f} ms")
        memory_mb = daemon.memory_mb("VmHWM")
        log = (daemon.home / "daemon.log").read_text()
    attack = phases["attack"]
    return {
        "benchmark": "hostile",
        "machine": facts,
        "phases": phases,
        "peak_memory_mb": memory_mb,
        "tracebacks": log.count("Traceback"),
        "asked": [
            at_most("p99 under attack", ASKED_P99_MS, attack["p99"], "ms"),
            *(
                none_of(f"{key} ({name})", phase[key])
                for name, phase in phases.items()
                for key in ("early", "lost", "doubled")
            ),
            none_of("bugs", len(attack["attack"]["bugs"]) + log.count("Traceback")),
            none_of("refused who meant well", attack["attack"]["refused"]),
        ],
    }


def _phase(
    daemon: Daemon, receiver: Receiver, options: argparse.Namespace, *, attack: bool
) -> dict[str, Any]:
    begin = math.ceil(time.time()) + _WARM_UP_S - 0.5
    receiver.collect(options.schedules, names=_NAMES)  # what came before
    attacker = None
    if attack:
        attacker = subprocess.Popen(
            [
                sys.executable, "-m", "benchmarks._attack", daemon.socket, "--clients", str(options.clients),
                "--seconds", str(options.seconds + _WARM_UP_S),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
    time.sleep(begin + options.seconds - time.time())
    result: dict[str, Any] = {}
    if attacker is not None:
        output, _ = attacker.communicate(timeout=120)
        if attacker.returncode:
            raise BenchmarkError("the attack ended early; what it said is above")
        result["attack"] = json.loads(output)
    ledger = receiver.collect(options.schedules, names=_NAMES, between_s=(begin, begin + options.seconds))
    unseen = (options.seconds - len(ledger["slots"])) * options.schedules
    curve = ledger["curve_us"]
    return result | {
        **{"max" if share == 100 else f"p{share}": at(curve, share) / 1000 for share in _SHARES},
        "early": ledger["early"],
        "doubled": ledger["doubled"],
        "lost": ledger["lost"] + unseen,
        "messages": ledger["messages"],
    }


def render(result: dict[str, Any]) -> str:
    """Write the result of run() as tables."""
    rows = [
        (name, *(phase[key] for key in ("p50", "p99", "max")), phase["messages"])
        for name, phase in result["phases"].items()
    ]
    attack = result["phases"]["attack"]["attack"]
    answers = ", ".join(f"{status}: {count}" for status, count in attack["statuses"].items())
    waits = attack["wait_ms"]
    return "\n\n".join(
        [
            f"hostile: lateness at the receiver, milliseconds after the fire time\n{machine_line(result['machine'])}",
            table(("", "p50", "p99", "max", "messages"), rows),
            "\n".join(
                [
                    f"answers to the attack: {answers}",
                    f"who meant well waited {waits['p50']} ms (p50), {waits['max']} ms (max)",
                    f"the daemon's memory at its peak: {result['peak_memory_mb']:.0f} MB",
                ]
            ),
            asked_table(result["asked"]),
        ]
    )
