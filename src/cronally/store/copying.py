"""Copies of a store: written while it is in use, checked, and put in their place whole or not at all.

1. The copy is made of pages, in slices with a pause between them, from a connection of its own that holds one snapshot: measured beside
   a daemon at work it makes neither the event loop nor a commit late (docs/adr/0010-backup.md).
2. It is written beside its place under another name, checked, made durable, and only then named.
3. It is one file without a log, and never counts as stopped in order: what recovery skips after a restore may have been published.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
from contextlib import closing, contextmanager, suppress
from dataclasses import replace as replaced
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from cronally.engine.copies import Contents
from cronally.errors import BackupFailed, Conflict, StoreCorrupt
from cronally.store.faults import code_of, is_damage, is_full, reason_of, translated
from cronally.store.lock import LOCK_SUFFIX
from cronally.store.schema import APPLICATION_ID, CLEAN_STOP, WATERMARK

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

LOG_SUFFIXES: Final = ("-wal", "-shm", "-journal")
_OWN_SUFFIXES: Final = ("", LOCK_SUFFIX, ".restore", ".restore.part", *LOG_SUFFIXES)
_PAGES: Final = 100  # 400 KB: a slice takes about 0.3 ms
_PAUSE_S: Final = 0.001
_SYNC_SLICES: Final = 40  # 16 MB: commits wait while the disk writes more than that at once
_BUSY_TIMEOUT_S: Final = 5.0
_MAGIC: Final = b"SQLite format 3\0"
_ID_AT: Final = 68  # where an SQLite file has its application id

_CONTENTS: Final = """
    SELECT (SELECT count(*) FROM schedule WHERE removed_at IS NULL), (SELECT count(*) FROM journal),
        (SELECT count(*) FROM journal WHERE state = 'pending'), (SELECT value FROM meta WHERE key = ?)
"""


class Damaged(Exception):  # noqa: N818 - says the state
    """A file did not pass its check; the argument says why."""


def write_copy(source: str, target: str, *, replace: bool, stop: threading.Event) -> Contents:
    """Write a copy of the store at *source*, which may be in use, to *target*; return what is in it. Blocks.

    replace: an earlier copy may be there. stop: when set, it is given up. Errors: as ``BackupMaker.backup``.
    """
    target = _place(source, target, replace=replace)
    directory = os.path.dirname(target)
    part = os.path.join(directory, f".cronally-{secrets.token_hex(6)}.part")
    with _written(target):
        os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            _copy_pages(source, part, target, stop)
            with _of_store(source, target):
                try:
                    contents = seal(part)
                except Damaged as exc:
                    raise StoreCorrupt(source, str(exc)) from exc
            if replace:
                os.rename(part, target)
            else:
                name_new(part, target)
            sync(directory)
        finally:
            remove(part)
    return replaced(contents, path=target)


def check(connection: sqlite3.Connection) -> None:
    """Look for damage in the whole file. Errors: Damaged, sqlite3.Error."""
    [verdict] = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise Damaged(" ".join(verdict.split()))


def seal(path: str, *, is_clean: bool = False) -> Contents:
    """Make a whole store of the copy at *path*, check it, and make it durable. Errors: Damaged, sqlite3.Error, OSError.

    The log beside it, if there is one, is folded in. is_clean: all that was sent is on record in it.
    """
    with closing(_connected(path)) as connection:
        try:
            connection.execute("PRAGMA journal_mode = DELETE").fetchall()
            check(connection)
            connection.execute("UPDATE meta SET value = ? WHERE key = ?", (int(is_clean), CLEAN_STOP))
        except sqlite3.DatabaseError as exc:
            if is_damage(exc):
                raise Damaged(str(exc)) from exc
            raise
        contents = read_contents(connection, path)
    sync(path)
    return contents


def read_contents(connection: sqlite3.Connection, path: str) -> Contents:
    """Return what the store that is open at *connection* holds. Errors: sqlite3.Error."""
    [schedules, journal, pending, watermark] = connection.execute(_CONTENTS, (WATERMARK,)).fetchone()
    [schema] = connection.execute("PRAGMA user_version").fetchone()
    size = os.stat(path).st_size
    return Contents(
        path=path,
        size_bytes=size,
        schedules=schedules,
        journal=journal,
        pending=pending,
        watermark=watermark,
        schema=schema,
    )


def read_only(path: str) -> sqlite3.Connection:
    """Connect to the store at *path*, which nobody else uses, without a change to it. Errors: sqlite3.Error."""
    has_log = os.path.exists(f"{path}-wal")
    return _connected(path, mode="ro" if has_log else "ro&immutable=1")  # or it would make an empty log


def is_store(path: str) -> bool:
    """Whether the head of the file at *path* is that of a store of ours. Errors: OSError."""
    with open(path, "rb") as file:
        head = file.read(100)
    return head.startswith(_MAGIC) and int.from_bytes(head[_ID_AT : _ID_AT + 4]) == APPLICATION_ID


def remove(path: str) -> None:
    """Remove a file and its logs, as far as they are there."""
    for suffix in ("", *LOG_SUFFIXES):
        with suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")


def sync(path: str) -> None:
    """Make durable what is in the file *path*, or the names in the directory. Errors: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- where a copy may be written ----------------------------------------------------------------------------------


