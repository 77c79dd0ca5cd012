"""Make the table that several machines share, and move an installation between a file and a table.

Both need AWS and no daemon.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import typer

from cronally.cli import options as o
from cronally.cli.output import note, out, out_json, report, shows_progress
from cronally.domain import table_calls
from cronally.domain.store_name import StoreName, parse_store_name
from cronally.errors import UsageError

EXAMPLES: Final = {
    "store": """
        cronally store create dynamodb:cronally
        """,
    "store create": """
        cronally store create dynamodb:cronally
        cronally store create dynamodb:cronally --dry-run
        cronally store create dynamodb:cronally --cloudformation > cronally-table.json
        """,
    "store copy": """
        cronally store copy sqlite:/var/lib/cronally/cronally.db dynamodb:cronally
        cronally store copy dynamodb:cronally sqlite:/var/lib/cronally/cronally.db
        """,
}


def store_create_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="dynamodb:TABLE", help="The table, in the region of AWS_REGION or the profile."
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the calls as lines for the AWS CLI, and make none.")
    ] = False,
    cloudformation: Annotated[
        bool, typer.Option("--cloudformation", help="Print a template that makes it, and make none.")
    ] = False,
    json: o.Json = False,
) -> None:
    """Make the DynamoDB table that machines share with 'cronally serve --store dynamodb:TABLE'.

    It is paid by request: an idle machine costs about a dollar a month (docs/scaling.md). A table that is there already stays as it is.
    """
    table = _table(name).place
    if cloudformation:
        out_json(table_calls.cloudformation(table))
        return
    if dry_run:
        lines = table_calls.create_lines(table)
        if json:
            out_json({"commands": lines})
        else:
            out("\n".join(lines))
        return
    from cronally import app

    is_new = app.create_table(table)
    if json:
        out_json({"store": f"dynamodb:{table}", "created": is_new})
        return
    report(f"{'made' if is_new else 'there is already'} the table {table}")
    if is_new:
        note(f"on each machine: cronally serve --store dynamodb:{table}")


def store_copy_command(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="sqlite:PATH or dynamodb:TABLE, which no daemon uses now.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="TO", help="The other one; it must be empty, or not there.")
    ],
    json: o.Json = False,
) -> None:
    """Copy an installation from a file to a table, or back: schedules, pauses, what is pending, journal and audit log.

    Stop the daemons first, and start them on the copy: what is due meanwhile is decided as after a restart. The source stays as it is.
    """
    first, second = _store(source), _store(target)
    if {first.kind, second.kind} != {"sqlite", "dynamodb"}:
        raise UsageError(
            "one of the two must be sqlite:PATH and the other dynamodb:TABLE; a file is copied with 'cronally backup'"
        )
    from cronally import app

    with _progress() as show:
        copied = app.copy_between(first, second, note, show)
    if json:
        out_json({"from": str(first), "to": str(second)} | copied._asdict())
    else:
        report(
            f"copied {first} to {second}: schedules: {copied.schedules:,}, journal entries: {copied.journal:,}, pending: {copied.pending:,}"
        )


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Give who shows how far the copy is, on a terminal."""

    def show(done: int, total: int) -> None:
        if shows_progress():
            sys.stderr.write(f"\r{100 * done // total} % ")
            sys.stderr.flush()

    try:
        yield show
    finally:
        if shows_progress():
            sys.stderr.write("\r\x1b[K")


def _store(text: str) -> StoreName:
    try:
        return parse_store_name(text)
    except ValueError as exc:
        raise UsageError(str(exc)) from None


def _table(text: str) -> StoreName:
    name = _store(text)
    if name.kind != "dynamodb":
        raise UsageError(
            f"{text!r} is a file, which 'cronally serve' makes by itself; name a table as dynamodb:TABLE"
        )
    return name
