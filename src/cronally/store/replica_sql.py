"""Whole shards in SQL: how they are copied from one replica to another, put into snapshots, and taken out."""

# ruff: noqa: S608 - what is put into statements here are names of tables and columns

from __future__ import annotations

from typing import Final

from cronally.domain.shards import SHARDS
from cronally.store import journal_sql

IN_SHARDS: Final = f"% {SHARDS} IN (SELECT value FROM json_each(:shards))"

SCHEMA: Final = "CREATE TABLE run_of (key TEXT PRIMARY KEY, shard INTEGER NOT NULL) WITHOUT ROWID"
"""Which shard's log has a remembered run."""

# What others have committed is read machine by machine: a name may be taken again before it is seen to be free.
ALLOW_TWINS: Final = (
    "DROP INDEX schedule_living",
    "CREATE INDEX schedule_living ON schedule (name) WHERE removed_at IS NULL",
)

REFUSE_TWINS: Final = (
    "DROP INDEX schedule_living",
    "CREATE UNIQUE INDEX schedule_living ON schedule (name) WHERE removed_at IS NULL",
)

# Whoever asks what an apply would change has its lines in the staging area meanwhile. A temporary table stands before that of its name.
BEGIN_STAGING_ASIDE: Final = (
    "CREATE TEMP TABLE staging AS SELECT * FROM main.staging WHERE false",
    "CREATE UNIQUE INDEX temp.staging_name ON staging (name)",
)
END_STAGING_ASIDE: Final = "DROP TABLE temp.staging"

NOTE_RUN: Final = "INSERT OR REPLACE INTO run_of (key, shard) VALUES (?, ?)"
FORGET_RUNS: Final = "DELETE FROM run_of WHERE key NOT IN (SELECT key FROM run)"

MARK_UNCLEAN: Final = f"{journal_sql.MARK_UNCLEAN} AND schedule_id {IN_SHARDS}"
BRING_FORWARD: Final = tuple(
    f"{statement} AND schedule_id {IN_SHARDS}" for statement in journal_sql.BRING_FORWARD
)

FAILING: Final = f"""
    SELECT json_group_array(id) FROM schedule INDEXED BY schedule_failing
    WHERE error IS NOT NULL AND removed_at IS NULL AND id {IN_SHARDS}
"""

LAST_IDS: Final = f"""
    SELECT json_group_array(json_array(shard, last, last_revision)) FROM (
        SELECT schedule.id % {SHARDS} AS shard, max(schedule.id) AS last, max(revision.id) AS last_revision
        FROM schedule JOIN revision ON revision.schedule_id = schedule.id WHERE schedule.id {IN_SHARDS} GROUP BY 1
    )
"""
"""Of each shard that has schedules: the greatest ids of one and of a revision."""

NAMES: Final = (
    "SELECT json_group_array(json_array(id, name)) FROM schedule WHERE id IN (SELECT value FROM json_each(?))"
)

BEARERS: Final = """
    SELECT json_group_array(json_array(schedule.name, schedule.id))
    FROM json_each(?) AS asked JOIN schedule ON schedule.name = asked.value AND removed_at IS NULL
"""
"""Of the living schedules with some names, of a JSON array: (name, id)."""


# --- copying ------------------------------------------------------------------------------------------------------


def _keys(where: str, source: str) -> str:
    """Return a statement for the keys of the journal rows that an engine needs to go on: pending, open, or later than an instant."""
    of_shards = f"schedule_id {IN_SHARDS}"
    branches = (
        ("journal_pending_schedule", "state = 'pending'"),
        ("journal_open", "is_open"),
        ("journal_time", "fire_time > :after"),
        ("journal_due", "last_due IS NOT NULL AND last_due > :after"),
        ("journal_range", "last_fire_time IS NOT NULL AND last_fire_time > :after"),
    )
    return " UNION ".join(
        f"SELECT schedule_id, fire_time, kind FROM {source}journal INDEXED BY {index} WHERE {condition} AND {of_shards}{where}"
        for index, condition in branches
    )


ACTION_COLUMNS: Final = "schedule_id, revision_id, done_at, done_by, action, detail"  # without an id: those are each replica's own
_OF_SHARDS: Final = f"SELECT id FROM beside.schedule WHERE id {IN_SHARDS}"

