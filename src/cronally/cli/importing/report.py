"""The report of an import: as text for people, and as plain values for ``--json``. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cronally.cli.importing.comparing import MAX_DIFFERENCES, NEXT
from cronally.cli.render import local_text, printable
from cronally.instants import format_utc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.cli.importing.comparing import Fire
    from cronally.cli.importing.planning import Item, Placed, Plan

_LABEL: Final = "  {:<11}{}"
_MESSAGE_CHARS: Final = 100


def report_text(plan: Plan, sources: Sequence[Placed], *, system: str, general: Sequence[str]) -> str:
    """Return the whole report. system: the name of what the schedules come from. general: what is different for all."""
    blocks = []
    if plan.items:
        blocks.append(
            "\n".join([f"different from {system}, for all of them", *(f"  - {text}" for text in general)])
        )
    remarks = [f"{place}:{line}: {text}" for place, findings in sources for line, text in findings.remarks]
    if remarks:
        blocks.append("\n".join(printable(line) for line in remarks))
    blocks += [_item_text(item, system) for item in plan.items]
    if plan.refused:
        lines = ["cannot be imported"]
        for place, (line, source, reason) in plan.refused:
            lines += [f"  {place}:{line}: {printable(source)}", f"    {printable(reason)}"]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _item_text(item: Item, system: str) -> str:
    spec = item.spec
    about: list[tuple[str, str]] = [
        ("from", f"{item.place}:{item.found.line}: {item.found.source}"),
        ("rule", f"{' '.join(spec.when.split())} in {spec.tz}"),
        ("message", _cut(spec.message or "(the default: schedule, fire_time, fire_id)")),
    ]
    about += [("attribute", f"{one.name}={one.value}") for one in spec.attributes]
    about.append(("topic", item.document.get("topic", "(not named; --topic ARN)")))
    keys = ("deadline", "spread", "group", "on_gap", "on_repeat", "starts", "ends", "tags")
    for key in keys:
        if key in item.document:
            value = item.document[key]
            about.append((key.replace("_", "-"), " ".join(value) if isinstance(value, list) else str(value)))
    if item.document.get("paused"):
        about.append(("paused", "yes"))
    about += [("DIFFERS", text) for text in item.differs]
    about += [("note", text) for text in item.remarks]
    lines = [item.name, *(_LABEL.format(label, printable(text)) for label, text in about)]
    for number, fire in enumerate(item.comparison.next_fires):
        lines.append(_LABEL.format("next" if number == 0 else "", _fire_text(fire, item, system)))
    later = item.comparison.later
    for number, fire in enumerate(later[:MAX_DIFFERENCES]):
        lines.append(_LABEL.format("later" if number == 0 else "", _fire_text(fire, item, system)))
    if len(later) > MAX_DIFFERENCES:
        lines.append(_LABEL.format("", "and more in the year to come"))
    return "\n".join(lines)


def _fire_text(fire: Fire, item: Item, system: str) -> str:
    at = format_utc(fire.at)
    whose = "as before"
    if item.found.old is None or item.comparison.failure is not None:
        whose = ""
    elif not fire.is_old:
        whose = f"<- NEW: Cronally fires, {system} did not"
    elif not fire.is_ours:
        whose = f"<- GONE: {system} fired, Cronally does not"
    return f"{local_text(at, item.spec.tz)}  {at}  {whose}".rstrip()


def _cut(text: str) -> str:
    return text if len(text) <= _MESSAGE_CHARS else f"{text[:_MESSAGE_CHARS]}…"


def report_plain(
    plan: Plan, sources: Sequence[Placed], *, system: str, general: Sequence[str]
) -> dict[str, Any]:
    """Return the whole report as JSON values; instants as RFC 3339 UTC."""
    return {
        "system": system,
        "differs": list(general),
        "remarks": [
            {"file": place, "line": line, "text": text}
            for place, findings in sources
            for line, text in findings.remarks
        ],
        "schedules": [_item_plain(item) for item in plan.items],
        "refused": [
            {"file": place, "line": line, "source": source, "reason": reason}
            for place, (line, source, reason) in plan.refused
        ],
    }


def _item_plain(item: Item) -> dict[str, Any]:
    comparison = item.comparison
    has_old = item.found.old is not None and comparison.failure is None
    return {
        "name": item.name,
        "file": item.place,
        "line": item.found.line,
        "source": item.found.source,
        "document": item.document,
        "differs": list(item.differs),
        "remarks": list(item.remarks),
        "next_fires": [format_utc(fire.at) for fire in comparison.next_fires if fire.is_ours][:NEXT],
        "old_next_fires": [format_utc(fire.at) for fire in comparison.next_fires if fire.is_old][:NEXT]
        if has_old
        else None,
        "fires_that_differ": [
            {"at": format_utc(fire.at), "fires": "cronally" if fire.is_ours else "old"}
            for fire in (*comparison.next_fires, *comparison.later)
            if fire.is_ours != fire.is_old
        ]
        if has_old
        else None,
        "old_by": item.found.old.by if item.found.old is not None and has_old else None,
        "is_whole_year": comparison.is_whole,
    }
