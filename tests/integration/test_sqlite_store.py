"""What is particular to a store in a file: the lock, the schema, damage, full disks, kills and threads."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from cronally.domain.model import JournalEntry, Kind, Pause, SkipReason, State
from cronally.domain.spec import canonical_document, from_document
from cronally.engine.records import AuditFilter, JournalFilter, Order, Reopened, ScheduleChange, StagedRow
from cronally.errors import SchemaMismatch, StoreBusy, StoreCorrupt, StoreError, StoreFull, StoreLocked
from cronally.instants import MAX_UTC_MS
from cronally.store import audit_sql, database, faults, history_sql, journal_sql, orders_sql, schedule_sql
from cronally.store.schema import MIGRATIONS
from cronally.store.sqlite import SqliteStore
from support.store_files import unprivileged

T = 1_795_510_800_000
TOPIC = "arn:aws:sns:us-east-1:123456789012:reports"
SPEC = from_document("nightly", {"when": "0 9 * * *", "topic": TOPIC})

WRITER = """
import asyncio, resource, sys
from cronally.domain.model import JournalEntry, State
from cronally.errors import StoreError
from cronally.store.sqlite import SqliteStore

def rows(commit):
    return [
        JournalEntry(schedule_id=row, revision_id=1, fire_time=commit, due_time=commit, state=State.PUBLISHED)
        for row in range(1, 1501)
    ]

async def write(path, limit_bytes):
    store = SqliteStore(path)
    opened = await store.open()
    if limit_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
    commit = (opened.watermark or 0) + 1
    while True:
        try:
            await store.commit(rows(commit), watermark=commit)
        except StoreError as exc:
            print(type(exc).__name__, exc.is_retryable, commit, flush=True)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await store.commit(rows(commit), watermark=commit)
            print("again", commit, flush=True)
            await store.close(watermark=commit)
            return
        print(commit, flush=True)
        commit += 1

