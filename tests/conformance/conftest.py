from __future__ import annotations

import pytest

from support.stores import DynamodbHouse, MemoryHouse, SqliteHouse
from support.table_servers import table_server


@pytest.fixture(scope="session")
def table_url():
    """Return the URL of a server that speaks DynamoDB, by its kind."""

    def url(kind):
        found = table_server(kind)
        if found is None:
            pytest.skip(f"{kind} is not installed (make {kind})")
        return found

    return url


@pytest.fixture(params=["memory", "sqlite", "moto", "dynalite"])
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
