"""What ``doctor`` says about a store: its file, its rights, its disk. Nothing is changed, and no daemon is held up."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING, Final

from cronally.domain.findings import Finding, disk_finding, failed, ok, warning
from cronally.store.copying import Damaged, check, is_store, read_only
from cronally.store.faults import is_damage, reason_of
from cronally.store.filesystem import network_warning
from cronally.store.lock import LOCK_SUFFIX
from cronally.store.schema import MIGRATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

_STEPS: Final = 10_000  # of SQLite's machine, between two looks at the time: less than a millisecond


def examine_store(
    path: str, *, max_bytes: int, is_daemon: bool, is_late: Callable[[], bool]
) -> list[Finding]:
    """Return what there is to say. Blocks, until *is_late* says that it is time to end.

    max_bytes: up to which it may grow. is_daemon: one has answered, and uses this store.
    """
    path = os.path.realpath(path)
    return [
        _file_finding(path, is_daemon=is_daemon, is_late=is_late),
        _rights_finding(path, is_daemon=is_daemon),
        _space_finding(path, max_bytes),
    ]


def _file_finding(path: str, *, is_daemon: bool, is_late: Callable[[], bool]) -> Finding:
    if not os.path.lexists(path):
        return ok("store", f"there is none at {path} yet; 'cronally serve' makes it")
    network = network_warning(path)
    if network is not None:
        return warning("store", network, "move the store to a local disk")
    if is_daemon:
        return ok(
            "store",
            f"{path} is in use by the daemon; it was not read here ('cronally backup' checks all of it)",
        )
    if _is_used(path):
        return ok("store", f"{path} is in use by a process that does not answer here; it was not read")
    found = _sound(path, is_late)
    if found.health != "ok" and _is_used(path):
        return ok("store", f"{path} has just been taken by a daemon; it was not read to its end")
    return found


def _sound(path: str, is_late: Callable[[], bool]) -> Finding:
    restore = f"cronally restore FILE --store sqlite:{path} (the damaged file is kept)"
    try:
        if not is_store(path):
            return failed("store", f"{path} is no store of cronally's", "name the right file with --store")
        with closing(read_only(path)) as connection:
            [version] = connection.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                return failed(
                    "store",
                    f"{path} has schema version {version}, and this cronally knows up to {len(MIGRATIONS)}",
                    "start the newer cronally that wrote it",
                )
            connection.set_progress_handler(is_late, _STEPS)
            check(connection)
    except Damaged as exc:
        return failed("store", f"{path} is damaged: {exc}", restore)
    except sqlite3.Error as exc:
        if getattr(exc, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
            return warning(
                "store",
                f"{path} was not checked to its end in the time there is for that",
                f"cronally backup FILE --store sqlite:{path} checks all of it",
            )
        if is_damage(exc):
            return failed("store", f"{path} is damaged: {exc}", restore)
        return failed("store", f"{path} cannot be read: {reason_of(exc)}", "see to its disk and its rights")
    except OSError as exc:
        return failed("store", f"{path} cannot be read: {reason_of(exc)}", "see to its disk and its rights")
    return ok("store", f"{path} is sound (quick_check)")


def _is_used(path: str) -> bool:
    """Whether a process holds the lock; it is held here for no longer than it takes to ask."""
    try:
        descriptor = os.open(f"{path}{LOCK_SUFFIX}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _rights_finding(path: str, *, is_daemon: bool) -> Finding:
    directory, there = os.path.dirname(path), _nearest_there(path)
    try:
        mode, owner = os.stat(there).st_mode, os.stat(there).st_uid
        file_mode = os.stat(path).st_mode if os.path.lexists(path) else 0
    except OSError as exc:
        return failed("permissions", f"{path}: {reason_of(exc)}", "give the daemon's user its directory")
    if not is_daemon:
        if not stat.S_ISDIR(mode):
            return failed("permissions", f"{there} is not a directory", "choose another place with --store")
        places = [there, *([path] if file_mode else [])]
        shut = next((place for place in places if not os.access(place, os.R_OK | os.W_OK)), None)
        if shut is not None:
            return failed(
                "permissions",
                f"uid {os.geteuid()} may not read and write {shut} (it belongs to uid {owner})",
                "run cronally as the user of the store, or give that user the directory",
            )
    if there == directory and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        return warning("permissions", f"everybody may write in {directory}", f"chmod o-w {directory}")
    if file_mode & stat.S_IROTH and there == directory and mode & stat.S_IXOTH:
        return warning("permissions", f"everybody may read the messages in {path}", f"chmod o-rwx {path}")
    return ok(
        "permissions", f"{directory} is for its user" if there == directory else f"{directory} can be made"
    )


def _space_finding(path: str, max_bytes: int) -> Finding:
    there = _nearest_there(path)
    try:
        free_bytes = shutil.disk_usage(there).free
        store_bytes = os.stat(path).st_size if os.path.exists(path) else 0
    except OSError as exc:
        return warning("disk", f"{there} does not tell how much is free: {reason_of(exc)}", "look with 'df'")
    return disk_finding(path, free_bytes=free_bytes, store_bytes=store_bytes, max_bytes=max_bytes)


def _nearest_there(path: str) -> str:
    """Return the nearest directory above *path* that is there."""
    there = os.path.dirname(path)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    return there
