"""The last look at the lease: what is released after it may have gone to another machine is not sent."""

from __future__ import annotations

import pytest

from cronally.engine.leases import trusted_until
from cronally.engine.ports import OutcomeClass
from cronally.engine.trust import Trust
from support.entries import batch, numbers
from support.fake_clock import FakeClock
from support.recording_publisher import RecordingPublisher


class Rig:
    def __init__(self):
        self.clock = FakeClock()
        self.inner = RecordingPublisher(self.clock)
        self.until = self.clock.boot() + 7
        self.trust = Trust(self.inner, lambda: self.until, self.clock)
        self.outcomes = []

    async def release(self, *batches):
        armed = await self.trust.arm(batches, self.clock.wall())
        self.trust.release(armed, self.outcomes.extend)
        assert self.outcomes == []  # never before release has returned
        await self.clock.settle()
        outcomes, self.outcomes = self.outcomes, []
        return outcomes


@pytest.fixture
async def rig():
    rig = Rig()
    yield rig
    await rig.trust.close()


async def test_within_the_lease_all_goes(rig):
    await rig.clock.advance(6.999)
    assert [each.outcome for each in await rig.release(batch(2))] == [OutcomeClass.PUBLISHED] * 2


@pytest.mark.parametrize("later_s", [0.0, 0.001, 3_600.0])
async def test_from_its_end_on_nothing_goes_and_each_entry_may_be_tried_again(rig, later_s):
    await rig.clock.advance(7 + later_s)
    outcomes = await rig.release(batch(2), batch(1, first=2))
    assert numbers(outcomes) == [0, 1, 2]
    assert {(each.outcome, each.is_unknown) for each in outcomes} == {(OutcomeClass.RETRY, False)}
    assert all("lease" in each.error for each in outcomes)
    assert rig.inner.arrivals == []


async def test_a_suspended_machines_lease_runs_on(rig):
    await rig.clock.suspend(7)
    await rig.release(batch(1))
    assert rig.inner.arrivals == []


async def test_a_wall_clock_that_is_set_does_not_matter(rig):
    rig.clock.step_wall(-3_600_000)
    await rig.release(batch(1))
    rig.clock.step_wall(7_200_000)
    await rig.release(batch(1))
    assert len(rig.inner.arrivals) == 2


async def test_a_renewal_that_came_in_time_for_what_is_armed_counts(rig):
    armed = await rig.trust.arm([batch(1), batch(1, first=1)], rig.clock.wall())
    await rig.clock.advance(8)
    rig.trust.release(armed[:1], rig.outcomes.extend)
    rig.until = rig.clock.boot() + 7
    rig.trust.release(armed[1:], rig.outcomes.extend)
    await rig.clock.settle()
    assert {each.fire.schedule_id: each.outcome for each in rig.outcomes} == {
        0: OutcomeClass.RETRY,
        1: OutcomeClass.PUBLISHED,
    }


def test_trust_counts_from_the_start_of_the_renewal_less_a_second():
    assert trusted_until(100.0, 8_000) == 107.0
