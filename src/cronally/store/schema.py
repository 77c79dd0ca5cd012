"""The tables of the SQLite store, as numbered migrations.

1. A migration that was released is never edited; a change of the schema is a new one at the end.
2. The number of the last one applied stands in ``PRAGMA user_version``; each is applied whole or not at all.
3. Instants are UTC milliseconds, booleans 0 or 1, words those of the domain's enums.

The references between tables are declared for ``PRAGMA foreign_key_check`` and for the reader. They are not enforced:
that would cost two look-ups for each journal row.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x43524E4C  # "CRNL", in the header of every file of ours

# Keys of the table meta.
WATERMARK: Final = "watermark"
PRUNED_THROUGH: Final = "pruned_through"
CLEAN_STOP: Final = "clean_stop"
REACHED: Final = "reached"
SET_BACK_AT: Final = "set_back_at"

_FIRST = (
    # Watermark, mark of a clean stop, pruned through, reached (what the clock had shown when it was set back), set back at.
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    # A schedule keeps its row when it is removed, so that its history still answers. slot_time and slot_due are those
    # of an @at rule, else NULL.
    """
    CREATE TABLE schedule (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        revision_id INTEGER NOT NULL REFERENCES revision (id),
        effective_from INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        changed_at INTEGER NOT NULL,
        removed_at INTEGER,
        slot_time INTEGER,
        slot_due INTEGER,
        paused_since INTEGER,
        paused_until INTEGER,
        paused_by TEXT,
        pause_note TEXT,
        error TEXT,
        owner TEXT NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX schedule_living ON schedule (name) WHERE removed_at IS NULL",
    """
    CREATE INDEX schedule_single ON schedule (slot_due)
    WHERE slot_due IS NOT NULL AND paused_since IS NULL AND removed_at IS NULL
    """,
    # Names that a schedule bore before it was renamed or removed.
    """
    CREATE TABLE former_name (
        name TEXT NOT NULL,
        schedule_id INTEGER NOT NULL REFERENCES schedule (id),
        PRIMARY KEY (name, schedule_id)
    ) WITHOUT ROWID
    """,
    # Never updated. With `action`, the audit log. fifo_group is "TOPIC GROUP", NULL for a standard topic; size is the
    # length of the document, which comes last so that the rest can be read without it.
    """
    CREATE TABLE revision (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        schedule_id INTEGER NOT NULL REFERENCES schedule (id),
        number INTEGER NOT NULL,
        name TEXT NOT NULL,
        fifo_group TEXT,
        made_at INTEGER NOT NULL,
        made_by TEXT NOT NULL,
        action TEXT NOT NULL,
        size INTEGER NOT NULL,
        document TEXT NOT NULL
    )
    """,
    # What was done to a schedule without a new revision: paused, resumed, removed, run. detail is JSON or NULL.
    """
    CREATE TABLE action (
        id INTEGER PRIMARY KEY,
        schedule_id INTEGER NOT NULL REFERENCES schedule (id),
        revision_id INTEGER NOT NULL REFERENCES revision (id),
        done_at INTEGER NOT NULL,
        done_by TEXT NOT NULL,
        action TEXT NOT NULL,
        detail TEXT
    )
    """,
    # last_due is when the last slot is due, NULL where that is fire_time itself: nearly everywhere. fifo_group is the
    # revision's while the row is pending, else NULL.
    """
    CREATE TABLE journal (
        schedule_id INTEGER NOT NULL REFERENCES schedule (id),
        fire_time INTEGER NOT NULL,
        kind TEXT NOT NULL,
        revision_id INTEGER NOT NULL REFERENCES revision (id),
        due_time INTEGER NOT NULL,
        state TEXT NOT NULL,
        reason TEXT,
        attempts INTEGER NOT NULL,
        released_at INTEGER,
        published_at INTEGER,
        lateness_us INTEGER,
        maybe_published INTEGER NOT NULL,
        last_error TEXT,
        next_attempt_at INTEGER,
        last_fire_time INTEGER,
        count INTEGER NOT NULL,
        is_open INTEGER NOT NULL,
        last_due INTEGER,
        fifo_group TEXT,
        PRIMARY KEY (schedule_id, fire_time, kind)
    ) WITHOUT ROWID
    """,
    # The primary key's columns stand at the end of each of these, so they order whole pages of a listing. The last
    # five hold only the few rows that are in their state.
    "CREATE INDEX journal_time ON journal (fire_time)",
    "CREATE INDEX journal_due ON journal (last_due) WHERE last_due IS NOT NULL",
    "CREATE INDEX journal_unpublished ON journal (fire_time) WHERE state <> 'published'",
    """
    CREATE INDEX journal_pending ON journal (next_attempt_at)
    WHERE state = 'pending' AND fifo_group IS NULL
    """,
    """
    CREATE INDEX journal_pending_fifo ON journal (fifo_group, due_time, fire_time)
    WHERE state = 'pending' AND fifo_group IS NOT NULL
    """,
    "CREATE INDEX journal_pending_schedule ON journal (schedule_id, due_time) WHERE state = 'pending'",
    "CREATE TABLE run (key TEXT PRIMARY KEY, fire_id TEXT NOT NULL, asked_at INTEGER NOT NULL) WITHOUT ROWID",
    # The next fires of each distinct rule, and the tzdata version they were computed under. fires is JSON: pairs of an
    # instant and the first slot after it.
    "CREATE TABLE recurrence (key TEXT PRIMARY KEY, tzdata TEXT NOT NULL, fires TEXT NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE staging (
        name TEXT PRIMARY KEY,
        slot_time INTEGER,
        slot_due INTEGER,
        fifo_group TEXT,
        size INTEGER NOT NULL,
        document TEXT NOT NULL
    )
    """,
)

_SECOND = (
    # For counting, and for finding the few: an ordinary schedule is in none of these.
    "CREATE INDEX schedule_removed ON schedule (removed_at) WHERE removed_at IS NOT NULL",
    "CREATE INDEX schedule_paused ON schedule (paused_until) WHERE paused_since IS NOT NULL AND removed_at IS NULL",
    "CREATE INDEX schedule_failing ON schedule (id) WHERE error IS NOT NULL AND removed_at IS NULL",
    # Each zone that a rule goes by, and the tzdata version it is of. starts and offsets are JSON: those of its segments.
    # It takes the place of the next fires of each rule: a million rules, a hundred zones.
    "DROP TABLE recurrence",
    """
    CREATE TABLE zone (name TEXT PRIMARY KEY, tzdata TEXT NOT NULL, starts TEXT NOT NULL, offsets TEXT NOT NULL)
    WITHOUT ROWID
    """,
)

_THIRD = (
    # For listings by state and for the counts, both from the index alone.
    "DROP INDEX journal_unpublished",
    """
    CREATE INDEX journal_unpublished ON journal (state, fire_time, schedule_id, kind, reason, count)
    WHERE state <> 'published'
    """,
    # The rows of several slots, and the pauses that go on: they may reach into the time that a listing is about.
    "CREATE INDEX journal_range ON journal (last_fire_time) WHERE last_fire_time IS NOT NULL",
    "CREATE INDEX journal_open ON journal (fire_time) WHERE is_open",
)

_FOURTH = (
    # When a fire was asked for again by `retry`: its deadline counts from there. NULL in nearly every row.
    "ALTER TABLE journal ADD COLUMN asked_at INTEGER",
)

_FIFTH = (
    # topic and place are NULL but for pending rows in line: those go by priority (place is 9 less that), then by due time.
    # Of the FIFO topics' rows only those in line are found by their next attempt, which is their deadline.
    "ALTER TABLE journal ADD COLUMN topic TEXT",
    "ALTER TABLE journal ADD COLUMN place INTEGER",
    "CREATE INDEX journal_line ON journal (topic, place, due_time) WHERE topic IS NOT NULL",
    "DROP INDEX journal_pending",
    """
    CREATE INDEX journal_pending ON journal (next_attempt_at)
    WHERE state = 'pending' AND (fifo_group IS NULL OR topic IS NOT NULL)
    """,
)

_SIXTH = (
    # What is to be said of a change beside its revision: the pause before and after it, the owner of an apply. JSON or NULL.
    "ALTER TABLE revision ADD COLUMN detail TEXT",
    # The audit log, newest first: of all schedules, and of one.
    "CREATE INDEX revision_time ON revision (made_at)",
    "CREATE INDEX action_time ON action (done_at)",
    "CREATE INDEX revision_schedule ON revision (schedule_id, made_at)",
    "CREATE INDEX action_schedule ON action (schedule_id, done_at)",
)

_SEVENTH = (
    # The ids that a shared store has chosen for a staged line's schedule and revision; NULL where SQLite chooses them.
    "ALTER TABLE staging ADD COLUMN schedule_id INTEGER",
    "ALTER TABLE staging ADD COLUMN revision_id INTEGER",
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    _FIRST,
    _SECOND,
    _THIRD,
    _FOURTH,
    _FIFTH,
    _SIXTH,
    _SEVENTH,
)
"""The statements of each version, from 1. The version of the schema is how many there are."""
