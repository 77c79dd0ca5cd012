"""How long does the next fire time take? Ours, croniter and cronsim side by side in one run.

Each figure is the median over rounds in which the engines take turns, so that a noisy moment hits all of them.
"""

from __future__ import annotations

import gc
import statistics
from datetime import UTC, datetime
from time import perf_counter_ns
from typing import Any
from zoneinfo import ZoneInfo

from croniter import croniter
from cronsim import CronSim

from benchmarks._report import machine
from cronally.domain.recurrence import Recurrence
from cronally.domain.zones import load_zone, tzdata_version
from cronally.instants import UtcMs

MIX = ("* * * * *", "*/5 * * * *", "0 9 * * 1-5", "30 2 * * *", "0 0 1 * *", "15 3 1,15 * *", "23 4 * * 1")
ZONES = ("UTC", "America/New_York")
RARE = ("0 0 29 2 mon#5", "0 0 29 2 */7", "0 0 * 2 mon#5")
START = datetime(2026, 1, 1, tzinfo=UTC)
START_MS = UtcMs(int(START.timestamp() * 1000))
DAY_MS = 86_400_000
ROUNDS = 7
STEPS = {"cronally": 2000, "cronsim": 200, "croniter": 100}


def run(_options: object = None) -> dict[str, Any]:
    """Measure; all times are microseconds of wall time, per step unless a key says otherwise."""
    gc.collect()
    gc.disable()
    try:
        steps: list[dict[str, Any]] = [
            {"when": when, "tz": tz, **_step_us(when, tz)} for tz in ZONES for when in MIX
        ]
        parse = [{"when": when, **_parse_us(when)} for when in MIX]
        rare = [{"when": when, "us": _rare_us(when)} for when in RARE]
        count = _count_us()
    finally:
        gc.enable()
    medians = {name: statistics.median(row[name] for row in steps) for name in STEPS}
    return {
        "benchmark": "next",
        "machine": machine(),
        "tzdata": tzdata_version(),
        "steps": steps,
        "median_us": medians,
        "times_faster_than": {name: medians[name] / medians["cronally"] for name in ("cronsim", "croniter")},
        "worst_times_faster_than": {
            name: min(row[name] / row["cronally"] for row in steps) for name in ("cronsim", "croniter")
        },
        "parse": parse,
        "rarest_step": rare,
        "count": count,
    }


def render(result: dict[str, Any]) -> str:
    """Write the result of run() as a table."""
    lines = [
        f"next fire time, microseconds a step (Python {result['machine']['python']}, tzdata {result['tzdata']})",
        "",
    ]
    lines += [f"{'':40}{'cronally':>10}{'cronsim':>10}{'croniter':>10}"]
    lines += [
        f"{row['when'] + ' ' + row['tz']:40}{row['cronally']:10.2f}{row['cronsim']:10.1f}{row['croniter']:10.1f}"
        for row in result["steps"]
    ]
    medians, ratios, worst = (
        result["median_us"],
        result["times_faster_than"],
        result["worst_times_faster_than"],
    )
    lines += [
        f"{'median':40}{medians['cronally']:10.2f}{medians['cronsim']:10.1f}{medians['croniter']:10.1f}"
    ]
    lines += [
        f"{'times slower than cronally':40}{1:10.0f}{ratios['cronsim']:10.1f}{ratios['croniter']:10.1f}"
    ]
    lines += [f"{'the least of the rows':40}{1:10.0f}{worst['cronsim']:10.1f}{worst['croniter']:10.1f}", ""]
    lines += ["parse and compile, microseconds"]
    lines += [
        f"{row['when']:40}{row['cronally']:10.1f}{row['cronsim']:10.1f}{row['croniter']:10.1f}"
        for row in result["parse"]
    ]
    lines += ["", "rarest steps, microseconds (the slowest of 100 starts)"]
    lines += [f"{row['when']:40}{row['us']:10.1f}" for row in result["rarest_step"]]
    lines += ["", "count, microseconds"]
    lines += [f"{name:40}{us:10.1f}" for name, us in result["count"].items()]
    return "\n".join(lines)


def _step_us(when: str, tz: str) -> dict[str, float]:
    rule = Recurrence.parse(when, tz=tz)
    local_start = START.astimezone(ZoneInfo(tz))

    def cronally(steps: int) -> None:
        at = START_MS
        for _ in range(steps):
            at = rule.next_ms(at)  # type: ignore[assignment]

    def cronsim(steps: int) -> None:
        iterator = CronSim(when, local_start)
        for _ in range(steps):
            next(iterator)

    def croniter_(steps: int) -> None:
        iterator = croniter(when, local_start)
        for _ in range(steps):
            iterator.get_next(datetime)

    engines = {"cronally": cronally, "cronsim": cronsim, "croniter": croniter_}
    rounds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            begin = perf_counter_ns()
            engine(STEPS[name])
            rounds[name].append((perf_counter_ns() - begin) / STEPS[name] / 1000)
    return {name: statistics.median(values) for name, values in rounds.items()}


def _parse_us(when: str) -> dict[str, float]:
    engines = {
        "cronally": lambda: Recurrence.parse(when, tz="America/New_York"),
        "cronsim": lambda: CronSim(when, START),
        "croniter": lambda: croniter(when, START),
    }
    load_zone("America/New_York")  # compiled once in the life of a process
    rounds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, parse in engines.items():
            begin = perf_counter_ns()
            for _ in range(50):
                parse()  # type: ignore[no-untyped-call]
            rounds[name].append((perf_counter_ns() - begin) / 50 / 1000)
    return {name: statistics.median(values) for name, values in rounds.items()}


def _rare_us(when: str) -> float:
    """Return the slowest of 100 starts over 130 years, each measured as the best of three."""
    rule = Recurrence.parse(when, tz="America/New_York")
    return max(
        _best_us(lambda at=START_MS + year * 475 * DAY_MS: rule.next_ms(UtcMs(at)), 3) for year in range(100)
    )


def _count_us() -> dict[str, float]:
    year, week = UtcMs(START_MS + 366 * DAY_MS), UtcMs(START_MS + 7 * DAY_MS)
    crontab, every = Recurrence.parse("30 2 1,15 * *", tz="America/New_York"), Recurrence.parse("@every 1s")
    return {
        "a year of 30 2 1,15 * *": _best_us(lambda: crontab.count_ms(START_MS, year), 20),
        "a week of @every 1s": _best_us(lambda: every.count_ms(START_MS, week), 20),
    }


def _best_us(action: Any, rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        begin = perf_counter_ns()
        action()
        best = min(best, (perf_counter_ns() - begin) / 1000)
    return best
