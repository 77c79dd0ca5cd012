"""Stores in files: filled, asked behind their backs, and damaged."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cronally.domain.model import JournalEntry, State
from cronally.domain.spec import from_document
from cronally.engine.records import ScheduleChange
from cronally.instants import UtcMs
from support.rig import TOPIC

if TYPE_CHECKING:
    from collections.abc import Iterator

T = UtcMs(1_795_510_800_000)
PAGE = 4096


def creation(name: str, when: str = "0 9 * * *", **keys: object) -> ScheduleChange:
    """Return the change that makes a schedule."""
    spec = from_document(name, {"when": when, "topic": TOPIC, **keys})
    return ScheduleChange(at=T, by="uid 1000", action="add", new_spec=spec, effective_from=T)


def published(fire_time: int, schedule_id: int = 1) -> JournalEntry:
    """Return the row of a fire that was published."""
    return JournalEntry(
        schedule_id=schedule_id,
        revision_id=1,
        fire_time=UtcMs(fire_time),
        due_time=UtcMs(fire_time),
        state=State.PUBLISHED,
    )


def asked(path: Path | str, sql: str) -> list[tuple[Any, ...]]:
    """Ask the file with another connection."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def damage(path: Path, *, from_page: int = 12) -> None:
    """Write over the head of each page from *from_page* on, as a failing disk does."""
    with path.open("r+b") as file:
        for page in range(from_page, path.stat().st_size // PAGE):
            file.seek(page * PAGE)
            file.write(b"\xff" * 100)


NOBODY = 65_534


@contextmanager
def unprivileged(directory: Path) -> Iterator[None]:
    """Be somebody for whom permissions count, and who owns *directory*, for the block: nobody instead of root."""
    if os.geteuid() != 0:
        yield
        return
    for parent in directory.parents[:-2]:
        parent.chmod(parent.stat().st_mode | 0o111)
    owned = [directory, *directory.rglob("*")]
    for entry in owned:
        os.chown(entry, NOBODY, NOBODY, follow_symlinks=False)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def run_python(script: str, *arguments: object, timeout_s: float = 50) -> subprocess.CompletedProcess[str]:
    """Run *script* in a process of its own, where ``support`` can be imported; whatever its exit code."""
    tests = str(Path(__file__).parent.parent)
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({tests!r})\n{script}", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
