"""A backup put in the place of a store, whole or not at all.

1. No daemon runs meanwhile: the store's lock is held from the first look to the end.
2. What will be put there is a copy of the file beside the store, checked; nothing is changed before ``Restore.commit``.
3. ``commit`` gives that copy the name ``PATH.restore``. From then on the restore has happened: whoever is interrupted, the next to
   open the store, daemon or restore, finishes it (``finish_restore``). The old file and its log are renamed, never removed.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cronally.errors import BackupUnusable, SchemaMismatch, StoreError, UsageError
from cronally.store.copying import (
    Damaged,
    check,
    is_store,
    read_contents,
    read_only,
    remove,
    seal,
    sync,
)
from cronally.store.faults import is_damage, reason_of
from cronally.store.lock import LOCK_SUFFIX, Lock, locked
from cronally.store.schema import APPLICATION_ID, MIGRATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cronally.engine.copies import Contents

_PREPARED: Final = ".restore.part"
_DECIDED: Final = ".restore"
_MOST_NAMES: Final = 20

_LIVING: Final = (
    "SELECT s.name AS name, r.document AS document FROM {0}.schedule AS s JOIN {0}.revision AS r ON r.id = s.revision_id "
    "WHERE s.removed_at IS NULL"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Schedules that would change. gone, back, changed: how many there are only now, only in the backup, or in both and different.

    names: of each kind the first 20, by name. entries: rows that the journal has about slots due after the backup's watermark.
    """

    gone: int = 0
    back: int = 0
    changed: int = 0
    names: dict[str, list[str]] = field(default_factory=dict)
    entries: int = 0


class Restore:
    """A restore that is ready.

    Attributes: path: the store. backup: what would be put there. present: what is there now, or None; then damage says why it
        cannot be read, or is None if there is nothing. difference: between the two, None if the present one cannot be read.
        finished: where the old file is kept of an earlier, interrupted restore that was finished first, or None.
    """

    def __init__(self, path: str, backup: Contents, *, finished: str | None) -> None:
        """Look at what is there now."""
        self.path = path
        self.backup = backup
        self.finished = finished
        self.present: Contents | None = None
        self.damage: str | None = None
        self.difference: Difference | None = None
        try:
            self._look()
        except (sqlite3.Error, OSError, Damaged) as exc:
            self.present, self.difference = None, None
            self.damage = str(exc) if isinstance(exc, Damaged) else reason_of(exc)

    def commit(self) -> str | None:
        """Put it there; return where the old file is kept, or None if there was none. Errors: StoreError."""
        part = f"{self.path}{_PREPARED}"
        try:
            give(part, like=self.path)
            os.rename(part, f"{self.path}{_DECIDED}")
            sync(os.path.dirname(self.path))
        except OSError as exc:
            raise _failed(self.path, exc) from exc
        return finish_restore(self.path)

    def _look(self) -> None:
        if not os.path.exists(self.path):
            return
        with closing(read_only(self.path)) as connection:
            [application_id] = connection.execute("PRAGMA application_id").fetchone()
            if application_id not in (0, APPLICATION_ID):
                raise UsageError(
                    f"{self.path} is a file of another program; name a store of cronally's with --store"
                )
            check(connection)
            self.present = read_contents(connection, self.path)
            connection.execute("ATTACH ? AS backup", (f"{self.path}{_PREPARED}",))
            self.difference = _difference(connection, self.backup)


def _difference(connection: sqlite3.Connection, backup: Contents) -> Difference:
    now, then = _LIVING.format("main"), _LIVING.format("backup")
    statements = {
        "gone": f"SELECT name FROM ({now}) EXCEPT SELECT name FROM ({then})",  # noqa: S608 - constants of this file
        "back": f"SELECT name FROM ({then}) EXCEPT SELECT name FROM ({now})",  # noqa: S608
        "changed": f"SELECT now.name FROM ({now}) AS now JOIN ({then}) AS earlier USING (name) "  # noqa: S608
        "WHERE now.document <> earlier.document",
    }
    counts = {
        kind: connection.execute(f"SELECT count(*) FROM ({statement})").fetchone()[0]  # noqa: S608
        for kind, statement in statements.items()
    }
    names = {
        kind: [name for (name,) in connection.execute(f"{statement} ORDER BY 1 LIMIT ?", (_MOST_NAMES,))]
        for kind, statement in statements.items()
    }
    after = (backup.watermark,) if backup.watermark is not None else (-(1 << 62),)
    [entries] = connection.execute(
        "SELECT count(*) FROM journal WHERE coalesce(last_due, fire_time) > ?", after
    ).fetchone()
    return Difference(**counts, names={kind: some for kind, some in names.items() if some}, entries=entries)


