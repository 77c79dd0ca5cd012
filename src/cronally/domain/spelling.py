"""What to write instead: the refusal of each thing that is not a crontab field.

Every message alone tells the user what to type. Nothing here decides what is accepted; that is ``crontab``.
"""

from __future__ import annotations

import re
import unicodedata
from calendar import monthrange
from typing import TYPE_CHECKING

from cronally.domain.fields import MONTHS
from cronally.errors import WhenError

if TYPE_CHECKING:
    from cronally.domain.crontab import CrontabFields
    from cronally.domain.fields import FieldSpec

_SHOWN = 40  # characters of the user's text in a message


def quote(text: str) -> str:
    """Return *text* for a message: quoted, on one line, in ASCII, and cut if it is long."""
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def forms(spec: FieldSpec) -> str:
    """Return how the field can be written."""
    words = f" or {spec.names[0]}-{spec.names[-1]}" if spec.names else ""
    more = {"day-of-month": ", L, LW, 15W", "day-of-week": ", friL, fri#2"}.get(spec.name, "")
    low = spec.low + 1
    return f"write values of {spec.low}-{spec.high}{words}: {low}, a range {low}-{low + 2}, a list {low},{low + 2}, a step */2, *{more}"


def _refuse(reason: str, hint: str, spec: FieldSpec, at: int) -> WhenError:
    return WhenError(reason, hint=hint, field=spec.name, column=at)


def zero_step(item: str, spec: FieldSpec, at: int) -> WhenError:
    """A step of 0: ``*/0``."""
    fixed = item.rpartition("/")[0]
    return _refuse(
        f"the step in {quote(item)} is 0",
        f"write a step of 1 or more, such as {quote(fixed + '/1')}",
        spec,
        at,
    )


def open_step(low: str, step: int, item: str, spec: FieldSpec, at: int) -> WhenError:
    """A step after a single value: ``5/15``, which crons read in three ways."""
    first = spec.values.get(low.lower(), 0)
    if first + step > spec.last:
        return _refuse(
            f"{quote(item)} has a step but no range",
            f"write {low}: the step leads out of the field",
            spec,
            at,
        )
    instead = f"{low}-{spec.word(spec.last, low)}/{step}"
    return _refuse(
        f"{quote(item)} has a step but no range",
        f"write {instead} for every {step} from {low} on, or {low} alone",
        spec,
        at,
    )


def backwards(match: re.Match[str], low: int, high: int, spec: FieldSpec, at: int) -> WhenError:
    """A range whose end lies before its start: ``22-2``, ``sat-mon``, ``nov-feb``."""
    item, low_text, high_text, step = match[0], match["low"], match["high"], int(match["step"] or 1)
    size = spec.last - spec.low + 1
    wrapped = [spec.low + (value - spec.low) % size for value in range(low, high + size + 1, step)]
    if step > 1 or (spec.is_weekday and len(wrapped) <= 4):
        instead = ",".join(spec.word(value, low_text) for value in wrapped)
    else:
        parts = [(low_text, spec.word(spec.last, low_text)), (spec.word(spec.low, high_text), high_text)]
        instead = ",".join(first if _same(first, last) else f"{first}-{last}" for first, last in parts)
    return _refuse(f"the range {quote(item)} runs backwards", f"write {instead}", spec, at)


def _same(first: str, last: str) -> bool:
    return first.lower().lstrip("0") == last.lower().lstrip("0")


def bad_value(text: str, item: str, spec: FieldSpec, at: int) -> WhenError:
    """A number out of range, or a word that is no name here."""
    if text[0].isdigit():
        hint = f"write a number from {spec.low} to {spec.high}"
        if spec.name == "hour" and int(text) == 24:
            hint += "; midnight is 0"
        elif spec.name == "minute" and int(text) == 60:
            hint += "; the full hour is 0"
        elif spec.is_weekday and spec.low == 1:
            hint += "; this dialect counts from Sunday = 1"
        elif spec.is_weekday:
            hint += "; Sunday is 0 or 7"
        return _refuse(f"{text} is out of range", hint, spec, at)
    return refusal(item, spec, at)


def bad_days_before_last(item: str, spec: FieldSpec, at: int) -> WhenError:
    """``L-0`` or ``L-31``."""
    return _refuse(
        f"{quote(item)} names no day", "write L for the last day, or L-1 to L-30 for days before it", spec, at
    )


def hash_without_name(item: str, spec: FieldSpec, at: int) -> WhenError:
    """``H`` where no schedule's name is known."""
    return _refuse(
        f"{quote(item)} is chosen by the schedule's name, and there is none here",
        f"give the name (--name NAME, in Python name=), or write a number from {spec.low} to {spec.last}",
        spec,
        at,
    )


def refusal(item: str, spec: FieldSpec, at: int) -> WhenError:
    """Any item that no form of the field matches: find out what was meant."""
    if not item:
        return _refuse(
            "an item of the list is empty",
            "write the values with one comma between two, such as 1,2",
            spec,
            at,
        )
    reason = f"{quote(item)} cannot be read"
    return _refuse(reason, _meant(item, spec) or forms(spec), spec, at)


def strange(char: str, column: int, field: str | None) -> WhenError:
    """A character that has no place in a rule: a letter that only looks like one, a control, a newline."""
    name = {"\n": "a line break", "\r": "a carriage return"}.get(char) or unicodedata.name(
        char, f"U+{ord(char):04X}"
    )
    digit = unicodedata.digit(char, None)
    if digit is not None:
        reason, hint = f"{name} is not an ASCII digit", f"write {digit}"
    elif char.isspace():
        reason, hint = (
            f"a rule cannot contain {name}",
            "separate the fields by ordinary spaces, all on one line",
        )
    else:
        reason, hint = (
            f"a rule cannot contain {name}",
            "delete it: a rule is ASCII letters, digits and * , - / # ?",
        )
    return WhenError(reason, hint=hint, field=field, column=column)


