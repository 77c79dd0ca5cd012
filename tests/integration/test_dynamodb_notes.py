"""What people have been told of a shard, in a table."""

from __future__ import annotations

import pytest

from cronally.clock import SystemClock
from cronally.engine.records import Told
from cronally.instants import UtcMs
from cronally.store.dynamodb_notes import DynamodbNotes
from cronally.store.dynamodb_table import DynamodbTable
from support.table_servers import TableClient, new_table_name


@pytest.fixture(params=["moto", "dynalite"])
async def table(request, table_url):
    client = TableClient(table_url(request.param))
    table = DynamodbTable(new_table_name(), client, SystemClock())
    await table.create()
    yield table
    await client.close()


async def test_what_is_noted_is_read_by_the_next_machine_and_one_of_before_writes_no_more(table):
    epochs = {3: 1, 4: 1}
    before, after = DynamodbNotes(table, epochs.get), DynamodbNotes(table, {3: 2, 4: 2}.get)
    assert await after.read(3) == Told()
    first, second = Told(frozenset({67, 3}), UtcMs(1_000)), Told(frozenset({67}), UtcMs(2_000))
    await before.write(3, first)
    await before.write(3, Told(frozenset({131}), None))
    await before.write(3, first)
    assert await after.read(3) == first
    await after.write(3, second)
    await before.write(3, first)
    assert await before.read(3) == second
    assert await before.read(4) == Told()
    del epochs[4]
    await before.write(4, first)
    assert await after.read(4) == Told()
