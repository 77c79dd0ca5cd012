"""The whole text of a rule: crontab fields in a dialect, nicknames, ``@every D``, ``@at T``.

Nicknames, ``@every`` and ``@at`` are read in every dialect; ``rate(D)``, ``at(T)`` and ``cron(...)`` in eventbridge alone.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from cronally.domain import spelling
from cronally.domain.dialects import DIALECTS, Dialect, parse_fields, wrong_count
from cronally.domain.durations import DAY_MS, HOUR_MS, MINUTE_MS, parse_duration
from cronally.errors import WhenError
from cronally.instants import UtcMs, parse_rfc3339

if TYPE_CHECKING:
    from cronally.domain.crontab import CrontabFields

MAX_LENGTH: Final = 1_000  # characters of a rule
MIN_PERIOD_MS: Final = 1_000
NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_CALLS: Final = {"cron", "rate", "at"}
_MS: Final = timedelta(milliseconds=1)
_WALL_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - local time is naive by nature
_BLANKS: Final = re.compile(r"[ \t]+")
_INSTANT: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d(?::\d\d(?:\.\d{3})?)?)([Zz]|[+-]\d\d:\d\d)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class EveryRule:
    """``@every D``. Attributes: period_ms: >= MIN_PERIOD_MS."""

    period_ms: int


@dataclass(frozen=True, slots=True)
class AtRule:
    """``@at T``. Attributes: utc: the instant, if T has an offset. local_ms: else the wall clock's, since 1970-01-01."""

    utc: UtcMs | None
    local_ms: int


def parse_when(text: str, *, dialect: str, name: str | None) -> CrontabFields | EveryRule | AtRule:
    """Read the text of a rule.

    Args: text: at most MAX_LENGTH characters. name: of the schedule, for ``H``.
    Errors: WhenError.
    """
    known = DIALECTS.get(dialect)
    if known is None:
        raise WhenError(
            f"there is no dialect {spelling.quote(dialect)}", hint=f"write one of {', '.join(DIALECTS)}"
        )
    if len(text) > MAX_LENGTH:
        raise WhenError(
            f"the rule has {len(text):,} characters",
            hint=f"write at most {MAX_LENGTH:,}",
            column=MAX_LENGTH + 1,
        )
    if not text.isascii() or not text.replace("\t", " ").isprintable():
        _refuse_strange(text, known)
    body = text.strip(" \t")
    if body.startswith("@"):
        return _at_form(text, body, name)
    if (
        body.endswith(")")
        and (match := re.fullmatch(r"(\w+)\((.*)\)", body)) is not None
        and match[1] in _CALLS
    ):
        return _call(match, text, known, name)
    return parse_fields(text, known, name)


def _refuse_strange(text: str, dialect: Dialect) -> None:
    at = next(
        place
        for place, char in enumerate(text)
        if not (char.isascii() and (char.isprintable() or char == "\t"))
    )
    before = _BLANKS.split((text[:at] + "x").strip(" \t"))
    is_field = not text[at].isspace() and len(before) <= len(dialect.specs) and not before[0].startswith("@")
    raise spelling.strange(text[at], at + 1, dialect.specs[len(before) - 1].name if is_field else None)


def _at_form(text: str, body: str, name: str | None) -> CrontabFields | EveryRule | AtRule:
    """Read a rule that begins with ``@``."""
    column = text.index("@") + 1
    word, *rest = _BLANKS.split(body)
    argument_column = text.index(rest[0], column - 1 + len(word)) + 1 if rest else column
    if word == "@every":
        return EveryRule(_period(" ".join(rest), argument_column))
    if word == "@at":
        return _instant(" ".join(rest), argument_column)
    if word in NICKNAMES:
        if rest:
            raise WhenError(
                f"nothing can follow {word}",
                hint=f"write {word} alone, or five fields",
                column=argument_column,
            )
        return parse_fields(NICKNAMES[word], DIALECTS["unix"], name)
    if word == "@reboot":
        raise WhenError(
            "@reboot names no time: Cronally runs on while your servers restart",
            hint="publish once at any moment with 'cronally run NAME', or write a time such as @daily",
            column=column,
        )
    lower = word.lower()
    if lower in NICKNAMES or lower in {"@every", "@at"}:
        hint = f"write {lower}, in small letters"
    elif lower in {"@minutely", "@every_minute"}:
        hint = "write * * * * * for every minute"
    elif lower.startswith("@every"):
        hint = "write @every and a duration, such as @every 90s"
    else:
        close = difflib.get_close_matches(lower[:20], [*NICKNAMES, "@every", "@at"], n=1)
        hint = (
            f"write {close[0]}" if close else f"write one of {' '.join(NICKNAMES)} @every @at, or five fields"
        )
    raise WhenError(f"{spelling.quote(word)} is not known", hint=hint, column=column)


