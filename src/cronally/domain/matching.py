"""Why a rule has a slot at an instant, or has none: field by field, in local time.

Nothing here decides when a slot is; ``slots`` does. Here the same rule is read aloud for one instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.domain.describe import MONTH_NAMES, WEEKDAY_NAMES
from cronally.domain.dialects import written_fields
from cronally.domain.dst import dst_note
from cronally.domain.wall import day_matches
from cronally.domain.when import NICKNAMES
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cronally.domain.crontab import CrontabFields
    from cronally.domain.recurrence import Recurrence

_WALL_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - local time is naive by nature
_DAY_S: Final = 86_400


class FieldMatch(NamedTuple):
    """One field. name: as in WhenError. written: its text. value: that of the instant, for people."""

    name: str
    written: str
    value: str
    is_match: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a rule makes of one instant.

    Attributes: local: the wall clock there. offset_s: seconds east of UTC. is_slot: the rule has a slot there.
        fields: of a crontab rule, in the order of its dialect. needs_both: how the two day fields go together: both
        must match, or (False) either; None where one of them takes every day. reason: the answer in one sentence.
        dst: what a change of the clock did there, or None. previous, following: the slots around it, or None.
    """

    local: datetime
    offset_s: int
    is_slot: bool
    fields: tuple[FieldMatch, ...]
    needs_both: bool | None
    reason: str
    dst: str | None
    previous: UtcMs | None
    following: UtcMs | None


def match_at(rule: Recurrence, at: UtcMs) -> Match:
    """Say field by field what *rule* makes of the instant *at* (UTC ms, in the years 1 to 9999)."""
    second = at // 1000
    offset_s = rule.zone.offset_at(second)
    local = _WALL_EPOCH + timedelta(seconds=second + offset_s, milliseconds=at % 1000)
    is_slot = rule.latest_ms(UtcMs(at + 1)) == at
    fields = tuple(_fields(rule, rule.fields, local)) if rule.fields is not None else ()
    needs_both = None if rule.fields is None else _needs_both(fields, rule.fields)
    reason, dst = _reason(rule, at, fields, needs_both=needs_both, is_slot=is_slot)
    return Match(
        local=local,
        offset_s=offset_s,
        is_slot=is_slot,
        fields=fields,
        needs_both=needs_both,
        reason=reason,
        dst=dst,
        previous=rule.latest_ms(at),
        following=rule.next_ms(at),
    )


def _fields(rule: Recurrence, fields: CrontabFields, local: datetime) -> Iterator[FieldMatch]:
    body = rule.when.strip(" \t")
    dialect, text = ("unix", NICKNAMES[body]) if body in NICKNAMES else (rule.dialect, rule.when)
    written = {spec.name: word for spec, word in written_fields(text, dialect)}
    is_day, is_weekday = day_matches(fields, local.date())
    weekday = local.isoweekday() % 7
    facts = {
        "second": (f"{local.second:02d}", bool(fields.seconds >> local.second & 1)),
        "minute": (f"{local.minute:02d}", bool(fields.minutes >> local.minute & 1)),
        "hour": (f"{local.hour:02d}", bool(fields.hours >> local.hour & 1)),
        "day-of-month": (str(local.day), is_day),
        "month": (f"{local.month} ({MONTH_NAMES[local.month - 1]})", bool(fields.months >> local.month & 1)),
        "day-of-week": (WEEKDAY_NAMES[weekday], is_weekday),
        "year": (str(local.year), fields.years is None or bool(fields.years >> local.year & 1)),
    }
    for name, (value, is_match) in facts.items():
        if name in written:
            yield FieldMatch(name, written[name], value, is_match)
        elif not is_match:  # a dialect without seconds fires at second 0
            yield FieldMatch(name, "0" if name == "second" else "*", value, is_match)


def _needs_both(fields: tuple[FieldMatch, ...], crontab: CrontabFields) -> bool | None:
    days = [field.written for field in fields if field.name in ("day-of-month", "day-of-week")]
    return None if {"*", "?"} & {*days} else crontab.days_starred or crontab.weekdays_starred


def _misses(fields: tuple[FieldMatch, ...], *, needs_both: bool | None) -> list[str]:
    """Return the names of the fields because of which the local time does not match."""
    misses = [field.name for field in fields if not field.is_match]
    is_either = needs_both is False
    if is_either and len({"day-of-month", "day-of-week"} & {*misses}) == 1:
        misses = [name for name in misses if name not in ("day-of-month", "day-of-week")]
    return misses


def _reason(
    rule: Recurrence,
    at: UtcMs,
    fields: tuple[FieldMatch, ...],
    *,
    needs_both: bool | None,
    is_slot: bool,
) -> tuple[str, str | None]:
    """Return why there is a slot or none, and what a change of the clock has to do with it."""
    if rule.starts_ms is not None and at < rule.starts_ms:
        return "the rule has no slots before its start", None
    if rule.period_ms is not None:
        if is_slot:
            return "it is a multiple of the period", None
        return "it is no multiple of the period, counted from the start of the rule or else from 1970", None
    if rule.at_ms is not None:
        return ("it is the one instant of the rule" if is_slot else "the rule names another instant"), None
    if is_slot:
        note = dst_note(rule, at)
        if note is not None and note.effect in {"moved", "merged"}:
            return f"a change of the clock {note.effect} it here", note.text
        is_all = all(field.is_match for field in fields)
        reason = "every field matches" if is_all else "the time matches, and one of the two day fields does"
        return reason, None if note is None else note.text
    misses = _misses(fields, needs_both=needs_both)
    if misses:
        names = " and ".join(misses) if len(misses) < 3 else f"{', '.join(misses[:-1])} and {misses[-1]}"
        dst = _left_out(rule, at)
        return f"{names} {'do' if len(misses) > 1 else 'does'} not match", dst
    if at % 1000:
        return "it lies between two seconds, and a slot is at a whole one", None
    return (
        "every field matches, but this local time has passed before and a fixed rule fires at the first (on_repeat: first)",
        "the clock went back: this is the second time that the wall clock shows it",
    )


def _left_out(rule: Recurrence, at: UtcMs) -> str | None:
    """Return what a gap that ends at *at* left out of a rule, if it did."""
    segment = rule.zone.segment_at(at // 1000)
    if rule.times is None or segment == 0 or rule.zone.starts[segment] * 1000 != at:
        return None
    passed, begin = rule.zone.high[segment], rule.zone.local_start(segment)
    if passed >= begin or not rule.times.count(passed, begin) or begin - passed > _DAY_S * 2:
        return None
    return "the clock went forward over a local time of the rule, and it does not fire for that"
