"""Replicas of what several machines have."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from cronally.domain.shards import SHARDS
from cronally.domain.spec import canonical_document
from cronally.engine.records import AuditFilter, StagedRow
from cronally.store.replica import Replica
from cronally.store.shared_log import Changed, Flipped, TakenOver
from cronally.store.sqlite import ChosenIds
from support.stores import LATER, creation, spec


def made(shard, *, revision=1):
    """A schedule named ``job`` in *shard*, as its owner has committed it."""
    return Changed(
        replace(creation(spec("job")), owner="nobody"), ChosenIds(SHARDS + shard, revision * SHARDS + shard)
    )


def flipped(shard, number, **document):
    row = StagedRow("job", canonical_document(spec("job", **document)), None)
    return Flipped(LATER, "uid 1", "file", [row], [ChosenIds(None, number * SHARDS + shard)], [], [])


@pytest.mark.parametrize("first", [3, 40])
async def test_a_name_that_is_in_two_shards_for_the_moment_is_changed_in_the_one_that_is_meant(
    tmp_path, first
):
    """The log of each shard is repeated by itself: of one that bore the name before, its end may come after the other's beginning."""
    replica = Replica(str(tmp_path / "r.db"), follows_others=True)
    await replica.open()
    try:
        for shard in (first, 43 - first):
            await replica.repeat(shard, made(shard))
        await replica.repeat(3, flipped(3, 2, note="changed"))
        await replica.repeat(40, TakenOver(["job"], "other", LATER, "uid 1"))
        await replica.repeat(3, flipped(3, 3, note="changed"))  # it is so already
        await replica.repeat(40, flipped(40, 2, note="in the other shard"))
        found = {each.id % SHARDS: each for each in await replica.schedules()}
        assert {shard: (each.revision, each.spec.note, each.owner) for shard, each in found.items()} == {
            3: (2, "changed", "file"),
            40: (2, "in the other shard", "file"),
        }
        rows = (await replica.audit(AuditFilter())).rows
        assert [(row.action, row.revision) for row in rows].count(("add", 1)) == 2
    finally:
        await replica.close(watermark=None)


async def test_a_schedule_is_made_by_a_file_although_another_shard_has_that_name_for_the_moment(tmp_path):
    replica = Replica(str(tmp_path / "r.db"), follows_others=True)
    await replica.open()
    try:
        await replica.repeat(3, made(3))
        new = flipped(40, 1)._replace(ids=[ChosenIds(SHARDS + 40, SHARDS + 40)])
        await replica.repeat(40, new)
        assert sorted(each.id for each in await replica.schedules()) == [SHARDS + 3, SHARDS + 40]
    finally:
        await replica.close(watermark=None)


async def test_what_files_have_changed_is_repeated_side_by_side_and_beside_a_file_that_is_only_looked_at(
    tmp_path,
):
    """What this machine has applied is repeated while what another has is being read, and a preview stages the lines of its file."""
    replica = Replica(str(tmp_path / "r.db"), follows_others=True)
    await replica.open()
    try:
        deeds = []
        for shard in (3, 40):
            rows = [StagedRow(f"job-{shard}", canonical_document(spec(f"job-{shard}")), None)]
            ids = [ChosenIds(SHARDS + shard, SHARDS + shard)]
            deeds.append((shard, Flipped(LATER, "uid 1", "file", rows, ids, [], [])))
        looked_at = [StagedRow("other", canonical_document(spec("other")), None)]

        async def look():
            await replica.stage_begin()
            await replica.stage(looked_at)

        await asyncio.gather(*(replica.repeat(shard, deed) for shard, deed in deeds), look())
        assert {each.spec.name: each.id for each in await replica.schedules()} == {
            "job-3": SHARDS + 3,
            "job-40": SHARDS + 40,
        }
        assert [change.name for change in await replica.staged_changes()] == ["other"]
    finally:
        await replica.close(watermark=None)
