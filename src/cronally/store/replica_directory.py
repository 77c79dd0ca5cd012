"""Where the replicas of one daemon lie: a directory of its own, which goes with it, or is removed by the next one if it was killed."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cronally.store.faults import unusable

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def replica_directory(parent: str, table: str) -> Iterator[str]:
    """Give a new directory in *parent* for the block, and remove those that daemons of the same *table* have left. Errors: StoreError."""
    path = Path(parent) / f"{table}-{os.getpid()}"
    try:
        _remove_left(Path(parent), table)
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
        held = _locked(path)
    except OSError as exc:
        raise unusable(str(path), exc.strerror or str(exc)) from exc
    try:
        yield str(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if held is not None:
            os.close(held)


def _remove_left(parent: Path, table: str) -> None:
    """Remove the directories that nobody holds any more."""
    ours = re.compile(rf"{re.escape(table)}-\d+")
    for path in parent.glob(f"{table}-*"):
        if not ours.fullmatch(path.name):
            continue
        with suppress(OSError):  # somebody else is quicker
            held = _locked(path)
            if held is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(held)


def _locked(path: Path) -> int | None:
    """Lock a directory; return the descriptor that holds the lock, None if another process does."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
