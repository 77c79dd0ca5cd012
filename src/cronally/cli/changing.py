"""add, set, rm, pause, resume."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

import typer

from cronally.admin.client import Client
from cronally.admin.wire import ManyReply, PutReply, Schedule, error_from_plain, from_plain, to_plain
from cronally.cli import options as o
from cronally.cli.documents import document_from_options, merged, read_bounds
from cronally.cli.output import FAILED, agreed, check_terminal, err, out, out_json, print_put, report
from cronally.cli.progress import Progress
from cronally.cli.selecting import Selection, names_of
from cronally.errors import AdminError, CronallyError, RevisionConflict, UsageError

EXAMPLES: Final = {
    "add": """
        cronally add nightly-report "0 9 * * mon-fri" --tz Europe/London \\
            --topic arn:aws:sns:us-east-1:123456789012:reports --message '{"report": "nightly"}'
        cronally add heartbeat "@every 90s" --topic arn:aws:sns:us-east-1:123456789012:beats
        cronally add launch "@at 2026-12-24T18:00" --tz America/New_York \\
            --topic arn:aws:sns:us-east-1:123456789012:launches --message @launch.json
        """,
    "set": """
        cronally set nightly-report --when "30 8 * * mon-fri"
        cronally set nightly-report --deadline 1h --attribute team=reports
        cronally set nightly-report --unset deadline --attribute team=
        """,
    "rm": """
        cronally rm nightly-report
        cronally rm old-1 old-2 --drop-pending
        cronally rm 'trial-*' --tag 2025
        """,
    "pause": """
        cronally pause nightly-report --until 2h --note "database upgrade"
        cronally pause nightly-report --until "tomorrow 9:00"
        cronally pause --tag reports --until 30m
        """,
    "resume": """
        cronally resume nightly-report
        cronally resume --tag reports
        """,
}

When = Annotated[
    str,
    typer.Argument(
        metavar="WHEN",
        help="The rule, in quotes: '0 9 * * mon-fri', '@daily', '@every 90s' or '@at 2026-12-24T18:00'.",
    ),
]


def add_command(
    ctx: typer.Context,
    name: o.Name,
    when: When,
    topic: o.Topic = None,
    tz: o.Tz = None,
    dialect: o.Dialect = None,
    message: o.Message = None,
    message_structure: o.MessageStructure = None,
    subject: o.Subject = None,
    attribute: o.Attributes = None,
    group: o.Group = None,
    catch_up: o.CatchUp = None,
    deadline: o.Deadline = None,
    late_after: o.LateAfter = None,
    on_gap: o.OnGap = None,
    on_repeat: o.OnRepeat = None,
    spread: o.Spread = None,
    priority: o.Priority = None,
    starts: o.Starts = None,
    ends: o.Ends = None,
    tag: o.Tags = None,
    note: o.Note = None,
    paused: o.Paused = False,
    json: o.Json = False,
    socket: o.Socket = None,
) -> None:
    """Create a schedule, and print its next three fires.

    An identical schedule is left as it is ("unchanged"); a different one of that name is not touched (exit code 5):
    change it with 'cronally set'.
    """
    if ctx.args:
        raise UsageError(
            f"there are too many words after {name!r}; put the rule in quotes: cronally add {name} '0 9 * * *' …"
        )
    document = document_from_options(
        {
            "when": when,
            "topic": topic,
            "tz": tz,
            "dialect": dialect,
            "message": message,
            "message_structure": message_structure,
            "subject": subject,
            "attributes": attribute,
            "group": group,
            "catch_up": catch_up,
            "deadline": deadline,
            "late_after": late_after,
            "on_gap": on_gap,
            "on_repeat": on_repeat,
            "spread": spread,
            "priority": priority,
            "starts": starts,
            "ends": ends,
            "tags": tag,
            "note": note,
            "paused": paused,
        }
    )
    if topic is None:
        raise UsageError(
            "--topic is missing; name the SNS topic, such as --topic arn:aws:sns:us-east-1:123456789012:reports"
        )
    read_bounds(document, tz or "UTC")
    with o.connect(socket) as client:
        print_put(client.put(name, document, create_only=True), as_json=json)


def set_command(
    name: o.Name,
    when: Annotated[str | None, typer.Option("--when", metavar="WHEN", help="The rule, in quotes.")] = None,
    topic: o.Topic = None,
    tz: o.Tz = None,
    dialect: o.Dialect = None,
    message: o.Message = None,
    message_structure: o.MessageStructure = None,
    subject: o.Subject = None,
    attribute: o.Attributes = None,
    group: o.Group = None,
    catch_up: o.CatchUp = None,
    deadline: o.Deadline = None,
    late_after: o.LateAfter = None,
    on_gap: o.OnGap = None,
    on_repeat: o.OnRepeat = None,
    spread: o.Spread = None,
    priority: o.Priority = None,
    starts: o.Starts = None,
    ends: o.Ends = None,
    tag: o.Tags = None,
    note: o.Note = None,
    paused: o.Paused = False,
    unset: Annotated[
        list[str] | None,
        typer.Option("--unset", metavar="KEY", help="Go back to the default of this key; may be repeated."),
    ] = None,
    json: o.Json = False,
    socket: o.Socket = None,
) -> None:
    """Change what is given of a schedule, leave the rest, and print its next three fires.

    An empty text (--subject '') goes back to the default, as --unset does. --attribute adds or replaces one, and NAME=
    takes it away; --tag replaces all tags.
    """
    wanted = document_from_options(
        {
            "when": when,
            "topic": topic,
            "tz": tz,
            "dialect": dialect,
            "message": message,
            "message_structure": message_structure,
            "subject": subject,
            "attributes": attribute,
            "group": group,
            "catch_up": catch_up,
            "deadline": deadline,
            "late_after": late_after,
            "on_gap": on_gap,
            "on_repeat": on_repeat,
            "spread": spread,
            "priority": priority,
            "starts": starts,
            "ends": ends,
            "tags": tag,
            "note": note,
            "paused": paused,
        }
    )
    if not wanted and not unset:
        raise UsageError(
            f"there is nothing to change; give at least one option, such as cronally set {name} --when '0 9 * * *'"
        )
    with o.connect(socket) as client:
        try:
            reply = _set(client, name, wanted, unset or [])
        except RevisionConflict:  # somebody changed it in between: look again, once
            reply = _set(client, name, wanted, unset or [])
        print_put(reply, as_json=json)


def _set(client: Client, name: str, wanted: dict[str, Any], unset: list[str]) -> PutReply:
    present = client.schedule(name, fires=0)
    wanted = dict(wanted)
    read_bounds(wanted, wanted.get("tz") or present.tz)
    return client.put(name, merged(present, wanted, unset), if_revision=present.revision)


def rm_command(
    names: o.Globs = None,
    tag: o.WithTag = None,
    drop_pending: o.DropPending = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: o.Json = False,
    socket: o.Socket = None,
) -> int:
    """Remove schedules; their history stays.

    Those that a glob or a tag selects are shown, and you are asked, first. Many are removed 200 at a time, each time all of
    them or none (of several machines: all that a machine has of them); if it breaks off you are told how many are gone, and can run it again. Fires that are still to be published are
    published all the same, unless --drop-pending skips them.
    """
    selection = Selection(names or (), tag or ())
    if selection.is_bulk:
        check_terminal("what a glob or a tag selects is removed only when you agree", yes=yes)
    with o.connect(socket) as client:
        found = names_of(client, selection)
        if selection.is_bulk and not yes:
            (err if json else out)("\n".join(found))
            if not agreed(
                f"Remove {'this schedule' if len(found) == 1 else f'these {len(found):,} schedules'}?"
            ):
                err("nothing was removed")
                return FAILED

        def removed(one: dict[str, Any]) -> dict[str, Any]:
            if not json:
                report(f"removed {one['name']}{_pending(one['pending'])}")
            return {"name": one["name"], "pending": one["pending"]}

        parts = client.many("remove", found, drop_pending=drop_pending)
        return _each(parts, len(found), removed, "removed", as_json=json)


def pause_command(
    names: o.Globs = None,
    tag: o.WithTag = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until", metavar="INSTANT|DURATION", help="End by itself then; the slot at that instant fires."
        ),
    ] = None,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Why, for people.")] = None,
    drop_pending: o.DropPending = False,
    json: o.Json = False,
    socket: o.Socket = None,
) -> int:
    """Put schedules at rest; their slots are skipped and recorded as such until they resume.

    --until takes 2026-12-24T18:00:00Z, a duration from now, or local time in the schedule's zone: 2026-12-24T18:00, 'tomorrow
    9:00', 'fri noon'. Fires that are still to be published are published all the same, unless --drop-pending skips them.
    """
    with o.connect(socket) as client:

        def paused(one: dict[str, Any]) -> dict[str, Any]:
            from cronally.cli.render import pause_text

            schedule = from_plain(Schedule, one["schedule"])
            if not json:
                report(f"{pause_text(schedule)} {schedule.name}{_pending(one['pending'])}")
            return {"name": one["name"], "pending": one["pending"], "schedule": to_plain(schedule)}

        found = names_of(client, Selection(names or (), tag or ()))
        parts = client.many("pause", found, until=until, note=note, drop_pending=drop_pending)
        return _each(parts, len(found), paused, "paused", as_json=json)


def resume_command(
    names: o.Globs = None, tag: o.WithTag = None, json: o.Json = False, socket: o.Socket = None
) -> int:
    """End the pause of schedules; slots that passed meanwhile stay skipped."""
    with o.connect(socket) as client:

        def resumed(one: dict[str, Any]) -> dict[str, Any]:
            from cronally.cli.render import next_fires_text

            schedule = from_plain(Schedule, one["schedule"])
            if not json:
                report(f"resumed {schedule.name}")
                report(next_fires_text(schedule))
            return {"name": one["name"], "schedule": to_plain(schedule)}

        found = names_of(client, Selection(names or (), tag or ()))
        return _each(client.many("resume", found), len(found), resumed, "resumed", as_json=json)


def _each(
    parts: Iterator[ManyReply],
    count: int,
    show: Callable[[dict[str, Any]], dict[str, Any]],
    key: str,
    *,
    as_json: bool,
) -> int:
    """Show what becomes of *count* schedules as it comes, and what fails. Return the first failure's exit code, or 0."""
    done: list[dict[str, Any]] = []
    code = 0
    seen = 0
    with Progress(count) as progress:
        try:
            for part in parts:
                progress.clear()
                done += map(show, part.done)
                for one in part.refused:
                    exc = error_from_plain(one["error"])
                    if exc.exit_code not in (4, 5) and not done and code == 0:
                        raise exc  # not about this one schedule: a bad option
                    err(f"cronally: {exc}")
                    code = code or exc.exit_code
                seen += len(part.done) + len(part.refused)
                progress.reach(seen, f"{seen:,} of {count:,} schedules")
        except (CronallyError, KeyboardInterrupt) as exc:
            progress.clear()
            if done:
                is_unknown = not isinstance(exc, CronallyError) or exc.exit_code == AdminError.exit_code
                perhaps = "; those that were being asked for may be, too" if is_unknown else ""
                err(f"cronally: {len(done):,} of {count:,} schedules were {key} before this{perhaps}")
            raise
    if as_json:
        out_json({key: done})
    return code


def _pending(count: int) -> str:
    if not count:
        return ""
    fires = "1 pending fire remains" if count == 1 else f"{count:,} pending fires remain"
    return f"; {fires} to be published (--drop-pending skips them)"
