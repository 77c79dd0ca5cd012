"""What joining, restarting and losing machines costs the shards of a small fleet; docs/scaling.md has the figures of a larger one."""

from __future__ import annotations

from simulation.fleet_days import FleetDays


async def test_no_shard_waits_for_longer_than_is_promised():
    phases = await FleetDays(6).run()
    start, rest, restart, join, crash, together = phases
    assert all(figures.doubled == 0 for figures in phases)
    assert all(max(figures.shares) - min(figures.shares) <= 1 for figures in phases)
    assert rest.moves == 0
    assert max(rest.idle_s) == 0
    assert rest.calls_per_s < 5
    for planned in (start, restart, join):
        assert max(planned.idle_s) <= 1.0
    for unplanned in (crash, together):
        assert max(unplanned.idle_s) <= 10.0
    # A restart moves what the machine had, and what it has afterwards; nothing else.
    assert restart.moves <= 6 * 2 * 11
