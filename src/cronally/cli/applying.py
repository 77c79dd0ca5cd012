"""apply, diff: make a file of schedules so, or show what that would do."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Annotated, Final, NamedTuple

import typer

from cronally.admin.client import Client
from cronally.admin.wire import ApplyReply, to_plain
from cronally.cli import options as o
from cronally.cli.files import Contents, FileProblem, format_of, read_json, read_yaml
from cronally.cli.input import opened, size_of
from cronally.cli.output import FAILED, agreed, check_terminal, err, out, out_json, report
from cronally.cli.progress import Progress
from cronally.errors import UsageError

EXAMPLES: Final = {
    "apply": """
        cronally apply -f schedules.yaml
        cronally apply -f many.jsonl --owner reports-team
        cronally apply -f schedules.yaml --prune --owner reports-team
        generate-schedules | cronally apply -f -
        """,
    "diff": """
        cronally diff -f schedules.yaml
        cronally diff -f schedules.yaml --prune --owner reports-team || echo "it would change something"
        """,
}

MAX_SHOWN: Final = 50
_CHUNK_BYTES: Final = 262_144
_BAD_INPUT: Final = 2
_DIFFERS: Final = 6
_NOTHING: Final = "schedules: {}"


_File = Annotated[
    str,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE|-",
        help="YAML, JSON or JSON Lines, by its extension or else its content; - is standard input.",
    ),
]
_Prune = Annotated[
    bool,
    typer.Option(
        "--prune",
        help="Remove the schedules that an earlier apply of the same owner made and the file does not name.",
    ),
]


def apply_command(
    file: _File,
    owner: o.Owner = "default",
    prune: _Prune = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    json: o.Json = False,
    socket: o.Socket = None,
) -> int:
    """Create and change schedules as a file states them, all or nothing.

    YAML and JSON have 'schedules: {NAME: {when: …, topic: …}}', up to 10,000 schedules; JSON Lines have one schedule
    per line with its "name" inside, any number. A key left out has its default, except 'paused', which leaves a pause as
    it is. Schedules that the file does not name stay, unless --prune removes those of the same owner: then they are
    shown, and you are asked. On bad input nothing is changed, and every problem is shown with its place (exit code 2).
    """
    is_asking = prune and not dry_run and not yes
    if is_asking and file == "-":
        raise UsageError(
            "--prune asks before it removes anything, and standard input is the file; look at 'cronally diff --prune -f FILE', then give --yes"
        )
    if is_asking:
        check_terminal("--prune asks before it removes anything", yes=yes)
    with o.connect(socket) as client:
        if is_asking:
            preview = _exchange(client, file, owner=owner, prune=prune, dry_run=True)
            if preview.reply.removed and not preview.problems:
                _show(preview.reply, only="remove", write=err if json else out)
                if not agreed(f"Remove {_schedules(preview.reply.removed)}?"):
                    err("nothing was applied")
                    return FAILED
        done = _exchange(client, file, owner=owner, prune=prune, dry_run=dry_run)
    return _report(done, as_json=json)


def diff_command(
    file: _File,
    owner: o.Owner = "default",
    prune: _Prune = False,
    json: o.Json = False,
    socket: o.Socket = None,
) -> int:
    """Show what 'cronally apply' would do with a file: + created, ~ changed, - removed, and the next fires before and after.

    Exit code 0 when nothing would change, 6 when something would. The first differences are shown, 10,000 at most, and all are counted.
    """
    with o.connect(socket) as client:
        done = _exchange(client, file, owner=owner, prune=prune, dry_run=True)
    code = _report(done, as_json=json)
    reply = done.reply
    return code or (_DIFFERS if reply.created or reply.changed or reply.removed else 0)


class _Exchange(NamedTuple):
    """What the daemon said of a file, and the problems at their places in it."""

    file: str
    reply: ApplyReply
    problems: list[FileProblem]


def _exchange(client: Client, file: str, *, owner: str, prune: bool, dry_run: bool) -> _Exchange:
    with opened(file) as source:
        head = source.read(_CHUNK_BYTES)
        form = format_of(file, head)

        def send(chunks: Iterable[bytes], size: int | None) -> ApplyReply:
            return _sent(client, chunks, size, owner=owner, prune=prune, dry_run=dry_run)

        if form == "lines" and not head.strip():
            reason = f"the file is empty; if nothing is what it shall hold, write {_NOTHING!r}"
            reply, problems = ApplyReply(problem_count=1), [FileProblem(1, None, reason)]
        elif form == "lines":
            # As they are: the daemon reads them, and what it says of a line is said of the file's line.
            reply = send(chain((head,), iter(lambda: source.read(_CHUNK_BYTES), b"")), size_of(source))
            problems = [FileProblem(p.line, p.name, p.reason) for p in reply.problems]
        else:
            data = head + source.read()
            contents = read_yaml(data) if form == "yaml" else read_json(data)
            if contents.problems:
                reply, problems = ApplyReply(problem_count=len(contents.problems)), contents.problems
            else:
                lines = list(contents.lines())
                reply = send(lines, sum(map(len, lines)))
                problems = [_at_its_place(contents, p.line, p.name, p.reason) for p in reply.problems]
    return _Exchange(
        "stdin" if file == "-" else file, reply, sorted(problems, key=lambda problem: problem.line)
    )


def _sent(
    client: Client, chunks: Iterable[bytes], size: int | None, *, owner: str, prune: bool, dry_run: bool
) -> ApplyReply:
    """Send *chunks*, *size* bytes together (None: nobody knows), while a bar shows how far that is."""
    with Progress(size) as progress:
        lines = size_bytes = 0

        def sent(chunk: bytes) -> None:
            nonlocal lines, size_bytes
            lines += chunk.count(b"\n")
            size_bytes += len(chunk)
            waiting = ", waiting for the daemon" if size_bytes == size else ""
            progress.reach(size_bytes, f"{_schedules(lines)} sent{waiting}")

        return client.apply(chunks, owner=owner, prune=prune, dry_run=dry_run, sent=sent)


def _at_its_place(contents: Contents, number: int, name: str | None, reason: str) -> FileProblem:
    """Turn the number of a line as it was sent into the file's line."""
    if not 1 <= number <= len(contents.schedules):
        return FileProblem(number, name, reason)
    schedule = contents.schedules[number - 1]
    return FileProblem(schedule.line, schedule.name, reason)


