"""export: write schedules as a file that ``apply`` takes back."""

from __future__ import annotations

import io
import json as jsonlib
import sys
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cronally.admin.wire import STATE_KEYS, Schedule
from cronally.cli import options as o
from cronally.cli.files import MAX_SCHEDULES
from cronally.cli.output import err, out
from cronally.cli.selecting import Selection, pages
from cronally.errors import NoScheduleMatches, ScheduleNotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EXAMPLES: Final = {
    "export": """
        cronally export > schedules.yaml
        cronally export 'report-*' --tag nightly
        cronally export --jsonl | ssh other-host cronally apply -f -
        """,
}

_DEFAULTS: Final = {
    field.name: field.default if field.default_factory is MISSING else field.default_factory()
    for field in fields(Schedule)
    if field.name not in STATE_KEYS
} | {"tz": "UTC"}
"""Of every key of a file; those without a default are MISSING."""


def export_command(
    names: o.Globs = None,
    tag: o.WithTag = None,
    owner: Annotated[
        str | None,
        typer.Option("--owner", metavar="NAME", help="Only those that an apply of this owner made."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write one JSON document in place of YAML.")] = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Write JSON Lines, for more than 10,000 schedules.")
    ] = False,
    socket: o.Socket = None,
) -> None:
    """Write schedules as a file that 'cronally apply' takes, all of them or those selected.

    Keys that have their defaults are left out. To apply the file to the same daemon changes nothing but the owner.
    """
    if json and jsonl:
        raise UsageError("--json and --jsonl are two forms; give one")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # a file for apply is, whatever the terminal's is
    write = {(True, False): _as_json, (False, True): _as_lines}.get((json, jsonl), _as_yaml)
    with o.connect(socket) as client:
        found = (
            (schedule["name"], document_of(schedule))
            for page, _ in pages(client, Selection(names or (), tag or ()))
            for schedule in page
            if owner in (None, schedule["owner"])
        )
        count = 0
        for count, text in enumerate(write(found), start=1):  # noqa: B007 - it is needed after
            out(text)
    if count > MAX_SCHEDULES and not jsonl:
        err(
            f"a file of this form may have {MAX_SCHEDULES:,} schedules; for these write JSON Lines with --jsonl"
        )


def document_of(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a schedule (plain JSON, as ``ls --json`` has it), without the keys that have their defaults."""
    document = {
        key: schedule[key] for key, default in _DEFAULTS.items() if schedule.get(key, default) != default
    }
    pause = schedule["paused"]
    if pause:
        told = {key: pause[key] for key in ("until", "note") if pause.get(key) is not None}
        document["paused"] = told or True
    return document


def _as_yaml(found: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    head = "schedules:\n"
    for name, document in found:
        yield head + yaml_entry(name, document)
        head = ""
    if head:
        yield "schedules: {}"


def yaml_entry(name: str, document: Mapping[str, Any]) -> str:
    """Return the lines of one schedule within ``schedules:``."""
    import yaml

    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text = yaml.dump(
        {name: dict(document)}, Dumper=dumper, allow_unicode=True, sort_keys=False, width=1_000_000
    )
    return "".join(f"  {line}\n" if line else "\n" for line in text.split("\n")[:-1])


def _as_json(found: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    before = '{"schedules": {\n'
    missing: NoScheduleMatches | ScheduleNotFound | None = None
    try:
        for name, document in found:
            yield f"{before}{jsonlib.dumps(name)}: {jsonlib.dumps(document)}"
            before = ","
    except (NoScheduleMatches, ScheduleNotFound) as exc:
        missing = exc
    yield "}}" if before == "," else '{"schedules": {}}'
    if missing is not None:
        raise missing


def _as_lines(found: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    for name, document in found:
        yield jsonlib.dumps({"name": name} | document, ensure_ascii=False)