COPY: Final = (
    f"INSERT INTO schedule SELECT * FROM beside.schedule WHERE id {IN_SHARDS}",
    f"""
    INSERT INTO revision SELECT revision.* FROM ({_OF_SHARDS}) AS taken
    CROSS JOIN beside.revision INDEXED BY revision_schedule ON schedule_id = taken.id
    """,
    f"INSERT INTO former_name SELECT * FROM beside.former_name WHERE schedule_id {IN_SHARDS}",
    f"""
    INSERT INTO action ({ACTION_COLUMNS}) SELECT {ACTION_COLUMNS.replace("action,", "action.action,")} FROM beside.action
    WHERE schedule_id {IN_SHARDS} ORDER BY id
    """,
    """
    INSERT OR REPLACE INTO run SELECT run.* FROM beside.run_of JOIN beside.run USING (key)
    WHERE shard IN (SELECT value FROM json_each(:shards))
    """,
    "INSERT OR REPLACE INTO run_of SELECT * FROM beside.run_of WHERE shard IN (SELECT value FROM json_each(:shards))",
    f"""
    INSERT INTO journal SELECT journal.* FROM ({_keys("", "beside.")}) AS needed
    CROSS JOIN beside.journal USING (schedule_id, fire_time, kind)
    """,
)
"""The statements that copy shards from the store beside this one, and of their journals what an engine needs to go on."""

COPY_JOURNAL: Final = (
    f"INSERT OR IGNORE INTO journal SELECT * FROM beside.journal WHERE schedule_id {IN_SHARDS}"
)

_FINAL: Final = "state <> 'pending' AND NOT is_open"

COPY_ROWS: Final = f"""
    INSERT OR IGNORE INTO journal SELECT journal.* FROM json_each(?) AS asked CROSS JOIN beside.journal
    ON (journal.schedule_id, journal.fire_time, journal.kind) = (asked.value ->> 0, asked.value ->> 1, asked.value ->> 2)
    WHERE {_FINAL}
"""

NEXT_OLD: Final = """
    SELECT fire_time FROM beside.journal WHERE schedule_id = ? AND fire_time < ? ORDER BY fire_time DESC LIMIT 1 OFFSET ?
"""

COPY_OLD: Final = f"""
    INSERT OR IGNORE INTO journal SELECT * FROM beside.journal
    WHERE schedule_id = ? AND fire_time < ? AND fire_time >= ? AND {_FINAL}
"""

SCHEDULE_IDS: Final = f"SELECT json_group_array(id) FROM schedule WHERE id {IN_SHARDS}"

IS_LARGE: Final = "SELECT count(*) FROM (SELECT 1 FROM beside.journal LIMIT ?)"

REMOVE: Final = (
    f"DELETE FROM journal WHERE schedule_id IN (SELECT id FROM schedule WHERE id {IN_SHARDS})",
    f"DELETE FROM action WHERE schedule_id {IN_SHARDS}",
    f"DELETE FROM revision WHERE id {IN_SHARDS}",
    f"DELETE FROM former_name WHERE schedule_id {IN_SHARDS}",
    f"DELETE FROM schedule WHERE id {IN_SHARDS}",
    "DELETE FROM run WHERE key IN (SELECT key FROM run_of WHERE shard IN (SELECT value FROM json_each(:shards)))",
    "DELETE FROM run_of WHERE shard IN (SELECT value FROM json_each(:shards))",
)
"""The statements that take shards out."""


# --- snapshots ----------------------------------------------------------------------------------------------------

SCHEDULE_COLUMNS: Final = (
    "id, name, revision_id, effective_from, created_at, changed_at, removed_at, slot_time, slot_due, paused_since, "
    "paused_until, paused_by, pause_note, error, owner"
)
REVISION_COLUMNS: Final = (
    "id, schedule_id, number, name, fifo_group, made_at, made_by, action, size, document, detail"
)
JOURNAL_COLUMNS: Final = (
    "schedule_id, fire_time, kind, revision_id, due_time, state, reason, attempts, released_at, published_at, lateness_us, "
    "maybe_published, last_error, next_attempt_at, last_fire_time, count, is_open, last_due, fifo_group, asked_at, topic, place"
)


