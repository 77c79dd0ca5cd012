"""docs/scaling.md: its tables are what its formulas and the code say, and its simulation is run."""

from __future__ import annotations

import asyncio
import random
import re
from math import ceil
from pathlib import Path

import pytest

from cronally.admin.errands import _LOOK_EVERY_S
from cronally.domain.model import JournalEntry, State
from cronally.domain.shards import SHARDS
from cronally.engine.membership import LOOK_S
from cronally.instants import parse_rfc3339
from cronally.store.committing import KEPT_DAYS
from cronally.store.dynamodb import LEASE_MS
from cronally.store.grown_shards import _GROWN_BYTES
from cronally.store.heartbeat import Heartbeat
from cronally.store.shared_items import Said
from cronally.store.shared_log import Committed, Logged, encode
from support.fake_clock import FakeClock
from support.fleet import Fleet

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "scaling.md").read_text()
T = parse_rfc3339("2026-11-23T09:00:00Z")
MONTH_S = 30 * 86_400
COMMITS = MONTH_S / (LEASE_MS / 3000)
WRITE, READ = 0.625e-6, 0.125e-6
KEYS_BYTES = 140  # of an item of the log: its key, names and numbers


def rows(heading):
    """Return the cells of the table with this heading."""
    assert heading in TEXT
    table = TEXT.partition(heading)[2].partition("\n\n")[0].split("\n")[2:]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table]


def item_bytes(item):
    """Return the size of an item as DynamoDB counts it."""
    return sum(len(name) + value_bytes(value) for name, value in item.items())


def value_bytes(value):
    if value is None or isinstance(value, bool):
        return 1
    return len(str(value)) // 2 + 2 if isinstance(value, int) else len(value)


def record(fires):
    """Return the parts of a commit of so many fires, of schedules of all shards."""
    drawn = random.Random(1)
    by_shard = {}
    for _ in range(fires):
        id_ = drawn.randrange(SHARDS, 2000 * SHARDS)
        fire_time = T + drawn.randrange(3) * 1000
        by_shard.setdefault(id_ % SHARDS, []).append(
            JournalEntry(
                schedule_id=id_,
                fire_time=fire_time,
                revision_id=id_ + SHARDS * drawn.randrange(3),
                due_time=fire_time,
                state=State.PUBLISHED,
                attempts=1,
                released_at=fire_time,
                published_at=fire_time + drawn.randrange(5, 40),
                lateness_us=drawn.randrange(100, 2000),
            )
        )
    return encode([Logged(shard, Committed(some)) for shard, some in by_shard.items()]).parts


# --- cost -------------------------------------------------------------------------------------------------------


def test_an_idle_machine_costs_what_the_page_says():
    heartbeat, look, inbox, idle = rows("| | how often | units | a month |")
    costs = [COMMITS * WRITE, MONTH_S / LOOK_S * 0.5 * READ, MONTH_S / _LOOK_EVERY_S * 0.5 * READ]
    assert [row[3] for row in (heartbeat, look, inbox)] == [f"${cost:.2f}" for cost in costs]
    assert idle[3] == f"${sum(costs):.2f}"
    assert sum(costs) < 2
    assert heartbeat[1].startswith(f"every {LEASE_MS / 3000:.1f} s")
    assert look[1] == f"every {LOOK_S} s"


def test_a_heartbeat_is_as_large_as_the_page_says():
    beat = Heartbeat(None, FakeClock(), host="ip-10-0-12-34.eu-west-1.compute.internal", lease_ms=LEASE_MS)
    beat._started_at = T
    said = Said(sequence=123_456, stamp=T, watermark=T, hand_overs=64, pruned_through=T, reached=T)
    size = item_bytes(beat._item(100_000, said))
    assert f"heartbeat: {round(size, -1)} bytes" in TEXT
    assert f"The heartbeats of {4096 // size} machines are 4 KB" in TEXT


