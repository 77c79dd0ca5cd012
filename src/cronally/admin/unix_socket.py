"""The listening end of a Unix socket: making it safely, and knowing who is at the other end."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import struct
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.admin.paths import check_path
from cronally.errors import CronallyError, UsageError

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket
    from collections.abc import Iterator

SOCKET_MODE: Final = 0o660
DIRECTORY_MODE: Final = 0o750
PASSABLE_MODE: Final = 0o751  # for a second group: whoever knows a socket's name comes to its own mode
_BACKLOG: Final = 128
_PROBE_S: Final = 1.0
_UCRED: Final = struct.Struct("3i")  # unix(7), SO_PEERCRED: pid, uid, gid


def bind_socket(
    path: str, *, group: str | None = None, directory_mode: int = DIRECTORY_MODE
) -> socket.socket:
    """Return a listening socket at *path*, mode 0660, in a directory that is made (0750) if it is missing.

    group: to whose members it belongs instead of the daemon's own group.

    A socket that nobody listens on is a leftover and is replaced. The directory is locked meanwhile, so that of two
    daemons that start together neither takes the other's for a leftover.
    Errors: UsageError for the path or the group; CronallyError if it cannot be made or a daemon answers there.
    """
    directory = Path(check_path(path)).absolute().parent
    if group is not None:
        group_id(group)  # refused before anything is made
    try:
        _make_directory(directory, directory_mode)
        with _locked(directory):
            _clear_leftover(Path(path))
            return _listening(path, group)
    except OSError as exc:
        raise CronallyError(
            f"the socket {path} cannot be made: {_reason(exc)}; make {directory} writable for this user, "
            "or choose another path with --socket"
        ) from exc


def remove_socket(path: str, inode: tuple[int, int]) -> None:
    """Remove the socket at *path* if it is still the one with that (device, inode), not another daemon's."""
    with suppress(OSError):
        if inode_of(path) == inode:
            Path(path).unlink()


def inode_of(path: str) -> tuple[int, int]:
    """Return (device, inode) of what is at *path*. Errors: OSError."""
    found = Path(path).stat()
    return found.st_dev, found.st_ino


class Peer(NamedTuple):
    """Who is at the other end of a socket: user and process id."""

    uid: int
    pid: int


def peer_of(sock: socket.socket | TransportSocket) -> Peer | None:
    """Return who is at the other end, as the kernel knows it, or None where it cannot say."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    try:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError:
        return None
    pid, uid, _ = _UCRED.unpack(credentials)
    return Peer(uid, pid)


def user_name(uid: int) -> str:
    """Return the login name of *uid*, or an empty text. May ask a directory server, so it may take long."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def group_id(name: str) -> int:
    """Return the id of a group. Errors: UsageError."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise UsageError(
            f"read_only_group: there is no group {name[:50]!r} on this machine; make it with 'groupadd', or name another"
        ) from None


def closed_directory(path: str, group: str) -> str | None:
    """Return the first directory on the way to *path* that members of *group* may not pass through by it; None if all are open."""
    gid = group_id(group)
    for directory in reversed(Path(path).absolute().parents):
        found = directory.stat()
        if not found.st_mode & (0o010 if found.st_gid == gid else 0o001):
            return str(directory)
    return None


def _make_directory(directory: Path, mode: int) -> None:
    if not directory.is_dir():
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
        directory.chmod(mode)  # whatever the umask is: the group is meant to reach the socket


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _clear_leftover(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise CronallyError(
            f"{path} exists and is no socket; remove it, or choose another path with --socket"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except (TimeoutError, BlockingIOError):
            pass  # somebody listens and is busy
    raise CronallyError(
        f"another daemon answers at {path}; stop that one, or give this one a socket of its own with --socket"
    )


def _listening(path: str, group: str | None) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The mode must hold from the first moment, and the wrong group must not have it for one.
        mask = os.umask(0o777 & ~(SOCKET_MODE if group is None else 0o600))
        try:
            bound.bind(path)
        finally:
            os.umask(mask)
        if group is not None:
            _give(path, group)
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
    return bound


def _give(path: str, group: str) -> None:
    try:
        os.chown(path, -1, group_id(group))
    except OSError as exc:
        with suppress(OSError):
            Path(path).unlink()
        raise CronallyError(
            f"the socket {path} cannot be given to the group {group} ({_reason(exc)}); make the daemon's user a member of it (in "
            "a service file SupplementaryGroups=, and SystemCallFilter=@chown), or leave out read_only_group"
        ) from exc
    Path(path).chmod(SOCKET_MODE)


def _reason(exc: OSError) -> str:
    return (exc.strerror or str(exc)).lower() if exc.errno != errno.EADDRINUSE else "it exists already"
