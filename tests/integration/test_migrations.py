"""What each version of the schema has written is there when the present one opens it, and goes on from there."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import pytest

from cronally.domain.model import JournalEntry, Kind, SkipReason, State, fire_id
from cronally.domain.spec import canonical_document
from cronally.engine.records import AuditFilter, JournalFilter
from cronally.store.schema import MIGRATIONS
from cronally.store.sqlite import SqliteStore
from support.fake_clock import FakeClock
from support.kept_stores import FIXTURES, answers_at_once, dump, kept, restore, write
from support.rig import running_engine
from support.store_files import asked

VERSIONS = range(1, len(MIGRATIONS) + 1)
GONE = {"recurrence"}  # since version 2: what was in it is computed anew


@pytest.fixture(params=VERSIONS, ids="version {}".format)
def version(request):
    return request.param


@pytest.fixture
def old(path, version):
    """Where a store is that this version of the schema has written; its daemon was killed."""
    path.parent.mkdir()
    restore(kept(version).read_text(encoding="utf-8"), path)
    return path


def content(path):
    """Return every row of every table, as a mapping by column."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        tables = [
            name for [name] in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]
        return {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in tables}


def entry_of(row):
    """Return the entry that a row of the journal is, read by the rules in store/schema.py."""
    plain = JournalEntry._fields[:-2]
    values = {name: row[name] for name in plain} | {"asked_at": row.get("asked_at")}
    values |= {name: bool(row[name]) for name in ("maybe_published", "is_open")}
    values |= {"kind": Kind(row["kind"]), "state": State(row["state"])}
    values |= {"reason": row["reason"] and SkipReason(row["reason"]), "is_in_line": bool(row.get("topic"))}
    return JournalEntry(**values)


async def whole_audit(store):
    found, before = [], None
    while not found or before is not None:
        page = await store.audit(AuditFilter(before=before))
        found, before = [*found, *page.rows], page.next
    return found


