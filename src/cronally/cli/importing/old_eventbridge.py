"""EventBridge's expressions for an independent reader: croniter for ``cron()``, arithmetic for the others."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Final

from cronally.cli.importing.old_rules import OldCrontab, OldInstant, OldInterval

if TYPE_CHECKING:
    from cronally.cli.importing.old_rules import OldRule
    from cronally.instants import UtcMs

_RATE: Final = re.compile(r"rate\(\s*(\d{1,9})\s+(minute|hour|day)s?\s*\)", re.ASCII)
_AT: Final = re.compile(r"at\(\s*(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?)\s*\)", re.ASCII)
_CRON: Final = re.compile(r"cron\((.*)\)")
_UNIT_MS: Final = {"minute": 60_000, "hour": 3_600_000, "day": 86_400_000}
_LAST: Final = (59, 23, 31, 12, 7)
_NUMBER: Final = re.compile(r"(?<![/#\d])\d+", re.ASCII)
_YEAR: Final = re.compile(r"(\*|\d{4})(?:-(\d{4}))?(?:/(\d+))?", re.ASCII)
_FIRST_YEAR, _LAST_YEAR = 1970, 2199


def old_rule(
    expression: str, tz: str, *, starts: UtcMs | None, created: UtcMs | None
) -> tuple[OldRule | None, str | None]:
    """Return the instants of an expression, or why they cannot be computed apart from our own rules.

    Args: starts: the StartDate, if there is one. created: the CreationDate, from which ``rate()`` counts without it.
    """
    if (rate := _RATE.fullmatch(expression)) is not None:
        anchor = created if starts is None else starts
        period_ms = int(rate[1]) * _UNIT_MS[rate[2]]
        if anchor is None or not period_ms:
            return None, "what it says does not tell when it was created"
        return OldInterval(period_ms=period_ms, anchor_ms=anchor), None
    if (at := _AT.fullmatch(expression)) is not None:
        try:
            return OldInstant(local=datetime.fromisoformat(at[1]), tz=tz), None
        except ValueError:
            return None, "it is no date"
    cron = _CRON.fullmatch(expression)
    fields = cron[1].split() if cron else []
    if len(fields) != 6:
        return None, "it is none of cron(), rate() and at()"
    if re.search(r"\dW|LW|L-", fields[2], re.IGNORECASE):
        return None, "croniter does not read W and L-n as EventBridge does"
    years = _years(fields[5])
    if not years:
        return None, "its years cannot be read"
    old = OldCrontab(
        text=" ".join(_for_croniter(fields[:5])),
        tz=tz,
        clock="once",
        years=None if fields[5] == "*" else years,
    )
    failure = old.check()
    return (old, None) if failure is None else (None, f"croniter cannot read it ({failure})")


def _for_croniter(fields: list[str]) -> list[str]:
    """Return the first five fields as croniter reads them: Sunday 0, ``L5`` for ``6L``, ``a-max/n`` for ``a/n``."""
    written = []
    for place, (field, last) in enumerate(zip(fields, _LAST, strict=True)):
        items = []
        for item in field.split(","):
            base, slash, step = item.partition("/")
            text = f"{base}-{last}/{step}" if slash and re.fullmatch(r"\w+", base) else item.replace("?", "*")
            if place == 4:
                text = _NUMBER.sub(lambda match: str(int(match[0]) - 1), text)
                text = "sat" if text.upper() == "L" else re.sub(r"(\w+)L", r"L\1", text, flags=re.IGNORECASE)
            items.append(text)
        written.append(",".join(items))
    return written


def _years(field: str) -> frozenset[int]:
    years: set[int] = set()
    for item in field.split(","):
        match = _YEAR.fullmatch(item)
        if match is None or match[3] == "0":
            return frozenset()
        first = _FIRST_YEAR if match[1] == "*" else int(match[1])
        last = int(match[2]) if match[2] else _LAST_YEAR if match[1] == "*" or match[3] else first
        years |= set(range(first, last + 1, int(match[3] or 1)))
    return frozenset(years)
