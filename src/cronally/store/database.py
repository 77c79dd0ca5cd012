"""One SQLite file in use: its connections and its transactions.

1. The only file that knows aiosqlite. What leaves it is rows and StoreErrors.
2. One writer, and two readers that see what is committed: one for the engine's short reads, one for listings, so that a
   long listing delays nobody.
3. A call runs one statement to its end in one trip to the connection's thread; ``write`` and ``in_one_trip`` run a whole transaction. While SQLite works, the event loop goes
   on; while Python moves rows, it waits. So large answers come as one row of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import aiosqlite

from cronally.errors import InternalError, SchemaMismatch, StoreCorrupt, StoreError
from cronally.store.faults import translated, unusable
from cronally.store.lock import Lock
from cronally.store.restoring import finish_restore
from cronally.store.schema import APPLICATION_ID, CLEAN_STOP, MIGRATIONS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence

    Parameters = Sequence[object] | Mapping[str, object]

T = TypeVar("T")

_BUSY_TIMEOUT_S: Final = 5.0  # somebody's shell or backup may hold the file for a moment
_CACHE_KIB: Final = 8_192
_WRITER_CACHE_KIB: Final = (
    32_768  # rows of many schedules go to as many pages: what is written next was written lately
)
_CHECKPOINT_PAGES: Final = (
    8_000  # 32 MB; a page that is written every second is copied to the file less often
)
_WAL_LIMIT_BYTES: Final = 64 << 20  # a checkpoint cuts the log to this


class Connection(Protocol):
    """Where statements run."""

    async def rows(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]: ...

    async def json(self, sql: str, parameters: Parameters = ()) -> Any:
        """Return the one value of the one row, read as JSON."""
        ...


class Database:
    """The file at *path*, open. Build it with ``open``.

    Attributes: was_clean: it is new, or its last user closed it in order. kept: where the store is that was there before a
        restore which this opening finished, or None.
    """

    def __init__(
        self,
        path: str,
        lock: Lock,
        connections: list[_Connection],
        *,
        was_clean: bool,
        kept: str | None,
        is_durable: bool,
    ) -> None:
        """Take what ``open`` has opened."""
        self.path = path
        self._is_durable = is_durable
        self.was_clean = was_clean
        self.kept = kept
        self._lock = lock
        self._turn = asyncio.Lock()
        self._take(connections)

    @classmethod
    async def open(cls, path: str, *, is_durable: bool = True) -> Database:
        """Open or create the file, take its lock, check it if need be, and bring its schema up to date.

        is_durable: what was written is on the disk when it is committed; else a machine that stops may lose the file.

        Errors: StoreLocked, StoreCorrupt, SchemaMismatch, StoreError.
        """
        path = os.path.realpath(path)  # noqa: ASYNC240 - one file, one lock, whatever it is called
        lock = Lock.take(path)
        try:
            kept = finish_restore(path)
            _create(path)
            connections, was_clean = await _connect(path, is_durable=is_durable)
        except BaseException:
            lock.release()
            raise
        return cls(path, lock, connections, was_clean=was_clean, kept=kept, is_durable=is_durable)

    @asynccontextmanager
    async def transaction(self, *, beside: str | None = None) -> AsyncIterator[Connection]:
        """Give the writer to the caller; commit at the end, or take everything back if anything is raised.

        beside: another store's file, whose tables are then those of the schema ``beside``.

        If the task is cancelled in here, the statement that runs goes on to its end in its thread; the rollback stands
        in line behind it, and before whatever the next transaction does.
        """
        async with self._turn:
            await self._mend()
            if beside is not None:
                await self._writer.rows("ATTACH ? AS beside", (beside,))
            try:
                await self._writer.rows("BEGIN IMMEDIATE")
                yield self._writer
                await self._writer.rows("COMMIT")
            except BaseException:
                await self._writer.rollback()
                raise
            finally:
                if beside is not None:
                    await self._writer.rows("DETACH beside")

    @asynccontextmanager
    async def still(self) -> AsyncIterator[Connection]:
        """Give the caller a connection of its own, for which the store stays as it is now; others go on writing."""
        connection = await _Connection.open(self.path)
        try:
            await connection.rows("BEGIN")
            await connection.rows("SELECT count(*) FROM meta")  # the first read decides what all of them see
            yield connection
        finally:
            await connection.close()

    async def write(self, statements: Sequence[tuple[str, Parameters]]) -> list[int]:
        """Run *statements* in one transaction and in one trip to the writer's thread: all of them or none. Return how many rows each has changed.

        In a burst each trip waits for a turn of a busy event loop. If the task is cancelled in here, the transaction goes
        on to its end all the same.
        """
        async with self._turn:
            await self._mend()
            return await self._writer.run(statements)

    async def in_one_trip(self, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        """Do *work* in one transaction, in one trip to the writer's thread; return what it gives. It awaits its connection alone.

        Hundreds of statements, each of which would wait for a turn of the event loop. If the task is cancelled in here, the
        transaction goes on to its end all the same.
        """
        async with self._turn:
            await self._mend()
            return await self._writer.do(work)

    async def fold_log(self) -> None:
        """Copy the log to the file, as far as nobody reads it. Errors: StoreError."""
        async with self._turn:
            await self._writer.rows("PRAGMA wal_checkpoint(PASSIVE)")

    async def close(self) -> None:
        """Let go of the file, once whoever writes has finished."""
        async with self._turn:
            await _close(self._connections)
            self._lock.release()

    def _take(self, connections: list[_Connection]) -> None:
        self._connections = connections
        self._writer, reader, lister = connections
        self.reader: Connection = reader
        self.lister: Connection = lister
        self._files = _files(self.path)

    async def _mend(self) -> None:
        """Open the file anew if its log, or the log's index, was removed: what is written to a file without a name is lost in a crash.

        SQLite still has the old ones open; closing puts what is in them into the file. Errors: StoreError, also if it is the
        file itself that was removed or replaced; then nothing is written until it is back.
        """
        files = _files(self.path)
        if files == self._files:
            return
        if files[0] != self._files[0]:
            raise StoreError(
                f"the store {self.path} was removed or replaced while it was in use; put the file back, or stop the daemon "
                "and restore a backup"
            )
        await _close(self._connections)
        connections, _ = await _connect(self.path, is_durable=self._is_durable)
        self._take(connections)


class _Straight:
    """Runs statements in the thread that it is used in: nothing that is awaited of it ever suspends."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def rows(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, parameters).fetchall()

    async def json(self, sql: str, parameters: Parameters = ()) -> Any:
        [[value]] = await self.rows(sql, parameters)
        return json.loads(value)


