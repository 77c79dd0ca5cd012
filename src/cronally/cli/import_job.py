"""What all commands of ``import`` do: read the files, plan, report, and write if that is wanted."""

from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cronally.cli import options as o
from cronally.cli.input import opened, unreadable
from cronally.cli.output import err, out, out_json
from cronally.errors import Conflict, FieldError, ScheduleNotFound, UsageError

if TYPE_CHECKING:
    from cronally.admin.client import Client
    from cronally.cli.importing.found import Findings
    from cronally.cli.importing.planning import Choices, Item, Placed, Plan

OWNER: Final = "import"  # not that of apply, whose --prune must not remove what it never made
MAX_BYTES: Final = 16 * 1024 * 1024  # of a file; 10,000 manifests take less
_MAX_SHOWN: Final = 50


class Job(NamedTuple):
    """What all sources have in common. topic, prefix, …: as on the command line."""

    files: list[str] | None
    topic: str | None
    prefix: str
    tags: list[str] | None
    owner: str
    keep_dst: bool
    write: bool
    skip: bool
    json: bool
    socket: str | None


def carry_out(source: ModuleType, translate: "Callable[[str, str], Findings]", job: Job) -> int:
    """Read, plan, report and perhaps write; return the exit code.

    Args: source: has SYSTEM and GENERAL. translate: from the text of a file and its name.
    """
    from cronally.cli.importing import report
    from cronally.cli.importing.planning import plan
    from cronally.clock import SystemClock

    choices = _choices(job)
    sources = [_read(file, translate) for file in _names_of(job.files)]
    found = plan(sources, choices, SystemClock().wall())
    said = {"system": source.SYSTEM, "general": source.GENERAL}
    written = _write(found, job) if job.write else None
    if job.json:
        plain = report.report_plain(found, sources, **said)
        out_json(plain | {"written": None if written is None else written.plain})
    else:
        out(report.report_text(found, sources, **said))
    return _conclude(found, written, job)


def _choices(job: Job) -> "Choices":
    """Read what holds for all schedules. Errors: UsageError."""
    from cronally.cli.importing.naming import legal_name
    from cronally.cli.importing.planning import Choices
    from cronally.domain.spec import from_document
    from cronally.domain.topic import parse_topic_arn

    if job.topic is not None:
        try:
            parse_topic_arn(job.topic)
        except ValueError as exc:
            raise UsageError(f"--topic: {exc}") from None
    if job.prefix and (legal_name(f"{job.prefix}x") != f"{job.prefix}x" or len(job.prefix) > 40):
        raise UsageError(
            f"--prefix {job.prefix[:60]!r} cannot begin a name; use up to 40 letters, digits, dots, dashes or underscores, "
            "beginning with a letter or digit"
        )
    tags = tuple(job.tags or ())
    try:
        from_document(
            "x", {"when": "@daily", "topic": "arn:aws:sns:us-east-1:123456789012:x", "tags": list(tags)}
        )
    except FieldError as exc:
        raise UsageError(f"--tag: {exc.reason}") from None
    if job.skip and not job.write:
        raise UsageError("--skip belongs to --write")
    return Choices(topic=job.topic, prefix=job.prefix, tags=tags, keeps_dst=job.keep_dst)


# --- reading --------------------------------------------------------------------------------------------------------


def _names_of(files: list[str] | None) -> list[str]:
    names = files or ["-"]
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise UsageError(f"{twice} is there twice; name each file once")
    return names


def _read(file: str, translate: "Callable[[str, str], Findings]") -> "Placed":
    """Return what a file holds. Errors: UsageError, which names the file and the line."""
    from cronally.cli.importing.found import SourceProblem, decoded
    from cronally.cli.importing.planning import Placed

    place = "stdin" if file == "-" else file
    try:
        return Placed(place, translate(decoded(_bytes_of(file)), file))
    except SourceProblem as exc:
        raise UsageError(f"{place}:{exc.line}: {exc.reason}; nothing was imported") from None


