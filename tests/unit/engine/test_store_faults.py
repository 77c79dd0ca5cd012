"""A store that refuses: fires go on within a bound, readiness says so, and all of it heals by itself."""

from __future__ import annotations

import logging

import pytest

from cronally.domain.model import Fire, State
from cronally.engine import settle
from cronally.engine.core import Core
from cronally.engine.halt import Halt
from cronally.engine.hooks import Hooks
from cronally.engine.journalist import Journalist
from cronally.engine.ports import Outcome, OutcomeClass
from cronally.engine.retention import Keep
from cronally.engine.settle import Settler, published_entry
from cronally.errors import NotReady, StoreBusy, StoreCorrupt, StoreError, StoreFull
from cronally.instants import parse_rfc3339
from support.entries import launch
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.rig import running_engine


def at(time):
    return parse_rfc3339(f"2026-11-23T{time}Z")


def damaged(_text):
    return StoreCorrupt("/x.db", "page 7")


ERRORS = [(StoreFull, True), (StoreBusy, True), (StoreError, False), (damaged, False)]


@pytest.mark.parametrize(("error", "is_passing"), ERRORS)
async def test_fires_go_on_while_commits_fail_and_are_on_record_when_they_succeed(error, is_passing):
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 10s")
        store.error = error
        store.fail("commit", "change")
        await clock.advance_to(at("09:00:05"))
        assert len(rig.sent) == 3
        # What may pass by itself in a moment is not a reason to be unready yet; the rest is.
        assert (rig.reporting.not_ready_because is None) is is_passing
        assert (await rig.reporting.status()).is_ready is is_passing
        refusal = type(error("x")) if is_passing else NotReady
        with pytest.raises(refusal, match=r"change fails" if is_passing else "takes no commits"):
            await rig.add("new", "* * * * *")
        assert await rig.states() == {}
        store.fail()
        await clock.advance(1)
        assert rig.reporting.not_ready_because is None
        assert set((await rig.states()).values()) == {State.PUBLISHED}
        assert len(await rig.states()) == 3
        assert not [entry for entry in (await rig.journal()).values() if entry.maybe_published]
        await rig.add("new", "* * * * *")


async def test_a_damaged_store_is_said_with_the_way_to_restore_it():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 10s")
        store.error = damaged
        store.fail("commit")
        await clock.advance_to(at("09:00:05"))
        assert "cronally restore FILE" in rig.reporting.not_ready_because
        store.fail()
        await clock.advance(1)


async def test_at_the_bound_nothing_more_leaves_until_a_commit_succeeds(monkeypatch):
    assert (
        settle.MAX_UNCOMMITTED == 100_000
    )  # docs/faults.md, row 32; what happens there does not depend on how many
    monkeypatch.setattr(settle, "MAX_UNCOMMITTED", 500)
    clock = FakeClock()
    store = FaultyStore(clock)
    store.fail("commit")
    core = Core()
    settler = Settler(core, store, clock, Hooks(), on_committed=lambda: None)
    halt = Halt(settler)
    fires = [Fire(id_, 1, at("09:00:00"), at("09:00:00")) for id_ in range(1, 501)]
    for fire in fires:
        core.hold(fire)
    launch(core, *fires)
    core.mark_settled(fires)
    rows = [published_entry(Outcome(fire, OutcomeClass.PUBLISHED, 0, at("09:00:00"))) for fire in fires]
    settler.add(rows[:-1])
    assert not settler.is_blocked, "nothing has failed yet"
    with pytest.raises(StoreBusy):
        await settler.flush()
    assert not halt.is_on()
    settler.add(rows[-1:])
    assert settler.is_blocked
    assert halt.is_on()
    store.fail()
    await settler.flush()
    assert not settler.is_blocked
    assert halt.reason == "store", "recovery decides what leaves now"


async def test_while_recovery_cannot_read_the_store_the_daemon_is_not_ready():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "@every 10s")
        await clock.advance_to(at("09:00:05"))
        store.error = StoreError
        store.fail("settled_between")
        await clock.suspend(60)
        assert "cannot be read" in rig.reporting.not_ready_because
        with pytest.raises(NotReady):
            await rig.add("new", "* * * * *")
        sent = len(rig.sent)
        await clock.advance(30)
        assert len(rig.sent) == sent
        store.fail()
        await clock.advance(3)
        assert rig.reporting.not_ready_because is None
        await clock.advance(20)
        journal = await rig.journal()
        assert {entry.state for entry in journal.values()} == {State.PUBLISHED, State.SKIPPED}
        slots = sum(entry.count for entry in journal.values())
        assert slots == (clock.wall() - at("08:59:40")) // 10_000 + 1


async def test_a_store_that_keeps_failing_is_in_the_log_once_a_minute_and_its_return_too(caplog):
    caplog.set_level(logging.INFO, logger="cronally")
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store, hooks=Journalist(clock, Keep())) as rig:
        await rig.add("job", "@every 1s")
        store.error = StoreFull
        store.fail("commit")
        await clock.advance(59)
        assert [r.message for r in caplog.records] == [
            "the store refuses: commit fails, as the test wants; trying again"
        ]
        await clock.advance(3)
        assert len(caplog.records) == 2
        caplog.clear()
        store.fail()
        await clock.advance(2)
        assert caplog.records[0].message == "the store takes commits again"
        await clock.advance(30)
        assert "refuses" not in caplog.text
