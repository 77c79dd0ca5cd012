"""How long until the last of N messages due at one instant has arrived, and what it costs the daemon.

Its schedules share one ``@every`` rule and stay: each of its fire times is a run, after one more that warms up, as in a daemon
that is no longer new. Parts: plain; tls; latency (20 ms before each answer); quota (paced by the daemon, held against it by the
receiver); at (N ``@at`` rules, loaded anew for each run); peer (APScheduler and aiobotocore); admin (how long the socket takes
to answer meanwhile).
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import _picture
from benchmarks._harness import (
    NAMES,
    ROOT,
    UNPACED,
    BenchmarkError,
    Daemon,
    Receiver,
    fresh_home,
    line,
    say,
    scratch,
    until,
)
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
    from collections.abc import Iterator

PARTS = ("plain", "tls", "latency", "quota", "at", "peer", "admin")
QUICK = ["--runs", "3", "--only", "plain,tls,peer"]
ASKED_LAST_MS = {1: 2, 1_000: 15, 10_000: 100, 100_000: 1_000}
ASKED_CPU_US = 25
ASKED_ADMIN_MS = 100
ASKED_TLS = 2.5
ASKED_TIMES_FASTER = 50
MOST_PEER = 10_000  # the peer would take minutes for more

# The window of the daemon's processor time opens so long before the instant: it plans two seconds ahead.
_LEAD_S = 3.2
_LEAST_PERIOD_S = 5
_LONGEST_PERIOD_S = 240
_PACE = 20_000  # messages/s that the first period is made for
_BOOKING_S = 30e-6  # of the receiver, for one message, between two runs


class _OverrunError(BenchmarkError):
    """A run was not over in time for the next one."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", type=_numbers, default=list(ASKED_LAST_MS), metavar="N,N")
    parser.add_argument(
        "--runs",
        type=int,
        default=5,
        help="of each size, after one that warms up; figures are medians [default: 5; 0: only that one]",
    )
    parser.add_argument(
        "--only", type=_parts, default=list(PARTS), metavar="PART,PART", help=", ".join(PARTS)
    )
    parser.add_argument("--quota", type=int, default=10_000, help="messages/s, of the part quota")
    parser.add_argument("--latency-ms", type=float, default=20.0, help="of the part latency")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the distribution of lateness")


