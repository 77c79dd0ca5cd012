"""What a person may not expect of a rule that is perfectly valid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cronally.domain import fields as f
from cronally.domain.describe import MONTH_NAMES, listed, members
from cronally.domain.dialects import written_fields
from cronally.domain.dst import dst_changes
from cronally.domain.wall import month_can_match

if TYPE_CHECKING:
    from cronally.domain.crontab import CrontabFields
    from cronally.domain.recurrence import Recurrence
    from cronally.instants import UtcMs

DEFAULT_YEARS: Final = 3  # how far DST changes are looked at
_YEAR_MS: Final = 366 * 86_400_000
_MAX_DATES: Final = 6  # DST changes that are told
# Fields that begin anew: how many values, in what they lie, and the unit of an even interval.
_STEPPED: Final = {
    f.SECOND.name: (60, "minute", "s"),
    f.MINUTE.name: (60, "hour", "m"),
    f.HOUR.name: (24, "day", "h"),
    f.DAY.name: (31, "month", "d"),
    f.MONTH.name: (12, "year", None),
    f.WEEKDAY.name: (7, "week", "d"),
}


@dataclass(frozen=True, slots=True)
class Lint:
    """One remark. Attributes: code: stable, ``uneven-step`` and so on. message: a sentence for the user."""

    code: str
    message: str


def lint(recurrence: Recurrence, *, now_ms: UtcMs, years: int = DEFAULT_YEARS) -> tuple[Lint, ...]:
    """Return what may surprise the owner of this rule, the gravest first.

    Codes: ``leap-day-only``, ``missing-months``, ``both-day-fields``, ``uneven-step``, ``dst``.

    Args: now_ms: DST changes are told from here on. years: for how long, >= 0.
    """
    fields = recurrence.fields
    if fields is None:
        return ()
    return (
        *_calendar(fields),
        *_both_days(fields),
        *_uneven_steps(recurrence),
        *_dst(recurrence, now_ms, years),
    )


def _calendar(fields: CrontabFields) -> list[Lint]:
    chosen = members(fields.months)
    never = [month for month in chosen if not month_can_match(fields, month)]
    if (
        len(never) == len(chosen) - 1
        and 2 in chosen
        and 2 not in never
        and not month_can_match(fields, 2, is_leap=False)
    ):
        return [Lint("leap-day-only", "it runs on 29 February alone, so in leap years only")]
    remarks = []
    if never:
        names = listed([MONTH_NAMES[month - 1] for month in never], "or")
        remarks.append(
            Lint(
                "missing-months",
                f"it never runs in {names}, which have no such day; L is the last day of each",
            )
        )
    if 2 in chosen and 2 not in never and not month_can_match(fields, 2, is_leap=False):
        remarks.append(
            Lint("missing-months", "it runs in February in leap years only; L is the last day of each month")
        )
    return remarks


def _both_days(fields: CrontabFields) -> list[Lint]:
    if fields.days_starred or fields.weekdays_starred:
        return []  # one field alone, or the AND of which parsing warns
    return [
        Lint(
            "both-day-fields",
            "both day fields are set, so it runs on days that match either of them; "
            "to need both, begin one with *, such as */1 or *,15",
        )
    ]


def _uneven_steps(recurrence: Recurrence) -> list[Lint]:
    remarks = []
    for spec, text in written_fields(recurrence.when, recurrence.dialect):
        base, _, step_text = text.partition("/")
        if (
            spec.name not in _STEPPED
            or not step_text.isdigit()
            or base.upper() not in {"*", "H", str(spec.low)}
        ):
            continue
        size, whole, unit = _STEPPED[spec.name]
        step = int(step_text)
        if step == 1 or step >= size or (size % step == 0 and spec is not f.DAY):
            continue
        if spec is f.DAY:
            where = f"the last {text} of a month and the 1st are not always {step} days apart"
        else:
            last = (size - 1) // step * step
            where = f"from {spec.low + last} to the next {spec.low} it is {size - last}, not {step}"
        instead = f"; @every {step}{unit} has even steps" if unit else ""
        remarks.append(Lint("uneven-step", f"{text} begins anew with each {whole}: {where}{instead}"))
    return remarks


def _dst(recurrence: Recurrence, now_ms: UtcMs, years: int) -> list[Lint]:
    remarks: list[Lint] = []
    if recurrence.is_wild and recurrence.fields is not None and recurrence.fields.hours == f.HOUR.full:
        return remarks  # it fires on through every change, which is what anyone expects of it
    for change in dst_changes(recurrence, now_ms, 4 * years + 4):
        if change.at_ms > now_ms + years * _YEAR_MS or len(remarks) == _MAX_DATES:
            break
        if change.effect != "none":
            remarks.append(Lint("dst", change.text))
    return remarks
