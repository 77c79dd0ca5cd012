"""ls, show, history, status: what there is and what became of it."""

from typing import Annotated, Any, Final

import typer

from cronally.admin.wire import MAX_PAGE, Fire, Schedule, to_plain
from cronally.cli import options as o
from cronally.cli.output import err, out, out_json, warn
from cronally.errors import CronallyError, UsageError

EXAMPLES: Final = {
    "ls": """
        cronally ls
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
        """,
}


def ls_command(json: o.Json = False, socket: o.Socket = None) -> None:
    """List all schedules by name, with their next fire and how they are."""
    with o.connect(socket) as client:
        if json:
            # As they came: a thousand schedules are printed as soon as they are read.
            plain = [schedule for page in client.schedule_pages() for schedule in page["schedules"]]
            out_json({"schedules": plain})
            return
        schedules: list[Schedule] = []
        now = None
        for page in client.schedules():
            schedules += page.schedules
            now = page.now
    if not schedules:
        err("there are no schedules; make one with 'cronally add'")
        return
    from cronally.cli.render import schedules_table

    out(schedules_table(schedules, now))


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
        str | None, typer.Argument(metavar="NAME", help="Only this schedule's, also if it is removed.")
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state", metavar="STATE", help="Only these: published, pending, skipped, expired, rejected."
        ),
    ] = None,
    reason: Annotated[
        list[str] | None,
        typer.Option(
            "--reason", metavar="REASON", help="Only skipped for: catch_up, superseded, paused, dropped."
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
        int, typer.Option("--limit", min=1, max=1_000_000, help="At most so many, the newest.")
    ] = 100,
    json: o.Json = False,
    socket: o.Socket = None,
) -> None:
    """List what became of each slot, newest first: published, pending, skipped, expired or rejected, and why."""
    if name == "":
        raise UsageError("the name of the schedule is empty; leave it out for all of them")
    fires: list[Fire] = []
    before: str | None = None
    with o.connect(socket) as client:
        while len(fires) < limit:
            page = client.fires(
                schedule=name,
                state=",".join(state or []) or None,
                reason=",".join(reason or []) or None,
                since=since,
                until=until,
                before=before,
                limit=str(min(limit - len(fires), MAX_PAGE)),
            )
            fires += page.fires
            before = page.next
            if before is None:
                break
    if json:
        out_json({"fires": to_plain(fires)})
        return
    if not fires:
        err("no slots are on record for that")
        return
    from cronally.cli.render import fires_table

    out(fires_table(fires))


def status_command(json: o.Json = False, socket: o.Socket = None) -> None:
    """Show how the daemon is: ready or why not, what it holds, what is pending, how late fires were."""
    with o.connect(socket) as client:
        status = client.status()
    if json:
        out_json(to_plain(status))
        return
    from cronally.cli.render import status_text

    out(status_text(status))