def test_a_store_of_every_version_is_kept(version):
    [marked] = re.findall(
        r"^PRAGMA user_version = (\d+);$", kept(version).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert int(marked) == version
    assert len(list(FIXTURES.glob("schema_*.sql"))) == len(VERSIONS)


def test_what_is_kept_has_a_bit_of_everything(old, version):
    assert_a_bit_of_everything(old, version)


async def test_what_would_be_kept_of_the_present_version_has_a_bit_of_everything(path):
    path.parent.mkdir()
    await write(path)
    assert_a_bit_of_everything(path, len(MIGRATIONS))
    again = path.with_name("again.db")
    restore(dump(path), again)
    assert content(again) == content(path)


def assert_a_bit_of_everything(path, version):
    rows = content(path)
    names = {row["name"]: row for row in rows["schedule"] if row["removed_at"] is None}
    rules = [row["document"].partition(",")[0] for row in rows["revision"]]
    assert {"@every", "@at", "0"} <= {rule.split('"')[3].split()[0] for rule in rules}
    assert any(row["paused_since"] and row["paused_until"] for row in names.values())
    assert any(row["paused_since"] and not row["paused_until"] for row in names.values())
    assert any(row["removed_at"] for row in rows["schedule"])
    assert any(row["error"] for row in names.values())
    assert any(row["owner"] for row in names.values())
    assert any(row["number"] > 1 for row in rows["revision"])
    journal = [entry_of(row) for row in rows["journal"]]
    assert {entry.state for entry in journal} == set(State)
    assert {entry.reason for entry in journal} == {None, *SkipReason}
    assert {entry.kind for entry in journal} >= {Kind.SCHEDULED, Kind.MANUAL}
    assert (
        {entry.is_open for entry in journal} == {entry.maybe_published for entry in journal} == {False, True}
    )
    assert any(entry.count > 1 for entry in journal)
    assert any(row["fifo_group"] for row in rows["journal"])
    assert any(row["due_time"] != row["fire_time"] for row in rows["journal"])
    assert rows["former_name"]
    assert rows["run"]
    assert {row["key"] for row in rows["meta"]} >= {"clean_stop", "watermark"}
    assert version == 1 or rows["zone"]
    if version >= 4:
        assert {entry.kind for entry in journal} == set(Kind)
        assert {row["key"] for row in rows["meta"]} >= {"pruned_through", "reached"}
        assert any(entry.asked_at for entry in journal)
    if version >= 5:
        assert {entry.is_in_line for entry in journal} == {False, True}


async def test_an_upgrade_keeps_every_row_of_every_table(old):
    before = content(old)
    store = SqliteStore(old)
    await store.open()
    await store.close(watermark=None)
    after = content(old)
    assert asked(old, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert asked(old, "PRAGMA integrity_check") == [("ok",)]
    assert asked(old, "PRAGMA foreign_key_check") == []
    for table in before.keys() - GONE:
        is_new = [
            {key: row[key] for key in row if key not in was}
            for was, row in zip(before[table], after[table], strict=True)
        ]
        assert [dict(row) | new for row, new in zip(before[table], is_new, strict=True)] == after[table], (
            table
        )
        assert {value for new in is_new for value in new.values()} <= {None}, table


async def test_after_an_upgrade_the_tables_are_those_of_a_new_store(old, tmp_path):
    store, new = SqliteStore(old), SqliteStore(tmp_path / "new" / "cronally.db")
    for one in (store, new):
        await one.open()
        await one.close(watermark=None)
    schema = "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name"
    assert asked(old, schema) == asked(new._path, schema)


async def test_after_an_upgrade_the_store_says_what_was_written(old):
    rows = content(old)
    store = SqliteStore(old)
    opened = await store.open()
    meta = {row["key"]: row["value"] for row in rows["meta"]}
    assert (opened.watermark, opened.was_clean) == (meta["watermark"], False)
    assert (opened.pruned_through, opened.reached) == (meta.get("pruned_through"), meta.get("reached"))
    living = {row["name"]: row for row in rows["schedule"] if row["removed_at"] is None}
    revisions = {row["id"]: row for row in rows["revision"]}

    said = {stored.spec.name: stored for stored in await store.schedules()}
    assert said.keys() == living.keys()
    for name, stored in said.items():
        row, revision = living[name], revisions[living[name]["revision_id"]]
        assert canonical_document(stored.spec) == revision["document"]
        assert (stored.id, stored.revision_id, stored.revision) == (
            row["id"],
            revision["id"],
            revision["number"],
        )
        assert (stored.effective_from, stored.changed_at) == (row["effective_from"], row["changed_at"])
        assert (stored.error, stored.owner) == (row["error"], row["owner"] or None)
        pause = stored.pause and (stored.pause.since, stored.pause.until, stored.pause.note, stored.pause.by)
        columns = ("paused_since", "paused_until", "pause_note", "paused_by")
        assert pause == (tuple(row[column] for column in columns) if row["paused_since"] else None)

    history = await store.history(JournalFilter(limit=10_000))
    assert {row.entry.key: row.entry for row in history} == {
        entry.key: entry for entry in map(entry_of, rows["journal"])
    }
    assert {(row.entry.key, row.name) for row in history} == {
        (entry_of(row).key, revisions[row["revision_id"]]["name"]) for row in rows["journal"]
    }
    for row in rows["former_name"]:
        assert row["schedule_id"] in await store.bearers(row["name"])
    for row in rows["run"]:
        assert await store.remembered_run(row["key"]) == row["fire_id"]

    changes = [(row["made_at"], row["made_by"], row["action"], row["name"]) for row in rows["revision"]]
    for row in rows["action"]:
        name = revisions[row["revision_id"]]["name"]
        changes.append((row["done_at"], row["done_by"], row["action"], name))
    audit = await whole_audit(store)
    assert sorted((row.at, row.by, row.action, row.name) for row in audit) == sorted(changes)
    documents = {row["document"] for row in rows["revision"]}
    assert {canonical_document(row.after) for row in audit if row.after} == documents
    await store.close(watermark=None)


async def test_a_daemon_goes_on_after_an_upgrade(old):
    """It publishes what waits, in the order of its groups, and touches nothing that is over."""
    before = {entry.key: entry for entry in map(entry_of, content(old)["journal"])}
    clock = FakeClock("2026-11-23T09:23:20Z")
    with answers_at_once():
        async with running_engine(clock=clock, store=SqliteStore(old)) as rig:
            await clock.advance(1000)
            names = {row["id"]: row["name"] for row in content(old)["revision"]}
            all_of_them = {
                row["name"] for row in content(old)["revision"] if '"catch_up":"all"' in row["document"]
            }
            accepted = [arrival.entry for arrival in rig.publisher.accepted]
    after = {entry.key: entry for entry in map(entry_of, content(old)["journal"])}
    assert before.keys() <= after.keys()
    assert not [entry for entry in after.values() if entry.state is State.PENDING]
    for key, entry in before.items():
        if entry.state is not State.PENDING and not entry.is_open:
            assert after[key] == entry
    waited = {key for key, entry in before.items() if entry.state is State.PENDING}
    wanted = {key for key in waited if names[before[key].revision_id] in all_of_them - {"brief"}}
    assert len(wanted) > 20
    assert {after[key].state for key in wanted} == {State.PUBLISHED}
    assert {fire_id(names[before[key].revision_id], key.fire_time, key.kind) for key in wanted} <= {
        entry.fire_id for entry in accepted
    }
    stuck = [entry.fire.due_time for entry in accepted if entry.name == "stuck"]
    assert len(stuck) > 20
    assert stuck == sorted(stuck)
