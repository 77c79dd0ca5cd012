"""Schedules, their revisions and the staging area in SQL."""

# ruff: noqa: S608 - what is put into statements here are constants of this file

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from cronally.domain.model import Pause
from cronally.domain.shards import SHARDS
from cronally.domain.spec import MESSAGE_KEYS, from_canonical
from cronally.engine.records import OWN_NAME, StoredSchedule
from cronally.store.base import staged_slot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.records import StagedRow

MOST_ROWS: Final = 1_000  # of a slice: reading them takes Python 2 ms
MOST_BYTES: Final = 4 << 20  # of a slice's documents; the first always comes


def _slice(columns: str, source: str, order: str) -> str:
    """Return a statement for the rows of *source* by *order*, as far as MOST_BYTES; its last value is the most rows.

    The bytes are counted before any document is read.
    """
    return f"""
        SELECT json_group_array(json_array({columns})) FROM (
            SELECT *, sum(size) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) - size AS bytes_before
            FROM ({source} ORDER BY {order} LIMIT ?)
        ) AS part WHERE bytes_before < {MOST_BYTES}
    """


_DOCUMENT: Final = "(SELECT document FROM revision WHERE revision.id = revision_id)"


# --- schedules --------------------------------------------------------------------------------------------------

_NO_MESSAGE: Final = ", ".join(f"'$.{key}'" for key in MESSAGE_KEYS)
_RULE: Final = f"json_remove(revision.document, {_NO_MESSAGE})"


def _timetable(source: str, order: str) -> str:
    """Return a statement for a slice of TimetableRows. A rule has at most 3 KB, so that rows are all that has to be counted.

    ``|| ''`` makes a text of what would otherwise become a part of the row's JSON.
    """
    return f"""
        SELECT json_group_array(json_array(
            id, revision_id, name, rule || '', effective_from, paused_since, paused_until, slot_time
        )) FROM (
            SELECT schedule.id AS id, revision.id AS revision_id, schedule.name AS name, {_RULE} AS rule, effective_from,
                paused_since, paused_until, schedule.slot_time AS slot_time
            FROM {source} ORDER BY {order} LIMIT ?
        )
    """


MOVE_SINGLE_SLOTS: Final = """
    UPDATE schedule SET slot_due = slot_due - slot_time + (moved.value ->> 1), slot_time = moved.value ->> 1
    FROM json_each(?) AS moved WHERE schedule.id = moved.value ->> 0 AND slot_time IS NOT NULL
"""

TIMETABLE: Final = _timetable(
    """
    schedule CROSS JOIN revision ON revision.id = schedule.revision_id
    WHERE removed_at IS NULL AND schedule.id > ?
    """,
    "schedule.id",
)

FLIPPED: Final = _timetable(
    """
    staging CROSS JOIN schedule ON schedule.name = staging.name AND removed_at IS NULL
    CROSS JOIN revision ON revision.id = schedule.revision_id WHERE staging.name > ?
    """,
    "staging.name",
)

TIMETABLE_OF: Final = _timetable(
    """
    schedule CROSS JOIN revision ON revision.id = schedule.revision_id
    WHERE removed_at IS NULL AND schedule.id > ? AND schedule.id % 64 IN (SELECT value FROM json_each(?))
    """,
    "schedule.id",
)
"""Of some shards of a shared store; their numbers are the second value, as JSON."""

# Of up to some hundred revisions; what they hold has neither tabs nor line ends (JSON escapes them). As text to be split
# this takes a third of the time of JSON in JSON.
SPECS_TEXT: Final = f"""
    SELECT CASE WHEN total(size) <= {MOST_BYTES} THEN (
        SELECT group_concat(id || char(9) || name || char(9) || document, char(10)) FROM (
            SELECT revision.id AS id, name, document
            FROM json_each(?1) AS wanted JOIN revision ON revision.id = wanted.value
        )
    ) END, total(size) FROM json_each(?1) AS wanted JOIN revision ON revision.id = wanted.value
"""
"""A line for each: id, name, document; NULL if these are too many bytes for one answer. And how many bytes they are."""

