"""A disk between SQLite and the real one: it remembers what was asked of it, and fails when a test wants it.

It is a SQLite VFS in ctypes, registered in the library that Python's sqlite3 uses: the system's own, with writes, truncations, syncs,
removals and reads going through here. From what it remembers ``Images`` makes the files as they would be found after the process was
killed, or the power was cut, at any moment.
"""

from __future__ import annotations

import _sqlite3
import ctypes as c
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

SECTOR = 512


class Event(NamedTuple):
    """What was asked.

    kind: open (to create), write, truncate, sync, delete, or mark, where *data* is what the test noted. at: an offset or a size; of
    open and sync which opening of the file it is; of delete whether the directory is synced, too.
    """

    kind: str
    path: str = ""
    at: int = 0
    data: Any = b""


class Disk:
    """What has happened, in order. Attributes: fails: called with each event before it happens; a result code of SQLite's other than 0 is
    what happens instead. It is called for ``read``, too, which is not kept among *events*.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.fails: Callable[[Event], int] = lambda _event: 0

    def mark(self, what: object) -> None:
        """Note that something has happened now, as far as the world outside can tell."""
        self.events.append(Event("mark", data=what))


@contextmanager
def recording() -> Iterator[Disk]:
    """Have every database that is opened in the block, and closed in it, lie on a ``Disk``.

    Errors: LookupError says why that cannot be done here.
    """
    library = _library()
    disk = Disk()
    shim = _Shim(library, disk)
    if library.sqlite3_vfs_register(c.byref(shim.vfs), 1):
        raise LookupError("SQLite takes no other VFS")
    try:
        yield disk
    finally:
        library.sqlite3_vfs_unregister(c.byref(shim.vfs))
        library.sqlite3_vfs_register(c.cast(shim.system, c.c_void_p), 1)
        _KEPT.append(shim)  # a connection that was not closed would call it


_KEPT: list[object] = []


def unavailable() -> str | None:
    """Say why ``recording`` does not work here, or None."""
    try:
        with recording():
            pass
    except LookupError as exc:
        return str(exc)
    return None


# --- after a crash ------------------------------------------------------------------------------------------------


class _File:
    def __init__(self) -> None:
        self.durable: bytearray | None = None  # None: it is not there
        self.volatile: list[Event] = []

    def keep(self, count: int) -> None:
        """Make the first *count* of what is volatile durable."""
        for event in self.volatile[:count]:
            self.durable = _applied(self.durable, event)
        del self.volatile[:count]


class Images:
    """The files as they would be found if everything stopped now; ``step`` moves on by one event."""

    def __init__(self, existing: Sequence[str] = ()) -> None:
        """Begin with the files *existing*, which are empty."""
        self._files: dict[str, _File] = {}
        self._to_sync_directory: set[int] = set()
        for path in existing:
            self._file(path).durable = bytearray()

    def step(self, event: Event) -> None:
        if event.kind == "mark":
            return
        file = self._file(event.path)
        if event.kind == "open":
            # SQLite's unix VFS syncs the directory with the first sync of a log or journal.
            if event.path.endswith(("-wal", "-journal")):
                self._to_sync_directory.add(event.at)
            if file.durable is None:
                file.volatile.append(event)
            return
        file.volatile.append(event)
        if event.kind == "sync":
            file.keep(len(file.volatile))
        if (event.kind == "sync" and event.at in self._to_sync_directory) or (
            event.kind == "delete" and event.at
        ):
            self._to_sync_directory.discard(event.at)
            for other in self._files.values():
                deletes = [n for n, earlier in enumerate(other.volatile) if earlier.kind == "delete"]
                other.keep(deletes[-1] + 1 if deletes else 0)

    def killed(self) -> dict[str, bytes]:
        """The process was killed: all that it wrote is there."""
        return self._image(lambda event: event)

    def powerless(self) -> dict[str, bytes]:
        """The power was cut, and only what was synced is there."""
        return self._image(lambda _event: None)

    def torn(self, chance: random.Random) -> dict[str, bytes]:
        """The power was cut, and of what was not synced any part may be there: some writes, some sectors of a write."""

        def survives(event: Event) -> Event | None:
            if chance.random() < 0.5:
                return None
            if event.kind == "write" and chance.random() < 0.3:
                return event._replace(
                    data=event.data[: SECTOR * chance.randint(0, len(event.data) // SECTOR)]
                )
            return event

        return self._image(survives)

    def _image(self, survives: Callable[[Event], Event | None]) -> dict[str, bytes]:
        found = {}
        for path, file in self._files.items():
            content = None if file.durable is None else bytearray(file.durable)
            for event in file.volatile:
                left = survives(event)
                if left is not None:
                    content = _applied(content, left)
            if content is not None:
                found[path] = bytes(content)
        return found

    def _file(self, path: str) -> _File:
        return self._files.setdefault(path, _File())


def _applied(content: bytearray | None, event: Event) -> bytearray | None:
    if event.kind == "delete":
        return None
    content = bytearray() if content is None else content
    if event.kind == "truncate":
        del content[event.at :]
    elif event.kind == "write" and event.data:
        if len(content) < event.at:
            content.extend(bytes(event.at - len(content)))
        content[event.at : event.at + len(event.data)] = event.data
    return content


# --- SQLite's side ------------------------------------------------------------------------------------------------

_p, _i, _i64 = c.c_void_p, c.c_int, c.c_int64
_Open = c.CFUNCTYPE(_i, _p, _p, _p, _i, _p)  # names as addresses: the unix VFS keeps them
_Delete = c.CFUNCTYPE(_i, _p, _p, _i)
_Close = c.CFUNCTYPE(_i, _p)
_Transfer = c.CFUNCTYPE(_i, _p, _p, _i, _i64)
_Truncate = c.CFUNCTYPE(_i, _p, _i64)
_Sync = c.CFUNCTYPE(_i, _p, _i)


class _Methods(c.Structure):
    """sqlite3_io_methods: what can be done with an open file."""

    _fields_ = (
        ("iVersion", _i),
        ("xClose", _Close),
        ("xRead", _Transfer),
        ("xWrite", _Transfer),
        ("xTruncate", _Truncate),
        ("xSync", _Sync),
        *[(f"other{number}", _p) for number in range(13)],  # as they are
    )


class _Vfs(c.Structure):
    """sqlite3_vfs: what can be done with a name."""

    _fields_ = (
        ("iVersion", _i),
        ("szOsFile", _i),
        ("mxPathname", _i),
        ("pNext", _p),
        ("zName", c.c_char_p),
        ("pAppData", _p),
        ("xOpen", _Open),
        ("xDelete", _Delete),
        *[(f"other{number}", _p) for number in range(14)],
    )


class _OpenFile(c.Structure):
    """sqlite3_file: the methods of one that is open; the rest is the VFS's own."""

    _fields_ = (("pMethods", c.POINTER(_Methods)),)