def _driven(work: Coroutine[Any, Any, T]) -> T:
    """Return what *work* gives, which never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise InternalError("work in the writer's thread waits for something else than its connection")


class _Connection:
    def __init__(self, path: str, connection: aiosqlite.Connection) -> None:
        self._path = path
        self._connection = connection

    @classmethod
    async def open(cls, path: str) -> _Connection:
        connection = aiosqlite.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        # A process that dies of something unforeseen shall end, and be started again, not wait for this thread.
        thread: Any = getattr(connection, "_thread", connection)
        thread.daemon = True
        with translated(path):
            try:
                opened = cls(path, await connection)
            except BaseException:
                thread.join(
                    _BUSY_TIMEOUT_S
                )  # it is about to end, and must not outlive the event loop it answers to
                raise
        try:
            await opened.rows(f"PRAGMA cache_size = -{_CACHE_KIB}")
        except BaseException:
            await opened.close()
            raise
        return opened

    async def rows(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        with translated(self._path):
            return list(await self._connection.execute_fetchall(sql, parameters))  # type: ignore[arg-type]  # a mapping is fine

    async def json(self, sql: str, parameters: Parameters = ()) -> Any:
        [[value]] = await self.rows(sql, parameters)
        return json.loads(value)

    async def do(self, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        """Do *work*, which awaits the connection it is given and nothing else, as one transaction."""
        return await self._in_one_transaction(lambda connection: _driven(work(_Straight(connection))))

    async def run(self, statements: Sequence[tuple[str, Parameters]]) -> list[int]:
        """Run *statements* as one transaction; return how many rows each has changed."""
        return await self._in_one_transaction(
            lambda connection: [
                connection.execute(sql, parameters).rowcount for sql, parameters in statements
            ]
        )

    async def _in_one_transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do *work* in the connection's thread, in one trip there."""

        def transaction() -> T:
            connection = self._connection._conn  # noqa: SLF001 - in its own thread, where aiosqlite uses it, too
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise
            return result

        with translated(self._path):
            # Nothing public of aiosqlite runs more than one statement.
            return await self._connection._execute(transaction)  # type: ignore[no-untyped-call,no-any-return]  # noqa: SLF001 - it is private, so it has no types

    async def rollback(self) -> None:
        with suppress(StoreError), translated(self._path):  # the error before it is the news
            await self._connection.rollback()

    async def close(self) -> None:
        with suppress(StoreError), translated(self._path):
            await self._connection.close()


