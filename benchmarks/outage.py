"""What does an outage cost: SNS away for an hour with 10,000 schedules a minute, and a daemon that was down for a week.

The engine with its store on disk, in this process, on a clock that hurries between the minutes: an hour of outage takes four
minutes. When SNS is back, the clock runs as usual. SNS is a stub that refuses, or takes what the quota allows.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import resource
import time
from array import array
from typing import TYPE_CHECKING, Any

from benchmarks._harness import say, scratch
from benchmarks._report import asked_table, at_least, at_most, machine, machine_line, none_of, table
from cronally.clock import SystemClock, WaitResult
from cronally.domain.model import SkipReason, State
from cronally.engine.engine import Engine
from cronally.engine.live import Live
from cronally.engine.measures import Measures
from cronally.engine.ports import Outcome, OutcomeClass
from cronally.engine.records import JournalFilter
from cronally.engine.reporting import Reporting
from cronally.engine.service import Service
from cronally.instants import UtcMs
from cronally.sns.pacing import DEFAULT, Pacing
from cronally.store.sqlite import SqliteStore

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from cronally.clock import Clock
    from cronally.domain.batching import Batch
    from cronally.domain.model import Fire, JournalEntry
    from cronally.engine.ports import Armed
    from cronally.instants import MonoS

QUICK = ["--schedules", "2000", "--minutes", "20", "--downtime", "1000"]
ASKED_MEMORY_MB = 100  # more than at rest; half of it is the store's cache
ASKED_IDLE_PER_CENT = 1
ASKED_START_S = 5.0
ASKED_OF_QUOTA = 0.9

_TOPICS = tuple(f"arn:aws:sns:us-east-1:123456789012:outage-{n}" for n in range(3))
_PRIORITIES = (9, 5, 2)
_ANSWER_S = 0.02
_CALLS = 200  # without an answer
_CALL_BYTES = 12_800
_WEEK_S = 7 * 86_400
_GONE = "NotFound: Topic does not exist"
_PATIENCE_S = 900.0
_AFTER_FULL_S = 5.0
_SLOWLY_BEFORE_MS = 3_000  # what is due is planned two seconds ahead


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--schedules", type=int, default=10_000, help="that fire every minute")
    parser.add_argument("--minutes", type=int, default=60, help="SNS is away for so long")
    parser.add_argument("--quota", type=float, default=9_000, help="messages a second, of the region")
    parser.add_argument("--speed", type=float, default=100, help="of the clock between the minutes")
    parser.add_argument(
        "--idle-s", type=float, default=20.0, help="how long it is watched at rest while SNS is away"
    )
    parser.add_argument(
        "--downtime", type=lambda text: [int(item) for item in text.split(",")], default=[1_000, 10_000]
    )


class _Clock(SystemClock):
    """Runs *speed* times as fast as the machine's, from now; ``change`` it at any time."""

    def __init__(self, at: UtcMs) -> None:
        self._wall_us = at * 1000
        self._began = time.perf_counter()
        self.speed = 1.0

    def change(self, speed: float) -> None:
        self._wall_us, self._began = self.wall_us(), time.perf_counter()
        self.speed = speed

    def wall(self) -> UtcMs:
        return UtcMs(self.wall_us() // 1000)

    def wall_us(self) -> int:
        return self._wall_us + int((time.perf_counter() - self._began) * 1e6 * self.speed)

    def mono(self) -> MonoS:
        return self.wall_us() / 1e6  # type: ignore[return-value]

    def boot(self) -> float:
        return self.wall_us() / 1e6

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s / self.speed)

    async def wait(self, until: UtcMs | None, wake: asyncio.Event, *, precise: bool = False) -> WaitResult:
        del precise  # at this speed nothing is
        if wake.is_set():
            wake.clear()
            return WaitResult.WOKEN
        left_s = 1.0 if until is None else min(1.0, (until * 1000 - self.wall_us()) / 1e6)
        if left_s > 0:
            try:
                await asyncio.wait_for(wake.wait(), max(left_s / self.speed, 0.0005))
            except TimeoutError:
                pass
            else:
                wake.clear()
                return WaitResult.WOKEN
        return WaitResult.DUE if until is not None and self.wall() >= until else WaitResult.RECHECK