def never(fields: CrontabFields) -> WhenError:
    """A rule that no date matches: ``0 0 30 2 *``."""
    months = [month for month in range(1, 13) if fields.months >> month & 1]
    longest = max(29 if month == 2 else monthrange(2000, month)[1] for month in months)
    first = (fields.days & -fields.days).bit_length() - 1
    if first > longest:
        names = " and ".join(MONTHS[month - 1] for month in months)
        hint = (
            f"write a day up to {longest}, the most that {names} can have, or L for the last day of the month"
        )
    else:
        years = " or year" if fields.years is not None else ""
        hint = f"widen day-of-month, month, day-of-week{years} (* takes every value) until they meet on some date"
    return WhenError("no date ever matches this rule", hint=hint, field="day-of-month")


def _meant(item: str, spec: FieldSpec) -> str | None:
    """Return what to write instead, where the mistake is a known one."""
    lower = item.lower()
    if "?" in item:
        return (
            "write * here; ? stands alone in a day field only"
            if not spec.is_day
            else "write ? alone, or the values without it"
        )
    if re.fullmatch(r"\*+", item):
        return "write a single *"
    if match := re.fullmatch(r"\*-?(\d{1,4})", item):
        return f"write */{match[1]} for every {match[1]}, or {match[1]} alone"
    if match := re.fullmatch(r"\+(\w+)", item):
        extra = "; to need both day fields, start one with * (such as */1)" if spec.is_day else ""
        return f"write {match[1]}{extra}"
    if match := re.fullmatch(r"(.*?)(\d+)\.\d+", item):
        return f"write a whole number, such as {match[1]}{match[2]}"
    if re.search(r"\d{5}", item):
        return "write numbers of at most 4 digits" + f", here {spec.low} to {spec.high}"
    if re.fullmatch(r"\d+(_\d+)+", item):
        return f"write {item.replace('_', '')}"
    if match := re.fullmatch(r"(\w+)-(\w+)-(\w+)", item):
        return f"write {match[1]}-{match[3]} for the whole range, or {match[1]},{match[2]},{match[3]}"
    if match := re.fullmatch(r"(\w+)[-/]|[-/](\w+)|(\w+)--(\w+)", item):
        if match[3]:
            return f"write {match[3]}-{match[4]}"
        if item.startswith("/"):
            return f"write */{match[2]}"
        return f"write {match[1] or match[2]} alone, a range such as {spec.low}-{spec.last}, or a step such as */2"
    if item == "*/":
        return "write *, or a step such as */5"
    if item.startswith("*/"):
        return "write a whole step of 1 or more, such as */2"
    if match := re.fullmatch(r"(\d+)?~(\d+)?", item):
        low, high = match[1] or str(spec.low), match[2] or str(spec.last)
        return f"write H({low}-{high}): it chooses one value by the schedule's name and keeps it"
    if match := re.fullmatch(r"r(\(\d+-\d+\))?(/\d+)?", lower):
        return f"write H{item[1:]}: it chooses by the schedule's name and keeps its choice"
    if spec.is_day and (hint := _meant_day(lower, spec)):
        return hint
    if spec.names and lower[:1].isalpha():
        return _meant_names(item, spec) or f"the names are {' '.join(spec.names)}"
    return None


def _meant_names(item: str, spec: FieldSpec) -> str | None:
    """Full names, and the four letters people use for some: ``January``, ``Sept``, ``thur``."""
    short = re.sub(
        r"[A-Za-z]{4,}",
        lambda part: part[0][:3].lower() if part[0][:3].lower() in spec.names else part[0],
        item,
    )
    return f"write {short}" if short != item else None


def _meant_day(lower: str, spec: FieldSpec) -> str | None:
    if not spec.is_weekday:
        if match := re.fullmatch(r"w(\d{1,2})", lower):
            return f"write {match[1]}W"
        if match := re.fullmatch(r"l(\d{1,2})", lower):
            return f"write L-{match[1]} for {match[1]} days before the last day, or L for the last"
        if match := re.fullmatch(r"(\d{1,2})-l", lower):
            return f"write {match[1]}-31: months without the later days end earlier"
        if match := re.fullmatch(r"(\d{1,2})l", lower):
            return f"write L-{match[1]} for {match[1]} days before the last day; {match[1]}L belongs in day-of-week"
        if match := re.fullmatch(r"w|l-\d+w|lw-\d+", lower):
            return "write LW for the last working day, or 15W for the one nearest to the 15th"
        if "#" in lower:
            return "write it in the day-of-week field, the fifth"
        return None
    if lower == "l":
        return "write friL for the last Friday of the month, or sat for every Saturday"
    if match := re.fullmatch(r"l-?(\w{1,3})", lower):
        return f"write {match[1]}L"
    if match := re.fullmatch(r"(\w{1,3})-(\w{1,3})(l|#[1-5l])", lower):
        ends = [spec.values.get(match[1]), spec.values.get(match[2])]
        if ends[0] is not None and ends[1] is not None and ends[0] < ends[1]:
            every = range(ends[0], ends[1] + 1)
            rule = match[3].upper()
            return f"write each day: {','.join(spec.word(day, match[1]) + rule for day in every)}"
        return "write each day by itself, such as thuL,friL"
    if match := re.fullmatch(r"(\w{1,3})?#(\w*)", lower):
        return f"write the week as 1 to 5 or L (the last), such as {match[1] or 'fri'}#2"
    if "w" in lower and re.fullmatch(r"\d*w|lw|w\d*", lower):
        return "write it in the day-of-month field, such as 15W"
    return None
