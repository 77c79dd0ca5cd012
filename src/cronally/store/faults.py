"""What SQLite and the system say about a store's file, as errors of ours."""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cronally.errors import StoreBusy, StoreCorrupt, StoreError, StoreFull

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_TRUNCATE,
    }
)
_NO_SPACE: Final = "no space is left"
_WORDS: Final = {
    "No space left on device": _NO_SPACE,
    "File too large": _NO_SPACE,
    "Disk quota exceeded": _NO_SPACE,
}


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Raise what SQLite says about the store at *path* as StoreError."""
    try:
        yield
    except sqlite3.Error as exc:
        raise translation(path, exc) from exc
    except ValueError as exc:  # aiosqlite: "Connection closed", "no active connection"
        raise StoreError(f"the store {path} is not open ({exc})") from exc


def translation(path: str, exc: sqlite3.Error) -> StoreError:
    """Return the error that *exc* is for the store at *path*."""
    code = code_of(exc)
    if is_full(exc):
        return StoreFull(f"no space is left for the store {path} ({exc}); free some on its disk")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(f"another program keeps the store {path} busy ({exc}); try again")
    if is_damage(exc):
        return StoreCorrupt(path, str(exc))
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return unusable(path, str(exc))
    return StoreError(
        f"the store {path} failed: {exc} ({getattr(exc, 'sqlite_errorname', type(exc).__name__)})"
    )


def code_of(exc: BaseException) -> int:
    """Return SQLite's primary result code, 0 if *exc* has none."""
    return _extended(exc) & 0xFF  # the low byte is the kind of error, the rest says more


def is_damage(exc: BaseException) -> bool:
    """Whether *exc* says that the file is not sound."""
    return code_of(exc) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_full(exc: BaseException) -> bool:
    """Whether *exc* says that there is no space. A limit on the size of files looks like a write that fails."""
    return _extended(exc) in _FULL or code_of(exc) == sqlite3.SQLITE_FULL


def reason_of(exc: BaseException) -> str:
    """Say in a few words what the system or SQLite says in *exc*."""
    if isinstance(exc, OSError):
        text = exc.strerror or str(exc)
        return _WORDS.get(text, f"{text[:1].lower()}{text[1:]}")
    return f"{_NO_SPACE} ({exc})" if is_full(exc) else str(exc)


def unusable(path: str, reason: str) -> StoreError:
    """Return the error of a store that this user cannot write."""
    return StoreError(
        f"the store {path} cannot be opened for writing by uid {os.geteuid()}: {reason}; give cronally's user write access "
        "to the file and its directory, or name another place with --store"
    )


def _extended(exc: BaseException) -> int:
    return getattr(exc, "sqlite_errorcode", None) or 0
