"""What is measured, and told to whoever asks for metrics."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from cronally.domain.model import Kind, SkipReason, State
from cronally.engine.histogram import Histogram
from cronally.engine.lag_watch import LagWatch
from cronally.engine.measures import FateKey, Measures
from cronally.instants import UtcMs, parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.memory_store import MemoryStore
from support.recording_publisher import (
    PUBLISHED,
    REJECTED,
    THROTTLED,
    TIMED_OUT,
    TOPIC_GONE,
    Answer,
    RecordingPublisher,
)
from support.rig import TOPIC, assembled, running_engine

OTHER = "arn:aws:sns:us-east-1:123456789012:other"
NINE = parse_rfc3339("2026-11-23T09:00:00Z")


def scripted(**answers):
    """Answer the first attempts of each schedule as listed; then everything is published."""

    def script(entry, attempt):
        some = answers.get(entry.name, ())
        return some[attempt - 1] if attempt <= len(some) else PUBLISHED

    return script


def test_a_histogram_counts_by_inclusive_bounds_and_adds_up():
    histogram = Histogram((10, 20))
    histogram.add(10)
    histogram.extend([11, 20, 21])
    assert histogram.counts() == [(10, 1), (20, 2), (None, 1)]
    assert histogram.distribution() == (((0.00001, 1), (0.00002, 2), (None, 1)), 0.000062)


async def test_attempts_are_counted_by_what_they_came_to_and_retries_beside_them():
    script = scripted(
        throttled=(THROTTLED,), lost=(TIMED_OUT,), refused=(REJECTED,), slow=(Answer(delay_s=0.2),)
    )
    async with running_engine(script=script) as rig:
        for name in ("throttled", "lost", "refused", "slow"):
            await rig.add(name, "0 9 * * *")
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(30)
        figures = await rig.reporting.figures()
    assert figures.attempts == {"published": 3, "throttled": 1, "unknown": 1, "rejected": 1}
    assert figures.retries == 2
    assert figures.fates == {
        FateKey(State.PUBLISHED, None, Kind.SCHEDULED): 3,
        FateKey(State.REJECTED, None, Kind.SCHEDULED): 1,
    }
    assert sum(count for _, count in figures.answer.buckets) == 2  # the two repetitions went in one request
    assert figures.answer.sum_s == pytest.approx(0.2)
    assert sum(count for _, count in figures.lateness.buckets) == 1  # the others went at a second attempt


async def test_fires_are_counted_by_reason_and_kind():
    async with running_engine() as rig:
        await rig.add("missed", "@every 10s", catch_up="skip")
        await rig.add("asked", "0 0 1 1 *")
        await rig.service.run("asked", by="test")
        await rig.clock.advance(1)
        rig.clock.step_wall(60_000)
        await rig.clock.advance(2)
        fates = (await rig.reporting.figures()).fates
    assert fates[FateKey(State.PUBLISHED, None, Kind.MANUAL)] == 1
    assert fates[FateKey(State.SKIPPED, SkipReason.CATCH_UP, Kind.SCHEDULED)] >= 5


async def test_what_is_counted_is_what_the_journal_says():
    """Also of what a pause, a command and newer slots have skipped."""
    async with running_engine(
        script=lambda entry, _: TOPIC_GONE if entry.topic == TOPIC else PUBLISHED
    ) as rig:
        await rig.add("gone", "* * * * *", catch_up="all")
        await rig.add("newest", "* * * * *")
        await rig.add("brief", "* * * * *", deadline="90s")
        for name in ("resting", "until", "again"):
            await rig.add(name, "* * * * *", topic=OTHER)
        await rig.clock.advance_to(NINE)
        await rig.service.pause("resting", by="test")
        await rig.service.pause("again", by="test")
        await rig.service.pause("until", by="test", until=UtcMs(NINE + 200_000))
        await rig.service.run("gone", by="test")
        await rig.clock.advance(190)
        await rig.service.resume("again", by="test")
        await rig.service.pause("again", by="test")
        await rig.clock.advance(190)
        await rig.service.remove("gone", by="test", drop_pending=True)
        await rig.service.remove("again", by="test")
        await rig.clock.advance(1)
        fates = (await rig.reporting.figures()).fates
        journal = Counter()
        for entry in (await rig.journal()).values():
            if entry.state is not State.PENDING and not entry.is_open:
                journal[FateKey(entry.state, entry.reason, entry.kind)] += entry.count
    assert fates == journal
    assert journal[FateKey(State.SKIPPED, SkipReason.DROPPED, Kind.SCHEDULED)] >= 5
    assert journal[FateKey(State.SKIPPED, SkipReason.DROPPED, Kind.MANUAL)] == 1
    assert journal[FateKey(State.SKIPPED, SkipReason.SUPERSEDED, Kind.SCHEDULED)] >= 3
    assert journal[FateKey(State.SKIPPED, SkipReason.PAUSED, Kind.SCHEDULED)] == 3 + 3 + 3


async def test_what_waits_and_for_whom_is_told():
    async with running_engine(script=lambda *_: TOPIC_GONE) as rig:
        await rig.add("a", "0 9 * * *")
        await rig.add("resting", "0 9 * * *", paused=True)
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(60)
        figures = await rig.reporting.figures()
    assert figures.counts.oldest_pending_due == NINE
    assert (figures.counts.schedules, figures.counts.paused, figures.counts.failing) == (2, 1, 1)
    assert figures.refusing_count == 1
    assert [(one.topic, one.pending, one.since) for one in figures.refusing] == [(TOPIC, 1, NINE)]
    assert 0 <= figures.now - figures.watermark < 1_000


async def test_before_the_first_recovery_nothing_is_said_of_the_watermark():
    clock, store = FakeClock(), MemoryStore()
    rig = assembled(clock, store, RecordingPublisher(clock))
    await store.open()
    figures = await rig.reporting.figures()
    assert (figures.watermark, figures.is_ready) == (None, False)


async def test_at_most_twenty_topics_are_named():
    async with running_engine(script=lambda *_: TOPIC_GONE) as rig:
        for number in range(25):
            await rig.service.put(f"s{number}", {"when": "0 9 * * *", "topic": f"{TOPIC}{number}"}, by="test")
        await rig.clock.settle()
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(1)
        figures = await rig.reporting.figures()
    assert (len(figures.refusing), figures.refusing_count) == (20, 25)


async def test_commits_are_timed_and_refused_ones_counted():
    clock = FakeClock()
    store = FaultyStore(clock)
    store.before_s["commit"] = 0.03
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("a", "0 9 * * *")
        store.fail("commit")
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(1)
        refused = (await rig.reporting.figures()).commit_failures
        store.fail()
        await rig.clock.advance(5)
        figures = await rig.reporting.figures()
    assert refused >= 1
    assert figures.commit_failures == refused
    assert figures.store_failures == refused
    assert sum(count for _, count in figures.commit.buckets) == 1
    assert figures.commit.sum_s == pytest.approx(0.03)


async def test_figures_are_there_while_the_store_cannot_be_read():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        store.fail("counts")
        figures = await rig.reporting.figures()
        store.fail()
    assert (figures.counts, figures.size_bytes) == (None, None)


async def test_the_loop_is_as_late_as_it_wakes():
    class Busy(FakeClock):
        async def sleep(self, duration_s):
            await super().sleep(duration_s + 0.02)

    clock, measures = Busy(), Measures()
    task = asyncio.create_task(LagWatch(clock, measures).run())
    await clock.settle()
    await clock.advance(3.1)
    task.cancel()
    assert [(bound, count) for bound, count in measures.lag.counts() if count] == [(25_000, 3)]
    assert measures.lag.distribution().sum_s == pytest.approx(0.06)
