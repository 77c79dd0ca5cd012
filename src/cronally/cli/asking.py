"""why: field by field why a slot was there or not, and what became of it."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from cronally.admin.wire import to_plain
from cronally.cli import options as o
from cronally.cli.output import out, out_json

if TYPE_CHECKING:
    from cronally.admin.wire import Why

EXAMPLES: Final = {
    "why": """
        cronally why nightly-report 2026-11-23T09:00:00Z
        cronally why nightly-report 2026-11-22T09:00
        cronally why nightly-report "2026-11-22 09:00" --json
        """,
}


def why_command(
    name: o.Name,
    instant: Annotated[
        str,
        typer.Argument(
            metavar="INSTANT",
            help="2026-12-24T18:00:00Z, or local time in the schedule's zone: 2026-12-24T18:00, 'yesterday 9:00'.",
        ),
    ],
    json: o.Json = False,
    socket: o.Socket = None,
) -> None:
    """Say why a schedule has a fire at an instant or has none: each field of its rule, the clock changes, its bounds and pause, and what the journal says."""
    with o.connect(socket) as client:
        why = client.why(name, instant)
    if json:
        out_json(to_plain(why))
        return
    out(why_text(why))


def why_text(why: "Why") -> str:
    """Return what ``why`` prints."""
    from cronally.cli.render import fires_table, local_text, printable, table

    lines = [
        f"{why.name} at {local_text(why.at, why.tz)}, which is {why.at}",
        f"{why.fate}: {printable(why.text)}",
    ]
    if why.asked_as is not None:
        lines.append(why.asked_as)
    lines += ["", f"the rule {why.when!r} in {why.tz}: {why.reason}"]
    if why.fields:
        rows = [
            (f"  {one.field}", one.written, one.value, "matches" if one.is_match else "does not match")
            for one in why.fields
        ]
        lines.append(table(("  FIELD", "RULE", "INSTANT", ""), rows))
    lines += [f"  {text}" for text in (why.days, why.dst, *why.bounds) if text is not None]
    for word, slot in (("previous", why.previous), ("next", why.following)):
        lines.append(f"  {word:<9} {'-' if slot is None else f'{local_text(slot, why.tz)}  {slot}'}")
    lines += ["", fires_table(why.fires) if why.fires else "the journal has nothing on it"]
    return "\n".join(lines)
