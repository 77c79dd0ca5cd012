"""The installed daemon under faults at random moments, judged by the slot checker.

``python -m support.campaign --minutes 20`` runs one; a seed decides what happens and when, though not what the machine does in
between. A run that fails prints its seed and keeps its directory; ``--judge DIRECTORY`` judges that again.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from cronally.instants import UtcMs, format_utc
from support.editor import Editor, documents
from support.fake_sns import Fault
from support.process_checker import Disturbance, Incarnation, Received, Record, Verdict, judge
from support.processes import Installation
from support.receiver import start_receiver
from support.slot_lives import spread_offset

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LONG_S = 240.0  # from here on faults that take minutes to heal are among them
_DRAIN_S = 420.0  # a fire on hold is tried again after five minutes, one in backoff after one
_MISSED_AFTER_S = 10.0  # design §4
_LOOK_EVERY_S = 0.5  # nothing tells from outside that the last pending fire is settled
_ONCE = (
    Fault.THROTTLE, Fault.ERROR_500, Fault.UNAVAILABLE, Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.LOST_ACK,
    Fault.ERROR_500_AFTER, Fault.EMPTY_REPLY, Fault.HALF_REPLY, Fault.GARBAGE, Fault.TRUNCATED,
)  # fmt: skip
_WHOLE = (Fault.THROTTLE, Fault.ERROR_500, Fault.UNAVAILABLE, Fault.RESET_BEFORE, Fault.LOST_ACK)


class NotNowError(Exception):
    """What was to happen cannot at this moment, as there is nobody to whom it could."""


class Campaign:
    """One run in *home*, an empty directory with a short path. say: where lines of progress go."""

    def __init__(
        self,
        home: Path,
        seed: int,
        *,
        seconds: float,
        schedules: int = 300,
        say: Callable[[str], None] = print,
    ) -> None:
        """seconds: how long faults happen, each of them at least once; the quiet end comes after that."""
        self.random = random.Random(seed)
        self.seconds = seconds
        self.schedules = schedules
        self.say = say
        self.home = home
        self.record = Record()
        self.received: list[Received] = []
        self.counts: Counter[str] = Counter()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._seen: set[str] = set()
        self._quiet = threading.Event()
        self._minute_late_us = 0
        self._minute = 0

    def run(self) -> Verdict:
        """Run it to its end and judge it. Errors: AssertionError if a daemon does what none should."""
        environment = Installation(self.home).environment
        self.receiver = start_receiver(environment)
        try:
            self._prepare()
            self._live()
        finally:
            self._clear()
            self.receiver.stop()
            self._keep()
        verdict = self._judge()
        verdict.wrong += [f"the log has {line.strip()!r}" for line in self._strange_lines()]
        return verdict

    def _prepare(self) -> None:
        self.installation = Installation(self.home, receiver_url=self.receiver.url)

    def _clear(self) -> None:
        self.installation.clear()

    def _judge(self) -> Verdict:
        return asyncio.run(judge(self.installation.store, self.record, self.received))

    def _live(self) -> None:
        self._start()
        given = documents(self.random, self.schedules)
        file = self.home / "schedules.jsonl"
        file.write_text("".join(json.dumps({"name": name, **keys}) + "\n" for name, keys in given.items()))
        began = _now()
        applied = self.installation.run("apply", "-f", str(file))
        self._applied = began, _now()
        assert applied.returncode == 0, applied.stderr
        pause_s = (0.5, 2.0) if self.seconds < _LONG_S else (3.0, 12.0)
        editors = self._editors(given, pause_s)
        self._began = time.monotonic()
        editing = [threading.Thread(target=editor.run, name="editor") for editor in editors]
        for thread in editing:
            thread.start()
        try:
            self._go_wrong()
        finally:
            self._quiet.set()
            for thread in editing:
                thread.join()
        for editor in editors:
            if editor.failure is not None:
                raise editor.failure
        self.counts["edits"] = len(self.record.changes) + len(self.record.runs)
        self._heal()
        self._end_quietly()

    def _editors(self, given: dict[str, dict[str, object]], pause_s: tuple[float, float]) -> Sequence[Editor]:
        """pause_s: how long one rests between two edits, at least and at most."""
        chance = random.Random(self.random.random())
        return [Editor(self.installation, self.record, given, chance, pause_s, self._quiet)]

    def _go_wrong(self) -> None:
        actions = self._actions()
        until = self._began + self.seconds
        # Each at least once, in an order of the seed's, before chance decides.
        coming = self.random.sample(actions, k=len(actions))
        while coming or time.monotonic() < until:
            self._rest(self.random.choice((0.1, 0.5, 1.0, 2.0, 4.0)) * min(1.0, self.seconds / 60))
            action = coming.pop() if coming else self.random.choice(actions)
            try:
                action()
            except NotNowError:
                coming.insert(0, action)  # after the others
            if self.seconds >= _LONG_S and self.random.random() < 0.1:
                self._rest(self.random.uniform(20, 40))  # long enough to be on time again
            self._report_minute()

    def _actions(self) -> list[Callable[[], None]]:
        """Return what may happen."""
        actions: list[Callable[[], None]] = [
            self._kill,
            self._kill_while_starting,
            self._be_away,
            self._freeze,
            self._terminate,
            self._answer_badly,
            self._fail,
            self._be_slow,
            self._have_less_quota,
            self._be_down,
            self._fail_entries,
        ]
        if self.seconds >= _LONG_S:
            actions += [self._hang, self._lose_topic]
        return actions

    # --- what happens to the daemon -----------------------------------------------------------------------------------

    def _start(self) -> None:
        incarnation = Incarnation(_now())
        self.record.incarnations.append(incarnation)
        self.installation.start()
        incarnation.ready_at = _now()

    def _kill(self) -> None:
        self.counts["kills"] += 1
        self._end(crash=True)
        self._rest(self.random.choice((0.0, 0.0, self._some_seconds(15))))
        self._start()

    def _be_away(self) -> None:
        """For so long that slots are missed and the policies decide."""
        self.counts["kills"] += 1
        self._end(crash=True)
        self._rest(_MISSED_AFTER_S + self._some_seconds(20))
        self._start()

    def _kill_while_starting(self) -> None:
        self.counts["kills"] += 2
        self._end(crash=True)
        self.record.incarnations.append(Incarnation(_now()))
        self.installation.begin()
        self._rest(self.random.uniform(0.05, 1.5))
        self._end(crash=True)
        self._start()

    def _end(self, *, crash: bool) -> None:
        incarnation = self.record.incarnations[-1]
        incarnation.was_crash = crash
        if not incarnation.is_hurried:  # else it is stopping already
            incarnation.stopping_at = _now()
            assert self.installation.daemon is not None
            said = "".join(self.installation.log[-20:])
            assert self.installation.daemon.poll() is None, f"it has ended by itself: {said}"
        if crash:
            self.installation.kill()
        else:
            code = self.installation.stop()
            assert code == 0, f"exit code {code}: {''.join(self.installation.log[-20:])}"
        incarnation.ended_at = _now()

    def _terminate(self) -> None:
        self.counts["stops"] += 1
        if self.random.random() < 0.5:  # into a burst
            self._rest(1 - time.time() % 1 + self.random.uniform(0, 0.01))
        if self.random.random() < 0.5:
            self.record.incarnations[-1].is_hurried = True
            self.record.incarnations[-1].stopping_at = _now()
            self.installation.signal(signal.SIGTERM)
            self._rest(self.random.choice((0.0, 0.01, 0.1)))
            self.counts["hurried"] += 1
        self._end(crash=False)
        self._rest(self.random.choice((0.0, self._some_seconds(5))))
        self._start()

    def _freeze(self) -> None:
        self.counts["freezes"] += 1
        began = _now()
        self.installation.signal(signal.SIGSTOP)
        self._rest(self._some_seconds(20))
        self.installation.signal(signal.SIGCONT)
        self.record.disturbances.append(Disturbance("freeze", began, _now()))

    def _some_seconds(self, most: float) -> float:
        """Return 0.2 to *most* seconds, short ones mostly; a short campaign has no time for more than a few."""
        most = min(most, max(1.0, self.seconds / 10))
        return float(0.2 * (most / 0.2) ** self.random.random())

    # --- what the receiver does -------------------------------------------------------------------------------------

    def _disturb(self, kind: str, for_s: float, *, healed: dict[str, object], **faults: object) -> None:
        """Let the receiver have *faults*, and *healed* *for_s* seconds later, while other things happen."""
        self.counts["receiver"] += 1
        disturbance = Disturbance(kind, _now(), _now() + round(for_s * 1000))
        self.record.disturbances.append(disturbance)
        self.receiver.set_faults(**faults)

        def heal() -> None:
            self.receiver.set_faults(**healed)
            disturbance.ended = _now()

        self._in(for_s, heal)

    def _answer_badly(self) -> None:
        bad = self.random.choices((*_ONCE, Fault.OK), k=self.random.randint(1, 12))
        self._disturb("once", 4, next=bad, healed={"next": []})

    def _fail(self) -> None:
        self._disturb(
            "always", self._some_seconds(4), always=self.random.choice(_WHOLE), healed={"always": None}
        )

    def _be_slow(self) -> None:
        self._disturb(
            "slow", self._some_seconds(6), delay_s=self.random.uniform(0.02, 2), healed={"delay_s": 0.0}
        )

    def _have_less_quota(self) -> None:
        self._disturb("quota", self._some_seconds(8), quota=40, healed={"quota": None})

    def _hang(self) -> None:
        hang = self.random.choice((Fault.HANG, Fault.HANG_AFTER))
        self._disturb("hang", 12, next=[hang] * self.random.randint(1, 3), healed={"next": []})

    def _lose_topic(self) -> None:
        left_s = self._began + self.seconds - time.monotonic()
        if left_s > _LONG_S / 2:
            topic = f"arn:aws:sns:us-east-1:123456789012:{self.random.choice(('lost', 'lost.fifo'))}"
            self._disturb("topic", self._some_seconds(10), missing=[topic], healed={"missing": []})

    def _fail_entries(self) -> None:
        if self.random.random() < 0.5:
            failing = {"beat": ("InternalError", False)}
            self._disturb("entries", self._some_seconds(4), fail_entries=failing, healed={"fail_entries": {}})
        else:
            failing = {"risky": ("InvalidParameter", True)}
            self._disturb("reject", self._some_seconds(4), fail_entries=failing, healed={"fail_entries": {}})

    def _be_down(self) -> None:
        self.counts["outages"] += 1
        for_s = self._some_seconds(12)
        self.record.disturbances.append(Disturbance("outage", _now(), _now() + round(for_s * 1000) + 200))
        self.receiver.be_down(for_s)

    # --- time ---------------------------------------------------------------------------------------------------------

    def _in(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, self.counts["receiver"], act))

    def _rest(self, seconds: float) -> None:
        """Let so much time pass, with what is due in it, and take in what the receiver has got."""
        until = time.monotonic() + seconds
        while self._later and self._later[0][0] <= until:
            at, _, act = heapq.heappop(self._later)
            _let_pass(at - time.monotonic())
            act()
        self._take()
        _let_pass(until - time.monotonic())

    def _heal(self) -> None:
        while self._later:
            heapq.heappop(self._later)[2]()
        self._rest(max(0.0, max((d.ended for d in self.record.disturbances), default=0) / 1000 - time.time()))

    def _end_quietly(self) -> None:
        """Wait until every slot due by now is settled, and stop."""
        self._rest(1)
        self.record.through = through = _now()
        give_up = time.monotonic() + _DRAIN_S
        until = format_utc(UtcMs(through + 1))
        with self.installation.client() as client:
            while True:
                status = client.status()
                pending = client.fires(state="pending", until=until, limit="3").fires
                behind = status.watermark is None or status.watermark < format_utc(UtcMs(through))
                if not pending and not behind:
                    break
                assert time.monotonic() < give_up, f"still pending: {pending}; watermark {status.watermark}"
                self._rest(_LOOK_EVERY_S)
                self._report_minute()
        self._end(crash=False)
        self._take()

    # --- what is known ------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        for plain in self.receiver.take():
            got = Received.read(plain)
            self.received.append(got)
            self.counts["duplicates"] += got.fire_id in self._seen
            self._seen.add(got.fire_id)
            name = got.fire_id.partition("@")[0]
            due_us = (got.fire_time + spread_offset(name, {"spread": spread_of(name)})) * 1000
            self._minute_late_us = max(self._minute_late_us, got.arrived_us - due_us)

    _applied: tuple[UtcMs, UtcMs]
    """From when to when the schedules were made that there are at first."""
    _told: tuple[str, ...] = ("kills", "stops", "freezes", "outages")

    def _report_minute(self) -> None:
        minute = int((time.monotonic() - self._began) // 60)
        if minute > self._minute:
            self._minute = minute
            said = ", ".join(f"{word} {self.counts[word]}" for word in self._told)
            self.say(
                f"{minute:3d} min: {said}, receiver's faults {self.counts['receiver']}, arrived {len(self.received)}, "
                f"latest {self._minute_late_us / 1e6:.3f} s, duplicates {self.counts['duplicates']}"
            )
            self._minute_late_us = 0

    def _strange_lines(self) -> list[str]:
        known = "SNS refuses everything"  # and why: an error that the receiver made on purpose
        return [
            line
            for line in self.installation.log
            if "Traceback" in line or "bug" in line or ("Error:" in line and known not in line)
        ]

    def _keep(self) -> None:
        (self.home / "record.json").write_text(self.record.as_json())
        (self.home / "daemon.log").write_text("".join(self.installation.log))
        with (self.home / "received.jsonl").open("w") as file:
            file.writelines(json.dumps(got) + "\n" for got in self.received)


def spread_of(name: str) -> str:
    """Return the spread of a schedule by its name: it never changes, so that a receiver knows when each was due."""
    return name.rpartition("-")[2] if name.count("-") == 2 else "0s"


def report(verdict: Verdict, counts: Counter[str]) -> str:
    """Return the figures of a run, in lines."""
    late = verdict.lateness_us

    def percentile(share: float) -> str:
        return f"{late[min(len(late) - 1, int(share * len(late)))] / 1000:.1f} ms" if late else "-"

    entries = ", ".join(f"{state} {count}" for state, count in verdict.states.items())
    lines = [f"slots {verdict.slots}, missed {verdict.missed}, early {verdict.early}"]
    lines += [
        f"received {verdict.received}, duplicates {verdict.duplicates}, unexplained {verdict.unexplained}"
    ]
    lines += [f"what became of the slots: {entries}"]
    lines += [f"away from faults, from due to arrival, {len(late)} fires:"]
    lines[-1] += f" p50 {percentile(0.5)}, p99 {percentile(0.99)}, max {percentile(1)}"
    lines += verdict.told
    lines += [", ".join(f"{word} {count}" for word, count in sorted(counts.items()))]
    lines += [f"broken promises: {len(verdict.wrong)}", *verdict.wrong[:40]]
    return "\n".join(lines)


def _now() -> UtcMs:
    return UtcMs(time.time_ns() // 1_000_000)


def _let_pass(seconds: float) -> None:
    if seconds > 0:
        time.sleep(seconds)


def _read(home: Path) -> Verdict:
    record = Record.read((home / "record.json").read_text())
    lines = (home / "received.jsonl").read_text().splitlines()
    received = [Received(*json.loads(line)) for line in lines]
    return asyncio.run(judge(Installation(home).store, record, received))


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--judge", type=Path, help="judge a run that was kept")
    options = parser.parse_args()
    if options.judge is not None:
        print(report(_read(options.judge), Counter()))
        return 0
    return run_and_tell(
        lambda home: Campaign(home, options.seed, seconds=options.minutes * 60, say=say_at_once),
        "faults",
        seed=options.seed,
        minutes=options.minutes,
    )


def say_at_once(line: str) -> None:
    print(line, flush=True)


def run_and_tell(make: Callable[[Path], Campaign], target: str, *, seed: int, minutes: float) -> int:
    """Run a campaign in a new home and print what came of it; return an exit code. target: of make, which runs it again.

    The home of one that failed is kept.
    """
    home = Path(tempfile.mkdtemp(prefix="c-"))
    say_at_once(f"seed {seed}, {minutes:g} minutes, in {home}")
    campaign = make(home)
    is_right = False
    try:
        verdict = campaign.run()
        print(report(verdict, campaign.counts))
        is_right = not verdict.wrong
    finally:
        if is_right:
            shutil.rmtree(home)
        else:
            print(
                f"seed {seed} failed; what it has on record, and its logs, are in {home}\n"
                f"again: make {target} SEED={seed} MINUTES={minutes:g}"
            )
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(_main())
