"""See, make, join and try the SNS topics that schedules publish to.

'ls' asks the daemon; the others ask AWS, and need no daemon.
"""

import os
import sys
from typing import Annotated, Any, Final

import typer

from cronally.admin.wire import Topic, to_plain
from cronally.cli import options as o
from cronally.cli.output import FAILED, err, note, out, out_json, report, warn
from cronally.domain import topic_calls
from cronally.domain.aws_calls import command_line
from cronally.domain.targets import Target, how_to_confirm, is_raw, parse_target, warnings_of
from cronally.domain.topic import TopicArn, parse_topic_arn
from cronally.domain.topic_reports import Step, Subscribed, TopicState
from cronally.errors import UsageError

EXAMPLES: Final = {
    "topics": """
        cronally topics ls
        """,
    "topics ls": """
        cronally topics ls
        cronally topics ls --check
        cronally topics ls --json | jq -r '.topics[] | select(.refusing) | .topic'
        """,
    "topics create": """
        cronally topics create reports --region us-east-1
        cronally topics create orders.fifo --fifo --dry-run
        """,
    "topics subscribe": """
        cronally topics subscribe arn:aws:sns:us-east-1:123456789012:reports arn:aws:sqs:us-east-1:123456789012:jobs
        cronally topics subscribe arn:aws:sns:us-east-1:123456789012:reports https://example.com/cron --wait 2m
        cronally topics subscribe arn:aws:sns:us-east-1:123456789012:reports ops@example.com --dry-run
        """,
    "topics check": """
        cronally topics check arn:aws:sns:us-east-1:123456789012:reports
        """,
}

_SYMBOLS: Final = {"done": "+", "unchanged": "=", "waiting": "…", "note": "!"}

Arn = Annotated[
    str, typer.Argument(metavar="ARN", help="The topic, such as arn:aws:sns:us-east-1:123456789012:reports.")
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the calls as lines for the AWS CLI, and make none."),
]


# --- ls ---------------------------------------------------------------------------------------------------------


def topics_ls_command(
    check: Annotated[
        bool,
        typer.Option("--check", help="Ask SNS about each: is it there, and how many subscriptions has it?"),
    ] = False,
    json: o.Json = False,
    socket: o.Socket = None,
) -> None:
    """List the topics that schedules publish to: how many schedules, what is pending, and whether SNS takes messages for them."""
    with o.connect(socket) as client:
        topics = client.topics()
        stand_in = client.status().stand_in if check else None
    states = _states(topics, stand_in) if check else None
    if json:
        plain = to_plain(topics)
        if states is not None:
            plain = [topic | {"sns": _state_plain(state)} for topic, state in zip(plain, states, strict=True)]
        out_json({"topics": plain})
        return
    if not topics:
        note("no schedule names a topic; make one with 'cronally add'")
        return
    from cronally.cli.render import topics_table

    out(topics_table(topics, None if states is None else [_state_text(state) for state in states]))


def _states(topics: list[Topic], stand_in: str | None) -> list[TopicState]:
    if not topics:
        return []
    from cronally import app

    return app.topic_states([one.topic for one in topics], stand_in=stand_in)


def _state_plain(state: TopicState) -> dict[str, Any]:
    if state.problem is not None:
        return {"problem": state.problem}
    return {key: value for key, value in state._asdict().items() if key not in ("topic", "problem")}


def _state_text(state: TopicState) -> str:
    if state.problem is not None:
        return f"not known: {state.problem}"
    if not state.exists:
        return "NOT THERE: 'cronally topics create' makes it"
    counts = f"{state.confirmed:,} confirmed"
    counts += f", {state.pending:,} pending" if state.pending else ""
    nobody = "" if state.confirmed else " (nobody gets its messages)"
    return f"{'FIFO' if state.is_fifo else 'standard'}, subscriptions: {counts}{nobody}"


# --- create -----------------------------------------------------------------------------------------------------


def topics_create_command(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The topic's name; that of a FIFO topic ends in .fifo.")
    ],
    fifo: Annotated[
        bool, typer.Option("--fifo", help="Keep the order within a schedule, and drop repeats.")
    ] = False,
    region: Annotated[
        str | None,
        typer.Option("--region", metavar="REGION", help="Where. [default: AWS_REGION, or the profile's]"),
    ] = None,
    dry_run: DryRun = False,
    json: o.Json = False,
) -> None:
    """Make a topic and print its ARN. If it is there already, it stays as it is, and its ARN is printed."""
    name = topic_calls.topic_name(name, is_fifo=fifo)
    if region is not None and not _is_region(region):
        raise UsageError(f"{region[:50]!r} is no AWS region; write it as us-east-1")
    if dry_run:
        place = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        _print_lines([command_line(topic_calls.create_topic(name, place, is_fifo=fifo))], as_json=json)
        return
    from cronally import app

    arn = app.create_topic(name, region, is_fifo=fifo)
    if json:
        out_json({"topic": arn})
    else:
        out(arn)


