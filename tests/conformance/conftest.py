from __future__ import annotations

import pytest

from support.stores import MemoryHouse, SqliteHouse


@pytest.fixture(params=["memory", "sqlite"])
async def house(request, tmp_path):
    house = MemoryHouse() if request.param == "memory" else SqliteHouse(tmp_path)
    yield house
    await house.close()


@pytest.fixture
async def store(house):
    await house.open()
    return house.store