def _read(columns: str, source: str, order: str, marks: str) -> str:
    """Return a statement for a slice of rows, as JSON, after the place of the last row of the slice before."""
    return f"""
        SELECT json_group_array(json_array({columns})) FROM (
            SELECT * FROM {source} AND ({order}) > ({marks}) ORDER BY {order} LIMIT :most
        )
    """


READ: Final = {
    "schedule": (_read(SCHEDULE_COLUMNS, f"schedule WHERE id {IN_SHARDS}", "id", ":p0"), (0,)),
    "revision": (
        _read(
            REVISION_COLUMNS,
            f"""(
                SELECT revision.* FROM schedule CROSS JOIN revision INDEXED BY revision_schedule ON schedule_id = schedule.id
                WHERE schedule.id {IN_SHARDS}
            ) WHERE true""",
            "id",
            ":p0",
        ),
        (0,),
    ),
    "former_name": (
        _read(
            "name, schedule_id",
            f"former_name WHERE schedule_id {IN_SHARDS}",
            "name, schedule_id",
            ":p0, :p1",
        ),
        (0, 1),
    ),
    "action": (_read(f"id, {ACTION_COLUMNS}", f"action WHERE schedule_id {IN_SHARDS}", "id", ":p0"), (0,)),
    "run": (
        _read(
            "key, fire_id, asked_at",
            "(SELECT run.* FROM run_of JOIN run USING (key) WHERE shard IN (SELECT value FROM json_each(:shards))) WHERE true",
            "key",
            ":p0",
        ),
        (0,),
    ),
    "journal": (
        _read(
            JOURNAL_COLUMNS,
            f"(SELECT journal.* FROM ({_keys('', '')}) AS needed CROSS JOIN journal USING (schedule_id, fire_time, kind)) WHERE true",
            "schedule_id, fire_time, kind",
            ":p0, :p1, :p2",
        ),
        (0, 1, 2),
    ),
}
"""Of each table: the statement that reads a shard's rows in slices, and which columns are the place of a row."""

FIRST_PLACE: Final = (-(1 << 62), -(1 << 62), "")
"""Before all rows; a text is greater than any number."""


def _write(table: str, columns: str, *, skip: int = 0, verb: str = "INSERT OR REPLACE") -> str:
    places = range(skip, skip + columns.count(",") + 1)
    values = ", ".join(f"value ->> {place}" for place in places)
    return f"{verb} INTO {table} ({columns}) SELECT {values} FROM json_each(?)"


WRITE: Final = {
    "schedule": _write("schedule", SCHEDULE_COLUMNS),
    "revision": _write("revision", REVISION_COLUMNS),
    "former_name": _write("former_name", "name, schedule_id"),
    "action": _write("action", ACTION_COLUMNS, skip=1),
    "run": _write("run", "key, fire_id, asked_at"),
    "journal": _write("journal", JOURNAL_COLUMNS),
}
"""Of each table: the statement that writes rows which were read so."""

_LAST_ATTEMPT: Final = """
    ON CONFLICT DO UPDATE SET
    released_at = coalesce(journal.released_at, excluded.released_at),
    lateness_us = coalesce(journal.lateness_us, excluded.lateness_us),
    last_error = coalesce(journal.last_error, excluded.last_error)
    WHERE journal.state NOT IN ('published', 'pending')
"""

ADD_OLD: Final = f"{_write('journal', JOURNAL_COLUMNS, verb='INSERT')} WHERE true {_LAST_ATTEMPT}"
"""Write rows that are older than what stands at their keys: that keeps what they say of the last attempt, if it says nothing of one."""

FILL_OLD: Final = f"""
    {_write("journal", JOURNAL_COLUMNS, verb="INSERT")} WHERE EXISTS (
        SELECT 1 FROM journal WHERE schedule_id = value ->> 0 AND fire_time = value ->> 1 AND kind = value ->> 2
    ) {_LAST_ATTEMPT}
"""
"""Have what stands at the keys of rows that are older keep what they say of the last attempt."""