def _bytes_of(file: str) -> bytes:
    try:
        with opened(file) as source:
            data = source.read(MAX_BYTES + 1)
    except OSError as exc:
        raise unreadable(file, exc) from None
    if len(data) > MAX_BYTES:
        raise UsageError(
            f"{'stdin' if file == '-' else file} has over {MAX_BYTES // 1024**2} MiB; import it in parts"
        )
    return data


# --- writing --------------------------------------------------------------------------------------------------------


class _Written(NamedTuple):
    """What --write came to. plain: for --json. sentences: for people. code: the exit code."""

    plain: dict[str, Any]
    sentences: list[str]
    code: int


def _write(found: "Plan", job: Job) -> _Written:
    """Apply the schedules, all or none."""
    if found.refused and not job.skip:
        return _unwritten(
            1,
            ["nothing was written, because of what cannot be imported; --skip writes the others without it"],
        )
    nameless = [item for item in found.items if "topic" not in item.document]
    if nameless:
        return _unwritten(
            2,
            [
                *_shown(f"{one.place}:{one.found.line}: {one.name}: no topic is known" for one in nameless),
                "nothing was written; name the topic with --topic ARN",
            ],
        )
    if not found.items:
        return _Written(
            {"created": 0, "changed": 0, "unchanged": 0, "problems": []}, ["there is nothing to write"], 0
        )
    with o.connect(job.socket) as client:
        taken = list(_taken(client, found.items, job.owner))
        if taken:
            return _unwritten(
                Conflict.exit_code,
                [
                    *_shown(taken),
                    "nothing was written; choose other names with --prefix, or --owner if they are those of an import",
                ],
            )
        reply = client.apply(_lines(found.items), owner=job.owner)
    if reply.problem_count:
        problems = [
            f"{item.place}:{item.found.line}: {item.name}: {problem.reason}"
            for problem in reply.problems
            for item in found.items[problem.line - 1 : problem.line]
        ]
        return _unwritten(
            2, [*_shown(problems), "nothing was written; correct the source and import it again"]
        )
    counts = {"created": reply.created, "changed": reply.changed, "unchanged": reply.unchanged}
    text = ", ".join(f"{word} {count:,}" for word, count in counts.items())
    return _Written(counts | {"problems": []}, [text], 0)


def _unwritten(code: int, sentences: list[str]) -> _Written:
    plain = {"created": 0, "changed": 0, "unchanged": 0, "problems": sentences[:-1] or sentences}
    return _Written(plain, sentences, code)


def _shown(lines: Iterable[str]) -> list[str]:
    every = list(lines)
    more = len(every) - _MAX_SHOWN
    return [*every[:_MAX_SHOWN], *([f"and {more:,} more"] if more > 0 else [])]


def _taken(client: "Client", items: "list[Item]", owner: str) -> Iterator[str]:
    """Yield a sentence for each name that a schedule has which this import did not make."""
    for item in items:
        try:
            present = client.schedule(item.name, fires=0)
        except ScheduleNotFound:
            continue
        if present.owner != owner:
            whose = f"of the owner {present.owner}" if present.owner else "made by hand"
            yield f"{item.place}:{item.found.line}: {item.name}: there is a schedule of that name already, {whose}"


def _lines(items: "list[Item]") -> Iterator[bytes]:
    from json import dumps

    return (dumps({"name": item.name, **item.document}).encode() + b"\n" for item in items)


def _conclude(found: "Plan", written: _Written | None, job: Job) -> int:
    """Say what was done and what to do next; return the exit code."""
    refused = len(found.refused)
    if written is not None:
        for sentence in written.sentences[:-1]:
            err(sentence)
        last = written.sentences[-1]
        if written.code:
            err(f"cronally: {last}")
        elif job.json:
            pass
        else:
            out(f"\n{last}{f'; left out {refused:,}' if refused else ''}")
        return written.code
    needs_topic = any("topic" not in item.document for item in found.items)
    to_write = f"to make them: --write{' --topic ARN' if needs_topic else ''}{' --skip' if refused else ''}"
    count = len(found.items)
    left = f"{refused:,} cannot be imported, " if refused else ""
    err(
        f"{count:,} schedule{'s' * (count != 1)}, {left}nothing was written; {to_write}"
        if count
        else f"{left or 'there are no schedules in it, '}nothing was written"
    )
    return 1 if refused else 0