def _numbers(text: str) -> list[int]:
    return [int(item.replace("_", "")) for item in text.split(",")]


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    for part in parts:
        if part not in PARTS:
            raise ValueError(part)
    return parts


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure. Times are milliseconds after the instant, processor time is microseconds."""
    result: dict[str, Any] = {
        "benchmark": "burst",
        "machine": machine(),
        "runs": options.runs,
        "quota": options.quota,
        "latency_ms": options.latency_ms,
        "parts": {},
    }
    receivers: dict[str, dict[str, Any]] = {
        "latency": {"latency_ms": options.latency_ms},
        "quota": {"quota": options.quota},
    }
    for part in options.only:
        if part == "admin":
            result["admin"] = _admin(max(options.sizes))
            continue
        pace = float(_PACE)
        rows = result["parts"][part] = []
        for size in options.sizes:
            if part == "peer":
                if size <= MOST_PEER:
                    rows.append(_peer(size, options.runs))
                continue
            if part == "quota":
                pace = min(pace, options.quota)
            with scratch() as directory:
                receiver = Receiver(tls=directory if part == "tls" else None, **receivers.get(part, {}))
                config = f"[sns.quota]\nus-east-1 = {options.quota}\n" if part == "quota" else UNPACED
                measure = _measure_at if part == "at" else _measure_every
                with receiver:
                    row = measure(directory, receiver, config, size, options.runs, pace)
            if size >= 1_000:
                pace = min(pace, size / row["median"]["settled_ms"] * 1000)
            say(f"burst {part} {size:,}: last after {row['median']['last_ms']:.1f} ms")
            rows.append(row)
    result["ratios"] = _ratios(result["parts"])
    result["asked"] = _asked(result)
    if options.svg is not None:
        options.svg.write_text(_picture.draw(result))
        say(f"drew {options.svg}")
    return result


# --- Cronally -----------------------------------------------------------------------------------------------------------


def _measure_every(
    directory: Path, receiver: Receiver, config: str, size: int, runs: int, pace: float
) -> dict[str, Any]:
    period_s = max(_LEAST_PERIOD_S, math.ceil(_LEAD_S + 0.5 + size * (1.5 / pace + _BOOKING_S)))
    while True:
        receiver.collect(0)
        with Daemon(fresh_home(directory), receiver, config=config) as daemon:
            idle = daemon.cpu_per_second(1.0)
            daemon.apply(line(number, f"@every {period_s}s") for number in range(size))
            try:
                found = _every_runs(daemon, receiver, size, runs, period_s, idle)
            except _OverrunError:
                if period_s >= _LONGEST_PERIOD_S:
                    raise BenchmarkError(f"{size:,} messages take longer than {period_s} s") from None
                period_s *= 2
                say(f"{size:,} messages took too long; again with {period_s} s between the runs")
                continue
        return _row(size, found) | {"period_s": period_s}


def _every_runs(
    daemon: Daemon, receiver: Receiver, size: int, runs: int, period_s: int, idle: float
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    instant = None
    for _ in range(runs + 1):
        if instant is None:
            before, deadline = daemon.cpu_s(), time.time() + 2 * period_s + 10
        else:
            instant += period_s
            if time.time() > instant - _LEAD_S:
                raise _OverrunError("the messages take longer than was foreseen")
            before, deadline = daemon.cpu_s(), instant + period_s - _LEAD_S
        began = time.time()
        settled_at = _wait(daemon, receiver, size, size * (len(found) + 1), deadline)
        cpu_s = daemon.cpu_s() - before - idle * (time.time() - began)
        measured = _run(receiver, size, cpu_s, settled_at)
        instant = measured["instant_us"] // 1_000_000
        found.append(measured | {"is_warm_up": not found})
    return found


def _measure_at(
    directory: Path, receiver: Receiver, config: str, size: int, runs: int, pace: float
) -> dict[str, Any]:
    """As ``_measure_every``, with schedules that fire once: the daemon reads them from the store, ahead of the instant."""
    found: list[dict[str, Any]] = []
    load_s = 2 + size / 5_000
    with Daemon(fresh_home(directory), receiver, config=config) as daemon:
        idle = daemon.cpu_per_second(1.0)
        while len(found) <= runs:
            names = f"at-{len(found)}-" + "{:06d}"
            instant = math.ceil(time.time() + load_s + _LEAD_S)
            when = time.strftime("@at %Y-%m-%dT%H:%M:%SZ", time.gmtime(instant))
            daemon.apply(line(number, when, names=names) for number in range(size))
            if time.time() > instant - _LEAD_S:
                raise BenchmarkError(f"loading {size:,} schedules took longer than {load_s:.0f} s")
            before, began = daemon.cpu_s(), time.time()
            deadline = instant + 10 + 3 * size / pace
            settled_at = _wait(daemon, receiver, size, size * (len(found) + 1), deadline)
            cpu_s = daemon.cpu_s() - before - idle * (time.time() - began)
            measured = _run(receiver, size, cpu_s, settled_at, names=names)
            found.append(measured | {"is_warm_up": not found})
    return _row(size, found)


def _wait(daemon: Daemon, receiver: Receiver, size: int, settled: int, deadline: float) -> float:
    """Wait until all has arrived and is in the journal; return when that was."""
    # With a message lost it never comes so far; then the run ends at the deadline, and the count says so.
    if not until(lambda: receiver.message_count() >= size, deadline):
        if receiver.message_count() < size * 0.99:
            raise _OverrunError("the messages take longer than was foreseen")
        return time.time()
    if not until(lambda: daemon.settled_count() >= settled, deadline):
        raise _OverrunError("the messages take longer than was foreseen")
    return time.time()


def _run(
    receiver: Receiver, size: int, cpu_s: float, settled_at: float, *, names: str = NAMES
) -> dict[str, Any]:
    ledger = receiver.collect(size, names=names)
    if len(ledger["slots"]) != 1:
        raise _OverrunError("the messages take longer than was foreseen")
    slot = ledger["slots"][0]
    curve = slot["curve_us"]
    last_ms = at(curve, 100) / 1000
    return {
        "instant_us": slot["instant_us"],
        "first_ms": at(curve, 0) / 1000,
        "median_ms": at(curve, 50) / 1000,
        "last_ms": last_ms,
        "settled_ms": settled_at * 1000 - slot["instant_us"] / 1000,
        "messages_per_s": size / last_ms * 1000,
        "cpu_us_per_message": cpu_s * 1e6 / size,
        "early": slot["early"],
        "lost": slot["lost"],
        "lost_names": slot["lost_names"],
        "doubled": slot["doubled"],
        "doubled_ids": slot["doubled_ids"],
        "bad_signatures": ledger["bad_signatures"],
        "mismatched": ledger["mismatched"] + ledger["unidentified"],
        "throttled": ledger["throttled"],
        "connections": ledger["connections"],
        "curve_us": curve,
    }


_MEDIANS = (
    "first_ms",
    "median_ms",
    "last_ms",
    "settled_ms",
    "messages_per_s",
    "cpu_us_per_message",
    "throttled",
)
_COUNTS = ("early", "lost", "doubled", "bad_signatures", "mismatched")


def _row(size: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the runs of one size together: medians without the warming up, and what must not happen in any of them."""
    measured = [each for each in found if not each.get("is_warm_up")] or found
    middle = sorted(measured, key=lambda each: each["last_ms"])[len(measured) // 2]
    return {
        "size": size,
        "median": {key: median(each[key] for each in measured if key in each) for key in _MEDIANS},
        "total": {key: sum(each[key] for each in found) for key in _COUNTS},
        "curve_us": middle["curve_us"],
        "runs": [{key: value for key, value in each.items() if key != "curve_us"} for each in found],
    }


def _admin(size: int) -> dict[str, Any]:
    """Ask the admin socket every 20 ms through one burst."""
    period_s = max(_LEAST_PERIOD_S, math.ceil(_LEAD_S + 1 + size / 4_000))
    with scratch() as directory, Receiver() as receiver:
        while True:
            receiver.collect(0)
            with Daemon(fresh_home(directory), receiver) as daemon:
                daemon.apply(line(number, f"@every {period_s}s") for number in range(size))
                with _polling(daemon.socket) as answers:
                    try:
                        _wait(daemon, receiver, size, size, time.time() + 2 * period_s + 10)
                    except _OverrunError:
                        if period_s >= _LONGEST_PERIOD_S:
                            raise
                        period_s *= 2
                        continue
            say(f"burst admin: longest answer {answers['longest_ms']:.1f} ms")
            return {"size": size} | answers


@contextmanager
def _polling(socket: str) -> Iterator[dict[str, Any]]:
    answers: dict[str, Any] = {}
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks._poller", socket],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as poller:
        assert poller.stdout is not None
        poller.stdout.readline()
        yield answers
        paths = json.loads(poller.communicate()[0])
        answers |= {"paths": paths, "longest_ms": max(each["max_ms"] for each in paths.values())}


# --- the peer -----------------------------------------------------------------------------------------------------------


def _peer(size: int, runs: int) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    load_s = 1 + size / 2_000
    with (
        Receiver() as receiver,
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks._peer", "--url", receiver.url, "--count", str(size)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as peer,
    ):
        assert peer.stdin is not None
        assert peer.stdout is not None
        while len(found) <= runs:
            instant = math.ceil(time.time() + load_s + 1)
            peer.stdin.write(f"{instant}\n")
            peer.stdin.flush()
            if peer.stdout.readline().strip() != "armed":
                raise BenchmarkError("the peer has ended; what it said is above")
            if time.time() > instant - 0.5:
                raise BenchmarkError(f"the peer took longer than {load_s:.0f} s to take {size:,} jobs")
            until(lambda: receiver.message_count() >= size, instant + 60 + size / 50)
            slot = _run(receiver, size, float("nan"), float("nan"))
            for key in ("settled_ms", "cpu_us_per_message"):
                del slot[key]
            found.append(slot | {"is_warm_up": not found})
    row = _row(size, found)
    say(f"burst peer {size:,}: last after {row['median']['last_ms']:.1f} ms")
    return row


# --- the verdict --------------------------------------------------------------------------------------------------------


def _ratios(parts: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Return for the parts that can be compared, by size, how much longer they take to the last message than plain."""
    plain = {row["size"]: row["median"]["last_ms"] for row in parts.get("plain", [])}
    return {
        part: {
            str(row["size"]): row["median"]["last_ms"] / plain[row["size"]]
            for row in parts.get(part, [])
            if row["size"] in plain
        }
        for part in ("tls", "peer")
    }


def _asked(result: dict[str, Any]) -> list[dict[str, Any]]:
    figures = []
    parts, ratios = result["parts"], result["ratios"]
    for row in parts.get("plain", []):
        size = row["size"]
        if size in ASKED_LAST_MS:
            figures.append(at_most(f"last of {size:,}", ASKED_LAST_MS[size], row["median"]["last_ms"], "ms"))
        if size == max(ASKED_LAST_MS):
            cpu = row["median"]["cpu_us_per_message"]
            figures.append(at_most(f"processor time a message, {size:,}", ASKED_CPU_US, cpu, "us"))
    for size, ratio in ratios["tls"].items():
        figures.append(at_most(f"TLS to plain, {int(size):,}", ASKED_TLS, ratio, "times"))
    if str(MOST_PEER) in ratios["peer"]:
        ratio = ratios["peer"][str(MOST_PEER)]
        figures.append(at_least(f"faster than the peer, {MOST_PEER:,}", ASKED_TIMES_FASTER, ratio, "times"))
    if "admin" in result:
        longest = result["admin"]["longest_ms"]
        figures.append(at_most(f"admin answer in {result['admin']['size']:,}", ASKED_ADMIN_MS, longest, "ms"))
    ours = [row for part, rows in parts.items() if part != "peer" for row in rows]
    figures += [
        none_of(what, sum(row["total"][key] for row in ours))
        for key, what in zip(
            _COUNTS, ("early", "lost", "doubled", "bad signatures", "wrong messages"), strict=True
        )
        if ours
    ]
    return figures


def render(result: dict[str, Any]) -> str:
    """Write the result of run() as tables."""
    rows = [
        (
            part,
            row["size"],
            *(
                row["median"][key]
                for key in ("first_ms", "median_ms", "last_ms", "settled_ms", "messages_per_s")
            ),
            row["median"]["cpu_us_per_message"] if row["size"] >= 1_000 else None,
            *(row["total"][key] for key in ("early", "lost", "doubled")),
            row["median"]["throttled"],
        )
        for part, found in result["parts"].items()
        for row in found
    ]
    head = (
        "",
        "N",
        "first",
        "median",
        "last",
        "on record",
        "messages/s",
        "cpu us",
        "early",
        "lost",
        "doubled",
        "throttled",
    )
    title = f"burst: N messages due at one instant, milliseconds after it, medians of {result['runs']} runs"
    blocks = [
        f"{title}\n{machine_line(result['machine'])}",
        table(head, rows),
    ]
    peer = result["ratios"]["peer"]
    if peer:
        blocks.append(
            "APScheduler + aiobotocore take so many times as long to the last message: "
            + ", ".join(f"{int(size):,}: {ratio:,.0f}" for size, ratio in peer.items())
        )
    if "admin" in result:
        admin = result["admin"]
        blocks.append(
            f"admin socket during {admin['size']:,}, milliseconds:\n"
            + table(
                ("", "asked", "median", "longest"),
                [
                    (path, each["asked"], each["median_ms"], each["max_ms"])
                    for path, each in admin["paths"].items()
                ],
            )
        )
    blocks.append(asked_table(result["asked"]))
    return "\n\n".join(blocks)
