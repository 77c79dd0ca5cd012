"""One seeded story: a hundred schedules, commands, faults, and the daemon that lives and dies among them."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cronally.domain.model import Kind, State
from cronally.errors import CronallyError, StoreError
from cronally.instants import UtcMs, from_datetime
from simulation.drawn import ZONES, Drawn, change_instant, changes
from simulation.faults import Faults
from simulation.mortal import Incarnation
from simulation.witness import WitnessStore
from support.slot_checker import faults as checked
from support.slot_days import slots_of
from support.slot_lives import Notes, Sent, Stop
from support.virtual_time import JumpingClock, run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

SCHEDULES = 100
QUIET_S = 420  # at the end, without faults: longer than anything waits for another attempt
_SPANS_S = (600, 600, 1_200, 3_600, 14_400, 86_400)


@dataclass
class Verdict:
    """What came of a story. wrong: a sentence each. skipped: slots by reason."""

    seed: int
    wrong: list[str]
    slots: int = 0
    published: int = 0
    manual: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    changes: int = 0
    crashes: int = 0
    faults: Counter[str] = field(default_factory=Counter)


class Story:
    """Attributes: seed; it decides all. is_calm: nothing goes wrong, so that every fire leaves at its very instant."""

    def __init__(self, seed: int, *, is_calm: bool = False) -> None:
        self.seed = seed
        self.is_calm = is_calm
        self.rng = rng = random.Random(seed)
        self.span_s = rng.choice(_SPANS_S)
        tz = rng.choice(ZONES)
        days = changes(tz)
        if days and rng.random() < 0.7:
            middle = from_datetime(change_instant(tz, rng.choice(days)))
        else:
            middle = UtcMs(1_798_761_600_000 + rng.randrange(3 * 365 * 86_400_000))
        start = UtcMs(middle - rng.randrange(self.span_s * 1000))
        self.clock = JumpingClock(start)
        self.store = WitnessStore(self.clock)
        per_schedule = rng.choice((17, 33, 50))
        self.drawn = Drawn(rng, start, self.span_s, tz, per_schedule)
        self.faults = Faults(rng, self.clock, max(1.0, self.span_s / 3_600))
        self.sent: list[Sent] = []
        self.stops: list[Stop] = []
        self.notes = Notes(written=self.store.written, back_steps=self.faults.back_steps)
        self.through = start
        self.bugs: list[str] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.made_changes = 0
        self._number = 0
        self._is_ending = False
        self.faults.is_quiet = is_calm

    # --- the whole of it ----------------------------------------------------------------------------------------------

    def run(self) -> Verdict:
        """Live the story through and judge it."""
        try:
            run_virtually(self.clock, self._run(), self._note_stray)
        except Exception:  # noqa: BLE001 - whatever it is, it is told with its seed
            return Verdict(self.seed, [*self.bugs, traceback.format_exc()])
        missing, slowing = self.faults.troubles()
        self.notes.missing, self.notes.slowing = missing, slowing
        journal = self.store.journal
        wrong = checked(self.store.lives, journal, self.sent, self.stops, self.through, self.notes)
        verdict = Verdict(self.seed, self.bugs + wrong, faults=self.faults.counts, changes=self.made_changes)
        for row in journal:
            verdict.slots += row.count
            if row.state is State.PUBLISHED:
                verdict.published += 1
                verdict.manual += row.kind is Kind.MANUAL
            else:
                verdict.skipped[str(row.reason or row.state)] += row.count
        verdict.duplicates = sum(each.arrival.is_accepted for each in self.sent) - len(
            {each.arrival.entry.fire.key for each in self.sent if each.arrival.is_accepted}
        )
        verdict.crashes = sum(stop.was_crash for stop in self.stops)
        return verdict

    async def _run(self) -> None:
        ends_at = self.clock.mono() + self.span_s
        is_first = True
        while True:
            is_last = self.clock.mono() > ends_at - 1e-6
            if is_last:
                self._make_peace()
            daemon = Incarnation(
                self.clock,
                self.store,
                self.faults.answer,
                jitter=random.Random(self.rng.random()).random,  # its own: a dead one may still ask
                armed_budget_bytes=self.rng.choice((1, 2_000, 6_000, 32 << 20, 32 << 20, 32 << 20, 32 << 20)),
            )
            self.faults.attach(daemon)
            if await self._start(daemon):
                if is_first:
                    await self._first_schedules(daemon)
                    is_first = False
                await self._live(daemon, ends_at)
            await self._end(daemon)
            if self._is_ending and not self.stops[-1].was_crash:
                return
            since = self.clock.wall()
            await self._pass(self.rng.choice((0, 0.3, 5, 40, 0.02 * self.span_s)), None)
            self.faults.note("down", since, self.clock.wall())

    def _make_peace(self) -> None:
        """The story ends: from now on nothing goes wrong, and everything is to be settled."""
        self.faults.end_all()
        self.faults.is_quiet = True
        self._is_ending = True

    async def _start(self, daemon: Incarnation) -> bool:
        """Start the daemon; False if the store or a crash does not let it."""
        since = self.clock.wall()
        if not self.is_calm and not self._is_ending and self.rng.random() < 0.15:
            self._arm_death(daemon)
        starting = asyncio.create_task(daemon.start())
        while not starting.done() and await self._pass(3_600, daemon, starting):
            pass
        self.faults.note("down", since, self.clock.wall())
        if not starting.done() or daemon.life.is_dead:
            return False
        error = starting.exception()
        if error is not None:
            if not isinstance(error, StoreError):
                raise error
            daemon.life.die()
            if self.rng.random() < 0.5:
                self.faults.end_all()
            return False
        for stop in self.stops:
            stop.recovered_at = min(stop.recovered_at, self.clock.wall())
        return True

    async def _live(self, daemon: Incarnation, ends_at: float) -> None:
        """Let the daemon run among commands and faults until it is to be stopped, or dies."""
        rng = self.rng
        life_ends_at = self.clock.mono() + rng.choice((0.1, 0.3, 0.5, 1)) * self.span_s
        if self.is_calm:
            life_ends_at = ends_at
        gap_s = self.span_s / 100
        while not daemon.life.is_dead and daemon.failure is None:
            now = self.clock.mono()
            if self._is_ending:
                await self._pass(QUIET_S, daemon)
                self.through = UtcMs(self.clock.wall() - 1_000)
                return
            if now > ends_at - 1e-6:
                if rng.random() < 0.5 or self.is_calm:
                    self._make_peace()
                    continue
                return
            if now >= life_ends_at:
                return
            if self.is_calm or rng.random() < 0.7:
                await self._command(daemon)
            elif rng.random() < 0.08:
                self._arm_death(daemon)
            else:
                self.faults.begin_some()
            pause_s = rng.choice((0, 0, 0.001, 0.05, 0.3, 1, 2.1, gap_s, gap_s, 2 * gap_s, 4 * gap_s))
            await self._pass(min(pause_s, max(0.0, ends_at - self.clock.mono())), daemon)
            if rng.random() < 0.3:  # to the very millisecond of many a slot
                unit = rng.choice((1_000, 60_000))
                await self._pass(-self.clock.wall() % unit / 1000, daemon)

    async def _end(self, daemon: Incarnation) -> None:
        """Stop the daemon in order, or bury it."""
        is_crash = leaves_doubt = daemon.life.is_dead
        if daemon.failure is not None:
            self._note_bug("the engine failed", daemon.failure)
            is_crash = True
        if not is_crash and not self._is_ending and self.rng.random() < 0.4:
            daemon.life.die()
            is_crash = True
        if not is_crash:
            if self.rng.random() < 0.5:
                self.faults.end_all()
            if not self._is_ending and self.rng.random() < 0.2:
                self._arm_death(daemon)
            stopping = asyncio.create_task(daemon.stop())
            while not stopping.done() and await self._pass(60, daemon, stopping):
                pass
            is_crash = daemon.life.is_dead
            error = None if is_crash else stopping.exception()
            if error is not None:
                is_crash = True
                if not isinstance(error, StoreError):
                    self._note_bug("stopping failed", error)
            leaves_doubt = is_crash or not stopping.result()
        died_at = daemon.life.died_at
        await daemon.bury()
        await self._collect()
        incarnation = len(self.stops)
        self.sent += [Sent(incarnation, arrival) for arrival in daemon.publisher.arrivals]
        at = self.clock.wall() if died_at is None else died_at
        self.faults.note("down", at, self.clock.wall())
        self.stops.append(Stop(at, is_crash, leaves_doubt=is_crash or leaves_doubt))

    def _note_bug(self, what: str, error: BaseException) -> None:
        self.bugs.append(f"{what}: {''.join(traceback.format_exception(error))}")

    def _note_stray(self, error: BaseException) -> None:
        if not isinstance(error, CronallyError):
            self._note_bug("an error of a callback, or of a task that nobody asks", error)

    def _arm_death(self, daemon: Incarnation) -> None:
        rng = self.rng
        kind = rng.choice(("turn", "turn", "call", "call", "batch"))
        most = {"turn": 400, "call": 40, "batch": 12}[kind]
        self.faults.counts[f"crash at a {kind}"] += 1
        daemon.life.die_in(kind, round(most ** rng.random()))

    async def _pass(
        self, seconds: float, daemon: Incarnation | None, task: asyncio.Task[Any] | None = None
    ) -> bool:
        """Let *seconds* pass, or less if *task* ends; faults end in their time. False if *daemon* dies meanwhile."""
        until = self.clock.mono() + seconds
        while True:
            self.faults.end_due()
            left_s = until - self.clock.mono()
            next_end = self.faults.next_end()
            if next_end is not None:
                left_s = min(left_s, next_end - self.clock.mono())
            if daemon is None:
                await self.clock.advance(max(0.0, left_s))
            elif not await daemon.life.outlive(max(0.0, left_s), task):
                return False
            if self.clock.mono() > until - 1e-6 or (task is not None and task.done()):
                return True

    # --- commands -----------------------------------------------------------------------------------------------------

    async def _first_schedules(self, daemon: Incarnation) -> None:
        lines = []
        for _ in range(SCHEDULES):
            self._number += 1
            lines.append({"name": f"job-{self._number}", **self._document()})
        task = asyncio.create_task(daemon.rig.apply(*lines))
        await self._pass(10, daemon, task)
        self.tasks.append(task)

    async def _command(self, daemon: Incarnation) -> None:
        """Give a command, and wait for its end, or go on meanwhile, or break it off."""
        rng = self.rng
        command: Callable[[Incarnation], Coroutine[Any, Any, None]] = rng.choice(
            (
                *(self._add, self._change, self._change, self._pause, self._pause),
                *(self._resume, self._resume, self._remove, self._run_now, self._run_now, self._apply),
            )
        )
        task = asyncio.create_task(command(daemon))
        self.tasks.append(task)
        if rng.random() < 0.8:
            await self._pass(10, daemon, task)
        if rng.random() < 0.5:
            task.cancel()
        await self._collect()

    async def _collect(self) -> None:
        """Look at what became of commands."""
        left = []
        for task in self.tasks:
            if not task.done():
                left.append(task)
            elif not task.cancelled():
                error = task.exception()
                if error is None:
                    self.made_changes += 1
                elif not isinstance(error, CronallyError):
                    self._note_bug("a command failed", error)
        self.tasks = left

    def _document(self) -> dict[str, object]:
        return self.drawn.document(self.clock.wall())

    def _name(self) -> str:
        names = self.store.names
        return self.rng.choice(names) if names else "none"

    async def _add(self, daemon: Incarnation) -> None:
        self._number += 1
        name = f"job-{self._number % (SCHEDULES + 20)}"
        await daemon.rig.service.put(name, self._document(), by="t", create_only=True)

    async def _change(self, daemon: Incarnation) -> None:
        rng, name, document = self.rng, self._name(), self._document()
        if self.store.id_of(name) is not None and rng.random() < 0.5:
            old = self.store.document(name)
            if not str(old["when"]).startswith(("@at", "at(")):
                keys = rng.choice(
                    (("message",), ("catch_up", "priority"), ("topic",), ("spread",), ("deadline",))
                )
                document = {**old, **{key: document[key] for key in keys if key in document}}
                if not str(document["topic"]).endswith(".fifo"):
                    document.pop("group", None)
        if rng.random() < 0.15:
            document["paused"] = rng.choice((True, False))
        await daemon.rig.service.put(name, document, by="t")

    async def _pause(self, daemon: Incarnation) -> None:
        rng, name = self.rng, self._name()
        until = self._slot(name) if rng.random() < 0.5 else None
        if until is None:
            second = -(-self.clock.wall() // 1000) * 1000
            until = UtcMs(second + rng.choice((1_000, 2_000, 10_000, 60_000, self.span_s * 20)))
        drop = self._drops(name)
        await daemon.rig.service.pause(
            name, by="t", until=until if rng.random() < 0.7 else None, drop_pending=drop
        )

    def _slot(self, name: str) -> UtcMs | None:
        """Return one of the next slots of a schedule: what happens at its very instant is worth a look."""
        if self.store.id_of(name) is None:
            return None
        now = self.clock.wall()
        slots = slots_of(self.store.document(name), now, UtcMs(now + self.span_s * 50), name=name)
        return self.rng.choice(slots[:4]) if slots else None

    async def _resume(self, daemon: Incarnation) -> None:
        paused = [name for name in self.store.names if self.store.is_paused(name)]
        await daemon.rig.service.resume(self.rng.choice(paused) if paused else self._name(), by="t")

    async def _remove(self, daemon: Incarnation) -> None:
        name = self._name()
        await daemon.rig.service.remove(name, by="t", drop_pending=self._drops(name))

    def _drops(self, name: str) -> bool:
        id_ = self.store.id_of(name)
        if id_ is None or self.rng.random() < 0.7:
            return False
        self.notes.drops.setdefault(id_, []).append(self.clock.wall())
        return True

    async def _run_now(self, daemon: Incarnation) -> None:
        key = f"key-{self.rng.randrange(5)}" if self.rng.random() < 0.2 else None
        self.notes.runs.add(await daemon.rig.service.run(self._name(), by="t", idempotency_key=key))

    async def _apply(self, daemon: Incarnation) -> None:
        names = {self._name() for _ in range(self.rng.choice((1, 3, 8)))}
        names.add(f"job-{self.rng.randrange(SCHEDULES + 20)}")
        lines = [{"name": name, **self._document()} for name in sorted(names)]
        owner = self.rng.choice(("default", "default", "team", "other"))
        is_pruning = owner != "default" and self.rng.random() < 0.5
        await daemon.rig.apply(*lines, owner=owner, is_pruning=is_pruning)
