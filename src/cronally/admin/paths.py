"""Where the admin socket is."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cronally.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM_SOCKET: Final = "/run/cronally/cronally.sock"
SOCKET_VARIABLE: Final = "CRONALLY_SOCKET"
HOST_VARIABLE: Final = "CRONALLY_HOST"
MAX_PATH_BYTES: Final = 103 if sys.platform == "darwin" else 107  # unix(7): sun_path without its final NUL


def state_directory(environ: Mapping[str, str]) -> str:
    """Return ``$XDG_STATE_HOME/cronally``, by default ``~/.local/state/cronally``; it need not exist."""
    state = _absolute(environ.get("XDG_STATE_HOME"))
    if state is None:
        state = Path(environ.get("HOME") or Path.home()) / ".local" / "state"
    return str(state / "cronally")


def default_socket(environ: Mapping[str, str]) -> str:
    """Return where a daemon puts its socket if nobody says otherwise."""
    return environ.get(SOCKET_VARIABLE) or _own_sockets(environ)[0]


def read_only_socket(socket: str) -> str:
    """Return where a daemon with its socket at *socket* has the one for reading alone: ``cronally-ro.sock`` beside ``cronally.sock``."""
    path = Path(socket)
    return str(path.with_name(f"{path.stem}-ro{path.suffix}"))


def find_socket(environ: Mapping[str, str], *, system_socket: str = SYSTEM_SOCKET) -> str:
    """Return where a client looks for a daemon (design §10).

    ``$CRONALLY_SOCKET``; else the system's socket if it exists; else the user's own, in the runtime directory or, if
    there is none there, in the state directory (a daemon started without a login session has no runtime directory). Where
    this user may not use it, but may use the one for reading alone, that one.
    """
    named = environ.get(SOCKET_VARIABLE)
    if named:
        return named
    own = _own_sockets(environ)
    found = next((path for path in (system_socket, *own) if _exists(path)), own[0])
    reading = read_only_socket(found)
    return reading if not _may_use(found) and _may_use(reading) else found


def check_path(path: str) -> str:
    """Return *path* if the system can take it as a socket's. Errors: UsageError."""
    if not path:
        raise UsageError("the socket path is empty; give --socket a path such as /run/cronally/cronally.sock")
    size = len(os.fsencode(path))
    if size > MAX_PATH_BYTES:
        raise UsageError(
            f"the socket path {path} has {size} bytes and a Unix socket takes at most {MAX_PATH_BYTES}; "
            "choose a shorter one with --socket"
        )
    return path


def _own_sockets(environ: Mapping[str, str]) -> list[str]:
    runtime = _absolute(environ.get("XDG_RUNTIME_DIR"))
    directories = [str(runtime / "cronally")] if runtime else []
    return [f"{directory}/cronally.sock" for directory in (*directories, state_directory(environ))]


def _absolute(path: str | None) -> Path | None:
    """XDG Base Directory Specification: a relative path is to be ignored."""
    return Path(path) if path and path.startswith("/") else None


def _may_use(path: str) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _exists(path: str) -> bool:
    try:
        Path(path).stat()
    except PermissionError:
        return True  # it may be there; connecting will say that we may not
    except OSError:
        return False
    return True
