"""Journal entries in SQL: how they are written, found and read back."""

# ruff: noqa: S608 - what is put into statements here are names of columns and question marks

from __future__ import annotations

from functools import lru_cache
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final

from cronally.domain.model import Fire, JournalEntry, Kind, SkipReason, State
from cronally.domain.shards import SHARDS
from cronally.domain.spec import ScheduleSpec
from cronally.engine.records import JournalRow, PendingFire
from cronally.store.base import as_stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


MOST_ROWS: Final = (
    512  # a statement; a power of two. 512 × 21 values take SQLite ~1.5 ms, and binding them 0.3 ms
)

# To look them up in their enums takes ten times as long.
_PUBLISHED: Final = State.PUBLISHED
_SCHEDULED: Final = Kind.SCHEDULED

_KEY: Final = ("schedule_id", "fire_time", "kind")
_VALUES: Final = (
    "revision_id",
    "due_time",
    "state",
    "reason",
    "attempts",
    "released_at",
    "published_at",
    "lateness_us",
    "maybe_published",
    "last_error",
    "next_attempt_at",
    "last_fire_time",
    "count",
    "is_open",
    "asked_at",
    "last_due",
)
_TOP: Final = 9  # the most urgent priority
_ROW: Final = (
    f"({', '.join('?' * (len(_KEY) + len(_VALUES)))}, "
    # only a pending row needs the first look-up, only one in line the others
    "CASE WHEN ? THEN (SELECT fifo_group FROM revision WHERE id = ?) END, "
    "CASE WHEN ? THEN (SELECT json_extract(document, '$.topic') FROM revision WHERE id = ?) END, "
    f"CASE WHEN ? THEN (SELECT {_TOP} - coalesce(json_extract(document, '$.priority'), {ScheduleSpec._field_defaults['priority']}) "
    "FROM revision WHERE id = ?) END)"
)
# Nearly all rows: a scheduled fire that was published, its other columns being the same for all of them. A statement of
# these takes SQLite a third of the time of one with every column, and Python too.
_PLAIN: Final = (
    "schedule_id",
    "fire_time",
    "revision_id",
    "due_time",
    "attempts",
    "released_at",
    "published_at",
    "lateness_us",
    "last_due",
)
_PLAIN_ROW: Final = f"('scheduled', 'published', 0, 1, 0, {', '.join('?' * len(_PLAIN))})"
_DERIVED: Final = ("fifo_group", "topic", "place")
LISTED: Final = ", ".join((*_KEY, *_VALUES[:-1], "topic IS NOT NULL"))
# Of the last attempt there was: an entry that tells of none leaves what the row says of it.
_OF_ATTEMPT: Final = ("released_at", "lateness_us", "last_error")
_REPLACED: Final = ", ".join(
    f"{column} = coalesce(excluded.{column}, CASE WHEN excluded.state <> 'published' THEN journal.{column} END)"
    if column in _OF_ATTEMPT
    else f"{column} = excluded.{column}"
    for column in (*_VALUES, *_DERIVED)
)


# --- writing ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2 * MOST_ROWS.bit_length())
def _upsert(rows: int, *, is_plain: bool) -> str:
    columns: tuple[str, ...] = (*_KEY, *_VALUES, *_DERIVED)
    row = _ROW
    if is_plain:
        columns, row = ("kind", "state", "maybe_published", "count", "is_open", *_PLAIN), _PLAIN_ROW
    return (
        f"INSERT INTO journal ({', '.join(columns)}) VALUES {', '.join([row] * rows)} "
        f"ON CONFLICT DO UPDATE SET {_REPLACED} WHERE journal.state = 'pending'"
    )


