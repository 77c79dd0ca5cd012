"""What a machine that shares its work does beside its engine."""

from __future__ import annotations

import pytest

from cronally.app.sharing import Paced
from cronally.domain.shards import SHARDS
from cronally.engine.records import TakenIn
from cronally.sns.pacing import Pacing
from support.fake_clock import FakeClock
from support.rig import running_engine
from support.shard_store import Numbers, ShardStore

VIRGINIA = "arn:aws:sns:us-east-1:123456789012:reports"


async def test_a_machine_uses_as_much_of_the_quota_as_it_has_of_the_shards():
    clock = FakeClock()
    pacing = Pacing({"us-east-1": 6_400})

    def quota():
        pacing.room_in_s(VIRGINIA, 1, clock.mono())
        [use] = pacing.uses(clock.mono())
        return use.quota

    async with running_engine(clock=clock, store=ShardStore(Numbers()), is_one_of_several=True) as rig:
        driver = Paced(rig.engine.hand_over, rig.engine.core.here, pacing)
        assert quota() == pytest.approx(100)  # whoever has none may still send an alert
        for number in range(SHARDS):
            await driver.take_in([TakenIn(number, (), None, was_clean=True)])
            assert quota() == pytest.approx(100 * (number + 1))
        giving = rig.start(driver.give_up(5))
        await clock.settle()
        assert giving.done()
        assert quota() == pytest.approx(6_300)