def _report(done: _Exchange, *, as_json: bool) -> int:
    reply, problems = done.reply, done.problems
    if as_json:
        out_json(to_plain(reply) | {"problems": [problem._asdict() for problem in problems]})
    if not reply.problem_count:
        if not as_json:
            _show(reply) if reply.is_dry_run else report(_done_text(reply))
        return 0
    from cronally.cli.render import printable

    for line, name, reason in problems[:MAX_SHOWN]:
        err(printable(f"{done.file}:{line}: {f'{name}: ' if name else ''}{reason}"))
    more = reply.problem_count - min(len(problems), MAX_SHOWN)
    if more:
        err(f"and {more:,} more")
    err("cronally: nothing was applied; correct the file and apply it again")
    return _BAD_INPUT


def _show(reply: ApplyReply, *, only: str | None = None, write: Callable[[str], None] = out) -> None:
    """Print the differences, all or of one kind, and how many there are."""
    from cronally.cli.differences import counts_text, difference_text, is_coloured

    coloured = is_coloured()
    for difference in reply.differences:
        if only in (None, difference.action):
            write(difference_text(difference, coloured=coloured))
    more = reply.created + reply.changed + reply.removed - len(reply.differences)
    if more:
        write(f"and {more:,} more")
    write(counts_text(reply))


def _done_text(reply: ApplyReply) -> str:
    removed = f", removed {reply.removed:,}" if reply.removed else ""
    return f"created {reply.created:,}, changed {reply.changed:,}{removed}, unchanged {reply.unchanged:,}"


def _schedules(count: int) -> str:
    return "1 schedule" if count == 1 else f"{count:,} schedules"