def test_fires_cost_what_the_formulas_say():
    found = rows("| fires a month | a second |")
    assert [cells[0] for cells in found] == ["1 million", "10 million", "100 million"]
    for cells in found:
        fires = int(cells[0].split()[0]) * 1_000_000
        in_one = max(1, round(fires / COMMITS))
        parts = record(in_one)
        size = sum(map(len, parts))
        commits = min(COMMITS, fires)
        units = sum(ceil((len(part) + KEYS_BYTES) / 1024) for part in parts)
        log = commits * units * WRITE
        snapshots = 2 * commits * size / 1024 * WRITE
        assert cells[1:] == [
            f"{fires / MONTH_S:.1f}",
            f"{size / in_one:.0f}",
            f"${log:.2f}",
            f"${snapshots:.2f}",
            f"${log + snapshots:.2f}",
        ]
        assert log + snapshots < 10
    assert _GROWN_BYTES == 64 << 10


def test_readings_of_other_machines_cost_what_the_formula_says():
    for machines, cost in rows("| machines that all fire |"):
        count = int(machines)
        assert cost == f"${count * (count - 1) * COMMITS * READ:.2f}"
    assert f"{COMMITS:,.0f} × $0.125" in TEXT


def test_the_example_is_the_sum_of_the_tables():
    together = float(rows("| fires a month | a second |")[2][5].strip("$"))
    each = float(rows("| | how often | units | a month |")[3][3].strip("$"))
    reading = float(rows("| machines that all fire |")[0][1].strip("$"))
    assert (
        f"2 × ${each:.2f} + ${together:.2f} + ${reading:.2f} = ${2 * each + together + reading:.2f}" in TEXT
    )
    stored_gb = COMMITS * sum(map(len, record(round(100e6 / COMMITS)))) / 1e9
    assert f"{stored_gb:.1f} GB" in TEXT
    assert f"kept for {KEPT_DAYS} days" in TEXT


def test_ten_million_leave_at_the_pace_of_the_quota():
    for _, quota, until in rows("| | quota a second |"):
        assert until == f"{10_000_000 / int(quota.replace(',', '')):.0f} s"
    assert f"{10_000_000 / 3600:,.0f} a second" in TEXT


# --- the simulation of 20 machines ------------------------------------------------------------------------------


@pytest.fixture
async def fleet():
    fleet = Fleet(FakeClock())
    yield fleet
    await fleet.end()


def at_most(row):
    """Return the seconds that a row of the simulation's table allows."""
    return float(re.search(r"([\d.]+) s at most", row)[1])


@pytest.mark.long
async def test_twenty_machines_do_what_the_page_says(fleet):
    started, killed, joined, stopped, quiet = [row[1] for row in rows("| what happens | |")]
    for _ in range(20):
        await fleet.add(latency_s=0.01)
    assert await fleet.until_whole(5) <= at_most(started)
    await fleet.advance(35)
    assert fleet.is_whole
    assert {*fleet.counts} == {3, 4}
    for node in (fleet.nodes[3], fleet.nodes[7]):
        await node.end()
    assert await fleet.until_whole(20) <= at_most(killed)
    await fleet.advance(30)
    assert (len(fleet.counts), {*fleet.counts}) == (18, {3, 4})
    takes = len(fleet.table.takes)
    fleet.longest_idle.clear()
    for _ in range(2):
        await fleet.add(latency_s=0.01)
    await fleet.advance(35)
    assert (len(fleet.counts), {*fleet.counts}) == (20, {3, 4})
    assert len(fleet.table.takes) - takes <= int(re.search(r"(\d+) shards at most", joined)[1])
    assert max(fleet.longest_idle.values(), default=0) <= at_most(joined)
    fleet.longest_idle.clear()
    leaving = asyncio.create_task(fleet.nodes[0].membership.leave())
    await fleet.advance(5)
    await leaving
    assert fleet.is_whole
    assert max(fleet.longest_idle.values(), default=0) <= at_most(stopped)
    takes = len(fleet.table.takes)
    await fleet.advance(600, step_s=0.5)
    assert len(fleet.table.takes) == takes
    assert quiet == "no shard moves"
    assert fleet.doubled == set()