asyncio.run(write(sys.argv[1], int(sys.argv[2])))
"""


def start_writer(path, limit_bytes=0):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(limit_bytes)], stdout=subprocess.PIPE, text=True
    )


def creation(spec=SPEC, **fields):
    return ScheduleChange(at=T, by="uid 1000", action="add", new_spec=spec, effective_from=T, **fields)


def entry(fire_time=T, schedule_id=1, **fields):
    return JournalEntry(
        schedule_id=schedule_id,
        revision_id=1,
        fire_time=fire_time,
        due_time=fire_time,
        **{"state": State.PUBLISHED} | fields,
    )


def asked(path, sql):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


async def opening_error(path):
    with pytest.raises(StoreError) as caught:
        await SqliteStore(path).open()
    return caught.value


# --- the file ---------------------------------------------------------------------------------------------------


async def test_the_file_and_its_directory_are_made_for_their_owner_alone(store, path):
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o027 == 0


async def test_what_is_committed_is_on_the_disk(store):
    writer = store._database._writer
    assert await writer.rows("PRAGMA journal_mode") == [("wal",)]
    assert await writer.rows("PRAGMA synchronous") == [(2,)]


async def test_a_closed_store_says_so(store):
    await store.close(watermark=T)
    with pytest.raises(StoreError, match="not open"):
        await store.counts()
    with pytest.raises(StoreError, match="not open"):
        await store.close(watermark=T)


async def test_a_clean_close_leaves_one_file(store, path):
    await store.change(creation())
    await store.close(watermark=T)
    assert sorted(found.name for found in path.parent.iterdir()) == ["cronally.db", "cronally.db.lock"]


@pytest.mark.parametrize("fault", ["parent is a file", "is a directory", "name too long"])
async def test_a_place_that_cannot_be_used_is_named_with_the_reason(tmp_path, fault):
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    path, reason = {
        "parent is a file": (tmp_path / "file" / "cronally.db", f"{tmp_path}/file is not a directory"),
        "is a directory": (tmp_path / "directory", "unable to open database file"),
        "name too long": (tmp_path / ("x" * 300), "File name too long"),
    }[fault]
    message = str(await opening_error(path))
    assert message.startswith(
        f"the store {path} cannot be opened for writing by uid {os.geteuid()}: {reason}"
    )
    assert message.endswith("or name another place with --store")


@pytest.mark.parametrize("what", ["directory", "file", "directory without a store"])
async def test_a_place_that_may_not_be_written_is_named_with_the_uid(store, path, what):
    await store.close(watermark=T)
    if what == "directory without a store":
        path.unlink()
    target = path if what == "file" else path.parent
    with unprivileged(path.parent):
        target.chmod(0o500)
        try:
            message = str(await opening_error(path))
            assert message.startswith(
                f"the store {path} cannot be opened for writing by uid {os.geteuid()}: "
            )
        finally:
            target.chmod(0o700)


async def test_a_file_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "notes.db"
    asked(path, "CREATE TABLE notes (text)")
    before = path.read_bytes()
    assert "another program" in str(await opening_error(path))
    assert path.read_bytes() == before


# --- the lock ---------------------------------------------------------------------------------------------------


async def test_a_second_opening_is_refused_and_the_first_goes_on(store, path):
    with pytest.raises(StoreLocked) as caught:
        await SqliteStore(path).open()
    assert (caught.value.path, caught.value.pid) == (str(path), os.getpid())
    await store.commit([entry()], watermark=T)


async def test_the_lock_is_the_files_whatever_it_is_called(store, path, tmp_path):
    (tmp_path / "directory").symlink_to(path.parent)
    (tmp_path / "file.db").symlink_to(path)
    for name in ("directory/cronally.db", "file.db"):
        with pytest.raises(StoreLocked):
            await SqliteStore(tmp_path / name).open()


async def test_a_daemon_that_was_killed_is_named_while_it_lives_and_leaves_no_lock(path):
    with start_writer(path) as process:
        assert process.stdout.readline() == "1\n"
        with pytest.raises(StoreLocked) as caught:
            await SqliteStore(path).open()
        assert caught.value.pid == process.pid
        assert f"pid {process.pid}" in str(caught.value)
        process.kill()
    store = SqliteStore(path)
    assert (await store.open()).was_clean is False
    await store.close(watermark=None)


async def test_an_opening_that_fails_lets_go_of_the_lock(path):
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 100)
    for _ in range(2):
        assert type(await opening_error(path)) is StoreCorrupt


# --- the schema -------------------------------------------------------------------------------------------------


async def test_a_new_file_has_the_newest_schema(store, path):
    assert asked(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]


async def test_a_newer_schema_is_refused_with_both_versions(store, path):
    await store.close(watermark=T)
    asked(path, "PRAGMA user_version = 99")
    before = path.read_bytes()
    error = await opening_error(path)
    assert type(error) is SchemaMismatch
    assert (error.found, error.wanted) == (99, len(MIGRATIONS))
    assert f"has schema version 99 and this cronally knows up to {len(MIGRATIONS)};" in str(error)
    assert path.read_bytes() == before


async def test_an_older_schema_is_brought_up_to_date(store, path, monkeypatch):
    await store.change(creation())
    await store.close(watermark=T)
    more = ("ALTER TABLE schedule ADD COLUMN colour TEXT", "UPDATE schedule SET colour = 'green'")
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, more))
    assert (await store.open()).watermark == T
    assert asked(path, "SELECT name, colour FROM schedule") == [("nightly", "green")]
    assert asked(path, "PRAGMA user_version") == [(len(MIGRATIONS) + 1,)]


async def test_a_migration_that_fails_changes_nothing(store, path, monkeypatch):
    await store.change(creation())
    await store.close(watermark=T)
    more = ("ALTER TABLE schedule ADD COLUMN colour TEXT", "UPDATE nowhere SET colour = 'green'")
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, more))
    await opening_error(path)
    monkeypatch.undo()
    assert asked(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    opened = await store.open()
    assert (opened.watermark, opened.was_clean) == (T, True)
    assert await store.schedule("nightly")


# --- damage and full disks --------------------------------------------------------------------------------------


async def test_a_damaged_file_is_refused_after_an_unclean_stop_and_kept(store, path):
    for place in range(40):
        await store.commit([entry(T + 1000 * place + n) for n in range(100)], watermark=None)
    await store.close(watermark=None)
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(12, size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 100)
    error = await opening_error(path)
    assert type(error) is StoreCorrupt
    assert error.path == str(path)
    assert "backup" in str(error)
    assert path.stat().st_size == size


async def test_damage_met_on_the_way_is_reported_as_such(store, path):
    for place in range(40):
        await store.commit([entry(T + 1000 * place + n) for n in range(100)], watermark=None)
    await store.close(watermark=T)
    with path.open("r+b") as file:
        for page in range(40, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 100)
    await store.open()
    with pytest.raises(StoreCorrupt):
        await store.counts()


async def test_a_full_store_takes_nothing_of_a_commit_and_goes_on_when_there_is_room(store):
    await store.change(creation())
    await store.commit([entry(T)], watermark=T)
    [[pages]] = await store._database._writer.rows("PRAGMA page_count")
    await store._database._writer.rows(f"PRAGMA max_page_count = {pages + 5}")
    many = [entry(T + n) for n in range(1, 5000)]
    with pytest.raises(StoreFull) as caught:
        await store.commit(many, watermark=T + 5000, errors=[(1, "lost")])
    assert caught.value.is_retryable
    assert isinstance(caught.value.__cause__, sqlite3.Error)
    assert [row.entry for row in await store.history(JournalFilter())] == [entry(T)]
    assert (await store.schedule("nightly")).error is None
    await store._database._writer.rows("PRAGMA max_page_count = 1000000")
    await store.commit(many, watermark=T + 5000)
    assert (await store.counts()).journal == {State.PUBLISHED: 5000}


async def test_a_write_that_the_system_refuses_is_a_full_store_and_loses_nothing(path):
    with start_writer(path, limit_bytes=2_000_000) as process:
        lines = process.stdout.read().splitlines()
    assert process.returncode == 0
    written = [int(line) for line in lines[:-2]]
    assert lines[-2:] == [f"StoreFull True {len(written) + 1}", f"again {len(written) + 1}"]
    check_commits(path, through=len(written) + 1)


async def test_another_program_that_holds_the_file_makes_it_busy_for_a_while(path, monkeypatch):
    monkeypatch.setattr(database, "_BUSY_TIMEOUT_S", 0.0)
    store = SqliteStore(path)
    await store.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy) as caught:
            await store.commit([entry()], watermark=T)
        assert caught.value.is_retryable
        assert await store.history(JournalFilter()) == []
        other.execute("ROLLBACK")
        await store.commit([entry()], watermark=T)
    await store.close(watermark=T)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SQLITE_BUSY_SNAPSHOT", StoreBusy),
        ("SQLITE_LOCKED", StoreBusy),
        ("SQLITE_FULL", StoreFull),
        ("SQLITE_IOERR_WRITE", StoreFull),
        ("SQLITE_IOERR_READ", StoreError),
        ("SQLITE_CORRUPT_INDEX", StoreCorrupt),
        ("SQLITE_NOTADB", StoreCorrupt),
        ("SQLITE_READONLY_DIRECTORY", StoreError),
        ("SQLITE_CANTOPEN", StoreError),
        ("SQLITE_CONSTRAINT_UNIQUE", StoreError),
    ],
)
def test_errors_of_sqlite_get_our_names(name, expected):
    raised = sqlite3.OperationalError("what SQLite says")
    raised.sqlite_errorcode, raised.sqlite_errorname = getattr(sqlite3, name), name
    error = faults.translation("/x.db", raised)
    assert type(error) is expected
    assert "/x.db" in str(error)
    assert "what SQLite says" in str(error)


# --- crashes ----------------------------------------------------------------------------------------------------


def check_commits(path, *, through):
    """Every commit up to *through* is there, whole, and nothing else."""
    assert asked(path, "PRAGMA integrity_check") == [("ok",)]
    assert asked(path, "SELECT value FROM meta WHERE key = 'watermark'") == [(through,)]
    counted = asked(path, "SELECT fire_time, count(*) FROM journal GROUP BY fire_time")
    assert counted == [(commit, 1500) for commit in range(1, through + 1)]


def test_a_kill_in_the_middle_of_commits_leaves_whole_commits(path, tmp_path):
    seen = 0
    for after in (1, 4, 9):
        with start_writer(path) as process:
            for _ in range(after):
                seen = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            seen = max([seen, *map(int, process.stdout.read().split())])
        copy = tmp_path / f"copy-{after}.db"  # opened by us the log would be folded in
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        [[watermark]] = asked(copy, "SELECT value FROM meta WHERE key = 'watermark'")
        assert watermark in (
            seen,
            seen + 1,
        )  # the last one may have been killed between its commit and its word
        check_commits(copy, through=watermark)


async def test_a_cancelled_commit_happens_wholly_or_not_at_all(store):
    many = [entry(T + n) for n in range(20_000)]
    for steps in range(0, 80, 9):
        task = asyncio.create_task(store.commit(many, watermark=T + 9))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await store.commit([entry(T - 1 - steps)], watermark=T)
        counts = await store.counts()
        assert counts.journal[State.PUBLISHED] in (steps // 9 + 1, steps // 9 + 20_001)
    await store.commit(many, watermark=T + 9)
    assert (await store.counts()).journal == {State.PUBLISHED: 20_009}


def test_a_process_that_dies_with_the_store_open_ends(path):
    script = (
        "import asyncio, sys; from cronally.store.sqlite import SqliteStore; store = SqliteStore(sys.argv[1])\n"
        "asyncio.run(store.open()); raise SystemExit(9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], timeout=30, check=False)
    assert done.returncode == 9


# --- threads and plans ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meanwhile", "through"),
    [
        ("UPDATE journal SET state = 'pending', next_attempt_at = 0", T),  # sent again by a command
        (f"UPDATE meta SET value = {T - 1} WHERE key = 'watermark'", T - 1),  # the clock was set back
    ],
)
async def test_what_changes_between_the_finding_and_the_deleting_is_not_pruned(
    store, monkeypatch, meanwhile, through
):
    await store.change(ScheduleChange(at=T, by="x", action="add", new_spec=SPEC, effective_from=T))
    row = JournalEntry(schedule_id=1, revision_id=1, fire_time=T, due_time=T, state=State.REJECTED)
    await store.commit([row], watermark=T)
    write = store._database.write

    async def write_after_that(statements):
        await write([(meanwhile, ())])
        await write(statements)

    monkeypatch.setattr(store._database, "write", write_after_that)
    assert (await store.prune(T)).through == through
    assert len(await store.history(JournalFilter())) == 1


async def test_a_long_listing_delays_neither_commits_nor_the_engines_reads(store):
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    listing = asyncio.create_task(store._database.lister.rows(endless))
    await store.change(creation())
    await store.commit([entry()], watermark=T)
    assert await store.schedule("nightly")
    assert await store.settled_between(T - 1, MAX_UTC_MS) == {1: [(T, T)]}
    assert not listing.done()
    await store._database.lister._connection.interrupt()
    with pytest.raises(StoreError):
        await listing


async def test_writers_take_turns(store):
    await asyncio.gather(
        *(store.commit([entry(T + n, k) for k in range(600)], watermark=T + n) for n in range(20)),
        *(
            store.change(creation(from_document(f"s{n}", {"when": "@daily", "topic": TOPIC})))
            for n in range(20)
        ),
    )
    counts = await store.counts()
    assert (counts.schedules, counts.journal) == (20, {State.PUBLISHED: 12_000})


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (schedule_sql.TIMETABLE, "schedule USING INTEGER PRIMARY KEY"),
        (schedule_sql.FLIPPED, "schedule USING INDEX schedule_living (name=?)"),
        (schedule_sql.SPECS, "revision USING INTEGER PRIMARY KEY (rowid=?)"),
        (schedule_sql.SINGLE_BETWEEN, "INDEX schedule_single (slot_due>? AND slot_due<?)"),
        (schedule_sql.NEXT_SINGLE, "INDEX schedule_single (slot_due>?)"),
        (schedule_sql.COUNT_PENDING, "INDEX journal_pending_schedule"),
        (schedule_sql.SCHEDULES, "INDEX journal_pending_schedule"),
        (schedule_sql.SCHEDULES, "INDEX schedule_living (name>?)"),
        (journal_sql.PENDING_DUE, "INDEX journal_pending ("),
        (journal_sql.NEXT_PENDING, "INDEX journal_pending (next_attempt_at>?)"),
        (journal_sql.GROUP_PENDING, "INDEX journal_pending_fifo (fifo_group=?)"),
        (journal_sql.PENDING_GROUPS, "INDEX journal_pending_fifo"),
        (journal_sql.DROP_PENDING, "INDEX journal_pending_schedule"),
        (journal_sql.MARK_UNCLEAN, "INDEX journal_pending"),
        (journal_sql.OLDEST_PENDING, "INDEX journal_pending"),
        (journal_sql.FIRE_TIMES, "PRIMARY KEY (schedule_id=? AND fire_time>? AND fire_time<?)"),
        (orders_sql.COUNT_AS_ASKED, "journal USING PRIMARY KEY (schedule_id=? AND fire_time=? AND kind=?)"),
        (orders_sql.COUNT_THERE, "COVERING INDEX journal_time (fire_time=? AND schedule_id=? AND kind=?)"),
        (orders_sql.REOPEN, "COVERING INDEX journal_time (fire_time=? AND schedule_id=? AND kind=?)"),
        (orders_sql.ROWS, "journal USING PRIMARY KEY (schedule_id=? AND fire_time=? AND kind=?)"),
        (journal_sql.SETTLED[0], "INDEX journal_time ("),
        (journal_sql.SETTLED[1], "INDEX journal_due ("),
        (history_sql.history(JournalFilter(), None)[0], "INDEX journal_time"),
        (history_sql.history(JournalFilter(), [1])[0], "PRIMARY KEY (schedule_id=?)"),
        (
            history_sql.history(JournalFilter(before=(T, 1, "manual")), None)[0],
            "INDEX journal_time ((fire_time,",
        ),
        (
            history_sql.history(JournalFilter(states=frozenset({State.REJECTED}), since=T), [1])[0],
            "COVERING INDEX journal_unpublished (state=? AND fire_time>?)",
        ),
        (
            history_sql.history(JournalFilter(reasons=frozenset({SkipReason.PAUSED})), None)[0],
            "COVERING INDEX journal_unpublished (state=?)",
        ),
        (
            history_sql.history(JournalFilter(since=T), [1], reaching=True)[0],
            "COVERING INDEX journal_range (last_fire_time>?)",
        ),
        (
            history_sql.history(JournalFilter(since=T), None, reaching=True)[0],
            "INDEX journal_open (fire_time<?)",
        ),
        (journal_sql.PRUNABLE, "INDEX journal_time ((fire_time,schedule_id,kind)>(?,?,?) AND fire_time<?)"),
        (journal_sql.PRUNE, "INDEX journal_time ((fire_time,schedule_id,kind)>(?,?,?) AND fire_time<?)"),
        (journal_sql.COUNTS, "COVERING INDEX journal_unpublished"),
    ],
)
async def test_what_runs_often_goes_by_an_index(store, statement, index):
    numbered = [int(number) for number in re.findall(r"\?(\d+)", statement)]
    values = (0,) * max(numbered, default=statement.count("?"))
    plan = [row[3] for row in await store._database.reader.rows(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert any(index in step for step in plan), plan
    assert not any("SCAN journal" in step and "INDEX" not in step for step in plan), plan


async def test_a_name_is_found_among_many_by_the_half_without_the_slip(store):
    def rows(names):
        return [StagedRow(name, canonical_document(SPEC)) for name in names]

    await store.stage_begin()
    await store.stage(rows([f"unlike{n:08d}" for n in range(300)]))
    await store.stage(rows(["Nightly-Report"]))
    await store.flip(at=T, by="x", owner="default", unsettled=[])
    for typed in ("nightly-reprot", "nigthly-report", "nightly-report-2"):
        assert await store.nearest_name(typed) == "Nightly-Report"


async def test_a_flip_leaves_nothing_in_the_staging_area(store, path):
    await store.stage_begin()
    await store.stage([StagedRow("nightly", canonical_document(SPEC))])
    await store.flip(at=T, by="x", owner="default", unsettled=[])
    assert asked(path, "SELECT count(*) FROM staging") == [(0,)]


# --- what is kept for the audit log -----------------------------------------------------------------------------


async def test_who_did_what_and_when_is_on_record(store, path):
    made = await store.change(creation())
    pause = Pause(since=T + 1, note="Ferien", by="uid 1000")
    done = {"by": "uid 1001", "id": made.id, "expected_revision_id": made.revision_id}
    await store.change(ScheduleChange(at=T + 1, action="pause", pause=pause, **done))
    await store.change(ScheduleChange(at=T + 2, action="set", new_spec=SPEC, **done))
    manual = entry(T + 3, kind=Kind.MANUAL, state=State.PENDING, next_attempt_at=T + 3)
    await store.add_manual(manual, by="uid 1002", fire_id="nightly@x", idempotency_key=None)
    order = Order(made.id, 1, 1, "nightly@y", "nightly@y")
    old = entry(T, state=State.REJECTED)
    await store.commit([old], watermark=None)
    new = old._replace(state=State.PENDING, asked_at=T + 3)
    await store.retry([Reopened(old, (new,))], at=T + 3, by="uid 1002", orders=[order])
    row = entry(T, kind=Kind.BACKFILL, state=State.PENDING)
    await store.add_backfill([row], at=T + 3, by="uid 1002", order=order)
    await store.change(ScheduleChange(at=T + 4, by="uid 1003", action="rm", id=made.id, is_removal=True))
    assert asked(path, "SELECT number, name, made_at, made_by, action FROM revision") == [
        (1, "nightly", T, "uid 1000", "add"),
        (2, "nightly", T + 2, "uid 1001", "set"),
    ]
    assert asked(path, "SELECT revision_id, done_at, done_by, action, detail FROM action") == [
        (1, T + 1, "uid 1001", "pause", f'{{"since": {T + 1}, "note": "Ferien", "was": null}}'),
        (1, T + 3, "uid 1002", "run", '{"fire_id": "nightly@x"}'),
        (1, T + 3, "uid 1002", "retry", '{"fires": 1, "first": "nightly@y", "last": "nightly@y"}'),
        (1, T + 3, "uid 1002", "backfill", '{"fires": 1, "first": "nightly@y", "last": "nightly@y"}'),
        (2, T + 4, "uid 1003", "rm", None),
    ]


async def test_what_an_older_schema_has_recorded_is_in_the_audit_log(path, monkeypatch):
    path.parent.mkdir()
    monkeypatch.setattr(database, "MIGRATIONS", MIGRATIONS[:5])
    store = SqliteStore(path)
    await store.open()
    await store.close(watermark=T)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "INSERT INTO schedule (id, name, revision_id, effective_from, created_at, changed_at, owner) "
            "VALUES (1, 'nightly', 1, ?1, ?1, ?1, '')", (T,),
        )  # fmt: skip
        document = canonical_document(SPEC)
        connection.execute(
            "INSERT INTO revision (schedule_id, number, name, made_at, made_by, action, size, document) "
            "VALUES (1, 1, 'nightly', ?, 'uid 1000', 'add', ?, ?)", (T, len(document), document),
        )  # fmt: skip
        connection.execute(
            "INSERT INTO action (schedule_id, revision_id, done_at, done_by, action, detail) "
            "VALUES (1, 1, ?, 'uid 1000', 'pause', ?)", (T + 1, f'{{"since": {T + 1}}}'),
        )  # fmt: skip
    connection.close()
    monkeypatch.undo()
    await store.open()
    page = await store.audit(AuditFilter())
    assert [(row.action, row.after, row.detail) for row in page.rows] == [
        ("pause", None, {"since": T + 1}),
        ("add", SPEC, {}),
    ]
    await store.close(watermark=None)


async def test_a_page_of_the_audit_log_ends_when_much_was_looked_through(store, path, monkeypatch):
    monkeypatch.setattr(audit_sql, "MOST_SCANNED", 10)
    made = await store.change(creation())
    for number in range(1, 300):
        change = {"by": "uid 1", "action": "resume", "id": made.id}
        await store.change(ScheduleChange(at=T + number, **change))
    found, pages, before = [], 0, None
    while pages == 0 or before is not None:
        page = await store.audit(AuditFilter(by="1000", before=before))
        found, pages, before = [*found, *page.rows], pages + 1, page.next
    assert [row.action for row in found] == ["add"]
    assert pages == 4  # of ten statements, which look at ten rows each; the last finds the end


async def test_a_page_of_the_audit_log_ends_when_its_messages_are_large(store):
    document = {"when": "0 9 * * *", "topic": SPEC.topic, "message": "x" * 200_000}
    made = await store.change(creation(from_document("nightly", document)))
    for number in range(1, 40):
        large = from_document("nightly", {**document, "note": str(number)})
        await store.change(ScheduleChange(at=T + number, by="x", action="set", id=made.id, new_spec=large))
    rows, before = [], None
    while not rows or before is not None:
        page = await store.audit(AuditFilter(before=before))
        assert len(page.rows) <= 11  # 4 MiB, of revisions before and after
        rows, before = [*rows, *page.rows], page.next
    assert [row.at for row in rows] == [T + number for number in range(39, -1, -1)]


async def test_any_text_of_an_error_can_be_kept(store):
    await store.change(creation())
    text = "half \ud83c of it,\0 and NUL"
    await store.commit([entry(last_error=text)], watermark=None, errors=[(1, text)])
    [row] = await store.history(JournalFilter())
    assert row.entry.last_error == "half ? of it, and NUL"
    assert (await store.schedule("nightly")).error == "half ? of it, and NUL"
