"""What is measured of machines, shards and leases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from cronally.admin.exposition import exposed
from cronally.engine.figures import ClusterFigures, LeaseFigures
from cronally.engine.lease_counts import LeaseCounts
from cronally.engine.leases import TRUST_MARGIN_S
from cronally.engine.measures import HandOverWay, Measures
from cronally.engine.shard_watch import ShardWatch, driven_elsewhere, undriven
from cronally.errors import StoreBusy
from cronally.store.heartbeat import Heartbeat
from support.fake_clock import FakeClock
from support.fleet import Fleet
from support.rig import running_engine

LEASE_S = 8.0


@pytest.fixture
async def fleet():
    fleet = Fleet(FakeClock())
    yield fleet
    await fleet.end()


async def two(fleet):
    a, b = await fleet.add("a"), await fleet.add("b")
    await fleet.advance(20)
    return a, b


def shards(node):
    """Return how many shards a machine takes to be driven by itself, by others and by nobody."""
    sharing = node.membership.sharing()
    return len(sharing.driven), len(driven_elsewhere(sharing)), len(undriven(sharing))


async def test_shards_are_told_by_who_drives_them_and_add_up(fleet):
    a, b = await two(fleet)
    assert shards(a) == (32, 32, 0)
    await b.end()
    await fleet.advance(4)
    assert shards(a) == (32, 32, 0)  # b may live
    a.driver.take_s = 3.0
    await fleet.advance(LEASE_S - 2)
    own, others, nobody = shards(a)
    assert (own + nobody, others) == (64, 0)
    assert nobody >= 16
    await fleet.advance(20)
    assert shards(a) == (64, 0, 0)


async def test_a_shard_that_this_machine_has_and_cannot_drive_is_driven_by_nobody(fleet):
    a = await fleet.add("a", error=StoreBusy("the disk is gone"))
    await fleet.advance(20)
    assert a.owned
    assert shards(a) == (0, 0, 64)


async def test_it_is_told_for_how_long_a_shard_has_been_driven_by_nobody(fleet):
    a, b = await two(fleet)
    watch = ShardWatch(a.clock, a.membership.sharing)
    watching = asyncio.create_task(watch.run())
    await fleet.advance(5)
    assert watch.look() == 0
    a.driver.error = StoreBusy("the disk is gone")
    await b.end()
    await fleet.advance(LEASE_S + 30)
    assert 25 < watch.look() < 31
    a.driver.error = None
    await fleet.advance(3)
    assert watch.look() == 0
    a.driver.error = StoreBusy("the disk is gone again")
    await fleet.advance(20)
    assert watch.look() == 0
    watching.cancel()


def test_before_a_machine_knows_of_others_it_says_nothing_of_shards():
    assert ShardWatch(FakeClock(), lambda: None).look() == 0
    nothing = SimpleNamespace(machines=(), driven=())
    watch = ShardWatch(FakeClock(), lambda: nothing)
    assert watch.look() == 0


async def test_hand_overs_are_counted_by_how_they_went(fleet):
    a = await fleet.add("a")
    await fleet.advance(2)
    of_a = a.membership._hooks = Measures()
    b = await fleet.add("b", latency_s=0.01)
    of_b = b.membership._hooks = Measures()
    await fleet.advance(20)
    assert of_a.hand_overs == {HandOverWay.GIVEN: 32}
    assert of_b.hand_overs == {HandOverWay.TAKEN: 32}
    await b.end()
    await fleet.advance(20)
    assert of_a.hand_overs == {HandOverWay.GIVEN: 32, HandOverWay.TAKEN_OVER: 32}


class Table:
    """A heartbeat's item. Attributes: failures: so many of the next writes are not answered. retired: by another machine."""

    def __init__(self):
        self.item = None
        self.failures = 0
        self.retired = False

    async def put(self, item, *, condition=None, values=None):
        if self.failures:
            self.failures -= 1
            raise StoreBusy("no answer")
        if self.retired:
            return False
        self.item = item
        return True

    async def get(self, _key):
        return self.item | {"retired": self.retired}


async def test_renewals_are_counted_and_what_the_table_refuses_to_one_that_was_retired():
    clock, counts, table = FakeClock(), LeaseCounts(), Table()
    beat = Heartbeat(table, clock, host="a", lease_ms=8_000, counts=counts)
    await beat.join()
    await beat.say(lambda said: said)
    assert (counts.renewed, counts.failed, counts.refused) == (1, 0, {})
    table.failures = 2
    saying = asyncio.create_task(beat.say(lambda said: said))
    await clock.advance(1)
    await saying
    assert (counts.renewed, counts.failed, counts.refused) == (2, 2, {})
    table.retired = True
    with pytest.raises(Exception, match="has retired it"):
        await beat.say(lambda said: said)
    assert (counts.renewed, counts.failed, counts.refused) == (2, 2, {"heartbeat": 1})


async def test_what_this_machine_sees_is_what_a_scrape_tells(fleet):
    a, b = await two(fleet)
    await fleet.add("c")
    await fleet.advance(20)
    await b.end()
    await fleet.advance(4)
    async with running_engine() as rig:
        figures = await rig.reporting.figures()

    def scraped(cluster):
        text = b"".join(exposed(replace(figures, cluster=cluster), is_openmetrics=False)).decode()
        return {(s.name, *s.labels.values()): s.value for one in parse(text) for s in one.samples}

    leases = LeaseFigures(7, 2, {"shard": 3}, 1)
    cluster = ClusterFigures(8_000, a.membership.sharing(), 1.5, 0.25, leases, 10.5, 20.0)
    found = scraped(cluster)
    assert found["cronally_machines",] == 3
    assert 4 <= found["cronally_heartbeat_age_seconds",] <= 4 + LEASE_S / 3 + 1
    assert found["cronally_shards", "this"] + found["cronally_shards", "other"] == 64
    assert 21 <= found["cronally_shards", "this"] <= 22
    assert found["cronally_shards", "nobody"] == 0
    assert found["cronally_shard_undriven_seconds",] == 1.5
    assert found["cronally_lease_seconds",] == 8
    assert 0 < found["cronally_lease_left_seconds",] <= LEASE_S - TRUST_MARGIN_S
    assert found["cronally_lease_renewals_total", "renewed"] == 7
    assert found["cronally_lease_renewals_total", "failed"] == 2
    assert found["cronally_leases_lost_total",] == 1
    assert found["cronally_hand_overs_total", "taken_over"] == 0
    assert found["cronally_refused_writes_total", "heartbeat"] == 0
    assert found["cronally_refused_writes_total", "shard"] == 3
    assert found["cronally_following_age_seconds",] == 0.25
    assert found["cronally_table_answers",] == 1
    assert found["cronally_table_units_total", "read"] == 10.5
    assert found["cronally_table_units_total", "write"] == 20
    *some, one = cluster.sharing.machines
    found = scraped(
        cluster._replace(sharing=cluster.sharing._replace(machines=(*some, one._replace(is_retired=True))))
    )
    assert found["cronally_machines",] == 2
    a.store.faults.is_cut = True
    await fleet.advance(3)
    found = scraped(cluster._replace(sharing=a.membership.sharing()))
    assert found["cronally_table_answers",] == 0
    await fleet.advance(10)
    found = scraped(cluster._replace(sharing=a.membership.sharing()))
    assert found["cronally_lease_left_seconds",] == 0
    found = scraped(cluster._replace(sharing=None, following_age_s=None))
    assert ("cronally_machines",) not in found
    assert ("cronally_lease_left_seconds",) not in found
    assert found["cronally_leases_lost_total",] == 1
