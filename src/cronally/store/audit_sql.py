"""Listings of the audit log: what was done to schedules, from the tables ``revision`` and ``action``, newest first."""

# ruff: noqa: S608 - what is put into statements here are names of columns and question marks

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.engine.records import AuditFilter

MOST_SCANNED: Final = 2_000  # of a statement: looking at them takes SQLite some milliseconds
_MOST_BRANCHES: Final = 100  # of each table; SQLite takes 500 in all


class _Table(NamedTuple):
    """One of the two. number: its place in an ``AuditPlace``. The rest: its name and columns, and the indexes that order it."""

    number: int
    name: str
    at: str
    by: str
    of_all: str
    of_one: str


_TABLES: Final = (
    _Table(0, "revision", "made_at", "made_by", "revision_time", "revision_schedule"),
    _Table(1, "action", "done_at", "done_by", "action_time", "action_schedule"),
)
_NEWEST: Final = "ORDER BY at DESC, source DESC, id DESC"

# As engine.records.is_by has it.
_IS_BY: Final = """(
    by = text OR by = 'uid ' || text OR substr(by, 1, length(text) + 6) = 'uid ' || text || ' ('
    OR (substr(by, 1, 4) = 'uid ' AND substr(by, -length(text) - 3) = ' (' || text || ')')
)"""


def places(
    wanted: AuditFilter, schedule_ids: Sequence[int] | None, *, scanned: int
) -> tuple[str, list[object]]:
    """Return the statement that finds what *wanted* wants, of *schedule_ids* (None: of all), and its values.

    Its one value is a JSON array: how many rows were looked at (up to *scanned*), the place of the last of them, and the places of those
    wanted. The rows come by an index for what is asked of their time and schedule; who and what is then asked of each.
    """
    values: list[object] = [wanted.by and wanted.by.removeprefix("uid ")]
    branches: list[str] = []
    for table in _TABLES:
        texts, bounds = _bounds(wanted, table)
        index = table.of_all if schedule_ids is None else table.of_one
        groups = [("", [])] if schedule_ids is None else _groups(schedule_ids)
        for condition, ids in groups:
            where = " AND ".join([*texts, *([condition] if condition else [])]) or "true"
            branches.append(f"""
                SELECT * FROM (
                    SELECT {table.at} AS at, {table.number} AS source, id, {table.by} AS by, action
                    FROM {table.name} INDEXED BY {index} WHERE {where} ORDER BY {table.at} DESC, id DESC LIMIT ?
                )
            """)
            values += [*bounds, *ids, scanned]
    asked = ["true" if wanted.by is None else _IS_BY]
    if wanted.actions:
        asked.append(f"action IN ({', '.join('?' * len(wanted.actions))})")
    found = (
        " UNION ALL ".join(branches)
        or "SELECT 0 AS at, 0 AS source, 0 AS id, '' AS by, '' AS action WHERE false"
    )
    sql = f"""
        WITH who AS (SELECT ? AS text), scanned AS MATERIALIZED (SELECT * FROM ({found}) {_NEWEST} LIMIT ?)
        SELECT json_array(
            (SELECT count(*) FROM scanned),
            json((SELECT json_array(at, source, id) FROM scanned ORDER BY at, source, id LIMIT 1)),
            json((
                SELECT json_group_array(json_array(at, source, id))
                FROM (SELECT at, source, id FROM scanned, who WHERE {" AND ".join(asked)} {_NEWEST} LIMIT ?)
            ))
        )
    """
    return sql, [*values, scanned, *sorted(wanted.actions), wanted.limit]


def _bounds(wanted: AuditFilter, table: _Table) -> tuple[list[str], list[object]]:
    texts: list[str] = []
    values: list[object] = []
    if wanted.since is not None:
        texts.append(f"{table.at} >= ?")
        values.append(wanted.since)
    if wanted.until is not None:
        texts.append(f"{table.at} < ?")
        values.append(wanted.until)
    if wanted.before is not None:
        at, source, id_ = wanted.before
        if table.number == source:
            texts.append(f"({table.at}, id) < (?, ?)")
            values += [at, id_]
        else:
            texts.append(f"{table.at} {'<=' if table.number < source else '<'} ?")
            values.append(at)
    return texts, values


def _groups(schedule_ids: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Return conditions that are one branch each, so that each comes in the order of its index; many share one, which is sorted."""
    if len(schedule_ids) <= _MOST_BRANCHES:
        return [("schedule_id = ?", [id_]) for id_ in schedule_ids]
    return [(f"schedule_id IN ({', '.join('?' * len(schedule_ids))})", [*schedule_ids])]


_BEFORE: Final = """
    SELECT old.id FROM revision AS old INDEXED BY revision_schedule
    WHERE old.schedule_id = new.schedule_id AND old.number = new.number - 1
"""

ROWS: Final = f"""
    WITH found AS (
        SELECT 0 AS source, new.id AS id, made_at AS at, made_by AS by, action, number, detail, name, new.id AS after, size,
            CASE WHEN number > 1 THEN coalesce(
                ({_BEFORE} AND old.made_at <= new.made_at ORDER BY old.made_at DESC LIMIT 1),
                ({_BEFORE} LIMIT 1)
            ) END AS before
        FROM json_each(?) AS asked JOIN revision AS new ON asked.value ->> 1 = 0 AND new.id = asked.value ->> 2
        UNION ALL
        SELECT 1, action.id, done_at, done_by, action.action, number, action.detail, name, NULL, 0,
            CASE WHEN action.action = 'rm' OR action.detail ->> 'removed' THEN revision.id END
        FROM json_each(?) AS asked JOIN action ON asked.value ->> 1 = 1 AND action.id = asked.value ->> 2
        JOIN revision ON revision.id = revision_id
    )
    SELECT json_group_array(json_array(
        at, source, found.id, by, found.action, found.name, found.number, found.detail, before, after, found.size + coalesce(old.size, 0)
    )) FROM (SELECT * FROM found {_NEWEST}) AS found
    LEFT JOIN revision AS old ON old.id = before
"""
"""What is known of the changes at some places (a JSON array of them, twice), newest first: all but the revisions themselves."""