def _place(source: str, target: str, *, replace: bool) -> str:
    """Return the real path of *target*, if a copy may be put there. Errors: Conflict, BackupFailed."""
    directory, name = os.path.split(target)
    directory = os.path.realpath(directory)
    place = os.path.join(directory, name)
    if not os.path.isdir(directory):
        raise BackupFailed(target, f"there is no directory {directory}; make it first")
    if any(place == f"{source}{suffix}" for suffix in _OWN_SUFFIXES) or _is_same(place, source):
        raise BackupFailed(target, "that is the store itself; name another file")
    for suffix in (LOCK_SUFFIX, *LOG_SUFFIXES):
        if os.path.lexists(f"{place}{suffix}"):
            raise BackupFailed(
                target, f"{name}{suffix} beside it shows that it is a store; name another file"
            )
    try:
        found = os.lstat(place)
    except FileNotFoundError:
        return place
    except OSError as exc:
        raise BackupFailed(target, f"{reason_of(exc)}{_who()}") from exc
    if not replace:
        raise Conflict(
            f"{target} exists already; name another file, or replace an earlier backup with --force"
        )
    try:
        is_backup = stat.S_ISREG(found.st_mode) and is_store(place)
    except OSError as exc:
        raise BackupFailed(target, f"{reason_of(exc)}{_who()}") from exc
    if not is_backup:
        raise BackupFailed(
            target, "what is there is no backup of cronally's, and is not replaced; name another file"
        )
    return place


def _is_same(place: str, source: str) -> bool:
    try:
        return os.path.samefile(place, source)
    except OSError:
        return False


def _who() -> str:
    return f" (it is written by the daemon's user, uid {os.geteuid()})"


def name_new(part: str, target: str) -> None:
    """Give *part* the name *target*, unless there is something by now. Errors: Conflict, OSError."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise Conflict(f"{target} has come into being meanwhile; name another file") from None
    except OSError:  # a file system without links
        os.rename(part, target)


@contextmanager
def _written(target: str) -> Iterator[None]:
    """Raise what the system says as an error about the copy."""
    try:
        yield
    except PermissionError as exc:
        raise BackupFailed(target, f"permission denied{_who()}") from exc
    except OSError as exc:
        raise BackupFailed(target, reason_of(exc)) from exc


# --- the copy -----------------------------------------------------------------------------------------------------


def _copy_pages(source: str, part: str, target: str, stop: threading.Event) -> None:
    slices = 0

    def pause(_status: int, _remaining: int, _total: int) -> None:
        nonlocal slices
        slices += 1
        if slices % _SYNC_SLICES == 0:
            sync(part)
        if stop.wait(_PAUSE_S):
            raise BackupFailed(target, "the daemon is stopping")

    with (
        _of_store(source, target),
        closing(_connected(source)) as reading,
        closing(_connected(part)) as writing,
    ):
        reading.execute("PRAGMA query_only = ON")
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM meta").fetchone()  # from here on it sees one state
        writing.execute("PRAGMA journal_mode = OFF").fetchall()  # it is thrown away if anything happens,
        writing.execute("PRAGMA synchronous = OFF")  # and made durable once, at the end
        reading.backup(writing, pages=_PAGES, progress=pause)
        reading.execute("ROLLBACK")


@contextmanager
def _of_store(source: str, target: str) -> Iterator[None]:
    """Tell what SQLite says about the copy from what it says about the store."""
    with translated(source):
        try:
            yield
        except sqlite3.Error as exc:
            if is_full(exc) or code_of(exc) == sqlite3.SQLITE_CANTOPEN:
                raise BackupFailed(target, reason_of(exc)) from exc
            raise


def _connected(path: str, *, mode: str = "rw") -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(path)}?mode={mode}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
