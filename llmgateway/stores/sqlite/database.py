"""Connections, transactions and migrations of the embedded store's file."""

from __future__ import annotations

import functools
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

from llmgateway.errors import ConfigurationError, StoreUnavailable

from .schema import MIGRATIONS

_MAPPED_BYTES = 256 * 1024 * 1024


class SQLiteDatabase:
    """One file in WAL mode, shared by the threads and processes of one host.

    Each thread has a connection of its own, made when it first asks. The constructor brings
    the file to the present shape and leaves no connection open. Connections are closed around
    ``os.fork()`` and come back by themselves on both sides.

    Args:
        path: The file; made with mode 0600 if it is not there. Its folder must exist, on a local disk.
        timeout: Seconds to wait for another writer before :class:`StoreUnavailable`.
        migrations: What leads to the file's shape, see ``schema.py``.
        durable: Whether what was committed survives loss of power. If not, the last commits may be gone
            then; the file is sound in any case.

    Raises:
        ConfigurationError: a newer program wrote the file; it is left as it is.
        StoreUnavailable: the file cannot be used.
    """

    name = "sqlite"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float = 5.0,
        migrations: Sequence[Sequence[str]] = MIGRATIONS,
        durable: bool = True,
    ) -> None:
        self._path = os.fspath(path)
        self._timeout = timeout
        # FULL syncs the WAL at every commit, NORMAL at every checkpoint
        # (https://www.sqlite.org/pragma.html#pragma_synchronous).
        self._synchronous = "FULL" if durable else "NORMAL"
        self._local = threading.local()
        self._guard = threading.Lock()
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()
        self._held: list[_Connection] = []
        _watch_forks()
        _databases.add(self)
        with translated():
            self._create()
            self._migrate(migrations)
        self.close()

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Every row of one reading statement, from one snapshot."""
        # Spelled out and not a context manager of a generator: this is the look-up of every request.
        try:
            with self._connection() as connection:
                return connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Do what is inside as one step; once the block is left without an error a durable file has it for good."""
        with translated(), self._connection() as connection, begun(connection):
            yield connection

    def ping(self) -> None:
        self.rows("PRAGMA user_version")

    def close(self) -> None:
        """Close every thread's connection; the next use opens a new one."""
        with self._guard:
            for connection in self._connections:
                connection.hold()
                connection.release()

    def hold_for_fork(self) -> None:
        """Wait until no thread is at work, and let none begin; :meth:`release_after_fork` lets them go on."""
        self._guard.acquire()
        self._held = list(self._connections)
        for connection in self._held:
            connection.hold()

    def release_after_fork(self) -> None:
        held, self._held = self._held, []
        for connection in held:
            connection.release()
        self._guard.release()

    def _connection(self) -> _Connection:
        try:
            return self._local.connection  # type: ignore[no-any-return]
        except AttributeError:
            connection = self._local.connection = _Connection(self._connect)
            with self._guard:
                self._connections.add(connection)
            return connection

    def _connect(self) -> sqlite3.Connection:
        # check_same_thread is off because close() and a fork close what other threads have opened,
        # under the connection's lock. Transactions are ours: isolation_level None.
        connection = sqlite3.connect(
            self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        # The journal cuts a usage record off once this store has acknowledged it, and an admin who
        # was told that a key is revoked does not look again. Both write rarely or in batches, so
        # the sync costs no request anything. Counters, which write for every request, have a file
        # of their own.
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        # Pages are read in place from the system's cache, which all threads and processes share:
        # with 200,000 keys a look-up takes half the time, and no connection needs a large cache.
        connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
        return connection

    def _create(self) -> None:
        # O_EXCL, so that a file that is there is not opened and closed beside SQLite: POSIX drops
        # all of a process' locks on a file when it closes any descriptor of it. The -wal and -shm
        # files take their mode from this one.
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))

    def _migrate(self, migrations: Sequence[Sequence[str]]) -> None:
        with self._connection() as connection:
            if self._version(connection, migrations) == len(migrations):
                return
            self._enter_wal(connection)
            with begun(connection):
                # Again: another process may have been faster.
                for migration in migrations[self._version(connection, migrations) :]:
                    for statement in migration:
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {len(migrations)}")

    def _version(self, connection: sqlite3.Connection, migrations: Sequence[Sequence[str]]) -> int:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            problem = (
                f"{self._path} was written by a newer llmgateway (version {version} of the file; this program knows "
                f"up to {len(migrations)}): install the newer program, or use another instance folder."
            )
            raise ConfigurationError([problem])
        return int(version)

    def _enter_wal(self, connection: sqlite3.Connection) -> None:
        # SQLite does not wait for the lock that this switch needs, whatever its time-out, and
        # several processes may be starting.
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
            else:
                return


class _Connection:
    """One thread's connection: opened by its use, and again after it was closed."""

    __slots__ = ("__weakref__", "_connect", "_lock", "_open")

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._open: sqlite3.Connection | None = None

    def __enter__(self) -> sqlite3.Connection:
        self._lock.acquire()
        try:
            connection = self._open
            if connection is None:
                connection = self._open = self._connect()
        except BaseException:
            self._lock.release()
            raise
        return connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def __del__(self) -> None:
        if self._open is not None:
            self._open.close()

    def hold(self) -> None:
        """Wait until the connection is idle, close it and keep everybody out until :meth:`release`."""
        self._lock.acquire()
        if self._open is not None:
            self._open.close()
            self._open = None

    def release(self) -> None:
        self._lock.release()


# A child may neither use nor close a connection that its parent has made, and what SQLite
# remembers of one in the process' memory makes even the child's own connections to that file
# believe in locks that only the parent holds (https://www.sqlite.org/howtocorrupt.html, 2.6).
# So no connection is open while the process forks.
_databases: weakref.WeakSet[SQLiteDatabase] = weakref.WeakSet()
_forking = threading.Lock()
_held: list[SQLiteDatabase] = []


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def _before_fork() -> None:
    _forking.acquire()
    for database in list(_databases):
        database.hold_for_fork()
        _held.append(database)


def _after_fork() -> None:
    while _held:
        _held.pop().release_after_fork()
    _forking.release()


@contextmanager
def begun(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """What is inside is one transaction: all of it is done, or nothing."""
    # IMMEDIATE: a transaction that reads first and then wants to write cannot wait for
    # another writer (its snapshot would be old) and would fail at once instead.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def translated() -> Iterator[None]:
    """The driver's errors leave the block as :class:`StoreUnavailable`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"The embedded store does not serve ({type(error).__name__}). Try again later.")
