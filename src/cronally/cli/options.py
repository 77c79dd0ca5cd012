"""The options that several commands share, declared once, and the connection they lead to."""

import os
from contextlib import AbstractContextManager
from typing import Annotated

import typer

from cronally.admin.client import ANSWER_S, Client
from cronally.admin.paths import HOST_VARIABLE, SOCKET_VARIABLE, find_socket
from cronally.cli.output import tracer
from cronally.domain.durations import parse_duration
from cronally.errors import UsageError

Socket = Annotated[
    str | None,
    typer.Option(
        "--socket",
        metavar="PATH",
        help="The daemon's socket. Default: $CRONALLY_SOCKET, /run/cronally/cronally.sock, or the user's own.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document; times are RFC 3339 UTC.")]


def complete_name(incomplete: str) -> list[str]:
    """Return the names of schedules that begin so, for the shell."""
    from cronally.cli.completing import schedule_names

    return schedule_names(incomplete)


Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The schedule's name.", autocompletion=complete_name)
]
Globs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        help="Names of schedules, or globs in quotes, such as 'report-*'.",
        autocompletion=complete_name,
    ),
]
WithTag = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="WORD", help="Those that have this tag; if repeated, all of them."),
]
States = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        metavar="STATE",
        help="Only these, with commas or repeated: published, pending, skipped, expired, rejected.",
    ),
]
Owner = Annotated[
    str, typer.Option("--owner", metavar="NAME", help="Recorded with each schedule that the file names.")
]
Config = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="The daemon's settings, which name its store.")
]
DropPending = Annotated[
    bool, typer.Option("--drop-pending", help="Skip its fires that are still to be published, too.")
]

# --- a schedule, in the order of the keys of a file ---------------------------------------------------------------

Topic = Annotated[
    str | None,
    typer.Option(
        "--topic", metavar="ARN", help="The SNS topic, such as arn:aws:sns:us-east-1:123456789012:reports."
    ),
]
Tz = Annotated[
    str | None, typer.Option("--tz", metavar="ZONE", help="IANA time zone of the rule. [default: UTC]")
]
Dialect = Annotated[
    str | None,
    typer.Option(
        "--dialect",
        metavar="NAME",
        help="How the rule is written: unix, quartz or eventbridge. [default: unix]",
    ),
]
Message = Annotated[
    str | None,
    typer.Option(
        "--message",
        metavar="TEXT|@FILE|-",
        help="The message, exactly: the text, a file's content, or standard input. @@ for a leading @. "
        "Default: JSON with schedule, fire_time and fire_id.",
    ),
]
MessageStructure = Annotated[
    str | None,
    typer.Option(
        "--message-structure", metavar="json", help="The message has one text per protocol, as SNS defines."
    ),
]
Subject = Annotated[str | None, typer.Option("--subject", metavar="TEXT", help="Subject of e-mails.")]
Attributes = Annotated[
    list[str] | None,
    typer.Option(
        "--attribute",
        metavar="NAME=VALUE",
        help="A message attribute, up to six times; NAME:Number=5 gives a type (String, Number, String.Array, Binary).",
    ),
]
Group = Annotated[
    str | None,
    typer.Option("--group", metavar="ID", help="Message group on a FIFO topic. [default: the name]"),
]
CatchUp = Annotated[
    str | None,
    typer.Option(
        "--catch-up",
        metavar="POLICY",
        help="Which missed slots still fire: latest, all or skip. [default: latest]",
    ),
]
Deadline = Annotated[
    str | None,
    typer.Option("--deadline", metavar="DURATION", help="How late it may still be sent. [default: 24h]"),
]
LateAfter = Annotated[
    str | None, typer.Option("--late-after", metavar="DURATION", help="Report it as late from here on.")
]
OnGap = Annotated[
    str | None,
    typer.Option(
        "--on-gap", metavar="POLICY", help="A local time that does not exist: run or skip. [default: run]"
    ),
]
OnRepeat = Annotated[
    str | None,
    typer.Option(
        "--on-repeat", metavar="POLICY", help="A local time that comes twice: first or both. [default: first]"
    ),
]
Spread = Annotated[
    str | None,
    typer.Option(
        "--spread", metavar="DURATION", help="Send within this time after the slot, always at the same point."
    ),
]
Priority = Annotated[
    int | None,
    typer.Option("--priority", metavar="0-9", help="9 goes first when there is a backlog. [default: 5]"),
]
Starts = Annotated[
    str | None,
    typer.Option(
        "--starts",
        metavar="INSTANT",
        help="No slot before it: 2026-12-24T18:00:00Z, or local time in --tz such as 2026-12-24T18:00.",
    ),
]
Ends = Annotated[
    str | None, typer.Option("--ends", metavar="INSTANT", help="No slot after it, written in the same way.")
]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="WORD", help="A label; may be repeated.")]
Note = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="A remark for people.")]
Paused = Annotated[bool, typer.Option("--paused", help="Leave it at rest until 'cronally resume'.")]


_host: str | None = None


def set_host(host: str | None) -> None:
    """Have commands ask the daemon of another machine from now on, in this process; None: of this one."""
    global _host  # noqa: PLW0603 - every command has the option, and a process runs one
    _host = host


def remote_host(socket: str | None) -> str | None:
    """Return the machine whose daemon is asked, if not this one's. socket: as --socket names it. Errors: UsageError."""
    if _host is not None and socket is not None:
        raise UsageError(
            "--host and --socket name two daemons; give one of them, and a socket of another machine behind its name: ssh://HOST/PATH"
        )
    if _host is not None or socket is not None:
        return _host
    host = os.environ.get(HOST_VARIABLE) or None
    if host is not None and os.environ.get(SOCKET_VARIABLE):
        raise UsageError(f"{HOST_VARIABLE} and {SOCKET_VARIABLE} name two daemons; unset one of them")
    return host


def connect(socket: str | None, *, answer_s: float = ANSWER_S) -> AbstractContextManager[Client]:
    """Return a client for the daemon that the options, the environment or the rule of design §10 names."""
    host = remote_host(socket)
    if host is not None:
        from cronally.cli.tunnel import client_through_ssh

        return client_through_ssh(host, answer_s=answer_s, trace=tracer())
    path = find_socket(os.environ) if socket is None else socket
    return Client(path, answer_s=answer_s, trace=tracer())


def before_now(option: str, text: str | None) -> str | None:
    """Return what the daemon takes for the instant, usually past, that an option is given, if it is. Errors: UsageError."""
    if text is None:
        return None
    from cronally.cli.instants import before_now as read

    return read(option, text)


def duration_s(option: str, text: str) -> float:
    """Return the seconds of a duration that an option is given. Errors: UsageError."""
    try:
        return parse_duration(text) / 1000
    except ValueError as exc:
        raise UsageError(f"{option}: {exc}") from None
