"""How a daemon starts."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from cronally.app import _Daemon
from cronally.config import load_config
from cronally.engine.clock_watch import ClockWatch
from cronally.instants import parse_rfc3339
from support.fake_clock import FakeClock


async def test_a_clock_that_is_not_believed_at_start_is_logged_once_and_waited_for(caplog):
    clock, reasons = FakeClock("1970-01-01T00:00:00Z"), []
    config = load_config({"HOME": "/x", "CRONALLY_SOCKET": "/x.sock"}, {}, config_file=None)
    daemon = _Daemon(config, clock, lambda: config)
    engine = SimpleNamespace(watch=ClockWatch(clock, released_at=parse_rfc3339("2026-11-23T00:00:00Z")))
    service, opened = SimpleNamespace(set_ready=reasons.append), SimpleNamespace(watermark=None)
    starting = asyncio.create_task(daemon._recover(engine, service, opened))
    await clock.advance(5)
    assert "1970-01-01T00:00:05Z" in reasons[-1]
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith(
        "the clock is not believed: it says 1970-01-01T00:00:00Z, before this version was made"
    )
    daemon._is_stopping.set()
    await clock.settle()
    assert await starting is None
