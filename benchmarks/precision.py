"""How late is a message when there is little to do: one schedule, every second for a minute."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

from benchmarks._harness import Daemon, Receiver, fresh_home, line, say, scratch
from benchmarks._ledger import curve
from benchmarks._report import asked_table, at, at_most, machine, machine_line, median, none_of, table

if TYPE_CHECKING:
    import argparse

QUICK = ["--seconds", "30", "--runs", "1"]
ASKED_MS = {50: 1, 99: 5}

_NAMES = "tick-{:d}"
_WARM_UP_S = 3
_SHARES = (50, 99, 100)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=5)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure. Times are milliseconds after the fire time: at the receiver, and of the release as the journal has it."""
    facts = machine()
    runs = []
    with scratch() as directory, Receiver() as receiver:
        for _ in range(options.runs):
            with Daemon(fresh_home(directory), receiver) as daemon:
                daemon.apply([line(0, "@every 1s", names=_NAMES)])
                runs.append(_run(daemon, receiver, options.seconds))
            say(f"precision: p50 {runs[-1]['arrival_ms']['p50']:.2f} ms")
    medians = {
        side: {key: median(each[side][key] for each in runs) for key in ("p50", "p99", "max")}
        for side in ("arrival_ms", "journal_ms")
    }
    counts = {key: sum(each[key] for each in runs) for key in ("early", "lost", "doubled", "bad_signatures")}
    return {
        "benchmark": "precision",
        "machine": facts,
        "seconds": options.seconds,
        "runs": runs,
        "median": medians,
        "total": counts,
        "asked": [
            *(
                at_most(f"p{share}", limit, medians["arrival_ms"][f"p{share}"], "ms")
                for share, limit in ASKED_MS.items()
            ),
            *(none_of(key.replace("_", " "), count) for key, count in counts.items()),
        ],
    }


def _run(daemon: Daemon, receiver: Receiver, seconds: int) -> dict[str, Any]:
    # From the middle between two fire times to the middle between two others: so many seconds, so many messages.
    begin = math.ceil(time.time()) + _WARM_UP_S - 0.5
    time.sleep(begin + seconds - time.time())
    ledger = receiver.collect(1, names=_NAMES, between_s=(begin, begin + seconds))
    history = json.loads(daemon.run("history", _NAMES.format(0), "--limit", str(seconds), "--json"))
    released = curve([fire["lateness_us"] for fire in history["fires"] if fire["lateness_us"] is not None])
    return {
        "arrival_ms": _quantiles(ledger["curve_us"]),
        "journal_ms": _quantiles(released),
        "early": ledger["early"],
        "lost": seconds - len(ledger["slots"]),
        "doubled": ledger["doubled"],
        "bad_signatures": ledger["bad_signatures"],
    }


def _quantiles(values: list[int]) -> dict[str, float]:
    return {"max" if share == 100 else f"p{share}": at(values, share) / 1000 for share in _SHARES}


def render(result: dict[str, Any]) -> str:
    """Write the result of run() as tables."""
    rows = [
        (text, *result["median"][side].values())
        for side, text in (("arrival_ms", "at the receiver"), ("journal_ms", "released, by the journal"))
    ]
    title = f"precision: one message a second for {result['seconds']} s, milliseconds after the fire time"
    return "\n\n".join(
        [
            f"{title}, medians of {len(result['runs'])} runs\n{machine_line(result['machine'])}",
            table(("", "p50", "p99", "max"), rows),
            asked_table(result["asked"]),
        ]
    )