def upserts(entries: Sequence[JournalEntry]) -> Iterator[tuple[str, list[object]]]:
    """Yield the statements that write *entries* in order, each with its values.

    A statement has a power of two of rows, so that there are few and SQLite keeps them compiled. The last entry fills up
    the last statement: writing an entry again changes nothing.
    """
    for is_plain, alike in groupby(entries, _is_plain):
        while chunk := list(islice(alike, MOST_ROWS)):
            rows = 1 << (len(chunk) - 1).bit_length()
            values: list[object] = []
            for entry in chunk:
                values += _plain_values(entry) if is_plain else _values(entry)
            values += values[-len(values) // len(chunk) :] * (rows - len(chunk))
            yield _upsert(rows, is_plain=is_plain), values


def _is_plain(entry: JournalEntry) -> bool:
    return (
        entry.state is _PUBLISHED
        and entry.kind is _SCHEDULED
        and entry.last_error is None
        and entry.last_fire_time is None
        and not entry.maybe_published
        and entry.asked_at is None
    )


def _plain_values(entry: JournalEntry) -> tuple[object, ...]:
    fire_time, due_time = entry.fire_time, entry.due_time
    return (
        entry.schedule_id,
        fire_time,
        entry.revision_id,
        due_time,
        entry.attempts,
        entry.released_at,
        entry.published_at,
        entry.lateness_us,
        None if due_time == fire_time else due_time,
    )


def _values(entry: JournalEntry) -> tuple[object, ...]:
    is_pending = entry.state is State.PENDING
    entry = as_stored(entry)
    due = entry.last_due_time
    return (
        entry.schedule_id,
        entry.fire_time,
        str(entry.kind),
        entry.revision_id,
        entry.due_time,
        str(entry.state),
        entry.reason and str(entry.reason),
        entry.attempts,
        entry.released_at,
        entry.published_at,
        entry.lateness_us,
        entry.maybe_published,
        entry.last_error and storable(entry.last_error),
        entry.next_attempt_at,
        entry.last_fire_time,
        entry.count,
        entry.is_open,
        entry.asked_at,
        None if due == entry.fire_time else due,
        is_pending,
        entry.revision_id,
        *(entry.is_in_line, entry.revision_id) * 2,
    )


def row_values(entry: JournalEntry) -> list[object]:
    """Return a row of a final entry with every column, in the order of the schema's."""
    (
        *key,
        revision_id,
        due,
        state,
        reason,
        attempts,
        released,
        published,
        lateness,
        maybe,
        error,
        _,
        last,
        count,
        is_open,
        asked,
        last_due,
    ) = _values(entry)[: len(_KEY) + len(_VALUES)]
    return [
        *key, revision_id, due, state, reason, attempts, released, published, lateness, maybe, error, None, last, count, is_open,
        last_due, None, asked, None, None,
    ]  # fmt: skip


def storable(text: str) -> str:
    """Return what SNS or the system said without what SQLite cannot give back: half surrogates and NULs."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")


FORGET_UNSENT: Final = """
    DELETE FROM journal WHERE schedule_id = ? AND fire_time = ? AND kind = ?
    AND (is_open OR (state IN ('skipped', 'expired') AND attempts = 0))
"""
"""Deletes a row that says of slots that they were not attempted: it is about to be written anew, or to be no more."""

BRING_FORWARD: Final = (
    """
    UPDATE journal SET next_attempt_at = max(due_time, :at)
    WHERE state = 'pending' AND kind = 'scheduled' AND next_attempt_at > :at AND topic IS NULL
    """,
    """
    UPDATE journal SET due_time = :at, last_due = :at
    WHERE state = 'pending' AND kind <> 'scheduled' AND due_time > :at
    """,
    """
    UPDATE journal SET next_attempt_at = :at
    WHERE state = 'pending' AND kind <> 'scheduled' AND next_attempt_at > :at AND topic IS NULL
    """,
)
"""What has a time of its own later than :at may be tried now, or once it is due; what somebody asked for was asked for by now."""

_TO_DROP: Final = """
    WHERE schedule_id = ? AND state = 'pending'
    AND (fire_time, kind) NOT IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))
"""
COUNT_TO_DROP: Final = (
    f"SELECT kind, count(*) FROM journal INDEXED BY journal_pending_schedule {_TO_DROP} GROUP BY kind"
)
TO_DROP: Final = f"""
    SELECT json_group_array(json_array('', {LISTED})) FROM (
        SELECT * FROM journal INDEXED BY journal_pending_schedule {_TO_DROP} ORDER BY fire_time LIMIT ?
    )
"""
DROP_PENDING: Final = f"""
    UPDATE journal INDEXED BY journal_pending_schedule
    SET state = 'skipped', reason = 'dropped', next_attempt_at = NULL, fifo_group = NULL, topic = NULL, place = NULL
    {_TO_DROP}
