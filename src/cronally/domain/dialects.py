"""The fields of a crontab in three dialects: how many, in which order, and what to say if there are others.

=============  ==============================================  ===========
dialect        fields, in order                                Sunday
=============  ==============================================  ===========
unix           minute hour day month weekday                   0 or 7
quartz         second minute hour day month weekday [year]     1
eventbridge    minute hour day month weekday year              1
=============  ==============================================  ===========

In quartz and eventbridge ``a/n`` means ``a-max/n`` and exactly one day field is ``?``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cronally.domain import fields as f
from cronally.domain.crontab import CrontabFields, FieldSet, parse_field
from cronally.errors import WhenError

_EXAMPLE: Final = {"unix": "0 9 * * 1-5", "quartz": "0 0 9 ? * MON-FRI", "eventbridge": "0 9 ? * MON-FRI *"}
_WORD: Final = re.compile(r"[^ \t]+")
_FIELD_LIKE: Final = re.compile(
    rf"(?:[\d*?#,/()LWH-]|{'|'.join(f.MONTHS + f.WEEKDAYS)})+", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """Attributes: specs: the fields in order. optional: how many of the last may be left out. is_unix: crontab(5)."""

    name: str
    specs: tuple[f.FieldSpec, ...]
    optional: int = 0

    @property
    def is_unix(self) -> bool:
        return self.name == "unix"

    @property
    def order(self) -> str:
        """The names of the fields in order, the optional ones in brackets."""
        names = [spec.name for spec in self.specs]
        needed = len(names) - self.optional
        return " ".join([*names[:needed], *(f"[{name}]" for name in names[needed:])])


DIALECTS: Final = {
    dialect.name: dialect
    for dialect in (
        Dialect(name="unix", specs=(f.MINUTE, f.HOUR, f.DAY, f.MONTH, f.WEEKDAY)),
        Dialect(
            name="quartz",
            specs=(f.SECOND, f.MINUTE, f.HOUR, f.DAY, f.MONTH, f.WEEKDAY_FROM_1, f.YEAR),
            optional=1,
        ),
        Dialect(name="eventbridge", specs=(f.MINUTE, f.HOUR, f.DAY, f.MONTH, f.WEEKDAY_FROM_1, f.YEAR)),
    )
}


def written_fields(text: str, dialect: str) -> list[tuple[f.FieldSpec, str]]:
    """Return the fields of a crontab rule as the user wrote them; none for the forms with ``@`` and ``rate``, ``at``.

    Args: text: a rule that ``parse_when`` accepts.
    """
    inside = re.fullmatch(r"[ \t]*cron\((.*)\)[ \t]*", text)
    words = _WORD.findall(inside[1] if inside else text)
    specs = DIALECTS[dialect].specs
    return (
        list(zip(specs, words, strict=False)) if len(words) >= len(specs) - DIALECTS[dialect].optional else []
    )


def parse_fields(text: str, dialect: Dialect, name: str | None) -> CrontabFields:
    """Read the fields of a crontab rule, printable ASCII and blanks.

    Args: name: of the schedule, for ``H``.
    Errors: WhenError.
    """
    parts = [(match.group(), match.start() + 1) for match in _WORD.finditer(text)]
    specs = dialect.specs
    if not len(specs) - dialect.optional <= len(parts) <= len(specs):
        raise wrong_count(parts, dialect)
    found = {
        spec.name: parse_field(part, spec, column=column, name=name, open_steps=not dialect.is_unix)
        for (part, column), spec in zip(parts, specs, strict=False)
    }
    if not dialect.is_unix:
        _need_one_question_mark(parts, dialect)
    second, year = found.get("second"), found.get("year")
    minute, hour, day, weekday = (found[key] for key in ("minute", "hour", "day-of-month", "day-of-week"))
    return CrontabFields(
        seconds=second.values if second else 1,
        minutes=minute.values,
        hours=hour.values,
        days=day.values,
        months=found["month"].values,
        weekdays=weekday.values,
        years=None if year is None or year.values == f.YEAR.full else year.values,
        day_rules=day.rules,
        weekday_rules=weekday.rules,
        days_starred=day.is_starred,
        weekdays_starred=weekday.is_starred,
        is_wild=minute.is_starred or hour.is_starred,
        warnings=(*_wide_steps(parts, dialect), *_star_and(day, weekday)),
    )


def _need_one_question_mark(parts: list[tuple[str, int]], dialect: Dialect) -> None:
    places = [place for place, spec in enumerate(dialect.specs) if spec.is_day]
    marks = [parts[place][0] == "?" for place in places]
    if sum(marks) == 1:
        return
    texts = [part for part, _ in parts]
    is_weekly = texts[places[0]] in {"*", "?"} and texts[places[1]] not in {"*", "?"}
    change, keep = places if is_weekly else places[::-1]
    texts[change] = "?"
    texts[keep] = "*" if texts[keep] == "?" else texts[keep]
    raise WhenError(
        f"{dialect.name} needs ? in exactly one of the two day fields",
        hint=f"write {' '.join(texts)}",
        field=dialect.specs[change].name,
        column=parts[change][1],
    )


def _wide_steps(parts: list[tuple[str, int]], dialect: Dialect) -> list[str]:
    warnings = []
    for (part, _), spec in zip(parts, dialect.specs, strict=False):
        if "/" not in part:
            continue
        for item in part.split(","):
            base, _, step = item.partition("/")
            if step and int(step) > spec.last - spec.low and base[:1] not in "Hh":
                first = spec.word(spec.low) if base == "*" else base.partition("-")[0]
                warnings.append(
                    f"the step of {item} is wider than the {spec.name} field: it means {first} alone"
                )
    return warnings


def _star_and(day: FieldSet, weekday: FieldSet) -> list[str]:
    """Warn where Vixie's rule needs both day fields and a reader may expect either."""
    if day.values == f.DAY.full or weekday.values == f.WEEKDAY.full:
        return []
    for field, spec, instead in ((day, f.DAY, "1-31/2"), (weekday, f.WEEKDAY, "0-6/2")):
        if field.is_starred:
            rule = f"the {spec.name} field begins with *, so a day must match both day fields (as in Debian and cronie)"
            return [f"{rule}; to run when either matches, write a range instead of the *, such as {instead}"]
    return []