def _is_region(text: str) -> bool:
    return text.isascii() and text.replace("-", "").isalnum() and text == text.lower() and "-" in text


# --- subscribe --------------------------------------------------------------------------------------------------


def topics_subscribe_command(
    arn: Arn,
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="An https:// URL, the ARN of an SQS queue or of a Lambda function, or an e-mail address.",
        ),
    ],
    raw: Annotated[
        bool,
        typer.Option("--raw", help="The message alone, without the JSON of SNS; the default for queues."),
    ] = False,
    no_raw: Annotated[
        bool,
        typer.Option("--no-raw", help="The message within the JSON of SNS, signed; the default for URLs."),
    ] = False,
    wait: Annotated[
        str, typer.Option("--wait", metavar="DURATION", help="How long to wait for a confirmation.")
    ] = "5m",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for the confirmation.")] = False,
    dry_run: DryRun = False,
    json: o.Json = False,
) -> int:
    """Have a topic deliver to a queue, a function, a URL or an e-mail address, with all that it takes.

    A queue gets a policy that lets in this topic (its other statements stay) and a function the permission to be invoked by it; for a
    URL the topic signs with SHA-256; then the command waits for the confirmation that URLs and addresses must give. It can be run
    again: what is right stays as it is, and SNS asks once more for a confirmation that is missing.
    """
    topic, to = _topic(arn), parse_target(target)
    wish = _wish(raw=raw, no_raw=no_raw)
    raw = is_raw(topic, to, wish=wish)
    wait_s = 0.0 if no_wait else o.duration_s("--wait", wait)
    warn(warnings_of(to, raw=raw))
    if dry_run:
        _print_lines(topic_calls.subscribe_lines(topic, to, is_raw=raw), as_json=json)
        return 0
    from cronally import app

    steps: list[Step] = []

    def tell(step: Step) -> None:
        steps.append(step)
        if not json:
            report(_step_text(step))
            sys.stdout.flush()  # whoever reads a pipe shall know what is waited for, too

    done = app.subscribe_topic(topic, to, raw=wish, wait_s=wait_s, tell=tell)
    if json:
        out_json(_subscribed_plain(topic, to, done, steps))
    if not done.is_confirmed:
        err(f"not confirmed yet: {how_to_confirm(to)}; run the command again to have SNS ask once more")
    return 0 if done.is_confirmed or no_wait else FAILED


def _wish(*, raw: bool, no_raw: bool) -> bool | None:
    if raw and no_raw:
        raise UsageError("give --raw or --no-raw, not both")
    return raw if raw or no_raw else None


def _step_text(step: Step) -> str:
    from cronally.cli.render import printable

    return f"{_SYMBOLS[step.outcome]} {step.what}: {printable(step.text)}"


def _subscribed_plain(topic: TopicArn, target: Target, done: Subscribed, steps: list[Step]) -> dict[str, Any]:
    return {
        "topic": topic.text,
        "target": target.endpoint,
        "protocol": target.protocol,
        "subscription": done.subscription,
        "confirmed": done.is_confirmed,
        "raw": done.is_raw,
        "steps": [step._asdict() for step in steps],
    }


# --- check ------------------------------------------------------------------------------------------------------


def topics_check_command(arn: Arn, json: o.Json = False) -> None:
    """Publish one test message, marked by the attribute cronally.test, and print its message id, or why it cannot be published.

    All subscribers get it. That SNS has taken it does not say that a subscriber has: look there.
    """
    topic = _topic(arn)
    from cronally import app

    message_id = app.check_topic(topic.text)
    if json:
        out_json({"topic": topic.text, "message_id": message_id})
    else:
        out(message_id)
        note(
            f"SNS has taken a test message for {topic.name}; it has the attribute {topic_calls.TEST_ATTRIBUTE}"
        )


# --- all of them ------------------------------------------------------------------------------------------------


def _topic(arn: str) -> TopicArn:
    try:
        return parse_topic_arn(arn)
    except ValueError as exc:
        raise UsageError(str(exc)) from None


def _print_lines(lines: list[str], *, as_json: bool) -> None:
    if as_json:
        out_json({"commands": lines})
        return
    for line in lines:
        out(line)