"""

# The policy is that of the older fire's revision.
_NEEDLESS: Final = """
    WHERE schedule_id = json_extract(newer.value, '$[0]') AND state = 'pending' AND kind = 'scheduled' AND asked_at IS NULL
    AND fire_time < json_extract(newer.value, '$[1]') AND due_time < json_extract(newer.value, '$[2]')
    AND (
        SELECT coalesce(json_extract(document, '$.catch_up'), 'latest') FROM revision WHERE id = journal.revision_id
    ) = 'latest'
    AND (schedule_id, fire_time) NOT IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))
"""
NEEDLESS: Final = f"""
    SELECT json_group_array(json_array('', {LISTED})) FROM (
        SELECT journal.* FROM json_each(?) AS newer CROSS JOIN journal INDEXED BY journal_pending_schedule {_NEEDLESS}
        ORDER BY fire_time LIMIT ?
    )
"""
SUPERSEDE: Final = f"""
    UPDATE journal INDEXED BY journal_pending_schedule
    SET state = 'skipped', reason = 'superseded', next_attempt_at = NULL, fifo_group = NULL, topic = NULL, place = NULL
    FROM json_each(?) AS newer
    {_NEEDLESS}
"""


def skipped(rows: Iterable[list[Any]], reason: SkipReason) -> Iterator[JournalEntry]:
    """Yield pending *rows*, as they were read, as what they are once they are skipped."""
    for row in rows:
        yield journal_row(row).entry._replace(
            state=State.SKIPPED, reason=reason, next_attempt_at=None, is_in_line=False
        )


MARK_UNCLEAN: Final = "UPDATE journal SET maybe_published = 1 WHERE state = 'pending' AND NOT maybe_published"

MARK_SHARD_UNCLEAN: Final = f"{MARK_UNCLEAN} AND schedule_id % {SHARDS} = ?"


# --- reading ----------------------------------------------------------------------------------------------------


# Ordinary rows are found by fire time, which is when they are due; the others (spread, ranges, manual) by last_due.
_BY_DUE: Final = (("fire_time", "last_due IS NULL"), ("last_due", "last_due IS NOT NULL"))
_BY_SLOT: Final = (("fire_time", "last_fire_time IS NULL"), ("last_fire_time", "last_fire_time IS NOT NULL"))


def _by_last(
    places: tuple[tuple[str, str], tuple[str, str]], select: str, conditions: str
) -> tuple[str, str]:
    """Return the statements that read rows in slices by (place, schedule id, fire time).

    places: the column which says when the last slot of a row is, or is due; and of which rows it does.
    """
    return tuple(  # type: ignore[return-value]  # two, as there are places
        f"""
        SELECT json_group_array({select.format(place=column)}) FROM (
            SELECT * FROM journal
            WHERE ({column}, schedule_id, fire_time) > (?, ?, ?) AND {condition} AND {conditions.format(place=column)}
            AND kind = 'scheduled' AND NOT is_open
            ORDER BY {column}, schedule_id, fire_time LIMIT ?
        )
        """
        for column, condition in places
    )


_SPAN: Final = "json_array({place}, schedule_id, fire_time, coalesce(last_fire_time, fire_time))"
SETTLED: Final = _by_last(_BY_DUE, _SPAN, "{place} <= ?")
SETTLED_SLOTS: Final = _by_last(_BY_SLOT, _SPAN, "{place} <= ?")
"""Slices of (place, schedule id, first slot, last slot); the place, id and first slot of the last one begin the next."""

DECIDED_BEYOND: Final = _by_last(
    _BY_DUE,
    f"json_array('', {LISTED})",
    "state <> 'published' AND attempts = 0 AND (state = 'expired' OR reason IN ('catch_up', 'paused'))",
)

ENTRIES_BEYOND: Final = f"""
    SELECT json_group_array(json_array('', {LISTED})) FROM (
        SELECT * FROM journal
        WHERE schedule_id = ? AND (fire_time > ? OR last_fire_time > ?) AND kind = 'scheduled' AND NOT is_open
        ORDER BY fire_time
    )
"""

NEWEST_SETTLED: Final = """
    SELECT max(at) FROM (
        SELECT max(fire_time) AS at FROM journal INDEXED BY journal_time
        WHERE fire_time > ?1 AND kind = 'scheduled' AND state <> 'pending' AND NOT is_open
        UNION ALL SELECT max(last_fire_time) FROM journal INDEXED BY journal_range
        WHERE last_fire_time > ?1 AND last_fire_time IS NOT NULL AND kind = 'scheduled' AND NOT is_open
        UNION ALL SELECT max(last_due) FROM journal INDEXED BY journal_due
        WHERE last_due > ?1 AND last_due IS NOT NULL AND kind = 'scheduled' AND state <> 'pending' AND NOT is_open
        AND coalesce(reason, '') NOT IN ('dropped', 'paused')
    )