# The same for many bytes.
SPECS: Final = _slice(
    f"revision_id, name, {_DOCUMENT}",
    """
    SELECT revision.id AS revision_id, name, size
    FROM json_each(?) AS wanted JOIN revision ON revision.id = wanted.value WHERE revision.id > ?
    """,
    "revision_id",
)

LABELS: Final = """
    SELECT json_group_array(json_array(revision.id, name, document ->> 'topic', coalesce(document ->> 'tz', 'UTC'), document ->> 'late_after'))
    FROM json_each(?) AS wanted JOIN revision ON revision.id = wanted.value
"""

_STORED_COLUMNS: Final = f"""
    name, {_DOCUMENT}, id, number, revision_id, effective_from, created_at, changed_at,
    paused_since, paused_until, pause_note, paused_by, error, owner,
    (SELECT count(*) FROM journal INDEXED BY journal_pending_schedule WHERE schedule_id = id AND state = 'pending')
"""

_STORED_SOURCE: Final = """
    SELECT schedule.id AS id, schedule.name AS name, number, revision_id, effective_from, created_at, changed_at,
        paused_since, paused_until, pause_note, paused_by, error, owner, size
    FROM schedule JOIN revision ON revision.id = revision_id
"""

SCHEDULE: Final = _slice(
    _STORED_COLUMNS, f"{_STORED_SOURCE} WHERE removed_at IS NULL AND schedule.name = ?", "name"
)

SCHEDULES: Final = _slice(
    _STORED_COLUMNS, f"{_STORED_SOURCE} WHERE removed_at IS NULL AND schedule.name > ?", "name"
)

CHANGED_BEYOND: Final = _slice(
    f"""
    {_STORED_COLUMNS}, paused_since IS NULL AND EXISTS (
        SELECT 1 FROM action WHERE action.schedule_id = part.id AND action.action = 'resume' AND done_by = '{OWN_NAME}'
        AND done_at = effective_from
    )
    """,
    f"""
    {_STORED_SOURCE} WHERE removed_at IS NULL AND (effective_from > ?1 OR paused_since > ?1) AND schedule.name > ?2
    """,
    "name",
)


def stored_schedule(row: list[Any]) -> StoredSchedule:
    name, document, id_, number, revision_id, effective_from, created_at, changed_at = row[:8]
    paused_since, paused_until, note, paused_by, error, owner, pending = row[8:]
    pause = None
    if paused_since is not None:
        pause = Pause(since=paused_since, until=paused_until, note=note, by=paused_by)
    return StoredSchedule(
        id=id_,
        spec=from_canonical(name, document),
        revision=number,
        revision_id=revision_id,
        effective_from=effective_from,
        created_at=created_at,
        changed_at=changed_at,
        pause=pause,
        error=error,
        owner=owner or None,
        pending=pending,
    )


ALIKE: Final = """
    SELECT json_group_array(name) FROM (
        SELECT name FROM schedule WHERE removed_at IS NULL AND abs(length(name) - length(?1)) <= 8
        ORDER BY
            substr(lower(name), 1, length(?1) / 2) <> substr(lower(?1), 1, length(?1) / 2)
            AND substr(lower(name), -(length(?1) / 2)) <> substr(lower(?1), -(length(?1) / 2)),
            abs(length(name) - length(?1))
        LIMIT 100
    )
"""
"""Names like ?1: those with the same first or last half before others (one slip leaves one half whole)."""

SINGLE_BETWEEN: Final = """
    SELECT json_group_array(json_array(id, revision_id, slot_time, slot_due)) FROM (
        SELECT id, revision_id, slot_time, slot_due FROM schedule
        WHERE slot_due > ? AND slot_due <= ? AND slot_time > effective_from
        AND slot_due IS NOT NULL AND paused_since IS NULL AND removed_at IS NULL
        ORDER BY slot_due, id LIMIT ?
    )
"""

NEXT_SINGLE: Final = """
    SELECT slot_due FROM schedule
    WHERE slot_due > ? AND slot_time > effective_from
    AND slot_due IS NOT NULL AND paused_since IS NULL AND removed_at IS NULL
    ORDER BY slot_due LIMIT 1
"""