@contextmanager
def restoring(file: str, path: str) -> Iterator[Restore]:
    """Hold the store at *path* for the block, with a checked copy of the backup *file* ready to be put there.

    Errors: UsageError (no such file, or none of ours), BackupUnusable (damaged), SchemaMismatch, StoreLocked, StoreError.
    """
    path, file = os.path.realpath(path), os.path.realpath(file)
    _check_file(file, path)
    is_new_lock = not os.path.exists(f"{path}{LOCK_SUFFIX}")
    with locked(path, fix="stop it first; no daemon may run on a store that is restored"):
        if is_new_lock:
            with suppress(OSError):
                give(f"{path}{LOCK_SUFFIX}", like=path)
        finished = finish_restore(path)
        part = f"{path}{_PREPARED}"
        remove(part)
        try:
            yield Restore(path, _prepare(file, part, path), finished=finished)
        finally:
            remove(part)


def finish_restore(path: str) -> str | None:
    """Finish a restore that was decided; return where the old file is kept, or None if there was none to do.

    The caller holds the lock of the store at *path*. Interrupted at any point, it goes on where it was when it is called again.
    Errors: StoreError.
    """
    decided = f"{path}{_DECIDED}"
    try:
        made = os.stat(decided).st_mtime_ns
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise _failed(path, exc) from exc
    stamp = datetime.fromtimestamp(made // 1_000_000 / 1000, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]
    kept = f"{path}.before-{stamp}Z"  # the same whenever it is called for this restore
    try:
        for suffix in ("-wal", "-journal", ""):  # beside it under its name, the log stays a part of it
            with suppress(FileNotFoundError):
                os.rename(f"{path}{suffix}", f"{kept}{suffix}")
        with suppress(FileNotFoundError):
            os.unlink(f"{path}-shm")  # an index of the log, made anew when it is missing
        directory = os.path.dirname(path)
        sync(directory)
        os.rename(decided, path)
        sync(directory)
    except OSError as exc:
        raise _failed(path, exc) from exc
    return kept if os.path.exists(kept) else None


def _check_file(file: str, path: str) -> None:
    try:
        found = os.stat(file)
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{file} is no file; name one that 'cronally backup' wrote")
        if not is_store(file):
            raise UsageError(
                f"{file} is no backup of a store of cronally's; name one that 'cronally backup' wrote"
            )
    except OSError as exc:
        raise UsageError(
            f"{file} cannot be read: {reason_of(exc)}; name a file that 'cronally backup' wrote"
        ) from exc
    with suppress(OSError):
        if os.path.samefile(file, path):
            raise UsageError(f"{file} is the store itself; name a file that 'cronally backup' wrote")
    if os.path.exists(f"{file}{LOCK_SUFFIX}"):
        Lock.take(file, fix="'cronally backup' makes a copy of it that can be restored").release()


def _prepare(file: str, part: str, path: str) -> Contents:
    """Copy *file*, with the log beside it if there is one, to *part*, and check it."""
    try:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError), open(f"{file}{suffix}", "rb") as reading:
                descriptor = os.open(
                    f"{part}{suffix}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
                )
                with open(descriptor, "wb") as writing:
                    shutil.copyfileobj(reading, writing, 1 << 20)
        with closing(read_only(part)) as connection:
            [schema] = connection.execute("PRAGMA user_version").fetchone()
        if schema > len(MIGRATIONS):
            raise SchemaMismatch(file, found=schema, wanted=len(MIGRATIONS))
        return seal(part)
    except OSError as exc:
        raise BackupUnusable(file, f"its copy beside {path} cannot be written: {reason_of(exc)}") from exc
    except (Damaged, sqlite3.Error) as exc:
        if isinstance(exc, Damaged) or is_damage(exc):
            raise BackupUnusable(file, f"it is damaged ({exc}); take another backup") from exc
        raise BackupUnusable(file, reason_of(exc)) from exc


def give(file: str, *, like: str) -> None:
    """Let *file* belong to the owner of the store, or else of its directory, when root restores for a daemon that is not root."""
    if os.geteuid() != 0:
        return
    try:
        owner = os.stat(like)
    except FileNotFoundError:
        owner = os.stat(os.path.dirname(like))
    os.chown(file, owner.st_uid, owner.st_gid)


def _failed(path: str, exc: OSError) -> StoreError:
    return StoreError(
        f"the restore of {path} is not finished: {reason_of(exc)}; put that right and run it again, nothing is lost"
    )
