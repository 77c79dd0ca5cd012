"""A short run of a store, stopped at every write and sync: what was acknowledged is there, and nothing is half-done.

The run is recorded once on a ``Disk``. For every moment of it the files are made as they would be found after a kill (all that was
written), after a power cut that leaves only what was synced, and after some that leave any part of the rest; each is opened as a daemon opens
it. Then the run is made again and again with one operation failing, at every one of them. Every moment is tried by
``make crash-sweep``; without it some of them.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
import tempfile
from contextlib import closing, nullcontext, suppress
from pathlib import Path

import pytest

from cronally.engine.records import JournalFilter
from cronally.errors import StoreError
from cronally.store import database
from cronally.store.schema import MIGRATIONS
from cronally.store.sqlite import SqliteStore
from support.disk import Images, recording, unavailable
from support.store_files import T, creation, published

IS_WHOLE = bool(os.environ.get("CRASH_SWEEP"))
EVERY = 1 if IS_WHOLE else 29  # a prime: not always the same step of a commit
TORN = 4 if IS_WHOLE else 1  # power cuts tried at each moment, beside the worst one
COMMITS = 25
ROWS = 40  # of a commit; a few of them fill what is checkpointed

pytestmark = [
    pytest.mark.skipif(unavailable() is not None, reason=str(unavailable())),
    pytest.mark.timeout(0 if IS_WHOLE else 60),
]


@pytest.fixture
def place():
    """A directory in memory if there is one: thousands of stores are opened in it, and no sync in it is of interest."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Path(directory)


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Let the log be copied to the file every few commits."""
    monkeypatch.setattr(database, "_CHECKPOINT_PAGES", 12)
    monkeypatch.setattr(database, "_BUSY_TIMEOUT_S", 0.0)


async def run(path, acknowledged, *, tries=1):
    """Open a new store, change it, commit to it, and stop it in order. acknowledged: called with what is durable now."""
    store = SqliteStore(path)

    async def done(action, what):
        for left in reversed(range(tries)):
            with suppress(StoreError) if left else nullcontext():
                await action()
                acknowledged(what)
                return

    await done(store.open, "open")
    try:
        for number in range(COMMITS):
            if number % 6 == 0:
                change = creation(f"schedule-{number}", message="n" * 9000)
                await done(lambda change=change: store.change(change), ("change", number))
            rows = [published(T + number, schedule_id) for schedule_id in range(1, ROWS + 1)]
            await done(
                lambda rows=rows, number=number: store.commit(rows, watermark=T + number), ("commit", number)
            )
    finally:
        if store._opened is not None:
            with suppress(StoreError):
                await store.close(watermark=T + COMMITS)
                acknowledged("close")
            if store._opened is not None:
                await store._opened.close()


async def check(path, acknowledged, *, may_be_there=()):
    """Open the store at *path* as a daemon does; it holds what was acknowledged, and no half of anything.

    may_be_there: what was tried and not acknowledged.
    """
    store = SqliteStore(path)
    opened = await store.open()
    names = {stored.spec.name for stored in await store.schedules()}
    rows = await store.history(JournalFilter(limit=10_000))
    await store.close(watermark=None)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        [[version]] = connection.execute("PRAGMA user_version").fetchall()
        assert version == len(MIGRATIONS)
        revisions = {name for (name,) in connection.execute("SELECT name FROM revision")}

    commits = {}
    for row in rows:
        commits[row.entry.fire_time - T] = commits.get(row.entry.fire_time - T, 0) + 1
    there = {("commit", number) for number in commits}
    there |= {("change", int(name.removeprefix("schedule-"))) for name in names}
    wanted = {what for what in acknowledged if isinstance(what, tuple)}
    assert wanted <= there, "what was acknowledged is there"
    assert there - wanted <= set(may_be_there), "what was not tried is not there"
    assert set(commits.values()) <= {ROWS}, "a commit is there wholly or not at all"
    assert names == revisions, "a change is there wholly or not at all"
    is_over = opened.watermark == T + COMMITS
    if not is_over:
        assert opened.watermark == (T + max(commits) if commits else None), "the watermark goes with its rows"
    if "close" in acknowledged:
        assert is_over
    if opened.was_clean and acknowledged:
        assert is_over or acknowledged == ["open"], "only a stop in order looks like one"


def following(events, begin):
    """Return what the next mark after *begin* is about: it was under way."""
    return next((event.data for event in events[begin:] if event.kind == "mark"), None)


async def test_stopped_at_any_moment_the_store_is_whole_and_has_all_that_was_acknowledged(place):
    path = place / "run" / "cronally.db"
    with recording() as disk:
        await run(path, disk.mark)
    events = disk.events
    kinds = [event.kind for event in events]
    assert kinds.count("sync") > COMMITS, "each commit is synced"
    assert [event.path for event in events if event.kind == "sync"].count(str(path)) >= 3, (
        "checkpoints happened"
    )

    images = Images([str(path)])
    chance = random.Random(5)
    acknowledged, seen, checked = [], set(), 0
    for moment, event in enumerate(events):
        images.step(event)
        if event.kind == "mark":
            acknowledged.append(event.data)
        if moment % EVERY and event.kind != "mark":
            continue
        found = [images.killed(), images.powerless(), *[images.torn(chance) for _ in range(TORN)]]
        for image in found:
            mark = hashlib.sha1(repr(sorted(image.items())).encode()).digest(), len(acknowledged)
            if mark in seen:
                continue
            seen.add(mark)
            checked += 1
            crashed = place / "crashed"
            crashed.mkdir()
            for name, content in image.items():
                (crashed / Path(name).name).write_bytes(content)
            try:
                await check(crashed / "cronally.db", acknowledged, may_be_there=[following(events, moment)])
            except BaseException as exc:
                exc.add_note(f"at event {moment} of {len(events)}: {event._replace(data=None)}")
                raise
            shutil.rmtree(crashed)
    print(f"crash sweep: {len(events)} events, {checked} different states of the disk opened")
    assert checked > len(events) // EVERY


FAILURES = {
    "full": sqlite3.SQLITE_FULL,
    "write": sqlite3.SQLITE_IOERR_WRITE,
    "sync": sqlite3.SQLITE_IOERR_FSYNC,
    "read": sqlite3.SQLITE_IOERR_READ,
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_one_operation_that_fails_costs_nothing_that_was_acknowledged(place, failure):
    """At each operation in turn: what fails is said so and can be tried again, and the rest goes on."""
    kinds = {"read": ("read",), "sync": ("sync",)}.get(failure, ("write", "truncate"))
    every = 1 if IS_WHOLE else {"sync": 29, "read": 97}.get(failure, 127)
    at = runs = 0
    while True:
        count = 0

        def fails(event, at=at):
            nonlocal count
            count += event.kind in kinds
            return FAILURES[failure] if event.kind in kinds and count == at + 1 else 0

        acknowledged = []
        path = place / f"{at}" / "cronally.db"
        with recording() as disk:
            disk.fails = fails
            await run(path, acknowledged.append, tries=3)
        runs += 1
        try:
            await check(path, acknowledged)
        except BaseException as exc:
            exc.add_note(f"with {failure} at operation {at}")
            raise
        assert [what for what in acknowledged if what != "close"] == ["open", *_all()]
        if count <= at:
            break
        at += every
    print(f"failing {failure}: {runs} runs")
    assert runs > 2


def _all():
    return [
        what
        for number in range(COMMITS)
        for what in ([("change", number)] if number % 6 == 0 else []) + [("commit", number)]
    ]