"""

_PENDING: Final = "json_array(schedule_id, revision_id, fire_time, due_time, kind, attempts, maybe_published, next_attempt_at, asked_at, topic IS NOT NULL)"
_BY_ATTEMPT: Final = "state = 'pending' AND (fifo_group IS NULL OR topic IS NOT NULL)"

PENDING_DUE: Final = f"""
    SELECT json_group_array({_PENDING}) FROM (
        SELECT * FROM journal
        WHERE {_BY_ATTEMPT} AND next_attempt_at <= ?
        AND (next_attempt_at, schedule_id, fire_time, kind) > (?, ?, ?, ?)
        ORDER BY next_attempt_at, schedule_id, fire_time, kind LIMIT ?
    )
"""

NEXT_PENDING: Final = f"SELECT min(next_attempt_at) FROM journal WHERE {_BY_ATTEMPT} AND next_attempt_at > ?"

# From one line to the next by the index: a line may have half a million rows.
NEXT_LINE: Final = """
    SELECT topic, place FROM journal WHERE topic IS NOT NULL AND (topic, place) > (?, ?) ORDER BY topic, place LIMIT 1
"""

IN_LINE: Final = f"""
    SELECT json_group_array({_PENDING}) FROM (
        SELECT * FROM journal
        WHERE topic IS NOT NULL AND topic = ? AND place = ? AND (due_time, schedule_id, fire_time, kind) > (?, ?, ?, ?)
        ORDER BY due_time, schedule_id, fire_time, kind LIMIT ?
    )
"""

COUNT_LINE: Final = "SELECT count(*) FROM journal WHERE topic IS NOT NULL AND topic = ?"

_IN_GROUP: Final = "state = 'pending' AND fifo_group IS NOT NULL AND fifo_group > ? AND fifo_group < ?"

COUNT_GROUPS: Final = f"SELECT count(*) FROM journal WHERE {_IN_GROUP}"

NEXT_GROUP: Final = f"SELECT min(fifo_group) FROM journal WHERE {_IN_GROUP}"

PENDING_GROUPS: Final = f"""
    SELECT json_group_array(fifo_group) FROM (SELECT DISTINCT fifo_group FROM journal WHERE {_IN_GROUP})
"""
"""Of the groups whose text lies between two others. That of a group is ``TOPIC GROUP``; no topic and no group has a space."""

AFTER_ALL_GROUPS: Final = "~"  # greater than any of them


def groups_of(topic: str, after: str = "") -> tuple[str, str]:
    """Return the bounds of the groups of *topic* greater than *after*, for the statements about groups."""
    return f"{topic} {after}", f"{topic}!"


def place_of(priority: int) -> int:
    return _TOP - priority


def priority_of(place: int) -> int:
    return _TOP - place


GROUP_PENDING: Final = f"""
    SELECT json_group_array({_PENDING}) FROM (
        SELECT journal.* FROM journal JOIN revision ON revision.id = journal.revision_id
        WHERE state = 'pending' AND journal.fifo_group = ? AND journal.fifo_group IS NOT NULL
        ORDER BY due_time, fire_time, name, kind LIMIT ?
    )
"""


def pending_fire(row: list[Any]) -> PendingFire:
    (
        schedule_id,
        revision_id,
        fire_time,
        due_time,
        kind,
        attempts,
        maybe_published,
        next_attempt_at,
        asked_at,
        is_in_line,
    ) = row
    fire = Fire(
        schedule_id,
        revision_id,
        fire_time,
        due_time,
        Kind(kind),
        attempts,
        bool(maybe_published),
        asked_at=asked_at,
    )
    return PendingFire(fire, next_attempt_at, bool(is_in_line))


FIRE_TIMES: Final = """
    SELECT json_group_array(fire_time) FROM journal WHERE schedule_id = ? AND kind = ? AND fire_time BETWEEN ? AND ?
"""

COUNTS: Final = """
    WITH others AS MATERIALIZED (
        SELECT state, sum(count) AS slots, count(*) AS n FROM journal INDEXED BY journal_unpublished
        WHERE state <> 'published' GROUP BY state
    ), published AS (SELECT (SELECT count(*) FROM journal) - (SELECT total(n) FROM others) AS n)
    SELECT json_group_array(json_array(state, slots)) FROM (
        SELECT state, slots FROM others UNION ALL SELECT 'published', CAST(n AS INTEGER) FROM published WHERE n > 0
    )
