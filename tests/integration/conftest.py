"""A store in a file of its own; and two event loops for what carries messages: asyncio's and the one the daemon uses."""

from __future__ import annotations

import asyncio
import sys

import pytest

from cronally.store.sqlite import SqliteStore
from support.daemon import running_daemon
from support.table_servers import TableClient, table_server
from support.terminal import Terminal

ON_BOTH_LOOPS = {"test_lane", "test_lane_routes", "test_publisher_aws"}


def pytest_asyncio_loop_factories(config, item):
    factories = {"asyncio": asyncio.new_event_loop}
    if item.path.stem in ON_BOTH_LOOPS and sys.platform == "linux":
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture
async def table_client():
    """A client of a server that speaks DynamoDB."""
    client = TableClient(table_server("moto"))
    yield client
    await client.close()


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


@pytest.fixture
def cronally(tmp_path, capsys, monkeypatch):
    """A terminal, and a daemon that its commands find."""
    with running_daemon(tmp_path) as daemon:
        monkeypatch.setenv("CRONALLY_SOCKET", daemon.socket)
        yield Terminal(daemon, capsys)


@pytest.fixture
def alone(tmp_path, capsys, monkeypatch):
    """A terminal without a daemon."""
    monkeypatch.setenv("CRONALLY_SOCKET", str(tmp_path / "none.sock"))
    return Terminal(None, capsys)
