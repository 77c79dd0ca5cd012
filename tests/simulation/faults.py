"""What goes wrong in a story: begun, ended, counted, and written down with the time it took."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from cronally.errors import StoreError, StoreFull
from cronally.instants import MAX_UTC_MS, UtcMs
from simulation.drawn import FIFO_TOPICS, TOPICS
from support.recording_publisher import (
    LOST_ACKNOWLEDGEMENT,
    PUBLISHED,
    REJECTED,
    THROTTLED,
    TIMED_OUT,
    TOPIC_GONE,
    Answer,
)
from support.slot_lives import BackStep, Trouble, Troubles

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from cronally.domain.message import Entry
    from simulation.mortal import Incarnation
    from support.virtual_time import JumpingClock


_PROBED_MS = 300_000  # the longest time between two probes of a topic that refuses everything
WRITES = frozenset(
    {"open", "change", "commit", "flip", "stage", "stage_begin", "unstage", "add_manual", "mark_unclean"}
)
READS = frozenset(
    {
        *("schedule", "specs", "at_between", "next_at", "settled_after", "pending_due", "next_pending"),
        *("pending_groups", "group_pending", "manual_times", "staged_changes"),
    }
)
METHODS = tuple(sorted(WRITES | READS))
EXPIRED = THROTTLED._replace(error="ExpiredToken: The security token included in the request is expired")
SERVER_ERROR = TIMED_OUT._replace(error="InternalError: 500")
SERVER_ERROR_ACCEPTED = LOST_ACKNOWLEDGEMENT._replace(error="InternalError: 500")
_TAIL_MS = {
    "sns": 400_000,
    "limits": 320_000,
    "store": 15_000,
}  # so long its consequences last, of others 3 s
_MISSING = {
    "down",
    "step",
    "suspend",
    "stall",
    "store",
    "limits",
}  # a slot that came due during one of these may be skipped


class Fault(NamedTuple):
    """Something that lasts. kind: as the checker needs it. name: as the summary counts it."""

    kind: str
    name: str
    since: UtcMs
    ends_at: float
    undo: Callable[[], None]


class Faults:
    """All that is wrong at present, and was.

    Attributes: counts: how often each began. back_steps: of the wall clock. is_quiet: nothing goes wrong any more.
    """

    def __init__(self, rng: random.Random, clock: JumpingClock, scale: float) -> None:
        """scale: how much longer than in ten minutes things last."""
        self._rng = rng
        self._clock = clock
        self._scale = scale
        self._present: list[Fault] = []
        self._spans: list[Trouble] = []
        self._store_failure: Callable[[str], StoreError | bool] | None = None
        self._slow: dict[str, dict[str, float]] = {"before": {}, "after": {}}
        self._answers: tuple[float, tuple[Answer, ...]] = (0.0, ())
        self._gone: set[str] = set()
        self._room: int | None = None
        self._quota: float | None = None
        self._daemons: list[Incarnation] = []
        self.counts: Counter[str] = Counter()
        self.back_steps: list[BackStep] = []
        self.is_quiet = False

    # --- the daemon in whose way they are ---------------------------------------------------------------------------

    def attach(self, daemon: Incarnation) -> None:
        """Be in the way of *daemon* from now on, and of the others as long as they live."""
        self._daemons = [*(other for other in self._daemons if not other.life.is_dead), daemon]
        self._obstruct()

    def answer(self, entry: Entry, _attempt: int) -> Answer:
        """Answer as SNS does now."""
        rng = self._rng
        if self.is_quiet:
            return PUBLISHED
        delay_s = rng.choice((0.0, 0.0, 0.02, 0.02, 0.4)) if rng.random() < 0.5 else 0.02
        if entry.topic in self._gone:
            return TOPIC_GONE._replace(delay_s=delay_s)
        chance, answers = self._answers
        if chance and rng.random() < chance:
            answer = rng.choice(answers)
            return answer._replace(delay_s=rng.choice((delay_s, 3.0, 10.0)) if answer.is_unknown else delay_s)
        return PUBLISHED._replace(delay_s=delay_s)

    def _obstruct(self) -> None:
        self._clock.is_watchful = any(fault.kind == "store" for fault in self._present)
        for daemon in self._daemons:
            if daemon.life.is_dead:
                continue
            daemon.store.fails = self._store_failure or (lambda _name: False)
            daemon.store.before_s, daemon.store.after_s = self._slow["before"], self._slow["after"]
            if (daemon.publisher.room, daemon.publisher.quota) != (self._room, self._quota):
                daemon.publisher.room, daemon.publisher.quota = self._room, self._quota
                daemon.publisher.on_room()

    # --- beginning and ending -----------------------------------------------------------------------------------------

    def next_end(self) -> float | None:
        """Return when, by the monotonic clock, the first of them ends."""
        return min((fault.ends_at for fault in self._present), default=None)

    def end_due(self) -> None:
        """End those whose time has come."""
        now = self._clock.mono() + 1e-6
        self._end([fault for fault in self._present if fault.ends_at <= now])

    def end_all(self) -> None:
        self._end(list(self._present))

    def _end(self, faults: list[Fault]) -> None:
        for fault in faults:
            self._present.remove(fault)
            fault.undo()
            self.note(fault.kind, fault.since, self._clock.wall())
        if faults:
            self._obstruct()

    def note(self, kind: str, since: UtcMs, until: UtcMs) -> None:
        """Something was wrong for a while."""
        self._spans.append(Trouble(kind, since, UtcMs(until + _TAIL_MS.get(kind, 3_000))))

    def troubles(self) -> tuple[Troubles, Troubles]:
        """Return what may keep a slot from firing, and what may make one late."""
        spans = self._spans + [Trouble(fault.kind, fault.since, MAX_UTC_MS) for fault in self._present]
        # SNS is well again, and a circuit is open until its next probe.
        probed = [
            Trouble("circuit", span.until, UtcMs(span.until + _PROBED_MS))
            for span in spans
            if span.kind == "sns"
        ]
        return Troubles(span for span in spans if span.kind in _MISSING), Troubles([*spans, *probed])

    def _begin(self, kind: str, name: str, undo: Callable[[], None], most_s: float = math.inf) -> None:
        self._end([fault for fault in self._present if fault.kind == kind])
        seconds = min(most_s, self._rng.choice((0.3, 2, 8, 15, 40, 70, 100 * self._scale, 240 * self._scale)))
        self.counts[name] += 1
        self._present.append(Fault(kind, name, self._clock.wall(), self._clock.mono() + seconds, undo))

    def begin_some(self) -> None:
        """Let something go wrong from now on."""
        begin = self._rng.choice(
            (
                *(self._refuse_commands, self._refuse_some, self._refuse_one, self._fill_disk, self._dawdle),
                *(self._trouble_sns, self._trouble_sns, self._trouble_sns, self._take_topic, self._expire),
                *(self._limit, self._step, self._suspend, self._stall),
            )
        )
        begin()
        self._obstruct()

    # --- the store --------------------------------------------------------------------------------------------------

    def _fail_store(self, name: str, failure: Callable[[str], StoreError | bool]) -> None:
        def undo() -> None:
            self._store_failure = None
            self._slow["before"].clear()
            self._slow["after"].clear()

        # Recovery begins anew at each refusal: that costs a story more than it shows.
        self._begin("store", name, undo, most_s={"disk full": 150, "store: any method": 10}.get(name, 20))
        self._store_failure = failure

    def _refuse_commands(self) -> None:
        rng = self._rng
        self._fail_store("store: any method", lambda _name: rng.random() < 0.3)

    def _refuse_some(self) -> None:
        rng, failing = self._rng, set(self._rng.sample(METHODS, k=3))
        self._fail_store("store: three methods", lambda name: name in failing and rng.random() < 0.5)

    def _refuse_one(self) -> None:
        failing = self._rng.choice((*METHODS, "commit", "specs"))
        self._fail_store("store: one method", lambda name: name == failing)

    def _fill_disk(self) -> None:
        full = StoreFull("no space left on the device, as the test wants")
        self._fail_store("disk full", lambda name: full if name in WRITES else False)

    def _dawdle(self) -> None:
        self._fail_store("store: slow", lambda _name: False)
        where = self._slow[self._rng.choice(("before", "after"))]
        for name in self._rng.sample(METHODS, k=self._rng.choice((1, 3, len(METHODS)))):
            where[name] = self._rng.choice((0.01, 0.2, 1.5))

    # --- SNS --------------------------------------------------------------------------------------------------------

    def _trouble_sns(self) -> None:
        name, answers = self._rng.choice(
            (
                ("throttled", (THROTTLED,)),
                ("time-out", (TIMED_OUT,)),
                ("lost acknowledgement", (LOST_ACKNOWLEDGEMENT,)),
                ("500", (SERVER_ERROR, SERVER_ERROR_ACCEPTED)),
                ("rejected", (REJECTED,)),
                (
                    "all kinds",
                    (THROTTLED, TIMED_OUT, LOST_ACKNOWLEDGEMENT, SERVER_ERROR, REJECTED, TOPIC_GONE),
                ),
            )
        )
        chance = self._rng.choice((0.2, 0.5, 1.0))
        partial = "SNS, some: " if chance < 1 else "SNS: "
        self._answer_with(f"{partial}{name}", chance, answers)

    def _expire(self) -> None:
        self._answer_with("SNS: credentials expired", 1.0, (EXPIRED,))

    def _answer_with(self, name: str, chance: float, answers: tuple[Answer, ...]) -> None:
        def undo() -> None:
            self._answers = (0.0, ())
            self._gone.clear()

        self._begin("sns", name, undo)
        self._answers = (chance, answers)

    def _take_topic(self) -> None:
        self._answer_with("SNS: topic gone", 0.0, ())
        self._gone.add(self._rng.choice(TOPICS + FIFO_TOPICS))

    def _limit(self) -> None:
        def undo() -> None:
            self._room = self._quota = None

        self._begin("limits", "SNS: little room", undo)
        self._room = self._rng.choice((None, 0, 1, 4))
        self._quota = self._rng.choice((None, 0.1, 0.5, 3))

    # --- clocks -------------------------------------------------------------------------------------------------------

    def _leap(self) -> int:
        """Seconds."""
        most = self._rng.choice((3, 15, 70, 60 * self._scale, 600 * self._scale))
        return max(1, round(self._rng.uniform(0.3, 1) * most))

    def _step(self) -> None:
        before = self._clock.wall()
        if self._rng.random() < 0.5:
            self.counts["clock back"] += 1
            self._clock.step_wall(-self._leap() * 1000)
            self.back_steps.append(BackStep(before, self._clock.wall()))
        else:
            self.counts["clock forward"] += 1
            self._clock.step_wall(self._leap() * 1000)
        self.note("step", min(before, self._clock.wall()), max(before, self._clock.wall()))

    def _suspend(self) -> None:
        self.counts["suspend"] += 1
        before = self._clock.wall()
        self._clock.sleep_through(self._leap())
        self.note("suspend", before, self._clock.wall())

    def _stall(self) -> None:
        self.counts["event loop stalled"] += 1
        before = self._clock.wall()
        self._clock.stall(self._leap())
        self.note("stall", before, self._clock.wall())