class _Call:
    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.size_bytes = _CALL_BYTES * len(batch.entries) // 10


class _Sns:
    """A publisher. is_away: it refuses everything. What it takes is noted: when, priority, due time."""

    def __init__(self, clock: _Clock, quota: float) -> None:
        self.on_room: Callable[[], None] = lambda: None
        self.is_away = False
        self.attempts = 0
        self.at_ms, self.due_ms, self.priority = array("q"), array("q"), array("b")
        self._clock = clock
        self._pacing = Pacing({DEFAULT: quota})
        self._open = 0
        self._timer: asyncio.TimerHandle | None = None

    async def arm(self, batches: Sequence[Batch], _at: UtcMs) -> list[Armed]:
        return [_Call(batch) for batch in batches]

    def has_room(self, topic: str, messages: int) -> bool:
        wait_s = self._pacing.room_in_s(topic, messages, self._clock.mono())
        if wait_s > 0 and self._timer is None:
            after_s = max(wait_s / self._clock.speed, 0.001)
            self._timer = asyncio.get_running_loop().call_later(after_s, self._ask)
        return self._open < _CALLS and wait_s <= 0

    def _ask(self) -> None:
        self._timer = None
        self.on_room()

    def drop_connections(self) -> None:
        """It has none."""

    def wait_s(self, topic: str, messages: int) -> float:
        return self._pacing.wait_s(topic, messages, self._clock.mono())

    def release(self, armed: Sequence[Armed], settle: Callable[[Sequence[Outcome]], None]) -> None:
        for call in armed:
            self._open += 1
            self._pacing.take(call.batch.topic, len(call.batch.entries), self._clock.mono())
            self.attempts += len(call.batch.entries)
            after_s = _ANSWER_S / self._clock.speed
            asyncio.get_running_loop().call_later(
                after_s, self._answer, call.batch, settle, self._clock.wall_us()
            )

    def _answer(self, batch: Batch, settle: Callable[[Sequence[Outcome]], None], released_us: int) -> None:
        self._open -= 1
        now = self._clock.wall()
        if self.is_away:
            settle([Outcome(e.fire, OutcomeClass.HOLD, released_us, now, _GONE) for e in batch.entries])
        else:
            for entry in batch.entries:
                self.at_ms.append(released_us // 1000)
                self.due_ms.append(entry.fire.due_time)
                self.priority.append(entry.priority)
            settle([Outcome(e.fire, OutcomeClass.PUBLISHED, released_us, now) for e in batch.entries])
        self.on_room()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class _Counting(Measures, Live):
    """Counts what is journalled."""

    def __init__(self) -> None:
        super().__init__()
        self.journalled: dict[State, int] = dict.fromkeys(State, 0)

    def committed(self, entries: Sequence[JournalEntry]) -> None:
        for entry in entries:
            self.journalled[entry.state] += 1


class _House:
    """An engine on a store, run in this process."""

    def __init__(self, path: Path, clock: _Clock, sns: _Sns) -> None:
        self.store = SqliteStore(path)
        self.counting = _Counting()
        self.engine = Engine(self.store, sns, clock, self.counting, jitter=random.random)
        self.reporting = Reporting(
            self.engine.core,
            self.store,
            self.engine.loop.halt,
            clock,
            self.counting,
            self.engine.loop.circuits,
            version="0",
            store_name="bench",
        )
        self.service = Service(
            self.engine.core,
            self.store,
            self.engine.edits,
            self.engine.orders,
            self.reporting,
            clock,
            self.counting,
            self.engine.allowed,
        )
        self._running: asyncio.Task[None] | None = None
        self.recovery_s = 0.0

    async def start(self) -> Sequence[Fire]:
        opened = await self.store.open()
        began = time.perf_counter()
        first = await self.engine.recover(opened)
        self.recovery_s = time.perf_counter() - began
        self.reporting.set_ready()
        self._running = asyncio.create_task(self.engine.run(first))
        return first

    async def stop(self) -> None:
        assert self._running is not None
        await self.engine.drain(10)
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.store.close(watermark=await self.engine.finish())

    async def apply(self, documents: Iterator[dict[str, object]]) -> None:
        async def lines() -> AsyncIterator[bytes]:
            for document in documents:
                yield json.dumps(document).encode()

        await self.service.apply(lines(), owner="bench", by="bench")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure."""
    facts = machine()
    gc.disable()  # as the daemon does but for quiet moments
    with scratch() as directory:
        outage = asyncio.run(_outage(directory / "outage.db", options))
    weeks = []
    for count in options.downtime:
        with scratch() as directory:
            weeks.append(asyncio.run(_week(directory / "week.db", count)))
        say(f"a week's downtime, {count:,} schedules: started in {weeks[-1]['recovery_s']:.1f} s")
    of_quota = outage["drained_per_s"] / options.quota
    return {
        "benchmark": "outage",
        "machine": facts,
        "schedules": options.schedules,
        "minutes": options.minutes,
        "quota": options.quota,
        "outage": outage,
        "weeks": weeks,
        "asked": [
            at_most("memory of the outage", ASKED_MEMORY_MB, outage["more_memory_mb"], "MB"),
            at_most("at rest while SNS is away", ASKED_IDLE_PER_CENT, outage["idle_per_cent"], "% of a core"),
            at_least("of the quota while it drains", ASKED_OF_QUOTA, of_quota, ""),
            none_of("sent while others of a higher priority waited", outage["overtaken"]),
            none_of("missed", outage["missed"]),
            *(
                at_most(f"start after a week, {week['schedules']:,}", ASKED_START_S, week["recovery_s"], "s")
                for week in weeks
            ),
            none_of("rows beyond two a schedule", sum(week["more_rows"] for week in weeks)),
        ],
    }


def _documents(count: int) -> Iterator[dict[str, object]]:
    """Yield schedules that fire every minute: of ten, one has a deadline of 15 minutes and one sends only the latest."""
    for number in range(count):
        kind = number // 9 % 10
        yield {
            "name": f"outage-{number:06}",
            "when": "* * * * *",
            "topic": _TOPICS[number % 3],
            "priority": _PRIORITIES[number // 3 % 3],
            "message": f'{{"number": {number}}}',
            "catch_up": "latest" if kind == 0 else "all",
            "deadline": "15m" if kind == 1 else "24h",
        }


async def _outage(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    clock = _Clock(UtcMs(int(time.time()) // 60 * 60_000 + 5_000))
    sns = _Sns(clock, options.quota)
    house = _House(path, clock, sns)
    await house.start()
    await house.apply(_documents(options.schedules))
    await _minute(house, clock, options.speed)  # the first instant, with SNS there
    at_rest_mb = _memory_mb()
    steps = _Steps()
    sns.is_away = True
    away_from = clock.wall()
    cpu_s, attempts = _cpu_s(), sns.attempts
    most_mb = at_rest_mb
    for minute in range(1, options.minutes + 1):
        await _minute(house, clock, options.speed)
        most_mb = max(most_mb, _memory_mb())
        if minute % 10 == 0:
            say(f"away for {minute} minutes: {_memory_mb():.0f} MB")
    outage_cpu_s = _cpu_s() - cpu_s
    longest_away_ms = steps.stop()
    await asyncio.sleep(min(_AFTER_FULL_S, options.idle_s))
    cpu_s, began = _cpu_s(), time.perf_counter()
    await asyncio.sleep(options.idle_s)
    idle = (_cpu_s() - cpu_s) / (time.perf_counter() - began)
    counts = (await house.store.counts()).journal
    circuits = (await house.reporting.status()).refusing
    held = sum(1 for _ in house.engine.core.held_slots())
    away_ms = clock.wall() - away_from
    attempts = sns.attempts - attempts
    steps = _Steps()

    sns.is_away = False
    house.engine.loop.circuits.forget_instants(
        clock.wall()
    )  # it is not to wait five minutes for the next probe
    house.engine.loop.retrying.forget_instants()
    back_at, before = clock.wall(), len(sns.at_ms)
    cpu_s, began = _cpu_s(), time.perf_counter()
    pending_before = counts.get(State.PENDING, 0)
    while await house.store.lines() or house.engine.core.in_flight_count():
        most_mb = max(most_mb, _memory_mb())
        if time.perf_counter() - began > _PATIENCE_S:
            say("it did not drain in time")
            break
        await asyncio.sleep(0.5)
    drain_cpu_s = _cpu_s() - cpu_s
    drained = _drained(sns, before, back_at)
    final = (await house.store.counts()).journal
    slots = options.schedules * ((clock.wall() - 1_000) // 60_000 - away_from // 60_000 + 1)
    await house.stop()
    longest_drain_ms = steps.stop()
    superseded = await _count(path, SkipReason.SUPERSEDED)
    return {
        "at_rest_mb": at_rest_mb,
        "most_memory_mb": most_mb,
        "more_memory_mb": most_mb - at_rest_mb,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "attempts_while_away": attempts,
        "pending": pending_before,
        "held_in_memory": held,
        "circuits": [one.topic for one in circuits],
        "circuit_pending": sum(one.pending for one in circuits),
        "expired": final.get(State.EXPIRED, 0),
        "superseded": superseded,
        "missed": max(0, slots - sum(final.values())),
        "cpu_ms_per_minute_away": outage_cpu_s * 1000 / options.minutes,
        "cpu_us_per_slot_away": outage_cpu_s * 1e6 / (options.minutes * options.schedules),
        "idle_per_cent": idle * 100,
        "away_s": away_ms / 1000,
        "longest_step_away_ms": longest_away_ms,
        "longest_step_drain_ms": longest_drain_ms,
        "drain_cpu_us": drain_cpu_s * 1e6 / max(1, len(sns.at_ms) - before),
        **drained,
    }


async def _minute(house: _House, clock: _Clock, speed: float) -> None:
    """Let the time until the next slots pass quickly, and wait until they are on record."""
    instant = UtcMs((clock.wall() // 60_000 + 1) * 60_000)
    clock.change(speed)
    await _until(clock, UtcMs(instant - _SLOWLY_BEFORE_MS))
    clock.change(1.0)
    await _until(clock, instant)
    while house.engine.core.watermark(clock.wall()) < instant:
        await clock.sleep(0.02)
    await house.engine.settler.flush()


async def _count(path: Path, reason: SkipReason) -> int:
    store = SqliteStore(path)
    await store.open()
    try:
        count, before = 0, None
        while rows := await store.history(
            JournalFilter(reasons=frozenset({reason}), before=before, limit=1000)
        ):
            count += len(rows)
            last = rows[-1].entry
            before = (last.fire_time, last.schedule_id, str(last.kind))
        return count
    finally:
        await store.close(watermark=None)


def _drained(sns: _Sns, before: int, back_at: UtcMs) -> dict[str, Any]:
    """Return how what had waited went: the slots due before *back_at*."""
    waited = [n for n in range(before, len(sns.at_ms)) if sns.due_ms[n] < back_at]
    rows = []
    for priority in _PRIORITIES:
        of = [n for n in waited if sns.priority[n] == priority]
        behind, newest = 0, 0
        for n in of:
            behind = max(behind, newest - sns.due_ms[n])
            newest = max(newest, sns.due_ms[n])
        first, last = (sns.at_ms[of[0]] - back_at, sns.at_ms[of[-1]] - back_at) if of else (0, 0)
        rows.append(
            {
                "priority": priority,
                "messages": len(of),
                "first_s": first / 1000,
                "last_s": last / 1000,
                "most_behind_s": behind / 1000,
            }
        )
    # What is armed is not called back: a second of quota, and the probes.
    last_ms = {row["priority"]: row["last_s"] * 1000 + back_at for row in rows}
    overtaken = sum(
        1
        for n in waited
        if any(sns.at_ms[n] < last_ms[higher] - 2_000 for higher in _PRIORITIES if higher > sns.priority[n])
    )
    span_s = (sns.at_ms[waited[-1]] - back_at) / 1000 if waited else 0.0
    sent = sum(1 for n in range(before, len(sns.at_ms)) if sns.at_ms[n] <= back_at + span_s * 1000)
    return {
        "by_priority": rows,
        "overtaken": overtaken,
        "drain_s": span_s,
        "drained": len(waited),
        "drained_per_s": sent / span_s if span_s else 0.0,
    }


async def _week(path: Path, count: int) -> dict[str, Any]:
    clock = _Clock(UtcMs(int(time.time()) // 60 * 60_000 + 5_000))
    house = _House(path, clock, _Sns(clock, 30_000))
    await house.start()
    await house.apply(
        {"name": f"week-{n:06}", "when": "* * * * *", "topic": _TOPICS[0]} for n in range(count)
    )
    await house.stop()
    later = _Clock(UtcMs(clock.wall() // 60_000 * 60_000 + _WEEK_S * 1000 + 30_000))
    house = _House(path, later, _Sns(later, 30_000))
    await house.start()
    recovery_s = house.recovery_s
    await asyncio.sleep(1.0)
    skipped = house.counting.journalled[State.SKIPPED]
    slots = (await house.store.counts()).journal.get(State.SKIPPED, 0)
    rows = sum(house.counting.journalled.values())
    await house.stop()
    return {
        "schedules": count,
        "recovery_s": recovery_s,
        "skip_rows": skipped,
        "skipped_slots": slots,
        "more_rows": max(0, rows - 2 * count),
    }


class _Steps:
    """Watches how long the event loop is held, which takes some processor time itself."""

    def __init__(self) -> None:
        self._longest_ms = 0.0
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            self._longest_ms = max(self._longest_ms, (time.perf_counter() - began) * 1000 - 1.0)

    def stop(self) -> float:
        """Return the longest time, milliseconds."""
        self._task.cancel()
        return self._longest_ms


async def _until(clock: Clock, at: UtcMs) -> None:
    nobody = asyncio.Event()
    while await clock.wait(at, nobody) is not WaitResult.DUE:
        pass


def _memory_mb() -> float:
    with open("/proc/self/statm") as file:  # noqa: PTH123 - read often
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _cpu_s() -> float:
    return time.process_time()


def render(result: dict[str, Any]) -> str:
    """Write the result of run() as tables."""
    outage = result["outage"]
    keys = (
        ("pending rows", "pending"),
        ("schedules with slots in memory", "held_in_memory"),
        ("attempts while away", "attempts_while_away"),
        ("expired", "expired"),
        ("superseded", "superseded"),
        ("MB at rest", "at_rest_mb"),
        ("most MB", "most_memory_mb"),
        ("cpu us a slot while away", "cpu_us_per_slot_away"),
        ("% of a core at rest while away", "idle_per_cent"),
        ("longest step while away, ms", "longest_step_away_ms"),
        ("longest step of the drain, ms", "longest_step_drain_ms"),
        ("drained", "drained"),
        ("in s", "drain_s"),
        ("messages/s", "drained_per_s"),
        ("cpu us a message of the drain", "drain_cpu_us"),
    )
    head = ("priority", "messages", "first s", "last s", "most behind s")
    weeks = [
        (week["schedules"], week["recovery_s"], week["skip_rows"], week["skipped_slots"])
        for week in result["weeks"]
    ]
    title = (
        f"outage: SNS away for {result['minutes']} minutes, {result['schedules']:,} schedules a minute, "
        f"quota {result['quota']:,.0f}/s"
    )
    return "\n\n".join(
        [
            f"{title}\n{machine_line(result['machine'])}",
            table(("", ""), [(name, outage[key]) for name, key in keys]),
            table(head, [list(row.values()) for row in outage["by_priority"]], left=()),
            table(("schedules", "start s", "skip rows", "slots skipped"), weeks, left=()),
            asked_table(result["asked"]),
        ]
    )
