"""A store in a file of its own; and two event loops for what carries messages: asyncio's and the one the daemon uses."""

from __future__ import annotations

import asyncio
import sys

import pytest

from cronally.store.sqlite import SqliteStore

ON_BOTH_LOOPS = {"test_lane", "test_lane_routes", "test_publisher_aws"}


def pytest_asyncio_loop_factories(config, item):
    factories = {"asyncio": asyncio.new_event_loop}
    if item.path.stem in ON_BOTH_LOOPS and sys.platform == "linux":
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture
def path(tmp_path):
    """Where the store is to be; nothing is there yet."""
    return tmp_path / "state" / "cronally.db"


@pytest.fixture
async def store(path):
    """The store, open."""
    store = SqliteStore(path)
    await store.open()
    yield store
    if store._opened is not None:
        await store.close(watermark=None)
