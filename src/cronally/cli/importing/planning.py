"""What an import comes to: names, whole documents, each checked as the daemon will, and old and new fires compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cronally.cli.importing.comparing import Comparison, compare
from cronally.cli.importing.found import Refusal
from cronally.cli.importing.naming import Names, legal_name
from cronally.domain.spec import ScheduleSpec, from_document
from cronally.errors import UsageError
from cronally.instants import UtcMs, format_utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cronally.cli.importing.found import Findings, Found

_ANY_TOPIC: Final = "arn:aws:sns:us-east-1:123456789012:any"  # stands in for one that is not named yet
# What keeps the old system's way with local times that do not exist or come twice, in rules with fixed times.
_DST: Final = {
    "fixed": {},
    "instants": {"on_gap": "skip", "on_repeat": "both"},
    "once": {"on_gap": "skip"},
}


class Placed(NamedTuple):
    """What one file holds. place: its name, for people."""

    place: str
    findings: Findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the command line says of all schedules. topic: for those whose source has none. keeps_dst: see ``_DST``."""

    topic: str | None = None
    prefix: str = ""
    tags: tuple[str, ...] = ()
    keeps_dst: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A schedule to be made. Attributes: document: with its topic, if there is one. spec: the same, checked."""

    place: str
    found: Found
    name: str
    document: dict[str, Any]
    spec: ScheduleSpec
    comparison: Comparison
    differs: tuple[str, ...]
    remarks: tuple[str, ...]


class Refused(NamedTuple):
    """What cannot be imported, and its file."""

    place: str
    refusal: Refusal


class Plan(NamedTuple):
    """All of it, in the order of the sources."""

    items: list[Item]
    refused: list[Refused]


def plan(sources: Sequence[Placed], choices: Choices, now: UtcMs) -> Plan:
    """Return what the sources come to as of *now*. Errors: UsageError if a choice is wrong for all of them."""
    names = Names()
    items: list[Item] = []
    refused: list[Refused] = []
    for place, findings in sources:
        refused += [Refused(place, refusal) for refusal in findings.refusals]
        for found in findings.found:
            name = names.next(choices.prefix + found.name)
            try:
                items.append(_item(place, found, name, choices, now))
            except UsageError as exc:
                refused.append(Refused(place, Refusal(found.line, found.source, str(exc))))
    refused.sort(key=lambda one: _order(sources, one))
    return Plan(items, refused)


def _order(sources: Iterable[Placed], one: Refused) -> tuple[int, int]:
    places = [source.place for source in sources]
    return places.index(one.place), one.refusal.line


def _item(place: str, found: Found, name: str, choices: Choices, now: UtcMs) -> Item:
    document = dict(found.document)
    if "topic" not in document and choices.topic is not None:
        document["topic"] = choices.topic
    if choices.tags:
        document["tags"] = [*document.get("tags", ()), *choices.tags]
    if choices.keeps_dst:
        document |= _DST[getattr(found.old, "clock", "fixed")]
    spec = from_document(name, {"topic": _ANY_TOPIC} | document)
    rule = spec.recurrence()
    start = now if spec.starts is None else UtcMs(max(now, spec.starts - 1))
    comparison = compare(rule, found.old, start, spec.ends)
    if not any(fire.is_ours for fire in comparison.next_fires):
        last = (
            f"its end, {format_utc(spec.ends)}, is past"
            if spec.ends is not None and spec.ends <= now
            else "its time is past"
        )
        raise UsageError(f"it never fires again: {last}; leave it out")
    remarks = [*found.remarks, *rule.warnings]
    if name != choices.prefix + found.name:
        why = (
            "another one has that name"
            if name != legal_name(choices.prefix + found.name)
            else "a name has letters, digits, . _ - only"
        )
        remarks.append(f"called {name}, not {choices.prefix + found.name}: {why}")
    why_no_old = found.why_no_old or comparison.failure
    if why_no_old is not None:
        remarks.append(f"its fires under the old rule are not shown: {why_no_old}")
    return Item(
        place=place,
        found=found,
        name=name,
        document=document,
        spec=spec,
        comparison=comparison,
        differs=found.differs,
        remarks=tuple(remarks),
    )