def wrong_count(parts: list[tuple[str, int]], dialect: Dialect) -> WhenError:
    """Return the refusal of a text with too few or too many fields.

    Args: parts: its words, each with its column.
    """
    words = [part for part, _ in parts]
    count, needed = len(words), len(dialect.specs)
    if not words:
        return WhenError("the rule is empty", hint=f"write one, such as {_EXAMPLE[dialect.name]}")
    if words[0].startswith("#"):
        return WhenError(
            "this is a comment",
            hint=f"write the rule alone, such as {_EXAMPLE[dialect.name]}",
            column=parts[0][1],
        )
    if match := re.match(r"(?:CRON_)?TZ=(\S*)", words[0]):
        rest = " ".join(words[1:])
        return WhenError(
            "the time zone is no part of the rule",
            hint=f"write {rest or _EXAMPLE[dialect.name]} and give the zone apart (--tz {match[1]}, in Python tz=)",
            column=parts[0][1],
        )
    if dialect.is_unix and count > needed:
        return _too_many(words, parts[needed][1])
    if count > needed:
        return WhenError(
            f"the rule has {count} fields and {dialect.name} has {needed}",
            hint=f"write {dialect.order}",
            column=parts[needed][1],
        )
    if match := re.match(r"(\w+)\(", words[0]):
        hint = {
            "rate": "write @every and a duration, such as @every 5m, or keep it and choose --dialect eventbridge",
            "at": "write @at and a time, such as @at 2026-12-24T18:00, or keep it and choose --dialect eventbridge",
            "cron": "write the five fields alone, such as 0 9 * * 1-5, or keep it and choose --dialect eventbridge",
        }.get(match[1])
        if hint is not None:
            return WhenError(f"{match[1]}(...) is EventBridge's", hint=hint, column=parts[0][1])
    return WhenError(
        f"the rule has {count} field{'s' * (count != 1)} and {dialect.name} has {needed - dialect.optional}",
        hint=f"write {dialect.order}, such as {_EXAMPLE[dialect.name]}",
    )


def _too_many(words: list[str], column: int) -> WhenError:
    """Six or seven fields: the sixth is seconds to some, a year to others, so neither is guessed."""
    shown = [word[:20] for word in words[:7]]
    count = len(words)
    if count > 7 or not all(map(_FIELD_LIKE.fullmatch, words)):  # most likely a crontab line with its command
        return WhenError(
            f"the rule has {count} fields and unix has 5",
            hint=f"write {DIALECTS['unix'].order} and nothing after them, such as {' '.join(shown[:5])}",
            column=column,
        )
    quartz = _reading(shown, DIALECTS["quartz"])
    if count == 7:
        readings = f"in Quartz they are {quartz} (--dialect quartz); EventBridge (--dialect eventbridge) has 6, no second"
    else:
        eventbridge = _reading(shown, DIALECTS["eventbridge"])
        readings = f"in Quartz they are {quartz} (--dialect quartz); in EventBridge {eventbridge} (--dialect eventbridge)"
    return WhenError(
        f"the rule has {count} fields and unix has 5; {readings}",
        hint=f"name the dialect you mean, or write five fields: {' '.join(shown[1:6])} if the first is the second, "
        f"{' '.join(shown[:5])} if the last is the year"
        if count == 6
        else f"name the dialect, or write five fields: {' '.join(shown[1:6])}",
        column=column,
    )


def _reading(words: list[str], dialect: Dialect) -> str:
    return " ".join(f"{spec.name}={word}" for spec, word in zip(dialect.specs, words, strict=False))
