"""Fires that somebody asks for, in SQL: which rows there are, and how they become pending again."""

# ruff: noqa: S608 - what is put into statements here are names of columns

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from cronally.store.journal_sql import LISTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


_ASKED: Final = (
    "json_extract(asked.value, '$[0]'), json_extract(asked.value, '$[1]'), json_extract(asked.value, '$[2]')"
)


_AT_KEY: Final = f"(journal.schedule_id, journal.fire_time, journal.kind) = ({_ASKED})"


COUNT_AS_ASKED: Final = f"""
    SELECT count(*) FROM json_each(?) AS asked CROSS JOIN journal ON {_AT_KEY}
    WHERE journal.state = json_extract(asked.value, '$[3]') AND journal.count = json_extract(asked.value, '$[4]')
"""
"""How many of the rows in a JSON array of (key, state, count) are there."""


COUNT_THERE: Final = f"SELECT count(*) FROM json_each(?) AS asked CROSS JOIN journal ON {_AT_KEY}"


REOPEN: Final = f"UPDATE journal SET state = 'pending' FROM json_each(?) AS asked WHERE {_AT_KEY}"
"""Lets the entries that follow in the same transaction replace these rows, as they replace pending ones."""


def keys_json(keys: Iterable[Sequence[object]]) -> str:
    """Return *keys*, each perhaps with more behind it, as the statements above take them."""
    return json.dumps([[int(key[0]), int(key[1]), str(key[2]), *key[3:]] for key in keys])  # type: ignore[call-overload]


ROWS: Final = f"""
    SELECT json_group_array(json_array(name, {LISTED})) FROM (
        SELECT revision.name AS name, journal.* FROM json_each(?) AS asked CROSS JOIN journal ON {_AT_KEY}
        JOIN revision ON revision.id = journal.revision_id
    )
"""
