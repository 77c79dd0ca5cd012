"""Does it keep up: 30,000 schedules that fire every second, for a minute, all of it in the journal."""

from __future__ import annotations

import math
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from benchmarks._harness import NAMES, Daemon, Receiver, fresh_home, line, say, scratch, until
from benchmarks._report import (
    asked_table,
    at,
    at_least,
    at_most,
    machine,
    machine_line,
    median,
    none_of,
    table,
)

if TYPE_CHECKING:
    import argparse

QUICK = ["--seconds", "30", "--runs", "1"]
ASKED_CORES = 1.0

_WARM_UP_S = 4
_PATIENCE_S = 15  # for what is still on its way when the time is over
_COUNTS = ("early", "lost", "doubled", "bad_signatures")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=int, default=30_000, help="schedules, each fires every second")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=5)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure. Lateness is milliseconds after the fire time, at the receiver."""
    facts = machine()
    runs = []
    for _ in range(options.runs):
        with scratch() as directory, Receiver() as receiver:
            with Daemon(fresh_home(directory), receiver) as daemon:
                daemon.apply(line(number, "@every 1s") for number in range(options.rate))
                found, begin = _load(daemon, options.rate, options.seconds)
            # Only now: to count takes a while, and the daemon would not wait for it.
            ledger = receiver.collect(options.rate, between_s=(begin, begin + options.seconds))
        runs.append(found | _arrivals(ledger, options.rate, options.seconds, begin))
        say(f"sustained: {runs[-1]['messages_per_s']:,.0f} messages/s")
    keys = ("messages_per_s", "slowest_second", "p50_ms", "p99_ms", "max_ms", "cores", "most_memory_mb")
    medians = {key: median(each[key] for each in runs) for key in keys}
    counts = {key: sum(each[key] for each in runs) for key in _COUNTS}
    return {
        "benchmark": "sustained",
        "machine": facts,
        "rate": options.rate,
        "seconds": options.seconds,
        "runs": runs,
        "median": medians,
        "total": counts,
        "asked": [
            at_least("messages a second", options.rate, round(medians["messages_per_s"]), ""),
            at_most("cores of the daemon", ASKED_CORES, medians["cores"], ""),
            none_of("not in the journal", sum(each["not_journalled"] for each in runs)),
            *(none_of(key.replace("_", " "), count) for key, count in counts.items()),
        ],
    }


def _load(daemon: Daemon, rate: int, seconds: int) -> tuple[dict[str, Any], int]:
    """Let the measured time pass; return what the daemon shows, and the first fire time that counts."""
    begin = math.ceil(time.time()) + _WARM_UP_S
    end = begin + seconds
    effective_from = _seconds(daemon.client.schedule(NAMES.format(0)).effective_from)
    slots_per_schedule = (
        end - 1 - math.floor(effective_from)
    )  # every one later than that, up to the last that counts
    time.sleep(begin - 0.5 - time.time())
    cpu_s, began = daemon.cpu_s(), time.time()
    time.sleep(end - 0.5 - time.time())
    cores = (daemon.cpu_s() - cpu_s) / (time.time() - began)
    until(lambda: _seconds(daemon.client.status().watermark) >= end - 1, end + _PATIENCE_S, every_s=0.2)
    found = {
        "cores": cores,
        "not_journalled": max(0, rate * slots_per_schedule - daemon.settled_count()),
        "most_memory_mb": daemon.memory_mb("VmHWM"),
    }
    return found, begin


def _seconds(instant: str | None) -> float:
    return 0.0 if instant is None else datetime.fromisoformat(instant).timestamp()


def _arrivals(ledger: dict[str, Any], rate: int, seconds: int, begin: int) -> dict[str, Any]:
    arrived = dict(ledger["per_second"])
    per_second = [arrived.get(second, 0) for second in range(begin, begin + seconds)]
    curve = ledger["curve_us"]
    return {
        "messages_per_s": sum(per_second) / seconds,
        "slowest_second": min(per_second),
        "p50_ms": at(curve, 50) / 1000,
        "p99_ms": at(curve, 99) / 1000,
        "max_ms": at(curve, 100) / 1000,
        "early": ledger["early"],
        "doubled": ledger["doubled"],
        # A fire time of which nothing came is no slot of the ledger's.
        "lost": ledger["lost"] + rate * (seconds - len(ledger["slots"])),
        "bad_signatures": ledger["bad_signatures"],
        "connections": ledger["connections"],
        "per_second": per_second,
    }


def render(result: dict[str, Any]) -> str:
    """Write the result of run() as tables."""
    title = f"sustained: {result['rate']:,} schedules every second for {result['seconds']} s"
    median_row = [result["median"].values()]
    head = ("messages/s", "slowest second", "p50 ms", "p99 ms", "max ms", "cores", "most MB")
    return "\n\n".join(
        [
            f"{title}, medians of {len(result['runs'])} runs\n{machine_line(result['machine'])}",
            table(head, [list(row) for row in median_row], left=()),
            asked_table(result["asked"]),
        ]
    )
