"""next: when a rule or a schedule fires; a rule needs no daemon."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cronally.admin.client import Client
from cronally.cli import options as o
from cronally.cli.output import note, out, out_json, warn
from cronally.errors import CronallyError, UsageError
from cronally.instants import UtcMs, format_utc, parse_rfc3339, to_datetime

if TYPE_CHECKING:
    from cronally.admin.wire import Schedule
    from cronally.domain.recurrence import Recurrence

EXAMPLES: Final = {
    "next": """
        cronally next "0 9 * * mon-fri" --tz Europe/London
        cronally next "30 1 * * *" --tz Europe/London --from 2026-10-24T00:00:00Z --count 3 --json
        cronally next "H H * * *" --name nightly-report
        cronally next "0 9 ? * MON-FRI *" --dialect eventbridge
        cronally next nightly-report
        """,
}

MAX_COUNT: Final = 100_000
_PAGE: Final = 1_000  # slots one answer of the daemon names


def next_command(
    ctx: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHEN|NAME",
            help="A rule in quotes (it has blanks, or begins with @, 'cron(', 'rate(' or 'at('), or a schedule.",
            autocompletion=o.complete_name,
        ),
    ],
    tz: o.Tz = None,
    dialect: o.Dialect = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The schedule's name, for H in a rule.")
    ] = None,
    on_gap: o.OnGap = None,
    on_repeat: o.OnRepeat = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="INSTANT", help="Slots later than this. [default: now]"),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="INSTANT", help="Slots up to and with this.")
    ] = None,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=1, max=MAX_COUNT, help="At most so many.")
    ] = 10,
    json: o.Json = False,
    socket: o.Socket = None,
) -> None:
    """Print the next fires of a rule (no daemon needed) or of a schedule: local time with its offset, and UTC.

    A slot that a change of the clock moved, merged or repeated says so at the end of its line. --from and --until take
    2026-12-24T18:00:00Z, a duration from now, or local time in the rule's zone: 2026-12-24, 'tomorrow 9:00', 'fri 9:00'.
    """
    if ctx.args:
        raise UsageError("there are too many words; put the rule in quotes: cronally next '0 9 * * *'")
    rule_options = {
        "--tz": tz,
        "--dialect": dialect,
        "--name": name,
        "--on-gap": on_gap,
        "--on-repeat": on_repeat,
    }
    rule: Recurrence | None
    if is_rule(what):
        choices: dict[str, Any] = {
            "tz": tz,
            "dialect": dialect,
            "name": name,
            "on_gap": on_gap,
            "on_repeat": on_repeat,
        }
        given = {key: value for key, value in choices.items() if value is not None}
        after, last = _bounds(from_, until, lambda: tz or "UTC")
        fires, rule = _of_rule(what, given, after, last, count)
        zone = rule.tz
    else:
        refuse_rule_options("next", what, rule_options)
        with o.connect(socket) as client:
            after, last = _bounds(from_, until, lambda: client.schedule(what, fires=0).tz)
            fires, zone, rule = _of_schedule(client, what, after, last, count, with_rule=not json)
    if json:
        out_json({"fires": fires})
        return
    if not fires:
        note("it has no fires there")
        return
    from cronally.cli.render import local_text

    out("\n".join(f"{local_text(fire, zone)}  {fire}{_dst_mark(rule, fire)}" for fire in fires))


def _dst_mark(rule: "Recurrence | None", fire: str) -> str:
    """Return what a change of the clock did to a slot, to stand at the end of its line; empty if nothing."""
    from cronally.domain.dst import dst_note

    note = None if rule is None else dst_note(rule, parse_rfc3339(fire))
    return "" if note is None else f"  {note.effect}: {note.text}"


def refuse_rule_options(command: str, name: str, given: Mapping[str, object]) -> None:
    """Refuse the options of a rule, by their names, beside the *name* of a schedule. Errors: UsageError."""
    for option, value in given.items():
        if value is not None:
            raise UsageError(
                f"{option} belongs to a rule, and {name[:100]!r} is the name of a schedule, which has its own; "
                f"put a rule in quotes: cronally {command} '0 9 * * *'"
            )


def is_rule(text: str) -> bool:
    """Whether *text* is a rule rather than the name of a schedule."""
    return any(blank in text.strip() for blank in " \t") or text.strip().lower().startswith(
        ("@", "cron(", "rate(", "at(")
    )


def _of_rule(
    when: str, given: dict[str, Any], after: UtcMs | None, last: UtcMs | None, count: int
) -> tuple[list[str], "Recurrence"]:
    from cronally.domain.recurrence import Recurrence

    rule = Recurrence.parse(when, **given)
    warn(list(rule.warnings))
    if after is None:
        from cronally.clock import SystemClock

        after = SystemClock().wall()
    fires: list[str] = []
    slot = rule.next_ms(after)
    while slot is not None and len(fires) < count and (last is None or slot <= last):
        fires.append(format_utc(slot))
        slot = rule.next_ms(slot)
    return fires, rule


def _bounds(from_: str | None, until: str | None, tz: Callable[[], str]) -> tuple[UtcMs | None, UtcMs | None]:
    from cronally.cli.instants import instant

    after = None if from_ is None else instant("--from", from_, tz=tz, direction=1)
    return after, None if until is None else instant("--until", until, tz=tz, direction=1)


def _of_schedule(
    client: Client, name: str, after: UtcMs | None, last: UtcMs | None, count: int, *, with_rule: bool
) -> tuple[list[str], str, "Recurrence | None"]:
    fires: list[str] = []
    start = None if after is None else format_utc(after)
    while True:
        wanted = min(count - len(fires), _PAGE)
        page = client.next(name, after=start, count=wanted)
        fires += [fire for fire in page.fires if last is None or parse_rfc3339(fire) <= last]
        if (
            len(page.fires) < wanted
            or len(fires) >= count
            or (last is not None and parse_rfc3339(page.fires[-1]) > last)
        ):
            rule = rule_of(client.schedule(name, fires=0)) if with_rule else None
            return fires, page.tz, rule
        start = page.fires[-1]


def rule_of(schedule: "Schedule") -> "Recurrence | None":
    """Return the rule of a schedule as the daemon told it; None if this version cannot read it."""
    from cronally.domain.recurrence import Recurrence

    choices: Any = {"on_gap": schedule.on_gap, "on_repeat": schedule.on_repeat}
    starts = None if schedule.starts is None else to_datetime(parse_rfc3339(schedule.starts))
    try:
        return Recurrence.parse(
            schedule.when,
            tz=schedule.tz,
            dialect=schedule.dialect,
            name=schedule.name,
            starts=starts,
            **choices,
        )
    except CronallyError:
        return None