# Counted in indexes: of all rows without a look at any, of the others in those that hold no more than these few.
COUNT_SCHEDULES: Final = """
    SELECT json_array(
        (SELECT count(*) FROM schedule)
        - (SELECT count(*) FROM schedule INDEXED BY schedule_removed WHERE removed_at IS NOT NULL),
        (SELECT count(*) FROM schedule INDEXED BY schedule_paused WHERE paused_since IS NOT NULL AND removed_at IS NULL),
        (SELECT count(*) FROM schedule INDEXED BY schedule_failing WHERE error IS NOT NULL AND removed_at IS NULL)
    )
"""

FAILING: Final = "SELECT json_group_array(id) FROM schedule INDEXED BY schedule_failing WHERE error IS NOT NULL AND removed_at IS NULL"

SET_ERRORS: Final = """
    UPDATE schedule SET error = said.error
    FROM (SELECT json_extract(value, '$[0]') AS id, json_extract(value, '$[1]') AS error FROM json_each(?)) AS said
    WHERE schedule.id = said.id AND schedule.error IS NOT said.error
"""


# --- one change -------------------------------------------------------------------------------------------------

CURRENT: Final = """
    SELECT schedule.name, number, revision_id, removed_at IS NOT NULL, paused_since, paused_until, pause_note, owner
    FROM schedule JOIN revision ON revision.id = revision_id WHERE schedule.id = ?
"""

HOLDER: Final = "SELECT id FROM schedule WHERE name = ? AND removed_at IS NULL"

INSERT_SCHEDULE: Final = """
    INSERT INTO schedule (id, name, revision_id, effective_from, created_at, changed_at, owner)
    VALUES (?1, ?2, 0, ?3, ?3, ?3, '') RETURNING id
"""

INSERT_REVISION: Final = """
    INSERT INTO revision (id, schedule_id, number, name, fifo_group, made_at, made_by, action, size, document, detail)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id
"""

INSERT_ORDERS: Final = """
    INSERT INTO action (schedule_id, revision_id, done_at, done_by, action, detail)
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), ?, ?, ?, json_extract(value, '$[2]') FROM json_each(?)
"""
"""The last value is a JSON array of (schedule id, revision id, detail)."""

EXTEND_BACKFILL: Final = """
    UPDATE action SET detail = json_set(detail, '$.fires', (detail ->> '$.fires') + ?, '$.last', ?)
    WHERE schedule_id = ? AND done_at = ? AND done_by = ? AND action = 'backfill' RETURNING id
"""
"""A backfill is written in slices, and is one line of the audit log."""

INSERT_ACTION: Final = """
    INSERT INTO action (schedule_id, revision_id, done_at, done_by, action, detail) VALUES (?, ?, ?, ?, ?, ?)
"""

REVISE: Final = "UPDATE schedule SET name = ?, revision_id = ?, slot_time = ?, slot_due = ? WHERE id = ?"

UPDATE: Final = """
    UPDATE schedule SET
        effective_from = coalesce(?, effective_from), changed_at = ?, owner = coalesce(?, owner),
        paused_since = ?, paused_until = ?, pause_note = ?, paused_by = ?
    WHERE id = ?
"""

REMOVE: Final = "UPDATE schedule SET removed_at = ? WHERE id = ?"

REMEMBER_NAME: Final = "INSERT OR IGNORE INTO former_name (name, schedule_id) VALUES (?, ?)"

COUNT_PENDING: Final = "SELECT count(*) FROM journal INDEXED BY journal_pending_schedule WHERE schedule_id = ? AND state = 'pending'"

NUMBER: Final = "SELECT number FROM revision WHERE id = ?"

TOPICS: Final = """
    SELECT json_group_array(json_array(topic, schedules, failing, pending, error)) FROM (
        SELECT topic, sum(schedules) AS schedules, sum(failing) AS failing, sum(pending) AS pending, max(error) AS error
        FROM (
            SELECT document ->> '$.topic' AS topic, count(*) AS schedules, count(error) AS failing, 0 AS pending,
                max(error) AS error
            FROM schedule JOIN revision ON revision.id = revision_id WHERE removed_at IS NULL GROUP BY topic
            UNION ALL
            SELECT document ->> '$.topic' AS topic, 0, 0, count(*), NULL
            FROM journal INDEXED BY journal_pending_schedule JOIN revision ON revision.id = revision_id
            WHERE state = 'pending' GROUP BY document ->> '$.topic'
        )
        WHERE topic > ? GROUP BY topic ORDER BY topic LIMIT ?
    )
"""
"""The topics in use after one, as rows of TopicUse; all schedules and pending fires are looked at (a million: seconds)."""


