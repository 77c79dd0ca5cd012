"""How a daemon starts."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace

import pytest

from cronally.app.daemon import Daemon
from cronally.app.memory import available_memory
from cronally.app.sharing import Shared
from cronally.app.term import Term
from cronally.config import load_config
from cronally.engine.clock_watch import ClockWatch
from cronally.engine.here import Here
from cronally.engine.shard_watch import ShardWatch
from cronally.errors import LeaseLost, StoreBusy, StoreError
from cronally.instants import parse_rfc3339
from cronally.sns.pacing import Pacing
from support.fake_clock import FakeClock
from support.fleet import Fleet, Node


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


async def test_leases_that_are_lost_are_counted_over_all_terms_and_another_one_follows(monkeypatch):
    config = load_config({"HOME": "/x", "CRONALLY_SOCKET": "/x.sock"}, {}, config_file=None)
    daemon = Daemon(config, FakeClock(), lambda: config)
    ends = [LeaseLost("it slept"), LeaseLost("the table is away"), None]

    async def run(_term):
        end = ends.pop(0)
        if end is not None:
            raise ExceptionGroup("a task of it", [end])

    monkeypatch.setattr(Term, "run", run)
    assert [await daemon._is_over([]) for _ in range(3)] == [False, False, True]
    assert daemon.leases.lost == 2


@pytest.fixture
async def fleet():
    fleet = Fleet(FakeClock())
    yield fleet
    await fleet.end()


async def joined(fleet, host):
    """Return a machine's part in the table of a fleet, and the machine."""
    node = Node(fleet, host, ())
    shared = Shared.__new__(Shared)
    shared._clock, shared.store, shared._former = node.clock, node.store, []
    shared._watch = ShardWatch(node.clock, shared.state)
    shared._membership, shared._waiting_because, shared._is_local = None, None, False
    await node.store.open()
    return shared, node


async def test_a_table_that_does_not_answer_is_waited_for_at_a_start_and_one_that_is_not_there_is_an_error(
    fleet, caplog
):
    shared, node = await joined(fleet, "a")
    opened, errors = object(), [StoreBusy("no answer"), StoreBusy("no answer"), None]

    async def open_():
        error = errors.pop(0)
        if error is not None:
            raise error
        return opened

    node.store.open = open_
    joining = asyncio.create_task(shared.join(is_first=True))
    await fleet.advance(0.5)
    assert not joining.done()
    await fleet.advance(2)
    assert joining.result() is opened
    assert [each.message for each in caplog.records] == [
        "the other machines cannot be joined: no answer; trying again"
    ]
    errors[:] = [StoreError("there is no such table")]
    with pytest.raises(StoreError, match="no such table"):
        await shared.join(is_first=True)


def _engine(node):
    """What an engine is to those who only have it take shards."""
    return SimpleNamespace(hand_over=node.driver, core=SimpleNamespace(here=Here()))


async def test_a_start_that_is_stopped_gives_back_what_it_has_taken_and_leaves(fleet):
    shared, node = await joined(fleet, "a")
    node.driver.take_s = 0.4  # and it takes eight at once
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        _, watching = shared.begin(_engine(node), Pacing(), None, node.hooks, tasks)
        waiting = tasks.create_task(shared.all_driven(stop))
        await fleet.advance(1)
        assert 8 < len(node.driver.fires) < 64
        stop.set()
        await fleet.advance(0.1)
        assert waiting.result() is False
        leaving = tasks.create_task(shared.leave(10))
        await fleet.advance(0.9)
        assert leaving.done()
        watching.cancel()
    assert node.driver.fires == set()
    assert fleet.table.machines[node.store.machine].has_left
    assert {shard.owner for shard in fleet.table.shards} == {None}
    assert all(shard.was_clean for shard in fleet.table.shards)


async def test_a_start_is_over_once_every_shard_is_driven(fleet):
    shared, node = await joined(fleet, "a")
    node.driver.take_s = 0.4
    async with asyncio.TaskGroup() as tasks:
        running, watching = shared.begin(_engine(node), Pacing(), None, node.hooks, tasks)
        waiting = tasks.create_task(shared.all_driven(asyncio.Event()))
        while len(node.driver.fires) < 64:
            assert not waiting.done()
            await fleet.advance(0.05)
        await fleet.advance(0.1)
        assert waiting.result() is True
        running.cancel()
        watching.cancel()


async def test_one_that_has_joined_and_takes_no_part_leaves_too(fleet):
    """So it is stopped while its clock is not believed."""
    shared, c = await joined(fleet, "c")
    await shared.leave(0)
    assert fleet.table.machines[c.store.machine].has_left
