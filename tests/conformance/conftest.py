from __future__ import annotations

import pytest

from support.stores import DynamodbHouse, MemoryHouse, SqliteHouse


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("moto", marks=pytest.mark.long),
        pytest.param("dynalite", marks=pytest.mark.long),
    ]
)
async def house(request, tmp_path, table_url):
    match request.param:
        case "memory":
            house = MemoryHouse()
        case "sqlite":
            house = SqliteHouse(tmp_path)
        case kind:
            house = DynamodbHouse(tmp_path, table_url(kind))
    yield house
    await house.close()


@pytest.fixture
async def store(house):
    await house.open()
    return house.store