def group_text(spec: ScheduleSpec) -> str | None:
    """Return the FIFO topic and group of *spec* as one text (neither holds a blank), None for a standard topic."""
    group = spec.fifo_group
    return None if group is None else " ".join(group)


def detail_text(detail: Mapping[str, Any]) -> str | None:
    """Return *detail* as the audit log keeps it."""
    return json.dumps(detail, ensure_ascii=False) if detail else None


# --- zones under a version of tzdata ------------------------------------------------------------------------------

ZONE_RECORDS: Final = """
    SELECT json_group_array(json_array(zone.name, tzdata, json(starts), json(offsets)))
    FROM json_each(?) AS wanted JOIN zone ON zone.name = wanted.value
"""

KEEP_ZONE_RECORDS: Final = """
    INSERT INTO zone (name, tzdata, starts, offsets)
    SELECT value ->> 0, value ->> 1, value -> 2, value -> 3 FROM json_each(?)
    WHERE true ON CONFLICT DO UPDATE SET tzdata = excluded.tzdata, starts = excluded.starts, offsets = excluded.offsets
"""

FORGET_ZONE_RECORDS: Final = "DELETE FROM zone WHERE tzdata <> ?"


# --- apply ------------------------------------------------------------------------------------------------------

STAGE: Final = f"""
    INSERT INTO staging (name, slot_time, slot_due, fifo_group, size, document)
    SELECT {", ".join(f"json_extract(value, '$[{place}]')" for place in range(6))} FROM json_each(?)
    WHERE true ON CONFLICT DO NOTHING
"""


def staged_slices(rows: Sequence[StagedRow]) -> Iterator[tuple[int, str]]:
    """Yield *rows* as values of STAGE, each with how many rows it holds."""
    taken: list[tuple[object, ...]] = []
    size_bytes = 0
    for row in rows:
        slot = staged_slot(row)
        spec = from_canonical(row.name, row.document) if ".fifo" in row.document else None
        size = len(row.document.encode())
        taken.append((row.name, *(slot or (None, None)), spec and group_text(spec), size, row.document))
        size_bytes += size
        if len(taken) == MOST_ROWS or size_bytes >= MOST_BYTES:
            yield len(taken), json.dumps(taken)
            taken, size_bytes = [], 0
    if taken:
        yield len(taken), json.dumps(taken)


STAGED_CHANGES: Final = _slice(
    "name, id, revision_id, (SELECT document FROM staging WHERE staging.name = part.name)",
    """
    SELECT staging.name AS name, schedule.id AS id, schedule.revision_id AS revision_id, staging.size
    FROM staging
    LEFT JOIN schedule ON schedule.name = staging.name AND removed_at IS NULL
    LEFT JOIN revision ON revision.id = schedule.revision_id
    WHERE staging.name > ? AND (revision.size IS NOT staging.size OR revision.document <> staging.document)
    """,
    "name",
)

CHOOSE_IDS: Final = """
    UPDATE staging SET schedule_id = chosen.value ->> 1, revision_id = chosen.value ->> 2
    FROM json_each(?) AS chosen WHERE name = chosen.value ->> 0
"""
"""Note the ids that staged lines shall get: of (name, id of a schedule, id of a revision)."""

UNSTAGE: Final = "DELETE FROM staging WHERE name IN (SELECT value FROM json_each(?))"

CLEAR_STAGING: Final = "DELETE FROM staging"

_OWNERS: Final = "json_object('owner', :owner, 'owner_was', nullif(owner, ''))"

_MEANT: Final = f"removed_at IS NULL AND (:shard IS NULL OR schedule.id % {SHARDS} = :shard)"
"""Living schedules, of one shard if it is given: with several, another one may bear the same name for the moment."""

