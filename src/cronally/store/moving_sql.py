"""What a move to a shared table does in SQL: all ids are chosen anew, so that each has its shard in it."""

# ruff: noqa: S608 - what is put into statements here are names of tables and columns

from __future__ import annotations

from typing import Final

from cronally.domain.shards import SHARDS
from cronally.store import journal_sql, replica_sql

HOMES: Final = """
    SELECT json_group_array(json_array(id, home)) FROM (
        SELECT schedule.id AS id, coalesce(revision.fifo_group, schedule.name) AS home
        FROM beside.schedule CROSS JOIN beside.revision ON revision.id = schedule.revision_id
        WHERE schedule.id > ? ORDER BY schedule.id LIMIT ?
    )
"""
"""Of schedules in the order of ids, removed ones too: the text whose hash decides the shard."""

BEGIN: Final = (
    "CREATE TEMP TABLE home (id INTEGER PRIMARY KEY, shard INTEGER NOT NULL)",
    "CREATE TEMP TABLE new_schedule (old INTEGER PRIMARY KEY, id INTEGER NOT NULL)",
    "CREATE TEMP TABLE new_revision (old INTEGER PRIMARY KEY, id INTEGER NOT NULL)",
)

PUT_HOMES: Final = "INSERT INTO home (id, shard) SELECT value ->> 0, value ->> 1 FROM json_each(?)"

_NUMBERED: Final = f"row_number() OVER (PARTITION BY shard ORDER BY {{id}}) * {SHARDS} + shard"


def _copied(table: str, columns: str, new: dict[str, str]) -> str:
    """Return a statement that copies *columns* of a table beside. new: where the new ids are, by the columns that have old ones."""
    names = columns.split(", ")
    values = ", ".join(f"{new[name]}.id" if name in new else f"old.{name}" for name in names)
    joins = " ".join(f"CROSS JOIN {ids} ON {ids}.old = old.{name}" for name, ids in new.items())
    return f"INSERT INTO main.{table} ({columns}) SELECT {values} FROM beside.{table} AS old {joins}"


_SCHEDULE: Final = {"schedule_id": "new_schedule"}
_BOTH: Final = _SCHEDULE | {"revision_id": "new_revision"}

RENUMBER: Final = (
    f"INSERT INTO new_schedule (old, id) SELECT id, {_NUMBERED.format(id='id')} FROM home",
    f"""
    INSERT INTO new_revision (old, id) SELECT revision.id, {_NUMBERED.format(id="revision.id")}
    FROM beside.revision JOIN home ON home.id = revision.schedule_id
    """,
    _copied("schedule", replica_sql.SCHEDULE_COLUMNS, {"id": "new_schedule", "revision_id": "new_revision"}),
    _copied("revision", replica_sql.REVISION_COLUMNS, {"id": "new_revision"} | _SCHEDULE),
    _copied("former_name", "name, schedule_id", _SCHEDULE),
    _copied("action", replica_sql.ACTION_COLUMNS, _BOTH) + " ORDER BY old.id",
    _copied("journal", replica_sql.JOURNAL_COLUMNS, _BOTH),
    "INSERT INTO main.run SELECT * FROM beside.run",
    "INSERT INTO main.run_of (key, shard) SELECT key, 0 FROM beside.run",
    "INSERT INTO main.zone SELECT * FROM beside.zone",
)

STRAY_GROUPS: Final = f"""
    SELECT json_group_array(json_array(fifo_group, shard, name)) FROM (
        SELECT journal.fifo_group AS fifo_group, schedule.id % {SHARDS} AS shard, min(schedule.name) AS name
        FROM journal JOIN schedule ON schedule.id = journal.schedule_id
        WHERE journal.state = 'pending' AND journal.fifo_group IS NOT NULL GROUP BY 1, 2
    )
"""
"""The FIFO groups that have pending fires, and a schedule of each shard where those are."""

ZONES: Final = "SELECT json_group_array(json_array(name, tzdata, json(starts), json(offsets))) FROM zone"

COUNTS: Final = """
    SELECT (SELECT count(*) FROM schedule WHERE removed_at IS NULL), (SELECT count(*) FROM journal),
        (SELECT count(*) FROM journal WHERE state = 'pending')
"""

FINAL_ROWS: Final = f"""
    SELECT json_group_array(json_array('', {journal_sql.LISTED})) FROM (
        SELECT * FROM journal INDEXED BY journal_time
        WHERE (fire_time, schedule_id, kind) > (?, ?, ?) AND state <> 'pending' AND NOT is_open
        ORDER BY fire_time, schedule_id, kind LIMIT ?
    )
"""
"""The rows of the journal that are final, oldest first, after a place, as ``journal_sql.journal_row`` takes them."""

LEAST_EFFECTIVE: Final = f"""
    SELECT json_group_array(json_array(shard, since)) FROM (
        SELECT id % {SHARDS} AS shard, min(effective_from) AS since FROM schedule WHERE removed_at IS NULL GROUP BY 1
    )
"""
"""Of each shard that has living schedules: from when the first of them is in effect."""

MAKE_FILE: Final = ("DROP TABLE run_of", *replica_sql.REFUSE_TWINS)
"""The statements that make a store of a single machine of a replica of all shards."""

PUT_OFF: Final = f"UPDATE schedule SET effective_from = max(effective_from, :settled) WHERE removed_at IS NULL AND id % {SHARDS} = :shard"
"""The schedules of a shard have no slots up to an instant, as far as anybody shall decide on them."""