def _period(text: str, column: int) -> int:
    """Return the milliseconds of ``1h30m``."""
    try:
        period_ms = parse_duration(text)
    except ValueError:
        reason, hint = f"{spelling.quote(text)} is not a duration", _meant_period(text)
        raise WhenError(reason, hint=hint, column=column) from None
    return _checked_period(period_ms, text, column)


def _meant_period(text: str) -> str:
    compact = text.replace(" ", "").lower()
    if re.fullmatch(r"\d{1,9}", compact):
        return f"write the unit: {compact}s, {compact}m, {compact}h or {compact}d"
    if tenths := re.fullmatch(r"(\d{1,4})\.(\d)([hm])", compact):
        small = {"h": "m", "m": "s"}[tenths[3]]
        return f"write {tenths[1]}{tenths[3]}{int(tenths[2]) * 6}{small}"
    if weeks := re.fullmatch(r"(\d{1,4})w", compact):
        return f"write {int(weeks[1]) * 7}d"
    if re.fullmatch(r"\d{1,9}ms", compact):
        return "write 1s or more"
    if compact and compact != text and re.fullmatch(r"(\d{1,6}d)?(\d{1,6}h)?(\d{1,6}m)?(\d{1,6}s)?", compact):
        return f"write {compact}"
    return "write days, hours, minutes and seconds in whole numbers, such as 90s, 5m, 1h30m or 2d"


def _checked_period(period_ms: int, text: str, column: int) -> int:
    if period_ms < MIN_PERIOD_MS:
        raise WhenError(
            f"{spelling.quote(text)} is less than a second", hint="write 1s or more", column=column
        )
    return period_ms


def _instant(text: str, column: int) -> AtRule:
    if (match := _INSTANT.fullmatch(text)) is not None:
        day, clock, offset = match.groups()
        try:
            local = datetime.fromisoformat(f"{day}T{clock}")
            utc = parse_rfc3339(f"{day}T{clock}{offset}") if offset else None
        except ValueError:  # 31 June, 25 o'clock
            pass
        else:
            return AtRule(utc, (local - _WALL_EPOCH) // _MS)
    raise WhenError(
        f"{spelling.quote(text)} is not a time", hint=f"write {_nearest_instant(text)}", column=column
    )


def _nearest_instant(text: str) -> str:
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return f"{text}T00:00, with the time of day"
    if match := re.fullmatch(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d(?::\d\d)?)", text):
        return f"{match[1]}T{match[2]}, with a T in between"
    return "a date and a time that exist, such as 2026-12-24T18:00, with or without an offset (Z, +01:00), in the years 1 to 9999"


def _call(
    match: re.Match[str], text: str, dialect: Dialect, name: str | None
) -> CrontabFields | EveryRule | AtRule:
    """Read EventBridge's ``rate(D)``, ``at(T)`` and ``cron(...)``."""
    kind, inside = match[1], match[2]
    start = text.index("(") + 1
    if dialect.name != "eventbridge":
        raise wrong_count([(match[0], text.index(kind) + 1)], dialect)
    if kind == "cron":
        return parse_fields(" " * start + inside, dialect, name)
    column = start + 1 + len(inside) - len(inside.lstrip(" \t"))
    inside = inside.strip(" \t")
    if kind == "at":
        return _instant(inside, column)
    rate = re.fullmatch(r"(\d{1,9})[ \t]+(minute|hour|day)s?", inside, re.ASCII)
    if rate is None:
        raise WhenError(
            f"{spelling.quote(inside)} is not a rate",
            hint="write rate(5 minutes), rate(1 hour) or rate(2 days); for seconds write @every 90s",
            column=column,
        )
    return EveryRule(
        _checked_period(
            int(rate[1]) * {"minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS}[rate[2]], inside, column
        )
    )
