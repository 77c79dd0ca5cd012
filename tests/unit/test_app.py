"""How a daemon starts."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace

import pytest

from cronally.app.daemon import Daemon
from cronally.app.memory import available_memory
from cronally.app.term import Term
from cronally.config import load_config
from cronally.engine.clock_watch import ClockWatch
from cronally.errors import LeaseLost
from cronally.instants import parse_rfc3339
from support.fake_clock import FakeClock


async def test_a_clock_that_is_not_believed_at_start_is_logged_once_and_waited_for(caplog):
    clock, reasons = FakeClock("1970-01-01T00:00:00Z"), []
    config = load_config({"HOME": "/x", "CRONALLY_SOCKET": "/x.sock"}, {}, config_file=None)
    daemon = Daemon(config, clock, lambda: config)
    engine = SimpleNamespace(watch=ClockWatch(clock, released_at=parse_rfc3339("2026-11-23T00:00:00Z")))
    service, opened = SimpleNamespace(set_ready=reasons.append), SimpleNamespace(watermark=None)
    starting = asyncio.create_task(Term(daemon)._recover(engine, service, opened))
    await clock.advance(5)
    assert "1970-01-01T00:00:05Z" in reasons[-1]
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith(
        "the clock is not believed: it says 1970-01-01T00:00:00Z, before this version was made"
    )
    daemon.signals.is_stopping.set()
    await clock.settle()
    assert await starting is None


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 100 kB\n"}, 100 << 10),
        ({"proc/meminfo": "MemAvailable: 100 kB\n", "sys/fs/cgroup/memory.max": "max\n"}, 100 << 10),
        # In a container the root is the limit; of a service it is the limit of its own group, or of one above it.
        ({"sys/fs/cgroup/memory.max": "5000\n", "sys/fs/cgroup/memory.current": "1000\n"}, 4000),
        (
            {
                "proc/self/cgroup": "0::/system.slice/cronally.service\n",
                "sys/fs/cgroup/system.slice/cronally.service/memory.max": "9000\n",
                "sys/fs/cgroup/system.slice/cronally.service/memory.current": "2000\n",
            },
            7000,
        ),
        (
            {
                "proc/self/cgroup": "0::/system.slice/cronally.service\n",
                "sys/fs/cgroup/system.slice/memory.max": "900\n",
                "sys/fs/cgroup/system.slice/memory.current": "1000\n",
            },
            0,
        ),
        ({}, None),
    ],
)
def test_the_memory_that_is_left_is_what_machine_and_cgroups_leave(tmp_path, monkeypatch, files, available):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    assert available_memory(tmp_path) == (half if available is None else available)


async def test_what_a_stop_waits_for_ends_with_it_when_the_lease_is_lost():
    """Otherwise asyncio writes a traceback of its error into the log, some time later."""
    daemon = SimpleNamespace(clock=None, signals=SimpleNamespace(is_hurried=asyncio.Event()))
    ended = asyncio.Event()

    async def leave():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
            raise LeaseLost("the table does not answer")

    waiting = asyncio.create_task(Term(daemon)._unless_hurried(leave()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()