OWN: Final = (
    f"""
    INSERT INTO action (schedule_id, revision_id, done_at, done_by, action, detail)
    SELECT id, revision_id, :at, :by, 'apply', {_OWNERS} FROM schedule
    WHERE {_MEANT} AND owner <> :owner AND name IN (SELECT value FROM json_each(:names)) ORDER BY id
    """,
    f"""
    UPDATE schedule SET owner = :owner
    WHERE {_MEANT} AND owner <> :owner AND name IN (SELECT value FROM json_each(:names))
    """,
)

OWNED: Final = """
    SELECT json_group_array(json_array(name, id, revision_id)) FROM (
        SELECT name, id, revision_id FROM schedule
        WHERE owner = ? AND removed_at IS NULL AND name > ? ORDER BY name LIMIT ?
    )
"""

_IDS: Final = "(SELECT value FROM json_each(:ids))"
REMOVE_MANY: Final = (
    f"INSERT OR IGNORE INTO former_name (name, schedule_id) SELECT name, id FROM schedule WHERE id IN {_IDS}",
    f"""
    INSERT INTO action (schedule_id, revision_id, done_at, done_by, action, detail)
    SELECT id, revision_id, :at, :by, 'apply', json_object('owner', :owner, 'removed', json('true'))
    FROM schedule WHERE id IN {_IDS} ORDER BY id
    """,
    f"UPDATE schedule SET removed_at = :at, effective_from = :at, changed_at = :at WHERE id IN {_IDS}",
)

_TAKEN_OVER: Final = f"""
    SELECT schedule.id AS id, schedule.revision_id AS revision_id, schedule.name AS name, owner
    FROM staging
    JOIN schedule ON schedule.name = staging.name AND {_MEANT} AND owner <> :owner
    JOIN revision ON revision.id = schedule.revision_id AND revision.size = staging.size AND revision.document = staging.document
"""

TAKEN_OVER: Final = f"SELECT json_group_array(json_array(name, id)) FROM ({_TAKEN_OVER})"
"""Of the schedules that a flip changes in nothing but their owner: (name, id)."""

FLIP: Final = (
    # Every line names its owner, also one that changes nothing else.
    f"""
    INSERT INTO action (schedule_id, revision_id, done_at, done_by, action, detail)
    SELECT id, revision_id, :at, :by, 'apply', {_OWNERS} FROM ({_TAKEN_OVER}) ORDER BY id
    """,
    f"UPDATE schedule SET owner = :owner WHERE id IN (SELECT id FROM ({_TAKEN_OVER}))",
    f"""
    DELETE FROM staging WHERE EXISTS (
        SELECT 1 FROM schedule JOIN revision ON revision.id = schedule.revision_id
        WHERE schedule.name = staging.name AND {_MEANT}
        AND revision.size = staging.size AND revision.document = staging.document
    )
    """,
    f"""
    INSERT INTO schedule (id, name, revision_id, effective_from, created_at, changed_at, owner)
    SELECT schedule_id, name, 0, :at, :at, :at, :owner FROM staging
    WHERE NOT EXISTS (SELECT 1 FROM schedule WHERE schedule.name = staging.name AND {_MEANT})
    ORDER BY name
    """,
    f"""
    INSERT INTO revision (id, schedule_id, number, name, fifo_group, made_at, made_by, action, size, document, detail)
    SELECT staging.revision_id, schedule.id, coalesce(old.number, 0) + 1, staging.name, staging.fifo_group, :at, :by, 'apply',
        staging.size, staging.document, CASE owner WHEN :owner THEN json_object('owner', :owner) ELSE {_OWNERS} END
    FROM staging JOIN schedule ON schedule.name = staging.name AND {_MEANT}
    LEFT JOIN revision AS old ON old.id = schedule.revision_id
    ORDER BY staging.name
    """,
    f"""
    UPDATE schedule SET
        revision_id = (SELECT id FROM revision WHERE schedule_id = schedule.id ORDER BY number DESC LIMIT 1), effective_from = :at, changed_at = :at, owner = :owner,
        slot_time = staging.slot_time, slot_due = staging.slot_due
    FROM staging WHERE schedule.name = staging.name AND {_MEANT}
    """,
)
"""The statements that make the staging area the truth, in order; what is left in it has changed."""