"""
"""Slots by state. A published row is one slot, so those are what is left of all rows: to count these takes 8 ms a million."""

COUNT_PENDING: Final = """
    SELECT json_group_array(json_array('pending', slots)) FROM (
        SELECT sum(count) AS slots FROM journal INDEXED BY journal_unpublished
        WHERE state <> 'published' AND state = 'pending' HAVING count(*) > 0
    )
"""

OLDEST_PENDING: Final = "SELECT min(due_time) FROM journal WHERE state = 'pending'"

SCHEDULES_NAMED: Final = """
    SELECT id FROM schedule WHERE name = ? AND removed_at IS NULL
    UNION SELECT schedule_id FROM former_name WHERE name = ?
"""


BEARERS: Final = f"SELECT id FROM schedule WHERE id IN ({SCHEDULES_NAMED}) ORDER BY created_at DESC, id DESC"


_IS_OVER: Final = """
    state <> 'pending' AND NOT is_open
    AND max(coalesce(last_due, fire_time), coalesce(released_at, fire_time)) <= min(?1, (SELECT value FROM meta WHERE key = 'watermark'))
"""
_NEXT_OLD: Final = "journal INDEXED BY journal_time WHERE (fire_time, schedule_id, kind) > (?2, ?3, ?4)"

PRUNABLE: Final = f"""
    SELECT json_group_array(json_array(fire_time, schedule_id, kind, due, is_over)) FROM (
        SELECT fire_time, schedule_id, kind, coalesce(last_due, fire_time) AS due, {_IS_OVER} AS is_over
        FROM {_NEXT_OLD} AND fire_time <= min(?1, (SELECT value FROM meta WHERE key = 'watermark'))
        ORDER BY fire_time, schedule_id, kind LIMIT ?5
    )
"""
"""The next rows that begin at or before a bound, or the watermark if that is earlier, and whether each can go."""

RAISE_PRUNED: Final = """
    INSERT INTO meta (key, value) SELECT 'pruned_through', min(?, value) FROM meta WHERE key = 'watermark'
    ON CONFLICT DO UPDATE SET value = max(value, excluded.value)
"""

PRUNE: Final = f"""
    DELETE FROM {_NEXT_OLD} AND fire_time <= ?5 AND (fire_time, schedule_id, kind) <= (?5, ?6, ?7)
    AND {_IS_OVER} AND coalesce(last_due, fire_time) <= ?8
"""
"""Delete those of them up to a key that are due up to an instant, unless they have changed since they were found."""

SIZE: Final = """
    SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size
"""

COVERING: Final = f"""
    SELECT json_group_array(json_array(name, {LISTED})) FROM (
        SELECT revision.name AS name, part.* FROM (
            SELECT * FROM (
                SELECT * FROM journal WHERE schedule_id = ?1 AND fire_time < ?2 AND kind = 'scheduled'
                ORDER BY fire_time DESC LIMIT 1
            ) WHERE last_fire_time >= ?2 OR is_open
            UNION ALL SELECT * FROM journal WHERE schedule_id = ?1 AND fire_time = ?2
        ) AS part JOIN revision ON revision.id = part.revision_id
        ORDER BY fire_time, kind
    )
"""
"""A range never spans a slot with a row of its own, so only the scheduled row before an instant can reach it."""


def journal_row(row: list[Any]) -> JournalRow:
    name, *key, revision_id, due_time, state, reason = row[:8]
    schedule_id, fire_time, kind = key
    entry = JournalEntry(
        schedule_id=schedule_id,
        fire_time=fire_time,
        kind=Kind(kind),
        revision_id=revision_id,
        due_time=due_time,
        state=State(state),
        reason=None if reason is None else SkipReason(reason),
        attempts=row[8],
        released_at=row[9],
        published_at=row[10],
        lateness_us=row[11],
        maybe_published=bool(row[12]),
        last_error=row[13],
        next_attempt_at=row[14],
        last_fire_time=row[15],
        count=row[16],
        is_open=bool(row[17]),
        asked_at=row[18],
        is_in_line=bool(row[19]),
    )
    return JournalRow(name, entry)
