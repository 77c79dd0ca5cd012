"""explain: what a rule means, in words; it needs no daemon."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cronally.cli import options as o
from cronally.cli.output import out, out_json
from cronally.cli.times import is_rule, refuse_rule_options
from cronally.errors import UsageError
from cronally.instants import UtcMs, format_utc, parse_rfc3339, to_datetime

if TYPE_CHECKING:
    from cronally.admin.wire import Schedule
    from cronally.domain.recurrence import Recurrence

EXAMPLES: Final = {
    "explain": """
        cronally explain "30 2 * * *" --tz America/New_York
        cronally explain "*/7 * 31 * *"
        cronally explain "0 0 9 ? * MON-FRI" --dialect quartz --json
        cronally explain nightly-report
        """,
}

_CHANGES: Final = 4  # of the zone's clock that are shown: two years in most zones
_CLASSES: Final = {
    "wild": "its minute or hour field begins with *, so it fires at every real instant whose local time matches",
    "fixed": "it fires once for each of its local times, also on the days the clocks change",
    "every": "it counts real time, so no change of the clock touches it",
    "at": "it fires once, at one instant",
}


def explain_command(
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
    starts: o.Starts = None,
    json: o.Json = False,
    socket: o.Socket = None,
) -> None:
    """Say what a rule (no daemon needed) or a schedule's rule means: in words, on the days the clocks change, what may surprise, and where tools built on croniter would fire differently."""
    if ctx.args:
        raise UsageError("there are too many words; put the rule in quotes: cronally explain '0 9 * * *'")
    choices: dict[str, Any] = {
        "tz": tz,
        "dialect": dialect,
        "name": name,
        "on_gap": on_gap,
        "on_repeat": on_repeat,
        "starts": starts,
    }
    if is_rule(what):
        from cronally.cli.instants import instant
        from cronally.domain.recurrence import Recurrence

        given = {key: value for key, value in choices.items() if value is not None}
        if starts is not None:
            given["starts"] = to_datetime(instant("--starts", starts, tz=lambda: tz or "UTC", direction=1))
        rule = Recurrence.parse(what, **given)
    else:
        refuse_rule_options(
            "explain", what, {f"--{key.replace('_', '-')}": value for key, value in choices.items()}
        )
        with o.connect(socket) as client:
            rule = _rule_of(client.schedule(what, fires=0))
    from cronally.clock import SystemClock

    plain = explanation(rule, SystemClock().wall())
    if json:
        out_json(plain)
        return
    out(explanation_text(plain))


def _rule_of(schedule: "Schedule") -> "Recurrence":
    from cronally.domain.recurrence import Recurrence

    choices: Any = {"on_gap": schedule.on_gap, "on_repeat": schedule.on_repeat}
    if schedule.starts is not None:
        choices["starts"] = to_datetime(parse_rfc3339(schedule.starts))
    return Recurrence.parse(
        schedule.when, tz=schedule.tz, dialect=schedule.dialect, name=schedule.name, **choices
    )


def explanation(rule: "Recurrence", now: UtcMs) -> dict[str, Any]:
    """Return what ``explain --json`` prints: plain values, instants as RFC 3339 UTC. now: what it is told from."""
    from cronally.cli.second_opinion import second_opinion
    from cronally.domain.dst import dst_changes
    from cronally.domain.lint import lint

    start = now if rule.starts_ms is None else UtcMs(max(now, rule.starts_ms - 1))
    kind = "wild" if rule.is_wild else "fixed" if rule.fields else "every" if rule.period_ms else "at"
    class_means = _CLASSES[kind]
    if kind == "fixed" and rule.on_repeat == "both":
        class_means = "it fires at each of its local times, and at both if one comes twice (on_repeat: both)"
    opinion = second_opinion(rule, start)
    return {
        "when": rule.when,
        "tz": rule.tz,
        "dialect": rule.dialect,
        "means": f"{rule.describe()}.",
        "class": kind,
        "class_means": class_means,
        "dst_changes": []
        if rule.fields is None
        else [
            {
                "at": format_utc(change.at_ms),
                "kind": change.kind,
                "from": change.wall_from.isoformat(),
                "to": change.wall_to.isoformat(),
                "slots": change.count,
                "effect": change.effect,
                "text": change.text,
            }
            for change in dst_changes(rule, start, _CHANGES)
        ],
        "remarks": [
            *({"code": "warning", "message": text} for text in rule.warnings),
            *(
                {"code": remark.code, "message": remark.message}
                for remark in lint(rule, now_ms=start)
                if remark.code != "dst"  # told with the changes of the clock
            ),
        ],
        "croniter": {
            "refusal": opinion.refusal,
            "is_whole": opinion.is_whole,
            "differences": [
                {"at": format_utc(difference.at), "fires": "cronally" if difference.is_ours else "croniter"}
                for difference in opinion.differences
            ],
        },
    }


def explanation_text(plain: dict[str, Any]) -> str:
    """Return what ``explain`` prints, of what ``explanation`` returned."""
    lines = [plain["means"], "", f"{plain['class']}: {plain['class_means']}."]
    if plain["class"] in ("wild", "fixed"):
        lines += ["", "when the clocks change"]
        lines += [f"  {change['text']}" for change in plain["dst_changes"]] or [
            f"  the clock of {plain['tz']} does not change any more"
        ]
    if plain["remarks"]:
        lines += ["", "remarks", *(f"  {remark['message']}" for remark in plain["remarks"])]
    return "\n".join([*lines, "", "a tool built on croniter", *_opinion_lines(plain)])


def _opinion_lines(plain: dict[str, Any]) -> list[str]:
    from cronally.cli.render import local_text, printable

    opinion = plain["croniter"]
    if opinion["refusal"] is not None:
        return [f"  not compared: {printable(opinion['refusal'])}"]
    looked = (
        "every slot" if opinion["is_whole"] else "the first slot of each day and the changes of the clock"
    )
    if not opinion["differences"]:
        return [f"  fires at the same instants for a year ({looked} compared)"]
    verdicts = {
        "cronally": "Cronally fires, croniter does not",
        "croniter": "croniter fires, Cronally does not",
    }
    return [
        f"  {local_text(found['at'], plain['tz'])}  {found['at']}  {verdicts[found['fires']]}"
        for found in opinion["differences"]
    ]
