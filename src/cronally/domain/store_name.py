"""How a store is named on the command line and in settings: ``sqlite:PATH``, or ``dynamodb:TABLE``."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

FORMS: Final = "sqlite:PATH or dynamodb:TABLE"
_TABLE: Final = re.compile(
    r"[A-Za-z0-9_.-]{3,255}", re.ASCII
)  # DynamoDB API Reference, CreateTable: TableName


class StoreName(NamedTuple):
    """Where schedules and journal are. place: a path, or the name of a table."""

    kind: Literal["sqlite", "dynamodb"]
    place: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.place}"


def parse_store_name(text: str) -> StoreName:
    """Return the store that *text* names. Errors: ValueError."""
    kind, _, place = text.partition(":")
    if kind == "sqlite" and place:
        return StoreName("sqlite", place)
    if kind != "dynamodb" or not place:
        raise ValueError(f"{text!r} names no store; write it as {FORMS}")
    if not _TABLE.fullmatch(place):
        raise ValueError(
            f"{place!r} cannot be a table's name; use 3 to 255 letters, digits, dots, dashes or underscores"
        )
    return StoreName("dynamodb", place)
