"""audit: who changed what, and when."""

from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from cronally.admin.wire import Change, to_plain
from cronally.cli import options as o
from cronally.cli.output import columns, note, out, out_json_list
from cronally.errors import UsageError

EXAMPLES: Final = {
    "audit": """
        cronally audit nightly-report
        cronally audit --by anna --since 1d
        cronally audit --action rm,apply --since "mon 9:00" --until "mon 17:00"
        cronally audit nightly-report --json | jq '.changes[0].before'
        """,
}
_HEADS: Final = ("WHEN", "WHO", "ACTION", "SCHEDULE", "REVISION", "CHANGED")
_MOST_CHARS: Final = 60  # of a value; --json has all


def audit_command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Only this schedule's, also if it is removed or has another name now.",
            autocompletion=o.complete_name,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="INSTANT|DURATION", help="What was done from there on; 2h is two hours ago."
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until", metavar="INSTANT|DURATION", help="What was done before that; 2h is two hours ago."
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", metavar="WHO", help="Only by this user, a name or an id; cronally is the daemon itself."
        ),
    ] = None,
    action: Annotated[
        list[str] | None,
        typer.Option(
            "--action",
            metavar="ACTION",
            help="Only these, with commas or repeated: add, set, mv, rm, pause, resume, run, retry, backfill, apply, set-back.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, metavar="N", help="At most so many, the newest. [default: all]"),
    ] = None,
    json: o.Json = False,
    socket: o.Socket = None,
) -> None:
    """List what was done to schedules, newest first: when, by whom, with which command, and each key's value before and after.

    Who is the user at the other end of the socket, as the kernel knows it. An edit is a set; what 'cronally apply' did names its owner;
    a pause that ended by itself was ended by cronally. The log goes back to the first schedule: nothing of it is pruned.

    --since and --until take 2026-12-24T18:00:00Z, a duration before now, or local time in the zone of your shell: 2026-12-24T18:00,
    'yesterday 9:00', 'mon noon'.
    """
    if name == "":
        raise UsageError("the name of the schedule is empty; leave it out for all of them")
    if by == "":
        raise UsageError("--by: who is empty; name a user such as anna or 1000")
    wanted = {
        "schedule": name,
        "by": by,
        "action": ",".join(action or []) or None,
        "since": o.before_now("--since", since),
        "until": o.before_now("--until", until),
    }
    with o.connect(socket) as client:
        found = client.change_pages(limit=limit, **wanted)
        if json:
            out_json_list("changes", (to_plain(change) for page in found for change in page))
            return
        from cronally.cli.render import Table

        table = Table(_HEADS, room=columns())
        for page in found:
            out(table.part([_row(change) for change in page]))
    if not table.has_rows:
        note("no changes are on record for that")


def _row(change: Change) -> tuple[str, ...]:
    from cronally.cli.render import printable

    owner = change.detail.get("owner")
    action = f"{change.action} ({owner})" if owner else change.action
    shown = (change.at, change.by, action, change.schedule, str(change.revision))
    return (*map(printable, shown), "; ".join(_changed(change)))


def _changed(change: Change) -> Iterator[str]:
    """Yield what has changed, a few words each."""
    from cronally.cli.render import printable

    before, after = change.before, change.after
    if before is not None and after is not None:
        for key in dict.fromkeys([*before, *after]):
            old, new = before.get(key), after.get(key)
            if old != new:
                yield f"{key}: {_value(key, old)} -> {_value(key, new)}"
    elif before is not None or after is not None:
        yield "removed" if after is None else "created"
        yield from (f"{key}: {_value(key, value)}" for key, value in (after or before or {}).items())
    told = change.detail
    if told.get("drop_pending"):
        yield "pending fires dropped"
    if "fire_id" in told:
        yield printable(str(told["fire_id"]))
    if "fires" in told:
        ends = " … ".join(dict.fromkeys([str(told.get("first")), str(told.get("last"))]))
        yield printable(f"{told['fires']:,} fire{'s' * (told['fires'] != 1)}: {ends}")


def _value(key: str, value: Any) -> str:
    from cronally.cli.differences import written

    if key == "owner" and value is None:
        return "(none)"
    if key == "paused" and not value:
        return "(not paused)"
    if key == "paused" and isinstance(value, dict) and value.get("note"):
        return f"{written(key, value)}, “{written('note', value['note'], most_chars=_MOST_CHARS)}”"
    return written(key, value, most_chars=_MOST_CHARS)
