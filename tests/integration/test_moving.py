"""An installation goes from a file into a table of several machines, and back, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from cronally.domain.durations import DAY_MS
from cronally.domain.model import FireKey, Kind, Pause, SkipReason, State
from cronally.domain.shards import SHARDS, shard_of
from cronally.domain.spec import canonical_document
from cronally.engine.records import (
    AuditFilter,
    GivenUp,
    JournalFilter,
    Newer,
    Order,
    Reopened,
    Revised,
    StagedRow,
    ZoneRecord,
)
from cronally.errors import Conflict, StoreBusy, StoreError, StoreLocked, UsageError
from cronally.instants import MAX_UTC_MS, MIN_UTC_MS, UtcMs
from cronally.store.dynamodb import DynamodbStore
from cronally.store.filling import Filling
from cronally.store.lock import Lock
from cronally.store.moving import Move, Moved, PatientTable
from cronally.store.sqlite import SqliteStore
from support.fake_clock import FakeClock
from support.stores import FIFO, MINUTE, T, creation, edit, entry, pause_row, pending, spec
from support.table_servers import new_table_name

pytestmark = pytest.mark.long

NAMES = ("a", "b", "c", "old-name", "new-name", "removed", "orders", "once", "nightly", "applied")
ZONE = ZoneRecord("Europe/London", "2026a", (-(1 << 60), T // 1000), (0, 3600))
WATERMARK = UtcMs(T + 10 * MINUTE)


def canonical(name, **document):
    return canonical_document(spec(name, **document))


async def live_a_little(store):
    """Put something of everything into a store."""
    made = {name: await store.change(creation(spec(name, note="é 🎉"))) for name in ("a", "b", "c")}
    a, b, c = made["a"], made["b"], made["c"]
    a = await store.change(edit(a, T + 1, new_spec=spec("a", when="*/5 * * * *", catch_up="all")))
    await store.change(edit(a, T + 2, action="pause", pause=Pause(since=T + 2, note="Ferien", by="uid 1000"),
        opened=(pause_row(a, T + 5 * MINUTE, T + 5 * MINUTE, 0, is_open=True),)))  # fmt: skip
    renamed = await store.change(creation(spec("old-name"), owner="team"))
    renamed = await store.change(edit(renamed, T + 3, action="mv", new_spec=spec("new-name")))
    gone = await store.change(creation(spec("removed")))
    await store.commit([entry(gone, T), pending(gone, T + MINUTE)], watermark=T)
    await store.change(edit(gone, T + 4, action="rm", is_removal=True, drop_pending=True))
    orders = await store.change(creation(spec("orders", topic=FIFO, group="g1")))
    await store.change(creation(spec("once", when="@at 2026-12-24T18:00:00Z")))
    nightly = await store.change(creation(spec("nightly")))
    await store.commit(
        [
            *(
                entry(
                    b,
                    T + i * 1000,
                    released_at=T + i * 1000 + 1,
                    published_at=T + i * 1000 + 9,
                    lateness_us=1234,
                )
                for i in range(300)
            ),
            entry(
                c,
                T,
                State.SKIPPED,
                reason=SkipReason.CATCH_UP,
                attempts=0,
                last_fire_time=T + 9 * MINUTE,
                count=10,
            ),
            entry(c, T + 10 * MINUTE, State.REJECTED, last_error="InvalidParameter: no", attempts=3),
            pending(nightly, T + MINUTE, attempts=2, last_error="Throttled", maybe_published=True),
            pending(nightly, T + 2 * MINUTE, is_in_line=True, next_attempt_at=T + DAY_MS),
            pending(orders, T, attempts=1),
            pending(orders, T + MINUTE),
            pending(renamed, T),
            entry(c, WATERMARK + 3 * MINUTE, State.SKIPPED, reason=SkipReason.DROPPED, attempts=0),
        ],
        watermark=WATERMARK,
        errors=[(nightly.id, "NotFound: no such topic")],
        newer=[Newer(renamed.id, T + 1, T + 1)],
        kept=[FireKey(renamed.id, T, Kind.SCHEDULED)],
    )
    manual = pending(b, T + 7, kind=Kind.MANUAL, attempts=0)
    await store.add_manual(manual, by="uid 7", fire_id="b@x+manual", idempotency_key="key")
    await store.remember_run("other", "answer", at=T + 8)
    backfill = pending(c, T - MINUTE, kind=Kind.BACKFILL, attempts=0, due_time=T)
    order = Order(c.id, c.revision_id, 1, "first", "last")
    await store.add_backfill([backfill], at=T + 9, by="uid 7", order=order)
    [row] = await store.rows([FireKey(c.id, WATERMARK, Kind.SCHEDULED)])
    again = row.entry._replace(state=State.PENDING, next_attempt_at=T + 10, asked_at=T + 10)
    await store.retry([Reopened(row.entry, (again,))], at=T + 10, by="uid 7", orders=[order])
    await store.stage_begin()
    await store.stage(
        [StagedRow("applied", canonical("applied")), StagedRow("b", canonical("b", note="applied"))]
    )
    await store.flip(at=T + 11, by="ci", owner="main", unsettled=[])
    await store.keep_zone_records([ZONE])


async def seen(store):
    """Return all that a store answers, but for ids."""
    history = await store.history(JournalFilter(limit=10_000))
    audit = await store.audit(AuditFilter(limit=1000))
    schedules = await store.schedules()
    names = {each.id: each.spec.name for each in schedules}

    def plain(fire):
        return fire._replace(schedule_id=names.get(fire.schedule_id), revision_id=0)

    groups = await store.pending_groups()
    lines = await store.lines()
    return {
        "schedules": [replace(each, id=0, revision_id=0) for each in schedules],
        "history": sorted([(row.name, plain(row.entry)._replace(schedule_id=0)) for row in history], key=repr),
        "audit": sorted(map(repr, audit.rows)),
        "topics": await store.topics(),
        "pending": sorted([(plain(each.fire), each[1:]) for each in await store.pending_due(MAX_UTC_MS)], key=repr),
        "groups": {
            group: [(plain(each.fire), each[1:]) for each in await store.group_pending(*group)]
            for group in groups
        },
        "lines": {
            line: [(plain(each.fire), each[1:]) for each in await store.in_line(*line)] for line in lines
        },
        "counts": await store.counts(),
        "runs": [await store.remembered_run(key) for key in ("key", "other", "third")],
        "bearers": [len(await store.bearers(name)) for name in NAMES],
        "of names": {
            name: len(await store.history(JournalFilter(schedule=name, limit=1000))) for name in NAMES
        },
        "single": [plain(fire) for fire in await store.at_between(MIN_UTC_MS, MAX_UTC_MS)],
        "timetable": sorted([row._replace(id=0, revision_id=0) async for row in timetable(store)], key=repr),
        "settled": sorted(
            [(names.get(id_, ""), spans) for id_, spans in (await store.settled_between(WATERMARK, MAX_UTC_MS)).items()]
        ),
        "zones": await store.zone_records([ZONE.name]),
    }  # fmt: skip


async def timetable(store):
    async for rows in store.timetable():
        for row in rows:
            yield row


@pytest.fixture
async def clock():
    return FakeClock("2026-11-23T10:00:00Z")


@pytest.fixture
async def table(table_client, clock):
    table = PatientTable(new_table_name(), table_client, clock)
    await table.create()
    return table


@pytest.fixture
def told():
    return []


@pytest.fixture
def move(table, clock, told):
    """Return a move between the table and a file."""
    return lambda path: Move(str(path), table, clock, tell=told.append, progress=lambda *_: None)


@pytest.fixture
async def full(path):
    """Return the path of a store that was in use and was stopped in order."""
    store = SqliteStore(path)
    await store.open()
    await live_a_little(store)
    await store.close(watermark=WATERMARK)
    return path


@pytest.fixture
def machine(table, table_client, clock, tmp_path):
    """Return a store of several machines that is not open."""
    made = iter(range(100))

    def new():
        directory = tmp_path / f"machine-{next(made)}"
        directory.mkdir()
        return DynamodbStore(
            table.name, table_client, clock, directory=str(directory), host="m", lease_ms=8000
        )

    return new


async def seen_in(path):
    store = SqliteStore(path)
    opened = await store.open()
    try:
        return opened, await seen(store)
    finally:
        await store.close(watermark=opened.watermark)


async def joined(store):
    """Open *store* and take every shard; return what was taken."""
    await store.open()
    taken = [await store.take(shard, None) for shard in await store.shards()]
    for one in taken:
        await store.recovered(one.number)
    await store.read_history()
    return taken


async def is_empty(table):
    [found] = [
        page
        async for page in _scanned(table)
    ]  # fmt: skip
    return found == []


async def _scanned(table):
    client = await table._client()
    yield (await client.scan(TableName=table.name))["Items"]


# --- there and back ---------------------------------------------------------------------------------------------


async def test_a_round_trip_keeps_everything(full, move, path, table):
    before, original = await seen_in(path)
    assert original["history"]
    there = await move(path).to_table()
    back = path.parent / "back.db"
    again = await move(back).to_file()
    after, found = await seen_in(back)
    assert found == original
    assert after == replace(before, failing=after.failing)
    assert len(after.failing) == len(before.failing) == 1
    counts = original["counts"]
    assert there == again == Moved(counts.schedules, len(original["history"]), counts.journal[State.PENDING])


async def test_a_machine_has_all_of_it_in_shards(full, move, path, machine):
    _, original = await seen_in(path)
    await move(path).to_table()
    store = machine()
    taken = await joined(store)
    assert await seen(store) == original
    assert await seen(store.everything) == original | {"zones": {}}  # which only an engine asks for
    assert {one.watermark for one in taken} == {WATERMARK}
    assert all(one.was_clean for one in taken)
    for each in await store.schedules():
        assert each.id % SHARDS == each.revision_id % SHARDS == shard_of(each.spec)
    new = await store.change(creation(spec("brand-new"), WATERMARK))
    assert new.id % SHARDS == shard_of(spec("brand-new"))
    await store.close(watermark=WATERMARK)


async def test_what_machines_did_meanwhile_comes_back_with_the_rest(full, move, path, machine):
    await move(path).to_table()
    store = machine()
    await joined(store)
    stored = await store.schedule("nightly")
    nightly = revised_of(stored)
    await store.commit([entry(nightly, T + MINUTE, attempts=3)], watermark=WATERMARK + MINUTE)
    await store.change(edit(nightly, WATERMARK + 5, new_spec=spec("nightly", note="edited")))
    await store.change(creation(spec("young"), WATERMARK + 6))
    expected = await seen(store)
    await store.close(watermark=WATERMARK + 2 * MINUTE)
    back = path.parent / "back.db"
    await move(back).to_file()
    opened, found = await seen_in(back)
    assert found == expected
    assert (opened.watermark, opened.was_clean) == (WATERMARK + 2 * MINUTE, True)


def revised_of(stored):
    return Revised(stored.id, stored.revision, stored.revision_id, stored.pending)


async def test_the_history_is_still_there_when_newer_snapshots_have_replaced_that_of_the_copy(
    full, move, path, machine
):
    await move(path).to_table()
    store = machine()
    await joined(store)
    expected = await seen(store)
    for number in range(SHARDS):
        await store._grown_shards.write(number)
    await store.close(watermark=WATERMARK)
    second = machine()
    await joined(second)
    assert await seen(second) == expected
    await second.close(watermark=WATERMARK)


@pytest.mark.parametrize("is_clean", [True, False])
async def test_the_mark_of_a_clean_stop_goes_along(path, move, is_clean):
    store = SqliteStore(path)
    await store.open()
    await store.change(creation(spec()))
    await store.commit([], watermark=T)
    await store.close(watermark=T if is_clean else None)
    await move(path).to_table()
    back = path.parent / "back.db"
    await move(back).to_file()
    opened, _ = await seen_in(back)
    assert (opened.watermark, opened.was_clean) == (T, is_clean)


async def test_the_source_stays_as_it_is(full, move, path):
    def rows():
        with closing(sqlite3.connect(path)) as connection:
            return list(connection.iterdump())

    before = rows()
    await move(path).to_table()
    assert rows() == before
    left = {each.name for each in path.parent.iterdir() if not each.name.startswith(path.name)}
    assert left == set()


async def test_a_new_store_without_schedules_can_be_moved(path, move):
    store = SqliteStore(path)
    await store.open()
    await store.close(watermark=None)
    assert await move(path).to_table() == Moved(0, 0, 0)
    back = path.parent / "back.db"
    assert await move(back).to_file() == Moved(0, 0, 0)
    opened, _ = await seen_in(back)
    assert opened.watermark is None


async def test_the_least_watermark_counts_and_what_lies_beyond_it_is_settled_by_its_rows(
    full, move, path, machine, clock, table
):
    await move(path).to_table()
    store = machine()
    await joined(store)
    b = await store.schedule("b")
    c = await store.schedule("c")
    mine = b.id % SHARDS
    assert c.id % SHARDS != mine
    shards = {shard.number: shard for shard in await store.shards()}
    for number, shard in shards.items():
        if number != mine:
            await store.give(shard, GivenUp(WATERMARK + MINUTE, was_clean=True))
    settled = WATERMARK + 5 * MINUTE
    await store.commit([entry(revised_of(b), settled, released_at=settled)], watermark=settled)
    await store.give(shards[mine], GivenUp(settled, was_clean=True))
    await store.close(watermark=settled)
    back = path.parent / "back.db"
    await move(back).to_file()
    opened, found = await seen_in(back)
    assert opened.watermark == WATERMARK + MINUTE
    assert ("b", [(settled, settled)]) in found["settled"]


async def test_slots_whose_rows_are_gone_stay_settled_beyond_the_least_watermark(full, move, path, machine):
    await move(path).to_table()
    store = machine()
    await joined(store)
    b, c = await store.schedule("b"), await store.schedule("c")
    shards = {shard.number: shard for shard in await store.shards()}
    await store.give(shards[c.id % SHARDS], GivenUp(WATERMARK, was_clean=True))
    settled = UtcMs(WATERMARK + 5 * MINUTE)
    await store.commit([entry(revised_of(b), WATERMARK + MINUTE)], watermark=settled)
    pruned = await store.prune(settled, limit=1000)
    assert pruned.through == WATERMARK + MINUTE
    await store.close(watermark=settled)
    back = path.parent / "back.db"
    await move(back).to_file()
    opened, found = await seen_in(back)
    assert opened.watermark == opened.pruned_through == WATERMARK
    since = {each.spec.name: each.effective_from for each in found["schedules"]}
    assert (since["b"], since["c"]) == (WATERMARK + MINUTE, T)


# --- what is refused --------------------------------------------------------------------------------------------


async def test_no_daemon_may_use_the_file(full, move, path):
    lock = Lock.take(str(path))
    with pytest.raises(StoreLocked):
        await move(path).to_table()
    lock.release()


async def test_a_file_that_is_not_there_or_not_ours_is_refused(move, path, tmp_path):
    with pytest.raises(UsageError, match="no store"):
        await move(path).to_table()
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(UsageError, match="no store of cronally"):
        await move(other).to_table()


async def test_the_table_must_be_there(full, path, table_client, clock):
    with pytest.raises(StoreError, match="cronally store create"):
        await Move(
            str(path),
            PatientTable("nowhere", table_client, clock),
            clock,
            tell=print,
            progress=lambda *_: None,
        ).to_table()


async def test_a_table_with_schedules_is_left_alone(full, move, path, machine):
    await move(path).to_table()
    store = machine()
    await joined(store)
    expected = await seen(store)
    await store.close(watermark=WATERMARK)
    with pytest.raises(Conflict, match="has schedules"):
        await move(path).to_table()
    again = machine()
    await joined(again)
    assert await seen(again) == expected
    await again.close(watermark=WATERMARK)


async def test_a_table_that_machines_have_left_without_a_schedule_can_be_filled(full, move, path, machine):
    store = machine()
    await joined(store)
    await store.close(watermark=T)
    await move(path).to_table()
    second = machine()
    await joined(second)
    assert await second.schedule("nightly") is not None
    await second.close(watermark=WATERMARK)


@pytest.mark.parametrize("direction", ["to_table", "to_file"])
async def test_a_machine_that_lives_is_not_disturbed(full, move, path, machine, clock, told, direction):
    store = machine()
    await joined(store)
    place = path if direction == "to_table" else path.parent / "back.db"
    running = asyncio.create_task(getattr(move(place), direction)())
    while not told:
        await asyncio.wait([running], timeout=0.001)
    await clock.advance(4)
    await store.renew()
    await clock.advance(5)
    with pytest.raises(Conflict, match="a daemon on m uses the table"):
        await running
    assert [each.is_retired for each in await store.machines()] == [False]
    assert place.exists() == (direction == "to_table")
    await store.close(watermark=T)
    await machine().open()  # no mark is left


async def watched(running, clock, told, seconds):
    """Return what *running* returns, which watches for so long whether somebody lives; time passes for that alone."""
    while not told and not running.done():
        await asyncio.wait([running], timeout=0.001)
    await clock.advance(seconds)
    return await running


async def test_a_machine_that_died_is_retired_and_what_it_had_committed_counts(
    full, move, path, machine, clock, told
):
    await move(path).to_table()
    store = machine()
    await joined(store)
    nightly = revised_of(await store.schedule("nightly"))
    await store.commit([pending(nightly, WATERMARK + MINUTE)], watermark=WATERMARK + MINUTE)
    back = path.parent / "back.db"
    await watched(asyncio.create_task(move(back).to_file()), clock, told, 9)
    assert len(told) == 1
    assert "is alive" in told[0]
    opened, found = await seen_in(back)
    assert (opened.watermark, opened.was_clean) == (WATERMARK + MINUTE, False)
    assert WATERMARK + MINUTE in {fire.fire_time for fire, _ in found["pending"]}
    with pytest.raises(StoreError):
        await store.commit([], watermark=WATERMARK + 2 * MINUTE)
    await store.close(watermark=None)


async def test_a_machine_that_joins_while_the_file_is_written_is_noticed(full, move, path, machine):
    await move(path).to_table()
    store = machine()
    back = path.parent / "back.db"
    copy = move(back)
    write = copy._write_file

    async def write_while_one_joins(*args):
        await write(*args)
        await store.open()

    copy._write_file = write_while_one_joins
    with pytest.raises(Conflict, match="has begun to use the table"):
        await copy.to_file()
    assert not back.exists()
    await store.close(watermark=None)


async def test_a_machine_that_joins_just_when_a_copy_begins_leaves_again(table, clock, machine):
    store = machine()
    join = store.table.all_of

    async def read_while_one_begins(pk, **keys):
        if await table.get(("filling", "mark")) is None:
            await Filling(table, clock).begin(print)
        return await join(pk, **keys)

    store.table.all_of = read_while_one_begins
    with pytest.raises(StoreError, match="fills the DynamoDB table"):
        await store.open()
    assert [item["has_left"] for item in await table.all_of("machine")] == [True]


async def test_a_file_that_is_there_is_left_alone(full, move, path):
    await move(path).to_table()
    before = path.read_bytes()
    with pytest.raises(Conflict, match="already"):
        await move(path).to_file()
    assert path.read_bytes() == before


async def test_pending_fires_of_a_fifo_group_that_was_left_are_sent_first(path, move, table):
    store = SqliteStore(path)
    await store.open()
    made = await store.change(creation(spec("orders", topic=FIFO, group="g1")))
    await store.commit([pending(made, T)], watermark=T)
    other = next(
        f"g{n}"
        for n in range(2, 200)
        if shard_of(spec("x", topic=FIFO, group=f"g{n}")) != shard_of(spec("x", topic=FIFO, group="g1"))
    )
    await store.change(edit(made, new_spec=spec("orders", topic=FIFO, group=other)))
    await store.close(watermark=T)
    with pytest.raises(Conflict, match="pending fires of the FIFO group 'g1'"):
        await move(path).to_table()
    assert await is_empty(table)


# --- nothing half-done ------------------------------------------------------------------------------------------


class Broken(PatientTable):
    """A table that answers so many writes more, and then none until it is mended."""

    left = MAX_UTC_MS
    error = StoreBusy

    async def _call(self, operation, **parameters):
        if operation in ("PutItem", "BatchWriteItem", "DeleteItem"):
            self.left -= 1
            if self.left < 0:
                if self.left <= -self.refusals:
                    self.left = MAX_UTC_MS
                raise self.error("the table does not answer")
        return await super()._call(operation, **parameters)


@pytest.mark.parametrize("left", [1, 2, 3, 5, 30, 70, 75, 100, 130])
async def test_a_copy_that_fails_leaves_the_table_empty(
    full, path, table_client, clock, table, machine, left
):
    broken = Broken(table.name, table_client, clock)
    broken.left, broken.refusals, broken.error = left, 1, StoreError
    with pytest.raises(StoreError, match="does not answer"):
        await Move(str(path), broken, clock, tell=print, progress=lambda *_: None).to_table()
    assert await is_empty(table)


async def test_a_copy_that_cannot_even_tidy_says_what_to_do_and_no_machine_joins_meanwhile(
    full, path, table_client, clock, table, machine, move, told
):
    _, original = await seen_in(path)
    broken = Broken(table.name, table_client, clock)
    broken.left, broken.refusals, broken.error = 100, MAX_UTC_MS, StoreError
    with pytest.raises(StoreError, match="run the same command again"):
        await Move(str(path), broken, clock, tell=print, progress=lambda *_: None).to_table()
    store = machine()
    with pytest.raises(StoreError, match="fills the DynamoDB table"):
        await store.open()
    with pytest.raises(StoreError, match="fills the DynamoDB table"):
        await move(path.parent / "back.db").to_file()
    await watched(asyncio.create_task(move(path).to_table()), clock, told, 10)
    await joined(store)
    assert await seen(store) == original
    await store.close(watermark=WATERMARK)


async def test_two_copies_at_once_are_one_too_many(
    full, path, table_client, clock, table, told, move, tmp_path
):
    other = tmp_path / "other.db"
    store = SqliteStore(other)
    await store.open()
    await store.change(creation(spec("other")))
    await store.close(watermark=T)
    standing, waiting = asyncio.Event(), asyncio.Event()

    class Slow(PatientTable):
        async def _call(self, operation, **parameters):
            if operation == "PutItem" and "snapshot" in str(parameters):
                standing.set()
                await waiting.wait()
            return await super()._call(operation, **parameters)

    slow = Slow(table.name, table_client, clock)
    first = asyncio.create_task(
        Move(str(other), slow, clock, tell=print, progress=lambda *_: None).to_table()
    )
    # It stands still for longer than the second one watches: that takes over, and the first one changes nothing any more.
    await standing.wait()
    second = asyncio.create_task(move(path).to_table())
    assert (await watched(second, clock, told, 10)).schedules > 1
    waiting.set()
    with pytest.raises(Conflict, match="another"):
        await first
    back = path.parent / "back.db"
    assert (await move(back).to_file()).schedules > 1
