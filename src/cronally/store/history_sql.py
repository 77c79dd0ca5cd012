"""Listings of the journal: the statement that a filter makes, and how it finds its rows."""

# ruff: noqa: S608 - what is put into statements here are names of columns and question marks

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cronally.domain.model import State
from cronally.store.journal_sql import LISTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.engine.records import JournalFilter


_NEWEST: Final = "ORDER BY fire_time DESC, schedule_id DESC, kind DESC LIMIT ?"


_MOST_BRANCHES: Final = 100  # of a statement; SQLite takes 500


def history(
    wanted: JournalFilter, schedule_ids: Sequence[int] | None, *, reaching: bool = False
) -> tuple[str, list[object]]:
    """Return the statement that lists what *wanted* wants, of *schedule_ids* (None: of all), and its values.

    reaching: not the rows that begin at ``since`` or later, but the older ones that reach there: ranges and open rows.

    First the keys, newest first, each branch from one index as far as the limit goes; then the rows that they name.
    """
    conditions = _Conditions()
    conditions.among("schedule_id", schedule_ids)
    if wanted.since is not None:
        conditions.add(f"fire_time {'<' if reaching else '>='} ?", wanted.since)
    if wanted.until is not None:
        conditions.add("fire_time < ?", wanted.until)
    if wanted.before is not None:
        conditions.add("(fire_time, schedule_id, kind) < (?, ?, ?)", *wanted.before)
    conditions.among("reason", sorted(wanted.reasons) if wanted.reasons else None)
    states = sorted(wanted.states)
    if wanted.reasons:  # only skipped ones have one
        states = [State.SKIPPED] if State.SKIPPED in (states or State) else []
    branches: list[tuple[str, _Conditions]] = []
    if reaching:
        conditions.among("state", states or None)
        branches.append(
            (
                "INDEXED BY journal_range",
                conditions.and_("last_fire_time >= ? AND last_fire_time IS NOT NULL", wanted.since),
            )
        )
        branches.append(("INDEXED BY journal_open", conditions.and_("is_open")))
    elif wanted.reasons or (states and State.PUBLISHED not in states):
        branches += [
            ("INDEXED BY journal_unpublished", conditions.and_("state <> 'published' AND state = ?", state))
            for state in states
        ]
    else:
        conditions.among("state", states or None)
        if schedule_ids is not None and 1 < len(schedule_ids) <= _MOST_BRANCHES:
            branches += [("", conditions.and_("schedule_id = ?", id_)) for id_ in schedule_ids]
        else:
            branches.append(("", conditions))
    keys = " UNION ".join(
        f"SELECT * FROM (SELECT schedule_id, fire_time, kind FROM journal {index} WHERE {where.text} {_NEWEST})"
        for index, where in branches
    )
    sql = f"""
        SELECT json_group_array(json_array(name, {LISTED})) FROM (
            SELECT name, journal.* FROM ({keys or "SELECT * FROM journal WHERE false"} {_NEWEST}) AS found
            CROSS JOIN journal USING (schedule_id, fire_time, kind)
            CROSS JOIN revision ON revision.id = journal.revision_id
            ORDER BY fire_time DESC, journal.schedule_id DESC, kind DESC
        )
    """
    values = [value for _, where in branches for value in (*where.values, wanted.limit)]
    return sql, [*values, wanted.limit]


class _Conditions:
    """What a statement asks of a row, all of it, and the values for the question marks."""

    def __init__(self) -> None:
        self._texts: list[str] = ["true"]
        self.values: list[object] = []

    @property
    def text(self) -> str:
        return " AND ".join(self._texts)

    def add(self, condition: str, *values: object) -> None:
        self._texts.append(condition)
        self.values += values

    def among(self, column: str, values: Sequence[object] | None) -> None:
        """Ask that *column* has one of *values*; None asks nothing."""
        if values is not None:
            marks = "= ?" if len(values) == 1 else f"IN ({', '.join('?' * len(values))})"
            self.add(f"{column} {marks}", *values)

    def and_(self, condition: str, *values: object) -> _Conditions:
        """Return these and one more."""
        more = _Conditions()
        more._texts = [*self._texts, condition]
        more.values = [*self.values, *values]
        return more