class _Shim:
    def __init__(self, library: Any, disk: Disk) -> None:
        found = library.sqlite3_vfs_find(None)
        if not found:
            raise LookupError("SQLite has no default VFS")
        self.system = c.cast(found, c.POINTER(_Vfs))
        self._disk = disk
        self._paths: dict[int, str] = {}
        self._methods: dict[int, tuple[_Methods, Any]] = {}
        self.vfs = _Vfs.from_buffer_copy(self.system.contents)
        self.vfs.zName = b"recording"
        self.vfs.pNext = None
        self.vfs.xOpen = _Open(self._open)
        self.vfs.xDelete = _Delete(self._delete)

    def _open(self, vfs: Any, name: int | None, file: int, flags: int, out: Any) -> int:
        result = int(self.system.contents.xOpen(vfs, name, file, flags, out))
        opened = _OpenFile.from_address(file)
        if result == 0 and opened.pMethods and name is not None:
            self._paths[file] = c.string_at(name).decode()
            opened.pMethods = c.pointer(self._patched(opened.pMethods))
            if flags & 0x4:  # SQLITE_OPEN_CREATE
                self._disk.events.append(Event("open", self._paths[file], file))
        return result

    def _delete(self, vfs: Any, name: int, is_synced: int) -> int:
        event = Event("delete", c.string_at(name).decode(), is_synced)
        return self._asked(event, lambda: self.system.contents.xDelete(vfs, name, is_synced))

    def _patched(self, methods: Any) -> _Methods:
        address = c.addressof(methods.contents)
        if address not in self._methods:
            real = methods.contents
            patched = _Methods.from_buffer_copy(real)

            def write(file: int, data: int, size: int, at: int) -> int:
                event = Event("write", self._paths[file], at, c.string_at(data, size))
                return self._asked(event, lambda: real.xWrite(file, data, size, at))

            def read(file: int, data: int, size: int, at: int) -> int:
                failed = self._disk.fails(Event("read", self._paths[file], at))
                return failed or int(real.xRead(file, data, size, at))

            def truncate(file: int, size: int) -> int:
                event = Event("truncate", self._paths[file], size)
                return self._asked(event, lambda: real.xTruncate(file, size))

            def sync(file: int, flags: int) -> int:
                return self._asked(Event("sync", self._paths[file], file), lambda: real.xSync(file, flags))

            patched.xWrite, patched.xRead = _Transfer(write), _Transfer(read)
            patched.xTruncate, patched.xSync = _Truncate(truncate), _Sync(sync)
            self._methods[address] = (patched, methods)
        return self._methods[address][0]

    def _asked(self, event: Event, act: Callable[[], int]) -> int:
        failed = self._disk.fails(event)
        if failed:
            return failed
        self._disk.events.append(event)
        return int(act())


def _library() -> Any:
    """Return the SQLite that Python's sqlite3 module uses, as ctypes sees it."""
    try:
        library = c.CDLL(_sqlite3.__file__)  # its symbols are looked up in what it is linked with, too
        library.sqlite3_vfs_find.restype = _p
        library.sqlite3_vfs_find.argtypes = [c.c_char_p]
        library.sqlite3_libversion.restype = c.c_char_p
        library.sqlite3_vfs_register.argtypes = [_p, _i]
        library.sqlite3_vfs_unregister.argtypes = [_p]
    except (AttributeError, OSError) as exc:
        raise LookupError(f"Python's sqlite3 hides SQLite's own functions ({exc})") from None
    if library.sqlite3_libversion().decode() != sqlite3.sqlite_version:
        raise LookupError("Python's sqlite3 uses another SQLite than the one that can be found")
    return library
