"""ls, show, history, status: what there is and what became of it."""

from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from cronally.admin.wire import Schedule, from_plain, to_plain
from cronally.cli import options as o
from cronally.cli.output import (
    FAILED,
    columns,
    err,
    note,
    out,
    out_json,
    out_json_list,
    warn,
    warn_of_missing,
)
from cronally.cli.selecting import Selection, pages
from cronally.errors import CronallyError, UsageError

EXAMPLES: Final = {
    "ls": """
        cronally ls
        cronally ls 'report-*' --tag nightly
        cronally ls --json | jq -r '.schedules[] | select(.error) | .name'
        """,
    "show": """
        cronally show nightly-report
        """,
    "history": """
        cronally history nightly-report
        cronally history --state pending,rejected,expired --since 1d
        cronally history --reason catch_up --since 1d --until 1h
        cronally history nightly-report --since 2026-11-01T00:00:00Z --until 2026-12-01T00:00:00Z --json
        """,
    "status": """
        cronally status
        cronally status --ready --quiet    # in a health check
        """,
}


_Limit = Annotated[
    int | None, typer.Option("--limit", min=1, metavar="N", help="At most so many. [default: all]")
]


def ls_command(
    names: o.Globs = None,
    tag: o.WithTag = None,
    limit: _Limit = None,
    json: o.Json = False,
    socket: o.Socket = None,
) -> None:
    """List schedules by name, with their next fire and how they are: all of them, or those selected."""
    selection = Selection(names or (), tag or ())
    with o.connect(socket) as client:
        found = _first(pages(client, selection), limit)
        if json:
            out_json_list("schedules", (schedule for page, _ in found for schedule in page))
            return
        from cronally.cli.render import Table, schedules_rows

        table = Table(("NAME", "WHEN", "TZ", "NEXT (LOCAL)", "TOPIC", "STATE"), room=columns())
        for page, now in found:
            out(table.part(schedules_rows([from_plain(Schedule, one) for one in page], now)))
    if not table.has_rows:
        note(
            "no schedule is like that; 'cronally ls' lists all"
            if selection.names or selection.tags
            else "there are no schedules; make one with 'cronally add'"
        )


def _first(
    found: Iterator[tuple[list[dict[str, Any]], str | None]], limit: int | None
) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
    """Yield pages up to *limit* schedules."""
    for page, now in found:
        if limit is not None and len(page) >= limit:
            yield page[:limit], now
            return
        yield page, now
        limit = None if limit is None else limit - len(page)


def show_command(name: o.Name, json: o.Json = False, socket: o.Socket = None) -> None:
    """Show all of one schedule: its rule in words, its message and policies, its state and its next fires."""
    with o.connect(socket) as client:
        schedule = client.schedule(name)
    if json:
        out_json(to_plain(schedule))
        return
    from cronally.cli.render import schedule_text

    out(schedule_text(schedule, _meaning(schedule)))
    warn(schedule.warnings)


def _meaning(schedule: Schedule) -> str | None:
    from cronally.domain.recurrence import Recurrence

    choices: Any = {"on_gap": schedule.on_gap, "on_repeat": schedule.on_repeat}
    try:
        rule = Recurrence.parse(
            schedule.when, tz=schedule.tz, dialect=schedule.dialect, name=schedule.name, **choices
        )
        return rule.describe()
    except CronallyError:  # made by another version; the daemon says what is wrong with it
        return None


def history_command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Only this schedule's, also if it is removed.",
            autocompletion=o.complete_name,
        ),
    ] = None,
    state: o.States = None,
    reason: Annotated[
        list[str] | None,
        typer.Option(
            "--reason",
            metavar="REASON",
            help="Only skipped for these, with commas or repeated: catch_up, superseded, paused, dropped.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="INSTANT|DURATION",
            help="What reaches into the time from there on; 2h is two hours ago.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until", metavar="INSTANT|DURATION", help="What begins before that; 2h is two hours ago."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, metavar="N", help="At most so many, the newest. [default: all]"),
    ] = None,
    json: o.Json = False,
    socket: o.Socket = None,
) -> None:
    """List what became of each slot, newest first: published, pending, skipped, expired or rejected, and why.

    --since and --until take 2026-12-24T18:00:00Z, a duration before now, or local time in the zone of your shell: 2026-12-24T18:00,
    'yesterday 9:00', 'mon noon'.
    """
    if name == "":
        raise UsageError("the name of the schedule is empty; leave it out for all of them")
    wanted = {
        "schedule": name,
        "state": ",".join(state or []) or None,
        "reason": ",".join(reason or []) or None,
        "since": o.before_now("--since", since),
        "until": o.before_now("--until", until),
    }
    with o.connect(socket) as client:
        found = client.fire_pages(limit=limit, **wanted)
        if json:
            out_json_list("fires", (to_plain(fire) for page in found for fire in page))
            warn_of_missing(client.lacks_history)
            return
        from cronally.cli.render import FIRE_HEADS, Table, fires_rows

        table = Table(FIRE_HEADS, room=columns())
        for page in found:
            out(table.part(fires_rows(page)))
    warn_of_missing(client.lacks_history)
    if not table.has_rows:
        note("no slots are on record for that")


def status_command(
    ready: Annotated[
        bool, typer.Option("--ready", help="Exit with 1 if it is not ready, for a health check.")
    ] = False,
    json: o.Json = False,
    socket: o.Socket = None,
) -> int:
    """Show how the daemon is: ready or why not, what it holds, what is pending, how late fires were."""
    with o.connect(socket) as client:
        status = client.status()
    if json:
        out_json(to_plain(status))
    else:
        from cronally.cli.render import status_text

        out(status_text(status))
    if ready and not status.is_ready:
        err(f"cronally: it is not ready: {status.not_ready_because}")
        return FAILED
    return 0
