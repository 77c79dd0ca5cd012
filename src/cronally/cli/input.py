"""Files that are named on the command line, and standard input."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cronally.cli.output import note
from cronally.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """Open *file* for the block; ``-`` is standard input. Errors: UsageError if it cannot be opened."""
    if file == "-":
        if sys.stdin.isatty():
            note("reading from the terminal; Ctrl-D ends it")
        yield sys.stdin.buffer
        return
    try:
        source = Path(file).open("rb")  # noqa: SIM115 - closed below; only opening may fail like this
    except (OSError, ValueError) as exc:  # ValueError: a NUL in its name
        raise unreadable(file, exc) from None
    with source:
        yield source


def size_of(source: BinaryIO) -> int | None:
    """Return how many bytes a file has; None if it is none that has a size, such as a pipe."""
    try:
        status = os.fstat(source.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def unreadable(file: str, exc: OSError | ValueError) -> UsageError:
    """Return the error that says why *file* cannot be read."""
    reason = (getattr(exc, "strerror", None) or str(exc)).lower()
    return UsageError(f"the file {file} cannot be read: {reason}; name another, or - for standard input")
