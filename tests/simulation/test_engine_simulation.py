"""The engine on a virtual clock among seeded faults, judged by the slot checker.

A failure names its seed; ``pytest "tests/simulation/test_engine_simulation.py::test_...[SEED]"`` repeats it exactly.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from cronally.errors import CronallyError, StoreError
from cronally.instants import UtcMs, format_utc
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.recording_publisher import (
    LOST_ACKNOWLEDGEMENT,
    PUBLISHED,
    REJECTED,
    THROTTLED,
    TIMED_OUT,
    TOPIC_GONE,
)
from support.rig import FIFO_TOPIC, TOPIC, running_engine
from support.slot_checker import Life, Rest, Rule, Sent, Stop, faults

if TYPE_CHECKING:
    from support.rig import Rig

START = "2026-10-24T22:57:13.400Z"  # a night in which the clocks of Europe go back
WHENS = (
    "@every 1s",
    "@every 7s",
    "@every 20s",
    "@every 1m",
    "* * * * *",
    "*/2 * * * *",
    "0-59/3 22-23,0,1 * * *",
)
SLOW = (
    "commit",
    "change",
    "specs",
    "pending_due",
    "group_pending",
    "at_between",
    "settled_between",
    "flip",
    "next_at",
    "in_line",
    "next_group",
    "lines",
)


TROUBLES = (THROTTLED, THROTTLED, TIMED_OUT, LOST_ACKNOWLEDGEMENT, REJECTED, TOPIC_GONE)


class Simulation:
    """One seeded story.

    is_calm: without faults, so that every fire leaves at its very instant. Every other one is narrow: there is memory and
    room for a few messages only.
    """

    def __init__(self, seed: int, *, is_calm: bool) -> None:
        self.random = random.Random(seed)
        self.is_narrow = seed % 2 == 1
        self.is_calm = is_calm
        self.clock = FakeClock(START)
        self.store = FaultyStore(self.clock)
        self.documents: dict[str, dict[str, object]] = {}
        self.lives: dict[int, Life] = {}
        self.ids: dict[str, int] = {}
        self.sent: list[Sent] = []
        self.stops: list[Stop] = []
        self.trouble = 0.0
        self.troubles = TROUBLES
        self.is_quiet = is_calm
        self.number = 0

    # --- what happens -----------------------------------------------------------------------------------------------

    async def run(self, incarnations: int, steps: int) -> list[str]:
        for incarnation in range(incarnations):
            is_last = incarnation == incarnations - 1
            crash = not self.is_calm and not is_last and self.random.random() < 0.6
            await self.live(steps, crash=crash, is_last=is_last)
            await self.clock.advance(self.random.choice((0, 0.3, 5, 40, 200)))
        inner = self.store.inner
        return faults(self.lives, list(inner._journal.values()), self.sent, self.stops, self.through)

    async def live(self, steps: int, *, crash: bool, is_last: bool) -> None:
        self.heal()
        publishers = []
        try:
            async with running_engine(
                clock=self.clock, store=self.store, script=self.answer, crash=crash, **self.limits()
            ) as rig:
                publishers.append(rig.publisher)
                for _ in range(steps):
                    await self.step(rig)
                    await self.clock.advance(self.random.choice((0, 0.001, 0.05, 0.3, 1, 1, 2.1, 5, 13)))
                    if self.random.random() < 0.3:  # to the very millisecond of many a slot
                        await self.clock.advance_to(UtcMs(-(-self.clock.wall() // 1000) * 1000))
                if is_last:
                    self.heal()
                    rig.publisher.room = rig.publisher.quota = None
                    rig.publisher.on_room()
                    self.is_quiet = True
                    await self.clock.advance(420)
                    self.through = UtcMs(self.clock.wall() - 1_000)
                elif self.random.random() < 0.5:
                    self.heal()
        except StoreError:
            crash = True
        for publisher in publishers:
            self.sent += [Sent(len(self.stops), arrival) for arrival in publisher.arrivals]
        self.stops.append(Stop(self.clock.wall(), crash))
        await self.take_note(self.clock.wall())

    def limits(self) -> dict[str, Any]:
        if not self.is_narrow:
            return {}
        return {
            "armed_budget_bytes": self.random.choice((1, 2_000, 6_000)),
            "room": self.random.choice((None, 1, 4)),
            "quota": None if self.is_calm else self.random.choice((None, 0.5, 3)),
        }

    async def step(self, rig: Rig) -> None:
        actions = [
            self.add,
            self.add,
            self.change,
            self.change,
            self.pause,
            self.resume,
            self.remove,
            self.run_now,
            self.apply,
        ]
        if not self.is_calm:
            actions += [self.suspend, self.disturb, self.disturb, self.heal_sometimes]
        action = self.random.choice(actions)
        began = self.clock.wall()
        task = rig.start(action(rig))
        for _ in range(40):
            await self.clock.settle()
            if task.done():
                break
            await self.clock.advance(0.25)
        if not task.done():
            task.cancel()
            await self.clock.settle()
        if task.done() and not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, CronallyError):
                raise error
        await self.take_note(began)

    def document(self) -> dict[str, object]:
        chance = self.random.random
        document: dict[str, object] = {
            "when": self.random.choice(WHENS),
            "topic": TOPIC if chance() < 0.6 else FIFO_TOPIC,
            "message": f"message {self.random.randrange(1000)}",
            "catch_up": self.random.choice(("latest", "all", "skip")),
        }
        if chance() < 0.15:
            moment = self.clock.wall() + self.random.choice((500, 1500, 3000, 30_000, 90_000))
            document["when"] = f"@at {format_utc(UtcMs(moment))}"
        if chance() < 0.3:
            document["spread"] = self.random.choice(("5s", "90s"))
        if chance() < 0.3:
            document["deadline"] = self.random.choice(("2s", "30s", "3m"))
        if chance() < 0.3 and document["topic"] == FIFO_TOPIC:
            document["group"] = "shared"
        if chance() < 0.1:
            document["starts"] = format_utc(UtcMs(self.clock.wall() + self.random.randrange(60_000)))
        if chance() < 0.1:
            document["ends"] = format_utc(UtcMs(self.clock.wall() + 60_000 + self.random.randrange(60_000)))
        if chance() < 0.3:
            document["tz"] = "Europe/London"
        if chance() < 0.3:
            document["priority"] = self.random.choice((0, 7, 9))
        return document

    def name(self) -> str:
        return self.random.choice(sorted(self.ids)) if self.ids else "none"

    async def add(self, rig: Rig) -> None:
        self.number += 1
        name = f"job-{self.number % 12}"
        await rig.service.put(name, self.document(), by="t", create_only=True)

    async def change(self, rig: Rig) -> None:
        name = self.name()
        document = self.document()
        if self.random.random() < 0.3 and name in self.ids:
            last = self.lives[self.ids[name]].rules[-1].document
            if not str(last["when"]).startswith("@at"):
                document = {**last, "message": document["message"]}
        if self.random.random() < 0.2:
            document["paused"] = self.random.choice((True, False))
        await rig.service.put(name, document, by="t")

    async def pause(self, rig: Rig) -> None:
        until = UtcMs(
            -(-self.clock.wall() // 1000) * 1000 + self.random.choice((1_000, 2_000, 10_000, 60_000))
        )
        await rig.service.pause(
            self.name(),
            by="t",
            until=until if self.random.random() < 0.6 else None,
            drop_pending=self.random.random() < 0.3,
        )

    async def resume(self, rig: Rig) -> None:
        await rig.service.resume(self.name(), by="t")

    async def remove(self, rig: Rig) -> None:
        await rig.service.remove(self.name(), by="t", drop_pending=self.random.random() < 0.3)

    async def run_now(self, rig: Rig) -> None:
        await rig.service.run(self.name(), by="t")

    async def apply(self, rig: Rig) -> None:
        names = {self.name() for _ in range(3)} | {f"job-{self.random.randrange(12)}"}
        await rig.apply(*[{"name": name, **self.document()} for name in sorted(names)])

    async def suspend(self, _rig: Rig) -> None:
        if self.random.random() < 0.4:
            seconds = self.random.choice((1, 4, 15, 70))
            self.clock.step_wall(seconds * 1000)

    async def disturb(self, rig: Rig) -> None:
        """Make the store slow or fail, or SNS refuse."""
        match self.random.randrange(5 if self.is_narrow else 4):
            case 0:
                where = self.random.choice((self.store.before_s, self.store.after_s))
                where[self.random.choice(SLOW)] = self.random.choice((0.01, 0.2, 1.5))
            case 1:
                failing = set(self.random.sample(SLOW, k=3))
                self.store.fails = lambda name: name in failing and self.random.random() < 0.5
            case 2:
                failing = {self.random.choice(SLOW)}
                self.store.fails = lambda name: name in failing
            case 3:
                self.trouble = self.random.choice((0.2, 0.9, 1.0, 1.0))
                self.troubles = self.random.choice((TROUBLES, TROUBLES, (TOPIC_GONE,), (TIMED_OUT,)))
            case 4:
                rig.publisher.room = self.random.choice((None, 0, 1, 4))
                rig.publisher.quota = self.random.choice((None, 0.1, 0.5, 3))
                rig.publisher.on_room()

    async def heal_sometimes(self, _rig: Rig) -> None:
        if self.random.random() < 0.5:
            self.heal()

    def heal(self) -> None:
        self.trouble = 0.0
        self.store.fail()
        self.store.before_s.clear()
        self.store.after_s.clear()

    def answer(self, _entry, _attempt):
        if self.is_quiet:
            return PUBLISHED
        is_trouble = self.random.random() < self.trouble
        answer = self.random.choice(self.troubles) if is_trouble else PUBLISHED
        return answer._replace(delay_s=self.random.choice((0, 0, 0.02, 0.4, 3)))

    # --- what was so --------------------------------------------------------------------------------------------------

    async def take_note(self, began: UtcMs) -> None:
        """Learn from the store what changes have been made since *began*, and hold them against the clock."""
        stored = {each.spec.name: each for each in await self.store.inner.schedules()}
        for name, id_ in list(self.ids.items()):
            if name not in stored or stored[name].id != id_:
                gone = self.store.inner._schedules[id_]
                self.lives[id_].removed_at = gone.changed_at
                if self.lives[id_].rests:
                    rest = self.lives[id_].rests[-1]
                    rest.resumed_at = min(rest.resumed_at, gone.changed_at)
                assert began <= gone.changed_at <= self.clock.wall()
                del self.ids[name]
        for name, schedule in stored.items():
            from cronally.domain.spec import to_document

            if name not in self.ids:
                self.ids[name] = schedule.id
                self.lives[schedule.id] = Life(name)
            life = self.lives[schedule.id]
            if not life.rules or life.rules[-1].revision_id != schedule.revision_id:
                after = schedule.effective_from
                resumed = (
                    life.rests and life.rests[-1].until is not None and after == life.rests[-1].until - 1
                )
                if not resumed:
                    assert began <= after <= self.clock.wall(), (name, began, after, self.clock.wall())
                life.rules.append(Rule(after, schedule.revision_id, to_document(schedule.spec)))
            rest = life.rests[-1] if life.rests else None
            if schedule.pause is None:
                if rest is not None and (rest.until is None or schedule.effective_from < rest.until - 1):
                    rest.resumed_at = min(rest.resumed_at, schedule.effective_from)
            elif rest is None or rest.since != schedule.pause.since:
                assert began <= schedule.pause.since <= self.clock.wall()
                if rest is not None:
                    rest.resumed_at = min(rest.resumed_at, schedule.pause.since)
                life.rests.append(Rest(schedule.pause.since, schedule.pause.until))
            else:
                rest.until = schedule.pause.until


@pytest.mark.parametrize("seed", range(24))
async def test_every_promise_is_kept_among_faults(seed):
    simulation = Simulation(seed, is_calm=False)
    wrong = await simulation.run(incarnations=3, steps=30)
    assert not wrong, f"seed {seed}:\n" + "\n".join(wrong[:20])
    assert len(simulation.sent) > 50


@pytest.mark.parametrize("seed", range(8))
async def test_without_faults_every_fire_leaves_once_and_at_its_very_instant(seed):
    simulation = Simulation(seed, is_calm=True)
    wrong = await simulation.run(incarnations=1, steps=80)
    assert not wrong, f"seed {seed}:\n" + "\n".join(wrong[:20])
    late = [a for _, a in simulation.sent if a.released_us != a.entry.fire.due_time * 1000]
    assert not late, f"seed {seed}: {[(a.entry.fire_id, a.released_us) for a in late[:5]]}"
    assert len({a.entry.fire_id for _, a in simulation.sent}) == len(simulation.sent) > 50
