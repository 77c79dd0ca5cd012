"""Crontab fields: text to sets of numbers.

This file owns the grammar of one field and the shape of the result; ``dialects`` knows how many fields there are and
in which order, ``spelling`` what to write instead of a field that is refused.

1. A set is an int: bit *v* stands for the value *v*. Days of the week count from Sunday, 0 to 6, in every dialect.
2. Only ASCII is read as a number. Python's ``int()`` takes ``1_0``, ``+5`` and Arabic digits; a crontab does not.
3. The text is never rewritten: errors count columns in what the user typed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple

from cronally.domain import spelling
from cronally.domain.fields import DAY, FieldSpec
from cronally.errors import WhenError

LAST_HASHED_DAY: Final = 28  # a plain H in day-of-month: a day that every month has

_NUMBER = r"\d{1,4}"
_VALUE = rf"(?:{_NUMBER}|[a-z]{{3}})"
_RANGE = re.compile(
    rf"(?:\*|(?P<low>{_VALUE})(?:-(?P<high>{_VALUE}))?)(?:/(?P<step>{_NUMBER}))?", re.ASCII | re.IGNORECASE
)
_HASHED = re.compile(
    rf"h(?:\((?P<low>{_NUMBER})-(?P<high>{_NUMBER})\))?(?:/(?P<step>{_NUMBER}))?", re.ASCII | re.IGNORECASE
)
_DAY_RULE = re.compile(
    rf"(?P<last>l(?:-(?P<back>{_NUMBER}))?)|(?P<lw>lw)|(?P<near>{_NUMBER})w", re.ASCII | re.IGNORECASE
)
_WEEKDAY_RULE = re.compile(rf"(?P<day>{_VALUE})(?:l|#(?P<nth>[1-5l]))", re.ASCII | re.IGNORECASE)

# How far the name's hash is shifted per field, in bits, so that `H H * * *` uses all 1,440 minutes of a day.
_HASH_SHIFT: Final = {
    "minute": 0,
    "hour": 8,
    "day-of-month": 16,
    "month": 24,
    "day-of-week": 32,
    "second": 40,
    "year": 0,
}


class DayRule(NamedTuple):
    """A day that depends on the month's shape.

    ``kind`` and what ``a`` and ``b`` mean: ``last`` (*a* days before the last), ``last-workday``, ``near`` (the working
    day nearest to day *a*), ``last-weekday`` (the last weekday *a*, 0 = Sunday), ``nth-weekday`` (the *b*-th weekday *a*).
    """

    kind: str
    a: int = 0
    b: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSet:
    """One field: ``values`` as bits, ``rules`` beside them, and whether the text begins with ``*`` (or is ``?``)."""

    values: int
    rules: tuple[DayRule, ...] = ()
    is_starred: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CrontabFields:
    """A crontab rule as sets. Equal fields match the same wall-clock times and belong to the same DST class.

    Attributes: seconds, minutes, hours, days (1-31), months (1-12), weekdays (0-6, Sunday 0): bit sets.
        years: bit set of 1970-2199, or None for every year.
        day_rules, weekday_rules: the days that depend on the month. days_starred, weekdays_starred: Vixie's star bits:
        with either set a day must match both fields, else one of them.
        is_wild: the minute or hour field begins with ``*``.
    """

    seconds: int
    minutes: int
    hours: int
    days: int
    months: int
    weekdays: int
    years: int | None = None
    day_rules: tuple[DayRule, ...] = ()
    weekday_rules: tuple[DayRule, ...] = ()
    days_starred: bool = False
    weekdays_starred: bool = False
    is_wild: bool = False
    warnings: tuple[str, ...] = field(default=(), compare=False)


@lru_cache(maxsize=1024)
def name_hash(name: str) -> int:
    """Return the number that a schedule's name stands for, 0 to 2**64 - 1: ``H``, spread and shards use it.

    It is the first 8 bytes of the SHA-256 of the name in UTF-8, big-endian, and will never change: schedules would
    move.
    """
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big")


def parse_field(text: str, spec: FieldSpec, *, column: int, name: str | None, open_steps: bool) -> FieldSet:
    """Read one field.

    Args: column: 1-based place of the field in the whole text. name: of the schedule, for ``H``; None refuses it.
        open_steps: ``a/n`` means ``a-max/n`` (Quartz, EventBridge) instead of being refused.
    Errors: WhenError with the right spelling.
    """
    if "h" in text or "H" in text:
        return _parsed(text, spec, column, name, open_steps=open_steps)
    try:
        return _shared(text, spec, open_steps=open_steps)
    except WhenError:  # once more, for the column
        return _parsed(text, spec, column, name, open_steps=open_steps)


@lru_cache(maxsize=4096)
def _shared(text: str, spec: FieldSpec, *, open_steps: bool) -> FieldSet:
    return _parsed(text, spec, 1, None, open_steps=open_steps)


def _parsed(text: str, spec: FieldSpec, column: int, name: str | None, *, open_steps: bool) -> FieldSet:
    if text == "*" or (text == "?" and spec.is_day):
        return FieldSet(values=spec.full, is_starred=True)
    known, values, at = spec.values, 0, column
    rules: list[DayRule] = []
    for item in text.split(","):
        value = known.get(item)
        if value is not None:
            values |= 1 << value
        elif (match := _RANGE.fullmatch(item)) is not None:
            values |= _range(match, item, spec, at, open_steps=open_steps)
        elif (match := _HASHED.fullmatch(item)) is not None:
            values |= _hashed(match, item, spec, at, name)
        elif (rule := _day_rule(item, spec, at)) is not None:
            rules.append(rule)
        else:
            raise spelling.refusal(item, spec, at)
        at += len(item) + 1
    return FieldSet(
        values=spec.normal(values), rules=tuple(dict.fromkeys(rules)), is_starred=text.startswith("*")
    )


def _range(match: re.Match[str], item: str, spec: FieldSpec, at: int, *, open_steps: bool) -> int:
    low_text, high_text, step_text = match["low"], match["high"], match["step"]
    step = int(step_text) if step_text else 1
    if step == 0:
        raise spelling.zero_step(item, spec, at)
    if low_text is None:
        return _steps(spec.low, spec.last, step)
    low = _number(low_text, item, spec, at)
    if high_text is not None:
        high = _number(high_text, item, spec, at)
        if spec.wraps_to_sunday:  # Debian and cronie: 5-0, fri-sun and 7-tue mean what they say
            if high == 0 and low > 0:
                high = 7
            elif low == 7 and high < 7:
                low = 0
    elif step_text is None:
        return 1 << low
    elif open_steps:
        high = spec.last
    else:
        raise spelling.open_step(low_text, step, item, spec, at)
    if low > high:
        raise spelling.backwards(match, low, high, spec, at)
    return _steps(low, high, step)


@lru_cache(maxsize=1024)
def _steps(low: int, high: int, step: int) -> int:
    if step == 1:
        return (2 << high) - (1 << low)
    return sum(1 << value for value in range(low, high + 1, step))


def _hashed(match: re.Match[str], item: str, spec: FieldSpec, at: int, name: str | None) -> int:
    if name is None:
        raise spelling.hash_without_name(item, spec, at)
    low, high, step = _hash_range(match, item, spec, at)
    share = name_hash(name) >> _HASH_SHIFT[spec.name]
    if not step:
        return 1 << (low + share % _hash_divisor(low, high, step))
    return _steps(low + share % _hash_divisor(low, high, step), high, step)


def name_shares(text: str, spec: FieldSpec) -> list[tuple[int, int]]:
    """Return a (shift, divisor) for each ``H`` in a field that ``parse_field`` accepts.

    Two names with the same ``name_hash(name) >> shift`` modulo divisor make the same set of it.
    """
    return [
        (_HASH_SHIFT[spec.name], _hash_divisor(*_hash_range(match, item, spec, 1)))
        for item in text.split(",")
        if (match := _HASHED.fullmatch(item)) is not None
    ]


def _hash_divisor(low: int, high: int, step: int) -> int:
    size = high - low + 1
    return min(step, size) if step else size


def _hash_range(match: re.Match[str], item: str, spec: FieldSpec, at: int) -> tuple[int, int, int]:
    """Return the lowest and highest value that ``H`` chooses from, and its step or 0."""
    low, high = spec.low, spec.last
    step = int(match["step"]) if match["step"] else 0
    if match["step"] and not step:
        raise spelling.zero_step(item, spec, at)
    if match["low"]:
        low, high = _number(match["low"], item, spec, at), _number(match["high"], item, spec, at)
        if low > high:
            raise spelling.backwards(match, low, high, spec, at)
    elif spec is DAY and not step:
        high = LAST_HASHED_DAY
    return low, high, step


def _day_rule(item: str, spec: FieldSpec, at: int) -> DayRule | None:
    if spec is DAY and (match := _DAY_RULE.fullmatch(item)) is not None:
        if match["near"]:
            return DayRule("near", _number(match["near"], item, spec, at))
        if match["lw"]:
            return DayRule("last-workday")
        back = int(match["back"]) if match["back"] else 0
        if match["back"] and not 1 <= back <= 30:
            raise spelling.bad_days_before_last(item, spec, at)
        return DayRule("last", back)
    if spec.is_weekday and (match := _WEEKDAY_RULE.fullmatch(item)) is not None:
        weekday = (_number(match["day"], item, spec, at) - spec.low) % 7
        nth = (match["nth"] or "l").lower()
        return DayRule("last-weekday", weekday) if nth == "l" else DayRule("nth-weekday", weekday, int(nth))
    return None


def _number(text: str, item: str, spec: FieldSpec, at: int) -> int:
    value = spec.values.get(text.lower())
    if value is None:
        value = int(text) if text[0] in "0123456789" else -1
        if not spec.low <= value <= spec.high:
            raise spelling.bad_value(text, item, spec, at)
    return value
