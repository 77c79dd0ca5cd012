"""doctor: is all in order that a daemon needs?"""

import os
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cronally.admin.paths import check_path, find_socket
from cronally.cli import options as o
from cronally.cli.output import FAILED, out, out_json, report
from cronally.domain.topic import parse_topic_arn
from cronally.errors import UsageError

if TYPE_CHECKING:
    from cronally.domain.findings import Finding

EXAMPLES: Final = {
    "doctor": """
        cronally doctor
        cronally doctor --topic arn:aws:sns:us-east-1:123456789012:reports
        cronally doctor --json | jq '.checks[] | select(.state != "ok")'
        """,
}


def doctor_command(
    topic: Annotated[
        list[str] | None,
        typer.Option("--topic", metavar="ARN", help="Look at this topic, too; may be repeated."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="sqlite:PATH|dynamodb:TABLE",
            help="The store, if no daemon answers. [default: in the state directory]",
        ),
    ] = None,
    config: o.Config = None,
    json: o.Json = False,
    socket: o.Socket = None,
) -> int:
    """Look at all that a daemon needs: itself, its store, the clock, zone data, AWS credentials, endpoints and topics.

    Each line is ok, warning or failed, with what to do. Nothing is changed, and no message is sent: whether a topic may be published
    to is asked of IAM, and each line says what was tested. Ends within 10 s; exit code 1 if anything has failed.
    """
    for arn in topic or []:
        try:
            parse_topic_arn(arn)
        except ValueError as exc:
            raise UsageError(f"--topic: {exc}") from None
    path = check_path(find_socket(os.environ) if socket is None else socket)
    from cronally import app

    found = app.examine(path, {"store": store}, topic or [], config_file=config)
    counts = {state: sum(one.health == state for one in found) for state in ("ok", "warning", "failed")}
    if json:
        checks = [
            {"check": one.check, "state": one.health, "text": one.text, "fix": one.fix} for one in found
        ]
        out_json({"checks": checks, **counts})
    else:
        _print(found)
        report(f"\n{counts['ok']} ok, {counts['warning']} to look at, {counts['failed']} failed")
    return FAILED if counts["failed"] else 0


def _print(found: "list[Finding]") -> None:
    from cronally.cli.render import printable

    for one in found:
        write = report if one.health == "ok" else out
        write(f"{one.health:<8} {one.check}: {printable(one.text)}")
        if one.fix is not None:
            out(f"{'':<8} -> {printable(one.fix)}")
