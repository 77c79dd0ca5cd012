"""Three machines that share a table, under faults at random moments, judged by the slot checker.

``python -m support.cluster_campaign --minutes 20`` runs one; a seed decides what happens and when. A run that fails prints its seed
and keeps its directory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from cronally.errors import CronallyError
from cronally.instants import UtcMs, format_utc, parse_rfc3339
from support.campaign import Campaign, NotNowError, run_and_tell, say_at_once, spread_of
from support.cluster_checker import ClusterRecord, judge_cluster, read_table
from support.cluster_editor import ClusterEditor, Doors
from support.edit_checker import Edit, Kind
from support.process_checker import Disturbance, Verdict
from support.processes import Installation
from support.severed_links import Cut, Links
from support.slot_lives import spread_offset
from support.table_servers import new_table_name, table_server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cronally.admin.wire import Fire
    from support.editor import Editor

_NAMES = ("a", "b", "c")
_READY = "daemon.ready"
_AGREE_S = 30.0
_DRAIN_S = 420.0  # a fire on hold is tried again after five minutes, one in backoff after one
_LOOK_EVERY_S = 0.5
_EDITORS = 4
_CALM_S = 18.0
_WHOLE_S = 120.0  # a busy server of a table lets leases end before all have joined


class Machine:
    """One of them: a daemon in a home of its own, with links of its own to the table and to SNS."""

    def __init__(
        self, name: str, home: Path, table_url: str, sns_url: str, links: Links, **settings: str
    ) -> None:
        """settings: variables of its environment."""
        self.name = name
        self.address = f"127.0.0.{_NAMES.index(name) + 2}"
        self.table = links.make(table_url)
        self.sns = links.make(sns_url, source=self.address)
        home.mkdir()
        self.installation = Installation(
            home,
            receiver_url=self.sns.url,
            extra={
                **settings,
                "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL_DYNAMODB": self.table.url,
                "CRONALLY_MACHINE": name,
                "CRONALLY_LOG_FORMAT": "json",
            },
        )
        self.is_frozen = False
        self._begun_at = 0

    @property
    def is_ready(self) -> bool:
        """Whether its daemon has been ready."""
        log = self.installation.log
        return self.is_up and any(_READY in line for line in log[self._begun_at :])

    @property
    def is_up(self) -> bool:
        """Whether there is a process that is not frozen."""
        return self.installation.daemon is not None and not self.is_frozen

    def begin(self) -> None:
        """Start its daemon."""
        self._begun_at = len(self.installation.log)
        self.installation.begin()

    def freeze(self) -> None:
        self.installation.signal(signal.SIGSTOP)
        self.is_frozen = True

    def thaw(self) -> None:
        """Let it go on, if it is there."""
        if self.is_frozen:
            self.is_frozen = False
            if self.installation.daemon is not None:
                self.installation.signal(signal.SIGCONT)

    def kill(self) -> None:
        self.installation.kill()
        self.is_frozen = False

    def events(self, action: str) -> list[tuple[UtcMs, dict[str, Any]]]:
        """Return what its log says under *action*, with when."""
        found = []
        for line in self.installation.log:
            if f'"{action}"' in line:
                plain = json.loads(line)
                found.append((parse_rfc3339(plain["time"]), plain))
        return found


class ClusterCampaign(Campaign):
    """One run in *home*, an empty directory with a short path. lease: a setting. server: ``moto`` or ``dynalite``."""

    record: ClusterRecord
    _told = ("kills", "stops", "freezes", "table cuts", "sns cuts")

    def __init__(
        self,
        home: Path,
        seed: int,
        *,
        seconds: float,
        schedules: int = 300,
        lease_s: int = 3,
        server: str = "moto",
        say: Callable[[str], None] = print,
    ) -> None:
        """seconds: how long faults happen, each of them at least once; the quiet end comes after that."""
        super().__init__(home, seed, seconds=seconds, schedules=schedules, say=say)
        self.record = ClusterRecord(lease_ms=lease_s * 1000)
        self.table = new_table_name()
        self._lease_s = lease_s
        self._server = server
        self._links = Links()
        self._machines: list[Machine] = []
        self._wrong: list[str] = []
        self._server_url = ""

    # --- the course ---------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        url = table_server(self._server)
        assert url is not None, f"{self._server} is not installed"
        self._server_url = url
        for name in _NAMES:
            machine = Machine(
                name,
                self.home / name,
                url,
                self.receiver.url,
                self._links,
                CRONALLY_STORE=f"dynamodb:{self.table}",
                CRONALLY_LEASE=f"{self._lease_s}s",
            )
            self._machines.append(machine)
            self.record.hosts[name] = machine.address
        made = self._machines[0].installation.run("store", "create", f"dynamodb:{self.table}")
        assert made.returncode == 0, made.stderr
        self.installation = self._machines[0].installation

    def _clear(self) -> None:
        for machine in self._machines:
            machine.installation.clear()
        self._links.close()

    def _judge(self) -> Verdict:
        for machine in self._machines:
            self.record.taken += [at for at, _ in machine.events("shard.taken")]
            self.record.ends.setdefault(machine.name, []).extend(at for at, _ in machine.events("lease.lost"))
            self.counts["leases lost"] += len(machine.events("lease.lost"))
            self.counts["retired"] += len(machine.events("machine.retired"))
            self.counts["given"] += len(machine.events("shard.given"))
        table = asyncio.run(read_table(self._server_url, self.table))
        self.counts["terms"] = len(table.terms)
        self.counts["stale rows"] = len(table.stale)
        verdict = asyncio.run(judge_cluster(self.home / "journal.db", self.record, self.received, table))
        verdict.wrong += self._wrong
        (self.home / "record.json").write_text(self.record.as_json())
        return verdict

    def _editors(self, given: dict[str, dict[str, object]], pause_s: tuple[float, float]) -> Sequence[Editor]:
        began, answered = self._applied
        self.record.edits = [
            Edit(name, Kind.PUT, "", began, answered, dict(keys), is_command=True, is_apply=True)
            for name, keys in given.items()
        ]
        names = sorted(given)
        editors = []
        for number in range(_EDITORS):
            chance = random.Random(self.random.random())
            editors.append(
                ClusterEditor(
                    Doors(self._machines, chance),
                    self.record,
                    {name: given[name] for name in names[number::_EDITORS]},
                    chance,
                    (pause_s[0] / 5, pause_s[1] / 5),
                    self._quiet,
                    number=number,
                    home=self.home,
                )
            )
        return editors

    def _go_wrong(self) -> None:
        super()._go_wrong()
        self._heal()
        self._be_whole()
        self._rest(_CALM_S)  # edits go on, away from faults

    def _be_whole(self) -> None:
        """Start what is not there, and return once all are ready."""
        for machine in self._machines:
            if machine.installation.daemon is None:
                machine.begin()
        for machine in self._machines:
            self._assert_alive(machine)
            machine.installation.wait_until_ready(_WHOLE_S)

    def _start(self) -> None:
        for machine in self._machines:
            machine.begin()
        for machine in self._machines:
            machine.installation.wait_for(_READY)

    def _actions(self) -> list[Callable[[], None]]:
        return [
            self._kill,
            self._kill,
            self._kill_while_starting,
            self._kill_all,
            self._freeze,
            self._freeze,
            self._terminate,
            self._roll,
            *(self._cutting("table", how) for how in Cut),
            *(self._cutting("sns", how) for how in Cut),
            self._answer_badly,
            self._fail,
            self._be_slow,
            self._look_at_history,
            self._look_at_history,
        ]

    # --- what happens to machines -------------------------------------------------------------------------------------

    def _some_machine(self, *, ready: bool = False) -> Machine:
        """Return one that is up. Errors: NotNowError."""
        up = [machine for machine in self._machines if machine.is_up]
        for machine in up:
            self._assert_alive(machine)
        fit = [machine for machine in up if machine.is_ready or not ready]
        if not fit:
            raise NotNowError
        return self.random.choice(fit)

    def _assert_alive(self, machine: Machine) -> None:
        daemon = machine.installation.daemon
        assert daemon is None or daemon.poll() is None, (
            f"{machine.name} has ended by itself: {''.join(machine.installation.log[-20:])}"
        )

    def _some_leases(self) -> float:
        """Return a fifth of a lease to two and a half, longer than one mostly."""
        return self._lease_s * self.random.choice(
            (self.random.uniform(0.2, 1), self.random.uniform(1.05, 1.6), self.random.uniform(1.6, 2.5))
        )

    def _note_end(self, machine: Machine) -> None:
        self.record.ends.setdefault(machine.name, []).append(_now())

    def _kill(self) -> None:
        machine = self._some_machine()
        self.counts["kills"] += 1
        self._note_end(machine)
        machine.kill()
        self._in(self.random.choice((0.0, self._some_leases())), machine.begin)

    def _kill_while_starting(self) -> None:
        machine = self._some_machine()
        self.counts["kills"] += 2
        self._note_end(machine)
        machine.kill()
        machine.begin()
        self._rest(self.random.uniform(0.3, 3))
        self._note_end(machine)
        machine.kill()
        machine.begin()

    def _kill_all(self) -> None:
        self.counts["all killed"] += 1
        for machine in self._machines:
            if machine.is_up:
                self._note_end(machine)
                machine.kill()
                self._in(self.random.uniform(0, 3), machine.begin)

    def _freeze(self) -> None:
        machine = self._some_machine()
        self.counts["freezes"] += 1
        for_s = self._some_leases()
        disturbance = self._disturbance(f"freeze of {machine.name}", for_s)
        machine.freeze()

        def thaw() -> None:
            machine.thaw()
            disturbance.ended = _now()

        self._in(for_s, thaw)

    def _disturbance(self, kind: str, for_s: float) -> Disturbance:
        disturbance = Disturbance(kind, _now(), _now() + round(for_s * 1000))
        self.record.disturbances.append(disturbance)
        return disturbance

    def _terminate(self) -> None:
        machine = self._some_machine()
        self._stop(machine)
        self._in(self.random.choice((0.0, self._some_leases())), machine.begin)

    def _stop(self, machine: Machine) -> None:
        self.counts["stops"] += 1
        right = {0} if machine.is_ready else {0, -signal.SIGTERM}  # it may not listen yet
        if self.random.random() < 0.2:
            right.add(-signal.SIGTERM)  # nor any more
            self.counts["hurried"] += 1
            machine.installation.signal(signal.SIGTERM)
            self._rest(self.random.choice((0.01, 0.1, 0.5)))
            self.record.hurried.setdefault(machine.name, []).append(_now())
        began = time.monotonic()
        code = machine.installation.stop()
        assert code in right, f"{machine.name} exits with {code}: {''.join(machine.installation.log[-20:])}"
        self._longest_stop_s = max(self._longest_stop_s, time.monotonic() - began)

    _longest_stop_s = 0.0

    def _roll(self) -> None:
        """As an update of all machines is done."""
        self.counts["rolls"] += 1
        for machine in self._machines:
            if machine.is_up:
                self._stop(machine)
                machine.begin()
                self._rest(self.random.uniform(0.5, 4))

    def _cutting(self, what: str, how: Cut) -> Callable[[], None]:
        return lambda: self._cut(what, how)

    def _cut(self, what: str, how: Cut) -> None:
        machine = self._some_machine(ready=True)
        self.counts[f"{what} cuts"] += 1
        link = machine.table if what == "table" else machine.sns
        for_s = self._some_leases()
        disturbance = self._disturbance(f"{what} of {machine.name}", for_s)
        link.cut(how)

        def heal() -> None:
            disturbance.ended = _now()
            link.heal()
            if what == "sns" and how is Cut.LATE:
                spans = self.record.late.setdefault(machine.name, [])
                spans.append((disturbance.began, disturbance.ended))

        self._in(for_s, heal)

    # --- what machines say --------------------------------------------------------------------------------------------

    def _look_at_history(self) -> None:
        machine = self._some_machine()
        try:
            with machine.installation.client() as client:
                fires = client.fires(state="published", limit="500").fires
        except CronallyError:
            return
        for fire in fires:
            if fire.published_at is not None and fire.count == 1:
                was = self.record.served.setdefault(fire.fire_id, fire.published_at)
                if was != fire.published_at:
                    self._wrong.append(
                        f"{fire.fire_id} was published at {was}, and now at {fire.published_at}"
                    )

    def _end_quietly(self) -> None:
        self._be_whole()
        self._rest(1)
        self.record.through = through = _now()
        self._wait_until_settled(through)
        self._compare(through)
        for machine in self._machines:
            self._stop(machine)
        self._read_all(through)
        self._take()

    def _wait_until_settled(self, through: UtcMs) -> None:
        give_up = time.monotonic() + _DRAIN_S
        until = format_utc(UtcMs(through + 1))
        for machine in self._machines:
            while True:
                try:
                    with machine.installation.client() as client:
                        status = client.status()
                        pending: Sequence[Fire | CronallyError] = client.fires(
                            state="pending", until=until, limit="3"
                        ).fires
                except CronallyError as exc:
                    status, pending = None, [exc]
                if status is not None and not pending:
                    lags = [each["lag_ms"] for each in status.machines or () if each["state"] == "alive"]
                    marks = [_now() - lag for lag in lags if lag is not None]
                    if status.free_shards == 0 and min(marks, default=0) > through:
                        break
                assert time.monotonic() < give_up, f"{machine.name}: still pending: {pending}; {status}"
                self._rest(_LOOK_EVERY_S)
                self._report_minute()

    def _compare(self, through: UtcMs) -> None:
        """All machines tell the same of the past."""
        give_up = time.monotonic() + _AGREE_S
        while True:
            told = {machine.name: self._told_by(machine.installation, through) for machine in self._machines}
            first = told[_NAMES[0]]
            differing = {
                id_: [fires.get(id_) for fires in told.values()]
                for id_ in set().union(*told.values())
                if any(fires.get(id_) != first.get(id_) for fires in told.values())
            }
            if not differing:
                return
            if time.monotonic() > give_up:
                break
            self._rest(_LOOK_EVERY_S)
        for machine in self._machines:
            _copy_replica(machine.installation.home, self.home / f"{machine.name}-everything.db")
        self._wrong.append(f"{len(differing)} fires are told differently")
        self._wrong += [f"{id_} is told differently: {said}" for id_, said in sorted(differing.items())[-20:]]

    def _told_by(self, installation: Installation, through: UtcMs) -> dict[str, Fire]:
        with installation.client() as client:
            pages = client.fire_pages(until=format_utc(UtcMs(through + 1)))
            return {fire.fire_id: fire for fires in pages for fire in fires if _is_due(fire, through)}

    def _read_all(self, through: UtcMs) -> None:
        """Let a machine that has never been there read the table, and keep what it has read."""
        last = self._machines[-1].installation
        home = self.home / "d"
        home.mkdir()
        new = Installation(home, receiver_url=last.receiver_url, extra={**last.extra})
        new.begin()
        try:
            new.wait_until_ready()
            count = -1
            while count != (count := len(self._told_by(new, through))):  # until it has read the older log
                self._rest(1)
            new.signal(signal.SIGSTOP)
            _copy_replica(home, self.home / "journal.db")
            new.signal(signal.SIGCONT)
            code = new.stop()
            assert code == 0, f"it exits with {code}: {''.join(new.log[-20:])}"
        finally:
            self._machines[-1].installation.log += new.log
            new.clear()

    def _strange_lines(self) -> list[str]:
        return [
            f"{machine.name}: {line}"
            for machine in self._machines
            for line in machine.installation.log
            if "Traceback" in line or '"admin.bug"' in line or '"library.message"' in line
        ]

    def _keep(self) -> None:
        (self.home / "record.json").write_text(self.record.as_json())
        for machine in self._machines:
            (self.home / f"{machine.name}.log").write_text("".join(machine.installation.log))
        with (self.home / "received.jsonl").open("w") as file:
            file.writelines(json.dumps(got) + "\n" for got in self.received)


def _copy_replica(home: Path, to: Path) -> None:
    """Copy what the daemon in *home* knows of the table. It stands still, or whoever looks at the copy minds that it does not."""
    [replica] = home.glob(".local/state/cronally/*/everything.db")
    for suffix in ("", "-wal"):
        shutil.copy(f"{replica}{suffix}", f"{to}{suffix}")


def _is_due(fire: Fire, through: UtcMs) -> bool:
    last = parse_rfc3339(fire.last_fire_time or fire.fire_time)
    return last + spread_offset(fire.schedule, {"spread": spread_of(fire.schedule)}) <= through


def _now() -> UtcMs:
    return UtcMs(time.time_ns() // 1_000_000)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--lease", type=int, default=3, metavar="SECONDS")
    parser.add_argument("--server", choices=("moto", "dynalite"), default="moto")
    parser.add_argument("--schedules", type=int, default=300)
    options = parser.parse_args()
    return run_and_tell(
        lambda home: ClusterCampaign(
            home,
            options.seed,
            seconds=options.minutes * 60,
            schedules=options.schedules,
            lease_s=options.lease,
            server=options.server,
            say=say_at_once,
        ),
        "faults-cluster",
        seed=options.seed,
        minutes=options.minutes,
    )


if __name__ == "__main__":
    sys.exit(_main())
