"""One seeded story of several machines that hand shards to each other, join, leave and die, among commands and faults."""

from __future__ import annotations

import asyncio
import random
import traceback
from typing import TYPE_CHECKING, Any

from cronally.domain.model import Kind, State, fire_id
from cronally.domain.shards import SHARDS
from cronally.errors import NotReady, StoreError
from cronally.instants import UtcMs
from simulation.cluster import Cluster, Left
from simulation.mortal import end_other_tasks
from simulation.story import QUIET_S, Story, Verdict
from support.slot_checker import faults as checked
from support.slot_lives import Notes, Troubles
from support.virtual_time import run_virtually

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from cronally.domain.model import JournalEntry
    from simulation.cluster import Machine, Shard
    from simulation.mortal import Incarnation

_LEASE_S = 10.0
_AGAIN_S = 0.5  # after the store refused
_MOST_MACHINES = 4


class ClusterStory(Story):
    """Attributes: cluster. is_calm: nothing goes wrong, but shards go from machine to machine all the same."""

    def __init__(self, seed: int, *, is_calm: bool = False) -> None:
        super().__init__(seed, is_calm=is_calm)
        self.cluster = Cluster(self.clock)
        self.notes.written = self.cluster.shared.written
        self._moving: set[asyncio.Task[None]] = set()

    # --- the whole of it ----------------------------------------------------------------------------------------------

    def run(self) -> Verdict:
        try:
            run_virtually(self.clock, self._run(), self._note_stray)
        except Exception:  # noqa: BLE001 - whatever it is, it is told with its seed
            return Verdict(self.seed, [*self.bugs, traceback.format_exc()])
        verdict = Verdict(
            self.seed,
            [*self.bugs, *self.cluster.strays],
            faults=self.faults.counts,
            changes=self.made_changes,
            crashes=sum(not machine.is_alive and machine.is_buried for machine in self.cluster.machines),
        )
        missing, slowing = self.faults.troubles()
        ids = set()
        for shard in self.cluster.shards:
            journal = self.cluster.journal_of(shard)
            verdict.wrong += self._judged(shard, journal, missing, slowing)
            lives = self.cluster.shared.lives
            ids.update(fire_id(lives[row.schedule_id].name, row.fire_time, row.kind) for row in journal)
            self._count(verdict, shard, journal)
        verdict.wrong += [f"{id_} was confirmed and has no entry" for id_ in sorted(self.notes.runs - ids)]
        return verdict

    def _judged(
        self, shard: Shard, journal: Sequence[JournalEntry], missing: Troubles, slowing: Troubles
    ) -> list[str]:
        """Judge a shard by itself: only its own hand-overs may hold it up."""
        lives = {id_: life for id_, life in self.cluster.shared.lives.items() if id_ % SHARDS == shard.number}
        if not lives:
            return []
        notes = Notes(
            written=self.notes.written,
            drops=self.notes.drops,
            missing=Troubles([*missing.spans, *shard.moves]),
            slowing=Troubles([*slowing.spans, *shard.moves]),
            back_steps=self.notes.back_steps,
        )
        return checked(lives, journal, shard.sent, shard.stops, self.through, notes)

    def _count(self, verdict: Verdict, shard: Shard, journal: Sequence[JournalEntry]) -> None:
        for row in journal:
            verdict.slots += row.count
            if row.state is State.PUBLISHED:
                verdict.published += 1
                verdict.manual += row.kind is Kind.MANUAL
            else:
                verdict.skipped[str(row.reason or row.state)] += row.count
        accepted = [each.arrival.entry.fire.key for each in shard.sent if each.arrival.is_accepted]
        verdict.duplicates += len(accepted) - len(set(accepted))

    async def _run(self) -> None:
        ends_at = self.clock.mono() + self.span_s
        await self._join()
        await self._settle_shards()
        await self._first_schedules(self.cluster.machines[0].daemon)
        for _ in range(self.rng.choice((0, 1, 2))):
            await self._join()
        gap_s = self.span_s / 200
        while self.clock.mono() < ends_at - 1e-6:
            await self._act()
            pause_s = self.rng.choice((0, 0, 0.001, 0.05, 0.3, 1, 2.1, gap_s, gap_s, 2 * gap_s, 4 * gap_s))
            await self._pass(min(pause_s, max(0.0, ends_at - self.clock.mono())), None)
            if self.rng.random() < 0.3:  # to the very millisecond of many a slot
                unit = self.rng.choice((1_000, 60_000))
                await self._pass(-self.clock.wall() % unit / 1000, None)
        self._make_peace()
        for machine in self.cluster.alive:
            machine.daemon.life.spare()
        if not self.cluster.alive:
            await self._join()
        await self._settle_shards()
        await self._pass(QUIET_S, None)
        self.through = UtcMs(self.clock.wall() - 1_000)
        for machine in self.cluster.machines:
            if machine.is_alive:
                await self._stop(machine)
        for shard in self.cluster.shards:
            machine = shard.machine
            assert machine is not None
            shard.end(self.clock.wall(), was_crash=False)
            shard.machine = machine
        await end_other_tasks()
        await self._collect()

    async def _act(self) -> None:
        rng, alive = self.rng, self.cluster.alive
        if not alive:
            await self._join()
            return
        chance = rng.random()
        if chance < 0.45:
            machine = rng.choice(alive)
            self.store = machine.records
            if machine.records.names or rng.random() < 0.3:
                await self._command(machine.daemon)
        elif chance < 0.8:
            for _ in range(rng.choice((1, 1, 3, 10))):
                self._hand_over_some()
        elif chance < 0.85 and len(alive) < _MOST_MACHINES:
            await self._join()
        elif self.is_calm:
            return
        elif chance < 0.9:
            machine = rng.choice(alive)
            if rng.random() < 0.5:
                machine.daemon.life.die()
            else:
                self._arm_death(machine.daemon)
        else:
            self.faults.begin_some()

    async def _pass(
        self, seconds: float, daemon: Incarnation | None, task: asyncio.Task[Any] | None = None
    ) -> bool:
        """Let *seconds* pass, or less if *task* ends; see to faults whose time is over and to machines that die meanwhile."""
        until = self.clock.mono() + seconds
        while True:
            self.faults.end_due()
            self._bury()
            left_s = max(0.0, until - self.clock.mono())
            next_end = self.faults.next_end()
            if next_end is not None:
                left_s = min(left_s, max(0.0, next_end - self.clock.mono()))
            alarm = self.clock.timer(left_s)
            if task is not None:
                task.add_done_callback(lambda _, alarm=alarm: alarm.done() or alarm.set_result(True))
            await alarm
            is_dead = daemon is not None and daemon.life.is_dead
            if self.clock.mono() > until - 1e-6 or (task is not None and task.done()) or is_dead:
                self._bury()
                return not is_dead

    # --- machines -----------------------------------------------------------------------------------------------------

    async def _join(self) -> None:
        machine = self.cluster.add(
            self.faults.answer,
            jitter=random.Random(self.rng.random()).random,
            armed_budget_bytes=self.rng.choice((1, 6_000, 32 << 20, 32 << 20, 32 << 20)),
        )
        self.faults.attach(machine.daemon)
        starting = asyncio.create_task(machine.daemon.start())
        while not starting.done() and await self._pass(60, machine.daemon, starting):
            pass
        error = starting.exception() if starting.done() else None
        machine.is_started = starting.done() and error is None
        if error is not None:
            if not isinstance(error, StoreError):
                raise error
            machine.daemon.life.die()
            machine.is_buried = True
            if self._is_ending or not self.cluster.machines[:-1]:
                await self._join()

    async def _stop(self, machine: Machine) -> None:
        machine.is_leaving = True
        stopping = asyncio.create_task(machine.daemon.stop())
        while not stopping.done() and await self._pass(60, machine.daemon, stopping):
            pass
        if stopping.done() and stopping.exception() is not None:
            self._note_bug("stopping failed", stopping.exception() or StoreError())

    def _bury(self) -> None:
        """Begin the take-over of what dead machines had."""
        for machine in self.cluster.machines:
            if machine.is_buried:
                continue
            if machine.daemon.failure is not None:
                self._note_bug("the engine failed", machine.daemon.failure)
                machine.daemon.life.die()
            if not machine.is_alive:
                machine.is_buried = True
                machine.daemon.store.fail()  # the dead ask nobody, so that chance goes on as it would
                self._begin(self._take_over(machine))

    async def _take_over(self, machine: Machine) -> None:
        """Wait for its lease to end, and have others take its shards."""
        died_at = machine.daemon.life.died_at
        assert died_at is not None
        shards = [shard for shard in self.cluster.shards if shard.machine is machine]
        for shard in shards:
            watermark = machine.watermark_of(shard.number)
            records = machine.records
            shard.left = Left(records.copy(shard.number), watermark, was_clean=False, reached=records.reached)
            shard.begin_move(died_at)
            shard.end(died_at, was_crash=True)
        await self.clock.sleep(_LEASE_S)
        self.rng.shuffle(shards)
        while shards:
            most = self.rng.choice((1, 3, 64))
            self._begin(self._take(*shards[:most]))
            del shards[:most]

    # --- shards -------------------------------------------------------------------------------------------------------

    def _begin(self, move: Coroutine[Any, Any, None]) -> None:
        """Let a shard, or those of a machine, be moved meanwhile; what goes wrong with that is a bug."""

        def end(task: asyncio.Task[None]) -> None:
            self._moving.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self._note_bug("a move failed", error)

        task = asyncio.create_task(move)
        self._moving.add(task)
        task.add_done_callback(end)

    async def _settle_shards(self) -> None:
        """Return when every shard is driven by a machine."""
        while not self.bugs and any(
            shard.machine is None or shard.moving_since is not None for shard in self.cluster.shards
        ):
            for shard in self.cluster.shards:
                if shard.machine is None and shard.moving_since is None:
                    shard.begin_move(self.clock.wall())
                    self._begin(self._take(shard))
            await self._pass(1, None)

    def _hand_over_some(self) -> None:
        living = sorted({id_ % SHARDS for id_ in self.cluster.shared.living.values()})
        shard = self.cluster.shards[self.rng.choice(living or [0])]
        if shard.machine is None or shard.moving_since is not None or len(self.cluster.alive) < 2:
            return
        shard.begin_move(self.clock.wall())
        self.faults.counts["hand-over"] += 1
        self._begin(self._give(shard, shard.machine))

    async def _give(self, shard: Shard, machine: Machine) -> None:
        while True:
            try:
                given = await machine.daemon.rig.engine.hand_over.give_up(shard.number)
                break
            except (StoreError, NotReady):
                if self.rng.random() < 0.3:  # it stays
                    shard.end_move(self.clock.wall())
                    return
                await self.clock.sleep(_AGAIN_S)
            if not machine.is_alive:
                return
        if machine.is_alive:
            records = machine.records
            shard.left = Left(records.copy(shard.number), *given, records.reached)
            records.drop(shard.number)
            shard.end(self.clock.wall(), was_crash=False, leaves_doubt=not given.was_clean)
            await self.clock.sleep(self.rng.choice((0, 0.2, 0.2, 1, 12)))
            await self._take(shard)

    async def _take(self, *shards: Shard) -> None:
        while not self.cluster.alive:
            await self.clock.sleep(1)
        machine = self.rng.choice(self.cluster.alive)
        taken = []
        for shard in shards:
            left, shard.left = shard.left, None
            assert left is not None
            its = machine.records.add(
                shard.number,
                left.records,
                watermark=left.watermark,
                was_clean=left.was_clean,
                reached=left.reached,
            )
            machine.behind[shard.number] = left.watermark
            shard.begin(machine)
            taken.append(its)
        while True:
            try:
                await machine.daemon.rig.engine.hand_over.take_in(taken)
                break
            except (StoreError, NotReady):
                await self.clock.sleep(_AGAIN_S)
            if not machine.is_alive:
                return
        if machine.is_alive:
            for shard in shards:
                del machine.behind[shard.number]
                shard.recovered(self.clock.wall())
                shard.end_move(self.clock.wall())
