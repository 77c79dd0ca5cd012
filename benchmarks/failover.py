"""Three machines that share a table: how soon others fire what one drove that is killed or stopped, and what the table costs."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import defaultdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from benchmarks._harness import UNPACED, BenchmarkError, Daemon, Receiver, line, say, scratch
from benchmarks._ledger import curve
from benchmarks._report import asked_table, at, at_most, machine, machine_line, median, none_of, table
from benchmarks._table import KINDS, TableServer, Units, dynalite

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from pathlib import Path

QUICK = [
    "--servers",
    "moto",
    "--kills",
    "3",
    "--stops",
    "2",
    "--idle-s",
    "15",
    "--busy-s",
    "15",
    "--stored",
    "10000",
]
ASKED_KILL_S = 10.0
ASKED_STOP_S = 1.0
ASKED_LATE_MS = 50.0
ASKED_IDLE_DOLLARS = 2.0
ASKED_WRITE_DOLLARS = 10.0  # for 100 million fires
ASKED_START_S = 20.0

_NAMES = "tick-{:04d}"
_HOSTS = ("a", "b", "c")
_MONTH_S = 30 * 86_400
_IN_FLIGHT_S = 0.2  # what a machine had written when it was killed may arrive after that
_AFFECTED_S = 0.5  # so late is no message of a machine that lives
_GIVE_UP_S = 60.0
_REST_S = 3.0
_LOOK_S = 0.2


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--servers", default=",".join(KINDS), help="of the table, each measured by itself")
    parser.add_argument("--schedules", type=int, default=300, help="that fire every second")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--stops", type=int, default=5)
    parser.add_argument("--lease", default="8s")
    parser.add_argument(
        "--idle-s", type=int, default=60, help="for which three machines without schedules are metered"
    )
    parser.add_argument("--busy-s", type=int, default=60, help="for which they are metered while they fire")
    parser.add_argument(
        "--stored", type=int, default=100_000, help="schedules in the table for the start-up; 0: not measured"
    )
    parser.add_argument("--seed", type=int, default=1, help="decides who is killed")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure. Times are seconds after the signal, at the receiver; lateness is milliseconds."""
    facts = machine()
    servers = {}
    for kind in options.servers.split(","):
        if kind == "dynalite" and dynalite() is None:
            say("failover: dynalite is not installed, and is left out")
            continue
        with scratch() as directory, TableServer(kind) as server, Receiver() as receiver:
            servers[kind] = _Cluster(directory, server, receiver, options).measure()
    asked = []
    for kind, found in servers.items():
        kills, stops = [one["s"] for one in found["kills"]], [one["s"] for one in found["stops"]]
        asked += [
            at_most(
                f"{kind}: all fires again after a kill, slowest of {len(kills)}",
                ASKED_KILL_S,
                max(kills),
                "s",
            ),
            at_most(f"{kind}: after a clean stop, slowest of {len(stops)}", ASKED_STOP_S, max(stops), "s"),
            at_most(
                f"{kind}: lateness of the others meanwhile, p99", ASKED_LATE_MS, found["others_p99_ms"], "ms"
            ),
            none_of(f"{kind}: early", found["early"]),
            at_most(f"{kind}: writes of 100 million fires", ASKED_WRITE_DOLLARS, found["write_dollars"], "$"),
            at_most(f"{kind}: an idle machine, a month", ASKED_IDLE_DOLLARS, found["idle_dollars"], "$"),
        ]
        if found["start_s"] is not None:
            asked.append(
                at_most(
                    f"{kind}: start with {options.stored:,} schedules", ASKED_START_S, found["start_s"], "s"
                )
            )
    return {
        "benchmark": "failover",
        "machine": facts,
        "lease": options.lease,
        "servers": servers,
        "asked": asked,
    }


