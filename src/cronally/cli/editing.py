"""edit, mv: change a schedule in an editor; give it another name."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cronally.admin.wire import MoveReply, PutReply, Schedule, to_plain
from cronally.cli import options as o
from cronally.cli.exporting import document_of, yaml_entry
from cronally.cli.files import read_yaml
from cronally.cli.output import agreed, err, out_json, print_put, report
from cronally.errors import CronallyError, UsageError

EXAMPLES: Final = {
    "edit": """
        cronally edit nightly-report
        EDITOR='code --wait' cronally edit nightly-report
        """,
    "mv": """
        cronally mv nightly-report nightly-summary
        """,
}

_HEAD: Final = """\
# Change it, save and leave the editor; keys that are left out have their defaults. Leave it as it is to change nothing.
schedules:
"""


def edit_command(name: o.Name, json: o.Json = False, socket: o.Socket = None) -> int:
    """Open a schedule in your editor ($VISUAL, else $EDITOR, else vi), as the file that 'cronally export' writes; what you save becomes effective.

    If it is not right you are told why and can go on; what you wrote is not lost. If somebody else has changed the
    schedule meanwhile, nothing is overwritten (exit code 5).
    """
    with o.connect(socket) as client:
        present = client.schedule(name)
        before = _HEAD + yaml_entry(present.name, document_of(to_plain(present)))
        handle, path = tempfile.mkstemp(prefix=f"cronally-{name}-", suffix=".yaml")
        file = Path(path)
        with os.fdopen(handle, "w", encoding="utf-8") as writer:
            writer.write(before)
        while True:
            _open_editor(file)
            after = _left_in(file)
            if after == before.encode():
                file.unlink()
                return _unchanged(present, as_json=json)
            try:
                reply = client.put(name, _read(name, after), if_revision=present.revision)
            except CronallyError as exc:
                err(f"cronally: {exc}")
                if (
                    exc.exit_code != UsageError.exit_code
                    or not sys.stdin.isatty()
                    or not agreed("Edit it again?")
                ):
                    err(f"cronally: nothing was changed; what you wrote is in {file}")
                    return exc.exit_code
                continue
            file.unlink()
            print_put(reply, as_json=json)
            return 0


def _open_editor(file: Path) -> None:
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not command and not (sys.stdin.isatty() and sys.stdout.isatty()):
        file.unlink()
        raise UsageError(
            "there is no terminal for an editor; name one in $EDITOR that needs none, or use 'cronally set'"
        )
    command = command or "vi"
    try:
        code = subprocess.run([*shlex.split(command), str(file)], check=False).returncode  # noqa: S603 - the user names it
    except (OSError, ValueError) as exc:
        file.unlink()
        reason = exc.strerror.lower() if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise UsageError(
            f"the editor {command!r} cannot be started ({reason}); name another one in $EDITOR"
        ) from None
    if code:
        raise UsageError(f"the editor ended with {code}, so nothing was changed; what it left is in {file}")


def _left_in(file: Path) -> bytes:
    """Return what the editor has left. Errors: UsageError if it has left no file."""
    try:
        return file.read_bytes()
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        raise UsageError(
            f"nothing was changed: what the editor left in {file} cannot be read ({reason})"
        ) from None


def _read(name: str, data: bytes) -> dict[str, Any]:
    """Return the document in an edited file. Errors: UsageError, which names the line."""
    from cronally.cli.render import printable

    contents = read_yaml(data)
    if contents.problems:
        problem = contents.problems[0]
        raise UsageError(printable(f"line {problem.line}: {problem.reason}"))
    if [schedule.name for schedule in contents.schedules] != [name]:
        raise UsageError(
            f"the file must have the schedule {name!r} and no other; 'cronally mv' gives it another name"
        )
    # What the file does not say is at its default, a pause, too.
    return {"paused": False} | contents.schedules[0].document


def _unchanged(present: Schedule, *, as_json: bool) -> int:
    if as_json:
        out_json(to_plain(PutReply(outcome="unchanged", schedule=present)))
    else:
        report(f"unchanged {present.name}")
    return 0


def mv_command(
    name: o.Name,
    new_name: Annotated[str, typer.Argument(metavar="NEW-NAME", help="What it is to be called.")],
    json: o.Json = False,
    socket: o.Socket = None,
) -> None:
    """Give a schedule another name; its history answers to both.

    What is still to be published keeps the old name and its fire ids. What is computed from the name is computed anew,
    and shown: the spread, H in the rule, and the group on a FIFO topic unless it has one of its own.
    """
    with o.connect(socket) as client:
        reply = client.move(name, new_name)
    if json:
        out_json(to_plain(reply))
        return
    from cronally.cli.render import next_fires_text

    report(f"renamed {name} to {new_name}")
    for line in _what_moves(reply):
        report(f"  {line}")
    report(next_fires_text(reply.schedule))


def _what_moves(reply: MoveReply) -> list[str]:
    """Return what a new name has changed, a line each."""
    lines = []
    before, after = reply.before, reply.schedule
    if before.offset != after.offset:
        lines.append(
            f"it is sent {after.offset} after each slot, not {before.offset}: the spread goes by the name"
        )
    if after.next_fires and any(
        fire not in after.next_fires for fire in before.next_fires if fire >= after.next_fires[0]
    ):
        lines.append("its slots have moved: H goes by the name")
    if after.topic.endswith(".fifo") and after.group is None:
        lines.append(f"its message group on the FIFO topic is {after.name!r} now")
    if after.pending:
        fires = "1 pending fire keeps" if after.pending == 1 else f"{after.pending:,} pending fires keep"
        lines.append(f"{fires} the old name")
    return lines