async def _connect(path: str, *, is_durable: bool) -> tuple[list[_Connection], bool]:
    """Return the three connections to the file, which is admitted, and whether it was closed in order."""
    connections: list[_Connection] = []
    try:
        for _ in range(3):
            connections.append(await _Connection.open(path))  # noqa: PERF401 - those that are open get closed
        writer, *readers = connections
        was_clean = await _admit(path, writer, is_durable=is_durable)
        for reader in readers:
            await reader.rows("PRAGMA query_only = ON")
            await reader.rows("SELECT count(*) FROM meta")  # opens the log, which is there from then on
    except BaseException:
        await _close(connections)
        raise
    return connections, was_clean


async def _close(connections: list[_Connection]) -> None:
    for connection in reversed(connections):
        await connection.close()


def _files(path: str) -> list[tuple[int, int] | None]:
    """Return which files the names of a store mean now: the file's, the log's and its index's."""
    found: list[tuple[int, int] | None] = []
    for suffix in ("", "-wal", "-shm"):
        try:
            status = os.stat(f"{path}{suffix}")
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino))
    return found


async def _admit(path: str, writer: _Connection, *, is_durable: bool) -> bool:
    """Make sure that the file is ours and sound, and bring it up to date. Return whether it was closed in order."""
    [[application_id]] = await writer.rows("PRAGMA application_id")
    [[version]] = await writer.rows("PRAGMA user_version")
    [[tables]] = await writer.rows("SELECT count(*) FROM sqlite_master")
    is_new = application_id == 0 and tables == 0
    if not is_new and application_id != APPLICATION_ID:
        raise StoreError(
            f"{path} is an SQLite file of another program; name a file of Cronally's own with --store"
        )
    if version > len(MIGRATIONS):
        raise SchemaMismatch(path, found=version, wanted=len(MIGRATIONS))
    [[mode]] = await writer.rows("PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise StoreError(
            f"{path} cannot have a write-ahead log (SQLite stays in mode {mode!r}); "
            "put the store on a local disk, not on a network share"
        )
    await writer.rows(f"PRAGMA synchronous = {'FULL' if is_durable else 'OFF'}")
    await writer.rows(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
    await writer.rows(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    await writer.rows(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
    was_clean = is_new or await writer.rows("SELECT value FROM meta WHERE key = ?", (CLEAN_STOP,)) == [(1,)]
    if not was_clean:
        [[verdict], *_] = await writer.rows("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise StoreCorrupt(path, " ".join(verdict.split()))
    for number, statements in enumerate(MIGRATIONS[version:], version + 1):
        await _migrate(writer, number, statements)
    return was_clean


async def _migrate(writer: _Connection, number: int, statements: tuple[str, ...]) -> None:
    try:
        await writer.rows("BEGIN IMMEDIATE")
        for statement in statements:
            await writer.rows(statement)
        await writer.rows(f"PRAGMA application_id = {APPLICATION_ID}")
        await writer.rows(f"PRAGMA user_version = {number}")
        await writer.rows("COMMIT")
    except BaseException:
        await writer.rollback()
        raise


def _create(path: str) -> None:
    """Make the file, for its owner's eyes only (messages are in it), unless it is there.

    Never opens one that is there: closing it again would drop SQLite's own locks on it.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except OSError as exc:
        raise unusable(path, exc.strerror or str(exc)) from exc
