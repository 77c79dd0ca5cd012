"""What is done to a store that no daemon uses."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cronally.clock import SystemClock
from cronally.config import load_config
from cronally.errors import StoreError, UsageError
from cronally.logs import silent_logs
from cronally.sns.aws import Aws
from cronally.sns.clients import Clients
from cronally.sns.credentials import Credentials
from cronally.store.copying import write_copy
from cronally.store.lock import locked
from cronally.store.moving import Move, Moved, PatientTable
from cronally.store.restoring import Restore, finish_restore, restoring

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractContextManager

    from cronally.domain.store_name import StoreName
    from cronally.engine.copies import Contents

_T = TypeVar("_T")


def copy_store(
    file: str, flags: Mapping[str, object], *, config_file: str | None = None, replace: bool
) -> Contents:
    """Copy a store that no daemon uses to *file*, an absolute path; return what is in the copy.

    Errors: ConfigError, StoreLocked (a daemon uses it), and as for a daemon's backup.
    """
    path = os.path.realpath(load_config(os.environ, flags, config_file=config_file).store_path)
    if not Path(path).exists():
        raise StoreError(f"there is no store at {path}; name one with --store")
    with locked(path, fix="leave out --store and --config, and the daemon writes the backup while it runs"):
        finish_restore(path)
        return write_copy(path, file, replace=replace, stop=threading.Event())


def restore_store(
    file: str, flags: Mapping[str, object], *, config_file: str | None = None
) -> AbstractContextManager[Restore]:
    """Hold the store that the settings name for a block, with a checked copy of *file* ready to be put in its place.

    Errors: ConfigError, and those of ``store.restoring.restoring``.
    """
    return restoring(file, load_config(os.environ, flags, config_file=config_file).store_path)


def create_table(name: str) -> bool:
    """Make the table that machines share; return whether it is new. Errors: StoreError, CredentialsInvalid."""
    return _with_table(name, lambda table: table.create())


def copy_between(
    source: StoreName,
    target: StoreName,
    tell: Callable[[str], None],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Moved:
    """Copy an installation from a file to a table, or back. tell, progress, errors: as ``store.moving.Move`` has them; CredentialsInvalid."""
    is_to_table = target.kind == "dynamodb"
    file, table_name = (source, target) if is_to_table else (target, source)

    async def copy(table: PatientTable) -> Moved:
        move = Move(file.place, table, SystemClock(), tell=tell, progress=progress)
        return await (move.to_table() if is_to_table else move.to_file())

    return _with_table(table_name.place, copy)


def table_region(credentials: Credentials, *, default: str | None = None) -> str:
    """Return the region that tables are in: that of the environment or the profile. Errors: UsageError if there is none."""
    region = Aws(credentials).region or default
    if region is None:
        raise UsageError("in which region is the table? set AWS_REGION, or the region of the profile")
    return region


def _with_table(name: str, work: Callable[[PatientTable], Awaitable[_T]]) -> _T:
    """Do *work* with the table *name*, by the credentials of this user."""

    async def main() -> _T:
        clock = SystemClock()
        credentials = Credentials(clock)
        await credentials.start()
        region = table_region(credentials)
        clients = Clients(credentials, service="dynamodb")
        try:
            return await work(PatientTable(name, lambda: clients.get(region), clock))
        finally:
            await clients.close()

    with silent_logs():  # what went wrong is raised, and said once
        return asyncio.run(main())
