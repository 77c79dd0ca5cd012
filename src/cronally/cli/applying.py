"""apply: make a file of schedules so."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from cronally.admin.client import Client
from cronally.admin.wire import ApplyReply, to_plain
from cronally.cli import options as o
from cronally.cli.files import Contents, FileProblem, format_of, read_json, read_yaml
from cronally.cli.output import err, out, out_json
from cronally.errors import UsageError

EXAMPLES: Final = {
    "apply": """
        cronally apply -f schedules.yaml
        cronally apply -f many.jsonl --owner reports-team
        generate-schedules | cronally apply -f -
        """,
}

MAX_SHOWN: Final = 50
_CHUNK_BYTES: Final = 262_144
_BAD_INPUT: Final = 2


def apply_command(
    file: Annotated[
        str,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE|-",
            help="YAML, JSON or JSON Lines, by its extension or else its content; - is standard input.",
        ),
    ],
    owner: Annotated[
        str,
        typer.Option("--owner", metavar="NAME", help="Recorded with each schedule that is made or changed."),
    ] = "default",
    json: o.Json = False,
    socket: o.Socket = None,
) -> int:
    """Create and change schedules as a file states them, all or nothing.

    YAML and JSON have 'schedules: {NAME: {when: …, topic: …}}', up to 10,000 schedules; JSON Lines have one schedule
    per line with its "name" inside, any number. A key left out has its default, except 'paused', which leaves a pause as
    it is. Schedules that the file does not name stay. On bad input nothing is changed, and every problem is shown with its
    place (exit code 2).
    """
    with o.connect(socket) as client, _opened(file) as source:
        head = source.read(_CHUNK_BYTES)
        form = format_of(file, head)
        if form == "lines":
            # As they are: the daemon reads them, and what it says of a line is said of the file's line.
            chunks = chain((head,), iter(lambda: source.read(_CHUNK_BYTES), b""))
            reply = _apply(client, chunks, owner)
            problems = [FileProblem(p.line, p.name, p.reason) for p in reply.problems]
        else:
            data = head + source.read()
            contents = read_yaml(data) if form == "yaml" else read_json(data)
            if contents.problems:
                reply, problems = ApplyReply(problem_count=len(contents.problems)), contents.problems
            else:
                reply = _apply(client, contents.lines(), owner)
                problems = [_at_its_place(contents, p.line, p.name, p.reason) for p in reply.problems]
    return _report(
        reply,
        sorted(problems, key=lambda problem: problem.line),
        "stdin" if file == "-" else file,
        as_json=json,
    )


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        if sys.stdin.isatty():
            err("reading schedules from the terminal; Ctrl-D ends them")
        yield sys.stdin.buffer
        return
    try:
        source = Path(file).open("rb")  # noqa: SIM115 - closed below; only opening may fail like this
    except OSError as exc:
        raise UsageError(
            f"the file {file} cannot be read: {(exc.strerror or str(exc)).lower()}; name a file of schedules, or - for standard input"
        ) from None
    with source:
        yield source


def _apply(client: Client, chunks: Iterable[bytes], owner: str) -> ApplyReply:
    if not sys.stderr.isatty():
        return client.apply(chunks, owner=owner)
    count = 0

    def sent(chunk: bytes) -> None:
        nonlocal count
        count += chunk.count(b"\n")
        sys.stderr.write(f"\r{count:,} sent ")
        sys.stderr.flush()

    try:
        return client.apply(chunks, owner=owner, sent=sent)
    finally:
        sys.stderr.write("\r\x1b[K")


def _at_its_place(contents: Contents, number: int, name: str | None, reason: str) -> FileProblem:
    """Turn the number of a line as it was sent into the file's line."""
    if not 1 <= number <= len(contents.schedules):
        return FileProblem(number, name, reason)
    schedule = contents.schedules[number - 1]
    return FileProblem(schedule.line, schedule.name, reason)


def _report(reply: ApplyReply, problems: list[FileProblem], place: str, *, as_json: bool) -> int:
    if as_json:
        plain = to_plain(reply) | {"problems": [problem._asdict() for problem in problems]}
        out_json(plain)
    if not reply.problem_count:
        if not as_json:
            out(f"created {reply.created:,}, changed {reply.changed:,}, unchanged {reply.unchanged:,}")
        return 0
    for line, name, reason in problems[:MAX_SHOWN]:
        err(f"{place}:{line}: {f'{name}: ' if name else ''}{reason}")
    more = reply.problem_count - min(len(problems), MAX_SHOWN)
    if more:
        err(f"and {more:,} more")
    err("cronally: nothing was applied; correct the file and apply it again")
    return _BAD_INPUT