class _Cluster:
    """Three daemons on one table."""

    def __init__(
        self, directory: Path, server: TableServer, receiver: Receiver, options: argparse.Namespace
    ) -> None:
        self._directory = directory
        self._server = server
        self._receiver = receiver
        self._options = options
        self._random = random.Random(options.seed)
        self._daemons: dict[str, Daemon] = {}
        self._late_us: list[int] = []
        self._early = 0

    def measure(self) -> dict[str, Any]:
        options = self._options
        try:
            for host in _HOSTS:
                self._start(host)
            self._balance()
            idle = self._metered(options.idle_s).times(_MONTH_S / options.idle_s / len(_HOSTS))
            say(f"failover: an idle machine ${idle.dollars:.2f} a month")
            lines = [line(number, "@every 1s", names=_NAMES) for number in range(options.schedules)]
            self._daemons["a"].apply(lines)
            time.sleep(_REST_S)
            self._receiver.arrivals()
            busy = self._metered(options.busy_s)
            fires = len(self._receiver.arrivals())
            idle_then = idle.times(options.busy_s / _MONTH_S * len(_HOSTS))
            kills = [self._failover(signal.SIGKILL) for _ in range(options.kills)]
            stops = [self._failover(signal.SIGTERM) for _ in range(options.stops)]
            start_s = self._measure_start() if options.stored else None
        finally:
            for daemon in self._daemons.values():
                daemon.client.close()
                daemon.end(signal.SIGKILL)
        more = busy.since(idle_then).times(1e6 / fires)
        return {
            "kills": kills,
            "stops": stops,
            "others_p99_ms": at(curve(self._late_us), 99) / 1000,
            "others_p50_ms": at(curve(self._late_us), 50) / 1000,
            "early": self._early,
            "idle": idle._asdict(),
            "idle_dollars": idle.dollars,
            "per_million": more._asdict(),
            "fires_per_s": fires / options.busy_s,
            "write_dollars": Units(write=more.write).dollars * 100,
            "start_s": start_s,
        }

    def _start(self, host: str) -> float:
        """Start a daemon; return how long that took, until it was ready."""
        home = self._directory / host
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        began = time.monotonic()
        if not self._daemons:
            self._make_table(home)
        self._daemons[host] = Daemon(
            home, self._receiver, config=UNPACED, store="dynamodb:bench", extra=self._environment(host)
        )
        return time.monotonic() - began

    def _environment(self, host: str) -> dict[str, str]:
        return {
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_DYNAMODB": self._server.url,
            "CRONALLY_MACHINE": host,
            "CRONALLY_LEASE": self._options.lease,
        }

    def _make_table(self, home: Path) -> None:
        with Daemon(home, self._receiver) as daemon:  # for its environment
            daemon.environment |= self._environment("a")
            daemon.run("store", "create", "dynamodb:bench")

    def _balance(self) -> None:
        """Wait until each machine drives its share."""
        give_up = time.monotonic() + _GIVE_UP_S
        while True:
            status = next(iter(self._daemons.values())).client.status()
            alive = [one for one in status.machines or () if one["state"] == "alive"]
            held = [one["shards"] for one in alive]
            if len(alive) == len(self._daemons) and sum(held) == 64 and max(held) - min(held) <= 1:
                return
            if time.monotonic() > give_up:
                raise BenchmarkError(f"the shards are not shared: {alive}")
            time.sleep(_LOOK_S)

    def _metered(self, for_s: float) -> Units:
        before = self._server.units()
        time.sleep(for_s)
        return self._server.units().since(before)

    # --- one goes -----------------------------------------------------------------------------------------------------

    def _failover(self, number: signal.Signals) -> dict[str, Any]:
        """End a machine; return how long it took until all fires again (killed), or how late the latest slot was (stopped)."""
        self._balance()
        time.sleep(_REST_S)
        host = self._random.choice(_HOSTS)
        time.sleep(self._random.random())
        self._receiver.arrivals()
        daemon = self._daemons.pop(host)
        began = time.time()
        daemon.client.close()
        daemon.end(number)
        ended_s = time.time() - began
        arrivals: dict[str, list[tuple[float, float]]] = defaultdict(list)  # by schedule: fire time, arrival
        while not self._fires_again(arrivals, began):
            if time.time() > began + _GIVE_UP_S:
                raise BenchmarkError(f"after {number.name} of {host}: not all fires again")
            time.sleep(_LOOK_S)
            for fire_id, arrived_us in self._receiver.arrivals():
                name, _, fire_time = fire_id.partition("@")
                arrivals[name].append((datetime.fromisoformat(fire_time).timestamp(), arrived_us / 1e6))
        found = self._judged(arrivals, began)
        found |= {"host": host, "ended_s": ended_s}
        if number is signal.SIGTERM:
            found["s"] = max(
                arrived - due for some in arrivals.values() for due, arrived in some if due >= began
            )
        say(f"failover: {number.name} of {host}: {found['s']:.2f} s, {found['affected']} schedules")
        self._start(host)
        return found

    def _fires_again(self, arrivals: Mapping[str, Sequence[tuple[float, float]]], began: float) -> bool:
        """Whether each schedule has sent a slot on time that was due after the end, by two seconds at least."""
        return len(arrivals) == self._options.schedules and all(
            any(due > began + 2 and arrived - due < _AFFECTED_S for due, arrived in some)
            for some in arrivals.values()
        )

    def _judged(self, arrivals: Mapping[str, Sequence[tuple[float, float]]], began: float) -> dict[str, Any]:
        """Return when the last of those that waited fired again; note how late the others were."""
        firsts: list[float] = []
        for some in arrivals.values():
            again = [(due, arrived) for due, arrived in some if arrived > began + _IN_FLIGHT_S]
            first = min(arrived for _, arrived in again)
            is_affected = any(arrived - due > _AFFECTED_S for due, arrived in again) or first - began > 2
            if is_affected:
                firsts.append(first - began)
            else:
                self._late_us += [round((arrived - due) * 1e6) for due, arrived in again]
            self._early += sum(arrived < due for due, arrived in some)
        return {"s": max(firsts, default=0.0), "affected": len(firsts)}

    # --- one comes ----------------------------------------------------------------------------------------------------

    def _measure_start(self) -> float:
        """Return how long a machine takes that finds many schedules in the table."""
        self._balance()
        others = [
            line(number, f"{number % 60} {number % 24} 1 1 *", names="rare-{:06d}")
            for number in range(self._options.stored)
        ]
        took_s = self._daemons["a"].apply(others)
        say(f"failover: {len(others):,} schedules applied in {took_s:.0f} s")
        host = _HOSTS[-1]
        daemon = self._daemons.pop(host)
        daemon.client.close()
        daemon.end(signal.SIGTERM)
        return self._start(host)


def render(result: dict[str, Any]) -> str:
    """Write the result of run() as tables."""
    rows = [
        (
            kind,
            *(of(one["s"] for one in found[what]) for what in ("kills", "stops") for of in (median, max)),
            found["others_p50_ms"],
            found["others_p99_ms"],
            found["start_s"],
        )
        for kind, found in result["servers"].items()
    ]
    units = [
        (
            kind,
            found["fires_per_s"],
            *(found["per_million"][key] for key in ("write", "read")),
            Units(**found["per_million"]).dollars,
            *(found["idle"][key] for key in ("write", "read")),
            found["idle_dollars"],
        )
        for kind, found in result["servers"].items()
    ]
    head = ("", "kill med s", "max", "stop med s", "max", "others p50 ms", "p99", "start s")
    units_head = ("", "fires/s", "writes/million", "reads", "$", "idle writes/month", "reads", "$")
    return "\n\n".join(
        [
            f"failover: three machines, a lease of {result['lease']}\n{machine_line(result['machine'])}",
            table(head, rows),
            table(units_head, units),
            asked_table(result["asked"]),
        ]
    )
