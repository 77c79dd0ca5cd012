"""backup and restore: a copy of the store, and the way back."""

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cronally.admin.wire import Copy, to_plain
from cronally.cli import options as o
from cronally.cli.output import FAILED, agreed, err, out, out_json, report
from cronally.errors import DaemonUnreachable, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES: Final = {
    "backup": """
        cronally backup /var/backups/cronally.db
        cronally backup /var/backups/cronally.db --force
        cronally backup cronally.db --store sqlite:/var/lib/cronally/cronally.db
        """,
    "restore": """
        cronally restore /var/backups/cronally.db --dry-run
        cronally restore /var/backups/cronally.db
        cronally restore /var/backups/cronally.db --store sqlite:/var/lib/cronally/cronally.db --yes
        """,
}


def backup_command(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Where the copy goes; a relative path is yours.")
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier backup; nothing else is ever replaced.")
    ] = False,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="sqlite:PATH", help="Copy this store, which no daemon uses now."),
    ] = None,
    config: o.Config = None,
    json: o.Json = False,
    socket: o.Socket = None,
) -> None:
    """Write a consistent, checked copy of the store: schedules, pauses, journal.

    The daemon writes it while it goes on firing, as its own user and readable for that user alone; FILE is whole or not
    there. If no daemon runs, --store or --config names the store to copy. 'cronally restore' is the way back.
    """
    path = _absolute(file)
    host = o.remote_host(socket)
    if host is not None and not file.startswith("/"):
        raise UsageError(
            f"{file!r} would be written by the daemon at {host}; name it there from the root, such as /var/backups/cronally.db"
        )
    if store is None and config is None:
        with o.connect(socket) as client:
            try:
                copy = client.backup(path, force=force)
            except DaemonUnreachable as exc:
                err(f"cronally: {exc}")
                err(
                    "cronally: to copy the store of a daemon that is stopped, name it with --store sqlite:PATH"
                )
                raise typer.Exit(exc.exit_code) from None
    else:
        if host is not None:
            raise UsageError(
                "--store and --config name a store of this machine, and --host another one; leave one out"
            )
        from cronally import app
        from cronally.admin.answers import copy_answer

        copy = copy_answer(app.copy_store(path, {"store": store}, config_file=config, replace=force))
    if json:
        out_json(to_plain(copy))
        return
    report(
        f"wrote {copy.file}: {_size(copy.size_bytes)}, schedules: {copy.schedules:,}, journal entries: {copy.journal:,}, "
        f"settled up to {copy.watermark or '-'}; checked"
    )


def restore_command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What 'cronally backup' wrote.")],
    store: Annotated[
        str | None,
        typer.Option(
            "--store", metavar="sqlite:PATH", help="The store to replace. [default: in the state directory]"
        ),
    ] = None,
    config: o.Config = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    json: o.Json = False,
) -> int:
    """Put a backup in the place of the store, after a check, and keep the old file beside it under another name.

    The daemon must be stopped. Schedules and journal are then those of the backup. When the daemon starts again, the slots due since
    the backup are decided by each schedule's catch_up, as after a crash: what was published since may be published once more, with the
    same fire id. A damaged store can be replaced, too.
    """
    is_asking = not (yes or dry_run)
    if is_asking and not sys.stdin.isatty():
        raise UsageError(
            "'cronally restore' asks before it replaces a store; off a terminal give --yes, or --dry-run to look"
        )
    from cronally import app
    from cronally.admin.answers import copy_answer

    with app.restore_store(_absolute(file), {"store": store}, config_file=config) as ready:
        backup = copy_answer(ready.backup)
        present = None if ready.present is None else copy_answer(ready.present)
        if ready.finished is not None:
            err(
                f"a restore that was interrupted is finished; the store before it is kept as {ready.finished}"
            )
        if not json or is_asking:
            (err if json else out)(_preview(ready, backup, present, _absolute(file)))
        if is_asking and not agreed(f"Replace {ready.path}?"):
            err("nothing was changed")
            return FAILED
        kept = None if dry_run else ready.commit()
    if json:
        out_json(
            {
                "store": ready.path,
                "restored": not dry_run,
                "kept": kept,
                "backup": to_plain(backup) | {"file": _absolute(file)},
                "present": to_plain(present) if present else None,
                "damage": ready.damage,
                "difference": asdict(ready.difference) if ready.difference else None,
            }
        )
    elif dry_run:
        out("nothing was changed (--dry-run)")
    else:
        report(f"restored {ready.path}{'' if kept is None else f'; the store before it is kept as {kept}'}")
        report("start the daemon with 'cronally serve'")
    return 0


def _absolute(file: str) -> str:
    if not file or file.endswith("/"):
        raise UsageError(f"{file!r} is no name of a file; name one such as /var/backups/cronally.db")
    return os.path.abspath(file)  # noqa: PTH100 - links stay as they are named


def _preview(ready: Any, backup: Copy, present: Copy | None, file: str) -> str:
    from cronally.cli.render import printable, table

    columns: Sequence[Copy | None] = (backup, present)
    rows = [
        ("schedules", *(_cell(copy, "schedules") for copy in columns)),
        ("journal entries", *(_cell(copy, "journal") for copy in columns)),
        ("still to be published", *(_cell(copy, "pending") for copy in columns)),
        ("settled up to", *("-" if copy is None else copy.watermark or "-" for copy in columns)),
        ("size", *("-" if copy is None else _size(copy.size_bytes) for copy in columns)),
    ]
    lines = [f"restore {file} to {ready.path}", "", table(("", "BACKUP", "NOW"), rows), ""]
    if ready.damage is not None:
        lines.append(f"what is there now cannot be read: {printable(ready.damage)}")
    elif present is None:
        lines.append("there is no store there now")
    if ready.difference is not None:
        lines += _changes(ready.difference)
    since = backup.watermark or "the creation of each schedule"
    lines += [
        f"Slots due after {since} are decided by each schedule's catch_up when the daemon starts;",
        "what was published since then may be published once more, with the same fire id.",
    ]
    if ready.damage is not None or present is not None:
        lines.append("The file that is there now is kept beside it under another name.")
    return "\n".join(lines)


def _changes(difference: Any) -> "list[str]":
    from cronally.cli.render import printable

    kinds = (
        ("gone", "not in the backup, which will be gone"),
        ("back", "only in the backup, which will be back"),
        ("changed", "different in the backup, which will be as they were"),
    )
    lines = []
    for kind, words in kinds:
        count = getattr(difference, kind)
        if count:
            names = difference.names[kind]
            more = "" if count <= len(names) else ", …"
            lines.append(f"schedules {words} ({count:,}): {printable(', '.join(names))}{more}")
    if difference.entries:
        lines.append(
            f"journal entries about slots after the backup, which will be gone: {difference.entries:,}"
        )
    return lines or ["The schedules are the same."]


def _cell(copy: Copy | None, key: str) -> str:
    return "-" if copy is None else f"{getattr(copy, key):,}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1_000_000:,.1f} MB"
