"""What is done to a store that no daemon uses."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from cronally.config import load_config
from cronally.errors import StoreError
from cronally.store.copying import write_copy
from cronally.store.lock import locked
from cronally.store.restoring import Restore, finish_restore, restoring

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from cronally.engine.copies import Contents


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
