"""A loop of the engine that hangs is noticed; one that has nothing to do, or waits for its store, is not taken to hang."""

from __future__ import annotations

import pytest

from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.rig import running_engine


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    return FaultyStore(clock)


async def test_idle_loops_pass_each_second(clock, store):
    async with running_engine(clock=clock, store=store) as rig:
        for _ in range(60):
            await clock.advance(1)
            assert rig.engine.loop.pulse.silence()[0] <= 1


@pytest.mark.parametrize(("method", "loop"), [("specs", "plan"), ("pending_due", "retry")])
async def test_a_loop_that_waits_for_what_never_comes_is_named(clock, store, method, loop):
    async with running_engine(clock=clock, store=store, crash=True) as rig:
        await rig.add("job", "* * * * *")
        store.before_s = {method: 3_600}
        if method == "pending_due":
            rig.engine.loop.retrying.look_for_pending()
        await clock.advance(60)
        silent_s, silent = rig.engine.loop.pulse.silence()
        assert silent == loop
        assert silent_s > 25
        await clock.advance(3_700)
        store.before_s = {}
        await clock.advance(3_700)
        assert rig.engine.loop.pulse.silence()[0] <= 1


async def test_the_loop_that_releases_is_missed_too(clock, store):
    async with running_engine(clock=clock, store=store) as rig:
        rig.engine.loop._releasing.stop()  # it has ended, and nothing else has
        await clock.advance(30)
        silent_s, silent = rig.engine.loop.pulse.silence()
        assert (silent, silent_s >= 29) == ("release", True)


@pytest.mark.parametrize("methods", [("commit",), ("specs",), ("specs", "commit", "pending_due")])
async def test_while_the_store_refuses_no_loop_is_taken_to_hang(clock, store, methods):
    async with running_engine(clock=clock, store=store, crash=True) as rig:
        await rig.add("job", "* * * * *")
        store.fail(*methods)
        await rig.service.run("job", by="test")  # what it says is not to be had for as long
        for _ in range(200):
            await clock.advance(1)
            assert rig.engine.loop.pulse.silence()[0] <= 15
        store.fail()
        await clock.advance(10)
