"""Day fields of other crons in ours, where a field that begins with ``*`` needs both to match."""

from __future__ import annotations

import re
from typing import Final

EITHER: Final = (
    "written {now} for {before}: here a day field that begins with * makes both day fields have to match, and {system} fires when "
    "either does"
)
_STAR_STEP: Final = re.compile(r"\*/(\d+)", re.ASCII)


def fires_on_either(fields: list[str]) -> list[str]:
    """Return five fields that fire here when either day field matches, where only a bare ``*`` gives way to the other.

    ``*/2`` in one of them becomes ``1-31/2`` (``0-6/2``) if the other is no ``*``; else the fields stay.
    """
    minute, hour, day, month, weekday = fields
    if day == "*" or weekday == "*":
        return fields
    return [minute, hour, _ranged(day, "1-31"), month, _ranged(weekday, "0-6")]


def _ranged(field: str, whole: str) -> str:
    first, comma, rest = field.partition(",")
    return _STAR_STEP.sub(rf"{whole}/\1", first) + comma + rest
