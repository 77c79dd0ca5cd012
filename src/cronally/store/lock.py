"""The right to use a store's file: one process at a time."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from cronally.errors import StoreLocked
from cronally.store.faults import unusable

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_SUFFIX = ".lock"


class Lock:
    """Held until ``release`` or the end of the process. ``PATH.lock`` names the holder."""

    def __init__(self, descriptor: int) -> None:
        """Take the descriptor of a file that is locked."""
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: str, *, fix: str | None = None) -> Self:
        """Take the lock of the store at *path*; its directory is made if need be.

        fix: what to do if another holds it, instead of what a second daemon is told. Errors: StoreLocked, StoreError.
        """
        try:
            os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
            descriptor = os.open(f"{path}{LOCK_SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileExistsError as exc:
            raise unusable(path, f"{os.path.dirname(path)} is not a directory") from exc
        except OSError as exc:
            raise unusable(path, exc.strerror or str(exc)) from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as exc:
            holder = os.pread(descriptor, 20, 0).strip()
            os.close(descriptor)
            raise StoreLocked(path, int(holder) if holder.isdigit() else None, fix=fix) from exc
        except OSError as exc:
            os.close(descriptor)
            raise unusable(path, exc.strerror or str(exc)) from exc
        return cls(descriptor)

    def release(self) -> None:
        """Let go of it."""
        # The file stays: whoever removed it could remove the one that the next holder has just locked.
        os.close(self._descriptor)


@contextmanager
def locked(path: str, *, fix: str) -> Iterator[None]:
    """Hold the lock of the store at *path* for the block. Errors: as ``Lock.take``."""
    lock = Lock.take(path, fix=fix)
    try:
        yield
    finally:
        lock.release()
